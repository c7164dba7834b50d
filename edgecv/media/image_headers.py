"""Size of an image, read from its header before anything is decoded: a small file can claim an image that fills the memory.

Read are PNG, JPEG, BMP, WebP, TIFF, PNM and GIF. What has another header is refused: its size would be known only after decoding.
"""

from __future__ import annotations

import itertools
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from edgecv.errors import ConfigError, SourceError

DEFAULT_MEGAPIXELS = 64.0
_MOST_MEGAPIXELS = 1024.0  # OpenCV decodes no more (2^30 pixels)
_BYTES_PER_PIXEL = 4.0  # what a pixel takes in a usual image; more counts as more pixels

# JPEG (ITU-T T.81, table B.1): start of frame is C0 to CF without DHT (C4), JPG (C8) and DAC (CC).
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})  # TEM, RST0 to RST7 and SOI have no length
_MOST_SEGMENTS = 10_000  # of a JPEG or WebP before the size is known; a file with more was made to keep the reader busy
_MOST_PNG_CHUNKS = 200_000  # of 8 kB in usual files
_CHUNK = 65_536
_MOST_DIGITS = 9  # of a number in a PNM header
# TIFF 6.0: tags and the types that hold a whole number, signed ones too, since libtiff takes them.
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_BITS, _TIFF_SAMPLES, _TIFF_TILE_WIDTH, _TIFF_TILE_HEIGHT = 256, 257, 258, 277, 322, 323
_TIFF_READ = frozenset({_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_BITS, _TIFF_SAMPLES, _TIFF_TILE_WIDTH, _TIFF_TILE_HEIGHT})
_TIFF_NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 16: "Q", 17: "q"}
_MOST_TIFF_ENTRIES = 4096


@dataclass(slots=True)
class _Limit:
    megapixels: float = DEFAULT_MEGAPIXELS


# The whole process has one limit (`set_max_megapixels`): images are read in many places, far from the command that asks.
_LIMIT = _Limit()


@dataclass(frozen=True, slots=True)
class _Header:
    """What a header says: the image's size, and the pixels a decoder may hold at once (a TIFF's tiles can be larger)."""

    width: int
    height: int
    held_pixels: float = 0.0


def image_size(data: bytes | bytearray | memoryview) -> tuple[int, int]:
    """Width and height in pixels that the header of an encoded image states; nothing is decoded.

    Raises:
        SourceError: the header is damaged or of a format that is not read (code ``codec``).
    """
    header = _header(memoryview(data).cast("B"))
    return header.width, header.height


def check_image_size(
    data: bytes | bytearray | memoryview, what: str = "The image", max_megapixels: float | None = None
) -> tuple[int, int]:
    """Width and height in pixels of an encoded image, unless it is too large to decode.

    ``what`` is what messages call it; ``max_megapixels`` is by default the limit of the process, in millions of pixels.

    Raises:
        SourceError: it is larger, or its header cannot be read (code ``codec``).
    """
    try:
        header = _header(memoryview(data).cast("B"))
    except SourceError as error:
        raise SourceError(f"{what} cannot be decoded: {error.message}", error.hint, code=error.code) from error
    check_pixels(header.width, header.height, what, max_megapixels)
    if header.held_pixels:
        _check_limit(header.held_pixels, f"{what} takes the memory of {header.held_pixels:.0f} pixels", max_megapixels)
    return header.width, header.height


def check_pixels(width: int, height: int, what: str, max_megapixels: float | None = None) -> None:
    """Refuse an image of ``width`` x ``height`` pixels above the limit; for sizes that come from elsewhere than a header.

    Raises:
        SourceError: it is too large (code ``codec``).
    """
    _check_limit(width * height, f"{what} has {width} x {height} pixels", max_megapixels)


def _check_limit(pixels: float, what: str, max_megapixels: float | None) -> None:
    limit = _LIMIT.megapixels if max_megapixels is None else max_megapixels
    if pixels > limit * 1e6:
        raise too_many_pixels(what, limit)


