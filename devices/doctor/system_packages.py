"""Versions of what the system's package manager installed, and of libraries that no Python package brings."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from edgecv.devices.roots import below, read_bytes

_STATUS = "var/lib/dpkg/status"
_STATUS_BYTES = 64 << 20
_FIELD = re.compile(rb"^(Package|Status|Version): (.*)$", re.MULTILINE)
_NVINFER_PLACES = ("usr/lib", "usr/lib/*-linux-gnu", "usr/local/lib", "usr/local/tensorrt/lib")
_NVINFER = re.compile(r"libnvinfer\.so\.(\d+)")


def debian_versions(root: Path, names: Iterable[str]) -> dict[str, str]:
    """Versions of Debian packages, by name; those that are not installed are left out."""
    wanted = {name.encode() for name in names}
    found = {}
    for entry in read_bytes(root / _STATUS, _STATUS_BYTES).split(b"\n\n"):
        fields = dict(_FIELD.findall(entry))
        if fields.get(b"Package") in wanted and fields.get(b"Status", b"").endswith(b" installed"):
            found[fields[b"Package"].decode()] = fields.get(b"Version", b"").decode(errors="replace")
    return found


def tensorrt_majors(root: Path) -> tuple[int, ...]:
    """The releases of TensorRT whose library lies where the loader looks, such as ``(10,)``."""
    files = (path.name for place in _NVINFER_PLACES for path in below(root, f"{place}/libnvinfer.so.*"))
    return tuple(sorted({int(found.group(1)) for name in files if (found := _NVINFER.fullmatch(name))}))
