"""``imagine``: what a voice tells, portraits, both renderers, the verb."""

from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from conftest import RATE, write_wav
from talkface.diffusion.autoencoder import FaceAutoencoder
from talkface.diffusion.base import Base
from talkface.diffusion.captions import tokenize
from talkface.diffusion.critic import PortraitCritic
from talkface.diffusion.model import FaceDiffusion
from talkface.errors import AudioTooShort, InvalidOption, NoFaceFound
from talkface.face.masks import face_mask
from talkface.face.model import FaceModel
from talkface.face.motion import FaceMotion
from talkface.face.topology import eye_openness
from talkface.face.tracker import FaceTracker
from talkface.rendering.refiner import Refiner
from talkface.systems.imagineid.adapters import Adapters
from talkface.systems.imagineid.ccf import (
    MaskBlendingAdapter,
    SpatialConditionalAdapter,
)
from talkface.systems.imagineid.config import EMOTIONS
from talkface.systems.imagineid.pipeline import ImagineIdPipeline
from talkface.systems.imagineid.portrait import Imagined, adherence, contradicts, resting_mesh, voice_words
from talkface.systems.imagineid.random_traits import draw_hair, draw_person
from talkface.systems.imagineid.renderer import DiffusionRenderer
from talkface.systems.imagineid.voice import Speaker, one_mood

# -- tiny random models ---------------------------------------------------------------------------


def tiny_base() -> Base:
    torch.manual_seed(0)
    return Base("tiny", FaceDiffusion.debug(), FaceAutoencoder.debug(), 256)


@pytest.fixture(scope="module")
def portrait_of_somebody(picture: Image.Image) -> Imagined:
    image = np.asarray(picture.crop((104, 8, 344, 248)).resize((256, 256)))
    return Imagined(image, FaceTracker().track_image(image)[0].points, 0.0, 0.0, "")


def still_and_talking() -> FaceMotion:
    zeros = {"rotation": 3, "translation": 2, "gaze": 4}
    mouth = np.zeros((3, 28), np.float32)
    mouth[1:, 0] = 2.0
    return FaceMotion(
        beta_mouth=mouth,
        beta_upper=np.zeros((3, 16), np.float32),
        scale=np.ones((3, 1), np.float32),
        **{name: np.zeros((3, width), np.float32) for name, width in zeros.items()},
    )


@pytest.mark.parametrize("without", ["", "reference", "before", "mba"])
def test_frames_by_diffusion_change_the_face_alone(portrait_of_somebody: Imagined, without: str) -> None:
    base = tiny_base()
    sca = SpatialConditionalAdapter(base.model.config, base.model).eval()
    with torch.no_grad():
        for parameter in sca.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    adapters = Adapters(sca=sca, mba=MaskBlendingAdapter(base.autoencoder.config.decoder).eval())
    parts, refiner = frozenset(filter(None, [without])), Refiner.debug()

    def frames(seed: int, skip: int = 0) -> list[np.ndarray]:
        renderer = DiffusionRenderer(
            base, adapters, portrait_of_somebody, FaceModel.from_pretrained(), refiner, seed, without=parts
        )
        return list(renderer.frames([still_and_talking()], skip))

    one, again, other = frames(1), frames(1), frames(2)
    assert len(one) == 3
    assert all(frame.shape == (256, 256, 3) and frame.dtype == np.uint8 for frame in one)
    np.testing.assert_array_equal(one, again)
    for skip in (1, 2, 3):  # what a resumed run draws is what the whole run draws there
        rest = frames(1, skip)
        assert len(rest) == 3 - skip
        assert all((a == b).all() for a, b in zip(rest, one[skip:], strict=True))
    face = face_mask(portrait_of_somebody.points, (256, 256)) > 0.5
    assert (one[1] != other[1])[face].any(), "the face is drawn from noise"
    assert (one[0] != one[1])[face].any(), "the mesh moves it"
    corner = np.s_[:8, :8]
    assert (one[1][corner] != other[1][corner]).any() == (without == "mba"), "MBA keeps what is around it"


