"""``edgecv privacy``: what happens to the images of an application, and anonymised copies of videos and images."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgecv.cli.console import note, print_json, progress_for, say
from edgecv.cli.options import Json, MaxMegapixels, Precision, Runtime, Threads, limit_images
from edgecv.errors import ConfigError

if TYPE_CHECKING:
    from edgecv.cli.app_config import AppFile
    from edgecv.pipelines.privacy.finder import BoxFinder
    from edgecv.pipelines.privacy.report import Outlet

_BROKERS = ("mqtt", "home_assistant")  # tables whose sinks send to a broker, images too where they take snapshots

privacy = typer.Typer(
    no_args_is_help=True, help="Say what happens to the images of each camera, and make anonymised copies."
)


@privacy.command()
def report(
    config: Annotated[Path, typer.Argument(help="The application: app.toml.")],
    json: Json = False,
) -> None:
    """Say for each camera its purpose, retention and mask, where images and data go, and what is missing."""
    from edgecv.cli.app_config import check_app, read_app_file
    from edgecv.pipelines.privacy.report import camera_privacy, report_document, report_lines

    file = check_app(read_app_file(config), str(config), code_beside=config).file
    outlets = list(_outlets(file))
    cameras = [camera_privacy(source, outlets) for source in file.sources]
    if json:
        print_json(report_document(cameras, outlets))
        return
    for line in report_lines(cameras):
        say(line)
    missing = sum(len(camera.warnings) for camera in cameras)
    note(f"{len(cameras)} cameras, {missing} warnings")


def _outlets(file: AppFile) -> Iterator[Outlet]:
    from edgecv._internal.redaction import redact
    from edgecv.pipelines.privacy.report import Content, Outlet, own_outlet, page_outlet, sink_outlet

    yield from (sink_outlet(sink) if isinstance(sink, str) else own_outlet(sink["python"]) for sink in file.sinks)
    if file.preview is not None:
        yield page_outlet(f"preview:{file.preview.port}", "images", file.preview.host)
    if file.metrics is not None:
        yield page_outlet(f"metrics:{file.metrics.port}", "numbers", file.metrics.host)
    for name in _BROKERS:
        table = getattr(file, name, None)
        if table is not None:
            url = table.url or (file.mqtt.url if file.mqtt is not None else "its broker")
            content: Content = "images" if getattr(table, "snapshots", None) else "data"
            yield Outlet(name=name, content=content, leaves=f"to {redact(url)}")


@privacy.command()
def export(
    source: Annotated[Path, typer.Argument(help="A video, a folder of images, or a recording.")],
    target: Annotated[Path, typer.Argument(help="The copy: a video (.mp4, .mkv) or a folder that does not exist.")],
    bundle: Annotated[Path | None, typer.Option(help="Model that finds what --blur names.")] = None,
    blur: Annotated[list[str] | None, typer.Option(help="Hide this class of --bundle. May be repeated.")] = None,
    blur_model: Annotated[
        Path | None, typer.Option(help="Hide every box that this model finds, such as number plates.")
    ] = None,
    conf: Annotated[float, typer.Option(min=0, max=1, help="Lowest confidence that is hidden.")] = 0.05,
    hold: Annotated[
        int | None,
        typer.Option(min=0, max=250, help="Hide a box in so many frames before and after, too. 5; folders: 0."),
    ] = None,
    runtime: Runtime = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    max_megapixels: MaxMegapixels = None,
    json: Json = False,
) -> None:
    """Write a copy in which people, or what else is named, are a coarse mosaic. One frame that fails, and there is no copy."""
    from edgecv.pipelines.privacy.export import export as export_copy
    from edgecv.pipelines.privacy.finder import BoxFinder

    limit_images(max_megapixels)
    _check(bundle, blur, blur_model)
    options: dict[str, Any] = {"runtime": runtime, "precision": precision, "threads": threads}
    with contextlib.closing(BoxFinder(conf)) as finder:
        _add_models(finder, bundle, blur, blur_model, options)
        with progress_for(json) as progress:
            done = export_copy(source, target, finder, hold=hold, progress=progress)
    if json:
        print_json(
            {
                "target": str(target),
                "frames": done.frames,
                "boxes": done.boxes,
                "hidden": done.hidden,
                "covered": done.covered,
            }
        )
        return
    note(f"{done.frames} images, {done.boxes} boxes; something is hidden in {done.hidden}: {target}")
    if done.covered:
        note(f"  {done.covered} are a mosaic as a whole: their file is damaged there")
    if not done.boxes:
        note("  nothing was found that should be hidden: look at the copy before you pass it on")


def _check(bundle: Path | None, blur: list[str] | None, blur_model: Path | None) -> None:
    if bool(blur) != (bundle is not None):
        raise ConfigError(
            "--blur CLASS and --bundle BUNDLE go together.", "edgecv privacy export IN OUT --bundle B.ecv --blur person"
        )
    if not blur and blur_model is None:
        raise ConfigError(
            "Nothing is named that shall be hidden.", "--bundle B.ecv --blur person, or --blur-model M.ecv"
        )


def _add_models(
    finder: BoxFinder, bundle: Path | None, blur: list[str] | None, blur_model: Path | None, options: dict[str, Any]
) -> None:
    if bundle is not None:
        finder.add(bundle, blur, **options)
    if blur_model is not None:
        finder.add(blur_model, None, **options)
