"""A dubbed video and the plan of it."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from talkface.media.decode import Frame
from talkface.media.source import SourceVideo
from talkface.media.timeline import Timeline
from talkface.output import Take

_WARM, _TIMED = 4, 12  # frames drawn before the clock is started, and while it runs
_BASE_BYTES = 650e6  # of libraries, models and buffers
_HELD = 50  # frames in memory: looked ahead, being drawn, being encoded


@dataclass(frozen=True)
class PlannedFace:
    """A person of the video and what is to become of them.

    Attributes:
        number: of the person, the main one is 0.
        share: part of the frames looked at in which the person was seen.
        box: median left, top, right, bottom of the face in pixels.
        size: smallest and largest height of the face in pixels.
        yaw: least and greatest, degrees.
        openings: least and greatest mouth opening seen, of inter-ocular distance.
        speech: what they will say; None if they stay as they are.
    """

    number: int
    share: float
    box: tuple[float, float, float, float]
    size: tuple[float, float]
    yaw: tuple[float, float]
    openings: tuple[float, float]
    speech: Path | None


@dataclass(frozen=True)
class Plan:
    """What will be done: ``faces`` of the ``source`` seen in ``looked_at`` frames, on a ``timeline``."""

    source: SourceVideo
    timeline: Timeline
    faces: list[PlannedFace]
    looked_at: int

    @property
    def memory(self) -> float:
        """Bytes that will be needed at most, about; they do not grow with the video's length."""
        width, height = self.source.size
        return _BASE_BYTES + _HELD * width * height * 3

    def lines(self) -> Iterator[str]:
        """The plan in words."""
        source, timeline = self.source, self.timeline
        rate = f"{float(timeline.fps):.3f}".rstrip("0").rstrip(".")
        kind = "variable, on average" if timeline.variable else "constant"
        yield f"video: {source.size[0]} x {source.size[1]}, {rate} fps ({kind}), {source.duration:.2f} s"
        yield f"result: {timeline.frame_count} frames, {timeline.duration:.2f} s"
        yield f"faces: {len(self.faces)} in {self.looked_at} frames looked at"
        for face in self.faces:
            left, top, right, bottom = (round(value) for value in face.box)
            said = f"says {face.speech.name}" if face.speech else "stays as it is"
            yield (
                f"  face {face.number}: in {face.share:.0%} of them, at {left},{top} to {right},{bottom}, "
                f"{face.size[0]:.0f} to {face.size[1]:.0f} px tall, turned {face.yaw[0]:+.0f} to "
                f"{face.yaw[1]:+.0f} degrees, "
                f"mouth open {face.openings[0]:.2f} to {face.openings[1]:.2f}; {said}"
            )
        yield f"memory: about {self.memory / 1e6:.0f} MB"


class Dubbing(Take):
    """A video with new lips, frame by frame.

    Args:
        frames: begins the computation behind a time in seconds, or at the start for None.
        timeline: which frame is shown when.
        source: the video.
        speeches: sound files that are heard.
        plan: what will be done.
        fingerprint: tells inputs and options apart, for resuming.
        provenance: what made the video.
    """

    def __init__(
        self,
        frames: Callable[[float | None], Iterator[Frame]],
        timeline: Timeline,
        source: SourceVideo,
        speeches: Sequence[Path],
        plan: Plan,
        fingerprint: str,
        provenance: dict[str, str],
    ) -> None:
        super().__init__(
            frames,
            timeline,
            source.size,
            sounds=speeches,
            provenance=provenance,
            fingerprint=fingerprint,
            source=source,
        )
        self.plan = plan

    def seconds_needed(self) -> float:
        """How long the whole will take, from drawing the first frames."""
        frames = self.timed()
        warm = sum(1 for _ in islice(frames, _WARM))
        begin = time.monotonic()
        timed = sum(1 for _ in islice(frames, _TIMED))
        each = (time.monotonic() - begin) / max(1, timed) if warm else 0.0
        return each * self.frame_count
