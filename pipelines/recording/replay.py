"""A recording through a pipeline again: the same frames, times and detections, as fast as they are taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from edgecv.errors import ConfigError
from edgecv.model import Model
from edgecv.pipelines.arguments import SinkLike
from edgecv.pipelines.fitting_model import FittingModel
from edgecv.pipelines.loop.step_chain import GateLike
from edgecv.pipelines.pipeline import Pipeline
from edgecv.pipelines.recording.recording import RecordedModel, Recording
from edgecv.pipelines.recording.source import RecordedSource
from edgecv.pipelines.source_config import SourceConfig
from edgecv.pipelines.steps.exchange import StepLike
from edgecv.pipelines.uris import parse_sink
from edgecv.results import Result


def open_replay(
    recording: str | Path | Recording,
    *,
    model: Model | FittingModel | None = None,
    steps: Sequence[StepLike] = (),
    gates: Sequence[GateLike] = (),
    sinks: Sequence[SinkLike] = (),
    speed: float = 0.0,
    confidence: float | None = None,
    iou: float | None = None,
    classes: Sequence[str | int] | None = None,
    max_frames: int | None = None,
    on_result: Callable[[Result], object] | None = None,
) -> Pipeline:
    """A pipeline that gives the results of a recording once more; arguments that are not described here are those of
    ``Pipeline``.

    Every frame comes, in the recorded order over all sources, with its original index and times: whatever steps count is
    the same in every replay, bit for bit. (With a ``speed`` the order is that of each source; how they interleave is a
    matter of time.) Ages are meaningless, the frames were captured long ago, so there is no ``max_age_ms`` here.

    Args:
        recording: The folder, or what ``Recording.open`` returned.
        model: Run this on the stored frames instead of taking what was found then, with the limits of then. The same model
            on the same machine finds the same where the frames were stored as ``png``.
        speed: 0 as fast as frames are taken; 1 as fast as they were captured, 2 twice as fast ...
        confidence: With ``model``: another limit than then; like ``iou``.
        classes: Names or numbers of the classes to keep; with ``model`` those of then by default, else all that were
            recorded.

    Raises:
        SourceError: it is no recording, damaged, or a newer EdgeCV wrote it.
        ConfigError: ``speed`` is negative, a limit is given without a model, or a sink would write into the recording.
    """
    if speed < 0:
        raise ConfigError(f"The speed must not be negative, but is {speed}.", "0 is as fast as possible.")
    if model is None and (confidence is not None or iou is not None):
        raise ConfigError(
            "Limits are for a model that runs again, and there is none.", "Give one: model=, or --bundle."
        )
    opened = recording if isinstance(recording, Recording) else Recording.open(recording)
    _check_apart(opened, sinks)
    header = opened.header
    sources = [
        SourceConfig(RecordedSource(opened, number, speed=speed), source.name, "lossless")
        for number, source in enumerate(header.sources)
    ]
    return Pipeline(
        sources,
        RecordedModel(header) if model is None else model,
        steps=steps,
        gates=gates,
        sinks=sinks,
        confidence=header.confidence if confidence is None and model is not None else confidence,
        iou=header.iou if iou is None and model is not None else iou,
        classes=header.classes if classes is None and model is not None else classes,
        max_frames=max_frames,
        on_result=on_result,
    )


def _check_apart(recording: Recording, sinks: Sequence[SinkLike]) -> None:
    """Refuse to write into the recording that is read."""
    folder = recording.path.resolve()
    for uri in (parse_sink(sink) for sink in sinks if isinstance(sink, str)):
        target = Path(uri.path).resolve()
        if target.is_relative_to(folder) or folder.is_relative_to(target):
            raise ConfigError(
                f"{uri.name} would write into {recording.path}, which is read.", "Write to another place."
            )
