"""What PAD's encoders are given, of prepared voices; found once and kept."""

import numpy as np

from talkface.data.arrays import keep_arrays
from talkface.data.manifest import Item, Manifest
from talkface.speech.features import FeatureStream
from talkface.systems.imagineid.pad_input import PadInput, pad_input


def pad_input_of(manifest: Manifest, item: Item, stream: FeatureStream) -> PadInput:
    """Features of an item of a prepared folder; found on first use and kept."""
    path = manifest.directory / "heard" / f"{item.key}.npz"
    if not path.is_file():
        voice = manifest.speech(item)
        found = pad_input(voice.samples(0, len(voice.audio)), stream)
        keep_arrays(path, content=found.content, level=found.level, prosody=found.prosody)
    with np.load(path) as arrays:
        return PadInput(arrays["content"], arrays["level"], arrays["prosody"])
