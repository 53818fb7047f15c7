"""SyncNet with random weights."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from talkface.evaluation.judges.syncnet import SyncNet


def save_syncnet(folder: Path) -> Path:
    """Write it in both kinds of file, ``syncnet_v2.model`` and ``syncnet.safetensors``; gives the folder."""
    torch.manual_seed(0)
    state = SyncNet().state_dict()
    torch.save(state, folder / "syncnet_v2.model")
    save_file(state, folder / "syncnet.safetensors")
    return folder
