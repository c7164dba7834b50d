"""What the options of all steps share: checking them, and classes by name."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from edgecv.errors import ConfigError

_Options = TypeVar("_Options", bound=msgspec.Struct)


def checked(options: _Options) -> _Options:
    """The same options after the checks that a TOML file goes through; a Python program may write lists for tuples.

    Raises:
        ConfigError: a value does not fit.
    """
    kind = type(options)
    try:
        return msgspec.convert(msgspec.structs.asdict(options), kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"An option of {kind.__name__} is wrong: {error}.") from error
