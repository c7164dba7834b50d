"""``edgecv convert --explain``: what would be done, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgecv.converters.request import ConversionRequest, family_of
from edgecv.converters.source import family
from edgecv.quantize.search import RecipeOrder


def steps(request: ConversionRequest) -> list[str]:
    """What ``convert`` would do, in words, without doing it."""
    architecture = family(family_of(request.source)).architecture
    told = [f"Read {request.source} and prepare its network: uint8 pixels in, raw outputs out."]
    if request.options.batch > 1:
        told.append(
            f"Fix its input to {request.options.batch} images per run; the source still computes each on its own, as the proof."
        )
    int8 = "int8" in request.precisions
    orders = {name: request.orders(name, architecture) if int8 else () for name in request.formats}
    if any(recipe.rounding == "gptq" for several in orders.values() for order in several for recipe in order.first):
        told.append(
            "Run calibration images, and round the weights of a copy so that the outputs of each layer change least."
        )
    for name in request.formats:
        told += _of_format(name, request, orders[name])
    told += [
        f"Do the same once more for an input of the shape {width}:{height}: export, proof, ranges and recipes are its own."
        for width, height in request.fits
    ]
    if int8 and architecture == "conv":
        told.append("Of a detector: tune the confidence until INT8 has the float model's precision.")
    told.append("Run every variant on one image and keep what comes out, for `edgecv verify` on the device.")
    return [*told, "Write model card and bundle.json with hashes, flush, and rename the folder into place."]


def _of_format(name: str, request: ConversionRequest, orders: Sequence[RecipeOrder]) -> Iterator[str]:
    images = "held-out images (without --calib on Ultralytics' example photographs)"
    yield f"Export {name} fp32 and compare every output with the source on {images}: cosine >= 0.9999, no element far off."
    if "fp16" in request.precisions_of(name):
        yield f"Store the weights of {name} as fp16 and compare again (cosine >= 0.999)."
    yield from (_told(name, order, request.int8.by_speed) for order in orders)
    if orders and request.int8.strict:
        yield f"Hold {name} against the strict limits of the gate: the error of the class scores before the sigmoid counts as well."
    decides = "" if request.int8.by_speed else ", for the report alone"
    yield f"Time every {name} variant with one thread in a process of its own{decides}."


def _told(model_format: str, order: RecipeOrder, by_speed: bool) -> str:
    """Describe the INT8 search of one format in a sentence."""
    built_for = f" for {order.cpu_class}" if order.cpu_class else ""
    judged = "agrees with the float model on the images that calibration did not see (a quarter, up to half)"
    if order.exact:
        return f"Quantize {model_format}{built_for} by {order.first[0].name}; write nothing unless it {judged}."
    static = order.float_blocks and any(recipe.kind == "static" for recipe in order.first)
    blocks = "the most sensitive blocks float" if static else ""
    names = [*(r.name for r in order.first), *filter(None, [blocks]), *(r.name for r in order.last)]
    return (
        f"Quantize {model_format}{built_for}, recipe by recipe ({' -> '.join(names)}), until one {judged}"
        f"{' and is faster than float here' if by_speed else ''}; write nothing of it when none agrees."
    )
