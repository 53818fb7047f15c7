"""Things in front of mouths, drawn to learn from: hands, microphones, cups, papers, captions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from talkface.data.crops import CropClip
from talkface.face.crop import MOUTH_REGION, face_unit

LAYER_PIXELS = MOUTH_REGION.pixels
_UNIT = MOUTH_REGION.pixels / MOUTH_REGION.side  # inter-ocular distance in crop pixels
_SKIN = (50, 280, 151, 205, 425)  # cheeks and forehead of the mesh
_LEAST, _MOST = 0.015, 0.8  # share of the crop that a thing covers


@dataclass(frozen=True)
class Layer:
    """A drawn thing, float32: color (P, P, 3) in 0 to 255 and alpha (P, P) in [0, 1]; P is LAYER_PIXELS."""

    color: np.ndarray
    alpha: np.ndarray

    def under(self, other: "Layer") -> "Layer":
        """Both, with ``other`` in front."""
        a = other.alpha[..., None]
        return Layer(self.color * (1 - a) + other.color * a, np.maximum(self.alpha, other.alpha))

    def over(self, crop: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """In front of a mouth (P, P, 3), often with a soft shadow on it, float32."""
        picture = crop.astype(np.float32)
        if generator.random() < 0.7:
            shift = np.array([[1, 0, generator.normal() * 5], [0, 1, generator.normal() * 5]])
            shadow = cv2.warpAffine(self.alpha, shift, (LAYER_PIXELS, LAYER_PIXELS))
            shadow = cv2.GaussianBlur(shadow, (0, 0), generator.uniform(1.5, 9))
            picture *= 1 - generator.uniform(0.05, 0.5) * shadow[..., None]
        a = self.alpha[..., None]
        covered: np.ndarray = picture * (1 - a) + self.color * a
        return covered


@dataclass(frozen=True)
class Textures:
    """Patches of pictures: skin (48, 48, 3) of several people, things (96, 96, 3) from behind them; uint8."""

    skin: list[np.ndarray]
    things: list[np.ndarray]

    @classmethod
    def of(cls, clips: Sequence[CropClip], generator: np.random.Generator, count: int = 150) -> "Textures":
        """Cut patches from some of the clips."""
        skin, things = [], []
        for index in generator.permutation(len(clips))[:count]:
            clip = clips[index]
            frame = int(generator.integers(len(clip)))
            image = clip.image(frame)
            skin.append(skin_patch(image, clip.points[frame], generator))
            left = int(generator.choice([0, image.shape[1] - 96]))
            top = int(generator.integers(0, image.shape[0] - 96))
            things.append(image[top : top + 96, left : left + 96])
        return cls(skin, things)


def skin_patch(image: np.ndarray, points: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A piece of cheek or forehead (48, 48, 3) uint8."""
    center = points[int(generator.choice(_SKIN)), :2]
    scale = 48 / (0.26 * face_unit(points))
    matrix = np.array([[scale, 0, 23.5 - scale * center[0]], [0, scale, 23.5 - scale * center[1]]])
    return cv2.warpAffine(image, matrix, (48, 48), borderMode=cv2.BORDER_REPLICATE)


def draw_occluder(generator: np.random.Generator, textures: Textures, own: np.ndarray) -> Layer:
    """Some thing in front of the mouth; ``own`` is a piece of the person's own skin (48, 48, 3)."""
    layer = Layer(
        np.zeros((LAYER_PIXELS, LAYER_PIXELS, 3), np.float32),
        np.zeros((LAYER_PIXELS, LAYER_PIXELS), np.float32),
    )
    for _ in range(5):
        layer = _draw(generator, textures, own)
        if _LEAST < layer.alpha.mean() < _MOST:
            break
    blur = generator.random()
    if blur < 0.3:
        return _blurred(layer, _motion(generator))
    if blur < 0.7:  # out of focus, or as little detailed as many a face
        line = cv2.getGaussianKernel(11, generator.uniform(0.5, 2.2)).astype(np.float32)
        return _blurred(layer, line @ line.T)
    return layer


