"""Collects reference frames of people from the frames that a first pass over a video looks at."""

import cv2
import numpy as np

from talkface.face.crop import cut, transform
from talkface.face.masks import lower_face_outline
from talkface.face.model import FaceModel, estimate_pose
from talkface.face.occlusion import OcclusionNet, uncovered
from talkface.face.people import Person
from talkface.face.warp import with_ring
from talkface.media.decode import Frame
from talkface.systems.g4g.drawing import MOUTH_CROP_PIXELS, Reference, mouth_matrix
from talkface.systems.g4g.geometry import mouth_shape
from talkface.systems.g4g.references import features, spread
from talkface.systems.g4g.renderer import Bank

MOST_REFERENCES = 12
"""Reference frames that are kept of a person."""
_QUALITY = 98  # of the JPEG compression
_TURNED = np.radians(50)  # yaw from which a frame is no good reference
_CROP_MARGIN = 0.5  # around a face that is kept, as a share of its size
_PICTURE_MARGIN = 0.3  # around the lower face in a reference's picture, as a share of its size


class FaceCrops:
    """Pictures of all faces of the first pass, compressed; whose they are is only known at its end."""

    def __init__(self) -> None:
        self._kept: dict[float, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}

    def keep(self, frame: Frame, meshes: list[np.ndarray]) -> None:
        """Keep the surroundings of faces (478, 3) in a frame."""
        kept = self._kept.setdefault(frame.time, [])
        for points in meshes:
            low, high = points[:, :2].min(0), points[:, :2].max(0)
            margin = _CROP_MARGIN * (high - low).max()
            picture, corner = _rectangle(frame.image, low - margin, high + margin)
            options = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
            kept.append((points, corner, cv2.imencode(".jpg", picture[:, :, ::-1], options)[1]))

    def picture(self, time: float, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The surroundings of a face, as kept.

        Args:
            time: of its frame.
            points: (478, 3) its mesh in the frame.

        Returns:
            (h, w, 3) uint8 RGB, and x, y of its upper left corner in the frame.
        """
        distance = [float(np.abs(own - points).max()) for own, _, _ in self._kept[time]]
        _, corner, data = self._kept[time][int(np.argmin(distance))]
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert image is not None  # we compressed it
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB), corner


def gather(
    crops: FaceCrops,
    person: Person,
    face: FaceModel,
    occlusion: OcclusionNet,
    pixels: int = MOUTH_CROP_PIXELS,
    count: int = MOST_REFERENCES,
) -> Bank:
    """The reference frames of a person: mouths and poses as different as the video shows them.

    Args:
        crops: pictures of the first pass.
        person: as found by it.
        face: the 3DMM.
        occlusion: finds frames in which something covers the mouth; they are left out.
        pixels: side of the generator's crop.
        count: at most so many frames.
    """
    pose = estimate_pose(person.points, person.neutral)
    rotation = pose.rotation_vectors
    beta = face.project_mouth(pose.invert(person.points) - person.neutral)
    described = features(mouth_shape(face, beta), rotation)
    facing = np.flatnonzero(np.abs(rotation[:, 1]) < max(_TURNED, np.abs(rotation[:, 1]).min() + 1e-3))
    chosen = facing[spread(described[facing], count)]
    references, pictures, matrices = [], [], []
    for index in chosen:
        image, corner = crops.picture(float(person.times[index]), person.points[index])
        points = person.points[index] - np.append(corner, 0).astype(np.float32)
        matrix = mouth_matrix(points, pixels)
        resting = with_ring(points)
        references.append(Reference(cut(image, matrix, pixels), transform(resting, matrix)))
        picture, offset = _lower_face(image, points)
        pictures.append(picture)
        back = cv2.invertAffineTransform(matrix)
        back[:, 2] -= offset
        matrices.append(back)
    free = uncovered(occlusion, face.mesh_warp(), references)
    kept = chosen[free]
    return Bank(
        [references[k] for k in free],
        [pictures[k] for k in free],
        [matrices[k] for k in free],
        described[kept],
        person.times[kept],
    )


def _lower_face(image: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The part of a picture around a lower face, and x, y of its upper left corner."""
    outline = lower_face_outline(points)
    low, high = outline.min(0), outline.max(0)
    margin = _PICTURE_MARGIN * (high - low).max()
    return _rectangle(image, low - margin, high + margin)


def _rectangle(image: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A copy of a rectangle, cut at the picture's edges, and x, y of its upper left corner."""
    left, top = np.clip(np.floor(low), 0, np.array(image.shape[1::-1]) - 1).astype(int)
    right, bottom = np.clip(np.ceil(high), [left + 1, top + 1], image.shape[1::-1]).astype(int)
    return image[top:bottom, left:right].copy(), np.array([left, top])
