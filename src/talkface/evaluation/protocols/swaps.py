"""Which recording decides what: identity, content and mood are each taken from another recording, in turn."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from talkface.data.manifest import Item, Manifest
from talkface.evaluation.figures import picture, sync
from talkface.evaluation.judges.recognisers import recognisers
from talkface.evaluation.protocols.clips import frames_at, prepared_track
from talkface.evaluation.protocols.moods import acted_moods
from talkface.evaluation.protocols.request import counted, leaving_out
from talkface.evaluation.tracking import TrackedFace, resample_track, ticks_within, track_file
from talkface.face.model import FaceModel, estimate_pose
from talkface.face.tracker import FaceTrack
from talkface.systems.imagineid.imagination import Imagination
from talkface.systems.imagineid.pipeline import ImagineIdPipeline

_MOST_TRIPLES = 8  # of recordings that are swapped


@dataclass(frozen=True)
class _Shown:
    """What the frames of a video show.

    Attributes:
        descriptors: Of the face in the middle frame, by the suffix of the recogniser's figures.
        tracked: The face over time.
        expression: (U + M,) mean coefficients.
    """

    descriptors: dict[str, np.ndarray]
    tracked: TrackedFace
    expression: np.ndarray


def judge_swaps(
    pipeline: ImagineIdPipeline, manifest: Manifest, items: list[Item], seed: int, options: dict[str, Any]
) -> list[dict[str, Any]]:
    """Take identity, content or mood from another recording: what changes, and what does not?

    Every row compares a video with the one before the swap: CSIM, correlation of the mouth openings, and how
    far the mean expression has moved.

    Args:
        pipeline: What is evaluated.
        manifest: A prepared folder.
        items: Talking clips, of which each is once the own recording and others are put in its place.
        seed: Of the first person.
        options: Of the pipeline.
    """
    wild = [item for item in items if item.group == "wild"] or items
    moods = [manifest.file(item) for item in acted_moods(manifest) if item.split == "val"]
    rows = []
    chosen = wild[:: max(1, len(wild) // _MOST_TRIPLES)][:_MOST_TRIPLES]
    for number, own in enumerate(counted(chosen, lambda item: f"swaps of {item.key}")):
        others = [item for item in wild if item.corpus + item.speaker != own.corpus + own.speaker]
        if not others:
            continue
        other = manifest.file(others[(7 * number) % len(others)])
        mood = moods[(13 * number) % len(moods)] if moods else other
        with leaving_out(own.key):
            rows += list(_Swaps(pipeline, manifest, own, seed + number, options).rows(other, mood))
    return rows


@dataclass(frozen=True)
class _Swaps:
    """Videos of one clip's person, and what changes in them when a recording is swapped."""

    pipeline: ImagineIdPipeline
    manifest: Manifest
    own: Item
    seed: int
    options: dict[str, Any]

    def rows(self, other: Path, mood: Path) -> Iterator[dict[str, Any]]:
        """A row for each swap.

        Args:
            other: A recording of somebody else.
            mood: A recording of an acted mood.
        """
        mine, track = self.manifest.file(self.own), prepared_track(self.manifest, self.own)
        before = self._show(mine, mine, mine)
        true = resample_track(track, self.pipeline.models.face)
        span = float(track.times[0]), float(track.times[-1])
        for swapped, given in (
            ("identity", (mine, other, mine)),
            ("content", (other, mine, mine)),
            ("emotion", (mine, mine, mood)),
        ):
            after = self._show(*given)
            row: dict[str, Any] = {"name": f"{self.own.key}/{given[1].stem}", "group": f"{swapped} swapped"}
            row |= _change(before, after)
            if swapped != "content":
                row["aperture_r_before"], row["aperture_r_after"] = (
                    _lip_correlation(_within(shown.tracked, *span), true) for shown in (before, after)
                )
            yield row

    def _show(self, content: Path, identity: Path, emotion: Path) -> _Shown:
        """Make a video and look at it."""
        given = {"identity_from": identity, "emotion_from": emotion, **self.options}
        take = self.pipeline(content, seed=self.seed, **given)[0]
        with tempfile.TemporaryDirectory() as folder:
            path = take.save(Path(folder) / "take.mp4")
            track = track_file(path, self.pipeline.models.imaginer.tracker)
            middle = len(track.points) // 2
            frame = next(frames_at(path, [int(track.frames[middle])]))
        face = self.pipeline.models.face
        seen = {suffix: describe(frame, track.points[middle]) for suffix, describe in recognisers().items()}
        return _Shown(seen, resample_track(track, face), _expression(face, take, track))


def _change(before: _Shown, after: _Shown) -> dict[str, float]:
    """``csim_kept`` by each recogniser, ``opening_kept`` and ``expression_moved``."""
    found = {
        f"csim_kept{suffix}": picture.cosine(face, after.descriptors[suffix])
        for suffix, face in before.descriptors.items()
    }
    found["opening_kept"] = _lip_correlation(before.tracked, after.tracked)
    found["expression_moved"] = float(np.sqrt(np.square(after.expression - before.expression).mean()))
    return found


def _expression(face: FaceModel, take: Imagination, track: FaceTrack) -> np.ndarray:
    """Mean expression coefficients (U + M,) of a tracked face, relative to the portrait's face at rest."""
    neutral = face.fit(take.imagined.points[None]).neutral
    apart = (estimate_pose(track.points, neutral).invert(track.points).mean(0) - neutral)[None]
    expression: np.ndarray = np.concatenate([face.project_upper(apart), face.project_mouth(apart)], 1)[0]
    return expression


def _within(face: TrackedFace, start: float, stop: float) -> TrackedFace:
    """The part of a face from ``start`` to ``stop`` seconds, if its first frame is at time 0."""
    first, last = ticks_within(start, stop)
    return face[first : last + 1]


def _lip_correlation(a: TrackedFace, b: TrackedFace) -> float:
    length = min(len(a), len(b))
    return sync.best_correlation(a.opening[:length], b.opening[:length])
