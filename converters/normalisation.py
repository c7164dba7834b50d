"""``--mean`` and ``--std`` as they are meant: of pixels over 255, or of pixels of 0 to 255."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from edgecv.errors import ConfigError

_EXAMPLE = "Example: --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 (of pixels over 255)."
_LARGEST = 255.0
_LARGEST_STD = 2.0  # of pixels over 255 it is at most 0.5; 1 means "not divided"


def read_normalisation(said: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What is said of an input with mean and std as three numbers each, of pixels over 255.

    A mean above 1 and a std above 2 can only be meant for pixels of 0 to 255, as mmcv, Keras and Caffe write them. They are divided
    by 255, and that is told. Numbers that no image has, and one of 0 to 255 beside one of 0 to 1, are a ``ConfigError``.

    Returns:
        The same, and what was done, in words.
    """
    found = dict(said)
    for name in ("mean", "std"):
        if name in found:
            found[name] = _three(name, found[name])
    mean, std = found.get("mean"), found.get("std")
    in_bytes = {"mean": mean is not None and max(mean) > 1, "std": std is not None and max(std) > _LARGEST_STD}
    if mean is not None and std is not None:
        _check_agree(mean, std, in_bytes)
        if any(in_bytes.values()):
            in_bytes = {"mean": True, "std": True}
    notes = []
    for name, scaled in in_bytes.items():
        if scaled:
            before = ", ".join(f"{value:g}" for value in found[name])
            found[name] = tuple(round(value / 255, 7) for value in found[name])
            notes.append(f"{name}: {before} was taken as of pixels of 0 to 255, so {found[name]} of pixels over 255")
    return found, tuple(notes)


def _three(name: str, given: Any) -> tuple[float, float, float]:
    values = tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else (given,)
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        raise ConfigError(f"A {name} of {given} is not made of numbers.", _EXAMPLE)
    if len(values) not in (1, 3):
        raise ConfigError(f"A {name} has three numbers, or one for all three channels, not {len(values)}.", _EXAMPLE)
    first, second, third = (float(value) for value in (values * 3 if len(values) == 1 else values))
    if not all(math.isfinite(value) for value in (first, second, third)):
        raise ConfigError(f"A {name} of {given} normalises nothing.", _EXAMPLE)
    if name == "std" and min(first, second, third) <= 0:
        raise ConfigError(f"A std of {given} normalises nothing: each must be above 0.", _EXAMPLE)
    if not 0 <= min(first, second, third) <= max(first, second, third) <= _LARGEST:
        raise ConfigError(f"A {name} of {given} is none of pixels, which lie between 0 and 255.", _EXAMPLE)
    return first, second, third


def _check_agree(mean: Sequence[float], std: Sequence[float], in_bytes: Mapping[str, bool]) -> None:
    """Refuse one of 0 to 1 beside another of 0 to 255. A mean of 0 is one of either, and so is a std of 1."""
    small_std = in_bytes["mean"] and min(std) < 1
    small_mean = in_bytes["std"] and not in_bytes["mean"] and max(mean) > 0
    if small_std or small_mean:
        name, values = ("mean", mean) if small_std else ("std", std)
        other = "std" if small_std else "mean"
        right = ",".join(f"{value / 255:.3g}" for value in values)
        raise ConfigError(
            f"--{name} is of pixels of 0 to 255 and --{other} of pixels over 255.", f"Give both alike: --{name} {right}"
        )
