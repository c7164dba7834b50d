"""Passwords and tokens from files that only their owner may read."""

from __future__ import annotations

import os
from pathlib import Path

from edgecv.errors import ConfigError

_LONGEST = 65_536  # characters


def read_secret(path: str | Path) -> str:
    """The text of the file without its line end.

    Raises:
        ConfigError: it cannot be read, is empty or far too long, or others may read it.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise ConfigError(f"{path} holds a secret and others may read it.", f"chmod 600 {path}")
            secret = file.read(_LONGEST + 1).rstrip("\r\n")
    except (OSError, ValueError) as error:  # the second: no UTF-8, or a name that no file can have
        raise ConfigError(f"The secret file {path} cannot be read.", "Check the path and its owner.") from error
    if len(secret) > _LONGEST:
        raise ConfigError(f"{path} is too long for a password or token.", "Is it the right file?")
    if not secret:
        raise ConfigError(f"The secret file {path} is empty.", "Write the password or token into it.")
    return secret
