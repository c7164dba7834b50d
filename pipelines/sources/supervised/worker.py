"""``python -m edgecv.pipelines.sources.supervised.worker``: read one camera for a parent process.

Standard input is the socket to the parent. Its first packet says what to open. The process ends with its source, with its
parent, or when the parent hangs up. Its top level imports the standard library only: where packages lie, the parent says.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgecv.pipelines.sources.supervised import wire
    from edgecv.pipelines.sources.supervised.packet_line import PacketSender
    from edgecv.pipelines.sources.supervised.rate import RateLimit
    from edgecv.pipelines.sources.supervised.ring import RingWriter
    from edgecv.protocols import Source

_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
_START_BYTES = 65536
_START_TIMEOUT_S = 30.0
_GRACE_S = 0.5  # for a source to say goodbye to its camera after the parent hung up
_FIRST_TO_GO = "500"  # of 1000; see proc_pid_oom_score_adj(5)
_ALIVE_NS = 500_000_000


def main() -> None:
    """Serve the parent until the end."""
    _die_with_parent()
    connection = _take_standard_input()
    start = _receive_start(connection)
    _limit_memory(start["memory_bytes"])
    sys.path += [entry for entry in start["sys_path"] if entry not in sys.path]
    from edgecv.pipelines.sources.supervised import wire  # only now every package can be found
    from edgecv.pipelines.uris import Uri

    uri = Uri(scheme=start["scheme"], path=start["path"], options=start["options"], separator=start["separator"])
    stopping = threading.Event()
    try:
        message = _serve(connection, uri, start, stopping)
    except Exception as error:  # noqa: BLE001 - the last resort of a process: the parent hears of it
        message = _failure(error, uri, start["memory_bytes"])
    with contextlib.suppress(OSError):
        connection.send(wire.encode(message))
    os._exit(0)  # a library that hangs in a thread or at its exit must not keep the camera


def _serve(
    connection: socket.socket, uri: Any, start: dict[str, Any], stopping: threading.Event
) -> wire.Ended | wire.Failed:
    from edgecv import registry
    from edgecv.pipelines.sources.supervised import wire
    from edgecv.pipelines.sources.supervised.packet_line import PacketSender
    from edgecv.pipelines.sources.supervised.rate import RateLimit
    from edgecv.pipelines.sources.supervised.ring import RingWriter

    ring, packets = RingWriter(connection), PacketSender()
    threading.Thread(target=_listen, args=(connection, ring, packets, stopping), daemon=True).start()
    source: Source = registry.load(start["target"])(uri)
    try:
        connection.send(wire.encode(wire.Opened(float(source.fps))))
        _pump(source, connection, ring, packets, RateLimit(start["fps"]), stopping)
        ring.flush(_GRACE_S)
    finally:
        source.close()
    return wire.Ended()


def _pump(
    source: Source,
    connection: socket.socket,
    ring: RingWriter,
    packets: PacketSender,
    rate: RateLimit,
    stopping: threading.Event,
) -> None:
    from edgecv.pipelines.sources.frames import check_frame
    from edgecv.pipelines.sources.live import LiveOptions, LiveSource, check_size
    from edgecv.pipelines.sources.supervised import wire

    number, told_ns = 0, 0
    shape: tuple[int, ...] = ()
    while not stopping.is_set():
        if isinstance(source, LiveSource):
            source.on_packet = packets.put if packets.is_wanted else None
        frame = source.read()
        if frame is None:
            return
        check_frame(frame, source.source_id)
        if frame.image.shape != shape:
            # A source that did not look itself: the memory that we share must not grow for it.
            shape = frame.image.shape
            check_size(shape[1], shape[0], source.source_id, LiveOptions())
        if rate.keep(frame.monotonic_ns):
            ring.put(number, frame)
            number += 1
            told_ns = frame.monotonic_ns
        elif frame.monotonic_ns - told_ns > _ALIVE_NS:
            connection.send(wire.encode(wire.Alive()))
            told_ns = frame.monotonic_ns


def _listen(connection: socket.socket, ring: RingWriter, packets: PacketSender, stopping: threading.Event) -> None:
    """Take slots back until the parent hangs up; then end the process, if need be by force."""
    from edgecv.pipelines.sources.supervised import wire

    try:
        with contextlib.suppress(OSError):
            while True:
                data, descriptors, _, _ = socket.recv_fds(connection, wire.MAX_BYTES, 1)
                if not data:
                    break
                message = wire.decode_from_parent(data)
                if isinstance(message, wire.Release):
                    ring.release(message.slot)
                elif descriptors:
                    packets.begin(socket.socket(fileno=descriptors[0]))
    finally:
        stopping.set()
        time.sleep(_GRACE_S)
        os._exit(1)


def _failure(error: Exception, uri: Any, memory_bytes: int) -> wire.Failed:
    from edgecv.errors import EdgeCVError, SourceError
    from edgecv.pipelines.sources.live import Unrecoverable
    from edgecv.pipelines.sources.supervised import wire
    from edgecv.pipelines.uris import scrub

    if _is_out_of_memory(error):
        return wire.out_of_memory(uri.name, memory_bytes)
    known = isinstance(error, EdgeCVError)
    message = error.message if isinstance(error, EdgeCVError) else f"{uri.name}: {type(error).__name__}: {error}"
    return wire.Failed(
        code=error.code if isinstance(error, SourceError) else "codec",
        message=scrub(message, uri)[: wire.MAX_TEXT],
        hint=scrub(error.hint if isinstance(error, EdgeCVError) else "", uri)[: wire.MAX_TEXT],
        # What a library raises may pass; a wrong option or a missing package stays.
        final=isinstance(error, Unrecoverable) or (known and not isinstance(error, SourceError)),
    )


def _is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, is that there is no more memory; OpenCV has its own."""
    while error is not None:
        if isinstance(error, MemoryError) or "Insufficient memory" in str(error) or "Failed to allocate" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _limit_memory(limit_bytes: int) -> None:
    """Let this process and what it starts fill their own memory only so far, and be the first that a short system ends.

    Data, not address space: libraries reserve much that they never use. Frames shared with the parent do not count.
    """
    if sys.platform.startswith("linux"):
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        limit = limit_bytes if hard == resource.RLIM_INFINITY else min(limit_bytes, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO)


def _receive_start(connection: socket.socket) -> dict[str, Any]:
    connection.settimeout(_START_TIMEOUT_S)
    data = connection.recv(_START_BYTES)
    connection.settimeout(None)
    if not data:  # the parent is gone already
        os._exit(1)
    start: dict[str, Any] = json.loads(data)
    return start


def _take_standard_input() -> socket.socket:
    """The socket, out of the way of programs that a source starts."""
    connection = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return connection


def _die_with_parent() -> None:
    """Also while a library holds the interpreter, when the end of the socket cannot be noticed."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)


if __name__ == "__main__":
    main()
