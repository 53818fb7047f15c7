"""What the verbs share: names of outputs, checks before the work, models, saving."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from talkface.errors import InvalidOption, OutputError
from talkface.progress import Reporter

if TYPE_CHECKING:
    from talkface.output import Take


def audio_tracks(texts: list[str]) -> dict[int, Path]:
    """Files by face of ``face0=a.wav`` and the like."""
    tracks: dict[int, Path] = {}
    for text in texts:
        name, _, file = text.partition("=")
        number = name.removeprefix("face")
        if not (file and name.startswith("face") and number.isdecimal()):
            raise InvalidOption(f"--audio-tracks {text}: write face0=FILE, face1=FILE, ...")
        if int(number) in tracks:
            raise InvalidOption(f"--audio-tracks {text}: face {number} has a track already")
        tracks[int(number)] = Path(file)
    return tracks


def take_names(path: Path | None, takes: int) -> list[Path]:
    """The names of the takes: ``out.mp4``, or ``out.take1.mp4``, ``out.take2.mp4``, ..."""
    from talkface.output import check_takes, take_paths

    return [] if path is None else take_paths(path, check_takes(takes))


def check_outputs(outputs: list[Path], inputs: list[Path], overwrite: bool) -> None:
    """Refuse before the work what would fail after it."""
    from talkface.media.files import check_output

    if len({output.resolve() for output in outputs}) < len(outputs):
        raise OutputError("two outputs have the same name; choose others")
    for output in outputs:
        if any(source.exists() and output.exists() and output.samefile(source) for source in inputs):
            raise OutputError(f"{output} is an input; choose another output")
        if output.is_file() and not overwrite:
            raise OutputError(f"{output} exists already; --overwrite replaces it")
        check_output(output, overwrite)


def fetch_models(verb: str, report: Reporter) -> None:
    """Get the models of others that a verb needs."""
    from talkface import hub

    for name in hub.models_for(verb):
        hub.model_path(name, report)


def save_take(take: Take, output: Path, overwrite: bool, resume: bool, report: Reporter) -> None:
    """Compute a take and write it, telling how far it is."""
    report.restart(take.fps)
    take.save(output, overwrite=overwrite, resume=resume, progress=report)


def write_motion(take: Take, path: Path) -> None:
    """Write a take's motion as JSON.

    Raises:
        OutputError: It cannot be written.
    """
    from talkface.media.files import replacing

    if (played := take.perform()) is not None:
        with replacing(path) as partial:
            played.to_json(partial)
