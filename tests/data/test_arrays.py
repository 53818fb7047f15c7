"""Arrays and meshes in little space."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from talkface.data.arrays import packed_arrays, unpacked_arrays
from talkface.data.manifest import Manifest
from talkface.data.meshes import STEP, MeshCodec
from talkface.face.crop import face_unit


@pytest.fixture(scope="module")
def prepared(prepared_people: Path) -> Path:
    return prepared_people


@given(
    arrays.arrays(np.int32, st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 3))),
    arrays.arrays(np.float32, st.integers(1, 9), elements=st.floats(-5, 5, width=32)),
)
@settings(max_examples=30, deadline=None)
def test_packed_arrays_come_back(a: np.ndarray, b: np.ndarray) -> None:
    found = unpacked_arrays(packed_arrays({"a": a, "b": b}))
    assert found["a"].dtype == a.dtype
    np.testing.assert_array_equal(found["a"], a)
    np.testing.assert_array_equal(found["b"], b)


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_meshes_are_kept_to_a_step(prepared: Path, scale: float) -> None:
    manifest = Manifest.load(prepared)
    points = manifest.track(manifest.items[0]).points * scale
    found = MeshCodec.of(points).encode(points)
    back = MeshCodec.of(points).decode(unpacked_arrays(packed_arrays(found)))
    assert np.abs(back - points).max() < 0.75 * STEP * face_unit(points[0]) * 1.3
