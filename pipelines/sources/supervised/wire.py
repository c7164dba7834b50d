"""What the worker and its parent say to each other: one message per packet of a Unix socket.

The socket is a pair of type ``SOCK_SEQPACKET``: packets stay whole, and each side sees when the other is gone.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import TypeVar

import msgspec

MAX_BYTES = 65536  # a message is far smaller: errors are cut to MAX_TEXT
MAX_TEXT = 2000

T = TypeVar("T")


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """To the worker, first of all, as JSON: what to open. It may hold credentials, so it is never an argument."""

    target: str
    scheme: str
    path: str
    options: dict[str, str]
    separator: str
    fps: float
    sys_path: list[str]
    memory_bytes: int
    max_megapixels: float


class Release(msgspec.Struct, frozen=True, tag=True):
    """To the worker: this slot may be written again."""

    slot: int


class KeepPackets(msgspec.Struct, frozen=True, tag=True):
    """To the worker, with a descriptor: what the camera encoded is wanted too, on that socket (``packet_line``)."""


class Ring(msgspec.Struct, frozen=True, tag=True):
    """To the parent, with a descriptor: frames now come through this memory."""

    slots: int
    slot_bytes: int


class Opened(msgspec.Struct, frozen=True, tag=True):
    """To the parent: the camera answered; it announces so many frames per second (0.0: unknown)."""

    fps: float


class ImageMessage(msgspec.Struct, frozen=True, tag=True):
    """To the parent: a whole frame stands in a slot, which is the parent's until it releases it."""

    slot: int
    number: int
    height: int
    width: int
    captured_ns: int
    monotonic_ns: int


class Alive(msgspec.Struct, frozen=True, tag=True):
    """To the parent: frames arrive, but more often than was asked for."""


class Ended(msgspec.Struct, frozen=True, tag=True):
    """To the parent: the source came to its end; trying again makes no sense."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """To the parent: the source broke; ``final`` when trying again hardly mends it."""

    code: str
    message: str
    hint: str
    final: bool = False


def out_of_memory(name: str, memory_bytes: int) -> Failed:
    """A worker reached its limit; it is ended, and the others do not notice."""
    return Failed(
        "memory",
        f"{name} needs more memory than {memory_bytes // 10**6} MB to read: the process that did is ended.",
        "It may be sent something made to fill the memory. If you trust the camera, allow more: max_memory_mb=",
    )


FromWorker = Ring | Opened | ImageMessage | Alive | Ended | Failed

encode = msgspec.msgpack.Encoder().encode
decode_from_worker = msgspec.msgpack.Decoder(FromWorker).decode
decode_from_parent = msgspec.msgpack.Decoder(Release | KeepPackets).decode


def receive(connection: socket.socket) -> Iterator[tuple[FromWorker, int | None]]:
    """Every message that waits on a non-blocking socket, each with the descriptor that came with it.

    Raises ``EOFError`` when the worker is gone, and everything it said was read.
    """
    while True:
        try:
            data, descriptors, _, _ = socket.recv_fds(connection, MAX_BYTES, 1)
        except BlockingIOError:
            return
        except OSError as error:
            raise EOFError from error
        if not data:
            raise EOFError
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        yield decode_from_worker(data), descriptors[0] if descriptors else None
