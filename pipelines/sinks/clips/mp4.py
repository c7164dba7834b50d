"""``Mp4Writer``: encoded images into an MP4 that can be read at every moment of its making.

While it grows it is a fragmented MP4: each second stands there whole, with its own index, whoever kills the process. At the end the
index of the whole file is appended, and 16 bytes at its beginning are overwritten, by which fragments become plain data: from then
on it is an ordinary MP4, whose length players know and in which browsers seek. Nothing is copied or encoded again.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from edgecv._internal.private_files import create_private, write_all
from edgecv.errors import SinkError
from edgecv.media.annex_b import length_prefixed, parameter_sets
from edgecv.media.packets import TICKS_PER_S, Packet, PacketStream
from edgecv.pipelines.sinks.clips.boxes import Sample, fragmented_moov, ftyp, moof, whole_moov

_FRAGMENT = TICKS_PER_S  # a kill loses at most about a second
_MOST_FRAGMENT_BYTES = 4 << 20
_LAST = TICKS_PER_S // 25  # how long the last image is shown, where nothing says how long the others were
_FREE = struct.pack(">I4s8x", 16, b"free")  # becomes the head of one large `mdat`


class Mp4Writer:
    """One clip of one stream of H.264 or H.265; packets of before its first key frame are left out."""

    def __init__(self, path: Path, stream: PacketStream) -> None:
        """Make the file, for its owner alone. Raises ``SinkError``: it cannot be made."""
        self.path, self._stream, self._parameters = path, stream, stream.parameters
        self._waiting: list[tuple[Packet, bytes, int]] = []  # with their time of decoding
        self._samples: list[Sample] = []
        self._size = self._fragments = self._decoded = 0
        self._zero = self._shown = 0  # of the first image: time of decoding, and from there to showing
        self._last: int | None = None
        self._file = self._made(path)

    @property
    def is_empty(self) -> bool:
        """Whether no image came yet."""
        return self._last is None

    def write(self, packet: Packet) -> None:
        """Append one image. Raises ``SinkError``: it cannot be written, or the camera's parameter sets are not known."""
        if self._last is None and not self._begin(packet):
            return
        if packet.pts < self._zero + self._shown:
            return  # it is shown before the first key frame, of which it would need an earlier one
        dts = self._next(packet.pts if packet.dts is None else packet.dts)
        is_due = dts - (self._waiting[0][2] if self._waiting else dts) >= _FRAGMENT or packet.is_key
        if self._waiting and (is_due or sum(len(one[1]) for one in self._waiting) > _MOST_FRAGMENT_BYTES):
            self._flush(dts)
        self._waiting.append((packet, length_prefixed(packet.data), dts))
        self._last = dts

    def close(self) -> None:
        """Write the rest and the index of the whole. Raises ``SinkError``: it cannot be written."""
        if self._file < 0:
            return
        try:
            if self._waiting:
                self._flush(None)
            index = whole_moov(self._stream, self._parameters, self._samples)
            start = len(ftyp())
            self._put(index)
            os.fsync(self._file)
            # Of 16 bytes none can be written without the others: they lie in one page of memory, and in one block of the disk.
            os.pwrite(self._file, struct.pack(">I4sQ", 1, b"mdat", self._size - len(index) - start), start)
            os.fsync(self._file)
        except OSError as error:
            raise self._failed(error) from error
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Let go of the file as it is."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _begin(self, packet: Packet) -> bool:
        if not packet.is_key:
            return False
        self._parameters = self._parameters or parameter_sets(self._stream.codec, packet.data)
        head = fragmented_moov(self._stream, self._parameters)
        self._zero = packet.pts if packet.dts is None else packet.dts
        self._shown = packet.pts - self._zero
        self._write(ftyp() + _FREE + head)
        return True

    def _next(self, dts: int) -> int:
        """A time of decoding that grows, whatever the camera says."""
        if self._last is None:
            return self._zero
        return max(dts, self._last + 1)

    def _flush(self, until: int | None) -> None:
        """Write what waits as a fragment; ``until``: when the next image is decoded."""
        times = [dts for _, _, dts in self._waiting]
        if until is None:
            until = times[-1] + (
                times[-1] - times[-2] if len(times) > 1 else self._samples[-1].duration if self._samples else _LAST
            )
        rows = [
            Sample(0, len(data), following - dts, packet.pts - dts - self._shown, packet.is_key)
            for (packet, data, dts), following in zip(self._waiting, [*times[1:], until], strict=True)
        ]
        body = b"".join(data for _, data, _ in self._waiting)
        self._fragments += 1
        head = moof(self._fragments, times[0] - self._zero, rows)
        at = self._size + len(head) + 8
        self._write(head + struct.pack(">I4s", 8 + len(body), b"mdat") + body)
        for row in rows:
            self._samples.append(Sample(at, row.size, row.duration, row.shift, row.is_key))
            at += row.size
        self._waiting.clear()

    def _write(self, data: bytes) -> None:
        try:
            self._put(data)
        except OSError as error:
            raise self._failed(error) from error

    def _put(self, data: bytes) -> None:
        write_all(self._file, data)
        self._size += len(data)

    def _made(self, path: Path) -> int:
        try:
            return create_private(path)
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> SinkError:
        return SinkError(f"{self.path} cannot be written: {error.strerror}.", "Is the disk full?")


def mended(path: Path) -> bool:
    """Cut off what a process that was killed left unfinished; ``False`` where nothing is left to be seen, or the disk refuses."""
    try:
        with path.open("r+b") as file:
            size = os.fstat(file.fileno()).st_size
            whole = at = 0
            is_fragmented = has_data = False
            while at < size:
                file.seek(at)
                length, name = _head(file.read(16))
                if length < 8 or at + length > size:
                    break
                at += length
                is_fragmented = is_fragmented or name == b"moof"
                has_data = has_data or name == b"mdat"
                if name == b"mdat" and is_fragmented:
                    whole = at
                elif name == b"moov" and has_data and not is_fragmented:
                    return True  # it was whole, but for its name
            file.truncate(whole)
            os.fsync(file.fileno())
    except OSError:
        return False
    return whole > 0


def _head(data: bytes) -> tuple[int, bytes]:
    """Length and name of a box; a length of 0 for what is none."""
    if len(data) < 8:
        return 0, b""
    length, name = struct.unpack(">I4s", data[:8])
    if length == 1 and len(data) == 16:
        length = int.from_bytes(data[8:], "big")
    return length, name
