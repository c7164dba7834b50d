"""Options that the sinks share."""

from __future__ import annotations

import msgspec


class FileSinkOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the query of a sink that writes a file may say.

    Attributes:
        overwrite: Replace an existing file.
    """

    overwrite: bool = False
