"""Google's Coral: files that its compiler made, and the library that LiteRT hands them to.

``libedgetpu.so.1`` is a delegate of LiteRT (coral.ai, "Run inference on the Edge TPU with Python"). Not run on a Coral: none was
at hand; the library was replaced by one that refuses, to prove what is said then.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgecv._internal.foreign import first_line
from edgecv.errors import DeviceError
from edgecv.runtimes.accelerators import DEVICES

NAMES = DEVICES["litert"]
LIBRARY = "libedgetpu.so.1"
_CUSTOM_OP = b"edgetpu-custom-op"
_RIGHTS = "the user must be in the group plugdev (sudo usermod -aG plugdev $USER), then plug it in again"


def is_compiled(path: Path) -> bool:
    """Whether a TFLite file was made by ``edgetpu_compiler``: its operators are one of a name of its own."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(_CUSTOM_OP) >= 0


def check_fits(path: Path, name: str, device: str) -> None:
    """Check that a compiled file goes to a Coral, and any other to the processor.

    Args:
        path: By which name to read the file.
        name: What messages call it.
        device: ``cpu``, or one of ``NAMES``.

    Raises:
        DeviceError: it is the other way round; the hint says how to compile the file.
    """
    compiled = is_compiled(path)
    if compiled and device == "cpu":
        raise DeviceError(f"{name} was compiled for a Coral; no other device runs it.", "Use device='edgetpu'.")
    if not compiled and device != "cpu":
        raise DeviceError(
            f"{name} was not compiled for a Coral: it holds no {_CUSTOM_OP.decode()}.",
            f"Compile the full-integer file on an x86 computer with Google's compiler: edgetpu_compiler -s {name}; "
            "then run the file whose name ends in _edgetpu.tflite.",
        )


def load_delegate(runtime: Any, config: Mapping[str, Any], library: str = "") -> Any:
    """The library as a delegate of the interpreter.

    Args:
        runtime: The module with ``load_delegate``.
        config: Its options, such as ``{"device": "usb"}``, ``"pci"`` or ``":0"``.
        library: Its name or path; that of Coral by default.

    Raises:
        DeviceError: it is not installed, or finds no Coral that this user may open.
    """
    library = library or LIBRARY
    try:
        ctypes.CDLL(library)  # first: where this fails the delegate's own class leaves a traceback on stderr
    except OSError as error:
        raise DeviceError(
            f"{library} is missing: {first_line(error)}.",
            f"Install it from Coral's Debian archive: sudo apt-get install libedgetpu1-std; {_RIGHTS}.",
        ) from error
    try:
        return runtime.load_delegate(library, {str(key): str(value) for key, value in config.items()})
    except ValueError as error:
        said = (
            str(error).strip().splitlines()[-1].removesuffix(".")
        )  # what the library says stands below LiteRT's own line
        raise DeviceError(
            f"{library} opens no Coral here: {said}.",
            f"Look whether it is there: lsusb shows 1a6e:089a before its first use and 18d1:9302 after; {_RIGHTS}. "
            "A card is served by the driver apex: edgecv doctor.",
        ) from error
