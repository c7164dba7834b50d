"""A function, class or object of an application that ``app.toml`` names as a sink."""

from __future__ import annotations

import functools
from typing import Any

import msgspec

from edgecv.errors import ConfigError
from edgecv.pipelines.loop.sink_worker import CallableSink
from edgecv.pipelines.sinks import SINK_HINT
from edgecv.pipelines.steps.functions import SINK, check_arguments
from edgecv.protocols import Sink, lacks


class OwnSink(msgspec.Struct, frozen=True, kw_only=True):
    """What was loaded, checked by ``check``; ``open`` makes the sink of it when the pipeline is made.

    Attributes:
        function: A function of a result, a class with ``emit`` and ``close``, or an object of one.
        name: What messages and counts call it.
        arguments: The keyword arguments that stand in ``app.toml``.
    """

    function: Any
    name: str
    arguments: dict[str, Any] = msgspec.field(default_factory=dict)

    def check(self) -> None:
        """Raise ``ConfigError`` where it is no sink or its arguments do not fit."""
        missing = lacks(self.function, Sink)
        is_class = isinstance(self.function, type)
        if missing and (is_class or missing != ["emit", "close"] or not callable(self.function)):
            raise ConfigError(f"The sink {self.name} lacks {', '.join(missing)}.", SINK_HINT)
        if is_class or missing:
            check_arguments(self.function, SINK, self.arguments)
        elif self.arguments:
            raise ConfigError(
                f"The sink {self.name} is an object and takes no options.", "Name its class, which is made with them."
            )

    def open(self) -> Sink:
        """The sink itself; raises what its class raises."""
        if isinstance(self.function, type):
            made: Sink = self.function(**self.arguments)
            return made
        if lacks(self.function, Sink):
            return CallableSink(functools.partial(self.function, **self.arguments))
        given: Sink = self.function
        return given
