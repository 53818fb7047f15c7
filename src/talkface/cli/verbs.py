"""The four verbs on the command line: arguments, options and help are those of the API's functions."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from talkface import api
from talkface.cli.outputs import (
    audio_tracks,
    check_outputs,
    fetch_models,
    save_take,
    take_names,
    write_motion,
)
from talkface.cli.program import ProgressOption, app
from talkface.errors import InvalidOption
from talkface.progress import Mode, Reporter

if TYPE_CHECKING:
    from talkface.output import Generation

_METAVARS = {"image": "PORTRAIT", "video": "VIDEO", "audio": "SPEECH"}
_MORE_METAVARS = {
    "audio_tracks": "faceN=FILE",
    "base": "DIR|ID",
    "emotion_from": "FILE",
    "face": "N",
    "identity": "FILE|imagined",
    "identity_from": "voice|FILE",
    "landmarks": "FILE",
    "mask": "auto|FILE|X,Y,W,H",
    "start": "TIME",
    "stop": "TIME",
}
# What a value is read as by the annotation in the API. Words and numbers are told apart there.
_KINDS: Mapping[str, Any] = {
    "int": int,
    "float": float,
    "bool": bool,
    "str": str,
    "int | None": int | None,
    "float | None": float | None,
    "int | str": str,
    "float | str": str,
    "float | str | None": str | None,
    "str | Path": str,
    "str | Path | None": str | None,
    "str | Path | Sequence[str | Path]": list[str],
    "Mapping[int, str | Path] | None": list[str] | None,
}


@dataclass(frozen=True)
class Extra:
    """A file that is written beside each video: the option that names it, and how it is written."""

    option: str
    help: str
    write: Callable[[Any, Path], object]
    picture: bool = False


@dataclass(frozen=True)
class Verb:
    """A verb of the API, and what the command line adds to it."""

    function: Callable[..., Generation[Any]]
    extras: Sequence[Extra] = ()
    plans: bool = False  # whether `--dry-run` can tell what would be done

    @property
    def name(self) -> str:
        """As on the command line."""
        return self.function.__name__


VERBS = (
    Verb(api.animate, [Extra("export_motion", "Write the motion here, as JSON.", write_motion)]),
    Verb(api.dub, plans=True),
    Verb(
        api.imagine,
        [
            Extra(
                "portrait_out",
                "Write the imagined portrait here, too.",
                lambda take, path: take.save_portrait(path),
                picture=True,
            ),
            Extra(
                "explain",
                "Write what was heard here, as JSON.",
                lambda take, path: take.save_explanation(path),
            ),
        ],
    ),
    Verb(
        api.fill,
        [
            Extra(
                "landmarks_out",
                "Write the landmarks here, as JSON, to edit them.",
                lambda take, path: take.save_landmarks(path),
            )
        ],
    ),
)


def register(verb: Verb) -> None:
    """Add a verb to the program."""

    def command(**given: object) -> None:
        _run(verb, given)

    parameters = [*_api_parameters(verb.function), *_own_parameters(verb)]
    parameters.sort(key=lambda one: isinstance(one.annotation.__metadata__[0], typer.models.OptionInfo))
    signature = inspect.Signature(parameters)
    command.__signature__ = signature  # type: ignore[attr-defined]  # typer reads both
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    command.__doc__ = inspect.getdoc(verb.function).split("\n\n", maxsplit=1)[0]  # type: ignore[union-attr]
    app.command(name=verb.name)(command)


def _api_parameters(function: Callable[..., object]) -> list[inspect.Parameter]:
    """A function's parameters as arguments and options of the command line."""
    verb, told, found = function.__name__, argument_help(function), []
    for parameter in inspect.signature(function).parameters.values():
        name, kind = parameter.name, _KINDS[str(parameter.annotation)]
        if parameter.kind is parameter.KEYWORD_ONLY:
            metavar = "N|auto|all" if (verb, name) == ("dub", "face") else _MORE_METAVARS.get(name)
            flag = "--" + name.replace("_", "-")  # no `--no-...` beside it
            info: Any = typer.Option(flag, help=told[name], metavar=metavar)
        else:
            info = typer.Argument(metavar=_METAVARS[name], help=told[name])
            kind = Path if kind is str else Path | None
        default = None if kind == list[str] | None else parameter.default
        found.append(_keyword(name, Annotated[kind, info], default))
    return found


