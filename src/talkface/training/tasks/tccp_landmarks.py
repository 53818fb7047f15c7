"""Trains TCCP's stage 1, compact: head poses from the surroundings of the hole and from the voice."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from talkface.face import topology as tp
from talkface.face.model import FaceModel
from talkface.hub import save_pretrained
from talkface.media.prefetch import prefetched
from talkface.systems.tccp.holes import beside, hole_outline
from talkface.systems.tccp.landmarks import VIEW_PIXELS, LandmarkConfig, LandmarkTransformer, posed, rotations
from talkface.training import Task
from talkface.training.datasets.contexts import CONTEXT_PIXELS, Contexts

_COMPOSED = 0.2  # share of stretches beside whose hole somebody else is seen
_HOLE_KINDS = (0.4, 0.2, 0.2, 0.2)  # shares of holes that are tracked, moving, still, and boxes
_MARGIN_KNOWN = 0.8  # share of tracked holes whose margin the network is given
_VERTEX_STEP = 12  # of the face's vertices, one in so many is compared


@dataclass(frozen=True, kw_only=True)
class LandmarkTrainConfig:
    """Settings of stage 1's training.

    Attributes:
        model: sizes.
        batch: stretches.
        frames: of each.
        no_context: hide all of the context, always, for an ablation.
        velocity: weight of the error of the points' motion, beside that of their places.
        turn: weight of the error of rotations.
        stills: share of stretches that repeat a still, with another hole in each frame.
        no_audio: share of stretches without a voice.
        held_out: stretches on which it is validated.
        face_model: name or directory of the 3DMM.
    """

    model: LandmarkConfig = field(default_factory=LandmarkConfig)
    batch: int = 6
    frames: int = 64
    no_context: bool = False
    velocity: float = 1.0
    turn: float = 0.7
    stills: float = 0.4
    no_audio: float = 0.1
    held_out: int = 60
    face_model: str = "face"


class LandmarkTask(Task[LandmarkTrainConfig]):
    """Distance of the posed face from the tracked one, of its motion from the real one, and of rotations.

    Holes of every kind are drawn around the faces of clips and stills.
    """

    metric, mode = "val_landmark_error", "min"

    def prepare(self, data: Path, seed: int) -> None:
        """Load clips and stills, and build the network."""
        config = self.config
        face = FaceModel.from_pretrained(config.face_model)
        chosen = np.arange(0, tp.FACE_VERTICES, _VERTEX_STEP)
        self.points = torch.from_numpy(face.mean[chosen]).to(self.device)
        manifest = self.manifest
        self.train_clips = Contexts.of(manifest, "train", face)
        self.val_clips = Contexts.of(manifest, manifest.choosing, face)
        self.stills = Contexts.of_stills(manifest, "train", face) if config.stills else None
        torch.manual_seed(seed)
        self.net = LandmarkTransformer(config.model).to(self.device)
        self.modules = {"net": self.net}
        generator = np.random.default_rng(0)
        spread = np.linspace(0, len(self.val_clips) - 1, config.held_out).round().astype(int)
        parts = [self._stretch(self.val_clips, clip, generator, plain=True) for clip in spread]
        self.fixed = _stacked(parts, self.device)

    def _stretch(
        self, clips: Contexts, clip: int, generator: np.random.Generator, plain: bool = False
    ) -> dict[str, np.ndarray]:
        """Frames of a clip around a hole of any kind; not augmented if ``plain``."""
        length = int(clips.starts[clip + 1] - clips.starts[clip])
        count = min(self.config.frames, length)
        frames = int(clips.starts[clip]) + int(generator.integers(length - count + 1)) + np.arange(count)
        if clips is self.stills:
            frames = np.repeat(frames, self.config.frames)
        meshes = clips.points[frames].astype(np.float32)
        holes = draw_holes(meshes, generator, apart=clips is self.stills)
        views, poses, _ = clips.view(frames, holes.outlines)
        count = len(frames)
        if not plain:
            if generator.random() < _COMPOSED:
                views = self._beside_another(views, generator)
            views = _in_other_light(views, generator)
            if generator.random() < 0.5:
                views, poses = _mirrored(views, poses)
        if self.config.no_context:
            views = np.concatenate([np.zeros_like(views[:, :3]), views[:, 3:]], 1)
        pad = self.config.frames - count
        row = {
            "views": views,
            "poses": poses,
            "audio": clips.audio[frames].astype(np.float32),
            "there": np.ones(count, np.float32),
        }
        row = {name: np.concatenate([part, np.repeat(part[-1:], pad, 0)]) for name, part in row.items()}
        row["there"][count:] = 0
        return row | {"alpha": clips.alpha[clip], "margin": np.float32(holes.margin)}

    def _beside_another(self, views: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Views (T, 4, 64, 64) beside whose hole somebody else is seen."""
        place = beside(views[:, 3])
        if place is None:
            return views
        clip = int(generator.integers(len(self.train_clips)))
        begin, end = self.train_clips.starts[clip : clip + 2]
        index = np.minimum(np.arange(begin, begin + len(views)), end - 1)
        width = place.stop - place.start
        first = (CONTEXT_PIXELS - width) // 2
        strip = self.train_clips.images[index][:, (CONTEXT_PIXELS - VIEW_PIXELS) // 2 :][
            :, :VIEW_PIXELS, first : first + width
        ]
        views = views.copy()
        views[:, :3, :, place] = strip.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
        return views

    def batches(self, generator: np.random.Generator) -> Iterator[dict[str, Tensor]]:
        """Endless batches of stretches."""

        def draw() -> Iterator[dict[str, Tensor]]:
            while True:
                yield _stacked([self._example(generator) for _ in range(self.config.batch)], self.device)

        yield from prefetched(draw())

    def _example(self, generator: np.random.Generator) -> dict[str, np.ndarray]:
        """A stretch of a clip or, now and then, of a still."""
        still = self.stills is not None and generator.random() < self.config.stills
        clips = self.stills if self.stills is not None and still else self.train_clips
        return self._stretch(clips, int(generator.choice(len(clips), p=clips.weight)), generator)

    def training_step(self, batch: dict[str, Tensor], optimizer_index: int, step: int) -> dict[str, Tensor]:
        """Distance of points and of their motion, in inter-ocular distances, and of rotations."""
        silent = torch.rand(len(batch["audio"]), device=self.device) < self.config.no_audio
        audio = batch["audio"] * (~silent).float()[:, None, None, None]
        predicted = self.net(batch["views"], audio, batch["alpha"], batch["margin"])
        with torch.autocast(self.device.type, enabled=False):  # geometry wants all digits
            return self._losses(predicted.float(), batch)

    def _losses(self, predicted: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        away = self._away(predicted, batch["poses"])
        there = batch["there"][..., None, None]
        distance = (away.norm(dim=-1, keepdim=True) * there).sum() / (there.sum() * away.shape[2])
        pace = (away.diff(dim=1).norm(dim=-1, keepdim=True) * there[:, 1:]).sum()
        pace = pace / (there[:, 1:].sum() * away.shape[2]).clamp_min(1)
        # Half the chord between rotation matrices: the sine of half the angle, times the root of two.
        apart = (rotations(predicted[..., :3]) - rotations(batch["poses"][..., :3])).flatten(2).norm(
            dim=-1
        ) / 2
        turn = (apart * batch["there"]).sum() / batch["there"].sum()
        loss = distance + self.config.velocity * pace + self.config.turn * turn
        return {"loss": loss, "distance": distance, "pace": pace, "turn": turn}

    def _away(self, predicted: Tensor, real: Tensor) -> Tensor:
        """Differences of posed points (B, T, V, 2), in inter-ocular distances."""
        return (posed(self.points, predicted) - posed(self.points, real)) / real[..., None, 5:6].exp()

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Distance of the points and angle between rotations, of unseen people."""
        predicted = self.net(*(self.fixed[name] for name in ("views", "audio", "alpha", "margin")))
        with torch.autocast(self.device.type, enabled=False):
            return self._errors(predicted.float())

    def _errors(self, predicted: Tensor) -> dict[str, float]:
        there = self.fixed["there"]
        away = self._away(predicted, self.fixed["poses"]).norm(dim=-1).mean(-1)
        between = rotations(predicted[..., :3]).transpose(-1, -2) @ rotations(self.fixed["poses"][..., :3])
        cosine = (between.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
        angle = torch.rad2deg(torch.arccos(cosine.clamp(-1, 1)))
        return {
            "val_landmark_error": float((away * there).sum() / there.sum()),
            "val_pose_error": float((angle * there).sum() / there.sum()),
        }

    def export(self, directory: Path, metrics: dict[str, float]) -> None:
        """Write the network as the hub reads it."""
        config = {"class": "LandmarkTransformer", "model": asdict(self.config.model), "metrics": metrics}
        save_pretrained(directory, config, self.net.state_dict(), card=None)


class Holes(NamedTuple):
    """Holes of a stretch.

    Attributes:
        outlines: (T, 36, 2) pixels.
        margin: by how much they are larger than the face's oval, if that is known; else 0.
    """

    outlines: np.ndarray
    margin: float


def draw_holes(meshes: np.ndarray, generator: np.random.Generator, apart: bool = False) -> Holes:
    """Holes for meshes (T, 478, 3): around a tracked face, around one that is tracked badly, still, or a box.

    With ``apart``, the hole of each frame is drawn by itself, all of the same kind.
    """
    margin = float(generator.uniform(0.12, 0.6))
    kind = str(generator.choice(["tracked", "moving", "still", "box"], p=_HOLE_KINDS))
    parts = [meshes[k : k + 1] for k in range(len(meshes))] if apart else [meshes]
    outlines = np.concatenate([_outlines(part, kind, margin, generator) for part in parts])
    predicted = kind == "tracked" and generator.random() < _MARGIN_KNOWN
    return Holes(outlines.astype(np.float32), margin if predicted else 0.0)


def _outlines(meshes: np.ndarray, kind: str, margin: float, generator: np.random.Generator) -> np.ndarray:
    outlines = np.stack([hole_outline(mesh, margin) for mesh in meshes])
    if kind == "tracked":
        return outlines
    if kind == "moving":  # a tracker that lags or shakes tells little about the pose
        wander = np.cumsum(generator.normal(0, 1, (len(meshes), 1, 2)), 0) * 0.15
        outlines = outlines + np.clip(wander, -4, 4)
    else:
        middle = np.median(outlines, 0)
        outlines = np.repeat((middle + 0.15 * (middle - middle.mean(0)))[None], len(meshes), 0)
    if kind == "box":
        low, high = outlines.min(1), outlines.max(1)
        sides = np.stack([low, high], 1)
        corners = np.stack([sides[:, [a, b], [0, 1]] for a, b in ((0, 0), (1, 0), (1, 1), (0, 1))], 1)
        outlines = np.repeat(corners, 9, 1)
    return outlines + generator.normal(0, 1.5, 2)


def _in_other_light(views: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    shown = 1 - views[:, 3:]
    gain = generator.normal(1, 0.15) * generator.normal(1, 0.08, (1, 3, 1, 1))
    lighter = np.clip((views[:, :3] + generator.normal(0, 0.1)) * gain, -1.2, 1.2) * shown
    return np.concatenate([lighter, views[:, 3:]], 1).astype(np.float32)


def _mirrored(views: np.ndarray, poses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    poses = poses.copy()
    poses[:, 1:4] *= -1  # yaw, roll and x
    return views[..., ::-1].copy(), poses


def _stacked(parts: list[dict[str, np.ndarray]], device: torch.device) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.stack([part[name] for part in parts])).to(device) for name in parts[0]}
