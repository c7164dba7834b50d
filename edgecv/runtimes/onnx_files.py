"""Which other files an ``.onnx`` refers to, read from its protobuf wire format: the device has no ``onnx`` package.

onnxruntime refuses external data outside the model's folder only in recent releases, and a device may have an older one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
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
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def external_files(path: Path) -> frozenset[str]:
    """Locations of external data as written in the file, not resolved.

    Raises:
        SessionError: the file is not a protobuf message.
    """
    try:
        return frozenset(_locations(memoryview(path.read_bytes()), "model"))
    except (IndexError, ValueError, UnicodeDecodeError) as error:
        raise SessionError(
            f"{path.name} is damaged or not an ONNX file: {error}", "Copy or convert the model again."
        ) from error


def _locations(message: memoryview, kind: str) -> Iterator[str]:
    for number, value in _fields(message):
        child = _CHILDREN[kind].get(number)
        if child == "entry":
            pair = dict(_fields(value))
            if bytes(pair.get(1, b"")) == b"location":
                yield bytes(pair.get(2, b"")).decode()
        elif child:
            yield from _locations(value, child)


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
    value, shift = 0, 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
