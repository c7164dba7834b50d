"""What an object may do besides the least that ``edgecv.protocols`` asks of its kind: EdgeCV asks with ``isinstance``.

Import these names from ``edgecv.protocols``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Protocol, runtime_checkable

from edgecv.events import Event, EventMedia
from edgecv.media.packets import Packet
from edgecv.results import Frame
from edgecv.status import PipelineStatus, SourceHealth


@runtime_checkable
class LoadedModel(Protocol):
    """What a pipeline, and a step with a second model, look at before they use a model: is it one, and of which kind?"""

    @property
    def name(self) -> str:
        """The name of the model in messages."""

    @property
    def task(self) -> str:
        """What it does, such as ``detect``."""


@runtime_checkable
class SaysPrecision(Protocol):
    """What a session may have beyond ``Session``: it says in which type it computes the layers that are not integers."""

    float_precision: str  # "float32", "bfloat16", "float16"


@runtime_checkable
class HasMetadata(Protocol):
    """What a session may have beyond ``Session``: the texts that a converter left in the model file, by name."""

    metadata: Mapping[str, str]


@runtime_checkable
class RunsCompiled(Protocol):
    """What a session may have beyond ``Session``: it may run what was compiled for this device earlier, from a cache."""

    from_cache: bool


@runtime_checkable
class SaysPlacement(Protocol):
    """What a session may have beyond ``Session``: it says which share of the model's nodes each of its providers computes."""

    placement: Mapping[str, float]  # the largest first; empty where the runtime does not tell


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


@runtime_checkable
class GivesPackets(Protocol):
    """What a source may have beyond ``Source``: it can give the images as the camera encoded them, beside the frames.

    Those of a source with a mask are never asked for, nor while a step paints over the images.
    """

    on_packet: Callable[[Packet], None] | None  # set by the pipeline; called from any thread; must not block


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

    def interrupt(self) -> None:
        """Let a ``read`` in another thread return ``None`` soon, and every later one at once."""


@runtime_checkable
class TellsEvents(Protocol):
    """What a source may have beyond ``Source``: it says what happens to it, such as a clip that begins anew."""

    on_event: Callable[[Event], None] | None  # called from any thread; must not block


@runtime_checkable
class Named(Protocol):
    """What a step or a sink may have besides: the name that counts and messages use."""

    @property
    def name(self) -> str:
        """The name that counts and messages use."""


@runtime_checkable
class CountsLost(Protocol):
    """What a sink may have beyond ``Sink``: how many results it took and could not bring to their place."""

    @property
    def lost(self) -> int:
        """How many results were lost so far."""


@runtime_checkable
class CountsHeldBack(Protocol):
    """What a sink may have beyond ``Sink``: it has limits, and counts the events that they did not let through."""

    @property
    def held_back(self) -> int:
        """How many events were held back so far."""


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


@runtime_checkable
class WatchesStatus(Protocol):
    """What a sink may have beyond ``Sink``: it is told where to ask how the pipeline does."""

    def attach(self, status: Callable[[], PipelineStatus]) -> None:
        """Keep ``status``; called once, before the first result."""


@runtime_checkable
class AppliesRetention(Protocol):
    """What a sink may have beyond ``Sink``: it deletes what it keeps of a source once that is older than the source allows."""

    def retain(self, source_id: str, longest_s: float) -> None:
        """Take note of how long files of a source may be kept; from any thread, and nothing is deleted here."""

    def expire(self) -> None:
        """Delete what is too old; called at the start and every half minute, by the thread that calls ``emit``.

        Raises:
            SinkError: it could not be done.
        """


@runtime_checkable
class Ticks(Protocol):
    """What a sink may have beyond ``Sink``: it has something to do by the clock, also while no result comes."""

    def tick(self) -> None:
        """Do what is due; called about once a second by the thread that calls ``emit``.

        Raises:
            SinkError: it could not be done.
        """


@runtime_checkable
class GivesMedia(Protocol):
    """What a sink may have beyond ``Sink``: it makes pictures or videos of events, and says so when one is whole."""

    on_media: Callable[[EventMedia], None] | None  # set by the pipeline; called from any thread of the sink


@runtime_checkable
class TakesMedia(Protocol):
    """What a sink may have beyond ``Sink``: it wants to know which files show an event."""

    def take_media(self, media: EventMedia) -> None:
        """Take note of a file; called from any thread, also before the event itself arrives. It must not block."""


@runtime_checkable
class TakesPackets(Protocol):
    """What a sink may have beyond ``Sink``: it wants the images of cameras as they were encoded, beside the results."""

    def take_packet(self, source_id: str, packet: Packet) -> None:
        """Take one image; called from a thread of the source. It must not block."""

    def drop_packets(self, source_id: str) -> None:
        """Forget all packets of a source, also those in files that are not whole: its images must not be seen as they came."""


@runtime_checkable
class Repaints(Protocol):
    """What a step may have besides: with ``repaints = True`` it gives results with another image, as ``blur`` does.

    Then no sink gets what the cameras encoded. Of a step that does not say so it is noticed, with the first image.
    """

    repaints: bool


@runtime_checkable
class CountsObjects(Protocol):
    """What a step or gate may have besides: numbers for the summary, the page and the metrics."""

    def counts(self, source_id: str) -> Mapping[str, int]:
        """What it counted at one source so far, by name."""


@runtime_checkable
class KeepsTotals(Protocol):
    """What a step or gate may have besides: it keeps totals by source over a restart, and finds those that go on nowhere."""

    def orphans(self, sources: Collection[str]) -> Iterable[Event]:
        """What is kept of other sources than these, as events; called once, when the pipeline begins."""


@runtime_checkable
class Forgets(Protocol):
    """What a step or gate may have besides: it remembers sources, and is told when one is gone."""

    def forget(self, source_id: str) -> None:
        """Drop what is known of a source."""


@runtime_checkable
class Closes(Protocol):
    """What a step or gate may have besides: it holds something that must be released, such as a file."""

    def close(self) -> None:
        """Release what is held; called when the pipeline ends."""


@runtime_checkable
class Adopts(Protocol):
    """What a step may have besides: it goes on where another one was, when the steps are replaced while a pipeline runs."""

    def adopt(self, before: object) -> bool:
        """Take over what a step with other options, or the step of one source that it has, remembers and counted.

        Called once, between two frames, before this step sees one. ``before`` stays as it is: where the change fails it goes on,
        else it is closed afterwards. ``False``: nothing of it fits, this step begins anew.
        """


@runtime_checkable
class CountsOneSource(Protocol):
    """As ``CountsObjects``, of the step of one source that ``PerSource`` makes."""

    def counts(self) -> Mapping[str, int]:
        """What it counted so far, by name."""
