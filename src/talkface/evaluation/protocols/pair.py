"""Scores a generated video beside the real one of the same person, mostly with the same head motion."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from talkface.errors import NoFaceFound
from talkface.evaluation.figures import fidelity, motion, sync
from talkface.evaluation.figures.fidelity import FrameFidelity
from talkface.evaluation.judges.embeddings import MAX_SHIFT
from talkface.evaluation.judges.recognisers import dlib_used
from talkface.evaluation.judges.sync import SyncJudge, Verdict, verdict
from talkface.evaluation.protocols.clips import Clip, aligned_frames, voice
from talkface.evaluation.protocols.samples import SampledFrames
from talkface.evaluation.protocols.scores import Scores
from talkface.evaluation.tracking import (
    COMMON_FPS,
    TrackedFace,
    common_span,
    head_distance,
    of_equal_length,
    resample_track,
    track_file,
)
from talkface.face.model import FaceModel
from talkface.face.tracker import FaceTrack, FaceTracker
from talkface.media.video import VideoReader

logger = logging.getLogger(__name__)

PAIR_REVISION = 1  # of the figures' definitions: part of the protocol, raised when one changes
SAMPLED_FRAMES = 8  # frames of each clip whose likeness and sharpness are measured
_SHORTEST = 0.4  # seconds that can be scored
_SAME_HEAD = 0.15  # inter-ocular distances: heads further apart do not move alike


class PairScorer:
    """Scores one generated video after the other.

    Args:
        judges: Judges of sync.

    Attributes:
        tests: Scores by the name of the test.
    """

    def __init__(self, judges: Sequence[SyncJudge] = ()) -> None:
        self.judges, self.tests = list(judges), dict[str, Scores]()
        self.tracker, self.face = FaceTracker(threads=2), FaceModel.from_pretrained()
        self._of_real: dict[tuple[str, Path], Verdict | None] = {}

    def protocol(self) -> dict[str, Any]:
        """What the figures depend on beside the clips."""
        return {
            "revision": PAIR_REVISION,
            "fps": COMMON_FPS,
            "mouth_box": fidelity.MOUTH_BOX,
            "sync_reach": MAX_SHIFT,
            "frames_looked_at": SAMPLED_FRAMES,
            **dlib_used(),
            "experts": [judge.identity for judge in self.judges],
        }

    def __call__(
        self, test: str, source: Clip, generated: Path, speech: Clip | None = None
    ) -> dict[str, Any]:
        """Score a video.

        Args:
            test: Name of the test that it belongs to.
            source: The real video: of the same person, and of the same head motion if the tool keeps it.
            generated: The video to score.
            speech: The real video that the sound is from, if not the source: its lips are the reference.

        Returns:
            The row of figures that was added; further figures may be put into it.

        Raises:
            TalkfaceError: A file cannot be read, or has no face.
        """
        track = track_file(generated, self.tracker, source.track)
        spoken = speech or source
        sound = generated if _has_sound(generated) else spoken.path
        tracks = [track, source.track, spoken.track]
        made, own, lips = self._resampled(tracks)
        row = source.row(len(made))
        row |= {"speech": spoken.name} if speech else {}
        row["face_found"] = float(made.found.mean())
        speaks, sounds = voice(sound, common_span(tracks)[0], len(made))
        row |= _lip_figures(made, own, lips if speech else None, speaks, sounds)
        row |= motion.head_and_eyes_beside(made, own)
        figures, samples = _compare_frames(source, generated, track, same_words=speech is None)
        row |= figures | samples.figures()
        curves = {}
        for judge in self.judges:
            if both := self._verdicts(judge, generated, track, sound, spoken):
                row |= both[0].figures(judge.name) | both[1].figures(f"real_{judge.name}")
                curves[judge.name] = both[0].score.curve, both[1].score.curve
        scores = self.tests.setdefault(test, Scores())
        scores.add(row, made, lips, samples.strip(speech), faces=samples.faces(), curves=curves)
        return row

    def _resampled(self, tracks: list[FaceTrack]) -> list[TrackedFace]:
        """The faces over the time that all tracks cover."""
        start, stop = common_span(tracks)
        if stop - start < _SHORTEST:
            raise NoFaceFound(f"the face is in all videos for less than {_SHORTEST} s: nothing to compare")
        return of_equal_length([resample_track(track, self.face, start, stop) for track in tracks])

    def _verdicts(
        self, judge: SyncJudge, generated: Path, track: FaceTrack, sound: Path, spoken: Clip
    ) -> tuple[Verdict, Verdict] | None:
        """On the generated video, and on the one that its sound is from."""
        made = verdict(judge, generated, track, sound)
        key = judge.name, spoken.path
        if key not in self._of_real:
            self._of_real[key] = verdict(judge, spoken.encoded or spoken.path, spoken.track, spoken.path)
        real = self._of_real[key]
        return (made, real) if made and real else None


def _has_sound(path: Path) -> bool:
    with VideoReader(path) as reader:
        return reader.has_audio


def _lip_figures(
    made: TrackedFace, own: TrackedFace, spoken: TrackedFace | None, speaks: np.ndarray, sounds: bool
) -> dict[str, float]:
    """Lip sync, and closed mouths in silence.

    Args:
        made: The generated face.
        own: The source's face.
        spoken: If the video says something else than its source, the face of the clip that says it: then only
            the motion of the lips is compared, not where they are.
        speaks: (T,) bool, whether somebody speaks.
        sounds: Whether the sound is anything but silent.
    """
    quiet = sync.silence(made, own, speaks)
    if spoken is None:
        return sync.lip_sync(made, own, sounds) | quiet
    figures = sync.lip_sync(made, spoken, sounds) | quiet
    if "aperture_r" in figures:
        figures["source_r"] = sync.best_correlation(made.opening, own.opening)
    return {k: v for k, v in figures.items() if k not in ("mouth_lmd", "real_silent_opening")}


def _compare_frames(
    source: Clip, generated: Path, track: FaceTrack, same_words: bool
) -> tuple[dict[str, float], SampledFrames]:
    """Go through both videos once: figures of pixels, where the heads move alike, and sampled frames."""
    alike = _same_pictures(source, generated, track)
    frames, samples = FrameFidelity(same_words), SampledFrames(alike)
    sampled = np.linspace(track.frames[0], track.frames[-1], SAMPLED_FRAMES).round().astype(int)
    for real_number, real, number, image in aligned_frames(source.path, generated):
        true, made = _mesh(source.track, real_number), _mesh(track, number)
        if true is None or made is None:
            continue
        if alike:
            width, height = min(real.shape[1], image.shape[1]), min(real.shape[0], image.shape[0])
            frames.add(real[:height, :width], image[:height, :width], true)
        if number in sampled:
            samples.add(number, (real, true), (image, made))
    return frames.figures(), samples


def _same_pictures(source: Clip, generated: Path, track: FaceTrack) -> bool:
    """Whether two videos have the same pictures but for what was redrawn; the log says why if not."""
    with VideoReader(source.path) as real, VideoReader(generated) as made:
        # The encoder may have added a pixel to an odd side.
        same_size = max(abs(a - b) for a, b in zip(real.size, made.size, strict=True)) <= 1
        sizes = f"{real.size[0]}x{real.size[1]} and {made.size[0]}x{made.size[1]} pixels"
    apart = head_distance(track, source.track)
    if same_size and apart < _SAME_HEAD:
        return True
    reason = f"the head moves differently ({apart:.2f} inter-ocular distances off)" if same_size else sizes
    logger.warning("%s: PSNR, SSIM, seam and flicker are left out: %s", source.name, reason)
    return False


def _mesh(track: FaceTrack, number: int) -> np.ndarray | None:
    """The mesh (478, 3) of a frame, None outside the track."""
    place = number - int(track.frames[0])
    return track.points[place] if 0 <= place < len(track.points) else None
