"""The mark of a motion model's codes: it tells which diffusion priors belong to it."""

from talkface.nn.marks import state_mark
from talkface.performance.model import MotionModel

_FIRST = "audio_encoder.0."
_LIPS = ("mlp_a2l.", "lip_decoder.", "lip_gain", "mlp_cl.", "temperature")


def codes_mark(motion: MotionModel) -> str:
    """The mark of what a prior depends on: the audio code f^a, the non-lip code f_nl, its decoder.

    The prior reads f^a of the lip path's first member alone, and no lips: the mark stays the same when lips
    and further members are trained again.
    """
    state = motion.state_dict()
    others = {name for name in state if name.startswith("audio_encoder.") and not name.startswith(_FIRST)}
    return state_mark({k: v for k, v in state.items() if k not in others and not k.startswith(_LIPS)})
