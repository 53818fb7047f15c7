"""Measures generated video beside real video: lip sync, picture, motion."""

from talkface.evaluation.protocols.run import evaluate_pairs, evaluate_system
from talkface.evaluation.tables import tables_of

__all__ = ["evaluate_pairs", "evaluate_system", "tables_of"]
