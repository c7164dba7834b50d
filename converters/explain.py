"""``edgecv convert --explain``: what would be done, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from edgecv.converters.request import (
    check_formats,
    check_source,
    family_of,
    precisions_of,
    quantization_of,
    size_wh_of,
)
from edgecv.converters.source import SourceOptions, family
from edgecv.quantize.recipes import DEFAULT_TARGET
from edgecv.quantize.search import Plan, plans
from edgecv.specs import Precision


def steps(
    source: str | Path,
    formats: Sequence[str],
    precision: Precision | Sequence[Precision],
    batch: int = 1,
    recipes: Sequence[str | Path] = (),
    target: str = DEFAULT_TARGET,
    imgsz: int | tuple[int, int] | None = None,
) -> list[str]:
    """What ``convert`` would do, in words, without doing it.

    Raises:
        ConfigError: the batch or the size is out of its range, or there is no such precision, recipe or target.
        UnknownPlugin: there is no such format.
        UnsupportedSource: there is no such source.
    """
    path = Path(source)
    check_source(path)
    check_formats(formats)
    SourceOptions(batch=batch, size_wh=size_wh_of(imgsz))
    precisions = precisions_of(precision)
    quantization = quantization_of(precisions, formats, recipes, target, analyze=False)
    architecture = family(family_of(path)).architecture
    told = [f"Read {source} and prepare its network: uint8 pixels in, raw outputs out."]
    if batch > 1:
        told.append(
            f"Fix its input to {batch} pictures per run; the source still computes each on its own, as the proof."
        )
    for name in formats:
        planned = plans(name, architecture, quantization.targets, quantization.recipes) if "int8" in precisions else ()
        told += _of_format(name, precisions, planned)
    if "int8" in precisions and architecture == "conv":
        told.append("Of a detector: tune the confidence until INT8 has the float model's precision.")
    told.append("Run every variant on one picture and keep what comes out, for `edgecv verify` on the device.")
    return [*told, "Write model card and bundle.json with hashes, flush, and rename the folder into place."]


def _of_format(name: str, precisions: Sequence[Precision], planned: Sequence[Plan]) -> Iterator[str]:
    pictures = "held-out images (without --calib on Ultralytics' example photographs)"
    yield f"Export {name} fp32 and compare every output with the source on {pictures}: cosine >= 0.9999, no element far off."
    if "fp16" in precisions:
        yield f"Store the weights of {name} as fp16 and compare again (cosine >= 0.999)."
    yield from (_told(name, plan) for plan in planned)
    yield f"Time every {name} variant with one thread in a process of its own."


def _told(model_format: str, plan: Plan) -> str:
    """One ladder in words."""
    built_for = f" for {plan.target}" if plan.target else ""
    judged = "agrees with the float model on the images that calibration did not see (a quarter, up to half)"
    if plan.exact:
        return f"Quantize {model_format}{built_for} by {plan.rungs[0].name}; write nothing unless it {judged}."
    blocks = "the most sensitive blocks float" if any(recipe.kind == "static" for recipe in plan.rungs) else ""
    rungs = [*(r.name for r in plan.rungs), *filter(None, [blocks]), *(r.name for r in plan.last)]
    return (
        f"Quantize {model_format}{built_for}, recipe by recipe ({' -> '.join(rungs)}), until one {judged} and is "
        "faster; write nothing of it when none agrees."
    )
