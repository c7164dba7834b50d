"""Which other files an ``.onnx`` refers to, read from its protobuf wire format: the device has no ``onnx`` package.

onnxruntime refuses external data outside the model's folder only in recent releases, and a device may have an older one.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from edgecv.errors import SessionError

# Message -> field number -> message inside it (onnx.proto3, release 1.17), as far as tensors can hide there.
_CHILDREN: Mapping[str, Mapping[int, str]] = MappingProxyType(
    {
        "model": {7: "graph", 25: "function"},
        "graph": {1: "node", 5: "tensor", 15: "sparse"},
        "function": {7: "node"},
        "node": {5: "attribute"},
        "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
        "sparse": {1: "tensor", 2: "tensor"},
        "tensor": {13: "entry"},
    }
)
_DEEPEST = 200  # protobuf itself stops at 100 messages within each other
_LONGEST_NAME = 4096
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def external_files(path: Path) -> frozenset[str]:
    """Locations of external data as written in the file, not resolved.

    Raises:
        SessionError: the file is not a protobuf message, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            return external_files_in(file.fileno(), path.name)
    except OSError as error:
        raise SessionError(f"{path} cannot be read: {error.strerror}.", "Check the path.") from error


def check_external(path: Path) -> None:
    """Check that a bare file refers to plain files below its own folder, through no link.

    Raises:
        SessionError: it refers to another place, or is damaged.
    """
    for location in sorted(external_files(path)):
        beside = [
            path.parent.joinpath(*PurePosixPath(location).parts[:count]) for count in range(1, location.count("/") + 2)
        ]
        if not is_plain(location) or any(place.is_symlink() for place in beside):
            raise SessionError(
                f"{path.name}: its external data {location!r} lies outside its folder.",
                "Do not use this model; ask whoever made it.",
            )


def is_plain(location: str) -> bool:
    """Whether a location is a plain relative path: no ``..``, no root, nothing that onnxruntime reads otherwise.

    A ``*`` is refused as well: onnxruntime takes a location that begins with ``*/_ORT_MEM_ADDR_/*`` for an address in memory.
    """
    parts = PurePosixPath(location)
    plain = bool(location) and location.isprintable() and not set(location) & {"\\", "*", ":"}
    return plain and not parts.is_absolute() and ".." not in parts.parts and str(parts) == location


def external_files_in(descriptor: int, name: str) -> frozenset[str]:
    """The same of a file that is open; ``name`` is what to call it. It is mapped: only what surrounds the weights is read.

    Raises:
        SessionError: it is not a protobuf message.
    """
    if not os.fstat(descriptor).st_size:
        return frozenset()
    try:
        mapped = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)  # unmapped with the last view of it
        return frozenset(_locations(memoryview(mapped)))
    except (IndexError, ValueError) as error:
        raise SessionError(
            f"{name} is damaged or not an ONNX file: {error}", "Copy or convert the model again."
        ) from error


def _locations(model: memoryview) -> Iterator[str]:
    """Every location; messages within messages are looked into one after the other, however deep they are nested."""
    todo = [(model, "model", 0)]
    while todo:
        message, kind, depth = todo.pop()
        for number, value in _fields(message):
            child = _CHILDREN[kind].get(number)
            if child == "entry":
                pair = dict(_fields(value))
                if bytes(pair.get(1, b"")[:_LONGEST_NAME]) == b"location":
                    yield bytes(pair.get(2, b"")[:_LONGEST_NAME]).decode()
            elif child:
                if depth == _DEEPEST:
                    raise ValueError("it is nested too deep")
                todo.append((value, child, depth + 1))


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and content of each length-delimited field; numbers are skipped."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        wire = key & 7
        if wire == _VARINT:
            _, at = _varint(message, at)
        elif wire == _BYTES:
            length, at = _varint(message, at)
            if at + length > len(message):
                raise ValueError("it ends in the middle of a field")
            yield key >> 3, message[at : at + length]
            at += length
        elif wire in (_FIXED64, _FIXED32):
            at += 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"unknown wire type {wire}")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number is too long")