@cache
def tiny_pipeline() -> ImagineIdPipeline:
    pipeline = ImagineIdPipeline.debug()
    pipeline.models.imaginer.trusting = False
    return pipeline


def test_what_shows_no_face_is_refused_and_leaves_nothing(speech: Path, tmp_path: Path) -> None:
    """A random LDM never draws a face: that must be said, not animated."""
    takes = tiny_pipeline()(speech, takes=2, steps=1)
    assert len(takes) == 2
    assert [len(take) for take in takes] == [30, 30]
    with pytest.raises(NoFaceFound, match="another seed"):
        takes.save(tmp_path / "out.mp4")
    assert list(tmp_path.iterdir()) == []


def test_recordings_without_a_voice_are_refused(speech: Path, tmp_path: Path) -> None:
    pipeline = tiny_pipeline()
    noise = np.random.default_rng(0).normal(0, 3000, 3 * RATE).clip(-32768, 32767)
    for name, samples in (("silence", np.zeros(3 * RATE)), ("noise", noise)):
        empty = write_wav(tmp_path / f"{name}.wav", samples)
        for wrong in ({"audio": empty}, {"identity_from": empty}, {"emotion_from": empty}):
            with pytest.raises(AudioTooShort, match="of voice"):
                pipeline(**{"audio": speech, **wrong})


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"size": 300}, "size is 300"),
        ({"steps": 0}, "steps is 0"),
        ({"guidance": -1}, "guidance is -1"),
        ({"emotion": "jolly"}, "jolly"),
        ({"emotion": "sad", "emotion_from": "x.wav"}, "not both"),
        ({"renderer": "magic"}, "renderer is magic"),
        ({"takes": 0}, "takes is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"without": ["mba"]}, "renderer warp does not use mba"),
        ({"without": ["tai"]}, "there is no tai"),
    ],
)
def test_wrong_options_are_refused(speech: Path, options: dict, named: str) -> None:
    with pytest.raises(InvalidOption, match=named):
        tiny_pipeline()(speech, **options)


@pytest.mark.parametrize("seconds", [0.01, 1.0, 7.5])
def test_there_is_a_mood_for_every_frame(seconds: float) -> None:
    analyzer = tiny_pipeline().analyzer
    blocks = [np.zeros(round(seconds * RATE), np.float32)]
    moods = analyzer.moods(blocks, a_speaker())
    found = np.concatenate([next(moods) for _ in range(4)])
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    assert found.shape[1] == len(EMOTIONS)
    assert len(found) >= 25 * seconds


# -- what a voice tells ----------------------------------------------------------------------------


def a_speaker(male: float = 0.9, age: float = 40.0) -> Speaker:
    return Speaker(
        shape=np.zeros(40, np.float32),
        shape_spread=np.ones(40, np.float32),
        semantic=np.eye(64, dtype=np.float32)[0],
        male=male,
        male_spread=0.05,
        age=age,
        age_spread=8.0,
        seconds=9.0,
    )


def test_words_of_the_voice_give_way_to_those_of_the_prompt() -> None:
    man = a_speaker()
    assert voice_words(man, "") == ["middle-aged", "man"]
    assert voice_words(man, "a lady with a hat") == ["middle-aged"]
    assert voice_words(man, "an elderly gentleman") == []
    assert voice_words(a_speaker(male=0.5), "") == ["middle-aged"]
    assert contradicts(man, "a girl")
    assert not contradicts(man, "a guy, red hair")


@given(st.integers(0, 2**32), st.floats(18, 80), st.floats(0, 1))
def test_one_voice_could_be_many_people(seed: int, age: float, male: float) -> None:
    speaker = a_speaker(male, age)
    one, again, other = (draw_person(speaker, np.random.default_rng(s)) for s in (seed, seed, seed + 1))
    np.testing.assert_array_equal(one.semantic, again.semantic)
    assert 18 <= one.age == again.age <= 80
    assert np.linalg.norm(one.semantic) == pytest.approx(1, abs=1e-5)
    assert one.semantic @ other.semantic < 1 - 1e-3
    assert one.male == speaker.male  # nobody's voice is another sex's by chance


