"""``edgecv record``."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgecv.cli.console import note, print_json
from edgecv.cli.options import Confidence, Iou, Json, Precision, Runtime, Threads
from edgecv.errors import ConfigError, SinkError
from edgecv.uris import parse_source

if TYPE_CHECKING:
    from edgecv.pipelines.pipeline import Pipeline
    from edgecv.pipelines.recording.sink import RecordSink
    from edgecv.protocols import Source

_STATUS_S = 2.0


def record(
    bundle: Annotated[Path, typer.Argument(help="Bundle, or a bare model file that carries metadata.")],
    source: Annotated[list[str], typer.Option(help="0, FILE.mp4, rtsp://... as in `edgecv run`; may be repeated.")],
    out: Annotated[Path, typer.Option(help="Folder to write, such as door.rec.")],
    frames: Annotated[
        str, typer.Option(help="jpeg, or png: a model finds the same in them again, bit for bit.")
    ] = "jpeg",
    runtime: Runtime = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    conf: Confidence = None,
    iou: Iou = None,
    classes: Annotated[str | None, typer.Option(help="Names or numbers of the classes to keep, with commas.")] = None,
    max_frames: Annotated[int | None, typer.Option(min=1, help="Stop after so many frames.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Stop after this time.")] = None,
    max_gb: Annotated[float, typer.Option(help="Stop when the recording is this large.")] = 20.0,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing recording.")] = False,
    json: Json = False,
) -> None:
    """Keep the frames of a source, their times and what a model finds, to replay them later."""
    from edgecv.model import load
    from edgecv.pipelines.pipeline import Pipeline, check_model
    from edgecv.pipelines.recording.sink import RecordSink

    _check_apart(source, out)
    kept = classes.split(",") if classes else None
    limits: dict[str, Any] = {"confidence": conf, "iou": iou, "classes": kept}
    sink: RecordSink | None = None
    pipeline: Pipeline | None = None
    try:
        with load(bundle, runtime=runtime, precision=precision, threads=threads) as model, _opened(source) as sources:
            check_model(model)
            sink = RecordSink(
                out,
                pictures=frames,  # type: ignore[arg-type]  # the sink checks it
                overwrite=force,
                max_gb=max_gb,
                fps={name: opened.fps for name, opened in sources.items()},
                task=model.task,
                **limits,
            )
            with contextlib.closing(sink):  # when the pipeline cannot be made: an empty recording leaves no folder
                pipeline = Pipeline(sources, model, sinks=[sink], max_frames=max_frames, **limits)
                _follow(pipeline, sink, seconds)
    finally:  # a camera only ever ends by a signal: that, too, is an end with a report
        if pipeline is not None and sink is not None:
            _report(pipeline, sink, out, json)


def _check_apart(uris: Sequence[str], out: Path) -> None:
    """Refuse to record into the place that is read: --force would remove it first."""
    for uri in (parse_source(text) for text in uris):
        is_path = uri.scheme in ("file", "images", "recording")
        if is_path and Path(uri.path).resolve().is_relative_to(out.resolve()):
            raise ConfigError(f"{uri.name} lies in {out}, which would be replaced.", "Record to another folder.")


@contextlib.contextmanager
def _opened(uris: Sequence[str]) -> Iterator[dict[str, Source]]:
    """The sources by name, closed at the end; a name that comes again gets a number."""
    from edgecv.pipelines.sources import open_source

    sources: dict[str, Source] = {}
    try:
        for uri in uris:
            opened = open_source(uri)
            name, number = opened.source_id, 2
            while name in sources:
                name, number = f"{opened.source_id}#{number}", number + 1
            sources[name] = opened
        yield sources
    except BaseException:
        for opened in sources.values():
            opened.close()
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
                    note(f"frame {result.frame.index}: {sink.frames} recorded, {sink.size_bytes / 1e6:.1f} MB")
    except SinkError:
        if not sink.full:  # that it is full is an end that was asked for
            raise
    finally:
        if timer is not None:
            timer.cancel()


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
