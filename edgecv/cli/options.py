"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecv.media.image_headers import set_max_megapixels

BUNDLE = "Bundle to run, or a bare model file that carries metadata."
REPEAT = "May be repeated."
_RUNTIME = typer.Option(help="Runtime that runs the model, or auto. `edgecv plugins` lists them.")
_PRECISION = typer.Option(help="fp32, fp16, int8 or auto. bf16 computes the fp32 files in bfloat16.")
_THREADS = typer.Option(
    min=0, max=1024, help="Threads that run the model. 0: what tune found, else all CPUs it may use."
)
Runtime = Annotated[str, _RUNTIME]
Precision = Annotated[str, _PRECISION]
Threads = Annotated[int, _THREADS]
# The same where app.toml has a say, too: what is not given leaves it to the file.
AppRuntime = Annotated[str | None, _RUNTIME]
AppPrecision = Annotated[str | None, _PRECISION]
AppThreads = Annotated[int | None, _THREADS]
AppComputeDevice = Annotated[
    str | None,
    typer.Option(help="What the model runs on: cpu, cuda, tensorrt, gpu, npu, auto, edgetpu. Never another one."),
]
ComputeDevice = Annotated[str, typer.Option("--device", help="cpu, cuda, tensorrt, gpu, npu, auto or edgetpu.")]
AppBundle = Annotated[Path | None, typer.Argument(help=BUNDLE)]
Classes = Annotated[str | None, typer.Option(help="Keep only these classes: names or numbers, with commas.")]
MaxFrames = Annotated[int | None, typer.Option(min=1, help="Stop after this many frames.")]
Confidence = Annotated[float | None, typer.Option(help="Lowest confidence to keep, 0 to 1. Default: the bundle's own.")]
Iou = Annotated[
    float | None,
    typer.Option(help="Boxes that overlap more than this are one. Default: the bundle's own."),
]
_TILES = typer.Option(help="Look at each image in tiles as well, for small objects: 2x2, 3x2 ... See docs/run.md.")
Tiles = Annotated[str | None, _TILES]
MaxMegapixels = Annotated[
    float | None,
    typer.Option(help="Largest image or frame to decode, in megapixels. Default: 64."),
]
Sources = Annotated[
    list[str] | None,
    typer.Option(
        "--source", help=f"0, csi://0, rtsp://..., http://..., gst:..., FILE.mp4 or images/: see docs/app.md. {REPEAT}"
    ),
]
Out = Annotated[list[str] | None, typer.Option(help=f"Write the results to this sink, such as jsonl:FILE. {REPEAT}")]
SaveVideo = Annotated[
    Path | None, typer.Option("--save", help="Draw what was found on each frame and write this video (.mp4).")
]
ReplaceFiles = Annotated[bool, typer.Option("--force", help="Replace output files that exist.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


def limit_images(megapixels: float | None) -> None:
    """Set the limit of the process, if one was given: images are read far from the command."""
    if megapixels is not None:
        set_max_megapixels(megapixels)
