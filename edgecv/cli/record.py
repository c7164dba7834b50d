"""``edgecv record`` keeps frames and results of a source."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgecv.cli.app_options import COMMAND_LINE, check_complete, load_model, read_options, sources_named
from edgecv.cli.console import note, print_json
from edgecv.cli.options import (
    AppBundle,
    AppPrecision,
    AppRuntime,
    AppThreads,
    Classes,
    Confidence,
    Iou,
    Json,
    MaxFrames,
    MaxMegapixels,
    Sources,
    limit_images,
)
from edgecv.errors import ConfigError, SinkError

if TYPE_CHECKING:
    from edgecv.cli.app_config import AppFile
    from edgecv.pipelines.pipeline import Pipeline
    from edgecv.pipelines.recording.sink import RecordSink
    from edgecv.pipelines.source_config import SourceConfig
    from edgecv.protocols import Source

_STATUS_S = 2.0


def record(
    out: Annotated[Path, typer.Option(help="Folder to write, such as door.rec.")],
    bundle: AppBundle = None,
    source: Sources = None,
    config: Annotated[
        Path | None, typer.Option(help="app.toml: its model and sources; never its gates and steps. Options win.")
    ] = None,
    frames: Annotated[
        str, typer.Option(help="jpeg, or png: large and slow, but a model finds the same in them again, bit for bit.")
    ] = "jpeg",
    runtime: AppRuntime = None,
    precision: AppPrecision = None,
    threads: AppThreads = None,
    conf: Confidence = None,
    iou: Iou = None,
    classes: Classes = None,
    max_frames: MaxFrames = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Stop after this time.")] = None,
    max_gb: Annotated[float, typer.Option(help="Stop when the recording is this large.")] = 20.0,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing recording.")] = False,
    max_megapixels: MaxMegapixels = None,
    json: Json = False,
) -> None:
    """Keep the frames of a source, their times and what a model finds, to replay them later."""
    from edgecv.cli.app_config import check_app
    from edgecv.pipelines.arguments import check_model
    from edgecv.pipelines.pipeline import Pipeline
    from edgecv.pipelines.recording.sink import RecordSink

    limit_images(max_megapixels)
    file = read_options(config, bundle, runtime, precision, threads, conf, iou, classes)
    file = _without_what_works_on_results(file, source)
    table = file.model
    _check(file, out)
    limits: dict[str, Any] = {"confidence": table.confidence, "iou": table.iou, "classes": table.classes}
    sink: RecordSink | None = None
    pipeline: Pipeline | None = None
    try:
        with (
            load_model(file, table.bundle) as loaded,
            _opened(check_app(file, str(config or COMMAND_LINE)).file.sources) as (sources, configs),
        ):
            check_model(loaded)
            sink = RecordSink(
                out,
                images=frames,  # type: ignore[arg-type]  # the sink checks it
                overwrite=force,
                max_gb=max_gb,
                fps={name: source.fps for name, source in sources.items()},
                task=loaded.task,
                **limits,
            )
            with contextlib.closing(sink):  # when the pipeline cannot be made: an empty recording leaves no folder
                pipeline = Pipeline(configs, loaded, sinks=[sink], max_frames=max_frames or file.max_frames, **limits)
                _follow(pipeline, sink, seconds)
    finally:  # a camera only ever ends by a signal: that, too, is an end with a report
        if pipeline is not None and sink is not None:
            _report(pipeline, sink, out, json)


def _without_what_works_on_results(file: AppFile, uris: list[str] | None) -> AppFile:
    """The model and the sources alone: steps and sinks can be tried on the recording."""
    from edgecv.cli.app_config import AppFile

    return AppFile(
        model=file.model,
        sources=sources_named(file.sources, [(uri, "") for uri in uris]) if uris else file.sources,
        max_frames=file.max_frames,
    )


def _check(file: AppFile, out: Path) -> None:
    """Nothing is missing, and nothing is read from the place that is written: --force would remove it first."""
    check_complete(file, "record")
    for source in file.sources:
        if source.file is not None and source.file.is_relative_to(out.resolve()):
            raise ConfigError(f"{source.file} lies in {out}, which would be replaced.", "Record to another folder.")


@contextlib.contextmanager
def _opened(configs: Sequence[SourceConfig]) -> Iterator[tuple[dict[str, Source], list[SourceConfig]]]:
    """Open sources, and describe them as open ones; when the block fails they are closed, else the pipeline does it."""
    from msgspec.structs import replace

    sources: dict[str, Source] = {}
    try:
        for config in configs:
            sources[config.result_name] = config.open()
        yield sources, [replace(config, uri=sources[config.result_name], name=config.result_name) for config in configs]
    except BaseException:
        for source in sources.values():
            source.close()
        raise


def _follow(pipeline: Pipeline, sink: RecordSink, seconds: float | None) -> None:
    """Run until the source ends, the time is over or the recording is as large as it may be."""
    timer = None if seconds is None else threading.Timer(seconds, pipeline.stop)
    said = time.monotonic()
    try:
        with pipeline:
            if timer is not None:
                timer.daemon = True
                timer.start()
            for result in pipeline:
                if sink.full:
                    break
                if time.monotonic() - said >= _STATUS_S:
                    said = time.monotonic()
                    if _error(pipeline):
                        break  # a camera would go on for ever, and nothing is kept of it
                    note(f"frame {result.frame.index}: {sink.frames} recorded, {sink.size_bytes / 1e6:.1f} MB")
    except SinkError:
        if not sink.full or _error(pipeline) != sink.full:  # that it is full is an end that was asked for
            raise
    finally:
        if timer is not None:
            timer.cancel()


def _error(pipeline: Pipeline) -> str:
    return pipeline.summary.sinks[0].error


def _report(pipeline: Pipeline, sink: RecordSink, out: Path, json: bool) -> None:
    summary = pipeline.summary
    lost = summary.frames - sink.frames
    document = {
        **summary.as_dict(),
        "recording": str(out),
        "recorded": sink.frames,
        "lost": lost,
        "size_bytes": sink.size_bytes,
        "full": sink.full,
    }
    if json:
        print_json(document)
        return
    note(f"{sink.frames} frames in {summary.elapsed_s:.1f} s, {sink.size_bytes / 1e6:.1f} MB: {out}")
    for reason, count in summary.dropped.items():
        note(f"  {count} frames dropped before the model: {reason}")
    if sink.full:
        note(f"  {sink.full}")
    elif lost:
        note(
            f"  {lost} results are not in the recording: storing them takes longer than finding them (--frames jpeg is faster)"
        )
