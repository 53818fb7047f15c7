"""What all four pipelines promise, on tiny random networks: one return type, takes, resume, own models."""

import subprocess
import sys
from collections.abc import Callable
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import read_video
from talkface.errors import InvalidOption, ModelUnavailable, NoFaceFound
from talkface.hub import save_pretrained
from talkface.media.decode import Frame
from talkface.output import Generation, Take
from talkface.performance.model import MotionModel
from talkface.systems.g4g.pipeline import G4GPipeline
from talkface.systems.imagineid.pipeline import ImagineIdPipeline
from talkface.systems.pipeline import Pipeline
from talkface.systems.tccp.pipeline import TccpPipeline
from talkface.systems.thpad.pipeline import ThpadPipeline

VERBS = ("animate", "dub", "imagine", "fill")
Make = Callable[..., Generation[Any]]


@cache
def debug(kind: type[Pipeline]) -> Pipeline:
    return kind.debug()


@pytest.fixture
def make(portrait: Path, talking: Path, speech: Path) -> Callable[[str], Make]:
    """The pipelines by verb, on short inputs."""

    def make(verb: str) -> Make:
        if verb == "animate":
            return lambda **given: debug(ThpadPipeline)(portrait, speech, **{"size": 96} | given)
        if verb == "dub":
            return lambda **given: debug(G4GPipeline)(talking, speech, **given)
        if verb == "imagine":
            return lambda **given: debug(ImagineIdPipeline)(speech, **{"steps": 1} | given)
        options = {"identity": portrait, "steps": 1, "stop": 0.8}
        return lambda **given: debug(TccpPipeline)(talking, speech, **options | given)

    return make


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_gives_takes_that_are_saved(verb: str, make: Callable[[str], Make], tmp_path: Path) -> None:
    generation = make(verb)()
    assert isinstance(generation, Generation)
    assert len(generation) == 1
    path = generation.save(tmp_path / "out.mp4")[0]
    video = read_video(path)
    assert (video.frames, video.size) == (generation.frame_count, generation.size)
    assert video.fps == generation.fps == 25.0
    assert video.metadata["synthetic"] == "true"
    assert video.metadata["model"].endswith("-debug")
    assert (generation.motion is not None) == (verb != "dub")
    assert (generation.seed is None) == (verb == "dub") == ("seed" not in video.metadata)


@pytest.mark.parametrize("verb", VERBS)
def test_frames_go_on_as_they_would_have(verb: str, make: Callable[[str], Make]) -> None:
    """What a resumed run draws after an interruption is what the whole run draws there."""
    take: Take = make(verb)()[0]
    whole = list(take.timed())
    after = whole[9].time
    rest: list[Frame] = list(make(verb)()[0].timed(after))
    assert [frame.time for frame in rest] == [frame.time for frame in whole[10:]]
    for one, other in zip(rest, whole[10:], strict=True):
        np.testing.assert_array_equal(one.image, other.image)


