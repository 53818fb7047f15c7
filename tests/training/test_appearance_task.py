"""The training that tells people apart."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from talkface.face.people.appearance import Appearance
from talkface.training.tasks.face_appearance import AppearanceConfig, View, equal_error, learn


def test_learning_finds_what_tells_people_apart() -> None:
    rng = np.random.default_rng(0)
    loud = np.linalg.qr(rng.normal(size=(40, 40)))[0]  # what people differ in, hidden under larger changes
    people = rng.normal(size=(30, 5)) @ loud[:5]

    def view(person: int) -> View:
        flat = people[person] + 3 * rng.normal(size=5) @ loud[5:10] + 0.05 * rng.normal(size=40)
        appearance = Appearance(flat, np.zeros(3), np.zeros(8), 0.0)
        return View(appearance, f"film {person}", str(person), "film", 0.0, "train")

    views = [view(person) for person in range(30) for _ in range(6)]
    mean, projection = learn(views, AppearanceConfig(dimensions=10, shrinkage=0.01))

    def error(faces: np.ndarray) -> float:
        faces = faces / np.linalg.norm(faces, axis=1, keepdims=True)
        same = np.repeat(np.eye(30, dtype=bool), 6, 0).repeat(6, 1)
        upper = np.triu_indices(180, 1)
        return equal_error((faces @ faces.T)[upper], same[upper])

    plain = np.stack([view.appearance.face for view in views]) - mean
    assert error(plain) > 0.2
    assert error(plain @ projection.T) < 0.05


@given(st.integers(2, 30), st.integers(2, 30))
def test_equal_error_of_perfect_and_inverted_scores(same: int, different: int) -> None:
    truth = np.array([True] * same + [False] * different)
    assert equal_error(truth.astype(float), truth) == 0.0
    assert equal_error(-truth.astype(float), truth) >= 0.5
