"""``edgecv replay`` gives the results of a recording again."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecv.cli.app_options import COMMAND_LINE, load_model, read_options
from edgecv.cli.console import note, print_json
from edgecv.cli.counts_view import counts_at_end
from edgecv.cli.options import (
    AppPrecision,
    AppRuntime,
    AppThreads,
    Classes,
    Confidence,
    Iou,
    Json,
    MaxFrames,
    MaxMegapixels,
    Out,
    ReplaceFiles,
    SaveVideo,
    limit_images,
)
from edgecv.errors import ConfigError
from edgecv.pipelines.uris import parse_sink

if TYPE_CHECKING:
    from edgecv.cli.app_config import App, AppFile
    from edgecv.pipelines.arguments import SinkLike
    from edgecv.pipelines.pipeline import Pipeline
    from edgecv.pipelines.recording.recording import Recording

_STATE = "state"  # the option of counting steps that names the file in which counts survive a restart


def replay(
    recording: Annotated[Path, typer.Argument(help="Folder that `edgecv record` wrote.")],
    bundle: Annotated[Path | None, typer.Option(help="Run this model on the stored frames again.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="app.toml: its gates and steps; never its sinks, nothing is told to the world.")
    ] = None,
    runtime: AppRuntime = None,
    precision: AppPrecision = None,
    threads: AppThreads = None,
    conf: Confidence = None,
    iou: Iou = None,
    classes: Classes = None,
    out: Out = None,
    save: SaveVideo = None,
    speed: Annotated[float, typer.Option(min=0, help="0: as fast as possible. 1: as fast as recorded.")] = 0.0,
    max_frames: MaxFrames = None,
    force: ReplaceFiles = False,
    max_megapixels: MaxMegapixels = None,
    json: Json = False,
) -> None:
    """Give the results of a recording once more, bit for bit: no camera and, without --bundle, no model needed."""
    from edgecv.pipelines.recording.recording import Recording
    from edgecv.pipelines.recording.replay import open_replay

    limit_images(max_megapixels)
    if json and any(parse_sink(sink).path == "-" for sink in out or ()):
        raise ConfigError("--json and --out SINK:- both write to stdout.", "Write the results to a file.")
    file = read_options(config, bundle, runtime, precision, threads, conf, iou, classes)
    app = _without_the_world(file, config)
    opened, table = Recording.open(recording), app.file.model
    if bundle is None and conf is None and iou is None:
        _tell_other_limits(opened, app)
    pipeline: Pipeline | None = None
    try:
        with load_model(app.file, bundle) if bundle is not None else contextlib.nullcontext() as model:
            pipeline = open_replay(
                opened,
                model=model,
                steps=app.steps,
                gates=app.gates,
                sinks=_sinks(out, save, force),
                speed=speed,
                # Without a model the limits of the file have no say, and those of an option are refused.
                confidence=conf if model is None else table.confidence,
                iou=iou if model is None else table.iou,
                classes=table.classes,
                max_frames=max_frames,
            )
            pipeline.run()
    finally:
        if pipeline is not None:
            _report(opened, pipeline, json)


def _without_the_world(file: AppFile, config: Path | None) -> App:
    """The model, gates and steps, checked. Counters start from 0 and leave the files of the real ones alone."""
    from edgecv.cli.app_config import AppFile, check_app

    steps = [{name: value for name, value in table.items() if name != _STATE} for table in file.steps]
    return check_app(
        AppFile(model=file.model, gates=file.gates, steps=steps), str(config or COMMAND_LINE), code_beside=config
    )


def _tell_other_limits(recording: Recording, app: App) -> None:
    for name in ("confidence", "iou"):
        asked, recorded = getattr(app.file.model, name), getattr(recording.header, name)
        if asked is not None and asked != recorded:
            then = "the model's own" if recorded is None else recorded
            note(f"note: the file says {name} = {asked}, recorded was with {then}: run the model again with --bundle")


def _sinks(out: list[str] | None, save: Path | None, force: bool) -> list[SinkLike]:
    named = [*(out or []), *([f"video:{save}"] if save else [])]
    return [f"{uri}{'&' if '?' in uri else '?'}overwrite=1" if force and uri != "jsonl:-" else uri for uri in named]


def _report(recording: Recording, pipeline: Pipeline, json: bool) -> None:
    summary = pipeline.summary
    if json:
        document = {
            **summary.as_dict(),
            "recording": str(recording.path),
            "recorded": recording.extent.records,
            "notes": list(recording.notes),
        }
        for age in ("age_p50_ms", "age_p99_ms"):
            del document[age]  # the frames were captured long ago
        print_json(document)
        return
    note(f"{summary.frames} of {recording.extent.records} frames in {summary.elapsed_s:.1f} s: {summary.fps:.1f} fps")
    for reason, count in summary.dropped.items():
        note(f"  {count} frames dropped: {reason}")
    for line in counts_at_end(summary.counts):
        note(f"  {line}")
