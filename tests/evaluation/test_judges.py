"""Judges of sync: distances of embeddings, and SyncNet as released."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from syncnet_sample import save_syncnet

from conftest import RATE
from talkface.evaluation.judges.embeddings import sync_accuracy, sync_distance
from talkface.evaluation.judges.syncnet import OriginalSyncNet, SyncNet, mfcc


@given(late=st.integers(-12, 12), seed=st.integers(0, 50), padded=st.booleans())
def test_the_shift_of_the_sound_is_found(late: int, seed: int, padded: bool) -> None:
    sound = np.random.default_rng(seed).standard_normal((120, 8))
    lips = np.roll(sound, late, axis=0)  # the lips show what was heard ``late`` frames before
    score = sync_distance(lips[20:100], sound[20:100], padded=padded)
    assert score.offset == late
    assert score.confidence > 1
    assert score.curve.argmin() - 15 == late
    assert score.distance == score.curve.min()


def test_distances_are_those_of_the_released_code() -> None:
    random = np.random.default_rng(0)
    video, audio = random.standard_normal((2, 40, 6))
    score = sync_distance(video, audio, padded=True)
    padded = torch.nn.functional.pad(torch.from_numpy(audio), (0, 0, 15, 15))
    apart = [(torch.from_numpy(row) - padded[k : k + 31]).norm(dim=1) for k, row in enumerate(video)]
    mean = torch.stack(apart).mean(0)
    assert score.distance == pytest.approx(float(mean.min()))
    assert score.confidence == pytest.approx(float(mean.median() - mean.min()))
    assert score.offset == 15 - int(mean.argmin())


def test_sync_needs_enough_windows_of_one_shape() -> None:
    with pytest.raises(ValueError, match="shifts"):
        sync_distance(np.zeros((15, 2)), np.zeros((15, 2)))
    with pytest.raises(ValueError, match="shifts"):
        sync_distance(np.zeros((30, 2)), np.zeros((31, 2)))


def test_accuracy_is_one_for_the_right_sound_and_chance_for_noise() -> None:
    video, noise = np.random.default_rng(0).standard_normal((2, 3000, 4))
    assert sync_accuracy(video, video) == 1
    assert sync_accuracy(video, np.roll(video, 1, 0)) == 1  # a frame is tolerated
    assert sync_accuracy(video, np.roll(video, 3, 0)) < 0.1
    assert sync_accuracy(video, noise) == pytest.approx(3 / 31, abs=0.03)
    assert np.isnan(sync_accuracy(video[:30], video[:30]))


def test_syncnet_has_the_released_layers() -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in SyncNet().state_dict().items()}
    expected = {
        "netcnnaud.0.weight": (64, 1, 3, 3),
        "netcnnaud.4.weight": (192, 64, 3, 3),
        "netcnnaud.8.weight": (384, 192, 3, 3),
        "netcnnaud.11.weight": (256, 384, 3, 3),
        "netcnnaud.14.weight": (256, 256, 3, 3),
        "netcnnaud.18.weight": (512, 256, 5, 4),
        "netcnnaud.19.running_mean": (512,),
        "netcnnlip.0.weight": (96, 3, 5, 7, 7),
        "netcnnlip.4.weight": (256, 96, 1, 5, 5),
        "netcnnlip.8.weight": (256, 256, 1, 3, 3),
        "netcnnlip.11.weight": (256, 256, 1, 3, 3),
        "netcnnlip.14.weight": (256, 256, 1, 3, 3),
        "netcnnlip.18.weight": (512, 256, 1, 6, 6),
        "netfcaud.0.weight": (512, 512),
        "netfcaud.3.weight": (1024, 512),
        "netfclip.3.bias": (1024,),
    }
    assert expected.items() <= shapes.items()
    assert len(shapes) == 102


def test_syncnet_is_read_from_both_kinds_of_file(tmp_path: Path) -> None:
    save_syncnet(tmp_path)
    released, safe = (
        OriginalSyncNet(tmp_path / name) for name in ("syncnet_v2.model", "syncnet.safetensors")
    )
    assert released.identity == safe.identity
    pictures = np.random.default_rng(0).integers(0, 256, (23, 224, 224, 3), np.uint8)
    embedded = released.embed_crops(pictures)
    assert embedded.shape == (19, 1024)
    assert np.allclose(embedded[17:], released.embed_crops(pictures[17:])[:2], atol=1e-4)


def test_cepstra_are_those_of_python_speech_features() -> None:
    time = np.arange(4000) / RATE
    tones = 8000 * np.sin(2 * np.pi * 440 * time) + 2000 * np.sin(2 * np.pi * 3100 * time) * time * 4
    cepstra = mfcc(np.round(tones))
    assert cepstra.shape == (24, 13)
    # What version 0.6 of that package gives.
    expected = [19.6246, 17.3386, -1.9223, 35.3949, -47.8235, -37.5844, 4.1212, -39.3593, -2.1887]
    assert cepstra[12] == pytest.approx([*expected, 38.8483, -4.655, 22.6941, 27.8387], abs=1e-3)
    assert mfcc(np.zeros(100)).shape == (1, 13)
    louder = mfcc(2 * np.round(tones))
    assert np.allclose(louder[:, 1:], cepstra[:, 1:])
    assert np.allclose(louder[:, 0] - cepstra[:, 0], np.log(4))
