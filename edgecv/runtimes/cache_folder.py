"""Where EdgeCV keeps what it could make again: results of tuning, compiled models."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(name: str) -> Path | None:
    """The folder ``name`` of the cache; ``None`` for a user without a home. It need not exist.

    It lies in ``EDGECV_CACHE`` where that is set, else in ``edgecv`` below ``XDG_CACHE_HOME`` or ``~/.cache``.
    """
    for variable, below in (("EDGECV_CACHE", name), ("XDG_CACHE_HOME", f"edgecv/{name}")):
        given = os.environ.get(variable, "")
        if given.startswith("/"):  # the XDG specification: a relative path is to be ignored
            return Path(given) / below
    try:
        return Path.home() / ".cache" / "edgecv" / name
    except RuntimeError:
        return None
