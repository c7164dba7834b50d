"""Whether a ``.tflite`` file holds together, before LiteRT opens it: LiteRT ends the process where a part it expects is missing.

LiteRT checks that the offsets stay inside the file, but then follows fields that the schema leaves optional, and numbers
of tensors, buffers and operators, as they stand. Of the files that a fuzzer made, every one that ended the process failed here.
Layout: https://flatbuffers.dev/internals; fields: ``schema.fbs`` of TensorFlow Lite, version 3.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

from edgecv.errors import SessionError

_MAGIC = b"TFL3"  # at byte 4
_MOST_ITEMS = 1_000_000  # of one vector of tables
_MOST_TENSOR_BYTES = 1 << 33
# Field numbers of the schema's tables.
_CODES, _SUBGRAPHS, _BUFFERS, _SIGNATURES = 1, 2, 4, 7
_TENSORS, _INPUTS, _OUTPUTS, _OPERATORS = 0, 1, 2, 3
_SHAPE, _BUFFER = 0, 2
_OPCODE_INDEX, _OP_INPUTS, _OP_OUTPUTS, _OP_INTERMEDIATES = 0, 1, 2, 8
_SIGNATURE_INPUTS, _SIGNATURE_OUTPUTS, _SIGNATURE_SUBGRAPH = 0, 1, 4
_MAP_NAME, _MAP_TENSOR = 0, 1
_BUFFER_DATA = 0


def check_tflite(path: Path, name: str) -> None:
    """Check that a file is a TFLite model whose parts are there and refer to each other within their numbers.

    Raises:
        SessionError: it is not, or cannot be read; ``name`` is what the message calls it.
    """
    try:
        with path.open("rb") as file:
            if file.read(8)[4:] != _MAGIC:
                raise ValueError("it does not begin as one")
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        _check_model(_Table(memoryview(data), _u32(memoryview(data), 0)))
    except OSError as error:
        raise SessionError(f"{name} cannot be read: {error.strerror}.", "Check the path.") from error
    except (ValueError, struct.error, OverflowError) as error:
        raise SessionError(f"{name} is damaged or not a TFLite file: {error}.", "Convert the model again.") from error


class _Table:
    """A table of a flatbuffer: fields by number, each of which may be missing."""

    def __init__(self, data: memoryview, at: int) -> None:
        self._data, self._at = data, at
        self._fields = at - struct.unpack_from("<i", data, _inside(data, at))[0]
        self._size = _u16(data, self._fields)

    def number(self, field: int, code: str) -> int:
        """Read a whole number from a field; 0 where the field is missing."""
        at = self._place(field)
        return 0 if at is None else int(struct.unpack_from("<" + code, self._data, at)[0])

    def vector(self, field: int, item_bytes: int, *, needed: bool = True) -> tuple[int, int]:
        """Where the items of a vector begin, and how many they are; none where the field may be missing."""
        at = self._place(field)
        if at is None:
            if needed:
                raise ValueError("a part is missing")
            return 0, 0
        start = at + _u32(self._data, at)
        count = _u32(self._data, start)
        if start + 4 + count * item_bytes > len(self._data):
            raise ValueError("a part reaches beyond its end")
        return start + 4, count

    def numbers(self, field: int, *, needed: bool = True) -> tuple[int, ...]:
        """A vector of 32-bit numbers."""
        start, count = self.vector(field, 4, needed=needed)
        return struct.unpack_from(f"<{count}i", self._data, start) if count else ()

    def tables(self, field: int, *, needed: bool = True) -> Iterator[_Table]:
        """Read the tables of a vector, one after the other."""
        start, count = self.vector(field, 4, needed=needed)
        if count > _MOST_ITEMS:
            raise ValueError("it has too many parts")
        for at in range(start, start + 4 * count, 4):
            yield _Table(self._data, at + _u32(self._data, at))

    def _place(self, field: int) -> int | None:
        entry = 4 + 2 * field
        offset = _u16(self._data, self._fields + entry) if entry < self._size else 0
        return _inside(self._data, self._at + offset) if offset else None


def _check_model(model: _Table) -> None:
    codes = sum(1 for _ in model.tables(_CODES))
    buffers = 0
    for buffer in model.tables(_BUFFERS):
        buffer.vector(_BUFFER_DATA, 1, needed=False)
        buffers += 1
    tensors = [_check_subgraph(subgraph, codes, buffers) for subgraph in model.tables(_SUBGRAPHS)]
    if not tensors:
        raise ValueError("it has no graph")
    for signature in model.tables(_SIGNATURES, needed=False):
        graph = signature.number(_SIGNATURE_SUBGRAPH, "I")
        _check_number(graph, len(tensors), "graph")
        for field in (_SIGNATURE_INPUTS, _SIGNATURE_OUTPUTS):
            for entry in signature.tables(field):
                entry.vector(_MAP_NAME, 1)
                _check_number(entry.number(_MAP_TENSOR, "I"), tensors[graph], "tensor")


def _check_subgraph(subgraph: _Table, codes: int, buffers: int) -> int:
    """How many tensors it has."""
    tensors = 0
    for tensor in subgraph.tables(_TENSORS):
        tensors += 1
        _check_number(tensor.number(_BUFFER, "I"), buffers, "buffer")
        shape = tensor.numbers(_SHAPE, needed=False)
        if math.prod(max(1, size) for size in shape) > _MOST_TENSOR_BYTES or any(size < 0 for size in shape):
            raise ValueError(f"a tensor has the shape {shape}")
    for field in (_INPUTS, _OUTPUTS):
        for number in subgraph.numbers(field):
            _check_number(number, tensors, "tensor")
    for operator in subgraph.tables(_OPERATORS):
        _check_number(operator.number(_OPCODE_INDEX, "I"), codes, "operator")
        for field, needed in ((_OP_INPUTS, True), (_OP_OUTPUTS, True), (_OP_INTERMEDIATES, False)):
            for number in operator.numbers(field, needed=needed):
                _check_number(number, tensors, "tensor", least=-1)  # -1: an input that is left out
    return tensors


def _check_number(number: int, count: int, what: str, least: int = 0) -> None:
    if not least <= number < count:
        raise ValueError(f"it refers to {what} {number} of {count}")


def _inside(data: memoryview, at: int) -> int:
    if not 0 <= at < len(data):
        raise ValueError("a part lies outside")
    return at


def _u32(data: memoryview, at: int) -> int:
    return int(struct.unpack_from("<I", data, _inside(data, at))[0])


def _u16(data: memoryview, at: int) -> int:
    return int(struct.unpack_from("<H", data, _inside(data, at))[0])
