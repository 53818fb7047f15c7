"""Weights: this project's (pretrained.py), and those made by others (models.toml, fetch.py, sources.py).

Importing this room loads neither torch nor the hub's client.
"""

from talkface.hub.fetch import MODELS, ThirdPartyModel, find_model, model_path, models_for
from talkface.hub.files import cache_directory
from talkface.hub.pretrained import (
    CARD,
    COMPACT,
    CONFIG,
    WEIGHTS,
    BundledModel,
    build_pretrained,
    bundled_directory,
    bundled_models,
    find_pretrained,
    hub_snapshot,
    load_pretrained,
    pretrained_config,
    save_pretrained,
)
from talkface.hub.sources import (
    HubFile,
    NpmMember,
    ProgressCallback,
    SourceArchiveMember,
    Wheel,
    WheelMembers,
)

__all__ = [
    "CARD",
    "COMPACT",
    "CONFIG",
    "MODELS",
    "WEIGHTS",
    "BundledModel",
    "HubFile",
    "NpmMember",
    "ProgressCallback",
    "SourceArchiveMember",
    "ThirdPartyModel",
    "Wheel",
    "WheelMembers",
    "build_pretrained",
    "bundled_directory",
    "bundled_models",
    "cache_directory",
    "find_model",
    "find_pretrained",
    "hub_snapshot",
    "load_pretrained",
    "model_path",
    "models_for",
    "pretrained_config",
    "save_pretrained",
]
