"""What lies in a bundle beside its models: golden vectors and the model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edgecv import registry
from edgecv.bundle import Manifest, Variant
from edgecv.converters.source import Example
from edgecv.golden import GOLDEN, exact_options, sample
from edgecv.model import runtimes_for
from edgecv.protocols import Array

MODEL_CARD = "MODEL_CARD.md"


def write_golden(folder: Path, variants: Sequence[Variant], examples: Mapping[str, Example]) -> Path:
    """Run every variant on one picture, whose inputs to each part ``examples`` has, and keep what came out."""
    vectors: dict[str, Array] = {}
    for variant in variants:
        for part, files in variant.models.items():
            runtime = runtimes_for(variant.format)[0]
            session = registry.resolve("runtimes", runtime)(
                folder / files.files[0].path, exact_options(runtime), files.inputs, files.outputs
            )
            named = dict(zip((spec.name for spec in files.inputs), examples[part].feeds.values(), strict=True))
            given = session.run(named)
            session.close()
            vectors |= {f"{variant.name}/{part}/in/{name}": value for name, value in named.items()}
            vectors |= {f"{variant.name}/{part}/out/{name}": sample(value) for name, value in given.items()}
    path = folder / GOLDEN
    np.savez_compressed(path, **vectors)  # type: ignore[arg-type]  # names are ours, never `allow_pickle`
    return path


def write_model_card(folder: Path, manifest: Manifest) -> Path:
    """Say for people what the bundle is for, how good it is, and where it ends."""
    path = folder / MODEL_CARD
    path.write_text("\n".join(_card(manifest)) + "\n", encoding="utf-8")
    return path


def _card(manifest: Manifest) -> list[str]:
    width, height = manifest.preprocess.size_wh
    calibration = manifest.calibration
    lines = [
        f"# {manifest.name}",
        "",
        f"A `{manifest.decode.task}` model of the family `{manifest.family}`, converted by EdgeCV from `{manifest.source.file}` "
        f"(sha256 `{manifest.source.sha256}`).",
        "",
        "## Intended use",
        "",
        f"Pictures are brought to {width}x{height} ({manifest.preprocess.resize}). {_knows(manifest.decode.labels)}",
        "",
        f"Licence of the weights: **{manifest.licence}**.",
        "",
        "## Variants",
        "",
        "| variant | recipe | size | one thread | float: against the source; INT8: against float |",
        "|---|---|---|---|---|",
        *(_row(variant) for variant in manifest.variants),
        "",
        "Latency was measured on the machine that converted; measure on yours: `edgecv bench`.",
        "",
        "## Calibration",
        "",
    ]
    judged = any(variant.recipe for variant in manifest.variants)
    if calibration is None:
        lines.append("None: float variants only.")
    elif not judged:
        lines.append(
            f"{calibration.images} images (sha256 `{calibration.sha256}`); the float variants were compared with their source "
            "on some of them."
        )
    else:
        lines.append(
            f"{calibration.images} images (sha256 `{calibration.sha256}`), {calibration.held_out} of them held out to judge "
            "INT8 by. Agreement is with the float model; `report.html` says what was lost on labels, where there were some."
        )
    lines += ["", "## Limits", ""]
    if judged:
        lines.append("INT8 was judged on pictures like those of the calibration set. On others it may do worse.")
    lines += [f"- assumed, since the source does not say: {assumption}" for assumption in manifest.assumptions]
    return lines


def _knows(labels: tuple[str, ...]) -> str:
    if not labels:
        return "It marks what points or boxes ask for; it knows no classes."
    return f"It knows {len(labels)} classes: {', '.join(labels[:20])}{' ...' if len(labels) > 20 else ''}."


def _row(variant: Variant) -> str:
    size = sum(entry.bytes for model in variant.models.values() for entry in model.files)
    metrics = ", ".join(f"{name} {value:.3f}" for name, value in variant.metrics.items()) or "-"
    latency = f"{variant.latency_ms:.1f} ms" if variant.timed else f"not timed: for {variant.target}"
    return f"| {variant.name} | {variant.recipe or '-'} | {size / 1e6:.2f} MB | {latency} | {metrics} |"
