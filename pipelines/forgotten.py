"""Pipelines that an app made and never ran: their cameras must not go on for ever."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import ParamSpec

from edgecv.pipelines.loop.scheduler import SourceScheduler
from edgecv.pipelines.loop.sink_worker import SinkWorker
from edgecv.pipelines.loop.step_chain import StepChain

QUICK_CLOSE_S = 1.0  # what a source takes that does not hang

log = logging.getLogger("edgecv.pipelines")

_Given = ParamSpec("_Given")


def while_alive(method: Callable[_Given, None]) -> Callable[_Given, None]:
    """A method for those who must not keep its object alive: threads of cameras run until the pipeline is closed."""
    held = weakref.WeakMethod(method)

    def call(*given: _Given.args, **named: _Given.kwargs) -> None:
        alive = held()
        if alive is not None:
            alive(*given, **named)

    return call


def release_forgotten(scheduler: SourceScheduler, workers: Sequence[SinkWorker], chain: StepChain) -> None:
    """Say that a pipeline was never run, and release what it opened."""
    names = ", ".join(reader.name for reader in scheduler.readers)
    log.warning(
        "A Pipeline on %s was made and never run; its sources are released. Iterate over it, call run(), or close() it.",
        names or "no source",
    )
    # In a thread of its own: the garbage collector may have come in any thread, in that of a camera too.
    releasing = threading.Thread(target=_release, args=(scheduler, workers, chain), name="edgecv-release", daemon=True)
    try:
        releasing.start()
    except RuntimeError:  # the interpreter is ending
        _release(scheduler, workers, chain)


def _release(scheduler: SourceScheduler, workers: Sequence[SinkWorker], chain: StepChain) -> None:
    scheduler.begin_close()
    scheduler.join(QUICK_CLOSE_S)
    for worker in workers:
        worker.close(QUICK_CLOSE_S)
    chain.close()
