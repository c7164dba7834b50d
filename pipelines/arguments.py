"""Checks the arguments of ``Pipeline`` before anything is opened."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from edgecv._internal.printable import short
from edgecv._internal.strict import check_number
from edgecv.errors import ConfigError
from edgecv.model import Model
from edgecv.pipelines.fitting_model import FittingModel
from edgecv.pipelines.loop.part_name import part_name
from edgecv.pipelines.loop.sink_worker import CallableSink
from edgecv.pipelines.sinks import SINK_HINT, check_sink, writes_files
from edgecv.pipelines.sinks.own import OwnSink
from edgecv.pipelines.source_config import SourceConfig
from edgecv.pipelines.steps.functions import SINK, check_arguments
from edgecv.pipelines.uris import parse_sink
from edgecv.protocols import LoadedModel, Sink, lacks
from edgecv.results import Result

SinkLike: TypeAlias = Sink | OwnSink | Callable[[Result], object] | str


def check_model(model: object) -> None:
    """Raise ``ConfigError`` for what is no model, or one that has nothing to say about a frame by itself."""
    if not isinstance(model, LoadedModel):
        raise ConfigError(
            f"The model of a pipeline must be a loaded one, not {short(model)}.", "Load it first: edgecv.load(PATH)."
        )
    if model.task == "promptable-segment":
        raise ConfigError(
            f"{model.name} answers prompts; a pipeline has none.",
            "Use set_image and predict, or: edgecv predict BUNDLE IMAGE --point X,Y",
        )


def check_limits(max_frames: int | None, confidence: float | None, iou: float | None) -> None:
    """Raise ``ConfigError`` for a number that cannot be meant."""
    if max_frames is not None:
        check_number("max_frames", max_frames, 1, whole=True, hint="Leave it out for no limit.")
    for name, value in (("confidence", confidence), ("iou", iou)):
        if value is not None:
            check_number(name, value, 0, 1, hint="0.25 for example; leave it out for the model's own.")


def check_sinks(sources: Sequence[SourceConfig], sinks: Sequence[SinkLike]) -> None:
    """Refuse what cannot work, and to overwrite the video that is being read or one sink's file by another."""
    taken = {path for source in sources if (path := source.file) is not None}
    uris = [parse_sink(sink) for sink in sinks if isinstance(sink, str)]
    for uri in uris:
        check_sink(uri, len(sources))
    for uri in filter(writes_files, uris):
        target = Path(uri.path).resolve()
        if target in taken:
            raise ConfigError(f"{uri.name} is in use: by the source or another sink.", "Write to another file.")
        taken.add(target)


def new_files(sinks: Sequence[SinkLike]) -> list[Path]:
    """Where sinks will make files that are not there yet."""
    uris = [parse_sink(sink) for sink in sinks if isinstance(sink, str)]
    return [path for uri in uris if writes_files(uri) and not (path := Path(uri.path)).exists()]


def remove_empty(paths: Sequence[Path]) -> None:
    """Take back files that were made and never written to."""
    for path in paths:
        with contextlib.suppress(OSError):
            if path.is_file() and not path.stat().st_size:
                path.unlink()


def as_sink(sink: object) -> Sink:
    """A sink, or a function of a result as one; ``ConfigError`` for anything else."""
    if isinstance(sink, Sink) and not isinstance(sink, type):
        return sink
    missing = lacks(sink, Sink)
    if not isinstance(sink, type) and missing != ["emit", "close"]:
        raise ConfigError(f"The sink {part_name(sink)} lacks {', '.join(missing)}.", SINK_HINT)
    if callable(sink) and not isinstance(sink, type):
        check_arguments(sink, SINK)
        return CallableSink(sink)
    raise ConfigError(
        f"{short(sink)} is no sink.", "Give a URI such as jsonl:out.jsonl, a Sink, or a function of a result."
    )


def check_replacement(before: object, model: Model | FittingModel) -> None:
    """Raise ``ConfigError`` for a model that cannot go on where another one was: steps and counters know its classes."""
    check_model(model)
    if not isinstance(before, Model | FittingModel):
        raise ConfigError("A recording is replayed: there is no model to replace.", "edgecv replay --bundle runs one.")
    if model.task != before.task or model.labels != before.labels:
        raise ConfigError(
            f"{model.name} has another task or other classes than {before.name}.", "Make a new pipeline for it."
        )