def _draw(generator: np.random.Generator, textures: Textures, own: np.ndarray) -> Layer:
    """A thing of a random kind."""
    kinds: tuple[tuple[float, Callable[[], Layer]], ...] = (
        (0.45, lambda: _hand(generator, textures, own)),
        (0.63, lambda: _microphone(generator)),
        (0.73, lambda: _held_cup(generator, textures, own)),
        (0.85, lambda: _sheet(generator, textures)),
        (0.91, lambda: _caption(generator, textures)),
        (0.95, lambda: _rod(generator)),
        (1.0, lambda: _cloth(generator, textures)),
    )
    kind = generator.random()
    return next(draw for below, draw in kinds if kind < below)()


def _held_cup(generator: np.random.Generator, textures: Textures, own: np.ndarray) -> Layer:
    """A cup, every other time with a hand before it."""
    layer = _cup(generator, textures)
    return layer.under(_hand(generator, textures, own)) if generator.random() < 0.5 else layer


# -- hands -----------------------------------------------------------------------------------------


def _hand(generator: np.random.Generator, textures: Textures, own: np.ndarray) -> Layer:
    """Fingers as rounded capsules with a palm behind or before them, entering mostly from below."""
    skin = own if generator.random() < 0.6 else textures.skin[generator.integers(len(textures.skin))]
    texture = _spread(skin, generator, (1.5, 4.0))
    texture = texture * (generator.uniform(0.75, 1.2) * generator.uniform(0.94, 1.06, 3))
    arm = np.pi / 2 + generator.normal() * 1.1
    radius = _UNIT * generator.uniform(0.07, 0.11)
    fingers, palm = _skeleton(generator, arm, radius)
    light = generator.normal(size=2)
    light = light / np.linalg.norm(light) * generator.uniform(0, 0.5)
    depth, crease = generator.uniform(0.05, 0.35), generator.uniform(0.05, 0.5)
    color = np.zeros_like(texture)
    alpha = np.zeros((LAYER_PIXELS, LAYER_PIXELS), np.float32)
    parts = [(finger, radius) for finger in fingers]
    parts.insert(0 if generator.random() < 0.6 else len(parts), (palm, 3.5 * radius))
    for points, size in parts:
        mask = np.zeros((LAYER_PIXELS, LAYER_PIXELS), np.uint8)
        if points is palm:
            cv2.fillConvexPoly(mask, cv2.convexHull(_fixed(points)), 255, cv2.LINE_AA, 4)
        thickness = max(1, round(2 * radius))
        cv2.polylines(mask, [_fixed(points)], points is palm, 255, thickness, cv2.LINE_AA, 4)
        a = (mask / np.float32(255))[..., None]
        near = cv2.GaussianBlur(a[..., 0], (0, 0), 1.5)[..., None]
        color *= 1 - crease * near  # the shadow on what lies behind
        color = color * (1 - a) + a * texture * _rounded(mask, size, light, depth)[..., None]
        alpha = np.maximum(alpha, a[..., 0])
    if generator.random() < 0.4:
        _nails(color, [finger[0] for finger in fingers], arm, radius, generator)
    return Layer(np.clip(color, 0, 255), alpha)


def _skeleton(
    generator: np.random.Generator, arm: float, radius: float
) -> tuple[list[np.ndarray], np.ndarray]:
    """Polylines (3, 2) of fingers from tip to base, and corners (N, 2) of palm and wrist, crop pixels."""
    count = int(generator.choice([1, 2, 3, 4], p=[0.2, 0.2, 0.2, 0.4]))
    length = _UNIT * generator.uniform(0.35, 0.85)
    target = _target(generator)
    along, across = _unit(arm), _unit(arm + np.pi / 2)
    if generator.random() < 0.4:  # the whole hand, not the finger tips, is before the mouth
        target = target - along * length * generator.uniform(0.2, 1.2)
    splay, bend, gap = generator.uniform(0, 0.18), generator.normal() * 0.3, generator.uniform(1.8, 2.4)
    fingers = []
    for k in range(count):
        place = k - (count - 1) / 2
        tip = target + across * place * gap * radius + along * generator.uniform(0, 0.25) * length
        knuckle = tip + 0.45 * length * _unit(arm + bend - splay * place + generator.normal() * 0.08)
        fingers.append(np.stack([tip, knuckle, knuckle + 0.55 * length * _unit(arm - splay * place)]))
    bases = np.stack([finger[-1] for finger in fingers])
    middle = target + along * length
    if count < 4:  # the other fingers are bent
        bases = np.concatenate([bases, middle + across * _UNIT * generator.uniform(-0.3, 0.3, (2, 1))])
    wrist = middle + along * _UNIT * 0.9 + across * _UNIT * np.array([[-0.22], [0.22]])
    return fingers, np.concatenate([bases, wrist])


