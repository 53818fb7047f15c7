"""The four verbs, as functions."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from talkface.output import Generation, Take
    from talkface.systems.g4g.dubbing import Dubbing
    from talkface.systems.g4g.pipeline import G4GPipeline
    from talkface.systems.imagineid.imagination import Imagination
    from talkface.systems.imagineid.pipeline import ImagineIdPipeline
    from talkface.systems.tccp.filling import Filling
    from talkface.systems.tccp.pipeline import TccpPipeline
    from talkface.systems.thpad.pipeline import ThpadPipeline


def animate(
    image: str | Path,
    audio: str | Path,
    *,
    takes: int = 1,
    seed: int = 0,
    size: int | str = "source",
    fps: float | str = "source",
    pose: float = 1.0,
    blink: float = 1.0,
    gaze: float = 1.0,
    expression: float = 1.0,
    lips: float = 1.0,
    still: bool = False,
    face: int = 0,
    device: str = "auto",
) -> Generation[Take]:
    """Make the person in a portrait say the speech.

    Args:
        image: The portrait: any picture file.
        audio: The speech: any file with an audio stream, of any language and length.
        takes: How many videos; they have seeds ``seed``, ``seed + 1``, ...
        seed: Draws another head motion, gaze and blinking; the lips stay the same.
        size: Longer side of the video in pixels, or ``"source"`` for that of the portrait.
        fps: Frames a second, or ``"source"`` (25 for a portrait).
        pose: Strength of head motion; 0 holds the head still, 1 is natural.
        blink: Rate of blinks; 0 is none, 1 is natural.
        gaze: Strength of eye movements; 0 looks ahead, 1 is natural.
        expression: Strength of brows, forehead and eyelids; 0 is none, 1 is natural.
        lips: Strength of lip motion; 1 is natural.
        still: Keep head and gaze still; lips and blinks go on.
        face: Which face, by size; 0 is the largest.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"mps"`` or another torch device.

    Returns:
        The takes, each computed while it is iterated or saved; memory does not grow with its length.

    Raises:
        TalkfaceError: What is wrong with the input, in one line.
    """
    given = locals()  # the arguments, and nothing else yet
    return _thpad(given.pop("device"))(**given)


def dub(
    video: str | Path,
    audio: str | Path | None = None,
    *,
    sync_mode: str = "cut_off",
    face: int | str = 0,
    audio_tracks: Mapping[int, str | Path] | None = None,
    lips: float = 1.0,
    keep_silence: bool = False,
    start: float | str = 0.0,
    stop: float | str | None = None,
    audio_stream: int = 0,
    device: str = "auto",
) -> Generation[Dubbing]:
    """Make the people of a video say other words; everything but the lower face stays as it is.

    Args:
        video: Any video file.
        audio: The new speech: any file with an audio stream, of any language and length.
        sync_mode: What happens where video and speech differ in length. ``"cut_off"``: the longer is cut;
            ``"loop"``: the video begins again; ``"bounce"``: it is played forth and back; ``"silence"``: it
            is kept, beside silence; ``"remap"``: it is slowed down or sped up.
        face: Which face, by size and time on screen; 0 is the main one. ``"auto"`` is who speaks in the
            video, ``"all"`` is everybody.
        audio_tracks: Speech for each of several faces, by number, instead of ``audio``.
        lips: Strength of lip motion; 1 is natural.
        keep_silence: Show the original frames where nobody speaks, instead of a closed mouth.
        start: Where the stretch of the video begins: seconds, or ``"1:02:03"``.
        stop: Where it ends; by default with the video.
        audio_stream: Which audio stream of the video is its own speech, for ``face="auto"``.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"mps"`` or another torch device.

    Returns:
        The takes, each computed while it is iterated or saved; memory does not grow with its length.

    Raises:
        TalkfaceError: What is wrong with the input, in one line.
    """
    given = locals()  # the arguments, and nothing else yet
    return _g4g(given.pop("device"))(**given)


def imagine(
    audio: str | Path,
    *,
    takes: int = 1,
    seed: int = 0,
    prompt: str = "",
    emotion: str = "auto",
    identity_from: str | Path = "voice",
    emotion_from: str | Path | None = None,
    size: int = 256,
    steps: int | None = None,
    guidance: float | None = None,
    renderer: str = "auto",
    still: bool = False,
    base: str | Path = "compact",
    device: str = "auto",
) -> Generation[Imagination]:
    """Imagine people who could have a voice, saying the speech.

    Nobody is recognised, and nobody's picture is used.

    Args:
        audio: The speech: any file with an audio stream, of any language and length.
        takes: How many people; they have seeds ``seed``, ``seed + 1``, ...
        seed: Draws another person.
        prompt: Words for the look of the person, which go before what the voice tells: "a woman with red
            hair and glasses".
        emotion: ``"auto"`` hears the mood as it changes; a mood (neutral, calm, happy, sad, angry, fearful,
            disgust, surprised) holds it throughout.
        identity_from: ``"voice"`` for the speech's own, or a recording of another voice.
        emotion_from: A recording whose mood is taken, instead of the speech's.
        size: Side of the video in pixels, 256 or 512.
        steps: Steps in which a person is imagined, 1 to 100; by default those that the model has learnt to
            draw in, or 8.
        guidance: How much voice and prompt count; 1 is as trained, 0 leaves them out. By default 3, or 1
            where the model has learnt to draw so.
        renderer: ``"warp"`` moves the imagined portrait; ``"diffusion"`` draws every frame by the diffusion
            model, which is slower; ``"auto"`` is warp.
        still: Keep head and gaze still; lips and blinks go on.
        base: ``"compact"``, or a directory or hub id of another latent diffusion model, such as Stable
            Diffusion 1.5.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"mps"`` or another torch device.

    Returns:
        The takes, each computed while it is iterated or saved; memory does not grow with its length.

    Raises:
        TalkfaceError: What is wrong with the input, in one line.
    """
    given = locals()  # the arguments, and nothing else yet
    return _imagineid(str(given.pop("base")), given.pop("device"))(**given)


def fill(
    video: str | Path,
    audio: str | Path,
    *,
    identity: str | Path | Sequence[str | Path],
    mask: str | Path = "auto",
    face: int = 0,
    margin: float = 0.25,
    sync_mode: str = "cut_off",
    landmarks: str | Path | None = None,
    takes: int = 1,
    seed: int = 0,
    steps: int = 2,
    resolution: int = 256,
    start: float | str = 0.0,
    stop: float | str | None = None,
    device: str = "auto",
) -> Generation[Filling]:
    """Fill the face that is missing in a video: in place, of a given person, saying the speech.

    Args:
        video: Any video file. What is under the mask is never looked at, but for ``mask="auto"``.
        audio: The speech: any file with an audio stream, of any language and length.
        identity: Whose face: a portrait or several, or ``"imagined"`` for one imagined from the voice.
        mask: Where: ``"auto"`` around a face that is still seen, a picture or video (white is filled), or a
            box ``"x,y,w,h"`` in pixels.
        face: Which face, by size and time on screen, for ``mask="auto"``; 0 is the main one.
        margin: How much larger than the face's oval the automatic mask is.
        sync_mode: What happens where video and speech differ in length; as for :func:`dub`.
        landmarks: Landmarks to draw: a JSON file that ``save_landmarks`` (on the command line
            ``--landmarks-out``) wrote, as it is or edited.
        takes: How many videos; they have seeds ``seed``, ``seed + 1``, ...
        seed: Draws other blinks and gaze, and another texture.
        steps: Steps in which frames are drawn, 1 to 100.
        resolution: Side in pixels of the square in which the face is drawn, 256 or 512: the larger is for
            faces that are large in video and portrait.
        start: Where the stretch of the video begins: seconds, or ``"1:02:03"``.
        stop: Where it ends; by default with the video.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"mps"`` or another torch device.

    Returns:
        The takes, each computed while it is iterated or saved; memory does not grow with its length.

    Raises:
        TalkfaceError: What is wrong with the input, in one line.
    """
    given = locals()  # the arguments, and nothing else yet
    return _tccp(given.pop("device"))(**given)


@cache
def _thpad(device: str) -> ThpadPipeline:
    from talkface.systems.thpad.pipeline import ThpadPipeline

    return ThpadPipeline.from_pretrained("compact", device=device)


@cache
def _g4g(device: str) -> G4GPipeline:
    from talkface.systems.g4g.pipeline import G4GPipeline

    return G4GPipeline.from_pretrained("compact", device=device)


@cache
def _tccp(device: str) -> TccpPipeline:
    from talkface.systems.tccp.pipeline import TccpPipeline

    def imagine(speech: Path, seed: int, size: int) -> np.ndarray:
        return _imagineid("compact", device)(speech, seed=seed, size=size)[0].portrait

    pipeline = TccpPipeline.from_pretrained("compact", device=device)
    pipeline.imagine = imagine
    return pipeline


@cache
def _imagineid(base: str, device: str) -> ImagineIdPipeline:
    from talkface.systems.imagineid.pipeline import ImagineIdPipeline

    return ImagineIdPipeline.from_pretrained("compact", base=base, device=device)
