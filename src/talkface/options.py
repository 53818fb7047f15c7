"""Arguments that several verbs take, checked in one way."""

import math

import torch

from talkface.errors import InvalidOption


def resolve_device(device: str) -> torch.device:
    """Turn "auto" or a device's name into a device.

    Raises:
        InvalidOption: there is no such device here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
        torch.empty(1, device=target)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InvalidOption(f"device {device} is not available here; choose auto or cpu") from error
    return target


def number_within(name: str, value: float | str, low: float, high: float) -> float:
    """The number that an option's value is, if it lies within its range.

    Raises:
        InvalidOption: it is none, or lies outside.
    """
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not low <= number <= high:
        raise InvalidOption(f"{name} is {value}; choose a number from {low:g} to {high:g}")
    return number


def whole_seed(seed: int) -> int:
    """A seed that generators take.

    Raises:
        InvalidOption: it is below 0 or too large.
    """
    if not 0 <= seed < 2**63:
        raise InvalidOption(f"seed is {seed}; choose a whole number from 0")
    return seed
