"""The boxes of an MP4 with one video track (ISO/IEC 14496-12), from and to no other library."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from edgecv.media.annex_b import decoder_configuration
from edgecv.media.packets import TICKS_PER_S, PacketStream

_MATRIX = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
_NOT_KEY, _KEY = 0x01010000, 0x02000000  # sample flags: depends on others and is no sync sample; depends on none
_ENTRIES = {"h264": (b"avc1", b"avcC"), "hevc": (b"hvc1", b"hvcC")}


@dataclass(frozen=True, slots=True)
class Sample:
    """One image in the file; times in ``TICKS_PER_S``."""

    offset: int
    size: int
    duration: int
    shift: int  # from the time of decoding to the time of showing
    is_key: bool


def box(name: bytes, *contents: bytes) -> bytes:
    """A box of that name."""
    body = b"".join(contents)
    return struct.pack(">I", 8 + len(body)) + name + body


def ftyp() -> bytes:
    """The first box, which says that the file is an MP4."""
    return box(b"ftyp", b"isom", struct.pack(">I", 0x200), b"isomiso2iso5avc1mp41")


def fragmented_moov(stream: PacketStream, parameters: bytes) -> bytes:
    """The head of a file whose images follow in fragments."""
    tables = _tables(stream, parameters, ())
    extends = box(b"mvex", _full(b"trex", struct.pack(">5I", 1, 1, 0, 0, 0)))
    return box(b"moov", _mvhd(0), _trak(stream, tables, 0), extends)


def whole_moov(stream: PacketStream, parameters: bytes, samples: Sequence[Sample]) -> bytes:
    """The index of a file that is whole: what every player seeks by."""
    duration = sum(sample.duration for sample in samples)
    tables = _tables(stream, parameters, samples)
    return box(b"moov", _mvhd(duration), _trak(stream, tables, duration))


def moof(number: int, start: int, samples: Sequence[Sample]) -> bytes:
    """The head of a fragment that begins at the time ``start``; its images follow in ``mdat``."""
    rows = b"".join(
        struct.pack(">IIIi", one.duration, one.size, _KEY if one.is_key else _NOT_KEY, one.shift) for one in samples
    )
    # Each row has duration, size, flags and shift; the data begins after this box and the head of `mdat`.
    length = 8 + 16 + 8 + 16 + 20 + 20 + len(rows)
    run = _full(b"trun", struct.pack(">Ii", len(samples), length + 8), rows, version=1, flags=0x000F01)
    head = _full(b"tfhd", struct.pack(">I", 1), flags=0x020000)
    return box(
        b"moof",
        _full(b"mfhd", struct.pack(">I", number)),
        box(b"traf", head, _full(b"tfdt", struct.pack(">Q", start), version=1), run),
    )


def _full(name: bytes, *contents: bytes, version: int = 0, flags: int = 0) -> bytes:
    return box(name, struct.pack(">I", version << 24 | flags), *contents)


def _mvhd(duration: int) -> bytes:
    head = struct.pack(">QQIQ", 0, 0, TICKS_PER_S, duration)
    return _full(
        b"mvhd", head, struct.pack(">IH10x", 0x10000, 0x100), _MATRIX, bytes(24), struct.pack(">I", 2), version=1
    )


def _trak(stream: PacketStream, tables: bytes, duration: int) -> bytes:
    size = struct.pack(">II", stream.width << 16, stream.height << 16)
    tkhd = _full(b"tkhd", struct.pack(">QQIIQ", 0, 0, 1, 0, duration), bytes(16), _MATRIX, size, version=1, flags=3)
    mdhd = _full(b"mdhd", struct.pack(">QQIQHH", 0, 0, TICKS_PER_S, duration, 0x55C4, 0), version=1)
    hdlr = _full(b"hdlr", struct.pack(">I4s12x", 0, b"vide"), b"video\x00")
    where = box(b"dinf", _full(b"dref", struct.pack(">I", 1), _full(b"url ", flags=1)))
    minf = box(b"minf", _full(b"vmhd", bytes(8), flags=1), where, tables)
    return box(b"trak", tkhd, box(b"mdia", mdhd, hdlr, minf))


def _tables(stream: PacketStream, parameters: bytes, samples: Sequence[Sample]) -> bytes:
    durations = [(len(list(run)), value) for value, run in groupby(sample.duration for sample in samples)]
    shifts = [(len(list(run)), value) for value, run in groupby(sample.shift for sample in samples)]
    keys = [at for at, sample in enumerate(samples, 1) if sample.is_key]
    sizes = [sample.size for sample in samples]
    offsets = [sample.offset for sample in samples]
    return box(
        b"stbl",
        _full(b"stsd", struct.pack(">I", 1), _entry(stream, parameters)),
        _full(b"stts", struct.pack(">I", len(durations)), *(struct.pack(">II", *row) for row in durations)),
        _full(b"ctts", struct.pack(">I", len(shifts)), *(struct.pack(">Ii", *row) for row in shifts), version=1)
        if any(sample.shift for sample in samples)
        else b"",
        _full(b"stss", struct.pack(f">{len(keys) + 1}I", len(keys), *keys)) if samples else b"",
        # One image a chunk: then each has an offset of its own.
        _full(b"stsc", *((struct.pack(">4I", 1, 1, 1, 1),) if samples else (struct.pack(">I", 0),))),
        _full(b"stsz", struct.pack(f">{len(sizes) + 2}I", 0, len(sizes), *sizes)),
        _full(b"co64", struct.pack(f">I{len(offsets)}Q", len(offsets), *offsets)),
    )


def _entry(stream: PacketStream, parameters: bytes) -> bytes:
    name, configuration = _ENTRIES[stream.codec]
    head = struct.pack(">6xH16xHHIIIH32sHh", 1, stream.width, stream.height, 0x480000, 0x480000, 0, 1, b"", 24, -1)
    return box(name, head, box(configuration, decoder_configuration(stream.codec, parameters)))
