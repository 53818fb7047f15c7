"""Faces: tracking, the linear 3DMM, motion, warping, crops and masks."""
