"""What all four pipelines promise, on tiny random networks: one return type, takes, resume, own models."""

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
from talkface.systems.g4g.pipeline import G4GPipeline
from talkface.systems.imagineid.pipeline import ImagineIdPipeline
from talkface.systems.pipeline import Pipeline
from talkface.systems.tccp.pipeline import TccpPipeline
from talkface.systems.thpad.pipeline import ThpadPipeline

VERBS = ("animate", "dub", "fill")
Make = Callable[..., Generation[Any]]


@cache
def debug(kind: type[Pipeline]) -> Pipeline:
    return kind.debug()


@pytest.fixture
def make(portrait: Path, talking: Path, speech: Path) -> Callable[[str], Make]:
    """The pipelines that work with random networks, by verb, on short inputs."""

    def make(verb: str) -> Make:
        if verb == "animate":
            return lambda **given: debug(ThpadPipeline)(portrait, speech, **{"size": 96} | given)  # type: ignore[operator]
        if verb == "dub":
            return lambda **given: debug(G4GPipeline)(talking, speech, **given)  # type: ignore[operator]
        options = {"identity": portrait, "steps": 1, "stop": 0.8}
        return lambda **given: debug(TccpPipeline)(talking, speech, **options | given)  # type: ignore[operator]

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
    assert (generation.motion is not None) == (verb == "animate")


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


@pytest.mark.parametrize("verb", ["animate", "fill"])
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
        ("fill", {"margin": 0.4}),
        ("fill", {"stop": 0.4}),
        ("fill", {"mask": "60,60,120,140"}),
        ("fill", {"steps": 2}),
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


def test_imagine_says_that_random_networks_draw_no_face(speech: Path) -> None:
    generation = debug(ImagineIdPipeline)(speech, takes=2, steps=1)  # type: ignore[operator]
    assert isinstance(generation, Generation)
    assert [take.frame_count for take in generation] == [30, 30]
    with pytest.raises(NoFaceFound, match="another seed"):
        next(generation.frames())


def test_a_directory_gives_the_parts_it_has(tmp_path: Path, portrait: Path, speech: Path) -> None:
    """Of a directory with one model of one's own, the others are the shipped ones."""
    shipped = ThpadPipeline.from_pretrained(device="cpu")
    own = shipped.speech_to_motion.model
    state = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    state["lip_gain"] = 2 * state["lip_gain"]
    config = {"class": "MotionModel", "model": {**vars(own.config)}, "metrics": {}}
    save_pretrained(tmp_path / "models" / "thpad-motion", config, state, dtype=torch.float32)
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
