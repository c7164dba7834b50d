"""The seams: what a source, session, decoder, step or sink must be able to do. Each is small enough to write in an evening."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy.typing as npt

from edgecv.events import Event
from edgecv.results import Classification, Detections, Frame, Result
from edgecv.specs import DecodeSpec, TensorSpec
from edgecv.status import PipelineStatus, SourceHealth
from edgecv.vision.geometry import ImageTransform

Array = npt.NDArray[Any]
Tensors = Mapping[str, Array]


class Session(Protocol):
    """One loaded model file; made by ``SessionType(model, options, inputs, outputs)`` (see ``edgecv.runtimes``)."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    providers: tuple[str, ...]

    def run(self, feeds: Tensors) -> dict[str, Array]:
        """Compute the outputs by name from the inputs by name.

        Raises:
            SpecMismatch: a feed is missing, unknown, or has another shape or dtype than its spec.
            SessionError: the runtime failed, or the session is closed.
        """
        ...

    def close(self) -> None:
        """Free what the runtime holds; a second call does nothing."""
        ...


@runtime_checkable
class SaysPrecision(Protocol):
    """What a session may have beyond ``Session``: it says in which type it computes the layers that are not integers."""

    float_precision: str  # "float32", "bfloat16", "float16"


class Decoder(Protocol):
    """Raw outputs to a result in frame pixels; made by ``DecoderType(spec, outputs)``."""

    def __call__(
        self, outputs: Tensors, transform: ImageTransform, spec: DecodeSpec, multi_label: bool
    ) -> Detections | Classification:
        """Decode the outputs of one frame, with the limits of ``spec``."""
        ...


@runtime_checkable
class Source(Protocol):
    """Where frames come from; made by ``SourceType(uri)``."""

    source_id: str  # free of credentials
    live: bool  # True: frames are lost when nobody reads them; False: the source waits
    fps: float  # frames per second the source announces, 0.0 when it does not know

    def read(self) -> Frame | None:
        """The next frame, or ``None`` at the end.

        Raises:
            SourceError: the source broke; its ``code`` says how.
        """
        ...

    def close(self) -> None:
        """Release the device or file; a second call does nothing."""
        ...


@runtime_checkable
class Supervised(Protocol):
    """What a source may have beyond ``Source``: it comes back by itself after a failure and says how it is.

    ``read`` of such a source waits as long as it takes, and raises only when trying again is given up.
    """

    on_change: Callable[[SourceHealth], None] | None  # called at every change of state, from any thread; must not block

    def health(self) -> SourceHealth:
        """How it is at this moment."""
        ...

    def interrupt(self) -> None:
        """Let a ``read`` in another thread return ``None`` soon, and every later one at once."""
        ...


class Sink(Protocol):
    """Where results go; one with a scheme is made by ``SinkType.from_uri(uri, *, fps, overwrite)``."""

    def emit(self, result: Result) -> None:
        """Take one result.

        Raises:
            SinkError: it could not be written.
        """
        ...

    def close(self) -> None:
        """Write what is still held and release; a second call does nothing."""
        ...


@runtime_checkable
class TakesEvents(Protocol):
    """What a sink may have beyond ``Sink``: it wants events that belong to no frame, such as a camera that went away.

    Events of steps come with their result, in ``Result.events``.
    """

    def emit_event(self, event: Event) -> None:
        """Take one event; called from the thread that calls ``emit``.

        Raises:
            SinkError: it could not be written.
        """
        ...


@runtime_checkable
class WatchesStatus(Protocol):
    """What a sink may have beyond ``Sink``: it is told where to ask how the pipeline does."""

    def attach(self, status: Callable[[], PipelineStatus]) -> None:
        """Keep ``status``; called once, before the first result."""
        ...


Step = Callable[[Result], Result | None]
"""A function between decoding and the sinks, called in the order of the frames; ``None`` drops the result.

One that remembers something between frames must keep the sources apart: see ``edgecv.pipelines.steps.per_source``.
"""

Gate = Callable[[Frame], bool]
"""Says before the model runs whether a frame is worth it, called in the order of the frames of a source."""

Clock = Callable[[], int]
"""Nanoseconds; handed in, so that tests own the time."""
