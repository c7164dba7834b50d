"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Runtime = Annotated[str, typer.Option(help="auto or a runtime: see `edgecv plugins`.")]
Precision = Annotated[str, typer.Option(help="auto, fp32, fp16 or int8.")]
Threads = Annotated[int, typer.Option(min=0, help="Threads of the session; 0 lets the runtime choose.")]
Confidence = Annotated[float | None, typer.Option(help="Lowest confidence kept. Default: the bundle's own.")]
Iou = Annotated[float | None, typer.Option(help="Overlap above which two boxes are one. Default: the bundle's own.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
