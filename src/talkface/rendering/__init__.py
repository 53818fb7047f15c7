"""FaceMotion to frames: the warped portrait, the refiner of mouth and eyes, the plate behind the lips."""
