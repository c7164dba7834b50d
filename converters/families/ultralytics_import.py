"""Import ultralytics the way a converter needs it: offline, installing nothing, leaving nothing, beside any torchvision."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgecv._internal.extras import require


@functools.cache
def tasks() -> Any:
    """``ultralytics.nn.tasks``; ``MissingDependency`` where torch or ultralytics is not installed."""
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ.setdefault("YOLO_VERBOSE", "false")
    declare_torchvision_operators()
    with _no_settings():
        return require("ultralytics.nn.tasks", "convert")


@contextlib.contextmanager
def _no_settings() -> Iterator[None]:
    """Where ultralytics is imported first, it writes its settings into a folder that goes, with no id of this machine in them.

    The id is made of the address of a network card, and to read that takes a socket.
    """
    operators_own, node = os.environ.get("YOLO_CONFIG_DIR"), uuid.getnode
    with tempfile.TemporaryDirectory(prefix="edgecv-") as folder:
        os.environ["YOLO_CONFIG_DIR"] = operators_own or folder
        uuid.getnode = lambda: 0
        try:
            yield
        finally:
            uuid.getnode = node
            if operators_own is None:
                del os.environ["YOLO_CONFIG_DIR"]


@contextlib.contextmanager
def no_cache_of_torch() -> Iterator[None]:
    """Remove the empty folder that torch makes in the temporary folder for compiled code, which a conversion has none of."""
    operators_own = "TORCHINDUCTOR_CACHE_DIR" in os.environ
    try:
        yield
    finally:
        if not operators_own and (folder := os.environ.pop("TORCHINDUCTOR_CACHE_DIR", None)):
            with contextlib.suppress(OSError):  # not empty: somebody else uses it
                Path(folder).rmdir()


def photographs() -> tuple[Path, ...]:
    """The example images in Ultralytics' package; none where it is not installed."""
    spec = importlib.util.find_spec("ultralytics")
    folder = Path(spec.origin).parent / "assets" if spec is not None and spec.origin is not None else None
    return tuple(sorted(folder.glob("*.jpg"))) if folder is not None else ()


@functools.cache
def declare_torchvision_operators() -> Any | None:
    """Declare the two operators whose absence makes ``import torchvision`` fail beside a CPU build of torch.

    torchvision's wheel carries compiled operators for one build of torch; beside another they do not load, and its Python part
    then asks for operators that nobody declared. Whether they load only the import can tell: declared beforehand, those that do
    would end the process, since an operator may be defined once.

    Returns:
        The library handle, since the declaration lives as long as it does; ``None`` where torchvision is whole or absent.
    """
    torch = require("torch", "convert")
    try:
        importlib.import_module("torchvision")
    except ModuleNotFoundError:
        return None
    except RuntimeError:  # operator torchvision::nms does not exist
        if hasattr(torch.ops.torchvision, "nms"):
            return None  # its operators are there: it has another complaint, which whoever imports it will hear
        library = torch.library.Library("torchvision", "FRAGMENT")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return library
    return None
