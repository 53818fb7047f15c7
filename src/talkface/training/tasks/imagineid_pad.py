"""What the trainings of PAD's stages share; each stage is trained over the frozen ones before it."""

import logging
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from talkface.data.manifest import Manifest
from talkface.face.model import FaceModel
from talkface.hub import load_pretrained, save_pretrained
from talkface.speech.features import ContentEncoder, FeatureStream
from talkface.systems.imagineid.config import PadConfig
from talkface.systems.imagineid.pad import Pad, Speech, VoiceIdentity
from talkface.systems.imagineid.pad_input import PadInput, as_batch
from talkface.training import Task

logger = logging.getLogger(__name__)

RATE = 50
"""Features a second."""


@dataclass(frozen=True)
class LabelledVoice:
    """A recording and what is known of its speaker.

    Attributes:
        features: of the speech.
        person, split: who speaks, and for what the recording may be used.
        face: (F,) descriptor of the speaker's face.
        alpha: (K,) identity coefficients of the 3DMM.
        male: probability that the speaker is a man, 0 to 1.
        age: decades.
        mood: place in EMOTIONS; -1 where it is not known.
    """

    features: PadInput
    person: str
    split: str
    face: np.ndarray | None = None
    alpha: np.ndarray | None = None
    male: float = 0.5
    age: float = 0.0
    mood: int = -1


@dataclass(frozen=True, kw_only=True)
class PadTrainConfig:
    """Settings of a stage's training.

    Attributes:
        model: sizes.
        start: name or directory of the export of the stage before; empty for the first.
        speech: name or directory of the content encoder.
        face_model: name or directory of the 3DMM.
        batch: voices, or windows.
        noise: standard deviation of the noise on content features.
        dropout: in training; 0 for the model's own.
        seconds: shortest and longest stretch of a voice.
        variants: of each clip's sound, for the second stage.
        gain: of the second stage's lips, for their mean moves less than people do.
        left_out: of so many training speakers, one is not shown to the second stage; the gain is measured on
            these. 0 for none.
        groups: by which the second stage's validation is summed up, by patterns
            (:mod:`talkface.data.groups`).
    """

    model: PadConfig = field(default_factory=PadConfig)
    start: str = ""
    speech: str = "speech"
    face_model: str = "face"
    batch: int = 48
    noise: float = 0.15
    dropout: float = 0.0
    seconds: tuple[float, float] = (2.0, 5.0)
    variants: int = 3
    gain: float = 1.0
    left_out: int = 0
    groups: dict[str, str] = field(default_factory=dict)


class PadTask(Task[PadTrainConfig]):
    """What the stages' trainings share."""

    stage: str
    joint = False

    def __init__(
        self,
        config: PadTrainConfig,
        data: Path,
        seed: int = 0,
        device: str = "cpu",
        pad: Pad | None = None,
    ) -> None:
        self.config, self.device = config, torch.device(device)
        self.manifest = Manifest.load(data)
        self.face = FaceModel.from_pretrained(config.face_model)
        self.stream = FeatureStream(ContentEncoder.from_pretrained(config.speech))
        torch.manual_seed(seed)
        if pad is None:
            pad = Pad.from_pretrained(config.start) if config.start else Pad(config.model)
        self.pad = pad.to(self.device).requires_grad_(False)
        self.read_data(np.random.default_rng(seed))
        self.modules = {name: module.requires_grad_(True) for name, module in self.trained().items()}
        for layer in (layer for module in self.modules.values() for layer in module.modules()):
            if config.dropout and isinstance(layer, nn.Dropout | nn.Dropout1d):
                layer.p = config.dropout

    def read_data(self, generator: np.random.Generator) -> None:
        """Load what is trained and validated on."""
        raise NotImplementedError

    def trained(self) -> dict[str, nn.Module]:
        """The stage's modules."""
        return {self.stage: getattr(self.pad, self.stage)}

    def export(self, directory: Path, metrics: dict[str, float]) -> None:
        """Write all stages as the hub reads them, with the metrics of all that are trained."""
        known = load_pretrained(self.config.start)[0]["metrics"] if self.config.start else {}
        config = {"class": "Pad", "model": asdict(self.pad.config), "metrics": known | metrics}
        save_pretrained(directory, config, self.pad.state_dict(), card=None)

    def code(self, speech: Speech) -> Tensor:
        """Identity codes (B, K + S) of voices; gradients reach the first stage only in joint training."""
        with torch.set_grad_enabled(self.joint and torch.is_grad_enabled()):
            identity: VoiceIdentity = self.pad.identity(speech)
            return identity.code()

    def speech(self, parts: list[PadInput], noise: float = 0.0) -> Speech:
        """Stretches of equal length as a batch."""
        speech = as_batch(parts, self.device)
        return replace(speech, content=speech.content + noise * torch.randn_like(speech.content))

    def stretches(self, voices: list[LabelledVoice], generator: np.random.Generator) -> list[PadInput]:
        """Stretches of equal length, one of each voice, with a random spectral tilt of the prosody."""
        low, high = self.config.seconds
        length = round(RATE * generator.uniform(low, high)) // 4 * 4
        parts = []
        for voice in voices:
            start = int(generator.integers(0, max(1, len(voice.features) - length)))
            part = looped(voice.features, start, length)
            shape = np.interp(np.arange(80), np.linspace(0, 79, 6), generator.normal(0, 0.06, 6))
            prosody = part.prosody.astype(np.float32)
            prosody[:, 2:] += shape
            parts.append(PadInput(part.content, part.level, prosody))
        return parts


def looped(whole: PadInput, start: int, length: int) -> PadInput:
    """``length`` features from ``start`` on; at the end they begin again."""
    places = (start + np.arange(length)) % len(whole)
    return PadInput(whole.content[places], whole.level[places], whole.prosody[places])
