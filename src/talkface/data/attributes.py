"""Attributes of portraits: sex, age, hair, glasses and so on, as captions tell them.

Sex, age and the features are FaceRes's (a MobileNet of the Human library, MIT); glasses, beard, hat and hair
are linear in its features and in the colours above the forehead; light and background are measured.
Captions for training and evaluations come from here; no verb needs it.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import torch

from talkface.data.arrays import keep_arrays
from talkface.data.faces import Portrait
from talkface.data.manifest import Manifest
from talkface.diffusion.captions import COLOURS, HAIR, Attributes
from talkface.face import topology as tp
from talkface.face.arrays import load_arrays
from talkface.face.tfjs import TfjsGraph
from talkface.hub import model_path

logger = logging.getLogger(__name__)

HEADS = ("glasses", "beard", "hat", "bald", *HAIR)
_CROP_PIXELS = 224  # side of the square that FaceRes sees
_ROOM = 0.1  # around the face, of its longer side
_OUTPUTS = ("gender_pred/Sigmoid", "age_pred/Softmax", "global_pooling/Mean")
_SURE, _HAIR_SURE = 0.42, 0.25  # scores above which something is there
_SMILE, _OPEN = 0.62, 0.09  # mouth width and opening over inter-ocular distance
_DIM, _BRIGHT = 75.0, 165.0  # mean grey value of a face
_PLAIN = 18.0  # spread of the background's grey values
_HUES = {"red": 0.0, "brown": 20.0, "green": 120.0, "blue": 220.0}  # degrees


@dataclass(frozen=True)
class FaceDescription:
    """What FaceRes says of a face.

    Attributes:
        male: probability that it is a man's, 0 to 1.
        age: years.
        features: (1024,) of the network's last layer but one.
    """

    male: float
    age: float
    features: np.ndarray


class FaceRes:
    """Sex, age and features of aligned crops. Gradients are not needed here."""

    def __init__(self) -> None:
        self.graph = TfjsGraph(model_path("faceres.json"), model_path("faceres.bin"), _OUTPUTS)

    @torch.inference_mode()
    def __call__(self, image: np.ndarray, points: np.ndarray) -> FaceDescription:
        """Describe a face (H, W, 3) uint8 with its mesh (478, 3) in pixels."""
        low, high = points[: tp.FACE_VERTICES, :2].min(0), points[: tp.FACE_VERTICES, :2].max(0)
        scale = _CROP_PIXELS / ((high - low).max() * (1 + _ROOM))
        corner = (low + high) / 2 - _CROP_PIXELS / scale / 2
        matrix = np.array([[scale, 0, -scale * corner[0]], [0, scale, -scale * corner[1]]])
        crop = cv2.warpAffine(image, matrix, (_CROP_PIXELS, _CROP_PIXELS), borderMode=cv2.BORDER_REPLICATE)
        male, age, features = self.graph(torch.from_numpy(crop).float()[None])
        return FaceDescription(float(male), float(age[0] @ torch.arange(100.0)), features[0].numpy())


def face_features(layers: Sequence[int]) -> TfjsGraph:
    """FaceRes as far as some of its 13 layers: features (B, h, w, C) of pictures (B, H, W, 3), 0 to 255."""
    names = [f"conv_pw_{layer}_relu/clip_by_value" for layer in layers]
    return TfjsGraph(model_path("faceres.json"), model_path("faceres.bin"), names)


@dataclass(frozen=True)
class AttributeHeads:
    """Linear heads: (HEADS, D) weights and (HEADS,) biases on standardised measures (D,)."""

    weight: np.ndarray
    bias: np.ndarray
    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def from_pretrained(cls, name_or_path: str = "attributes") -> "AttributeHeads":
        """Load the shipped heads, or those of a directory or hub id."""
        return cls(**load_arrays(name_or_path))

    @classmethod
    def solve(cls, measures: np.ndarray, labels: np.ndarray, penalty: float = 300.0) -> "AttributeHeads":
        """Ridge regression of labels (N, HEADS), 0 or 1, on measures (N, D)."""
        mean, scale = measures.mean(0), measures.std(0) + 1e-3
        design = (measures - mean) / scale
        gram = design.T @ design + penalty * np.eye(design.shape[1])
        bias = labels.mean(0)
        weight = np.linalg.solve(gram, design.T @ (labels - bias)).T
        return cls(*(array.astype(np.float32) for array in (weight, bias, mean, scale)))

    def __call__(self, measures: np.ndarray) -> dict[str, float]:
        """How likely each is, about 0 to 1, for measures (D,)."""
        scores = self.weight @ ((measures - self.mean) / self.scale) + self.bias
        return dict(zip(HEADS, scores.tolist(), strict=True))


class AttributeReader:
    """Reads the attributes of portraits."""

    def __init__(self, heads: AttributeHeads | None = None) -> None:
        self._heads = heads

    @cached_property
    def _describe(self) -> FaceRes:
        return FaceRes()

    @cached_property
    def heads(self) -> AttributeHeads:
        """The linear heads, loaded when they are first needed."""
        return self._heads or AttributeHeads.from_pretrained()

    def __call__(self, image: np.ndarray, points: np.ndarray) -> Attributes:
        """Attributes of a face (H, W, 3) uint8 with its mesh (478, 3) in pixels."""
        return self.read(image, points, self._describe(image, points))

    def read(self, image: np.ndarray, points: np.ndarray, description: FaceDescription) -> Attributes:
        """The same, of a face that FaceRes has described."""
        score = self.heads(measures(image, points, description))
        hair = max(("bald", *HAIR), key=lambda name: score[name])
        background, plain = _background(image, points)
        return Attributes(
            male=description.male,
            age=description.age,
            hair=hair if score[hair] > _HAIR_SURE and score["hat"] < _SURE else None,
            glasses=score["glasses"] > _SURE,
            beard=score["beard"] > _SURE,
            hat=score["hat"] > _SURE,
            expression=_expression(points),
            light=_light(image, points),
            background=background,
            plain=plain,
        )


def portrait_descriptions(manifest: Manifest, album: list[Portrait]) -> dict[str, FaceDescription]:
    """What FaceRes says of portraits by key; found on first use and kept beside the prepared data."""
    path = manifest.directory / "looks.npz"
    if not path.is_file():
        describe, found = FaceRes(), []
        for number, portrait in enumerate(album):
            found.append(describe(portrait.image(), portrait.points))
            if number % 200 == 0:
                logger.info("described %d of %d portraits", number, len(album))
        keep_arrays(
            path,
            key=np.array([portrait.key for portrait in album]),
            male=np.array([one.male for one in found]),
            age=np.array([one.age for one in found]),
            features=np.stack([one.features for one in found]).astype(np.float16),
        )
    with np.load(path) as arrays:
        rows = zip(*(arrays[name] for name in ("key", "male", "age", "features")), strict=True)
        return {
            str(key): FaceDescription(float(male), float(age), features) for key, male, age, features in rows
        }


def portrait_attributes(manifest: Manifest, album: list[Portrait]) -> dict[str, Attributes]:
    """Attributes of portraits by key; in a packed folder they are kept."""
    path = manifest.directory / "attributes.json"
    if path.is_file():
        return {key: Attributes(**kept) for key, kept in json.loads(path.read_text()).items()}
    reader, known = AttributeReader(), portrait_descriptions(manifest, album)
    return {
        portrait.key: reader.read(portrait.image(), portrait.points, known[portrait.key])
        for portrait in album
    }


def measures(image: np.ndarray, points: np.ndarray, description: FaceDescription) -> np.ndarray:
    """What the heads are given, (D,): FaceRes's features and colours above the forehead."""
    return np.concatenate([description.features, _above_forehead(image, points)])


