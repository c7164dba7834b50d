"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgecv.media.image_headers import set_max_megapixels

Runtime = Annotated[str, typer.Option(help="auto or a runtime: see `edgecv plugins`.")]
Precision = Annotated[str, typer.Option(help="auto, fp32, fp16, int8, or bf16: float32 files in bfloat16.")]
Threads = Annotated[int, typer.Option(min=0, max=1024, help="Threads of the session; 0 lets the runtime choose.")]
Confidence = Annotated[float | None, typer.Option(help="Lowest confidence kept. Default: the bundle's own.")]
Iou = Annotated[float | None, typer.Option(help="Overlap above which two boxes are one. Default: the bundle's own.")]
MaxMegapixels = Annotated[
    float | None,
    typer.Option(help="Largest picture or frame that is decoded, in megapixels. Default: 64."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def limit_pictures(megapixels: float | None) -> None:
    """Set the limit of the process, if one was given: pictures are read far from the command.

    Raises:
        ConfigError: it is out of range.
    """
    if megapixels is not None:
        set_max_megapixels(megapixels)


def model_options(
    bundle: Path | None,
    runtime: str | None,
    precision: str | None,
    threads: int | None,
    conf: float | None,
    iou: float | None,
    classes: str | None,
) -> dict[str, Any]:
    """What options say of ``[model]`` in ``app.toml``, by the names there; those that were not given are left out."""
    options = {
        "bundle": None if bundle is None else str(bundle),
        "runtime": runtime,
        "precision": precision,
        "threads": threads,
        "confidence": conf,
        "iou": iou,
        "classes": [name.strip() for name in classes.split(",") if name.strip()] if classes else None,
    }
    return {name: value for name, value in options.items() if value is not None}
