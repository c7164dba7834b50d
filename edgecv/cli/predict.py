"""``edgecv predict``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from edgecv.cli.console import print_json, say
from edgecv.cli.options import Confidence, Iou, Json, MaxMegapixels, Precision, Runtime, Threads, limit_pictures
from edgecv.errors import ConfigError, SourceError
from edgecv.media.image_files import text_of


def predict(
    bundle: Annotated[Path, typer.Argument(help="Bundle, or a bare model file that carries metadata.")],
    images: Annotated[list[Path], typer.Argument(help="Pictures, or folders of them.")],
    runtime: Runtime = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    conf: Confidence = None,
    iou: Iou = None,
    point: Annotated[list[str] | None, typer.Option(help="SAM: X,Y in the object; may be repeated.")] = None,
    not_point: Annotated[list[str] | None, typer.Option(help="SAM: X,Y outside the object; may be repeated.")] = None,
    box: Annotated[list[str] | None, typer.Option(help="SAM: X1,Y1,X2,Y2 around an object; may be repeated.")] = None,
    max_megapixels: MaxMegapixels = None,
    json: Json = False,
) -> None:
    """Print what a model finds in pictures; of SAM, what its prompts mark. Pictures that cannot be read are named at the end."""
    from edgecv.media.images import list_images, read_image, unreadable
    from edgecv.model import load
    from edgecv.promptable import PromptableModel
    from edgecv.results import Image, answer_rows, mask_rows

    limit_pictures(max_megapixels)
    prompts = _prompts(point or [], not_point or [], box or [])
    with load(bundle, runtime=runtime, precision=precision, threads=threads) as model:
        if prompts and not isinstance(model, PromptableModel):
            raise ConfigError(f"{model.name} takes no prompts.", "Leave --point, --not-point and --box out.")
        if not prompts and isinstance(model, PromptableModel):
            raise ConfigError(f"{model.name} answers prompts.", "Add --point X,Y or --box X1,Y1,X2,Y2.")

        def answer(image: Image) -> dict[str, list[dict[str, Any]]]:
            if isinstance(model, PromptableModel):
                model.set_image(image)
                return mask_rows(model.predict(**prompts))
            return answer_rows(model(image, confidence=conf, iou=iou), model.labels)

        rows: list[dict[str, Any]] = []
        bad: list[SourceError] = []
        paths = [path for given in images for path in (list_images(given) if given.is_dir() else [given])]
        for path in paths:
            try:
                picture = read_image(path)
            except SourceError as error:
                bad.append(error)
                continue
            rows.append({"image": text_of(path), **answer(picture)})
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
