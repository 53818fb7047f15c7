"""FaceMotion to frames: the warp renderer, its refiner, and the plate behind the lips."""
