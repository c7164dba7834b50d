"""The seams: everything that EdgeCV asks of a runtime, decoder, source, sink, step or gate, of its own or of a plug-in.

What an *object* may do besides stands in ``abilities.py`` and comes from here, too: EdgeCV asks with ``isinstance``. What a
registered *class* declares stands in ``RuntimeAdapter``, ``SourceType`` and ``SinkType``, with defaults to inherit (docs/adr/0014).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import msgspec
import numpy.typing as npt

from edgecv.protocols.abilities import (
    Adopts as Adopts,
    AppliesRetention as AppliesRetention,
    Closes as Closes,
    CountsDropped as CountsDropped,
    CountsHeldBack as CountsHeldBack,
    CountsLost as CountsLost,
    CountsObjects as CountsObjects,
    CountsOneSource as CountsOneSource,
    CountsUnreadable as CountsUnreadable,
    Forgets as Forgets,
    GivesMedia as GivesMedia,
    GivesPackets as GivesPackets,
    HasMetadata as HasMetadata,
    KeepsTotals as KeepsTotals,
    LoadedModel as LoadedModel,
    Named as Named,
    NonBlocking as NonBlocking,
    Placed as Placed,
    Repaints as Repaints,
    RunsCompiled as RunsCompiled,
    SaysPlacement as SaysPlacement,
    SaysPrecision as SaysPrecision,
    Supervised as Supervised,
    TakesEvents as TakesEvents,
    TakesMedia as TakesMedia,
    TakesPackets as TakesPackets,
    TellsEvents as TellsEvents,
    Ticks as Ticks,
    WatchesStatus as WatchesStatus,
)
from edgecv.protocols.members import lacks as lacks
from edgecv.results import Classification, Detections, Frame, Result
from edgecv.specs import DecodeSpec, RuntimeOptions, TensorSpec
from edgecv.vision.geometry import ImageTransform

if TYPE_CHECKING:
    from edgecv.bundles.opened_files import OpenedModel
    from edgecv.uri import Uri

Array = npt.NDArray[Any]
Tensors = Mapping[str, Array]


class NoOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The options of a plug-in that has none: every option is an error."""


