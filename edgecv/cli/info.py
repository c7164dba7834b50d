"""``edgecv info`` shows what a bundle holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecv.bundles.bundle import Bundle
from edgecv.bundles.cpu_classes import has_bf16
from edgecv.cli.bundle_view import COLUMNS, accelerator_lines, bundle_summary, variant_rows
from edgecv.cli.console import print_json, print_table, say
from edgecv.cli.options import Json
from edgecv.vision.input_shapes import shape_name


def info(
    bundle: Annotated[Path, typer.Argument(help="Bundle to look into; with --lint an .onnx will do.")],
    lint: Annotated[
        str | None,
        typer.Option(
            metavar="TARGET", help="Check its ONNX files against the rules of an accelerator instead: tensorrt."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show what a bundle holds: task, input, labels, variants and their figures. --lint exits with 1 if a rule fails."""
    if lint is not None:
        from edgecv.cli.lint import lint as check

        check(bundle, lint, json)
        return
    opened = Bundle.open(bundle)
    if json:
        print_json(bundle_summary(opened))
        return
    manifest = opened.manifest
    print_table(str(bundle), COLUMNS, variant_rows(opened))
    say(f"family      {manifest.family}, {manifest.decode.task}")
    say(f"input       {_sizes(opened)}, {manifest.preprocess.resize}{_batch(opened)}")
    say(f"labels      {len(manifest.decode.labels)}: {', '.join(manifest.decode.labels[:8])} ...")
    say(f"confidence  {manifest.decode.confidence}")
    say(f"floats      float32 on CPUs; bfloat16 only when asked: --precision bf16 ({_bf16()})")
    say(f"licence     {manifest.licence} (weights)")
    say(f"source      {manifest.source.file}, sha256 {manifest.source.sha256[:12]}...")
    for line in accelerator_lines(opened):
        say(line)
    say(f"made with   {', '.join(f'{name} {version}' for name, version in manifest.tools.items())}")


def _sizes(bundle: Bundle) -> str:
    """Each input size; those that ``--fit`` added follow the model's own."""
    own, *fitted = map(shape_name, bundle.sizes_wh)
    return f"{own} (and {', '.join(fitted)} for cameras that they fit)" if fitted else own


def _bf16() -> str:
    return "this CPU has it" if has_bf16() else "this CPU does not have it"


def _batch(bundle: Bundle) -> str:
    sizes = {variant.models["main"].inputs[0].shape[0] for variant in bundle.variants if "main" in variant.models}
    return f", {max(sizes)} images per run" if max(sizes, default=1) > 1 else ""
