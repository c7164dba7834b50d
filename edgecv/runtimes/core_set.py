"""Sessions whose threads stay on some of the cores, such as the big ones of a chip that has two kinds."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edgecv.bundles.opened_files import OpenedModel
from edgecv.errors import SessionError
from edgecv.protocols import Array, RuntimeAdapter, Tensors
from edgecv.specs import RuntimeOptions, TensorSpec


@contextmanager
def on_cores(cores: Sequence[int]) -> Iterator[None]:
    """Bind the calling thread while the block runs. Threads that it starts there inherit that, and keep it; no other thread does.

    Raises:
        SessionError: this process may not run on these cores.
    """
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, cores)
    except (OSError, OverflowError, ValueError) as error:
        listed = ", ".join(map(str, cores))
        raise SessionError(f"This process may not run on the cores {listed}.", "edgecv tune BUNDLE --again") from error
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def bound_to(adapter: type[RuntimeAdapter], cores: Sequence[int]) -> type[RuntimeAdapter]:
    """A runtime whose sessions compute on these cores alone.

    ONNX Runtime, OpenVINO and LiteRT start their threads when a session is made (seen in ``/proc/self/task``). The thread that
    calls ``run`` computes its share, too: it is bound for so long, which takes microseconds. OpenVINO's sessions share their
    threads: a second one in a process computes where the threads of the first one are.
    """

    class Bound(adapter):  # type: ignore[misc, valid-type]
        def __init__(
            self,
            model: Path | OpenedModel,
            options: RuntimeOptions,
            inputs: tuple[TensorSpec, ...] = (),
            outputs: tuple[TensorSpec, ...] = (),
        ) -> None:
            with on_cores(cores):
                super().__init__(model, options, inputs, outputs)

        def run(self, feeds: Tensors) -> dict[str, Array]:
            with on_cores(cores):
                found: dict[str, Array] = super().run(feeds)
            return found

    # Reports name a session's runtime by its class.
    Bound.__module__, Bound.__qualname__, Bound.__name__ = adapter.__module__, adapter.__qualname__, adapter.__name__
    return Bound
