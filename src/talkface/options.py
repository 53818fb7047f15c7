"""Arguments that several verbs take, checked in one way."""

import math
import platform
from pathlib import Path

import torch

from talkface.errors import InvalidOption


def resolve_device(device: str) -> torch.device:
    """Turn "auto" or a device's name into a device.

    Raises:
        InvalidOption: There is no such device here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
        torch.empty(1, device=target)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InvalidOption(f"device {device} is not available here; choose auto or cpu") from error
    return target


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Turn "auto" or a type's name into the type that networks compute in.

    "auto" takes bfloat16 where the device has units for it, else float32.

    Raises:
        InvalidOption: There is no such type.
    """
    if dtype == "auto":
        units = has_bf16_units() if device.type == "cpu" else device.type == "cuda"
        return torch.bfloat16 if units else torch.float32
    types = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if dtype not in types:
        raise InvalidOption(f"dtype is {dtype}; choose auto, {' or '.join(types)}")
    return types[dtype]


def has_bf16_units() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware and torch uses that; without, float32 is faster."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return platform.system() == "Darwin" and platform.machine() == "arm64"
    words = set(info.read_text().split())
    if platform.machine() == "aarch64":
        return "bf16" in words
    # ONEDNN_MAX_CPU_ISA may forbid oneDNN to use them; products then take about a hundred times as long as in
    # float32.
    return bool(words & {"avx512_bf16", "amx_bf16", "avx_ne_convert"}) and _onednn_takes_bf16()


def _onednn_takes_bf16() -> bool:
    # torch gives no types for is_available.
    available = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]  # of torch
    return available and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def number_within(name: str, value: float | str, low: float, high: float) -> float:
    """An option's value as a number, checked to lie within its range.

    Raises:
        InvalidOption: It is no number, or lies outside.
    """
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not low <= number <= high:
        raise InvalidOption(f"{name} is {value}; choose a number from {low:g} to {high:g}")
    return number


def face_within(face: int, count: int, where: str) -> int:
    """The rank of a face, if there are so many.

    Raises:
        InvalidOption: There are not.
    """
    if not 0 <= face < count:
        choice = f"choose 0 to {count - 1}" if count > 1 else "choose 0"
        raise InvalidOption(f"face is {face}, but {where} shows {count}; {choice}")
    return face


def whole_seed(seed: int) -> int:
    """A seed, checked to be one that random generators take.

    Raises:
        InvalidOption: It is below 0 or too large.
    """
    if not 0 <= seed < 2**63:
        raise InvalidOption(f"seed is {seed}; choose a whole number from 0 to {2**63 - 1}")
    return seed