def too_many_pixels(what: str, max_megapixels: float | None = None) -> SourceError:
    """The error for an image above the limit, whose size may be unknown."""
    limit = _LIMIT.megapixels if max_megapixels is None else max_megapixels
    return SourceError(
        f"{what}: above the limit of {limit:g} megapixels.",
        "It may be made to fill the memory. If you trust it, raise the limit with --max-megapixels.",
        code="codec",
    )


def max_megapixels() -> float:
    """The limit of this process, in millions of pixels."""
    return _LIMIT.megapixels


def set_max_megapixels(megapixels: float) -> None:
    """Set the largest image that this process decodes, in millions of pixels; 64 by default.

    Raises:
        ConfigError: it is not above 0 and at most 1024.
    """
    if not 0 < megapixels <= _MOST_MEGAPIXELS:
        raise ConfigError(
            f"The largest image must be above 0 and at most {_MOST_MEGAPIXELS:g} megapixels, not {megapixels:g}."
        )
    _LIMIT.megapixels = megapixels


def _header(data: memoryview) -> _Header:
    try:
        header = _read(data)
    except (struct.error, IndexError, ValueError, OverflowError) as error:
        raise SourceError("its header is damaged or cut short.", "Copy it again.", code="codec") from error
    if header.width < 1 or header.height < 1:
        raise SourceError("its header states no size.", "It is damaged.", code="codec")
    return header


def _read(data: memoryview) -> _Header:
    start = bytes(data[:16])
    for magic, reader in _READERS.items():
        if magic.match(start):
            return reader(data)
    raise SourceError(
        "it has no header of an image that is read.", "Read are PNG, JPEG, BMP, WebP, TIFF, PNM and GIF.", code="codec"
    )


def _png(data: memoryview) -> _Header:
    """Size in IHDR; no chunk may claim more than the file holds, since OpenCV takes that memory before it reads (2 GB of 6 kB)."""
    if bytes(data[12:16]) != b"IHDR":
        raise ValueError("no IHDR")
    at = 8
    for _ in range(_MOST_PNG_CHUNKS):
        (length,) = struct.unpack_from(">I", data, at)
        if at + 12 + length > len(data):
            raise ValueError("a chunk is cut short")
        if bytes(data[at + 4 : at + 8]) == b"IEND":
            return _Header(*struct.unpack_from(">II", data, 16))
        at += 12 + length
    raise ValueError("too many chunks")


def _jpeg(data: memoryview) -> _Header:
    """The first start of frame, found as libjpeg finds it: bytes between segments that are no marker are skipped."""
    at = 2
    for _ in range(_MOST_SEGMENTS):
        at = _find(data, 0xFF, at)
        while data[at] == 0xFF:
            at += 1
        marker = data[at]
        at += 1
        if marker in _FRAME_MARKERS:
            height, width = struct.unpack_from(">HH", data, at + 3)
            return _Header(width, height)
        if marker in (0xD9, 0xDA):
            raise ValueError("image data without a frame")
        if marker and marker not in _BARE_MARKERS:
            (length,) = struct.unpack_from(">H", data, at)
            at += max(length, 2)
    raise ValueError("too many segments")


def _find(data: memoryview, byte: int, at: int) -> int:
    while at < len(data):
        found = bytes(data[at : at + _CHUNK]).find(byte)
        if found >= 0:
            return at + found
        at += _CHUNK
    raise ValueError("no marker")


def _bmp(data: memoryview) -> _Header:
    (header_size,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header_size == 12 else "<ii", data, 18)
    return _Header(abs(width), abs(height))


def _webp(data: memoryview) -> _Header:
    """The largest size that any of its chunks states: the canvas, the image, or a frame of an animation."""
    sizes = list(itertools.islice(_webp_sizes(data, 12, len(data)), _MOST_SEGMENTS))
    if not 0 < len(sizes) < _MOST_SEGMENTS:
        raise ValueError("no image chunk, or too many")
    return _Header(max(width for width, _ in sizes), max(height for _, height in sizes))


