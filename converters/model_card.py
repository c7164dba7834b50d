"""Writes the model card of a bundle: what it is for, how good it is, and where it ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from edgecv.bundles.accelerators import notes_on
from edgecv.bundles.manifest import Manifest, Variant
from edgecv.converters.source import RANDOM
from edgecv.promptable import MAX_BOXES
from edgecv.vision.input_shapes import shape_name

MODEL_CARD = "MODEL_CARD.md"
_PURPOSES: Mapping[str, str] = MappingProxyType(
    {
        "detect": "Finds the objects of its classes in an image, an upright box each.",
        "segment": "Finds the objects of its classes in an image, a box and a mask each.",
        "pose": "Finds the objects of its classes in an image, a box and keypoints each.",
        "obb": "Finds the objects of its classes in an image seen from above, a rotated box each.",
        "classify": "Names the class of a whole image.",
        "promptable-segment": "Marks the object that points or a box in an image ask for.",
    }
)


def write_model_card(folder: Path, manifest: Manifest) -> Path:
    """Say for people what the bundle is for, how good it is, and where it ends."""
    path = folder / MODEL_CARD
    path.write_text("\n".join(_card(manifest)) + "\n", encoding="utf-8")
    return path


def _card(manifest: Manifest) -> list[str]:
    calibration = manifest.calibration
    lines = [
        f"# {manifest.name}",
        "",
        f"A `{manifest.decode.task}` model of the family `{manifest.family}`, converted by EdgeCV from `{manifest.source.file}` "
        f"(sha256 `{manifest.source.sha256}`).",
        "",
        "## Intended use",
        "",
        f"{_PURPOSES[manifest.decode.task]} {_knows(manifest.decode.labels)}",
        "",
        f"Before it decides anything that matters, {_judging(manifest)}. EdgeCV proves that the conversion keeps what the source "
        "model does, not that the source model is right.",
        "",
        f"Licence of the weights: **{manifest.licence}**.",
        "",
        "## Variants",
        "",
        "| variant | input | recipe | size | one thread | float: against the source; INT8: against float |",
        "|---|---|---|---|---|---|",
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
    return [*lines, "", "## Limits", "", *(f"- {limit}" for limit in _limits(manifest))]


def _limits(manifest: Manifest) -> Iterator[str]:
    """Where the model ends, and what nobody has looked at."""
    sizes = " or ".join(dict.fromkeys(shape_name(variant.size_wh) for variant in manifest.variants))
    yield f"Images are brought to {sizes} ({manifest.preprocess.resize}): what is a few pixels small there is not seen."
    if manifest.source.file.endswith(RANDOM):
        yield "Its weights are random: it knows nothing, and proves that the conversion works."
    if manifest.decode.task == "promptable-segment":
        yield f"One call takes {_most_points(manifest)} points of one object, or {MAX_BOXES} boxes of one object each."
    if any(variant.recipe for variant in manifest.variants):
        yield "INT8 was judged on images like those of the calibration set. On others it may do worse."
    for variant in manifest.variants:
        if notes := notes_on(variant):
            yield f"{variant.name}: {' '.join(notes)}"
        elif variant.cpu_class:
            yield f"{variant.name} is built for CPUs of the class `{variant.cpu_class}`; others may run it slowly or less exactly."
    if not any(name.endswith("_drop") for variant in manifest.variants for name in variant.metrics):
        yield "Nothing was judged on labels: its accuracy is what its source has, less what the table shows."
    for assumption in manifest.assumptions:
        yield f"Assumed, since the source does not say: {assumption}"


def _judging(manifest: Manifest) -> str:
    """What its user should do first; labels cannot judge what answers prompts."""
    if manifest.decode.task == "promptable-segment":
        return "look at its masks on images of your own"
    return "judge it on labelled images of your own: `edgecv eval BUNDLE --data DIR`"


def _most_points(manifest: Manifest) -> int:
    """The decoder's slots, but for the one that ends the points."""
    inputs = manifest.variants[0].models["decoder"].inputs
    return next(spec.shape[1] for spec in inputs if spec.role == "point_labels") - 1


def _knows(labels: tuple[str, ...]) -> str:
    if not labels:
        return "It knows no classes."
    return f"It knows {len(labels)} classes: {', '.join(labels[:20])}{' ...' if len(labels) > 20 else ''}."


def _row(variant: Variant) -> str:
    metrics = ", ".join(f"{name} {_figure(value)}" for name, value in variant.metrics.items()) or "-"
    latency = f"{variant.latency_ms:.1f} ms" if variant.timed else f"not timed: for {variant.cpu_class}"
    made = f"{shape_name(variant.size_wh)} | {variant.recipe or '-'} | {variant.bytes / 1e6:.2f} MB"
    return f"| {variant.name} | {made} | {latency} | {metrics} |"


def _figure(value: float) -> str:
    return f"{value:.4f}" if abs(value) >= 0.001 else f"{value:.6f}"
