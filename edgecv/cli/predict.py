"""``edgecv predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgecv.cli.console import print_json
from edgecv.cli.options import Confidence, Iou, Json, Precision, Runtime, Threads


def predict(
    bundle: Annotated[Path, typer.Argument(help="Bundle, or a bare model file that carries metadata.")],
    images: Annotated[list[Path], typer.Argument(help="Pictures.")],
    runtime: Runtime = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    conf: Confidence = None,
    iou: Iou = None,
    json: Json = False,
) -> None:
    """Print what a model finds in pictures."""
    from edgecv.media import read_image
    from edgecv.model import load
    from edgecv.results import answer_rows

    with load(bundle, runtime=runtime, precision=precision, threads=threads) as model:
        rows: list[dict[str, Any]] = [
            {"image": str(path), **answer_rows(model(read_image(path), confidence=conf, iou=iou), model.labels)}
            for path in images
        ]
    if json:
        print_json(rows)
        return
    for row in rows:
        print(row["image"])
        for item in row.get("detections") or row.get("classification") or []:
            box = " ".join(f"{value:.0f}" for value in item.get("xyxy", ()))
            print(f"  {item['confidence']:.3f} {item['label']} {box}".rstrip())
