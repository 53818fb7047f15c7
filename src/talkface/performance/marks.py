"""Which motion models, priors and refiners belong together: each config tells what it was trained over."""

from collections.abc import Iterable

from talkface.face.model import FaceModel
from talkface.nn.marks import check_built_on, state_mark, weights_mark
from talkface.performance.model import MotionModel
from talkface.speech.features import ContentEncoder

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


def check_together(
    models: Iterable[str], face: FaceModel, speech: ContentEncoder, motion: MotionModel
) -> None:
    """Refuse models that were trained over others than those that they are to be used with.

    Args:
        models: names or directories, as :func:`talkface.hub.load_pretrained` takes them.
        face: the face model that they are to be used with.
        speech: the content encoder.
        motion: the motion model.

    Raises:
        ModelUnavailable: one of them was trained over another face model, content encoder or motion model.
    """
    marks = {
        "face": lambda: state_mark(face.state()),
        "speech": lambda: weights_mark(speech),
        "motion": lambda: codes_mark(motion),
    }
    for model in models:
        check_built_on(model, marks)