def _own_parameters(verb: Verb) -> list[inspect.Parameter]:
    """Options that the command line has beside the API's."""
    written = Path | None if verb.plans else Path
    output = typer.Option("--output", "-o", help="The video to write.")
    found = [_keyword("output", Annotated[written, output], None if verb.plans else inspect.Parameter.empty)]
    for extra in verb.extras:
        found.append(
            _keyword(
                extra.option, Annotated[Path | None, typer.Option(metavar="FILE", help=extra.help)], None
            )
        )
    flags = {"overwrite": "Replace existing files.", "resume": "Go on where an interrupted run was."}
    if verb.plans:
        flags = {"dry_run": "Show what would be done, and stop.", **flags}
    for name, text in flags.items():
        option = typer.Option("--" + name.replace("_", "-"), help=text)
        found.append(_keyword(name, Annotated[bool, option], False))
    return [*found, _keyword("progress", ProgressOption, Mode.auto)]


def _keyword(name: str, annotation: object, default: object) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def argument_help(function: Callable[..., object]) -> dict[str, str]:
    """What a function's docstring says of its arguments, each in one line."""
    section = re.search(r"^Args:\n(.*?)(?:^\S|\Z)", inspect.getdoc(function) or "", re.MULTILINE | re.DOTALL)
    text = section.group(1) if section else ""
    pairs = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", text, re.MULTILINE)
    return {name: _plain(told) for name, told in pairs}


def _plain(text: str) -> str:
    """Text of a docstring without its markup, in one line."""
    without_roles = re.sub(r":\w+:`~?([^`]+)`", r"\1", text)
    return " ".join(without_roles.replace("``", "").replace('"', "'").split())


def _run(verb: Verb, given: dict[str, Any]) -> None:
    """Check what would fail later, then compute and write all takes."""
    output, overwrite, resume = (given.pop(name) for name in ("output", "overwrite", "resume"))
    progress, dry_run = given.pop("progress"), given.pop("dry_run", False)
    if output is None and not dry_run:
        raise InvalidOption("say where to write the video: --output out.mp4")
    beside = {extra: given.pop(extra.option) for extra in verb.extras}
    takes = given.get("takes", 1)
    names = take_names(output, takes)
    also = {extra: take_names(path, takes) for extra, path in beside.items() if path}
    _check_pictures(beside)
    if "audio_tracks" in given:
        given["audio_tracks"] = audio_tracks(given["audio_tracks"] or []) or None
    written = [*names, *(path for paths in also.values() for path in paths)]
    check_outputs(written, _inputs(given), overwrite or resume or dry_run)
    if given.get("identity") == ["imagined"]:
        given["identity"] = "imagined"
    with Reporter(progress) as report:
        fetch_models(verb.name, report)
        generation = verb.function(**given)
        if dry_run:
            _show_plan(generation)
            return
        for number, (take, name) in enumerate(zip(generation, names, strict=True)):
            save_take(take, name, overwrite, resume, report)
            for extra, paths in also.items():
                extra.write(take, paths[number])
            report.event("done", output=str(name), **({} if take.seed is None else {"seed": take.seed}))
    if progress is Mode.auto:
        print(*names, sep="\n")


def _check_pictures(beside: Mapping[Extra, Path | None]) -> None:
    for extra, path in beside.items():
        if extra.picture and path:
            from talkface.media.files import check_picture_name

            check_picture_name(path)


def _inputs(given: Mapping[str, Any]) -> list[Path]:
    """The arguments that are files, for none of them may be an output."""
    flat: list[object] = []
    for value in given.values():
        many = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
        flat += many
    return [Path(one) for one in flat if isinstance(one, str | Path) and str(one)]


def _show_plan(generation: Generation[Any]) -> None:
    dubbing = generation[0]
    needed = dubbing.seconds_needed()
    print(*dubbing.plan.lines(), f"time: about {needed:.0f} s on this machine", sep="\n")


for _verb in VERBS:
    register(_verb)
