"""``edgecv eval`` measures the accuracy of every variant on labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgecv.bundles.bundle import Bundle
from edgecv.bundles.manifest import Variant
from edgecv.bundles.metric_names import short_name
from edgecv.cli.console import print_json, print_table, progress_for
from edgecv.cli.options import Json, MaxMegapixels, Precision, Runtime, Threads, Tiles, limit_images

if TYPE_CHECKING:
    from edgecv.quantize.labels.scores import Scores
    from edgecv.quantize.record import Labelled


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Row:
    """One variant on one runtime; ``against`` is the float row of its format and ``loss`` what it loses to it."""

    variant: Variant
    runtime: str
    scores: Scores
    against: str = ""
    loss: Labelled | None = None


def eval(  # noqa: A001  (the name of the command)
    bundle: Annotated[Path, typer.Argument(help="Bundle to judge.")],
    data: Annotated[Path, typer.Option(help="data.yaml, folder with images/ and labels/, or with a folder per class.")],
    runtime: Runtime = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    tiles: Tiles = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="AP or recall of every class as well.")] = False,
    max_megapixels: MaxMegapixels = None,
    json: Json = False,
) -> None:
    """Measure COCO mAP, or top-1 and top-5, of every variant on labelled images; give ones that calibration did not see."""
    from edgecv.choosing import runnable, runtime_options
    from edgecv.model import open_variant
    from edgecv.quantize.labels.int8_loss import open_labelled
    from edgecv.tiles.grid import read_tiles
    from edgecv.tiles.model import TiledModel, check_tileable

    limit_images(max_megapixels)
    grid, opened = read_tiles(tiles), Bundle.open(bundle)
    if grid is not None:
        check_tileable(opened.name, opened.spec.decode.task)
    options = runtime_options(runtime=runtime, precision=precision, threads=threads)
    labelled = open_labelled(data, opened.spec.decode.task, opened.labels)
    rows: list[_Row] = []
    with progress_for(json) as progress:
        for variant, name in runnable(opened, options):
            with open_variant(opened, variant, options, name) as loaded:
                model = loaded if grid is None else TiledModel(loaded, grid)
                rows.append(_Row(variant=variant, runtime=name, scores=labelled.score(model, progress)))
    rows = [_compared(row, rows, opened.labels) for row in rows]
    if json:
        variants = [_document(row, opened.labels, per_class) for row in rows]
        looked = {} if grid is None else {"tiles": str(grid)}
        told = {"bundle": str(bundle), "data": str(data), "images": len(labelled.images), **looked}
        print_json({**told, "variants": variants})
        return
    how = "" if grid is None else f", in tiles {grid}"
    _print_variants(f"{bundle} on {len(labelled.images)} images of {data}{how}", rows)
    if per_class:
        _print_classes(rows, opened.labels)


def _compared(row: _Row, rows: Sequence[_Row], labels: tuple[str, ...]) -> _Row:
    """The row with its loss to the float variant of the same format, shape and runtime, where that was judged as well."""
    from edgecv.quantize.labels.int8_loss import compare_scores

    if row.variant.precision == "fp32":
        return row
    same = [other for other in rows if _kind(other) == _kind(row)]
    floats = next((other for other in same if other.variant.precision == "fp32"), None)
    if floats is None:
        return row
    return replace(row, against=floats.variant.name, loss=compare_scores(floats.scores, row.scores, labels))


def _kind(row: _Row) -> tuple[str, tuple[int, int], str]:
    return row.variant.format, row.variant.size_wh, row.runtime


def _document(row: _Row, labels: tuple[str, ...], per_class: bool) -> dict[str, Any]:
    """The JSON form of a row: scores 0 to 1, the loss in points with the ends of its 95 % interval."""
    found: dict[str, Any] = {"variant": row.variant.name, "size_wh": list(row.variant.size_wh), "runtime": row.runtime}
    found |= {name: round(value, 6) for name, value in row.scores.figures().items()}
    if row.loss is not None:
        found["loss"] = {
            "against": row.against,
            "points": round(row.loss.drop, 4),
            "low": round(row.loss.low, 4),
            "high": round(row.loss.high, 4),
        }
    if per_class:
        found["classes"] = [
            {"label": label, "count": count, "score": round(score, 6)} for label, count, score in _classes(row, labels)
        ]
    return found


def _classes(row: _Row, labels: tuple[str, ...]) -> list[tuple[str, int, float]]:
    """Name, labels and score of every class that the labels show."""
    from edgecv.vision.class_names import label_of

    scores, counts = row.scores.by_class(), row.scores.labels_by_class()
    return [
        (label_of(labels, number), int(count), float(scores[number])) for number, count in enumerate(counts) if count
    ]


def _print_variants(title: str, rows: Sequence[_Row]) -> None:
    names = list(rows[0].scores.figures())
    columns = ("variant", "runtime", *(short_name(name) for name in names), "points lost", "95 % interval")
    print_table(title, columns, [_cells(row) for row in rows])


def _cells(row: _Row) -> list[str]:
    figures = [f"{value:.4f}" for value in row.scores.figures().values()]
    lost = ["-", "-"]
    if row.loss is not None:
        lost = [f"{row.loss.drop:.2f}", f"{row.loss.low:.2f} to {row.loss.high:.2f}"]
    return [row.variant.name, row.runtime, *figures, *lost]


def _print_classes(rows: Sequence[_Row], labels: tuple[str, ...]) -> None:
    columns = [_classes(row, labels) for row in rows]
    lines = [
        [label, str(count), *(f"{column[number][2]:.4f}" for column in columns)]
        for number, (label, count, _) in enumerate(columns[0])
    ]
    heads = [f"{row.variant.name} ({row.runtime})" for row in rows]
    print_table(f"{short_name(rows[0].scores.metric)} by class", ("class", "labels", *heads), lines)
