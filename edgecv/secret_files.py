"""Passwords and tokens from files that only their owner may read."""

from __future__ import annotations

from pathlib import Path

from edgecv.errors import ConfigError


def read_secret(path: str | Path) -> str:
    """The text of the file without its line end.

    Raises:
        ConfigError: it cannot be read, is empty, or others may read it.
    """
    path = Path(path)
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"{path} holds a secret and others may read it.", f"chmod 600 {path}")
        secret = path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, ValueError) as error:  # the second: no UTF-8, or a name that no file can have
        raise ConfigError(f"The secret file {path} cannot be read.", "Check the path and its owner.") from error
    if not secret:
        raise ConfigError(f"The secret file {path} is empty.", "Write the password or token into it.")
    return secret
