"""What the camera encoded, on a stream socket of its own from the worker to its parent.

Each message is the length of its head, the head, and the bytes that it announces. The worker never waits for it: what finds no room
is left out up to the next key frame. The parent believes nothing: lengths are bounded, and heads are read strictly.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Annotated

import msgspec

from edgecv.media.packets import Codec, Packet, PacketStream

_LOG = logging.getLogger(__name__)

_MOST_WAITING = 16 << 20  # bytes in the worker: seconds of a camera with a high rate
_GATHER_S = 0.2  # packets go in batches: two wake-ups for five images, not for each
_LENGTH_BYTES = 4
_MOST_HEAD = 16 << 10
_CHUNK = 256 << 10
_AT_ONCE = 4 << 20  # bytes that one `receive` takes; frames wait meanwhile

_Side = Annotated[int, msgspec.Meta(ge=1, le=16384)]
_Time = Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)]


class StreamHead(msgspec.Struct, frozen=True, tag=True):
    """The packets that follow are of this stream."""

    codec: Codec
    width: _Side
    height: _Side
    parameters: Annotated[bytes, msgspec.Meta(max_length=8192)]


class PacketHead(msgspec.Struct, frozen=True, tag=True):
    """One packet, whose ``size`` bytes follow."""

    size: Annotated[int, msgspec.Meta(ge=1, le=32 << 20)]
    pts: _Time
    dts: _Time | None
    is_key: bool
    captured_ns: _Time
    scene_ns: _Time


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(StreamHead | PacketHead).decode


class PacketSender:
    """The worker's end; it has a thread only once packets are wanted.

    Attributes:
        is_wanted: Whether the parent asked for packets, and did not hang up.
    """

    def __init__(self) -> None:
        self.is_wanted = False
        self._changed = threading.Condition()
        self._waiting: deque[Packet] = deque()
        self._bytes = 0
        self._is_skipping = True  # until the next key frame
        self._connection: socket.socket | None = None
        self._is_over = False  # the parent hung up

    def begin(self, connection: socket.socket) -> None:
        """Send what comes from now on, beginning with a key frame; where it went before, nothing more is sent."""
        with self._changed:
            if self._connection is not None:
                self._forget()
            self._connection, self._is_over, self.is_wanted = connection, False, True
            self._changed.notify_all()
        threading.Thread(target=self._run, args=(connection,), name="edgecv-packets", daemon=True).start()

    def put(self, packet: Packet) -> None:
        """Let a packet be sent soon; never waits. Where there is no room it is left out, and all up to the next key frame."""
        with self._changed:
            if self._is_over:
                return
            fits = self._bytes + len(packet.data) <= _MOST_WAITING
            self._is_skipping = not fits or (self._is_skipping and not packet.is_key)
            if not self._is_skipping:
                self._waiting.append(packet)
                self._bytes += len(packet.data)
                self._changed.notify()

    def close(self) -> None:
        """Send nothing more; a second call does nothing."""
        with self._changed:
            self._forget()
            self._changed.notify_all()

    def _run(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):  # the parent hung up
            told: PacketStream | None = None
            while batch := self._batch(connection):
                connection.sendall(b"".join(_said(batch, told)))
                told = batch[-1].stream
                self._sent(batch, connection)
        with self._changed:
            if self._connection is connection:
                self._forget()

    def _batch(self, connection: socket.socket) -> list[Packet]:
        """What came in a while; nothing once packets go elsewhere."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._connection is not connection)
        time.sleep(_GATHER_S)
        with self._changed:
            if self._connection is not connection:
                return []
            batch = list(self._waiting)
            self._waiting.clear()
            return batch

    def _sent(self, batch: list[Packet], connection: socket.socket) -> None:
        """Make room: what is on its way takes memory, too."""
        with self._changed:
            if self._connection is connection:
                self._bytes -= sum(len(packet.data) for packet in batch)

    def _forget(self) -> None:
        """Nobody wants what waits, nor what comes."""
        self._waiting.clear()
        self._bytes, self._is_skipping, self._connection = 0, True, None
        self.is_wanted, self._is_over = False, True


class PacketReceiver:
    """The parent's end.

    Attributes:
        is_over: Whether nothing will come any more: the worker is gone, or said what makes no sense.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._data = bytearray()
        self._head: PacketHead | None = None
        self._stream: PacketStream | None = None
        self.is_over = False

    @classmethod
    def pair(cls) -> tuple[PacketReceiver, socket.socket]:
        """A receiver, and the other end for its worker."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        return cls(ours), theirs

    @property
    def descriptor(self) -> int:
        """The descriptor that can be read when something came."""
        return self._connection.fileno()

    def receive(self) -> Iterator[Packet]:
        """Every packet that is whole by now; never waits."""
        taken = 0
        while not self.is_over and taken < _AT_ONCE:
            try:
                data = self._connection.recv(_CHUNK)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            self.is_over = not data
            taken += len(data)
            self._data += data
            try:
                yield from self._parsed()
            except ValueError as error:  # msgspec's errors are some
                _LOG.warning(
                    "A camera's process sent packets that make no sense, and they are kept no longer: %s", error
                )
                self.is_over = True

    def close(self) -> None:
        """Hang up; the worker then sends no more."""
        self.is_over = True
        self._connection.close()

    def _parsed(self) -> Iterator[Packet]:
        while (self._head or self._read_head()) and self._head is not None:
            head = self._head
            if len(self._data) < head.size:
                return
            data = bytes(self._data[: head.size])
            del self._data[: head.size]
            self._head = None
            if self._stream is None:
                raise ValueError("a packet of no stream")
            yield Packet(
                stream=self._stream,
                data=data,
                pts=head.pts,
                dts=head.dts,
                is_key=head.is_key,
                captured_ns=head.captured_ns,
                scene_ns=head.scene_ns,
            )

    def _read_head(self) -> bool:
        """Read heads up to that of a packet; ``False`` where its end did not come yet."""
        while len(self._data) >= _LENGTH_BYTES:
            length = int.from_bytes(self._data[:_LENGTH_BYTES], "big")
            if length > _MOST_HEAD:
                raise ValueError(f"a head of {length} bytes")
            if len(self._data) < _LENGTH_BYTES + length:
                return False
            said = _decode(bytes(self._data[_LENGTH_BYTES : _LENGTH_BYTES + length]))
            del self._data[: _LENGTH_BYTES + length]
            if isinstance(said, PacketHead):
                self._head = said
                return True
            self._stream = PacketStream(
                codec=said.codec, width=said.width, height=said.height, parameters=said.parameters
            )
        return False


def _said(batch: list[Packet], told: PacketStream | None) -> Iterator[bytes]:
    """The messages of packets, after those of the stream ``told``."""
    for packet in batch:
        if packet.stream is not told:
            stream = told = packet.stream
            yield _headed(StreamHead(stream.codec, stream.width, stream.height, stream.parameters))
        yield _headed(
            PacketHead(len(packet.data), packet.pts, packet.dts, packet.is_key, packet.captured_ns, packet.scene_ns)
        )
        yield packet.data


def _headed(head: StreamHead | PacketHead) -> bytes:
    data = _encode(head)
    return len(data).to_bytes(_LENGTH_BYTES, "big") + data
