"""``edgecv predict`` runs a model on images."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from edgecv._internal.output_files import not_opened
from edgecv.cli.console import print_json, say
from edgecv.cli.options import (
    BUNDLE,
    Confidence,
    Iou,
    Json,
    MaxMegapixels,
    Precision,
    Runtime,
    Threads,
    Tiles,
    limit_images,
)
from edgecv.errors import ConfigError, SourceError
from edgecv.media.image_files import text_of


def predict(
    bundle: Annotated[Path, typer.Argument(help=BUNDLE)],
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.")],
    runtime: Runtime = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    conf: Confidence = None,
    iou: Iou = None,
    tiles: Tiles = None,
    point: Annotated[list[str] | None, typer.Option(help="SAM: X,Y in the object. May be repeated.")] = None,
    not_point: Annotated[list[str] | None, typer.Option(help="SAM: X,Y outside the object. May be repeated.")] = None,
    box: Annotated[list[str] | None, typer.Option(help="SAM: X1,Y1,X2,Y2 around an object. May be repeated.")] = None,
    save: Annotated[
        Path | None, typer.Option(help="Draw what was found on each image and write NAME.jpg to this folder.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace images that exist in the folder of --save.")] = False,
    max_megapixels: MaxMegapixels = None,
    json: Json = False,
) -> None:
    """Run a model on images and print what it finds. SAM needs a point or a box. Bad images are named at the end."""
    from edgecv.media.drawing import annotate
    from edgecv.media.images import list_images, read_image, unreadable, write_image
    from edgecv.model import load
    from edgecv.promptable import PromptableModel
    from edgecv.results import Classification, Detections, Image, Masks, answer_rows, mask_rows
    from edgecv.tiles.grid import read_tiles
    from edgecv.tiles.model import TiledModel, check_path

    limit_images(max_megapixels)
    grid = read_tiles(tiles)
    if grid is not None:
        check_path(bundle)
    prompts = _prompts(point or [], not_point or [], box or [])
    paths = [path for given in images for path in (list_images(given) if given.is_dir() else [given])]
    targets = [] if save is None else _targets(save, paths, force)
    with load(bundle, runtime=runtime, precision=precision, threads=threads) as loaded:
        model = loaded if grid is None else TiledModel(loaded, grid)
        if prompts and not isinstance(model, PromptableModel):
            raise ConfigError(f"{model.name} takes no prompts.", "Leave --point, --not-point and --box out.")
        if not prompts and isinstance(model, PromptableModel):
            raise ConfigError(f"{model.name} answers prompts.", "Add --point X,Y or --box X1,Y1,X2,Y2.")

        def answer(image: Image) -> Detections | Classification | Masks:
            if isinstance(model, PromptableModel):
                model.set_image(image)
                return model.predict(**prompts)
            return model(image, confidence=conf, iou=iou)

        rows: list[dict[str, Any]] = []
        bad: list[SourceError] = []
        for number, path in enumerate(paths):
            try:
                image = read_image(path)
            except SourceError as error:
                bad.append(error)
                continue
            found = answer(image)
            listed = mask_rows(found) if isinstance(found, Masks) else answer_rows(found, found.labels)
            rows.append({"image": text_of(path), **listed})
            if targets:
                write_image(targets[number], annotate(image, found), overwrite=force)
    if json:
        print_json(rows)
    else:
        _show(rows)
    if bad:
        raise unreadable(bad, len(paths))


def _show(rows: Sequence[dict[str, Any]]) -> None:
    for row in rows:
        say(str(row["image"]))
        for item in row.get("detections") or row.get("classification") or row.get("masks") or []:
            place = " ".join(f"{value:.0f}" for value in item.get("xyxy", ()))
            what = item.get("label", "mask")
            say(f"  {item.get('confidence', item.get('iou')):.3f} {what} {place}".rstrip())


def _targets(folder: Path, images: Sequence[Path], force: bool) -> list[Path]:
    """Where each image is written; of several images with one name, the later ones get a number.

    Raises ``ConfigError`` when one exists and is not to be replaced, or is one of the images themselves.
    """
    targets: dict[Path, None] = {}  # in order, and quick to search
    for path in images:
        names = (f"{path.stem}{'' if number == 1 else f'-{number}'}.jpg" for number in itertools.count(1))
        targets[next(target for name in names if (target := folder / name) not in targets)] = None
    inputs = {path.resolve() for path in images}
    for target in targets:
        if target.resolve() in inputs:
            raise ConfigError(f"{target} is one of the images that are read.", "Give --save another folder.")
        if target.exists() and not force:
            raise ConfigError(f"{target} exists.", "Give --save another folder, or replace what is in it with --force.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise ConfigError(f"{folder} is a file.", "Give --save a folder.") from error
    except OSError as error:
        raise not_opened(folder, error) from error
    return list(targets)


def _prompts(points: list[str], not_points: list[str], boxes: list[str]) -> dict[str, Any]:
    """Arguments of ``PromptableModel.predict``; empty without prompts."""
    if boxes and (points or not_points):
        raise ConfigError("Points and boxes do not go together.", "Ask with points, or with boxes.")
    if boxes:
        return {"boxes": [_numbers(text, 4) for text in boxes]}
    if not (points or not_points):
        return {}
    xy = [_numbers(text, 2) for text in (*points, *not_points)]
    return {"points": xy, "labels": [1] * len(points) + [0] * len(not_points)}


def _numbers(text: str, count: int) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise ConfigError(f"'{text}' is not {count} numbers.", f"Write {','.join('XY' * (count // 2))} in pixels.")
    return numbers
