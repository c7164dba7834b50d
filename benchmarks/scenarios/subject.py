"""What is measured: a variant of a bundle, or a bare model file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecv import registry
from edgecv._internal.timing import StageTimer
from edgecv.benchmarks.bare import BareFile
from edgecv.benchmarks.images import OF_THE_BUNDLE, RENDERED, bundle_images, read_images, rendered_images
from edgecv.benchmarks.options import BenchOptions
from edgecv.bundles.bundle import Bundle
from edgecv.choosing import choose, file_suffixes, runtime_options
from edgecv.errors import ConfigError, SpecMismatch
from edgecv.model import Model, load, open_variant
from edgecv.pipelines.uris import parse_source
from edgecv.results import Image
from edgecv.runtimes.cpu_budget import effective_cpus


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """A loaded model with the images to measure it with.

    Attributes:
        path: The bundle or the file.
        model: What was loaded.
        threads: Threads of its session.
        images: What it is fed with.
        source: What a report calls them; a password of a URI is not in it.
        init_ms: From nothing to a loaded model.
    """

    path: Path
    model: Model | BareFile
    threads: int
    images: list[Image]
    source: str
    init_ms: float

    @property
    def bundle(self) -> Bundle | None:
        """The bundle; ``None`` for a bare file."""
        return self.model.bundle if isinstance(self.model, Model) else None

    @property
    def variant(self) -> str:
        """Name of the variant; empty for a bare file."""
        return self.model.variant.name if isinstance(self.model, Model) and self.model.variant else ""

    @property
    def runtime(self) -> str:
        """Registered name of the runtime that runs it, without importing the others."""
        session_type = type(self.model.session)
        target = f"{session_type.__module__}:{session_type.__qualname__}"
        named = (name for name in registry.names("runtimes") if registry.place("runtimes", name) == target)
        return next(named, session_type.__qualname__)

    def time_call(self, image: Image) -> dict[str, float]:
        """The three parts of a call, and ``total``, in milliseconds."""
        timer = StageTimer()
        model: Any = self.model
        with timer.stage("preprocess"):
            feeds, transform = model.prepare(image)
        with timer.stage("inference"):
            outputs = model.infer(feeds)
        with timer.stage("postprocess"):
            model.decode(outputs, transform)
        times = timer.as_ms()
        return {**times, "total": sum(times.values())}


@contextmanager
def opened(path: str | Path, options: BenchOptions, lanes: int = 1) -> Iterator[Subject]:
    """Load what is to be measured, and its images.

    Raises:
        EdgeCVError: it cannot be loaded, or the source gives no images.
    """
    start = time.perf_counter()
    model, threads = _load(Path(path), options, lanes)
    init_ms = (time.perf_counter() - start) * 1e3
    try:
        images, source = _images(model, options)
        yield Subject(
            path=Path(path),
            model=model,
            threads=threads or effective_cpus(),
            images=images,
            source=source,
            init_ms=round(init_ms, 1),
        )
    finally:
        model.close()


def _load(path: Path, options: BenchOptions, lanes: int) -> tuple[Model | BareFile, int]:
    """What is to be measured, and the threads of its session where they were given or tuned; else 0."""
    asked = runtime_options(
        runtime=options.runtime,
        precision=options.precision,
        threads=options.threads,
        variant=options.variant,
        device=options.device,
        extra=options.extra,
        lanes=lanes,
    )
    if not path.is_file():
        chosen = choose(path, asked)
        if chosen.bundle.manifest.decode.task == "promptable-segment":
            raise ConfigError(
                f"{chosen.bundle.name} answers prompts; bench measures detectors and classifiers.",
                "edgecv info shows its latency.",
            )
        model = open_variant(chosen.bundle, chosen.variant, chosen.options, chosen.runtime)
        return model, chosen.options.threads
    try:
        model = load(
            path, asked.runtime, asked.precision, asked.threads, lanes=lanes, device=asked.device, extra=asked.extra
        )
        return model, asked.threads
    except SpecMismatch:
        if path.suffix not in file_suffixes():
            raise
        return BareFile(path, asked), asked.threads


def _images(model: Model | BareFile, options: BenchOptions) -> tuple[list[Image], str]:
    if options.source:
        return read_images(options.source), parse_source(options.source).name
    if isinstance(model, Model) and (found := bundle_images(model.bundle, model.variant)) is not None:
        return found, OF_THE_BUNDLE
    return rendered_images(), RENDERED