def _above_forehead(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Colours where hair usually is, of the skin, and their difference and spread, (12,)."""
    top, up = points[tp.FOREHEAD, :2], points[tp.FOREHEAD, :2] - points[tp.CHIN, :2]
    up = up / max(float(np.linalg.norm(up)), 1e-6)
    across, width = np.array([-up[1], up[0]]), float(np.linalg.norm(points[234, :2] - points[454, :2]))
    heights, sides = (0.08, 0.14, 0.2), np.linspace(-0.3, 0.3, 7)
    places = [top + width * (h * up + s * across) for h in heights for s in sides]
    seen = np.array([_colour(image, place, 2) for place in places])
    skin = np.mean([_colour(image, points[k, :2], 2) for k in (50, 280, 151, 9)], axis=0)
    hair = np.median(seen, 0)
    return np.concatenate([hair, skin, hair - skin, seen.std(0)]) / 255


def _colour(image: np.ndarray, place: np.ndarray, reach: int) -> np.ndarray:
    """Mean colour (3,) around a place, or of the nearest pixels inside the picture."""
    x, y = np.clip(place, reach, np.array(image.shape[1::-1]) - 1 - reach).astype(int)
    mean: np.ndarray = image[y - reach : y + reach + 1, x - reach : x + reach + 1].mean((0, 1))
    return mean


def _expression(points: np.ndarray) -> str:
    """ "smiling", "talking" or "neutral"."""
    unit = float(tp.inter_ocular(points))
    width = float(np.linalg.norm(points[61, :2] - points[291, :2])) / unit
    if width > _SMILE:
        return "smiling"
    return "talking" if float(tp.aperture(points)) > _OPEN else "neutral"


def _light(image: np.ndarray, points: np.ndarray) -> str:
    """ "dim", "soft" or "bright", by the face's mean grey value."""
    outline = np.round(points[tp.FACE_OVAL, :2]).astype(np.int32)
    mask = cv2.fillConvexPoly(np.zeros(image.shape[:2], np.uint8), outline, 1)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[mask > 0]
    mean = float(grey.mean()) if len(grey) else 128.0
    return "dim" if mean < _DIM else "bright" if mean > _BRIGHT else "soft"


def _background(image: np.ndarray, points: np.ndarray) -> tuple[str, bool]:
    """The colour beside the head, and whether it is plain."""
    height, width = image.shape[:2]
    left, right = points[:, 0].min(), points[:, 0].max()
    rows = slice(0, height // 2)
    end, begin = max(4, int(left * 0.6)), min(width - 4, int(width - (width - right) * 0.6))
    beside = image[rows, :end].reshape(-1, 3), image[rows, begin:].reshape(-1, 3)
    pixels = np.concatenate(beside).astype(float)
    grey = pixels.mean(1)
    return _colour_name(np.median(pixels, 0)), bool(np.median(np.abs(grey - np.median(grey))) < _PLAIN)


def _colour_name(colour: np.ndarray) -> str:
    """One of COLOURS."""
    high, low = float(colour.max()), float(colour.min())
    if high < 50:
        return "black"
    if (high - low) / high < 0.2:
        return "white" if low > 190 else "grey"
    red, green, blue = (colour - low) / (high - low)
    hue = 60 * ((green - blue) % 6 if red == 1 else blue - red + 2 if green == 1 else red - green + 4)
    if 20 <= hue < 70 or ((hue >= 340 or hue < 20) and high < 140):
        return "brown"
    named = min(_HUES, key=lambda name: min(abs(hue - _HUES[name]), 360 - abs(hue - _HUES[name])))
    assert named in COLOURS
    return named
