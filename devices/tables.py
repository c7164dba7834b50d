"""What EdgeCV knows about boards, cores and accelerators: TOML files in ``devices/data``, read when they are first asked for."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DATA = Path(__file__).with_name("data")


@cache
def table(name: str) -> Mapping[str, Any]:
    """The content of ``devices/data/NAME.toml``, read once per process."""
    return tomllib.loads((DATA / f"{name}.toml").read_text(encoding="utf-8"))


@cache
def core_names() -> Mapping[str, str]:
    """Names of Arm's cores by ``implementer part``, such as ``0x41 0xd0b``."""
    return {
        f"{implementer} {part}": name for implementer, parts in table("cores").items() for part, name in parts.items()
    }
