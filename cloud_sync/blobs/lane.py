"""``BlobLane``: the pictures of one device, from the frame to the other end."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from edgecv.cloud_sync.blobs.folder import BlobFolder
from edgecv.cloud_sync.blobs.keeper import BlobKeeper
from edgecv.cloud_sync.blobs.mailbox import Mailbox
from edgecv.cloud_sync.blobs.options import SnapshotOptions, UploadPace
from edgecv.cloud_sync.blobs.taker import SnapshotTaker
from edgecv.cloud_sync.blobs.uploader import BlobUploader
from edgecv.cloud_sync.mqtt.topics import Address
from edgecv.cloud_sync.outbox.accounts.losses import Reason
from edgecv.cloud_sync.stats import SyncStats
from edgecv.events import Event
from edgecv.results import Result

_ENCODE_S = 2.0
_STOP_S = 2.0


class BlobLane:
    """Three threads: one encodes, one writes to disk, one uploads. The sender's connection is used through ``mailbox``.

    Args:
        folder: Of the pictures; the process owns the outbox around it.
        address: Of this device.
        options: Which events, and how.
        put: Takes an event, with its picture's name, and the result it belongs to.
        calm: Whether no events wait, behind which parts of pictures stand back.
        lose: Is told the reason of each picture that is given up.
        pace: Waits between attempts.

    Raises:
        ConfigError: ``ca_file`` cannot be used.
        SyncError: the folder cannot be used.
        MissingDependency: OpenCV is not installed.
    """

    def __init__(
        self,
        folder: Path,
        address: Address,
        options: SnapshotOptions,
        *,
        put: Callable[[Event, Result], None],
        calm: Callable[[], bool],
        lose: Callable[[Reason], object] = bool,
        pace: UploadPace | None = None,
    ) -> None:
        self.mailbox = Mailbox(address)
        self._folder = BlobFolder(
            folder, quota_bytes=round(options.quota_mb * 1e6), floor_bytes=round(options.free_mb * 1e6), lose=lose
        )
        self._keeper = BlobKeeper(self._folder, self.mailbox.wake)
        self._uploader = BlobUploader(self._folder, self.mailbox, options, calm=calm, pace=pace)
        self._taker = SnapshotTaker(options, put=put, keep=self._keeper.put)

    def take(self, result: Result) -> tuple[Event, ...]:
        """Have pictures made, without waiting; gives the events of a result that go without one, at once."""
        return self._taker.take(result)

    def stats(self) -> SyncStats:
        """The counts of the pictures at this moment."""
        ignored = SyncStats(ignored=self.mailbox.ignored)
        return self._taker.stats() + self._folder.stats() + self._uploader.stats() + ignored

    def finish_events(self) -> bool:
        """Pass on every event that waits for its picture and take no more; ``False`` when that took too long."""
        return self._taker.close(_ENCODE_S)

    def drain(self, timeout_s: float) -> bool:
        """Wait until every picture is delivered, at most so long."""
        deadline_s = time.monotonic() + timeout_s
        while self._folder.stats().snapshots_waiting:
            if time.monotonic() >= deadline_s:
                return False
            time.sleep(0.01)
        return True

    def store(self) -> bool:
        """Write to disk what waits in memory; ``False`` when that took too long."""
        return self._keeper.close(_STOP_S)

    def close(self) -> bool:
        """Stop uploading; what was not delivered stays on disk. ``False`` when that took too long."""
        return self._uploader.close(_STOP_S)
