"""What PAD's encoders are given, of prepared voices; found once and kept."""

import numpy as np

from talkface.data.arrays import keep_arrays
from talkface.data.manifest import Item, Manifest
from talkface.speech.features import FeatureStream
from talkface.systems.imagineid.hearing import SpeechFeatures, speech_features


def heard(manifest: Manifest, item: Item, stream: FeatureStream) -> SpeechFeatures:
    """Features of an item of a prepared folder; found on first use and kept."""
    path = manifest.directory / "heard" / f"{item.key}.npz"
    if not path.is_file():
        voice = manifest.speech(item)
        found = speech_features(voice.samples(0, len(voice.audio)), stream)
        keep_arrays(path, content=found.content, level=found.level, prosody=found.prosody)
    with np.load(path) as arrays:
        return SpeechFeatures(arrays["content"], arrays["level"], arrays["prosody"])
