"""Whisper's encoder (MIT), the teacher of the content features; used in training only."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

_DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}


def read_ctranslate2(path: Path) -> dict[str, np.ndarray]:
    """Read the variables of a CTranslate2 ``model.bin`` (version 6 layout) by name."""
    data = Path(path).read_bytes()
    position = 0

    def number(code: str) -> int:
        nonlocal position
        value: int = struct.unpack_from("<" + code, data, position)[0]
        position += struct.calcsize("<" + code)
        return value

    def text() -> str:
        nonlocal position
        length = number("H")
        value = data[position : position + length - 1].decode()
        position += length
        return value

    number("I"), text(), number("I")  # file version, model name, revision
    variables: dict[str, np.ndarray] = {}
    for _ in range(number("I")):
        name, rank = text(), number("B")
        shape = [number("I") for _ in range(rank)]
        dtype = np.dtype(_DTYPES[number("B")])
        size = number("I")
        variables[name] = np.frombuffer(data, dtype, size // dtype.itemsize, position).reshape(shape)
        position += size
    for _ in range(number("I")):
        alias, name = text(), text()
        variables[alias] = variables[name]
    return variables


def encoder_state(variables: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Rename CTranslate2's encoder variables to those of transformers' ``WhisperEncoder``."""
    state: dict[str, Tensor] = {}

    def put(target: str, source: str) -> None:
        state[target] = torch.from_numpy(variables[f"encoder/{source}"].astype(np.float32))

    for conv in ("conv1", "conv2"):
        put(f"{conv}.weight", f"{conv}/weight")
        put(f"{conv}.bias", f"{conv}/bias")
    put("embed_positions.weight", "position_encodings/encodings")
    put("layer_norm.weight", "layer_norm/gamma")
    put("layer_norm.bias", "layer_norm/beta")
    for index in range(encoder_depth(variables)):
        _put_layer(state, put, index)
    return state


def encoder_depth(variables: dict[str, np.ndarray]) -> int:
    """Number of transformer layers of the encoder."""
    names = {name.split("/")[1] for name in variables if name.startswith("encoder/layer_")}
    return sum(name.removeprefix("layer_").isdigit() for name in names)


def _put_layer(state: dict[str, Tensor], put: Callable[[str, str], None], index: int) -> None:
    source, target = f"layer_{index}", f"layers.{index}"
    pairs = {
        "self_attn.out_proj": "self_attention/linear_1",
        "fc1": "ffn/linear_0",
        "fc2": "ffn/linear_1",
    }
    for ours, theirs in pairs.items():
        put(f"{target}.{ours}.weight", f"{source}/{theirs}/weight")
        put(f"{target}.{ours}.bias", f"{source}/{theirs}/bias")
    norms = {"self_attn_layer_norm": "self_attention/layer_norm", "final_layer_norm": "ffn/layer_norm"}
    for ours, theirs in norms.items():
        put(f"{target}.{ours}.weight", f"{source}/{theirs}/gamma")
        put(f"{target}.{ours}.bias", f"{source}/{theirs}/beta")
    for kind in ("weight", "bias"):  # CTranslate2 packs the three projections; Whisper's keys have no bias
        put("packed", f"{source}/self_attention/linear_0/{kind}")
        for name, part in zip("qkv", state.pop("packed").chunk(3), strict=True):
            if not (name == "k" and kind == "bias"):
                state[f"{target}.self_attn.{name}_proj.{kind}"] = part.clone()


class WhisperTeacher(nn.Module):
    """Hidden states of a Whisper encoder for audio of any length up to 30 s.

    Position embeddings are cut to the audio's length instead of padding the audio to 30 s: five times faster
    on short clips.

    Args:
        path: A CTranslate2 ``model.bin``.
        layer: How many transformer layers are run.
    """

    def __init__(self, path: Path, layer: int = 4) -> None:
        super().__init__()
        from transformers import WhisperConfig
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        variables = read_ctranslate2(path)
        width = variables["encoder/conv1/weight"].shape[0]
        config = WhisperConfig(
            d_model=width,
            encoder_layers=encoder_depth(variables),
            encoder_attention_heads=width // 64,
            encoder_ffn_dim=4 * width,
            num_mel_bins=80,
        )
        self.encoder = WhisperEncoder(config).eval()
        self.encoder.load_state_dict(encoder_state(variables))
        self.layer = layer

    @torch.no_grad()
    def forward(self, mel: Tensor) -> Tensor:
        """Map log-mel (B, 80, 2T) to the chosen layer's hidden states (B, T, C)."""
        encoder = self.encoder
        hidden: Tensor = nn.functional.gelu(encoder.conv1(mel))
        hidden = nn.functional.gelu(encoder.conv2(hidden)).transpose(1, 2)
        hidden = hidden + encoder.embed_positions.weight[: hidden.shape[1]]
        for block in encoder.layers[: self.layer]:
            out = block(hidden, None)
            hidden = out[0] if isinstance(out, tuple) else out
        return hidden
