"""The program: its options, exit codes and one line for whatever goes wrong."""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from talkface._version import __version__
from talkface.errors import TalkfaceError
from talkface.progress import Mode

if TYPE_CHECKING:
    from collections.abc import Sequence

app = typer.Typer(
    name="talkface",
    help="Faces that talk: from one portrait and speech, or in an existing video.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ProgressOption = Annotated[Mode, typer.Option(help="Bars in a terminal, JSON lines, or nothing.")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0: done; 1: a bug; 2: wrong input or options, said in one line; 130: interrupted.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    if debug:  # taken at any place, before or after the verb
        arguments.remove("--debug")
        logging.basicConfig(level=logging.DEBUG, format="%(name)s: %(message)s")
    try:
        code = _run(arguments, debug)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader, say `head`, is gone; Python would complain again while closing the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(arguments: list[str], debug: bool) -> int:
    try:
        code = typer.main.get_command(app).main(arguments, prog_name="talkface", standalone_mode=False)
    except TalkfaceError as error:
        return _fail(str(error), 2)
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except BrokenPipeError:
        raise
    except Exception as error:
        # Typer's usage errors; their module differs between its versions.
        if hasattr(error, "format_message"):
            message = error.format_message()  # empty where the help was asked for by saying nothing
            return _fail(f"{message} (see talkface --help)", 2) if message else 2
        if debug:
            raise
        return _fail(f"{type(error).__name__}: {error} (a bug: --debug shows where)", 1)
    # Typer turns an interrupt into this code and says nothing.
    return _fail("interrupted", 130) if code == 130 else int(code or 0)


def _fail(message: str, code: int) -> int:
    print(f"talkface: error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _version(wanted: bool) -> None:
    if wanted:
        print(f"talkface {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Log details, and show where a bug is.")] = False,
) -> None:
    """Options of every verb; ``--debug`` is only declared here, ``main`` acts on it."""


def entry() -> None:
    """What the installed command runs."""
    signal.signal(signal.SIGTERM, _interrupt)  # `kill` cleans up as Ctrl-C does
    if "--debug" not in sys.argv:
        _mute_libraries()
    sys.exit(main())


def _mute_libraries() -> None:
    """Keep standard error for ourselves: C libraries write remarks there that no setting turns off."""
    ours = os.dup(sys.stderr.fileno())
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    sys.stderr = os.fdopen(ours, "w", buffering=1, errors="backslashreplace")
