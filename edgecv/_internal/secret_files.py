"""Passwords and tokens from files that only their owner may read."""

from __future__ import annotations

import os
from pathlib import Path

from edgecv.errors import ConfigError

_LONGEST = 65_536  # characters
_CREDENTIALS = "CREDENTIALS_DIRECTORY"  # where systemd puts what LoadCredential= names, for this service alone


def credential_path(name: str) -> str:
    """The path that a name means: ``$CREDENTIALS_DIRECTORY/NAME`` is a credential that systemd gave to this service.

    Raises:
        ConfigError: there are no credentials here.
    """
    for start in (f"${_CREDENTIALS}/", f"${{{_CREDENTIALS}}}/"):
        if name.startswith(start):
            folder = os.environ.get(_CREDENTIALS, "")
            if not folder:
                hint = f"In its unit: LoadCredential={name.removeprefix(start)}:/path/of/the/file"
                raise ConfigError(f"{name} is meant for a service of systemd, and this is none.", hint)
            return str(Path(folder) / name.removeprefix(start))
    return name


def check_private(path: Path, mode: int) -> None:
    """Raise ``ConfigError`` for a secret whose file mode lets others read it."""
    # systemd shows the one user whom it lets in as a group; its folder keeps all others out.
    folder = os.environ.get(_CREDENTIALS, "")
    of_systemd = bool(folder) and path.parent == Path(folder)
    if mode & (0o007 if of_systemd else 0o077):
        raise ConfigError(f"{path} holds a secret and others may read it.", f"chmod 600 {path}")


def read_secret(path: str | Path) -> str:
    """The text of the file without its line end; ``$CREDENTIALS_DIRECTORY/NAME`` is a credential of systemd.

    Raises:
        ConfigError: it cannot be read, is empty or far too long, or others may read it.
    """
    path = Path(credential_path(str(path)))
    try:
        with path.open(encoding="utf-8") as file:
            check_private(path, os.fstat(file.fileno()).st_mode)
            secret = file.read(_LONGEST + 1).rstrip("\r\n")
    except (OSError, ValueError) as error:  # the second: no UTF-8, or a name that no file can have
        raise ConfigError(f"The secret file {path} cannot be read.", "Check the path and its owner.") from error
    if len(secret) > _LONGEST:
        raise ConfigError(f"{path} is too long for a password or token.", "Is it the right file?")
    if not secret:
        raise ConfigError(f"The secret file {path} is empty.", "Write the password or token into it.")
    return secret
