"""Names for vertices of the 478-point mesh (MediaPipe topology: 468 face points and 2 x 5 iris points)."""

import numpy as np

VERTICES = 478
FACE_VERTICES = 468

# Eye corners: (subject's right outer, right inner, left inner, left outer).
EYE_OUTER = (33, 263)
EYE_INNER = (133, 362)
EYE_CORNERS = tuple(zip(EYE_OUTER, EYE_INNER, strict=True))  # (outer, inner) of the right eye, then the left
INNER_LIPS = (13, 14)  # upper, lower, at the middle
MOUTH_CORNERS = (78, 308)  # inner corners
CHIN = 152
FOREHEAD = 10
NOSE_TIP = 1
IRIS_CENTERS = (468, 473)  # subject's right eye, left eye

FACE_OVAL = np.array([
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
])  # fmt: skip
LIPS_OUTER = np.array(
    [61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185]
)
LIPS_INNER = np.array(
    [78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191]
)
# Inner-lip vertices in pairs (upper, lower) from corner to corner.
LIPS_INNER_UPPER = np.array([191, 80, 81, 82, 13, 312, 311, 310, 415])
LIPS_INNER_LOWER = np.array([95, 88, 178, 87, 14, 317, 402, 318, 324])
RIGHT_EYE = np.array([33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246])
LEFT_EYE = np.array([263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466])
# What the iris network says about an eye beside the iris: its first 16 points are the lids' edge, the next 16
# the ring around it, each lower then upper, from the outer to the inner corner (right eye, then left).
EYE_CONTOUR = (
    np.array([33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173]),
    np.array([263, 249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398]),
)
EYE_HALO = (
    np.array([130, 25, 110, 24, 23, 22, 26, 112, 243, 247, 30, 29, 27, 28, 56, 190]),
    np.array([359, 255, 339, 254, 253, 252, 256, 341, 463, 467, 260, 259, 257, 258, 286, 414]),
)
# Edges of the lids without their corners, (upper, lower), from outside inwards: right eye, then left.
LID_EDGES = tuple((contour[9:], contour[1:8]) for contour in EYE_CONTOUR)
# Middles of the eyelids in pairs (upper, lower): subject's right, then left.
RIGHT_LIDS = np.array([[160, 144], [159, 145], [158, 153]])
LEFT_LIDS = np.array([[387, 373], [386, 374], [385, 380]])

# Points that move with the skull and hardly with expression: the frame in which pose is measured.
RIGID = np.array([
    6, 168, 197, 195, 5, 8, 9, 151, 10, 33, 263, 133, 362, 127, 356, 234, 454, 93, 323, 162, 389,
    21, 251, 54, 284, 103, 332, 67, 297, 109, 338, 104, 333, 69, 299, 108, 337, 48, 278, 98, 327, 4, 1,
])  # fmt: skip


def inter_ocular(points: np.ndarray) -> np.ndarray:
    """Distance between the outer eye corners in pixels, (...,), of points (..., 478, >=2)."""
    distance: np.ndarray = np.linalg.norm(
        points[..., EYE_OUTER[0], :2] - points[..., EYE_OUTER[1], :2], axis=-1
    )
    return distance


def aperture(points: np.ndarray) -> np.ndarray:
    """Inner-lip opening over inter-ocular distance, (...,), about 0 to 0.6."""
    gap = np.linalg.norm(points[..., INNER_LIPS[0], :2] - points[..., INNER_LIPS[1], :2], axis=-1)
    opening: np.ndarray = gap / inter_ocular(points)
    return opening


def eye_openness(points: np.ndarray) -> np.ndarray:
    """Mean lid gap over inter-ocular distance, right then left eye, (..., 2)."""
    gaps = [
        np.linalg.norm(points[..., lids[:, 0], :2] - points[..., lids[:, 1], :2], axis=-1).mean(-1)
        for lids in (RIGHT_LIDS, LEFT_LIDS)
    ]
    openness: np.ndarray = np.stack(gaps, -1) / inter_ocular(points)[..., None]
    return openness