class Session(Protocol):
    """One loaded model file, made by a ``RuntimeAdapter``."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    providers: tuple[str, ...]

    @abstractmethod
    def run(self, feeds: Tensors) -> dict[str, Array]:
        """Compute the outputs by name from the inputs by name.

        Raises ``SpecMismatch``: a feed is missing, unknown, or has another shape or dtype than its spec. ``SessionError``: the
        runtime failed, or the session is closed.
        """

    @abstractmethod
    def close(self) -> None:
        """Free what the runtime holds; a second call does nothing."""


class RuntimeAdapter(Session, Protocol):
    """What a registered runtime is: a class of sessions that says what it runs.

    Attributes:
        package: The module that must be installed, such as ``onnxruntime``; it is imported when a model is opened.
        extra: The extra of ``pip install 'edgecv[...]'`` that brings it.
        formats: The formats of a bundle's variants that it runs.
        suffixes: The suffixes of bare model files that it runs.
        distributions: The packages whose installed versions say what computes, for reports.
        takes_opened_files: Whether ``model`` may be an ``OpenedModel``, whose files were checked and are open; else it is a path.
        takes_bf16: Whether it can compute float layers in bfloat16.
    """

    package: ClassVar[str]
    extra: ClassVar[str]
    formats: ClassVar[tuple[str, ...]]
    suffixes: ClassVar[tuple[str, ...]]
    distributions: ClassVar[tuple[str, ...]] = ()
    takes_opened_files: ClassVar[bool] = False
    takes_bf16: ClassVar[bool] = False

    def __init__(
        self,
        model: Path | OpenedModel,
        options: RuntimeOptions,
        inputs: tuple[TensorSpec, ...] = (),
        outputs: tuple[TensorSpec, ...] = (),
    ) -> None:
        """Load a model; without ``inputs`` and ``outputs`` the specs are what the file says, with empty roles.

        Raises:
            MissingDependency: the package is not installed.
            DeviceError: the device asked for is not there.
            SessionError: the file cannot be loaded.
        """


class Decoder(Protocol):
    """Raw outputs to a result in frame pixels; made by ``DecoderType(spec, outputs)``."""

    def __call__(
        self, outputs: Tensors, transform: ImageTransform, spec: DecodeSpec, multi_label: bool
    ) -> Detections | Classification:
        """Decode the outputs of one frame, with the limits of ``spec``."""


DecoderType: TypeAlias = Callable[[DecodeSpec, tuple[TensorSpec, ...]], Decoder]
"""What a registered decoder is: a class, or a function, that makes the decoder of one model."""


@runtime_checkable
class Source(Protocol):
    """A source delivers frames, one at a time."""

    source_id: str  # free of credentials
    live: bool  # True: frames are lost when nobody reads them; False: the source waits
    fps: float  # frames per second the source announces, 0.0 when it does not know

    @abstractmethod
    def read(self) -> Frame | None:
        """The next frame, or ``None`` at the end.

        Raises ``SourceError``: the source broke; its ``code`` says how.
        """

    @abstractmethod
    def close(self) -> None:
        """Release the device or file; a second call does nothing."""


class SourceType(Source, Protocol):
    """What a registered source is: a class that is made from a URI with its scheme.

    Attributes:
        Options: The strict struct that the query of the URI is read into. Of a supervised source it is ``LiveOptions`` of
            ``edgecv.pipelines.sources.live`` or inherits from it.
        supervised: Whether the source is read in a process of its own, which is started again when it fails: for cameras.
    """

    Options: ClassVar[type[msgspec.Struct]] = NoOptions
    supervised: ClassVar[bool] = False

    def __init__(self, uri: Uri) -> None:
        """Open the source.

        Raises:
            SourceError: it cannot be opened.
            ConfigError: an option does not exist or has a wrong value.
        """

    @staticmethod
    def check(uri: Uri) -> None:
        """Refuse what can never work, without touching the source.

        Raises ``ConfigError``: the URI is wrong. ``MissingDependency``: a package is not installed.
        """


@runtime_checkable
class KeepsNewest(Source, Supervised, Protocol):
    """What a supervised source may have: it keeps its newest frame itself, and needs no thread that reads it."""

    wants: Callable[[], bool] | None  # asked for every frame that comes, from a thread of the source: is it used?
    on_frame: Callable[[], None] | None  # called when a frame can be taken, from a thread of the source; must not block

    def newest(self) -> Frame | None:
        """The newest frame that was not taken yet, or ``None`` when there is none now; never waits."""

    def begin_close(self) -> None:
        """Begin to end; never waits, and a second call does nothing."""

    def wait_closed(self, timeout_s: float) -> bool:
        """After ``begin_close``: wait until everything is released; ``False`` when it is not by then."""


@runtime_checkable
class Sink(Protocol):
    """A sink takes the results of a pipeline."""

    @abstractmethod
    def emit(self, result: Result) -> None:
        """Take one result.

        Raises ``SinkError``: it could not be written.
        """

    @abstractmethod
    def close(self) -> None:
        """Write what is still held and release; a second call does nothing."""


class SinkType(Sink, Protocol):
    """What a registered sink is: a class that is made from a URI with its scheme.

    Attributes:
        Options: The strict struct that the query of the URI is read into.
        writes_files: Whether the path of its URI is a file or folder that it writes.
        one_source: Whether it has no place for the results of a second source.
        non_blocking: As in ``NonBlocking``.
    """

    Options: ClassVar[type[msgspec.Struct]] = NoOptions
    writes_files: ClassVar[bool] = True
    one_source: ClassVar[bool] = False
    non_blocking: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def from_uri(cls, uri: Uri, *, fps: float = 0.0, overwrite: bool = False) -> Sink:
        """Open the sink that a URI names.

        Args:
            uri: The URI; its query is checked already, ``read_options(uri, cls.Options)`` reads it.
            fps: Frames per second of the source; 0.0 when frames come at any time.
            overwrite: Replace an existing target.

        Raises:
            ConfigError: the target exists and is not to be overwritten.
            SinkError: the target cannot be written.
        """


Step = Callable[[Result], Result | None]
"""A function between decoding and the sinks, called in the order of the frames; ``None`` drops the result.

One that remembers something between frames must keep the sources apart: see ``edgecv.pipelines.steps.PerSource``.
"""

Gate = Callable[[Frame], bool]
"""Says before the model runs whether a frame is worth it, called in the order of the frames of a source."""


@runtime_checkable
class HasOptions(Protocol):
    """What a registered class of steps may have: the strict struct of its options, with which it is made."""

    Options: ClassVar[type[msgspec.Struct]]


@runtime_checkable
class StepOptions(Protocol):
    """The options of a step, from which it is made: a strict struct that inherits ``edgecv.pipelines.steps.Options``."""

    @property
    def needs_ids(self) -> bool:
        """Whether objects must have tracker ids before the step."""

    @property
    def gives_ids(self) -> bool:
        """Whether objects have tracker ids after the step."""

    @abstractmethod
    def build(self, labels: tuple[str, ...]) -> Step:
        """The step for a model with these labels.

        Raises:
            ConfigError: an option does not fit, or names a class that the model does not have.
        """


@runtime_checkable
class GateOptions(Protocol):
    """The options of a gate, from which it is made: a strict struct."""

    @abstractmethod
    def build(self) -> Gate:
        """The gate; errors as in ``StepOptions``."""


Clock = Callable[[], int]
"""Nanoseconds; handed in, so that tests own the time."""
