"""``results.bin``: what was found in each frame, bit for bit.

A record is its length and the CRC-32 of its payload (both unsigned, 32 bits, little-endian) and the payload, MessagePack of a
``Record``. Records are only ever appended, so a process that is killed leaves at most one unfinished, at the end.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt

from edgecv.errors import SourceError, SpecMismatch
from edgecv.results import BoolArray, Classification, Detections, run_lengths

_HEAD = struct.Struct("<II")
_MOST_MASK_PIXELS = 2**31  # 2 GB: 250 masks in an image of 8 megapixels, 1,000 in one of 2
_DTYPES: Mapping[str, str] = {
    "xyxy": "<f4",
    "confidence": "<f4",
    "class_id": "<i8",
    "tracker_id": "<i8",
    "keypoints": "<f4",
    "obb": "<f4",
}


class StoredArray(msgspec.Struct, frozen=True, array_like=True):
    """An array: its shape and its bytes in little-endian order."""

    shape: tuple[int, ...]
    data: bytes


class StoredMasks(msgspec.Struct, frozen=True, array_like=True):
    """Masks of one size as run lengths, 32 bits each, little-endian, in COCO's order (see ``edgecv.results.run_lengths``)."""

    height: int
    width: int
    counts: tuple[bytes, ...]


class Record(msgspec.Struct, frozen=True, array_like=True):
    """One frame: the position of its source in the header, its size in pixels, the number of its image file, and what was
    found.

    ``index`` and the times are those of ``Frame``; ``arrays`` and ``masks`` hold the fields of the detections or
    classification.
    """

    source: int
    index: int
    captured_ns: int
    monotonic_ns: int
    position_ns: int | None
    width: int
    height: int
    image: int
    is_classification: bool
    arrays: dict[str, StoredArray]
    masks: StoredMasks | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How far a file of records is whole.

    ``torn_bytes`` follow: a record that was being written when the process or the machine died.
    """

    records: int
    whole_bytes: int
    torn_bytes: int


def encode_record(record: Record) -> bytes:
    """A record as it stands in the file."""
    payload = msgspec.msgpack.encode(record)
    return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload


def measure(path: Path) -> Extent:
    """Read through a file of records and find its end.

    Raises ``SourceError`` when it cannot be read, or a record before the last is damaged.
    """
    with _opened(path) as file:
        size = file.seek(0, 2)
        file.seek(0)
        count = at = 0
        while (payload := _next_payload(file, path, size - at)) is not None:
            count, at = count + 1, at + _HEAD.size + len(payload)
    return Extent(records=count, whole_bytes=at, torn_bytes=size - at)


def read_records(path: Path, whole_bytes: int) -> Iterator[Record]:
    """The records in the first ``whole_bytes``, in the order in which they were written.

    Raises ``SourceError`` when the file cannot be read or is damaged.
    """
    decoder = msgspec.msgpack.Decoder(Record)
    with _opened(path) as file:
        at = 0
        while at < whole_bytes and (payload := _next_payload(file, path, whole_bytes - at)) is not None:
            at += _HEAD.size + len(payload)
            try:
                yield decoder.decode(payload)
            except msgspec.DecodeError as error:
                raise damaged(path, str(error)) from error


def store(found: Detections | Classification) -> tuple[dict[str, StoredArray], StoredMasks | None]:
    """Arrays and masks as a record holds them."""
    named = {name: getattr(found, name, None) for name in _DTYPES}
    arrays = {name: _store_array(name, array) for name, array in named.items() if array is not None}
    mask = found.mask if isinstance(found, Detections) else None
    return arrays, None if mask is None else _store_masks(mask)


def restore(record: Record, path: Path) -> Detections | Classification:
    """What a record says was found; ``path`` is named in errors. Raises ``SourceError``: the record makes no sense."""
    try:
        arrays: dict[str, Any] = {name: _restore_array(name, stored) for name, stored in record.arrays.items()}
        if record.is_classification:
            return Classification(**arrays)
        return Detections(**arrays, mask=None if record.masks is None else _restore_masks(record.masks))
    except (ValueError, TypeError, KeyError, SpecMismatch) as error:
        raise damaged(path, f"frame {record.index}: {error}") from error


def _store_array(name: str, array: npt.NDArray[Any]) -> StoredArray:
    return StoredArray(shape=array.shape, data=np.ascontiguousarray(array, _DTYPES[name]).tobytes())


def _restore_array(name: str, stored: StoredArray) -> npt.NDArray[Any]:
    dtype = np.dtype(_DTYPES[name])
    if prod(stored.shape) * dtype.itemsize != len(stored.data) or min(stored.shape, default=0) < 0:
        raise ValueError(f"{name} has {len(stored.data)} bytes for the shape {stored.shape}")
    # A copy in the machine's own byte order, which may be written to as what a model returns.
    return np.frombuffer(stored.data, dtype).reshape(stored.shape).astype(dtype.newbyteorder("="))


def _store_masks(mask: BoolArray) -> StoredMasks:
    counts = [np.array(run_lengths(one)["counts"], "<u4").tobytes() for one in mask]
    return StoredMasks(height=mask.shape[1], width=mask.shape[2], counts=tuple(counts))


def _restore_masks(stored: StoredMasks) -> BoolArray:
    pixels = stored.height * stored.width
    if min(stored.height, stored.width) < 0 or pixels * len(stored.counts) > _MOST_MASK_PIXELS:
        raise ValueError(f"{len(stored.counts)} masks of {stored.width} x {stored.height} pixels")
    full = np.zeros((len(stored.counts), stored.height, stored.width), np.bool_)
    for canvas, data in zip(full, stored.counts, strict=True):
        counts = np.frombuffer(data, "<u4").astype(np.int64)
        if counts.sum() != pixels:
            raise ValueError("the runs of a mask do not fill it")
        canvas[...] = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(stored.width, stored.height).T
    return full


def _next_payload(file: BinaryIO, path: Path, left: int) -> bytes | None:
    """The next one, or ``None`` where the whole records end: a part of one, or zeros that a dead machine left."""
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    length, checksum = _HEAD.unpack(head)
    rest = left - _HEAD.size
    if not 0 < length <= rest:
        return None
    payload = file.read(length)
    if zlib.crc32(payload) == checksum:
        return payload
    if length == rest:
        return None
    raise damaged(path, f"the checksum of the record before byte {file.tell()} is wrong")


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}.", "Is the recording complete?") from error


def damaged(path: Path, what: str) -> SourceError:
    """The error for a file or folder that holds something else than it should."""
    return SourceError(f"{path} is damaged: {what}.", "Restore it from a copy.", code="codec")
