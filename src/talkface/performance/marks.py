"""The mark of a motion model's codes: it tells which diffusion priors belong to it."""

from talkface.nn.marks import state_mark
from talkface.performance.model import MotionModel

_LIPS = ("mlp_a2l.", "lip_decoder.", "lip_gain", "mlp_cl.", "temperature")


def codes_mark(motion: MotionModel) -> str:
    """The mark of what a prior depends on: the audio code f^a, the non-lip code f_nl and its decoder.

    The prior reads f^a of the first member of the lip path alone, and no lips: training lips and further members
    again leaves the mark as it is.
    """
    first = "audio_encoder.0."
    return state_mark(
        {
            name: tensor
            for name, tensor in motion.state_dict().items()
            if not name.startswith(_LIPS) and (name.startswith(first) or not name.startswith("audio_encoder."))
        }
    )
