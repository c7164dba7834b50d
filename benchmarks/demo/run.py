"""The demo: the whole road offline, from an embedded model to events in a store, with figures that anyone can check."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgecv._internal.atomic import Kind, check_target, foreign_file
from edgecv._internal.progress import Progress, silent
from edgecv.benchmarks.demo import MODEL_PATH
from edgecv.benchmarks.demo.broker import EmbeddedBroker
from edgecv.benchmarks.demo.data import write_clip, write_dataset, write_images
from edgecv.benchmarks.demo.report import Image, write_report
from edgecv.benchmarks.options import BenchOptions
from edgecv.benchmarks.report import Report
from edgecv.benchmarks.run import run_scenario
from edgecv.benchmarks.tables.report_table import render
from edgecv.bundles.bundle import Bundle
from edgecv.bundles.manifest import Variant
from edgecv.choosing import runnable, runtime_options
from edgecv.cloud_sync.ingest.ingest import Ingest
from edgecv.cloud_sync.sink import MqttSink
from edgecv.cloud_sync.stats import SyncStats
from edgecv.converters.convert import convert
from edgecv.errors import SyncError
from edgecv.media.images import write_image
from edgecv.model import load, open_variant
from edgecv.pipelines.pipeline import Pipeline
from edgecv.pipelines.summary import Summary
from edgecv.quantize.labels.int8_loss import open_labelled
from edgecv.results import Result

_MARKER = ".edgecv-demo"  # a folder with this file in it is the demo's own, to be made anew
_MADE = frozenset(
    {_MARKER, "calibration", "labelled", "clip.avi", "shapes.ecv", "frames", "outbox", "store", "report.html"}
    | {"annotated.mp4", "results.jsonl", "clip.truth.jsonl"}  # the last one: of an earlier EdgeCV
)
_CALIBRATION, _LABELLED, _CLIP_FRAMES = 96, 64, 150
_IMAGE_EVERY = 50
_LANDING_TIMEOUT_S = 30.0
_SEEDS = (11, 23, 37)  # calibration, labelled, clip: three different worlds


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantFigures:
    """One variant of the demo's bundle, and its mean average precision on labelled frames."""

    variant: Variant
    map50_95: float
    map50: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the demo measured, and where it lies."""

    folder: Path  # where everything lies
    variants: tuple[VariantFigures, ...]  # float and INT8
    summary: Summary  # of the pipeline over the clip
    accepted: int  # events that were durably on disk on the device's side
    stored: int  # events that ingest committed
    bench: tuple[Report, ...]  # benchmark reports of the bundle
    elapsed_s: float  # the whole demo


def run_demo(folder: Path, progress: Progress = silent) -> Outcome:
    """Make everything in ``folder``, which is made anew.

    Raises:
        ConfigError: ``folder`` exists and is not the demo's.
        SyncError: events that were accepted did not arrive.
        MissingDependency: a package of the extra ``demo`` is missing.
    """
    begun = time.monotonic()
    _prepare(folder)
    progress("Rendering images and a clip", 0, 3)
    write_images(folder / "calibration", _CALIBRATION, _SEEDS[0])
    progress("Rendering images and a clip", 1, 3)
    data = write_dataset(folder / "labelled", _LABELLED, _SEEDS[1])
    progress("Rendering images and a clip", 2, 3)
    write_clip(folder / "clip.avi", _CLIP_FRAMES, _SEEDS[2])
    progress("Rendering images and a clip", 3, 3)
    bundle = convert(
        MODEL_PATH, precision="int8", calibration=folder / "calibration", out=folder / "shapes.ecv", progress=progress
    )
    variants = _judge(bundle, data, progress)
    summary, stats, stored = _run_clip(folder, bundle, progress)
    progress("Benchmark", 0, 1)
    bench = tuple(run_scenario(name, bundle.path, BenchOptions(runs=60)) for name in ("single_stream", "pipeline"))
    progress("Benchmark", 1, 1)
    outcome = Outcome(
        folder=folder,
        variants=variants,
        summary=summary,
        accepted=stats.accepted,
        stored=stored,
        bench=bench,
        elapsed_s=time.monotonic() - begun,
    )
    shown = sorted((folder / "frames").glob("*"))
    images = [Image(title=f"frame {int(path.stem)}", jpeg=path.read_bytes()) for path in shown]
    write_report(folder / "report.html", _figures(outcome), images)
    return outcome


def show(outcome: Outcome) -> None:
    """Print the outcome as a person reads it."""
    for name, value in _figures(outcome):
        print(f"{name:34} {value}")
    render(list(outcome.bench))


def _no_demo(path: Path) -> str:
    """What stands at a path, if it is no folder of the demo."""
    if not (path / _MARKER).is_file():
        return "something that the demo did not make"
    found = foreign_file(path, lambda name: name.split("/")[0] in _MADE)
    return f"a folder of the demo that also holds {found}, which is not of it" if found else ""


_DEMO = Kind(name="a folder of the demo", other=_no_demo)


def _prepare(folder: Path) -> None:
    check_target(folder, force=True, kind=_DEMO)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / _MARKER).touch()


def _judge(bundle: Bundle, data: Path, progress: Progress) -> tuple[VariantFigures, ...]:
    labelled = open_labelled(data, "detect", bundle.labels)
    options = runtime_options()
    figures = []
    for variant, runtime in runnable(bundle, options):
        with open_variant(bundle, variant, options, runtime) as model:
            found = labelled.score(model, progress).figures()
        figures.append(VariantFigures(variant=variant, map50_95=found["map50_95"], map50=found["map50"]))
    return tuple(figures)


def _run_clip(folder: Path, bundle: Bundle, progress: Progress) -> tuple[Summary, SyncStats, int]:
    """The clip through the INT8 model, its events through a broker into a store."""
    progress("Clip, broker and store", 0, 1)
    images = folder / "frames"
    images.mkdir()

    def keep(result: Result) -> None:
        if result.frame.index % _IMAGE_EVERY == 0:
            write_image(images / f"{result.frame.index:05d}.jpg", result.plot())

    with EmbeddedBroker() as broker, _ingesting(broker.url, folder / "store") as ingest:
        cloud = MqttSink(broker.url, tenant="demo", device="here", outbox=folder / "outbox")
        with load(bundle.path, precision="int8") as model:
            pipeline = Pipeline(
                folder / "clip.avi",
                model,
                sinks=[f"jsonl:{folder}/results.jsonl", f"video:{folder}/annotated.mp4", cloud],
                on_result=keep,
            )
            summary = pipeline.run()
        stats = cloud.stats()
        stored = _wait_for_events(ingest.db_path, stats.accepted)
    progress("Clip, broker and store", 1, 1)
    return summary, stats, stored


@contextmanager
def _ingesting(url: str, folder: Path) -> Iterator[Ingest]:
    stop = threading.Event()
    ingest = Ingest(url, folder)
    thread = threading.Thread(target=ingest.run, args=(stop,), name="edgecv-demo-ingest", daemon=True)
    thread.start()
    try:
        yield ingest
    finally:
        stop.set()
        thread.join(_LANDING_TIMEOUT_S)


def _wait_for_events(database: Path, wanted: int) -> int:
    deadline = time.monotonic() + _LANDING_TIMEOUT_S
    while (stored := _count_events(database)) < wanted:
        if time.monotonic() > deadline:
            raise SyncError(f"Only {stored} of {wanted} accepted events arrived in the store.", "Run the demo again.")
        time.sleep(0.05)
    return stored


def _count_events(database: Path) -> int:
    with closing(sqlite3.connect(database, timeout=5)) as connection:
        return int(connection.execute("SELECT count(*) FROM events").fetchone()[0])


def _figures(outcome: Outcome) -> list[tuple[str, str]]:
    base = outcome.variants[0].variant
    rows = [
        (
            variant.name,
            f"mAP50-95 {found.map50_95:.3f}, mAP50 {found.map50:.3f}, {variant.bytes / 1e6:.2f} MB"
            f" ({variant.bytes / base.bytes:.2f}x), one thread {variant.latency_ms:.1f} ms"
            f" ({variant.latency_ms / base.latency_ms:.2f}x)",
        )
        for found in outcome.variants
        for variant in (found.variant,)
    ]
    return [
        *rows,
        (
            "clip",
            f"{outcome.summary.frames} frames at {outcome.summary.fps:.0f} fps, annotated video and JSONL included",
        ),
        ("events accepted on the device", str(outcome.accepted)),
        ("events stored by ingest", f"{outcome.stored} ({'all' if outcome.stored == outcome.accepted else 'NOT all'})"),
        ("demo took", f"{outcome.elapsed_s:.0f} s"),
    ]