def _webp_sizes(data: memoryview, at: int, end: int) -> Iterator[tuple[int, int]]:
    while at + 8 <= end:
        kind, length = bytes(data[at : at + 4]), struct.unpack_from("<I", data, at + 4)[0]
        body = at + 8
        if kind == b"VP8X":
            yield _u24(data, body + 4) + 1, _u24(data, body + 7) + 1
        elif kind == b"ANMF":
            yield _u24(data, body + 6) + 1, _u24(data, body + 9) + 1
            yield from _webp_sizes(data, body + 16, min(end, body + length))
        elif kind == b"VP8 ":
            width, height = struct.unpack_from("<HH", data, body + 6)
            yield width & 0x3FFF, height & 0x3FFF
        elif kind == b"VP8L":
            (bits,) = struct.unpack_from("<I", data, body + 1)
            yield (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        else:
            yield 0, 0  # counts as a chunk
        at = body + length + length % 2


def _u24(data: memoryview, at: int) -> int:
    return int.from_bytes(data[at : at + 3], "little")


def _tiff(data: memoryview) -> _Header:
    """Size in the first directory; tiles larger than the image and deep pixels count for what a decoder holds."""
    order = "<" if data[0] == 0x49 else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    at = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
    count = struct.unpack_from(order + ("Q" if big else "H"), data, at)[0]
    if count > _MOST_TIFF_ENTRIES:
        raise ValueError("too many entries")
    first, step = (at + 8, 20) if big else (at + 2, 12)
    tags: dict[int, int] = {}
    for number in range(count):
        tag, value = _tiff_entry(data, first + number * step, order, big)
        tags[tag] = max(value, tags.get(tag, 0))
    width, height = tags.get(_TIFF_WIDTH, 0), tags.get(_TIFF_HEIGHT, 0)
    bytes_per_pixel = max(1, tags.get(_TIFF_SAMPLES, 1)) * max(1, tags.get(_TIFF_BITS, 1)) / 8
    piece = max(width, tags.get(_TIFF_TILE_WIDTH, 0)) * max(height, tags.get(_TIFF_TILE_HEIGHT, 0))
    return _Header(width, height, piece * max(1.0, bytes_per_pixel / _BYTES_PER_PIXEL))


def _tiff_entry(data: memoryview, at: int, order: str, big: bool) -> tuple[int, int]:
    """Tag and its first value; 0 for values that are no whole number."""
    tag, kind, count = struct.unpack_from(order + ("HHQ" if big else "HHI"), data, at)
    code = _TIFF_NUMBERS.get(kind)
    if code is None or tag not in _TIFF_READ:
        return tag, 0
    place, room = (at + 12, 8) if big else (at + 8, 4)
    if count * struct.calcsize(code) > room:
        place = struct.unpack_from(order + ("Q" if big else "I"), data, place)[0]
    return tag, abs(struct.unpack_from(order + code, data, place)[0])


def _pnm(data: memoryview) -> _Header:
    """Width and height are the first two words; a ``#`` begins a comment to the end of its line."""
    head = re.sub(rb"#[^\r\n]*", b" ", bytes(data[2:_CHUNK]))
    words = head.split(maxsplit=2)[:2]
    if not all(word.isdigit() and len(word) <= _MOST_DIGITS for word in words):
        raise ValueError("no numbers")
    width, height = (int(word) for word in words)
    return _Header(width, height)


def _gif(data: memoryview) -> _Header:
    return _Header(*struct.unpack_from("<HH", data, 6))


_READERS: Mapping[re.Pattern[bytes], Callable[[memoryview], _Header]] = MappingProxyType(
    {
        re.compile(rb"\x89PNG\r\n\x1a\n", re.DOTALL): _png,
        re.compile(rb"\xff\xd8", re.DOTALL): _jpeg,
        re.compile(rb"BM", re.DOTALL): _bmp,
        re.compile(rb"RIFF....WEBP", re.DOTALL): _webp,
        re.compile(rb"II[*+]\0|MM\0[*+]", re.DOTALL): _tiff,
        re.compile(rb"P[1-6]\s", re.DOTALL): _pnm,
        re.compile(rb"GIF8[79]a", re.DOTALL): _gif,
    }
)
