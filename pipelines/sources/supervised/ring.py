"""Frames in shared memory without a name: nothing is left behind, whoever is killed.

A slot belongs to one side at a time. It goes to the parent with an ``ImageMessage`` and comes back with a ``Release``; both
travel through the kernel, so whoever holds a slot sees all of its bytes: no frame can be torn, on any processor.
"""

from __future__ import annotations

import mmap
import os
import socket
import threading

import numpy as np

from edgecv.pipelines.sources.supervised.wire import ImageMessage, Ring, encode
from edgecv.results import Frame, Image

SLOTS = 3  # one is newest, one is being copied, one is being written
_PAGE = mmap.PAGESIZE
_CHANNELS = 3


class RingWriter:
    """The worker's end. A frame that finds no free slot waits for one; a newer frame takes its place."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Condition()
        self._memory: mmap.mmap | None = None
        self._slot_bytes = 0
        self._free: list[int] = []
        self._first_slot = 0
        self._waiting: tuple[int, Frame] | None = None

    def put(self, number: int, frame: Frame) -> None:
        """Hand a frame over, now or as soon as a slot is free."""
        with self._lock:
            if frame.image.nbytes > self._slot_bytes:
                self._grow(frame.image.nbytes)
            self._waiting = (number, frame)
            self._send_waiting()

    def release(self, slot: int) -> None:
        """Take a slot back; one of a smaller ring that was given up says nothing any more."""
        with self._lock:
            if slot >= self._first_slot:
                self._free.append(slot)
                self._send_waiting()

    def flush(self, timeout_s: float) -> None:
        """Wait until the last frame found a slot, or time is up."""
        with self._lock:
            self._lock.wait_for(lambda: self._waiting is None, timeout_s)

    def _send_waiting(self) -> None:
        if self._waiting is None or not self._free or self._memory is None:
            return
        (number, frame), self._waiting = self._waiting, None
        slot, image = self._free.pop(0), frame.image
        start = (slot - self._first_slot) * self._slot_bytes
        target = np.frombuffer(self._memory, np.uint8, image.nbytes, start).reshape(image.shape)
        np.copyto(target, image)
        self._connection.send(
            encode(
                ImageMessage(
                    slot=slot,
                    number=number,
                    height=image.shape[0],
                    width=image.shape[1],
                    captured_ns=frame.captured_ns,
                    monotonic_ns=frame.monotonic_ns,
                )
            )
        )
        self._lock.notify_all()

    def _grow(self, frame_bytes: int) -> None:
        """A larger ring in new memory: the parent may still be reading the old one."""
        self._slot_bytes = -(-frame_bytes // _PAGE) * _PAGE
        self._first_slot += SLOTS  # slot numbers are never used twice, so that late releases are known
        self._free = list(range(self._first_slot, self._first_slot + SLOTS))
        descriptor = _nameless_file(SLOTS * self._slot_bytes)
        try:
            self._memory = mmap.mmap(descriptor, SLOTS * self._slot_bytes)
            message = encode(Ring(slots=SLOTS, slot_bytes=self._slot_bytes))
            socket.send_fds(self._connection, [message], [descriptor])
        finally:
            os.close(descriptor)


class RingReader:
    """The parent's end: one mapping of one ring."""

    def __init__(self, ring: Ring, descriptor: int) -> None:
        """Map the memory behind ``descriptor`` and close it."""
        self._ring = ring
        try:
            self._memory = mmap.mmap(descriptor, ring.slots * ring.slot_bytes, prot=mmap.PROT_READ)
        finally:
            os.close(descriptor)

    def copy(self, message: ImageMessage) -> Image:
        """The pixels of a slot that belongs to the parent: ``(H, W, 3)`` uint8."""
        shape = (message.height, message.width, _CHANNELS)
        start = (message.slot % self._ring.slots) * self._ring.slot_bytes
        pixels = np.frombuffer(self._memory, np.uint8, shape[0] * shape[1] * shape[2], start)
        return pixels.reshape(shape).copy()


def _nameless_file(size: int) -> int:
    descriptor = os.memfd_create("edgecv-frames", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, size)
    return descriptor
