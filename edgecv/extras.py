"""Optional packages: imported where they are used, named with their pip line when they are missing."""

from __future__ import annotations

import importlib
from typing import Any

from edgecv.errors import MissingDependency


def require(module: str, extra: str) -> Any:
    """Import ``module``, which the extra ``extra`` brings.

    Raises:
        MissingDependency: it is not installed; the hint holds the pip line.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".", maxsplit=1)[0]:
            raise
        raise MissingDependency(
            f"The package that provides '{module}' is not installed.",
            f"Install it with: pip install 'edgecv[{extra}]'",
        ) from error
