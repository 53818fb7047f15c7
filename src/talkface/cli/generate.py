"""One function per verb, whose options are the keyword arguments of the API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from talkface.cli.outputs import (
    audio_tracks,
    check_outputs,
    fetch_models,
    number_or_source,
    save_take,
    take_names,
)
from talkface.cli.program import ProgressOption, app
from talkface.errors import InvalidOption
from talkface.progress import Mode, Reporter


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
    outputs, motions = take_names(output, takes), take_names(export_motion, takes)
    check_outputs([*outputs, *motions], [image, audio], overwrite)
    size_or_source = number_or_source("--size", size, int)
    fps_or_source = number_or_source("--fps", fps, float)
    with Reporter(progress) as report:
        fetch_models("animate", report)
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
            save_take(generation, target, motions[take] if motions else None, overwrite, report)
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
    tracks = audio_tracks(audio_track or [])
    if output is None and not dry_run:
        raise InvalidOption("say where to write the video: --output out.mp4")
    inputs = [video, *([audio] if audio else []), *tracks.values()]
    if output is not None:
        check_outputs([output], inputs, overwrite or dry_run)
    with Reporter(progress) as report:
        fetch_models("dub", report)
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
    steps: Annotated[
        int | None, typer.Option(help="Steps in which the person is imagined. 8, or the model's own.")
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(help="How much voice and prompt count; 1 is as trained. 3, or the model's own."),
    ] = None,
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
    outputs, portraits, heard = (take_names(path, takes) for path in (output, portrait_out, explain))
    if portrait_out:
        from talkface.media.files import check_picture_name

        check_picture_name(portrait_out)
    other = [Path(identity_from)] if identity_from != "voice" else []
    inputs = [audio, *other, *([emotion_from] if emotion_from else [])]
    check_outputs([*outputs, *portraits, *heard], inputs, overwrite)
    with Reporter(progress) as report:
        fetch_models("imagine", report)
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
            save_take(take, target, None, overwrite, report)
            if number == 0 and take.imagined.ignored:
                report.warn(f"words that are not known and were ignored: {', '.join(take.imagined.ignored)}")
            if portraits:
                take.save_portrait(portraits[number])
            if heard:
                take.save_explanation(heard[number])
    if progress is Mode.auto:
        print(*outputs, sep="\n")


@app.command()
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
    steps: Annotated[int, typer.Option(help="Steps in which frames are drawn.")] = 2,
    size: Annotated[int, typer.Option(help="256, or 512 where the face is large in the video.")] = 256,
    start: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Fill from here on: 12.5 or 1:02:03.")
    ] = None,
    stop: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Fill up to here.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    progress: ProgressOption = Mode.auto,
) -> None:
    """Fill the face that is missing in a video, saying the speech."""
    outputs, landmarks = take_names(output, takes), take_names(landmarks_out, takes)
    pictures = [Path(one) for one in identity if one != "imagined"]
    given = [landmarks_in] if landmarks_in else []
    masks = [Path(mask)] if mask != "auto" else []
    check_outputs([*outputs, *landmarks], [video, audio, *pictures, *given, *masks], overwrite)
    with Reporter(progress) as report:
        fetch_models("fill", report)
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
            size=size,
            start=0.0 if start is None else parse_time(start),
            stop=None if stop is None else parse_time(stop),
            device=device,
        )
        for number, (take, target) in enumerate(zip(filled, outputs, strict=True)):
            save_take(take, target, None, overwrite, report)
            if landmarks:
                take.save_landmarks(landmarks[number])
    if progress is Mode.auto:
        print(*outputs, sep="\n")
