"""The first frame of a source, as a pipeline would see it: under its mask."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from edgecv.cli.console import note
from edgecv.errors import SourceError, in_one_line

if TYPE_CHECKING:
    from edgecv.pipelines.loop.source_reader import SourceReader
    from edgecv.pipelines.source_config import SourceConfig
    from edgecv.results import Frame
    from edgecv.status import SourceHealth

_POLL_S = 0.05


def first_frame(config: SourceConfig, timeout_s: float) -> Frame:
    """Wait for one frame of a source; its mask is on the image. A camera that is away is waited for, and says why on stderr.

    Raises ``SourceError``: it is no source that can be opened, it broke, it has no frame, or none came in time.
    """
    from edgecv.pipelines.loop.source_reader import CLOSE_TIMEOUT_S, SourceReader

    said: set[str] = set()

    def tell(name: str, health: SourceHealth) -> None:
        if health.error and health.error not in said:
            said.add(health.error)
            note(f"{name} is {health.state}: {in_one_line(health.error, health.hint)}")

    opened = config.open()
    reader = SourceReader(opened, config.result_name, config, lambda _work: None, max_frames=1, on_change=tell)
    reader.start()
    try:
        return _wait(reader, timeout_s)
    finally:
        reader.on_change = None
        reader.begin_close()
        reader.join(time.monotonic() + CLOSE_TIMEOUT_S)


def _wait(reader: SourceReader, timeout_s: float) -> Frame:
    from edgecv.pipelines.loop.handover import SlotClosed

    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        try:
            work = reader.poll()
        except SlotClosed:
            raise reader.error or SourceError(
                f"{reader.name} has no frame that can be shown.", "Is it empty, or is every frame damaged?", code="eof"
            ) from None
        if work is not None:
            return work.frame
        time.sleep(_POLL_S)
    health = reader.health()
    reason = f": {health.error}" if health.error else "."
    raise SourceError(
        f"{reader.name} gave no frame within {timeout_s:g} s{reason}",
        health.hint or "Is the camera on? --timeout-s waits for longer.",
        code=health.code or "timeout",
    )
