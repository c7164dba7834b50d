"""What is imported when it is first used: the names of our own packages, and optional ones, which may be missing."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any

from edgecv._internal.quiet import no_telemetry
from edgecv.errors import MissingDependency, PluginError

# ONNX Runtime reports, too, and so does Ultralytics: see __init__.py, ultralytics_import.py.
_REPORTING = ("openvino", "nncf")


def require(module: str, extra: str) -> Any:
    """Import ``module``, which the extra ``extra`` brings, and let it report its use to nobody.

    Raises:
        MissingDependency: it is not installed; the hint holds the pip line.
        PluginError: it is installed, but lacks a package of its own.
    """
    if module.split(".", maxsplit=1)[0] in _REPORTING:
        no_telemetry()
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        pip = f"pip install 'edgecv[{extra}]'"
        if error.name is None:
            raise
        if error.name.split(".")[0] != module.split(".", maxsplit=1)[0]:
            raise PluginError(
                f"'{module}' is installed, but '{error.name}', which it needs, is not.", f"Install both again: {pip}"
            ) from error
        raise MissingDependency(
            f"The package that provides '{module}' is not installed.", f"Install it with: {pip}"
        ) from error


@functools.cache
def opencv() -> Any:
    """``cv2``, looked up once: it is asked for at every frame."""
    return require("cv2", "vision")


def lazy_names(package: str, places: Mapping[str, str], modules: Collection[str] = ()) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package.

    Args:
        package: Its ``__name__``.
        places: The module that each name comes from.
        modules: Names that stand for that module itself.
    """

    def load(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        module = importlib.import_module(places[name])
        value = module if name in modules else getattr(module, name)
        setattr(sys.modules[package], name, value)
        return value

    return load
