"""``edgecv convert --for PROFILE``: the device that a bundle is made for says which formats and which CPU class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgecv import registry
from edgecv.errors import ConfigError

if TYPE_CHECKING:
    from edgecv.devices.profiles import Profile

THIS = "this"  # the machine at hand
_DEFAULT_FORMATS = ("onnx",)


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeFor:
    """What a bundle is to hold.

    Attributes:
        formats: What to write.
        cpu_classes: CPU classes of INT8 in ONNX, and accelerators; none for the default.
        by_speed: Whether speed on this machine counts, since the bundle is made for it.
        said: What a profile chose, in words; empty without one.
    """

    formats: tuple[str, ...]
    cpu_classes: tuple[str, ...] = ()
    by_speed: bool = False
    said: str = ""


def made_for(name: str | None, to: Sequence[str], target: Sequence[str], *, int8: bool) -> MadeFor:
    """What the profile ``name`` chooses; without one, what ``--to`` and ``--target`` say.

    Raises:
        ConfigError: there is no such profile, or it is given with ``--to`` or ``--target``.
    """
    if name is None:
        return MadeFor(formats=_formats(to), cpu_classes=tuple(target))
    if to or target:
        raise ConfigError(
            f"--for {name} chooses the formats and the CPU class.", "Leave out --to and --target, or leave out --for."
        )
    profile = _profile(name)
    cpu_class = profile.cpu_class or "all"  # a profile without one is for any processor
    variants = [f"INT8 in ONNX for {cpu_class}"] if "onnx" in profile.formats else []
    variants += [f"INT8 for {name}" for name in profile.accelerators]
    inside = "; ".join([", ".join(profile.formats), *(variants if int8 else [])])
    return MadeFor(
        formats=profile.formats,
        cpu_classes=(cpu_class, *profile.accelerators) if int8 else (),
        by_speed=int8 and name == THIS,
        said=f"Made for {profile.name} ({profile.title}): {inside}.",
    )


def _formats(to: Sequence[str]) -> tuple[str, ...]:
    return registry.names("exporters") if "all" in to else tuple(dict.fromkeys(to or _DEFAULT_FORMATS))


def _profile(name: str) -> Profile:
    from edgecv.devices.detect import detect
    from edgecv.devices.profiles import find_profile, profile_of

    if name == THIS:
        return profile_of(detect())
    try:
        return find_profile(name)
    except ConfigError as error:
        raise ConfigError(error.message, f"{error.hint} `--for {THIS}` is the machine at hand.") from error
