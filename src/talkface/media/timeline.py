"""Which frame of a video is shown when, where speech is shorter or longer than the video."""

import logging
import math
from collections.abc import Iterator
from itertools import count

from talkface.errors import InvalidOption
from talkface.media.decode import TOLERANCE, Frame
from talkface.media.rate import frame_count
from talkface.media.source import SourceVideo

logger = logging.getLogger(__name__)

MODES = ("cut_off", "loop", "bounce", "silence", "remap")


class Timeline:
    """The frames of a video on the clock of speech; iterate as often as needed, few frames are held at once.

    * ``cut_off``: the longer of video and speech is cut.
    * ``loop``: the video begins again while speech lasts.
    * ``bounce``: the video is played forwards, backwards, forwards, ... while speech lasts; the frames at its
      ends are shown once.
    * ``silence``: the video is shown as it is, beside silence where speech is over; longer speech is cut.
    * ``remap``: the video is slowed down or sped up to last as long as the speech.

    A constant rate stays constant, and ``round(seconds * fps)`` frames are shown where speech of so many
    seconds cuts the video, at least one. At variable rate, a frame is shown if half a mean frame of speech is
    left when it begins, and keeps its own time; ``remap`` shows the nearest frames at a constant rate.

    Args:
        source: The video.
        speech_seconds: How long the speech lasts.
        mode: One of the above.

    Attributes:
        fps: Frames a second, on average if variable.
        variable: Whether frames come at other times than multiples of ``1 / fps``.
        duration: Seconds until the last frame ends.
        frame_count: How many frames are shown: exact for constant rates of videos without damage, else about.

    Raises:
        InvalidOption: There is no such mode, or no speech.
    """

    def __init__(self, source: SourceVideo, speech_seconds: float, mode: str = "cut_off") -> None:
        if mode not in MODES:
            raise InvalidOption(f"sync_mode is {mode}; choose one of {', '.join(MODES)}")
        if not 0 < speech_seconds < float("inf"):
            raise InvalidOption(f"speech must last longer than 0 s, not {speech_seconds:g} s")
        self.source, self.speech_seconds, self.mode = source, speech_seconds, mode
        self.fps, self.variable = source.fps, source.variable and mode != "remap"
        spoken = max(1, frame_count(speech_seconds, self.fps))
        if mode == "silence" and speech_seconds > source.duration + 1 / self.fps:
            logger.warning(
                "the video is shorter than the speech, whose last %.2f s are cut; choose another sync_mode",
                speech_seconds - source.duration,
            )
        self._uncut = mode == "silence" or (mode == "cut_off" and speech_seconds >= source.duration)
        if self._uncut:
            self.duration, self.frame_count = source.duration, source.frame_count
        elif self.variable:
            self.duration = speech_seconds
            self.frame_count = max(1, round(source.frame_count * speech_seconds / source.duration))
        else:
            self.duration, self.frame_count = float(spoken / self.fps), spoken

    def __len__(self) -> int:
        return self.frame_count

    def __iter__(self) -> Iterator[Frame]:
        return self.frames()

    def frames(self, after: float | None = None) -> Iterator[Frame]:
        """The frames that begin later than ``after`` seconds, or all; those before are not computed."""
        begin = 0.0 if after is None else after + 2 * TOLERANCE
        # A frame is shown if half of a mean one is left.
        end = math.inf if self._uncut else self.duration - 0.5 / float(self.fps)
        for frame in self._passes(begin):
            if frame.time > max(0.0, end):
                return
            yield frame

    def _passes(self, begin: float) -> Iterator[Frame]:
        """The frames that begin at ``begin`` or later, without end where the mode has none."""
        if self.mode == "loop":
            return self._looped(begin)
        if self.mode == "bounce" and self.source.last > 0:
            return self._bounced(begin)
        if self.mode == "bounce":
            return self._looped(begin)
        if self.mode == "remap":
            return self._remapped(begin)
        return self.source.frames(begin)

    def _looped(self, begin: float) -> Iterator[Frame]:
        period = self.source.duration
        for number in count(math.floor(begin / period)):
            for frame in self.source.frames(max(0.0, begin - number * period)):
                yield Frame(frame.image, frame.time + number * period, frame.time)

    def _bounced(self, begin: float) -> Iterator[Frame]:
        last = self.source.last
        for number in count(math.floor(begin / (2 * last))):
            passed = 2 * last * number
            if begin <= passed + last + TOLERANCE:
                for frame in self.source.frames(max(0.0, begin - passed)):
                    yield Frame(frame.image, passed + frame.time, frame.time)
            turned = passed + 2 * last
            for frame in self.source.backwards(min(last, turned - begin + 2 * TOLERANCE)):
                if frame.time > TOLERANCE:
                    yield Frame(frame.image, turned - frame.time, frame.time)

    def _remapped(self, begin: float) -> Iterator[Frame]:
        """At multiples of ``1 / fps``, the source's frames that are nearest."""
        numbers = range(max(0, math.ceil((begin - TOLERANCE) * self.fps)), self.frame_count)
        # The middles of frames, not their beginnings, so that none gets more or less than its share.
        pace, half = self.source.duration / self.frame_count, 0.5 / float(self.fps)
        nearest = self.source.nearest((number + 0.5) * pace - half for number in numbers)
        for number, frame in zip(numbers, nearest, strict=False):
            yield Frame(frame.image, float(number / self.fps), frame.time)
