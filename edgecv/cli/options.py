"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecv.media.image_headers import set_max_megapixels

_RUNTIME = typer.Option(help="auto or a runtime: see `edgecv plugins`.")
_PRECISION = typer.Option(help="auto, fp32, fp16, int8, or bf16: float32 files in bfloat16.")
_THREADS = typer.Option(min=0, max=1024, help="Threads of the session; 0: what tune found, else the runtime chooses.")
Runtime = Annotated[str, _RUNTIME]
Precision = Annotated[str, _PRECISION]
Threads = Annotated[int, _THREADS]
# The same where app.toml has a say, too: what is not given leaves it to the file.
AppRuntime = Annotated[str | None, _RUNTIME]
AppPrecision = Annotated[str | None, _PRECISION]
AppThreads = Annotated[int | None, _THREADS]
AppBundle = Annotated[Path | None, typer.Argument(help="Bundle, or a bare model file that carries metadata.")]
Classes = Annotated[str | None, typer.Option(help="Names or numbers of the classes to keep, with commas.")]
MaxFrames = Annotated[int | None, typer.Option(min=1, help="Stop after so many frames.")]
Confidence = Annotated[float | None, typer.Option(help="Lowest confidence kept. Default: the bundle's own.")]
Iou = Annotated[float | None, typer.Option(help="Overlap above which two boxes are one. Default: the bundle's own.")]
MaxMegapixels = Annotated[
    float | None,
    typer.Option(help="Largest image or frame that is decoded, in megapixels. Default: 64."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def limit_images(megapixels: float | None) -> None:
    """Set the limit of the process, if one was given: images are read far from the command.

    Raises:
        ConfigError: it is out of range.
    """
    if megapixels is not None:
        set_max_megapixels(megapixels)
