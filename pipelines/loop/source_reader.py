"""Reading a source in a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from edgecv._internal.foreign import errors_named
from edgecv._internal.printable import printable
from edgecv.detections import check_image
from edgecv.errors import ConfigError, EdgeCVError, SourceError
from edgecv.events import Event
from edgecv.pipelines.loop.handover import FrameSlot, SlotClosed
from edgecv.pipelines.loop.part_name import part_name
from edgecv.pipelines.loop.work import Work
from edgecv.pipelines.source_config import SourceConfig
from edgecv.pipelines.sources.frames import check_frame
from edgecv.protocols import CountsDropped, CountsUnreadable, Gate, Placed, Source, Supervised, TellsEvents
from edgecv.results import Frame
from edgecv.status import SourceHealth, SourceState

log = logging.getLogger("edgecv.pipelines")

POLL_S = 0.05  # how soon a waiting thread notices that it shall stop
# OpenCV waits up to 10 s for a camera that stopped sending; until then its thread cannot end.
CLOSE_TIMEOUT_S = 12.0
_AHEAD = 2  # prepared frames in waiting: one hides a slow read, more would only hold memory


class SourceReader:
    """Reads one source until its end, an error or ``close``; the thread that reads is the one that closes the source.

    With the policy ``lossless`` frames are gated and prepared here, while the model computes the one before. With
    ``latest`` that would be wasted on every frame that is dropped: there the loop does it with what it takes.

    Attributes:
        error: What broke the source, once it ended.
        on_change: Called with name and health when the source comes, goes or fails, from any thread; must not block.
        on_event: Called with what else the source says; likewise.
    """

    def __init__(
        self,
        source: Source,
        name: str,
        config: SourceConfig,
        prepare: Callable[[Work], None],
        *,
        gates: tuple[Gate, ...] = (),
        max_frames: int | None = None,
        changed: threading.Condition | None = None,
        on_change: Callable[[str, SourceHealth], None] | None = None,
    ) -> None:
        self.name = name
        self.source = source
        self.error: BaseException | None = None  # what broke it
        self.on_change = on_change
        self.on_event: Callable[[Event], None] | None = None
        self.policy = config.slot_policy(source.live)
        self._config = config
        self._gates = gates
        self._prepare = prepare
        # Nothing is read that nobody asked for, where each frame that is handed over goes through the model.
        self._left = max_frames if self.policy == "lossless" and config.max_age_ms is None else None
        self._read = self._came = 0
        self._released = False  # without ever having been read
        self._mask = config.privacy_mask
        # The image of an object that somebody else made may be shown elsewhere, too.
        self._owns_images = isinstance(config.uri, str | int | Path)
        self._dropped = dict.fromkeys(("every_nth", "still", "too_old", "mask_failed"), 0)
        self._health = SourceHealth(state="connecting", since_ns=time.monotonic_ns())
        self._slot: FrameSlot[Work] = FrameSlot(_AHEAD if self.policy == "lossless" else 1, self.policy, changed)
        self._thread = threading.Thread(target=self._run, name=f"edgecv-capture-{name}", daemon=True)
        self._was_live, self._reason = False, ""
        if isinstance(source, TellsEvents):
            source.on_event = self._tell_event
        if isinstance(source, Supervised):
            source.on_change = self._tell
            self._remember(source.health())  # it may have tried before anyone listened

    @property
    def dropped(self) -> dict[str, int]:
        """Frames that gave no result, by reason; those that never happened are left out."""
        latest = self._slot.dropped + (self.source.dropped if isinstance(self.source, CountsDropped) else 0)
        unreadable = self.source.unreadable if isinstance(self.source, CountsUnreadable) else 0
        dropped = {"latest": latest, **self._dropped, "unreadable": unreadable}
        return {reason: count for reason, count in dropped.items() if count}

    @property
    def never_live(self) -> str | None:
        """Of a camera that never gave a frame: the last reason that it gave; ``None`` of every other source."""
        return None if self._was_live or self._read or not self.source.live else self._reason

    def health(self) -> SourceHealth:
        """The health of the source at this moment."""
        if isinstance(self.source, Supervised) and self._health.state != "failed":
            return self.source.health()
        return self._health

    def start(self) -> None:
        """Start the thread that reads the source."""
        self._thread.start()

    def poll(self) -> Work | None:
        """The next frame, or ``None`` when there is none now.

        Raises ``SlotClosed`` when the source ended, and everything was taken; ``error`` says whether it broke.
        """
        return self._slot.get(0.0)

    @property
    def is_placed(self) -> bool:
        """Whether its frames have a place among those of the other sources, as in a recording of several."""
        return isinstance(self.source, Placed) and self.source.place is not None

    def next_place(self) -> int | None:
        """Place of the frame that ``poll`` would give, or ``None`` when there is none now; raises as ``poll``."""
        work = self._slot.peek()
        if work is None or not isinstance(self.source, Placed) or self.source.place is None:
            return None
        return self.source.place(work.frame)

    def admits(self, work: Work) -> bool:
        """Whether a frame that was taken shall go through the model; counts why not. Called by the loop alone."""
        limit_ms = self._config.max_age_ms
        if limit_ms is not None and (time.monotonic_ns() - work.frame.monotonic_ns) / 1e6 > limit_ms:
            self._dropped["too_old"] += 1
            return False
        try:
            return self.policy == "lossless" or self._passes(work.frame)
        except Exception as error:  # noqa: BLE001 - a gate that fails ends its source, and no other
            self._fail(error)
            self.begin_close()
            return False

    def begin_close(self) -> None:
        """Stop; ``join`` waits for it."""
        self._slot.give_up()
        if isinstance(self.source, Supervised):
            self.source.interrupt()

    def join(self, deadline_s: float) -> bool:
        """Wait, until ``time.monotonic()`` is ``deadline_s``, for the source to be released; ``False`` when it hangs in a read."""
        if self._thread.ident is None:
            if not self._released:
                self._released = True
                self.source.close()
            return True
        if self._thread is threading.current_thread():  # a gate that removes its own source
            return True
        self._thread.join(max(0.0, deadline_s - time.monotonic()))
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            try:
                self._pump()
            finally:
                self.source.close()
        except SlotClosed:
            pass
        except BaseException as error:  # noqa: BLE001 - last resort of a thread: the loop raises it where the app can see it
            self._fail(error)
        finally:
            if self.error is None:
                self._become("ended")
            self._slot.close()

    def _pump(self) -> None:
        while self._left is None or self._left > 0:
            frame = self.source.read()
            if frame is None:
                return
            if self._health.state == "connecting":
                self._become("live")
            item = self._work_on(frame)
            if item is None:
                continue
            while not self._slot.put(item, POLL_S):
                pass
            self._left = None if self._left is None else self._left - 1

    def _check(self, frame: Frame) -> None:
        check_frame(frame, self.name)
        check_image(frame.image)  # here it ends this source; in the model it would end them all
        self._read += 1

    def _admitted(self, frame: Frame) -> Work | None:
        """The one way in: from here on nobody has the image without its mask. One that cannot be masked is dropped."""
        if self._mask is not None:
            try:
                frame = self._mask.applied(frame, in_place=self._owns_images)
            except Exception as error:  # noqa: BLE001 - whatever the reason is, the image must not be seen
                if not self._dropped["mask_failed"]:
                    log.warning("Source %s: a frame was dropped, for it cannot be masked: %s", self.name, error)
                self._dropped["mask_failed"] += 1
                return None
        return Work(frame=frame if frame.source_id == self.name else replace(frame, source_id=self.name))

    def _is_chosen(self) -> bool:
        self._came += 1
        if (self._came - 1) % self._config.nth:
            self._dropped["every_nth"] += 1
            return False
        return True

    def _work_on(self, frame: Frame) -> Work | None:
        self._check(frame)
        work = self._admitted(frame) if self._is_chosen() else None
        if work is None:
            return None
        if self.policy == "lossless":
            if not self._passes(work.frame):
                return None
            self._prepare(work)
        return work

    def _passes(self, frame: Frame) -> bool:
        if all(self._says_yes(at, frame) for at in range(len(self._gates))):
            return True
        self._dropped["still"] += 1
        return False

    def _says_yes(self, at: int, frame: Frame) -> bool:
        gate = self._gates[at]
        with errors_named(f"Gate {at + 1} of {len(self._gates)}, '{printable(part_name(gate))}'"):
            answer: object = gate(frame)
            if answer is None:
                raise ConfigError("It gave None.", "A gate returns True, or False to skip the frame.")
            return bool(answer)

    def _fail(self, error: BaseException) -> None:
        self.error = self.error or error
        self._become("failed", error)

    def _become(self, state: SourceState, error: BaseException | None = None) -> None:
        if isinstance(self.source, Supervised) and (error is None or isinstance(error, SourceError)):
            return  # it tells by itself
        self._health = SourceHealth(
            state=state,
            since_ns=time.monotonic_ns(),
            code=error.code if isinstance(error, SourceError) else "",
            # It may hold names of files that others chose.
            error="" if error is None else printable(str(error)) or type(error).__name__,
            hint=error.hint if isinstance(error, EdgeCVError) else "",
        )
        if state == "failed":  # that a file begins and ends is no news
            self._tell(self._health)

    def _tell(self, health: SourceHealth) -> None:
        self._remember(health)
        if self.on_change is not None:
            self.on_change(self.name, health)

    def _tell_event(self, event: Event) -> None:
        if self.on_event is not None:
            self.on_event(replace(event, source_id=self.name))

    def _remember(self, health: SourceHealth) -> None:
        self._was_live = self._was_live or health.state == "live"
        self._reason = health.error or self._reason


def hangs(readers: Sequence[SourceReader]) -> SourceError:
    """The error for sources whose read does not return."""
    return SourceError(
        f"{', '.join(reader.name for reader in readers)} did not return from a read within {CLOSE_TIMEOUT_S:.0f} s.",
        "The thread is left behind until the program ends.",
        code="timeout",
    )
