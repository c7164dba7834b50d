"""What the options of all steps share."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from edgecv.strict import read_struct

_Options = TypeVar("_Options", bound=msgspec.Struct)


def checked(options: _Options) -> _Options:
    """The same options after the checks that a TOML file goes through; a Python program may write lists for tuples.

    Raises:
        ConfigError: a value does not fit.
    """
    return read_struct(msgspec.structs.asdict(options), type(options), type(options).__name__)
