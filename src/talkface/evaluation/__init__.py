"""Measures generated video beside real video: lip sync, motion, picture."""

from talkface.evaluation.run import evaluate_pairs, evaluate_system

__all__ = ["evaluate_pairs", "evaluate_system"]
