"""The command line: one function per verb, whose options are the keyword arguments of the API."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from talkface import __version__
from talkface.errors import InvalidOption, OutputError, TalkfaceError
from talkface.progress import Mode, Reporter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from talkface.generation import Generation

Number = TypeVar("Number", int, float)

app = typer.Typer(
    name="talkface",
    help="Faces that talk: from one portrait and speech, or in an existing video.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models = typer.Typer(help="List or fetch the models that others made.", no_args_is_help=False)
app.add_typer(models, name="models")

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
        if hasattr(
            error, "format_message"
        ):  # Typer's usage errors; their module differs between its versions
            return _fail(f"{error.format_message()} (see talkface --help)", 2)
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


@app.command()
def animate(
    image: Annotated[Path, typer.Argument(metavar="PORTRAIT", help="Any picture file.")],
    audio: Annotated[Path, typer.Argument(metavar="SPEECH", help="Any file with an audio stream.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The video to write.")],
    seed: Annotated[int, typer.Option(help="Draws another head motion, gaze and blinking.")] = 0,
    takes: Annotated[int, typer.Option(help="Videos to make, with seeds from --seed on.")] = 1,
    size: Annotated[str, typer.Option(help="Longer side in pixels, or 'source'.")] = "source",
    fps: Annotated[str, typer.Option(help="Frames a second, or 'source' (25 for a portrait).")] = "source",
    pose: Annotated[float, typer.Option(help="Strength of head motion; 1 is natural.")] = 1.0,
    blink: Annotated[float, typer.Option(help="Rate of blinks; 1 is natural.")] = 1.0,
    gaze: Annotated[float, typer.Option(help="Strength of eye movements; 1 is natural.")] = 1.0,
    expression: Annotated[float, typer.Option(help="Strength of brows and cheeks; 1 is natural.")] = 1.0,
    lips: Annotated[float, typer.Option(help="Strength of lip motion; 1 is natural.")] = 1.0,
    still: Annotated[bool, typer.Option("--still", help="Keep head and gaze still.")] = False,
    face: Annotated[int | None, typer.Option(help="Index of the face; by default the largest.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    export_motion: Annotated[Path | None, typer.Option(help="Write the motion here, as JSON.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    progress: ProgressOption = Mode.auto,
) -> None:
    """Make the person in a portrait say the speech."""
    outputs, motions = _takes(output, takes), _takes(export_motion, takes)
    _check_outputs([*outputs, *motions], [image, audio], overwrite)
    size_or_source = _number("--size", size, int)
    fps_or_source = _number("--fps", fps, float)
    with Reporter(progress) as report:
        _fetch("animate", report)
        import talkface

        for take, target in enumerate(outputs):
            generation = talkface.animate(
                image,
                audio,
                seed=seed + take,
                size=size_or_source,
                fps=fps_or_source,
                pose=pose,
                blink=blink,
                gaze=gaze,
                expression=expression,
                lips=lips,
                still=still,
                face=face,
                device=device,
            )
            _save(generation, target, motions[take] if motions else None, overwrite, report)
    if progress is Mode.auto:
        print(*outputs, sep="\n")


@app.command()
def dub(
    video: Annotated[Path, typer.Argument(metavar="VIDEO", help="Any video file.")],
    audio: Annotated[
        Path | None, typer.Argument(metavar="SPEECH", help="The new speech: any file with an audio stream.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The video to write.")] = None,
    sync_mode: Annotated[
        str,
        typer.Option(help="Where video and speech differ in length: cut_off, loop, bounce, silence, remap."),
    ] = "cut_off",
    face: Annotated[str, typer.Option(help="Number of a face (0 is the main one), auto or all.")] = "0",
    audio_track: Annotated[
        list[str] | None,
        typer.Option(metavar="faceN=FILE", help="Speech of one of several faces, instead of SPEECH."),
    ] = None,
    lips: Annotated[float, typer.Option(help="Strength of lip motion; 1 is natural.")] = 1.0,
    keep_silence: Annotated[
        bool, typer.Option("--keep-silence", help="Show the original frames where nobody speaks.")
    ] = False,
    start: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Dub from here on: 12.5 or 1:02:03.")
    ] = None,
    stop: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Dub up to here.")] = None,
    audio_stream: Annotated[int, typer.Option(help="Which sound of the video is its own speech.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and stop.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run was.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    progress: ProgressOption = Mode.auto,
) -> None:
    """Make the people of a video say other words, lips in sync."""
    tracks = _audio_tracks(audio_track or [])
    if output is None and not dry_run:
        raise InvalidOption("say where to write the video: --output out.mp4")
    inputs = [video, *([audio] if audio else []), *tracks.values()]
    if output is not None:
        _check_outputs([output], inputs, overwrite or dry_run)
    with Reporter(progress) as report:
        _fetch("dub", report)
        import talkface
        from talkface.media.source import parse_time

        dubbing = talkface.dub(
            video,
            audio,
            sync_mode=sync_mode,
            face=face,
            audio_tracks=tracks or None,
            lips=lips,
            keep_silence=keep_silence,
            start=0.0 if start is None else parse_time(start),
            stop=None if stop is None else parse_time(stop),
            audio_stream=audio_stream,
            device=device,
        )
        if dry_run:
            needed = dubbing.seconds_needed()
            print(*dubbing.plan.lines(), f"time: about {needed:.0f} s on this machine", sep="\n")
            return
        assert output is not None
        report.restart(dubbing.fps)
        dubbing.save(output, overwrite=overwrite, progress=report, resume=resume)
        report.event("done", output=str(output))
    if progress is Mode.auto:
        print(output)


@app.command()
def imagine(
    audio: Annotated[Path, typer.Argument(metavar="SPEECH", help="Any file with an audio stream.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The video to write.")],
    takes: Annotated[int, typer.Option(help="People to imagine, with seeds from --seed on.")] = 1,
    seed: Annotated[int, typer.Option(help="Draws another person.")] = 0,
    prompt: Annotated[str, typer.Option(help="What the voice does not tell: 'red hair, glasses'.")] = "",
    emotion: Annotated[str, typer.Option(help="auto, or a mood such as happy for all of it.")] = "auto",
    identity_from: Annotated[
        str, typer.Option(metavar="voice|FILE", help="Whose face: the speech's own voice, or another one.")
    ] = "voice",
    emotion_from: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Take the mood of this recording.")
    ] = None,
    size: Annotated[int, typer.Option(help="Side of the video in pixels: 256 or 512.")] = 256,
    steps: Annotated[int, typer.Option(help="Steps in which the person is imagined.")] = 8,
    guidance: Annotated[float, typer.Option(help="How much voice and prompt count; 1 is as trained.")] = 3.0,
    renderer: Annotated[str, typer.Option(help="auto, diffusion or warp.")] = "auto",
    still: Annotated[bool, typer.Option("--still", help="Keep head and gaze still.")] = False,
    portrait_out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the imagined portrait here, too.")
    ] = None,
    explain: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write what was heard here, as JSON.")
    ] = None,
    base: Annotated[
        str, typer.Option(metavar="DIR|ID", help="Another latent diffusion model, say Stable Diffusion 1.5.")
    ] = "compact",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    progress: ProgressOption = Mode.auto,
) -> None:
    """Imagine people who could have a voice, saying the speech."""
    outputs, portraits, heard = (_takes(path, takes) for path in (output, portrait_out, explain))
    if portrait_out:
        from talkface.media.files import check_picture_name

        check_picture_name(portrait_out)
    other = [Path(identity_from)] if identity_from != "voice" else []
    inputs = [audio, *other, *([emotion_from] if emotion_from else [])]
    _check_outputs([*outputs, *portraits, *heard], inputs, overwrite)
    with Reporter(progress) as report:
        _fetch("imagine", report)
        import talkface

        imagined = talkface.imagine(
            audio,
            takes=takes,
            seed=seed,
            prompt=prompt,
            emotion=emotion,
            identity_from=identity_from,
            emotion_from=emotion_from,
            size=size,
            steps=steps,
            guidance=guidance,
            renderer=renderer,
            still=still,
            base=base,
            device=device,
        )
        for number, (take, target) in enumerate(zip(imagined, outputs, strict=True)):
            _save(take, target, None, overwrite, report)
            if number == 0 and take.imagined.ignored:
                report.warn(f"words that are not known and were ignored: {', '.join(take.imagined.ignored)}")
            if portraits:
                take.save_portrait(portraits[number])
            if heard:
                take.save_explanation(heard[number])
    if progress is Mode.auto:
        print(*outputs, sep="\n")


# Not in the list of verbs before its weights are shipped.
@app.command(hidden=True)
def fill(
    video: Annotated[Path, typer.Argument(metavar="VIDEO", help="Any video file.")],
    audio: Annotated[Path, typer.Argument(metavar="SPEECH", help="Any file with an audio stream.")],
    identity: Annotated[
        list[str],
        typer.Option(
            metavar="FILE|imagined", help="Whose face: a portrait (repeat for several), or imagined."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The video to write.")],
    mask: Annotated[
        str,
        typer.Option(
            metavar="auto|FILE|X,Y,W,H", help="What to fill: around a face, a picture or video, a box."
        ),
    ] = "auto",
    face: Annotated[int, typer.Option(help="Which face, for --mask auto; 0 is the main one.")] = 0,
    margin: Annotated[float, typer.Option(help="By which --mask auto is larger than the face.")] = 0.25,
    sync_mode: Annotated[
        str,
        typer.Option(help="Where video and speech differ in length: cut_off, loop, bounce, silence, remap."),
    ] = "cut_off",
    landmarks_out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the landmarks here, as JSON, to edit them.")
    ] = None,
    landmarks_in: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw these landmarks instead of finding some.")
    ] = None,
    takes: Annotated[int, typer.Option(help="Videos to make, with seeds from --seed on.")] = 1,
    seed: Annotated[int, typer.Option(help="Draws other blinks, gaze and texture.")] = 0,
    steps: Annotated[int, typer.Option(help="Steps in which frames are drawn.")] = 4,
    start: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Fill from here on: 12.5 or 1:02:03.")
    ] = None,
    stop: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Fill up to here.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    progress: ProgressOption = Mode.auto,
) -> None:
    """Fill the face that is missing in a video, saying the speech."""
    outputs, landmarks = _takes(output, takes), _takes(landmarks_out, takes)
    pictures = [Path(one) for one in identity if one != "imagined"]
    given = [landmarks_in] if landmarks_in else []
    masks = [Path(mask)] if mask != "auto" else []
    _check_outputs([*outputs, *landmarks], [video, audio, *pictures, *given, *masks], overwrite)
    with Reporter(progress) as report:
        _fetch("fill", report)
        import talkface
        from talkface.media.source import parse_time

        filled = talkface.fill(
            video,
            audio,
            identity="imagined" if identity == ["imagined"] else identity,
            mask=mask,
            face=face,
            margin=margin,
            sync_mode=sync_mode,
            landmarks=landmarks_in,
            takes=takes,
            seed=seed,
            steps=steps,
            start=0.0 if start is None else parse_time(start),
            stop=None if stop is None else parse_time(stop),
            device=device,
        )
        for number, (take, target) in enumerate(zip(filled, outputs, strict=True)):
            _save(take, target, None, overwrite, report)
            if landmarks:
                take.save_landmarks(landmarks[number])
    if progress is Mode.auto:
        print(*outputs, sep="\n")


def _audio_tracks(texts: list[str]) -> dict[int, Path]:
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


def _takes(path: Path | None, takes: int) -> list[Path]:
    """The names of the takes: ``out.mp4``, or ``out.take1.mp4``, ``out.take2.mp4``, ..."""
    if takes < 1:
        raise InvalidOption(f"--takes must be 1 or more, not {takes}")
    from talkface.generation import take_paths

    return [] if path is None else take_paths(path, takes)


def _check_outputs(outputs: list[Path], inputs: list[Path], overwrite: bool) -> None:
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


def _number(option: str, text: str, kind: type[Number]) -> Number | Literal["source"]:
    """The number in an option's text, unless it says 'source'."""
    if text == "source":
        return "source"
    try:
        return kind(text)
    except ValueError:
        raise InvalidOption(f"{option} must be a number or 'source', not {text!r}") from None


