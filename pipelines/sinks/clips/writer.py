"""``ClipWriter``: writes the clips of all sources in a thread of its own, with low priority."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from edgecv.errors import SinkError, in_one_line
from edgecv.events import Event
from edgecv.pipelines.sinks.clips.clip import Clip
from edgecv.pipelines.sinks.clips.folder import ClipFolder
from edgecv.pipelines.sinks.clips.options import ClipsOptions
from edgecv.pipelines.sinks.clips.ring import PacketRing
from edgecv.pipelines.sinks.clips.roll import Roll

log = logging.getLogger("edgecv.pipelines")

_LOOK_S = 0.5  # how often a clip takes what came meanwhile
_NICE = 10  # clips may be late, results may not
_CLOSE_S = 25.0  # a little less than all sinks together have


class ClipWriter:
    """Takes events, and makes clips of what the rings of their sources hold.

    Attributes:
        lost: Events that got no clip.
    """

    def __init__(
        self, folder: ClipFolder, options: ClipsOptions, made: Callable[[str, Path, tuple[str, ...]], None]
    ) -> None:
        """``made`` is called with source, file and keys of the events when a clip is whole, from the thread of the writer."""
        self._folder, self._options, self._made = folder, options, made
        self._clips: list[Clip] = []
        self._rings: set[PacketRing] = set()  # in which something is held for them
        self._changing = threading.Lock()
        self._wake = threading.Event()
        self._is_closing = False
        self._told = ""
        self._thread: threading.Thread | None = None
        self.lost = 0

    def note(self, roll: Roll, events: list[Event], scene_ns: int) -> None:
        """Events of a frame: they join the clip of their source that is being made, or begin one."""
        with self._changing:
            clip = next((one for one in self._clips if one.takes(roll, scene_ns)), None)
            if clip is None:
                clip = self._begun(roll, scene_ns)
                self._clips.append(clip)
                self._rings.add(roll.ring)
                self._wake.set()
            clip.end_ns = max(clip.end_ns, scene_ns + round(self._options.post_s * 1e9))
            clip.events.extend((event, scene_ns) for event in events)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="edgecv-clips", daemon=True)
                self._thread.start()

    def hurry(self) -> None:
        """Let the thread write at once what came."""
        self._wake.set()

    def spoil(self, source_id: str) -> None:
        """Delete the clips of a source that are being made of what its camera encoded."""
        with self._changing:
            for clip in self._clips:
                clip.is_spoiled = clip.is_spoiled or (clip.is_original and clip.roll.source_id == source_id)
        self._wake.set()

    def close(self) -> None:
        """Finish all clips with what there is. Raises ``SinkError``: that took too long."""
        self._is_closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(_CLOSE_S)
            if self._thread.is_alive():
                raise SinkError(f"The clips in {self._folder.path} were not done in time.", "Is the disk slow?")

    def _begun(self, roll: Roll, scene_ns: int) -> Clip:
        pre_ns, post_ns = round(self._options.pre_s * 1e9), round(self._options.post_s * 1e9)
        longest_ns = max(round(self._options.longest_s * 1e9), pre_ns + post_ns)  # what one event asks for is not cut
        return Clip(
            roll=roll,
            is_original=roll.gives_packets,
            scene=roll.scene,
            number=roll.ring.begin(scene_ns, pre_ns),
            end_ns=scene_ns,
            latest_ns=scene_ns - pre_ns + longest_ns,
            fps=self._options.fps,
        )

    def _run(self) -> None:
        if sys.platform.startswith("linux"):
            with suppress(OSError):  # of this thread alone
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while True:
            self._wake.wait(_LOOK_S if self._clips else None)
            self._wake.clear()
            is_closing = self._is_closing  # asked first: what came before the end is still written
            for clip in tuple(self._clips):
                self._tend(clip, is_closing)
            self._let_go()
            if is_closing:
                return

    def _tend(self, clip: Clip, is_closing: bool) -> None:
        try:
            end_ns = clip.end_ns
            is_over = clip.is_spoiled or clip.advance(self._folder) or is_closing
            with self._changing:
                is_over = is_over and (is_closing or clip.end_ns == end_ns)  # an event may have prolonged it meanwhile
                if is_over:
                    self._clips.remove(clip)
            if is_over:
                self._end(clip)
        except SinkError as error:
            self._lose(clip, in_one_line(error.message, error.hint))
        except Exception as error:  # noqa: BLE001 - one clip fails, the others go on
            self._lose(clip, f"{type(error).__name__}: {error}")

    def _end(self, clip: Clip) -> None:
        if clip.is_spoiled:
            self._lose(clip, "a step changes its images")
        elif clip.is_empty:
            self._lose(clip, f"{clip.roll.source_id} gave no image in time")
        else:
            path = clip.finish(self._folder)
            self._told = ""
            self._made(clip.roll.source_id, path, tuple(event.key for event, _ in clip.events))

    def _lose(self, clip: Clip, why: str) -> None:
        with self._changing:
            if clip in self._clips:
                self._clips.remove(clip)
        clip.abandon(self._folder)
        self.lost += len(clip.events)
        if why != self._told:  # once, until a clip is written again
            self._told = why
            log.warning("A clip in %s was not written: %s", self._folder.path, why)

    def _let_go(self) -> None:
        """Let the rings drop what no clip needs any more."""
        with self._changing:
            for ring in self._rings:
                numbers = [clip.number for clip in self._clips if clip.roll.ring is ring]
                ring.hold(min(numbers, default=None))
            self._rings = {clip.roll.ring for clip in self._clips}
