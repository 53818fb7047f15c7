"""Learns :class:`FaceTexture` from portraits: weighted principal components of shape-free pictures."""

import logging
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from talkface.data.faces import Portrait, held_out, portraits
from talkface.face import topology as tp
from talkface.face.model import FaceModel
from talkface.face.texture import FaceTexture, drawn_on, inner_face, reference_mesh
from talkface.hub import save_pretrained
from talkface.training import ClosedFormTask

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FaceTextureConfig:
    """Sizes, and which portraits are examples.

    Attributes:
        face_model: name or directory of the 3DMM.
        side: of the shape-free pictures, in pixels.
        components: how many.
        sharpness: least of a portrait.
        turned: largest yaw in radians: what is not seen cannot be unwrapped.
        opened: least of both eyes' openness, in inter-ocular distances.
        power: how people with many portraits count for less; 1 and all people count alike.
        held_out: portraits on which it is validated.
    """

    face_model: str = "face"
    side: int = 128
    components: int = 160
    sharpness: float = 3.6
    turned: float = 0.4
    opened: float = 0.05
    power: float = 0.7
    held_out: int = 48


def learn(album: list[Portrait], face: FaceModel, config: FaceTextureConfig) -> FaceTexture:
    """Learn the model from portraits and their mirror images."""
    warp, mesh = face.mesh_warp(), reference_mesh(face, config.side)
    inside = inner_face(mesh, config.side)
    plain = np.stack([drawn_on(warp, p.image(), p.points, mesh, config.side) for p in album])
    samples = np.concatenate([plain[:, inside], plain[:, :, ::-1][:, inside]]).reshape(2 * len(album), -1)
    counts = Counter(portrait.person for portrait in album)
    weight = np.tile([counts[portrait.person] ** -config.power for portrait in album], 2)
    weight = (weight / weight.sum()).astype(np.float32)
    middle = weight @ samples
    scaled = (samples - middle) * np.sqrt(weight)[:, None]
    # There are fewer pictures than pixels: the smaller of the two matrices has the same eigenvalues.
    values, vectors = np.linalg.eigh(scaled @ scaled.T)
    order = np.argsort(-values)[: config.components]
    logger.info("%d components explain %.3f of the variance", len(order), values[order].sum() / values.sum())
    basis = np.zeros((len(order), config.side, config.side, 3), np.float32)
    basis[:, inside] = (vectors[:, order].T @ scaled).reshape(len(order), -1, 3)
    mean = np.zeros((config.side, config.side, 3), np.float32)
    mean[inside] = middle.reshape(-1, 3)
    return FaceTexture(mean, basis, face)


def suitable(album: list[Portrait], config: FaceTextureConfig) -> list[Portrait]:
    """Portraits that are sharp, look ahead and have open eyes."""
    return [
        portrait for portrait in album if portrait.sharpness > config.sharpness and _ahead(portrait, config)
    ]


def _ahead(portrait: Portrait, config: FaceTextureConfig) -> bool:
    across = portrait.points[tp.EYE_OUTER[1]] - portrait.points[tp.EYE_OUTER[0]]
    yaw = abs(np.arctan2(across[2], across[0]))
    return bool(yaw < config.turned and tp.eye_openness(portrait.points).min() > config.opened)


class FaceTextureTask(ClosedFormTask[FaceTextureConfig]):
    """Solved on the portraits of split "train"; its errors are measured on held-out people."""

    def solve(self, output: Path) -> dict[str, float]:
        """Learn, measure and save the model in ``output``/export."""
        config, face = self.config, FaceModel.from_pretrained(self.config.face_model)
        album = portraits(self.manifest)
        examples = suitable([portrait for portrait in album if portrait.split == "train"], config)
        logger.info("%d portraits of %d people", len(examples), len({p.person for p in examples}))
        model = learn(examples, face, config)
        metrics = errors(model, held_out(suitable(album, config), config.held_out))
        told = {"class": "FaceTexture", "model": asdict(config), "metrics": metrics}
        save_pretrained(output / "export", told, model.state(), card=None)
        return metrics


def errors(model: FaceTexture, album: list[Portrait]) -> dict[str, float]:
    """Mean absolute errors on portraits of unseen people, in levels of 0 to 255.

    Returns:
        ``val_error``, of the inner face, fitted to all of it; ``val_parts_from_skin``, of eyes and mouth when
        only the skin is fitted; ``val_parts_of_mean``, of the mean face's eyes and mouth.
    """
    found: dict[str, list[float]] = {"val_error": [], "val_parts_from_skin": [], "val_parts_of_mean": []}
    inside, parts = model.inside > 0, (model.parts * model.inside) > 0
    for portrait in album:
        real = model.unwrapped(portrait.image(), portrait.points)
        fitted, from_skin = (model.picture(model.fit(real, trusted)) for trusted in (True, False))
        found["val_error"].append(float(np.abs(fitted - real)[inside].mean()))
        found["val_parts_from_skin"].append(float(np.abs(from_skin - real)[parts].mean()))
        found["val_parts_of_mean"].append(float(np.abs(model.mean - real)[parts].mean()))
    return {name: float(np.mean(values)) for name, values in found.items()}