def _nails(
    color: np.ndarray, tips: list[np.ndarray], arm: float, radius: float, generator: np.random.Generator
) -> None:
    """Paint nails on finger tips, in place."""
    shade = generator.uniform([150, 90, 90], [250, 200, 200])
    for tip in tips:
        mask = np.zeros((LAYER_PIXELS, LAYER_PIXELS), np.uint8)
        center = _fixed(tip + _unit(arm) * 0.15 * radius)[0]
        axes = (int(16 * 0.75 * radius), int(16 * 0.5 * radius))
        cv2.ellipse(mask, center.tolist(), axes, np.degrees(arm), 0, 360, 255, -1, cv2.LINE_AA, 4)
        a = (mask / np.float32(255))[..., None] * 0.6
        color[:] = color * (1 - a) + a * shade


# -- things ----------------------------------------------------------------------------------------


def _microphone(generator: np.random.Generator) -> Layer:
    """A round head, mostly dark, of foam or metal, on a stick."""
    center, arm = _target(generator), np.pi / 2 + generator.normal() * 0.6
    width = _UNIT * generator.uniform(0.12, 0.3)
    dark = generator.random() < 0.7
    base = generator.uniform(8, 70) * np.ones(3) if dark else generator.uniform(20, 230, 3)
    noise = generator.normal(size=(LAYER_PIXELS, LAYER_PIXELS)).astype(np.float32)
    grain = cv2.GaussianBlur(noise, (0, 0), generator.uniform(0.5, 1.3))
    texture = base + generator.uniform(5, 40) * grain[..., None]
    if generator.random() < 0.3:  # a metal grid
        y, x = np.mgrid[:LAYER_PIXELS, :LAYER_PIXELS]
        step = generator.uniform(3, 6)
        grid = np.sin(2 * np.pi * (x + y) / step) * np.sin(2 * np.pi * (x - y) / step)
        texture = generator.uniform(60, 190) + 40 * grid[..., None] * np.ones(3)
    stick = np.zeros((LAYER_PIXELS, LAYER_PIXELS), np.uint8)
    along, across = _unit(arm), _unit(arm + np.pi / 2)
    half = width * generator.uniform(0.3, 0.7)
    ends = [center + across * half, center - across * half]
    ends += [
        center + along * 2 * LAYER_PIXELS - across * half * 0.8,
        center + along * 2 * LAYER_PIXELS + across * half * 0.8,
    ]
    cv2.fillConvexPoly(stick, _fixed(np.stack(ends)), 255, cv2.LINE_AA, 4)
    head = np.zeros_like(stick)
    axes = (int(16 * width * generator.uniform(1, 1.5)), int(16 * width))
    cv2.ellipse(head, _fixed(center)[0].tolist(), axes, np.degrees(arm), 0, 360, 255, -1, cv2.LINE_AA, 4)
    light = generator.normal(size=2) * 0.3
    shine = generator.uniform(10, 120) * np.ones(3) * _rounded(stick, half, light)[..., None]
    layer = Layer(shine.astype(np.float32), stick / np.float32(255))
    return layer.under(Layer(_lit(texture, head, width, light), head / np.float32(255)))


def _cup(generator: np.random.Generator, textures: Textures) -> Layer:
    """A tapered cylinder with a rim."""
    rim = _target(generator)
    width, height = _UNIT * generator.uniform(0.25, 0.5), _UNIT * generator.uniform(0.7, 1.2)
    tilt = np.pi / 2 + generator.normal() * 0.3
    along, across = _unit(tilt), _unit(tilt + np.pi / 2)
    foot = rim + along * height
    taper = generator.uniform(0.65, 1.0)
    corners = [rim + across * width, rim - across * width, foot - across * width * taper]
    mask = np.zeros((LAYER_PIXELS, LAYER_PIXELS), np.uint8)
    cv2.fillConvexPoly(mask, _fixed(np.stack([*corners, foot + across * width * taper])), 255, cv2.LINE_AA, 4)
    axes = (int(16 * width), int(16 * width * generator.uniform(0.1, 0.35)))
    edge = _fixed(rim)[0].tolist(), axes, np.degrees(tilt) + 90
    cv2.ellipse(mask, *edge, 0, 360, 255, -1, cv2.LINE_AA, 4)
    texture = _surface(generator, textures)
    lit = _lit(texture, mask, width, generator.normal(size=2) * 0.4)
    cv2.ellipse(lit, *edge, 0, 360, (texture.mean((0, 1)) * 0.5).tolist(), 2, cv2.LINE_AA, 4)
    return Layer(lit, mask / np.float32(255))


