"""Widths of what describes a face and its motion, for configurations; nothing is imported here.

The first three are the numbers of basis vectors of the shipped :class:`~talkface.face.model.FaceModel`; the
others follow from what :class:`~talkface.face.motion.FaceMotion` holds per frame.
"""

SHAPE_COEFFICIENTS = 40
"""Identity coefficients alpha."""
MOUTH_COEFFICIENTS = 28
"""Coefficients of lips, jaw and cheeks, beta_mouth."""
UPPER_COEFFICIENTS = 16
"""Coefficients of eyelids, brows and forehead, beta_upper."""

ROTATION, TRANSLATION, SCALE, GAZE = 3, 2, 1, 4
POSE_AND_GAZE = ROTATION + TRANSLATION + SCALE + GAZE
"""What a frame of motion holds beside expression coefficients."""
