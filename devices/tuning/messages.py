"""What ``edgecv tune`` and the processes that measure say to each other: a line of JSON each."""

from __future__ import annotations

from typing import Literal

import msgspec


class Task(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a process measures, as its argument."""

    bundle: str  # path
    bundle_hash: str  # a bundle that is another one by now is refused
    variant: str
    runtime: str
    device: str


class Order(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the process shall do next, as a line on its stdin."""

    do: Literal["build", "verify", "measure", "release"]
    threads: int = 0
    cores: tuple[int, ...] = ()
    seconds: float = 0.0


class Answer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What came of it, as a line on its stdout."""

    times_ms: tuple[float, ...] = ()
    rss_bytes: int = 0
    refused: str = ""  # of `verify`: why the variant may not be chosen
    error: str = ""  # why it failed
    changed: bool = False  # the bundle is not the one of the task any more
