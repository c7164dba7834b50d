"""Opening and closing the parts of a pipeline."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from edgecv._internal.foreign import errors_named
from edgecv.pipelines.arguments import SinkLike, as_sink
from edgecv.pipelines.closing import close_all
from edgecv.pipelines.forgotten import QUICK_CLOSE_S
from edgecv.pipelines.loop.frame_loop import FrameLoop
from edgecv.pipelines.loop.outlets import Outlets
from edgecv.pipelines.loop.part_name import part_name
from edgecv.pipelines.loop.signals import Signals
from edgecv.pipelines.loop.source_reader import CLOSE_TIMEOUT_S, SourceReader
from edgecv.pipelines.sinks import open_sink
from edgecv.pipelines.sinks.own import OwnSink
from edgecv.pipelines.uris import parse_sink
from edgecv.protocols import Sink

SINK_CLOSE_TIMEOUT_S = 30.0  # for what is queued and the end of the file; all sinks together


def opened_sinks(
    sinks: Sequence[SinkLike], readers: Sequence[SourceReader], overwrite: bool
) -> Iterator[tuple[str, Sink]]:
    """Each with its name, opened when it is asked for; errors as ``open_sink``."""
    # A live source announces a rate that it seldom keeps: its results carry their own times.
    fps = readers[0].source.fps if len(readers) == 1 and not readers[0].source.live else 0.0
    for sink in sinks:
        if isinstance(sink, str):
            yield parse_sink(sink).name, open_sink(sink, fps=fps, overwrite=overwrite)
        elif isinstance(sink, OwnSink):
            with errors_named(f"The sink '{sink.name}'"):
                opened = sink.open()
            yield sink.name, opened
        else:
            yield part_name(sink), as_sink(sink)


def close_parts(loop: FrameLoop, outlets: Outlets, signals: Signals, left_behind: list[SourceReader]) -> None:
    """Close everything, then raise what the first one raised that failed.

    Readers whose sources hang in a read are added to ``left_behind``.
    """
    deadline_s = time.monotonic() + CLOSE_TIMEOUT_S
    closes = (
        loop.scheduler.begin_close,
        lambda: loop.scheduler.join(QUICK_CLOSE_S),
        outlets.end,
        loop.close,
        lambda: outlets.close(SINK_CLOSE_TIMEOUT_S),
        # A read that hangs must not keep what was found from being written: so it is waited for last.
        lambda: left_behind.extend(loop.scheduler.join(deadline_s - time.monotonic())),
        loop.chain.close,
        signals.restore,
    )
    close_all(closes)
