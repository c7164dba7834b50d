"""What the options of all steps share."""

from __future__ import annotations

from typing import ClassVar, TypeVar

import msgspec

from edgecv._internal.strict import read_struct

_Options = TypeVar("_Options", bound=msgspec.Struct)


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a step is asked to do."""

    gives_ids: ClassVar[bool] = False
    """Whether objects have ids after the step."""

    @property
    def needs_ids(self) -> bool:
        """Whether objects must have ids before it."""
        return False


def checked(options: _Options) -> _Options:
    """The same options after the checks that a TOML file goes through; a Python program may write lists for tuples.

    Raises:
        ConfigError: a value does not fit.
    """
    return read_struct(msgspec.structs.asdict(options), type(options), type(options).__name__)
