"""``edgecv replay``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecv.cli.console import note, print_json
from edgecv.cli.options import Confidence, Iou, Json, Precision, Runtime, Threads
from edgecv.errors import ConfigError

if TYPE_CHECKING:
    from edgecv.model import Model
    from edgecv.pipelines.pipeline import Pipeline, SinkLike
    from edgecv.pipelines.recording.recording import Recording
    from edgecv.protocols import Gate, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class _App:
    """What stands between the model and the files."""

    steps: tuple[Step, ...] = ()
    gates: tuple[Gate, ...] = ()
    sinks: tuple[SinkLike, ...] = ()


def replay(
    recording: Annotated[Path, typer.Argument(help="Folder that `edgecv record` wrote.")],
    bundle: Annotated[Path | None, typer.Option(help="Run this model on the stored frames again.")] = None,
    runtime: Runtime = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    conf: Confidence = None,
    iou: Iou = None,
    out: Annotated[list[str] | None, typer.Option(help="Sink, such as jsonl:FILE; may be repeated.")] = None,
    save: Annotated[Path | None, typer.Option(help="Annotated video to write (.mp4).")] = None,
    speed: Annotated[float, typer.Option(min=0, help="0: as fast as possible. 1: as fast as recorded.")] = 0.0,
    max_frames: Annotated[int | None, typer.Option(min=1, help="Stop after so many frames.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing output files.")] = False,
    json: Json = False,
) -> None:
    """Give the results of a recording once more, bit for bit: no camera and, without --bundle, no model needed."""
    from edgecv.pipelines.recording.recording import Recording
    from edgecv.pipelines.recording.replay import open_replay

    if json and "jsonl:-" in (out or ()):
        raise ConfigError("--json and --out jsonl:- both write to stdout.", "Write the results to a file.")
    opened = Recording.open(recording)
    pipeline: Pipeline | None = None
    try:
        with _model(bundle, runtime, precision, threads) as model:
            app = _app(opened.header.labels if model is None else model.labels)
            pipeline = open_replay(
                opened,
                model=model,
                steps=app.steps,
                gates=app.gates,
                sinks=[*app.sinks, *_sinks(out, save, force)],
                speed=speed,
                confidence=conf,
                iou=iou,
                max_frames=max_frames,
            )
            pipeline.run()
    finally:
        if pipeline is not None:
            _report(opened, pipeline, json)


def _app(_labels: tuple[str, ...]) -> _App:
    """Steps, gates and sinks of ``--config app.toml``.

    PLUG IN HERE: give ``replay`` an option ``config: Path | None``, hand it over, and return what ``read_config(config)`` of
    ``edgecv.cli.app_config`` makes for these labels. The sources of the file are not used in a replay, nor ``max_age_ms``.
    """
    return _App()


@contextlib.contextmanager
def _model(bundle: Path | None, runtime: str, precision: str, threads: int) -> Iterator[Model | None]:
    if bundle is None:
        yield None
        return
    from edgecv.model import load

    with load(bundle, runtime=runtime, precision=precision, threads=threads) as model:
        yield model


def _sinks(out: list[str] | None, save: Path | None, force: bool) -> list[SinkLike]:
    named = [*(out or []), *([f"video:{save}"] if save else [])]
    return [f"{uri}{'&' if '?' in uri else '?'}overwrite=1" if force and uri != "jsonl:-" else uri for uri in named]


def _counts(pipeline: Pipeline) -> dict[str, Mapping[str, int]]:
    """What the steps counted at each source."""
    return {source.source_id: dict(source.counts) for source in pipeline.status().sources}


def _report(recording: Recording, pipeline: Pipeline, json: bool) -> None:
    summary, counts = pipeline.summary, _counts(pipeline)
    if json:
        document = {
            **summary.as_dict(),
            "recording": str(recording.path),
            "recorded": recording.extent.records,
            "counts": counts,
            "notes": list(recording.notes),
        }
        for age in ("age_p50_ms", "age_p99_ms"):
            del document[age]  # the frames were captured long ago
        print_json(document)
        return
    note(f"{summary.frames} of {recording.extent.records} frames in {summary.elapsed_s:.1f} s: {summary.fps:.1f} fps")
    for reason, count in summary.dropped.items():
        note(f"  {count} frames dropped: {reason}")
    for source, counted in counts.items():
        for name, count in counted.items():
            note(f"  {source}: {name} {count}")
