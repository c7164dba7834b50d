"""Which sinks get what a camera encoded, and of which cameras nobody does (docs/adr/0032)."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial

from edgecv.media.packets import Packet
from edgecv.pipelines.loop.frame_loop import FrameLoop
from edgecv.pipelines.loop.sink_worker import SinkWorker
from edgecv.pipelines.loop.source_reader import SourceReader
from edgecv.pipelines.source_config import SourceConfig
from edgecv.protocols import GivesPackets


class PacketTaps:
    """Joins sources that can give packets to the sinks that want them; without such a sink no packet is made.

    Packets show what the camera saw. So those of a source with a mask are never asked for, and those of a source whose images a
    step paints over only until that is known: then the sinks forget what they have.
    """

    def __init__(self, workers: Sequence[SinkWorker], loop: FrameLoop) -> None:
        self._workers, self._loop = workers, loop
        self._sources: dict[str, GivesPackets] = {}
        self._closed: set[str] = set()
        self._changing = threading.Lock()
        loop.on_repaint = self._close

    def know(self, reader: SourceReader, config: SourceConfig) -> None:
        """One more source; one of the name of an earlier one is another.

        Where it gives no packets, or must not, sinks forget those of the earlier one: they stand for this source no more.
        """
        name = reader.name
        with self._changing:
            was_open = self._sources.pop(name, None) is not None
            self._closed.discard(name)
            if config.mask:
                self._closed.add(name)
            elif isinstance(reader.source, GivesPackets):
                self._sources[name] = reader.source
            is_open = name in self._sources
        if was_open and not is_open:
            self._forget(name)
        self.open()

    def open(self) -> None:
        """Let packets flow where somebody wants them, and nothing forbids it."""
        with self._changing:
            if self._loop.chain.repaints or not any(worker.takes_packets for worker in self._workers):
                return
            for name, source in self._sources.items():
                if name not in self._closed and source.on_packet is None:
                    source.on_packet = partial(self._give, name)

    def _give(self, name: str, packet: Packet) -> None:
        if name not in self._closed:
            for worker in self._workers:
                worker.take_packet(name, packet)

    def _close(self, name: str) -> None:
        """A step gave a frame of this source another image."""
        if name in self._closed:
            return
        with self._changing:
            self._closed.add(name)
            source = self._sources.get(name)
            if source is not None:
                source.on_packet = None
        self._forget(name)

    def _forget(self, name: str) -> None:
        for worker in self._workers:
            worker.drop_packets(name)
