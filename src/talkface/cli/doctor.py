"""What this machine offers and what is missing: the facts behind ``talkface doctor``."""

import os
import platform
import time
from dataclasses import dataclass

import av
import torch

from talkface import hub
from talkface._version import __version__
from talkface.errors import ModelUnavailable
from talkface.options import has_bf16_units

_MATRIX = 1024
_SMALL_MATRIX = 128  # where a product takes about a hundred times as long
#: What the package writes or often meets, by FFmpeg's name, with the direction that is needed.
_CODECS = {
    "libx264": "w", "aac": "rw", "h264": "r", "hevc": "r", "vp9": "r", "av1": "r",
    "opus": "r", "mp3": "r", "flac": "r", "vorbis": "r",
}  # fmt: skip


@dataclass(frozen=True)
class Fact:
    """One line of the report: what was looked at, what was found, and whether that is good."""

    name: str
    value: str
    ok: bool = True


def examine() -> list[Fact]:
    """Look at the device, its number formats, the codecs and the models; takes about a second."""
    return [*_software(), *_devices(), *_arithmetic(), *_codecs(), *_own_models(), *_third_party_models()]


def _software() -> list[Fact]:
    return [
        Fact("talkface", __version__),
        Fact("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        Fact("torch", torch.__version__),
        Fact("cache", str(hub.cache_directory())),
    ]


def _devices() -> list[Fact]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts = [Fact("cpu", f"{cores} cores, {torch.get_num_threads()} torch threads")]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        facts.append(Fact(f"cuda:{index}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"))
    if torch.backends.mps.is_available():
        facts.append(Fact("mps", "available"))
    return facts


def _arithmetic() -> list[Fact]:
    units = has_bf16_units()
    fp32 = _gflops(torch.float32, _MATRIX)
    bf16 = _gflops(torch.bfloat16, _MATRIX if units else _SMALL_MATRIX)
    return [
        Fact("bf16 on cpu", "bf16 units" if units else "no bf16 units: fp32 is used"),
        Fact("matrix product", f"fp32 {fp32:.0f}, bf16 {bf16:.0f} GFLOP/s"),
    ]


def _gflops(dtype: torch.dtype, side: int) -> float:
    """Best of three square matrix products."""
    a = torch.randn(side, side).to(dtype)
    a @ a
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best / 1e9


def _codecs() -> list[Fact]:
    missing = [name for name, modes in _CODECS.items() for mode in modes if not _has_codec(name, mode)]
    value = f"lacks {', '.join(missing)}" if missing else ", ".join(_CODECS)
    version = ".".join(map(str, av.library_versions["libavcodec"]))
    return [Fact(f"ffmpeg (libavcodec {version})", value, not missing)]


def _has_codec(name: str, mode: str) -> bool:
    try:
        av.Codec(name, mode)  # type: ignore[arg-type]  # mode is "r" or "w"
    except ValueError:
        return False
    return True


def _own_models() -> list[Fact]:
    facts = []
    for model in hub.bundled_models():
        try:
            hub.load_pretrained(model.id)
            state, ok = "bundled, intact", True
        except ModelUnavailable as error:
            state, ok = str(error), False
        facts.append(Fact(model.id, f"{state}; {model.licence}; {model.size / 1e6:.1f} MB", ok))
    return facts or [Fact("weights", "none bundled: the package is incomplete", ok=False)]


def _third_party_models() -> list[Fact]:
    return [
        Fact(model.name, f"{model_state(model.name)}; {model.licence}; {model.size / 1e6:.1f} MB")
        for model in hub.MODELS.values()
    ]


def model_state(name: str) -> str:
    """Where a third-party model is, in a few words."""
    try:
        found = hub.find_model(name)
    except ModelUnavailable as error:
        return str(error)
    return f"at {found}" if found else f"fetched when {hub.MODELS[name].needed_for} needs it"
