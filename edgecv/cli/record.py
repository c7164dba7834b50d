"""``edgecv record``."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgecv.cli.console import note, print_json
from edgecv.cli.options import Confidence, Iou, Json, MaxMegapixels, limit_pictures, model_options
from edgecv.errors import ConfigError, SinkError
from edgecv.pipelines.uris import parse_source

if TYPE_CHECKING:
    from edgecv.cli.app_config import AppFile
    from edgecv.pipelines.pipeline import Pipeline
    from edgecv.pipelines.recording.sink import RecordSink
    from edgecv.pipelines.source_config import Feed
    from edgecv.protocols import Source

_STATUS_S = 2.0


def record(
    out: Annotated[Path, typer.Option(help="Folder to write, such as door.rec.")],
    bundle: Annotated[Path | None, typer.Argument(help="Bundle, or a bare model file that carries metadata.")] = None,
    source: Annotated[
        list[str] | None, typer.Option(help="0, rtsp://..., FILE.mp4 as in `edgecv run`; may be repeated.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="app.toml: its model and sources; never its gates and steps. Options win.")
    ] = None,
    frames: Annotated[
        str, typer.Option(help="jpeg, or png: large and slow, but a model finds the same in them again, bit for bit.")
    ] = "jpeg",
    runtime: Annotated[str | None, typer.Option(help="auto or a runtime: see `edgecv plugins`.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32, fp16 or int8.")] = None,
    threads: Annotated[int | None, typer.Option(min=0, help="Threads of the session; 0: the runtime chooses.")] = None,
    conf: Confidence = None,
    iou: Iou = None,
    classes: Annotated[str | None, typer.Option(help="Names or numbers of the classes to keep, with commas.")] = None,
    max_frames: Annotated[int | None, typer.Option(min=1, help="Stop after so many frames.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Stop after this time.")] = None,
    max_gb: Annotated[float, typer.Option(help="Stop when the recording is this large.")] = 20.0,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing recording.")] = False,
    max_megapixels: MaxMegapixels = None,
    json: Json = False,
) -> None:
    """Keep the frames of a source, their times and what a model finds, to replay them later."""
    from edgecv.cli.app_config import check_app
    from edgecv.model import load
    from edgecv.pipelines.arguments import check_model
    from edgecv.pipelines.pipeline import Pipeline
    from edgecv.pipelines.recording.sink import RecordSink

    limit_pictures(max_megapixels)
    model = model_options(bundle, runtime, precision, threads, conf, iou, classes)
    file = _described(config, source, model)
    table = file.model
    _check(file, out)
    limits: dict[str, Any] = {"confidence": table.confidence, "iou": table.iou, "classes": table.classes}
    sink: RecordSink | None = None
    pipeline: Pipeline | None = None
    try:
        with (
            load(
                table.bundle,
                runtime=table.runtime,
                precision=table.precision,
                threads=table.threads,
                cache_dir=table.cache_dir,
            ) as loaded,
            _opened(check_app(file, str(config or "the command line")).feeds()) as (sources, feeds),
        ):
            check_model(loaded)
            sink = RecordSink(
                out,
                pictures=frames,  # type: ignore[arg-type]  # the sink checks it
                overwrite=force,
                max_gb=max_gb,
                fps={name: source.fps for name, source in sources.items()},
                task=loaded.task,
                **limits,
            )
            with contextlib.closing(sink):  # when the pipeline cannot be made: an empty recording leaves no folder
                pipeline = Pipeline(feeds, loaded, sinks=[sink], max_frames=max_frames or file.max_frames, **limits)
                _follow(pipeline, sink, seconds)
    finally:  # a camera only ever ends by a signal: that, too, is an end with a report
        if pipeline is not None and sink is not None:
            _report(pipeline, sink, out, json)


def _described(config: Path | None, uris: list[str] | None, model: dict[str, Any]) -> AppFile:
    """What is to be recorded: the file without what works on results, so that everything can be tried on the recording."""
    from msgspec.structs import replace

    from edgecv.cli.app_config import AppFile, SourceTable, read_app_file

    file = read_app_file(config) if config is not None else AppFile()
    return AppFile(
        model=replace(file.model, **model),
        sources=[SourceTable(uri=uri) for uri in uris] if uris else file.sources,
        max_frames=file.max_frames,
    )


def _check(file: AppFile, out: Path) -> None:
    """Nothing is missing, and nothing is read from the place that is written: --force would remove it first."""
    if not file.model.bundle:
        raise ConfigError(
            "There is no bundle.", 'edgecv record BUNDLE ..., or in app.toml: [model] bundle = "NAME.ecv"'
        )
    if not file.sources:
        raise ConfigError("There is no source.", "edgecv record BUNDLE --source 0, or [[sources]] in app.toml.")
    for uri in (parse_source(table.uri) for table in file.sources):
        is_path = uri.scheme in ("file", "images", "recording")
        if is_path and Path(uri.path).resolve().is_relative_to(out.resolve()):
            raise ConfigError(f"{uri.name} lies in {out}, which would be replaced.", "Record to another folder.")


@contextlib.contextmanager
def _opened(feeds: Mapping[str, Feed]) -> Iterator[tuple[dict[str, Source], dict[str, Feed]]]:
    """Sources and feeds of them; when the block fails they are closed, else the pipeline does it."""
    from edgecv.pipelines.source_config import Feed, open_feed

    sources: dict[str, Source] = {}
    try:
        for name, feed in feeds.items():
            sources[name] = open_feed(feed)
        yield sources, {name: Feed(source=source, freshness=feeds[name].freshness) for name, source in sources.items()}
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
