"""How a bundle is shown: as a table and as JSON."""

from __future__ import annotations

from edgecv._internal.printable import printable
from edgecv.bundles.accelerators import notes_on
from edgecv.bundles.bundle import Bundle
from edgecv.bundles.metric_names import figures
from edgecv.cli.console import megabytes


def bundle_summary(bundle: Bundle) -> dict[str, object]:
    """Describe a bundle as the dict that ``--json`` prints."""
    manifest = bundle.manifest
    return {
        "path": str(bundle.path),
        "name": manifest.name,
        "family": manifest.family,
        "task": manifest.decode.task,
        "labels": list(manifest.decode.labels),
        "size_wh": list(bundle.spec.preprocess.size_wh),  # of the model itself; --fit adds others
        "confidence": manifest.decode.confidence,
        "float_precision": "float32",  # of layers that are not in integers, on CPUs, unless another is asked for
        "licence": manifest.licence,
        "assumptions": list(manifest.assumptions),
        "source": {"file": manifest.source.file, "sha256": manifest.source.sha256},
        "tools": manifest.tools,
        "variants": [
            {
                "name": variant.name,
                "format": variant.format,
                "precision": variant.precision,
                "size_wh": list(variant.size_wh),
                "target": variant.cpu_class,
                "recipe": variant.recipe,
                "notes": list(notes_on(variant)),
                "bytes": variant.bytes,
                "parts": {part: sum(entry.bytes for entry in files.files) for part, files in variant.models.items()},
                "latency_ms": variant.latency_ms,
                "metrics": variant.metrics,
            }
            for variant in bundle.variants
        ],
    }


def variant_rows(bundle: Bundle) -> list[list[str]]:
    """A row per variant: name, size, one-thread latency, agreement with the source or the float model.

    Sizes and times are compared with the first float variant that has the same input shape.
    """
    floats = [variant for variant in bundle.variants if variant.precision == "fp32"] or bundle.variants
    bases = {size_wh: next((v for v in floats if v.size_wh == size_wh), floats[0]) for size_wh in bundle.sizes_wh}
    return [
        [
            variant.name,
            f"{megabytes(variant.bytes)} ({variant.bytes / bases[variant.size_wh].bytes:.2f}x)",
            f"{variant.latency_ms:.1f} ms ({variant.latency_ms / bases[variant.size_wh].latency_ms:.2f}x)"
            if variant.timed
            else f"- (for {variant.cpu_class})",
            figures(variant.metrics) or "-",
            variant.recipe or "-",
        ]
        for variant in bundle.variants
    ]


COLUMNS = ("variant", "size", "one thread", "agreement", "recipe")


def accelerator_lines(bundle: Bundle) -> list[str]:
    """What was not proven of variants for accelerators, and what is left to do; a line each."""
    return [f"{variant.name}: {printable(said)}" for variant in bundle.variants for said in notes_on(variant)]