@pytest.mark.parametrize("verb", ["animate", "imagine", "fill"])
def test_takes_have_seeds_in_a_row(verb: str, make: Callable[[str], Make]) -> None:
    several, single = make(verb)(takes=2, seed=7), make(verb)(seed=8)
    assert [take.seed for take in several] == [7, 8]
    assert several[1].fingerprint == single[0].fingerprint != several[0].fingerprint
    pairs = zip(islice(several.frames(1), 3), islice(single.frames(), 3), strict=True)
    assert all((one == other).all() for one, other in pairs)
    for wrong, named in (
        ({"takes": 0}, "takes is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"takes": 99}, "takes"),
    ):
        with pytest.raises(InvalidOption, match=named):
            make(verb)(**wrong)


@pytest.mark.parametrize(
    ("verb", "options"),
    [
        ("animate", {"pose": 0.5}),
        ("animate", {"size": 128}),
        ("dub", {"lips": 0.5}),
        ("dub", {"stop": 1.0}),
        ("fill", {"mask": "60,60,120,140", "margin": 0.4}),
        ("fill", {"mask": "60,60,120,140", "steps": 2}),
    ],
)
def test_other_options_are_another_video(
    verb: str, options: dict[str, Any], make: Callable[[str], Make]
) -> None:
    assert make(verb)()[0].fingerprint == make(verb)()[0].fingerprint
    assert make(verb)(**options)[0].fingerprint != make(verb)()[0].fingerprint


@pytest.mark.parametrize("verb", ["dub", "fill"])
def test_stretches_are_told_as_numbers_or_as_clock_times(verb: str, make: Callable[[str], Make]) -> None:
    one, other = make(verb)(start=0.4, stop=0.8), make(verb)(start="0.4", stop="00:00.8")
    assert one.frame_count == other.frame_count == 10
    with pytest.raises(InvalidOption, match="no time"):
        make(verb)(start="soon")


@pytest.mark.parametrize("verb", ["animate", "imagine"])
def test_motion_is_there_without_frames(verb: str, make: Callable[[str], Make]) -> None:
    one, other = make(verb)()[0], make(verb)()[0]
    assert one.motion is None
    assert len(list(other.frames())) == one.frame_count
    performed = one.perform()
    assert performed is not None
    assert other.motion is not None
    np.testing.assert_array_equal(performed.beta_mouth, other.motion.beta_mouth)
    np.testing.assert_array_equal(performed.rotation, other.motion.rotation)


def test_imagine_draws_every_frame_by_diffusion_if_told(make: Callable[[str], Make]) -> None:
    warped, drawn = (list(islice(make("imagine")(renderer=r).frames(), 3)) for r in ("warp", "diffusion"))
    assert drawn[0].shape == warped[0].shape == (256, 256, 3)
    assert any((one != other).any() for one, other in zip(warped, drawn, strict=True))


def test_imagine_refuses_what_shows_no_face(speech: Path) -> None:
    pipeline = ImagineIdPipeline.debug()
    pipeline.models.imaginer.trusting = False
    with pytest.raises(NoFaceFound, match="another seed"):
        next(pipeline(speech, steps=1).frames())


def test_fingerprints_are_the_same_in_every_process() -> None:
    """Sets of words have another order in every process."""
    code = (
        "from talkface.output import fingerprint_of; "
        "print(fingerprint_of([], frozenset(['context', 'matte', 'stage2', 'detail'])))"
    )
    told = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(3)
    }
    assert len(told) == 1


def test_models_that_were_trained_again_make_another_video(
    tmp_path: Path, portrait: Path, speech: Path
) -> None:
    """The directory is the same, what lies in it is not: an interrupted video is not gone on with."""
    seen = set()
    for number in range(2):
        save_motion(tmp_path / "models", 1.0 + number)
        seen.add(
            ThpadPipeline.from_pretrained(tmp_path / "models", device="cpu")(portrait, speech)[0].fingerprint
        )
    assert len(seen) == 2


def save_motion(models: Path, gain: float) -> MotionModel:
    """Save the shipped motion model with another gain of the lips in a directory of models."""
    shipped = MotionModel.from_pretrained("thpad-motion")
    state = {name: tensor.clone() for name, tensor in shipped.state_dict().items()}
    state["lip_gain"] = gain * state["lip_gain"]
    config = {"class": "MotionModel", "model": {**vars(shipped.config)}, "metrics": {}}
    save_pretrained(models / "thpad-motion", config, state, dtype=torch.float32)
    return shipped


def test_a_directory_gives_the_parts_it_has(tmp_path: Path, portrait: Path, speech: Path) -> None:
    """Of a directory with one model of one's own, the others are the shipped ones."""
    shipped = ThpadPipeline.from_pretrained(device="cpu")
    own = save_motion(tmp_path / "models", gain=2.0)
    mine = ThpadPipeline.from_pretrained(tmp_path / "models", device="cpu")
    torch.testing.assert_close(mine.speech_to_motion.model.lip_gain, 2 * own.lip_gain)
    for one, other in zip(mine.parts.refiner.parameters(), shipped.parts.refiner.parameters(), strict=True):
        assert torch.equal(one, other)
    take = mine(portrait, speech, size=64)[0]
    assert take.provenance["model"] == "thpad-models"
    assert next(take.frames()).shape == (64, 64, 3)


@pytest.mark.parametrize("kind", [ThpadPipeline, G4GPipeline, ImagineIdPipeline, TccpPipeline])
def test_a_directory_without_models_is_refused(kind: type[Pipeline], tmp_path: Path) -> None:
    for place, named in ((tmp_path / "nowhere", "no directory"), (tmp_path, "holds no models")):
        with pytest.raises(ModelUnavailable, match=named):
            kind.from_pretrained(place, device="cpu")


def test_numbers_that_g4g_does_not_compute_in_are_refused() -> None:
    with pytest.raises(InvalidOption, match="float32"):
        G4GPipeline.from_pretrained(device="cpu", dtype="bfloat16")