def _sheet(generator: np.random.Generator, textures: Textures) -> Layer:
    """A paper, card, book or phone: a flat quadrilateral."""
    center, turn = _target(generator, 40), generator.uniform(0, 2 * np.pi)
    half = _UNIT * generator.uniform(0.2, 0.7, 2)
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
    corners = corners @ np.stack([_unit(turn), _unit(turn + np.pi / 2)]) + center
    corners += generator.normal(size=(4, 2)) * 0.06 * _UNIT
    square = np.array(
        [[0, 0], [LAYER_PIXELS, 0], [LAYER_PIXELS, LAYER_PIXELS], [0, LAYER_PIXELS]], np.float32
    )
    matrix = cv2.getPerspectiveTransform(square, corners.astype(np.float32))
    size = (LAYER_PIXELS, LAYER_PIXELS)
    color = cv2.warpPerspective(
        _surface(generator, textures), matrix, size, borderMode=cv2.BORDER_REFLECT_101
    )
    return Layer(color, cv2.warpPerspective(np.ones(size, np.float32), matrix, size))


def _caption(generator: np.random.Generator, textures: Textures) -> Layer:
    """A banner with straight edges across the picture, now and then a little transparent."""
    turn = float(generator.choice([0, 0, 0, np.pi / 2, -np.pi / 2, np.pi])) + generator.normal() * 0.04
    edge = LAYER_PIXELS * generator.uniform(0.3, 0.9)
    broad = LAYER_PIXELS * generator.uniform(0.15, 1.0)
    y, x = np.mgrid[:LAYER_PIXELS, :LAYER_PIXELS] - (LAYER_PIXELS - 1) / 2
    depth = x * np.sin(turn) + y * np.cos(turn) + LAYER_PIXELS / 2 - edge
    alpha = np.clip(depth + 0.5, 0, 1) * np.clip(broad - depth + 0.5, 0, 1)
    alpha = alpha * (generator.uniform(0.8, 1) if generator.random() < 0.3 else 1)
    return Layer(_surface(generator, textures), alpha.astype(np.float32))


def _rod(generator: np.random.Generator) -> Layer:
    """A pen, a cigarette, a straw, a spoon's handle."""
    start, turn = _target(generator, 20), generator.uniform(0, 2 * np.pi)
    end = start + _unit(turn) * _UNIT * generator.uniform(0.5, 1.5)
    radius = generator.uniform(2.5, 5)
    mask = np.zeros((LAYER_PIXELS, LAYER_PIXELS), np.uint8)
    line = _fixed(np.stack([start, end]))
    cv2.polylines(mask, [line], False, 255, round(2 * radius), cv2.LINE_AA, 4)
    white = generator.random() < 0.5
    base = np.ones(3) * generator.uniform(200, 250) if white else generator.uniform(0, 250, 3)
    texture = np.broadcast_to(base, (LAYER_PIXELS, LAYER_PIXELS, 3))
    return Layer(_lit(texture, mask, radius, generator.normal(size=2) * 0.4), mask / np.float32(255))


def _cloth(generator: np.random.Generator, textures: Textures) -> Layer:
    """Something without a shape of its own."""
    noise = generator.normal(size=(4, 4)).astype(np.float32)
    height = cv2.resize(noise, (LAYER_PIXELS, LAYER_PIXELS), interpolation=cv2.INTER_CUBIC)
    mask = (height > np.quantile(height, generator.uniform(0.5, 0.85))).astype(np.float32)
    size = LAYER_PIXELS, LAYER_PIXELS
    folds = 1 + 0.25 * cv2.resize(generator.normal(size=(7, 7)), size, interpolation=cv2.INTER_CUBIC)
    color = np.clip(_surface(generator, textures) * folds[..., None], 0, 255)
    return Layer(color.astype(np.float32), cv2.GaussianBlur(mask, (0, 0), 0.8))


# -- surfaces --------------------------------------------------------------------------------------


