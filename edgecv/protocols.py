"""The seams: everything that EdgeCV asks of a runtime, decoder, source, sink, step or gate, of its own or of a plug-in.

What an *object* may do besides the least is a protocol of its own, such as ``TakesEvents``: EdgeCV asks with ``isinstance``.
What a registered *class* declares stands in ``RuntimeAdapter``, ``SourceType`` and ``SinkType``, with the defaults: a plug-in
inherits the protocol, or declares every member (docs/adr/0014).
"""

from __future__ import annotations

import inspect
from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import msgspec
import numpy.typing as npt

from edgecv.events import Event
from edgecv.results import Classification, Detections, Frame, Result
from edgecv.specs import DecodeSpec, RuntimeOptions, TensorSpec
from edgecv.status import PipelineStatus, SourceHealth
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

        Raises:
            SpecMismatch: a feed is missing, unknown, or has another shape or dtype than its spec.
            SessionError: the runtime failed, or the session is closed.
        """
        ...

    @abstractmethod
    def close(self) -> None:
        """Free what the runtime holds; a second call does nothing."""
        ...


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
        ...


@runtime_checkable
class SaysPrecision(Protocol):
    """What a session may have beyond ``Session``: it says in which type it computes the layers that are not integers."""

    float_precision: str  # "float32", "bfloat16", "float16"


@runtime_checkable
class HasMetadata(Protocol):
    """What a session may have beyond ``Session``: the texts that a converter left in the model file, by name."""

    metadata: Mapping[str, str]


class Decoder(Protocol):
    """Raw outputs to a result in frame pixels; made by ``DecoderType(spec, outputs)``."""

    def __call__(
        self, outputs: Tensors, transform: ImageTransform, spec: DecodeSpec, multi_label: bool
    ) -> Detections | Classification:
        """Decode the outputs of one frame, with the limits of ``spec``."""
        ...


DecoderType: TypeAlias = Callable[[DecodeSpec, tuple[TensorSpec, ...]], Decoder]
"""What a registered decoder is: a class, or a function, that makes the decoder of one model."""


@runtime_checkable
class LoadedModel(Protocol):
    """What a pipeline, and a step with a second model, look at before they use a model: is it one, and of which kind?"""

    @property
    def name(self) -> str:
        """The name of the model in messages."""
        ...

    @property
    def task(self) -> str:
        """What it does, such as ``detect``."""
        ...


@runtime_checkable
class Source(Protocol):
    """A source delivers frames, one at a time."""

    source_id: str  # free of credentials
    live: bool  # True: frames are lost when nobody reads them; False: the source waits
    fps: float  # frames per second the source announces, 0.0 when it does not know

    @abstractmethod
    def read(self) -> Frame | None:
        """The next frame, or ``None`` at the end.

        Raises:
            SourceError: the source broke; its ``code`` says how.
        """
        ...

    @abstractmethod
    def close(self) -> None:
        """Release the device or file; a second call does nothing."""
        ...


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
        ...

    @staticmethod
    def check(uri: Uri) -> None:
        """Refuse what can never work, without touching the source.

        Raises:
            ConfigError: the URI is wrong.
            MissingDependency: a package is not installed.
        """


@runtime_checkable
class CountsDropped(Protocol):
    """What a source may have beyond ``Source``: how many frames it lost because nobody took them in time."""

    dropped: int


@runtime_checkable
class CountsUnreadable(Protocol):
    """What a source may have beyond ``Source``: how many frames it passed over because they could not be decoded."""

    @property
    def unreadable(self) -> int:
        """How many frames could not be decoded so far."""
        ...


@runtime_checkable
class Placed(Protocol):
    """What a source may have beyond ``Source``: its frames have places among those of others, and are taken in that order."""

    place: Callable[[Frame], int] | None  # None: this time they have none


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


@runtime_checkable
class KeepsNewest(Source, Supervised, Protocol):
    """What a supervised source may have: it keeps its newest frame itself, and needs no thread that reads it."""

    wants: Callable[[], bool] | None  # asked for every frame that comes, from a thread of the source: is it used?
    on_frame: Callable[[], None] | None  # called when a frame can be taken, from a thread of the source; must not block

    def newest(self) -> Frame | None:
        """The newest frame that was not taken yet, or ``None`` when there is none now; never waits."""
        ...

    def begin_close(self) -> None:
        """Begin to end; never waits, and a second call does nothing."""
        ...

    def wait_closed(self, timeout_s: float) -> bool:
        """After ``begin_close``: wait until everything is released; ``False`` when it is not by then."""
        ...


@runtime_checkable
class Named(Protocol):
    """What a step or a sink may have besides: the name that counts and messages use."""

    @property
    def name(self) -> str:
        """The name that counts and messages use."""
        ...


@runtime_checkable
class Sink(Protocol):
    """A sink takes the results of a pipeline."""

    @abstractmethod
    def emit(self, result: Result) -> None:
        """Take one result.

        Raises:
            SinkError: it could not be written.
        """
        ...

    @abstractmethod
    def close(self) -> None:
        """Write what is still held and release; a second call does nothing."""
        ...


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
        ...


@runtime_checkable
class CountsLost(Protocol):
    """What a sink may have beyond ``Sink``: how many results it took and could not bring to their place."""

    @property
    def lost(self) -> int:
        """How many results were lost so far."""
        ...


@runtime_checkable
class NonBlocking(Protocol):
    """What a sink may have beyond ``Sink``: with ``non_blocking = True`` the loop calls it directly, without a thread of its own.

    Its ``emit`` must take microseconds. ``emit_event`` is then called from any thread, but never while ``emit`` is at work.
    """

    non_blocking: bool


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
        ...

    @property
    def gives_ids(self) -> bool:
        """Whether objects have tracker ids after the step."""
        ...

    @abstractmethod
    def build(self, labels: tuple[str, ...]) -> Step:
        """The step for a model with these labels.

        Raises:
            ConfigError: an option does not fit, or names a class that the model does not have.
        """
        ...


@runtime_checkable
class GateOptions(Protocol):
    """The options of a gate, from which it is made: a strict struct."""

    @abstractmethod
    def build(self) -> Gate:
        """The gate; errors as in ``StepOptions``."""
        ...


@runtime_checkable
class CountsObjects(Protocol):
    """What a step or gate may have besides: numbers for the summary, the page and the metrics."""

    def counts(self, source_id: str) -> Mapping[str, int]:
        """What it counted at one source so far, by name."""
        ...


@runtime_checkable
class Forgets(Protocol):
    """What a step or gate may have besides: it remembers sources, and is told when one is gone."""

    def forget(self, source_id: str) -> None:
        """Drop what is known of a source."""
        ...


@runtime_checkable
class Closes(Protocol):
    """What a step or gate may have besides: it holds something that must be released, such as a file."""

    def close(self) -> None:
        """Release what is held; called when the pipeline ends."""
        ...


@runtime_checkable
class CountsOneSource(Protocol):
    """As ``CountsObjects``, of the step of one source that ``PerSource`` makes."""

    def counts(self) -> Mapping[str, int]:
        """What it counted so far, by name."""
        ...


Clock = Callable[[], int]
"""Nanoseconds; handed in, so that tests own the time."""


def lacks(given: object, protocol: type) -> list[str]:
    """Which members of a protocol an object lacks; of a class, those that its objects get in their constructor do not matter."""
    abstract = given.__abstractmethods__ if isinstance(given, ABCMeta) else frozenset()
    there = set(dir(given)) - abstract
    return [name for name in _members(protocol, of_class=isinstance(given, type)) if name not in there]


def _members(protocol: type, *, of_class: bool) -> list[str]:
    found: list[str] = []
    for base in protocol.__mro__:
        if base.__module__ != __name__ and base is not protocol:  # Protocol, Generic and object
            continue
        fields = inspect.get_annotations(base)
        found += [name for name, kind in fields.items() if not of_class or str(kind).startswith("ClassVar")]
        found += [name for name in vars(base) if not name.startswith("_") and name not in fields]
    return list(dict.fromkeys(found))
