"""Marks of weights, and models that are refused beside others than those that they were trained over."""

from pathlib import Path

import pytest
import torch

from talkface.errors import ModelUnavailable
from talkface.hub import save_pretrained
from talkface.nn.marks import check_built_on, latents_mark, weights_mark


def test_marks_tell_weights_apart() -> None:
    torch.manual_seed(0)
    module = torch.nn.ModuleDict({"encoder": torch.nn.Linear(2, 2), "decoder": torch.nn.Linear(2, 2)})
    weights, latents = weights_mark(module), latents_mark(module)
    assert weights == weights_mark(module) != latents
    with torch.no_grad():
        module["decoder"].bias.add_(1)
    assert weights_mark(module) != weights
    assert latents_mark(module) == latents, "latents do not depend on the decoder"
    with torch.no_grad():
        module["encoder"].bias.add_(1)
    assert latents_mark(module) != latents


def test_only_what_a_config_names_is_checked(tmp_path: Path) -> None:
    for name, config in (("built", {"built_on": {"face": "abc"}}), ("free", {})):
        save_pretrained(tmp_path / name, config, {"weight": torch.zeros(1)})

    def never() -> str:
        raise AssertionError("is not named in the config")

    check_built_on(str(tmp_path / "built"), {"face": "abc", "speech": never})
    check_built_on(str(tmp_path / "free"), {"face": never})
    with pytest.raises(ModelUnavailable, match="trained over another face model"):
        check_built_on(str(tmp_path / "built"), {"face": lambda: "other"})
