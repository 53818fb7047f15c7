"""What a verb gives: takes of a video that are computed while they are looked at or saved."""

from talkface.output.generation import Generation, check_takes, take_paths, takes_of
from talkface.output.take import Clock, ConstantRate, Progress, Take, fingerprint_of

__all__ = [
    "Clock",
    "ConstantRate",
    "Generation",
    "Progress",
    "Take",
    "check_takes",
    "fingerprint_of",
    "take_paths",
    "takes_of",
]
