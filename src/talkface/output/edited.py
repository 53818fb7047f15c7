"""A video that is edited while it is looked at or saved: its frames, changed, beside new sound."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from talkface.media.audio import mix_to
from talkface.media.prefetch import prefetched
from talkface.media.segments import SegmentedWriter
from talkface.media.source import SourceVideo
from talkface.media.timeline import Timeline
from talkface.media.video import Frame
from talkface.output.generation import Generation


class EditedVideo(Generation):
    """A video with changed pictures and new sound, frame by frame.

    Args:
        frames: begins the computation behind a time in seconds, or at the start for None.
        timeline: which frame is shown when.
        source: the video.
        speeches: sound files that are heard.
        fingerprint: tells inputs and options apart, for resuming.
        provenance: what made the video.
        seed: what random choices were drawn from.
    """

    def __init__(
        self,
        frames: Callable[[float | None], Iterator[Frame]],
        timeline: Timeline,
        source: SourceVideo,
        speeches: Sequence[Path],
        fingerprint: str,
        provenance: dict[str, str],
        seed: int = 0,
    ) -> None:
        super().__init__(
            lambda: (frame.image for frame in frames(None)),
            frame_count=timeline.frame_count,
            fps=timeline.fps,
            size=source.size,
            audio=speeches[0],
            seed=seed,
            provenance=provenance,
        )
        self._timed_frames, self._fingerprint = frames, fingerprint
        self._timeline, self._source, self._speeches = timeline, source, list(speeches)

    @property
    def duration(self) -> float:
        """Seconds."""
        return self._timeline.duration

    def timed(self, after: float | None = None) -> Iterator[Frame]:
        """Frames with their times in seconds, those that begin later than ``after``."""
        return self._timed_frames(after)

    def save(
        self,
        path: str | Path,
        overwrite: bool = False,
        progress: Callable[[str, int, int], None] | None = None,
        resume: bool = False,
    ) -> Path:
        """Compute the video and write it, with the new sound and with a note that it is synthetic.

        Args:
            path: the file: ``.mp4``, ``.mov``, ``.mkv`` or ``.webm``.
            overwrite: replace an existing file.
            progress: called as ``progress("frames", done, total)`` after each frame.
            resume: go on where an interrupted run of the same inputs and options was.

        Returns:
            The path.

        Raises:
            OutputError: the file exists or cannot be written; found before anything is computed, if possible.
            TalkfaceError: what is wrong with the input.
        """
        folder = Path(tempfile.mkdtemp(prefix="talkface-")) if len(self._speeches) > 1 else None
        try:
            sound = self._speeches[0]
            if folder:
                sound = folder / "speech.wav"
                mix_to(self._speeches, sound)
            return self._write(Path(path), sound, overwrite, progress, resume)
        finally:
            if folder:
                shutil.rmtree(folder, ignore_errors=True)

    def _write(
        self,
        path: Path,
        sound: Path,
        overwrite: bool,
        progress: Callable[[str, int, int], None] | None,
        resume: bool,
    ) -> Path:
        with SegmentedWriter(
            path,
            like=self._source,
            fps=self._timeline.fps,
            variable=self._timeline.variable,
            audio=sound,
            metadata=self._metadata(),
            overwrite=overwrite,
            resume=resume,
            fingerprint=self._fingerprint,
            duration=self._timeline.duration,
        ) as writer:
            for frame in prefetched(self.timed(writer.time_done), depth=12):
                writer.write(frame.image, frame.time)
                if progress:
                    progress("frames", writer.frames, self.frame_count)
        return writer.path
