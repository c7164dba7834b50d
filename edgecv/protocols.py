"""The seams: what a source, session, decoder, step or sink must be able to do. Each is small enough to write in an evening."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy.typing as npt

from edgecv.results import Classification, Detections, Frame, Result
from edgecv.specs import DecodeSpec, TensorSpec
from edgecv.vision.geometry import ImageTransform

Array = npt.NDArray[Any]
Tensors = Mapping[str, Array]


class Session(Protocol):
    """One loaded model file; made by ``SessionType(files, inputs, outputs, options)`` (see ``edgecv.runtimes``)."""

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


class Decoder(Protocol):
    """Raw outputs to a result in frame pixels; made by ``DecoderType(spec, outputs)``."""

    def __call__(
        self, outputs: Tensors, transform: ImageTransform, spec: DecodeSpec, multi_label: bool
    ) -> Detections | Classification:
        """Decode the outputs of one frame, with the limits of ``spec``."""
        ...


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


Step = Callable[[Result], Result | None]
"""A pure function between decoding and the sinks; ``None`` drops the result."""

Clock = Callable[[], int]
"""Nanoseconds; handed in, so that tests own the time."""
