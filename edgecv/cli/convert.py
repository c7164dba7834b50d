"""``edgecv convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecv.bundle import Bundle, Variant
from edgecv.cli.console import megabytes, note, print_json, print_table, progress_for
from edgecv.cli.options import Json
from edgecv.errors import ConfigError


def convert(
    source: Annotated[Path, typer.Argument(help="YOLOv8 detection checkpoint (.pt) or .onnx.")],
    int8: Annotated[bool, typer.Option("--int8", help="INT8 beside the float variant; needs --calib.")] = False,
    fp32: Annotated[bool, typer.Option("--fp32", help="The float variant alone (the default).")] = False,
    to: Annotated[list[str] | None, typer.Option(help="Format to write; may be repeated. Default: onnx.")] = None,
    calib: Annotated[Path | None, typer.Option(help="Folder of images or data.yaml to calibrate with.")] = None,
    imgsz: Annotated[str | None, typer.Option(help="Input size: 640 or 640x384. Default: the model's own.")] = None,
    out: Annotated[Path | None, typer.Option(help="Bundle to write. Default: NAME.ecv here.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing bundle.")] = False,
    trust_pickle: Annotated[
        bool, typer.Option("--trust-pickle", help="Run the code in a checkpoint that needs it. Only if you trust it.")
    ] = False,
    json: Json = False,
) -> None:
    """Convert a model to a bundle whose accuracy is proven; nothing is written that fails its gate (exit code 3)."""
    from edgecv.converters.convert import convert as convert_model

    if int8 and fp32:
        raise ConfigError("--int8 and --fp32 exclude each other.", "--int8 writes the float variant as well.")
    with progress_for(json) as progress:
        bundle = convert_model(
            source,
            formats=tuple(to or ("onnx",)),
            precision="int8" if int8 else "fp32",
            calibration=calib,
            out=out,
            imgsz=parse_size(imgsz),
            force=force,
            trust_pickle=trust_pickle,
            progress=progress,
        )
    if json:
        print_json(bundle_summary(bundle))
    else:
        _show(bundle)


def parse_size(text: str | None) -> tuple[int, int] | None:
    """``640`` or ``640x384`` as width and height.

    Raises:
        ConfigError: it is neither.
    """
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdigit() for part in parts):
        raise ConfigError(f"'{text}' is not an input size.", "Use --imgsz 640 or --imgsz 640x384.")
    return int(parts[0]), int(parts[-1])


def bundle_summary(bundle: Bundle) -> dict[str, object]:
    """A bundle for ``--json``."""
    manifest = bundle.manifest
    return {
        "path": str(bundle.path),
        "name": manifest.name,
        "family": manifest.family,
        "task": manifest.decode.task,
        "labels": list(manifest.decode.labels),
        "size_wh": list(manifest.preprocess.size_wh),
        "confidence": manifest.decode.confidence,
        "licence": manifest.licence,
        "source": {"file": manifest.source.file, "sha256": manifest.source.sha256},
        "tools": manifest.tools,
        "variants": [
            {
                "name": variant.name,
                "format": variant.format,
                "precision": variant.precision,
                "target": variant.target,
                "recipe": variant.recipe,
                "bytes": size_bytes(variant),
                "latency_ms": variant.latency_ms,
                "metrics": variant.metrics,
            }
            for variant in bundle.variants
        ],
    }


def size_bytes(variant: Variant) -> int:
    """Size of every file of a variant."""
    return sum(entry.bytes for model in variant.models.values() for entry in model.files)


def variant_rows(bundle: Bundle) -> list[list[str]]:
    """A row per variant: name, size, one-thread latency, agreement with the float model."""
    base = next((variant for variant in bundle.variants if variant.precision == "fp32"), bundle.variants[0])
    return [
        [
            variant.name,
            f"{megabytes(size_bytes(variant))} ({size_bytes(variant) / size_bytes(base):.2f}x)",
            f"{variant.latency_ms:.1f} ms ({variant.latency_ms / base.latency_ms:.2f}x)",
            *(f"{variant.metrics[name]:.3f}" if name in variant.metrics else "-" for name in METRICS),
            variant.recipe or "-",
        ]
        for variant in bundle.variants
    ]


METRICS = ("f1_50", "f1_75", "matched_iou", "score_bias")
COLUMNS = ("variant", "size", "one thread", "F1@0.5", "F1@0.75", "box IoU", "score bias", "recipe")


def _show(bundle: Bundle) -> None:
    print_table(f"{bundle.path}", COLUMNS, variant_rows(bundle))
    images = bundle.manifest.calibration
    if images and any(variant.metrics for variant in bundle.variants):
        print(
            f"Agreement with the float model on {images.held_out} images that calibration did not see"
            f" (calibrated on {images.images - images.held_out})."
        )
    if bundle.manifest.licence.startswith("AGPL"):
        note(f"The weights are under {bundle.manifest.licence}: see docs/licences.md before you ship them.")
    print(f"Run it:  edgecv run {bundle.path} --source 0")