def _fetch(verb: str, report: Reporter) -> None:
    from talkface import hub

    for name in hub.models_for(verb):
        hub.model_path(name, report)


def _save(
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


@app.command()
def doctor() -> None:
    """Show device, speed, codecs and models; exit code 1 if something is wrong."""
    from rich.table import Table
    from rich.text import Text

    from talkface.doctor import examine

    facts = examine()
    table = Table(show_header=False, box=None, padding=(0, 1))
    for fact in facts:
        mark = Text("ok", style="green") if fact.ok else Text("!!", style="red")
        table.add_row(mark, fact.name, fact.value)
    _console().print(table)
    if not all(fact.ok for fact in facts):
        raise typer.Exit(1)


def _console() -> Console:
    from rich.console import Console

    # Rows stay whole in files and pipes.
    return Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 200)


@models.callback(invoke_without_command=True)
def _models(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        list_models()


@models.command("list")
def list_models() -> None:
    """Show every model with licence and state."""
    from rich.table import Table

    from talkface import hub
    from talkface.doctor import model_state

    table = Table("model", "purpose", "licence", "MB", "state", box=None, padding=(0, 1))
    for own in hub.bundled_models():
        table.add_row(own.id, f"ours; trained on {own.data}", own.licence, f"{own.size / 1e6:.1f}", "bundled")
    for other in hub.MODELS.values():
        size = f"{other.size / 1e6:.1f}"
        table.add_row(other.name, other.purpose, other.licence, size, model_state(other.name))
    _console().print(table)


@models.command()
def fetch(
    names: Annotated[list[str] | None, typer.Argument(help="Models; by default those animate needs.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Those for training, too.")] = False,
    progress: ProgressOption = Mode.auto,
) -> None:
    """Get models ahead of time, for use without a network."""
    from talkface import hub

    with Reporter(progress) as report:
        for name in names or hub.models_for("train" if everything else "animate"):
            print(hub.model_path(name, report))


def _log_progress() -> None:
    """Verbs that take hours say in the log how far they are."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("talkface").setLevel(logging.INFO)


@app.command()
def prepare(
    data: Annotated[Path, typer.Argument(help="Folder of videos.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the prepared clips.")],
) -> None:
    """Track faces and compute speech features of a folder of videos, for training."""
    from talkface.data.prepare import prepare

    _log_progress()
    prepare(data, output)


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A file of recipes/.")],
    data: Annotated[Path, typer.Option(help="Folder that `talkface prepare` wrote.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the run; runs/<recipe> if left out.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a value of the recipe.")
    ] = None,
) -> None:
    """Train a model by a recipe."""
    from talkface.training.run import train_recipe

    _log_progress()
    train_recipe(recipe, data, output, overrides or [])


@app.command()
def evaluate(
    real: Annotated[
        Path | None, typer.Argument(metavar="REAL", help="A real video, or a folder of them.")
    ] = None,
    generated: Annotated[
        Path | None,
        typer.Argument(metavar="GENERATED", help="What a tool made of it; in folders, by the same names."),
    ] = None,
    system: Annotated[
        str, typer.Option(help="What to evaluate with --data: animate, dub, imagine, fill.")
    ] = "animate",
    data: Annotated[Path | None, typer.Option(help="Evaluation data, to generate videos from.")] = None,
    split: Annotated[str, typer.Option(help="Part of the data.")] = "val",
    limit: Annotated[int | None, typer.Option(help="At most so many clips.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of animate, imagine and fill.")] = 0,
    syncnet: Annotated[
        Path | None, typer.Option(help="File with SyncNet's original weights, for its figures, too.")
    ] = None,
    own_models: Annotated[
        Path | None, typer.Option("--models", metavar="DIR", help="Models of your own; not for animate.")
    ] = None,
    renderer: Annotated[str, typer.Option(help="Of imagine: auto, diffusion or warp.")] = "auto",
    without: Annotated[
        list[str] | None,
        typer.Option(help="Leave out, of imagine: tia, restorer, mba, ...; of fill: context, first, ..."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the report.")] = Path(
        "evaluation"
    ),
) -> None:
    """Measure generated videos beside real ones, or a system on data: table, JSON, CSV, pages of pictures."""
    if bool(data) == bool(real) or bool(real) != bool(generated):
        raise InvalidOption("give either REAL and GENERATED, or --data (and --system)")
    if own_models and not (data and system in ("dub", "imagine", "fill")):
        raise InvalidOption("--models goes with --data and --system dub, imagine or fill")
    from rich.table import Table

    from talkface.evaluation import evaluate_pairs, evaluate_system, tables_of

    _log_progress()
    if data:
        figures = evaluate_system(
            system,
            data,
            output,
            split=split,
            limit=limit,
            seed=seed,
            syncnet=syncnet,
            models=own_models,
            renderer=renderer,
            without=without or [],
        )
    elif real and generated:
        figures = evaluate_pairs(real, generated, output, syncnet=syncnet)
    console = _console()
    for part in tables_of(figures):
        table = Table(part.title, "", *part.columns, box=None, padding=(0, 1))
        for figure, cells in part.rows:
            table.add_row(figure.name, figure.better, *cells)
        console.print(table)
    print(f"protocol {figures['protocol']}; more in {output / 'report.html'}")


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


if __name__ == "__main__":
    entry()
