"""What the verbs share: names of outputs, checks before the work, models, saving."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from talkface.errors import InvalidOption, OutputError
from talkface.progress import Reporter

if TYPE_CHECKING:
    from talkface.output.generation import Generation

Number = TypeVar("Number", int, float)


def audio_tracks(texts: list[str]) -> dict[int, Path]:
    """Files by face of ``face0=a.wav`` and the like."""
    tracks: dict[int, Path] = {}
    for text in texts:
        name, _, file = text.partition("=")
        number = name.removeprefix("face")
        if not (file and name.startswith("face") and number.isdecimal()):
            raise InvalidOption(f"--audio-track {text}: write face0=FILE, face1=FILE, ...")
        if int(number) in tracks:
            raise InvalidOption(f"--audio-track {text}: face {number} has a track already")
        tracks[int(number)] = Path(file)
    return tracks


def take_names(path: Path | None, takes: int) -> list[Path]:
    """The names of the takes: ``out.mp4``, or ``out.take1.mp4``, ``out.take2.mp4``, ..."""
    if takes < 1:
        raise InvalidOption(f"--takes must be 1 or more, not {takes}")
    from talkface.output.generation import take_paths

    return [] if path is None else take_paths(path, takes)


def check_outputs(outputs: list[Path], inputs: list[Path], overwrite: bool) -> None:
    """Refuse before the work what would fail after it."""
    if len({output.resolve() for output in outputs}) < len(outputs):
        raise OutputError("two outputs have the same name; choose others")
    for output in outputs:
        if any(source.exists() and output.exists() and output.samefile(source) for source in inputs):
            raise OutputError(f"{output} is an input; choose another output")
        if output.is_dir():
            raise OutputError(f"{output} is a directory; give the name of a file")
        if output.exists() and not overwrite:
            raise OutputError(f"{output} exists already; --overwrite replaces it")
        if not output.parent.is_dir():
            raise OutputError(f"{output} cannot be written: there is no directory {output.parent}")
        if not os.access(output.parent, os.W_OK):
            raise OutputError(f"{output} cannot be written: the directory {output.parent} is read-only")


def number_or_source(option: str, text: str, kind: type[Number]) -> Number | Literal["source"]:
    """The number in an option's text, unless it says 'source'."""
    if text == "source":
        return "source"
    try:
        return kind(text)
    except ValueError:
        raise InvalidOption(f"{option} must be a number or 'source', not {text!r}") from None


def fetch_models(verb: str, report: Reporter) -> None:
    from talkface import hub

    for name in hub.models_for(verb):
        hub.model_path(name, report)


def save_take(
    generation: Generation, output: Path, motion: Path | None, overwrite: bool, report: Reporter
) -> None:
    report.restart(generation.fps)
    generation.save(output, overwrite=overwrite, progress=report)
    played = generation.motion
    if motion and played is not None:
        try:
            played.to_json(motion)
        except OSError as error:
            motion.unlink(missing_ok=True)
            raise OutputError(f"{motion} cannot be written: {error.strerror}") from error
    report.event("done", output=str(output), seed=generation.seed)
