"""Takes and generations: computed when asked, saved whole, resumed where they were."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from media_samples import number_of, numbered, tone, write_sound
from talkface._version import __version__
from talkface.errors import OutputError
from talkface.media.decode import Frame
from talkface.media.source import SourceVideo
from talkface.output import ConstantRate, Generation, Take, fingerprint_of, take_paths, takes_of

SIZE = (80, 32)


class Computation:
    """Frames that say their numbers, and count how many of them are computed."""

    def __init__(self, count: int) -> None:
        self.clock, self.computed = ConstantRate(count, Fraction(25)), 0

    def __call__(self, after: float | None) -> Iterator[Frame]:
        return self.clock.shown(self.images(self.clock.done(after)), self.clock.done(after))

    def images(self, first: int) -> Iterator[np.ndarray]:
        for number in range(first, self.clock.frame_count):
            self.computed += 1
            yield numbered(number)


def take(computation: Computation, fingerprint: str = "", seed: int = 0, sound: Path | None = None) -> Take:
    return Take(
        computation,
        computation.clock,
        SIZE,
        sounds=[sound] if sound else [],
        provenance={"model": "debug"},
        fingerprint=fingerprint,
        seed=seed,
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def metadata(path: Path) -> dict[str, str]:
    with av.open(str(path)) as container:
        return dict(container.metadata)


def test_a_take_is_computed_when_asked(tmp_path: Path) -> None:
    sound = write_sound(tmp_path / "a.m4a", tone(1.0, 16000), 16000, "aac")
    computation = Computation(25)
    one = take(computation, seed=3, sound=sound)
    assert (one.frame_count, one.fps, one.duration, one.seed, one.size) == (25, 25.0, 1.0, 3, SIZE)
    assert one.motion is None
    assert computation.computed == 0
    next(one.frames())
    assert computation.computed == 1
    steps: list[tuple[str, int, int]] = []
    path = one.save(tmp_path / "a.mp4", progress=lambda *step: steps.append(step))
    assert steps == [("frames", done, 25) for done in range(1, 26)]
    told = metadata(path)
    assert told["synthetic"] == "true"
    assert (told["model"], told["seed"], told["version"]) == ("debug", "3", __version__)
    assert "synthetic" in told["comment"].lower()
    video = SourceVideo(path)
    assert (video.duration, video.has_audio, video.frame_count) == (1.0, True, 25)


def test_a_generation_is_its_takes() -> None:
    generation = takes_of(lambda seed: take(Computation(10), seed=seed), [4, 5, 6])
    assert [one.seed for one in generation] == [4, 5, 6]
    assert len(generation) == 3
    assert (generation.fps, generation.size, generation.frame_count, generation.seed) == (25.0, SIZE, 10, 4)
    assert generation.duration == pytest.approx(0.4)
    assert generation.motion is None
    np.testing.assert_array_equal(next(generation.frames(2)), numbered(0))
    assert take_paths(Path("a/out.mp4"), 1) == [Path("a/out.mp4")]
    assert [path.name for path in take_paths(Path("out.mp4"), 2)] == ["out.take1.mp4", "out.take2.mp4"]


def test_targets_are_looked_at_first(tmp_path: Path) -> None:
    computation = Computation(25)
    (tmp_path / "a.mp4").write_bytes(b"precious")
    (tmp_path / "b.take2.mp4").write_bytes(b"precious")
    generation = Generation([take(computation), take(computation)])
    for name in ("a.mp4", "nowhere/a.mp4", "a.docx"):
        with pytest.raises(OutputError):
            generation[0].save(tmp_path / name)
    with pytest.raises(OutputError, match=r"b\.take2"):
        generation.save(tmp_path / "b.mp4")
    assert computation.computed == 0
    assert names(tmp_path) == ["a.mp4", "b.take2.mp4"]


def stop_at(frame: int) -> object:
    def stop(stage: str, done: int, total: int) -> None:
        if done == frame:
            raise KeyboardInterrupt

    return stop


def test_an_interruption_in_the_first_seconds_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        take(Computation(25)).save(tmp_path / "a.mp4", progress=stop_at(10))
    assert names(tmp_path) == []


def test_a_generation_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    """The first take is whole, the second was in its second segment: neither is computed again."""
    first, second = Computation(300), Computation(700)

    def generation() -> Generation[Take]:
        return Generation([take(first, "x", 1), take(second, "x", 2)])

    def stop(stage: str, done: int, total: int) -> None:
        if total == 700 and done == 600:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generation().save(tmp_path / "out.mp4", progress=stop)
    written = (tmp_path / "out.take1.mp4").read_bytes()
    first.computed = second.computed = 0
    steps: list[tuple[int, int]] = []
    paths = generation().save(tmp_path / "out.mp4", resume=True, progress=lambda _, *step: steps.append(step))
    assert steps[0] == (501, 700)
    assert (first.computed, second.computed) == (0, 200)
    assert paths[0].read_bytes() == written
    assert [number_of(frame.image) for frame in SourceVideo(paths[1])] == list(range(700))
    assert names(tmp_path) == ["out.take1.mp4", "out.take2.mp4"]


def test_a_take_that_is_in_the_way_is_found_before_the_work(tmp_path: Path) -> None:
    first, second = Computation(25), Computation(25)
    generation = Generation([take(first, "x", 1), take(second, "x", 2)])
    (tmp_path / "out.take2.mp4").write_bytes(b"precious")
    with pytest.raises(OutputError, match="exists already"):
        generation.save(tmp_path / "out.mp4", resume=True)
    assert first.computed == second.computed == 0


def test_another_video_is_not_resumed(tmp_path: Path) -> None:
    path = take(Computation(25), "one").save(tmp_path / "a.mp4")
    assert take(Computation(25), "one").save(path, resume=True) == path
    for other in (take(Computation(25), "two"), take(Computation(25), "one", seed=9)):
        with pytest.raises(OutputError, match="exists already"):
            other.save(path, resume=True)


def test_fingerprints_tell_files_and_options_apart(tmp_path: Path) -> None:
    file = tmp_path / "a.wav"
    file.write_bytes(b"one")
    known = {
        fingerprint_of([file]),
        fingerprint_of([file], 1),
        fingerprint_of([file], "1"),
        fingerprint_of([]),
    }
    file.write_bytes(b"other")
    assert len(known | {fingerprint_of([file])}) == 5


def test_a_take_does_not_replace_what_it_is_made_from(tmp_path: Path) -> None:
    sound = write_sound(tmp_path / "voice.mp4", tone(1.0, 16000), 16000, "aac")
    before = sound.read_bytes()
    one = take(Computation(25), sound=sound)
    for way in (one, Generation([one])):
        with pytest.raises(OutputError, match="is an input"):
            way.save(sound, overwrite=True)
    assert sound.read_bytes() == before
