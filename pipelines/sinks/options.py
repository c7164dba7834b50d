"""Options that the sinks share."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec


class FileSinkOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the query of a sink that writes a file may say: whether to replace an existing one."""

    overwrite: bool = False


class LineSinkOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the query of a sink that writes lines may say.

    Attributes:
        overwrite: Replace an existing file.
        append: Go on with an existing file.
        max_mb: A new file begins when this one would grow larger; 0: never.
        every: A new file begins with each hour or day, by local time.
        keep: How many earlier files stay, as ``NAME.1`` (the newest), ``NAME.2`` ...
    """

    overwrite: bool = False
    append: bool = False
    max_mb: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    every: Literal["", "hour", "day"] = ""
    keep: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 10

    @property
    def rotates(self) -> bool:
        """Whether a new file ever begins."""
        return bool(self.max_mb or self.every)
