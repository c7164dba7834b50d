"""``edgecv eval``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgecv.bundle import Bundle
from edgecv.cli.console import print_json, print_table, progress_for
from edgecv.cli.options import Json, Precision, Runtime, Threads


def eval(  # noqa: A001  (the name of the command)
    bundle: Annotated[Path, typer.Argument(help="Bundle to judge.")],
    data: Annotated[Path, typer.Option(help="data.yaml, or a folder with images/ and labels/.")],
    runtime: Runtime = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Measure COCO mAP of every variant on labelled images that calibration did not see."""
    from edgecv.model import open_variant, runnable, runtime_options
    from edgecv.quantize.evaluate import evaluate, labelled_images

    images = labelled_images(data)
    opened = Bundle.open(bundle)
    options = runtime_options(runtime=runtime, precision=precision, threads=threads)
    rows: list[dict[str, Any]] = []
    with progress_for(json) as progress:
        for variant, name in runnable(opened, options):
            with open_variant(opened, variant, options, name) as model:
                found = evaluate(model, images, progress)
            rows.append({"variant": variant.name, "runtime": name, "map50_95": found.map50_95, "map50": found.map50})
    if json:
        print_json({"bundle": str(bundle), "data": str(data), "images": len(images), "variants": rows})
        return
    print_table(
        f"{bundle} on {len(images)} images of {data}",
        ("variant", "runtime", "mAP50-95", "mAP50"),
        [[row["variant"], row["runtime"], f"{row['map50_95']:.4f}", f"{row['map50']:.4f}"] for row in rows],
    )