@given(st.integers(0, 2**32), st.floats(18, 80), st.sampled_from([0.1, 0.9]))
def test_hair_is_drawn_in_words_that_the_ldm_knows(seed: int, age: float, male: float) -> None:
    hair = draw_hair(a_speaker(male, age), "", np.random.default_rng(seed))
    assert tokenize(hair).ignored == []
    assert male > 0.5 or hair != "bald" or age < 30


@pytest.mark.parametrize("prompt", ["red hair", "a bald man", "blonde", "somebody with a hat"])
def test_hair_of_the_prompt_is_not_drawn(prompt: str) -> None:
    assert {draw_hair(a_speaker(), prompt, np.random.default_rng(seed)) for seed in range(20)} == {""}


def test_hair_goes_with_the_age_that_a_prompt_asks_for() -> None:
    words = [
        Counter(draw_hair(a_speaker(), prompt, np.random.default_rng(seed)) for seed in range(300))
        for prompt in ("", "an old man")
    ]
    assert words[1]["grey hair"] > 2 * words[0]["grey hair"] > 0


@given(st.integers(0, 2**32), st.sampled_from([256, 512]))
def test_meshes_differ_by_seed_and_lie_in_the_picture(seed: int, pixels: int) -> None:
    face = tiny_pipeline().models.face
    one, again, other = (
        resting_mesh(face, a_speaker(), np.random.default_rng(s), pixels) for s in (seed, seed, seed + 1)
    )
    np.testing.assert_array_equal(one, again)
    assert adherence(one, one) == 0
    assert adherence(one, other) > 0.005
    assert one[:, :2].min() > 0
    assert one[:, :2].max() < pixels - 1
    assert 0.06 < eye_openness(one).mean() < 0.12


def test_moods_are_sure_or_refused() -> None:
    assert one_mood("happy").argmax() == EMOTIONS.index("happy")
    with pytest.raises(InvalidOption, match="jolly"):
        one_mood("jolly")


@pytest.mark.parametrize("mirrored", [False, True])
def test_faces_with_spoilt_eyes_are_less_sound(picture: Image.Image, mirrored: bool) -> None:
    image = np.ascontiguousarray(np.asarray(picture)[:, :: -1 if mirrored else 1])
    points = FaceTracker().track_image(image)[0].points
    spoilt, critic = image.copy(), PortraitCritic.from_pretrained()
    left, top = points[[362, 263], :2].min(0).astype(int) - 12
    spoilt[top : top + 30, left : left + 55] = spoilt[top : top + 30, left : left + 55][::-1]
    assert critic.judge(spoilt, points) < critic.judge(image, points) - 0.1


def test_noise_is_the_voice_s_and_the_seed_s() -> None:
    pipeline = tiny_pipeline()
    imaginer = pipeline.models.imaginer
    generator = np.random.default_rng(0)
    one, other = generator.standard_normal((2, 8))
    voices = {"one": one, "again": one + 0.2 * generator.standard_normal(8), "other": other}

    def noise(voice: str, seed: int) -> np.ndarray:
        speaker = replace(a_speaker(), semantic=voices[voice])
        return imaginer._noise(speaker, np.random.default_rng(seed)).numpy().ravel()

    def alike(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.corrcoef(a, b)[0, 1])

    first = noise("one", 1)
    assert abs(first.std() - 1) < 0.1
    np.testing.assert_array_equal(first, noise("one", 1))
    assert alike(first, noise("again", 1)) > 0.85
    assert abs(alike(first, noise("one", 2))) < 0.1
    expected = float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
    assert alike(first, noise("other", 1)) == pytest.approx(expected, abs=0.1)
