"""``edgecv grid`` writes one picture of a source with axes, to read the points of lines and zones from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgecv.cli.console import say
from edgecv.cli.options import MaxMegapixels, limit_images
from edgecv.errors import ConfigError

if TYPE_CHECKING:
    from edgecv.cli.app_config import AppFile
    from edgecv.overlays import Overlay
    from edgecv.pipelines.source_config import SourceConfig
    from edgecv.results import Frame


def grid(
    source: Annotated[
        str | None, typer.Argument(help="Camera, file or folder; with --config also the name of one of its sources.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Picture to write (.jpg or .png).")] = Path("grid.jpg"),
    config: Annotated[
        Path | None, typer.Option(help="app.toml: its lines and zones are drawn in, and its masks are painted.")
    ] = None,
    named: Annotated[
        str | None,
        typer.Option("--source", help="Name of the source in app.toml; not needed where it is the only one."),
    ] = None,
    timeout_s: Annotated[float, typer.Option(min=0.1, help="How long to wait for the first frame.")] = 20.0,
    force: Annotated[bool, typer.Option("--force", help="Replace a picture that exists.")] = False,
    max_megapixels: MaxMegapixels = None,
) -> None:
    """Write one picture of a source with axes in pixels and in shares of its size, to place lines and zones by."""
    from edgecv._internal.private_files import keep_files_private
    from edgecv.cli.app_config import AppFile, read_app_file
    from edgecv.cli.first_frame import first_frame
    from edgecv.media.grid_drawing import draw_grid
    from edgecv.media.images import write_image
    from edgecv.media.overlay_drawing import draw_overlays

    limit_images(max_megapixels)
    if source is not None and named is not None:
        raise ConfigError(f"{source} and --source {named} are two sources.", "Name one of them.")
    file = read_app_file(config) if config is not None else AppFile()
    steps = _steps(file, config)
    chosen = _chosen(file.sources, source or named)
    _check_target(out, chosen, force)
    frame = first_frame(chosen, timeout_s)
    if frame.position_ns is None:  # what cameras see is for the owner alone
        keep_files_private()
    image = frame.image.copy()
    draw_grid(image)
    draw_overlays(image, list(_overlays(steps, frame)))
    write_image(out, image, overwrite=force)
    say(f"{out}: {image.shape[1]} x {image.shape[0]} pixels of {chosen.result_name}")


def _steps(file: AppFile, config: Path | None) -> list[Any]:
    """The options of its steps; code of the application draws nothing here, and is not loaded."""
    from edgecv.cli.app_parts import part

    return [part("steps", table, str(config), None) for table in file.steps if "python" not in table]


def _chosen(tables: Sequence[SourceConfig], text: str | None) -> SourceConfig:
    """A source of the file, by its name or address, with its mask; any other where the file masks none."""
    from edgecv.cli.app_options import sources_named

    if text is None and len(tables) == 1:
        return tables[0]
    if text is None:
        names = ", ".join(table.result_name for table in tables)
        raise ConfigError("There is no source.", f"Name one of {names}." if names else "edgecv grid rtsp://CAMERA/1")
    known = [table for table in tables if text in (table.result_name, str(table.uri))]
    return known[0] if known else sources_named(tables, [(text, "")])[0]


def _check_target(out: Path, chosen: SourceConfig, force: bool) -> None:
    """What would be refused at the end is refused before a camera is waited for."""
    if out.exists() and not force:
        raise ConfigError(f"{out} exists.", "Choose another name with --out, or replace it with --force.")
    if out.resolve() == chosen.file:
        raise ConfigError(f"{out} is the source itself.", "Choose another name with --out.")
    if out.suffix.lower() not in (".jpg", ".jpeg", ".png"):
        raise ConfigError(f"{out} is no picture that can be written.", "Use .jpg or .png.")
    if not out.resolve().parent.is_dir():
        raise ConfigError(f"The folder of {out} does not exist.", "Make it, or choose another place with --out.")


def _overlays(steps: Sequence[object], frame: Frame) -> Iterator[Overlay]:
    """The lines, zones and areas of rules for this source, with their names alone: nothing was counted."""
    from msgspec.structs import replace as with_options

    from edgecv.pipelines.loop.step_chain import build_steps
    from edgecv.pipelines.steps.count.counting import CounterOptions
    from edgecv.pipelines.steps.rules.options import RuleOptions
    from edgecv.results import Detections, Result

    # The state file of a counter belongs to the program that counts, and the names of classes to a model.
    counters = (with_options(step, classes=(), state="") for step in steps if isinstance(step, CounterOptions))
    rules = (with_options(step, classes=()) for step in steps if isinstance(step, RuleOptions))
    nothing = Detections.empty()
    shown: Result | None = Result(frame=frame, detections=replace(nothing, tracker_id=nothing.class_id))
    for built in build_steps([*counters, *rules], ()):
        shown = built.step(shown) if shown is not None else None
    for overlay in shown.overlays if shown is not None else ():
        yield replace(overlay, counts={}, active=False)