def _surface(generator: np.random.Generator, textures: Textures) -> np.ndarray:
    """Plain, printed, or cut from another picture, (P, P, 3) float32."""
    kind = generator.random()
    if kind < 0.4:
        thing = textures.things[generator.integers(len(textures.things))]
        return _spread(thing, generator, (0.8, 2.5))
    bright = generator.random() < 0.5
    base = generator.uniform(150, 250) * np.ones(3) if bright else generator.uniform(5, 220, 3)
    surface = np.broadcast_to(base, (LAYER_PIXELS, LAYER_PIXELS, 3)).astype(np.float32).copy()
    if kind < 0.7:
        ink = (generator.uniform(0, 90, 3) if base.mean() > 120 else generator.uniform(150, 255, 3)).tolist()
        pitch = int(generator.integers(7, 24))
        for top in range(int(generator.integers(2, pitch)), LAYER_PIXELS, pitch):
            left = int(generator.integers(0, 20))
            while left < LAYER_PIXELS - 8:
                word = int(generator.integers(3, 20))
                corner = (left + word, top + max(1, pitch // 2 - 1))
                cv2.rectangle(surface, (left, top), corner, ink, -1)
                left += word + int(generator.integers(2, 7))
    slope = np.linspace(-1, 1, LAYER_PIXELS) * generator.normal() * 0.15
    slope = 1 + slope[:, None] + np.linspace(-1, 1, LAYER_PIXELS) * generator.normal() * 0.15
    return np.clip(surface * slope[..., None], 0, 255).astype(np.float32)


def _spread(patch: np.ndarray, generator: np.random.Generator, scale: tuple[float, float]) -> np.ndarray:
    """A patch turned, enlarged and continued over the crop, float32."""
    side = patch.shape[0]
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), generator.uniform(0, 360), generator.uniform(*scale))
    turn[:, 2] += (LAYER_PIXELS - side) / 2
    size = (LAYER_PIXELS, LAYER_PIXELS)
    return cv2.warpAffine(patch, turn, size, borderMode=cv2.BORDER_REFLECT_101).astype(np.float32)


def _rounded(mask: np.ndarray, radius: float, light: np.ndarray, depth: float = 0.28) -> np.ndarray:
    """Shading (P, P) of a mask (P, P) uint8 that bulges towards the camera."""
    inside = cv2.distanceTransform((mask > 127).astype(np.uint8), cv2.DIST_L2, 3) / max(radius, 1.0)
    inside = np.minimum(inside, 1)
    height = cv2.GaussianBlur(np.sqrt(inside * (2 - inside)), (0, 0), 1.2)
    x, y = cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=0.125), cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=0.125)
    steep = np.tanh(radius * 0.5 * (x * light[0] + y * light[1]))
    shade: np.ndarray = np.clip(1 - depth * (1 - height) + 0.6 * steep, 0.3, 1.4)
    return shade


def _lit(texture: np.ndarray, mask: np.ndarray, radius: float, light: np.ndarray) -> np.ndarray:
    lit = texture * _rounded(mask, radius, light)[..., None]
    return np.ascontiguousarray(np.clip(lit, 0, 255), np.float32)


def _motion(generator: np.random.Generator) -> np.ndarray:
    """Kernel of blur by motion."""
    length = int(generator.integers(3, 12))
    kernel = np.zeros((length, length), np.float32)
    middle = (length - 1) / 2
    a = _unit(generator.uniform(0, np.pi)) * middle
    start, end = (np.round(middle + sign * a).astype(int).tolist() for sign in (-1, 1))
    cv2.line(kernel, start, end, 1.0)
    normed: np.ndarray = kernel / kernel.sum()
    return normed


def _blurred(layer: Layer, kernel: np.ndarray) -> Layer:
    alpha = cv2.filter2D(layer.alpha, -1, kernel)
    color = cv2.filter2D(layer.color * layer.alpha[..., None], -1, kernel)
    return Layer(color / np.maximum(alpha, 1e-3)[..., None], alpha)


def _target(generator: np.random.Generator, spread: float = 26.0) -> np.ndarray:
    """A place near the mouth (2,)."""
    return LAYER_PIXELS / 2 + generator.normal(size=2) * spread


def _unit(angle: float) -> np.ndarray:
    return np.array([np.cos(angle), np.sin(angle)])


def _fixed(points: np.ndarray) -> np.ndarray:
    """Sixteenths of a pixel, (N, 2) int32, kept where drawing can count them."""
    return np.clip(np.round(np.atleast_2d(points) * 16), -8000, 12000).astype(np.int32)
