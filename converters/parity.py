"""Proof that an export computes what its source computes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np

from edgecv._internal.progress import Progress, counted
from edgecv.bundles.golden import cosine
from edgecv.converters.families import ultralytics_import
from edgecv.converters.source import TOLERANCES, Example, Part, SourceModel, Tolerance
from edgecv.errors import ParityError
from edgecv.media.images import read_image
from edgecv.protocols import Array, Session, Tensors
from edgecv.quantize.calibration.calibration_set import CalibrationSet
from edgecv.quantize.quantizer import Exported
from edgecv.specs import TensorSpec
from edgecv.vision.letterbox import fit

PARITY_FILE = "parity.json"  # beside the model that was compared
_IMAGES = 3


class OutputParity(msgspec.Struct, frozen=True, kw_only=True):
    """One output of a part over all images."""

    part: str
    name: str
    cosine: float  # the lowest
    worst: float  # the largest difference of one element, as a part of the largest magnitude that the source gives
    worst_absolute: float  # that difference itself


def parity_examples(
    source: SourceModel, calibration: CalibrationSet | None, progress: Progress
) -> tuple[Mapping[str, Example], ...]:
    """What the source makes of held-out images; without any, of the photographs in Ultralytics' package and, last, of noise.

    Noise reaches every weight, and may be kept in a bundle (golden vectors) where those photographs may not.
    """
    spec = source.spec.preprocess
    most = max(1, _IMAGES // source.batch)  # a batch shifts its image from row to row
    paths = calibration.held_out if calibration is not None else ultralytics_import.photographs()
    width, height = spec.size_wh
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    images = [fit(read_image(path), spec)[0] for path in paths[:most]]
    if calibration is None:
        images.append(noise)
    return tuple(source.examples(image) for image in counted(progress, "Running the source", images))


def check_parity(
    part: Part,
    exported: Exported,
    session: Session,
    examples: Iterable[Example],
    tolerance: Tolerance = TOLERANCES["fp32"],
) -> tuple[OutputParity, ...]:
    """Compare an export with its source in fp32; ``ParityError`` where an output differs by more than the tolerance."""
    compared: dict[str, list[OutputParity]] = defaultdict(list)
    for example in examples:
        for name, given in outputs_of(part, exported, session, example.feeds).items():
            compared[name].append(_compare(part.name, name, example.outputs[name], given))
    found = tuple(_worst(images) for images in compared.values())
    bad = [p for p in found if p.cosine < tolerance.cosine or p.worst > tolerance.worst]
    if bad:
        listed = ", ".join(
            f"{p.name} cosine {p.cosine:.6f}, worst element {p.worst_absolute:.4g} ({p.worst:.2%} of the largest)"
            for p in bad
        )
        raise ParityError(f"The export of {part.name} differs from its source: {listed}.", "Nothing was written.")
    return found


def outputs_of(part: Part, exported: Exported, session: Session, feed: Tensors) -> dict[str, Array]:
    """Run an export on feeds of its part; outputs as real numbers under the part's names and in its layout.

    They are copies: what onnxruntime hands out keeps all the memory of its session, gigabytes for a SAM.
    """
    inputs = zip(part.inputs, exported.inputs, strict=True)
    given = session.run({theirs.name: feed[ours.name] for ours, theirs in inputs})
    outputs = zip(part.outputs, exported.outputs, strict=True)
    return {ours.name: _as_source(given[theirs.name], ours, theirs) for ours, theirs in outputs}


def _as_source(tensor: Array, ours: TensorSpec, theirs: TensorSpec) -> Array:
    real = tensor.astype(np.float32)
    if theirs.scale is not None:
        real = (real - (theirs.zero_point or 0)) * theirs.scale
    return real.transpose(0, 3, 1, 2) if (ours.layout, theirs.layout) == ("NCHW", "NHWC") else real


def _compare(part: str, name: str, wanted: Array, given: Array) -> OutputParity:
    worst = float(np.abs(wanted.astype(np.float64) - given.astype(np.float64)).max())
    largest = float(np.abs(wanted).max())
    return OutputParity(
        part=part,
        name=name,
        cosine=cosine(wanted, given),
        worst=worst / largest if largest else worst,
        worst_absolute=worst,
    )


def _worst(images: Sequence[OutputParity]) -> OutputParity:
    """Of one output, the worst of each figure."""
    return msgspec.structs.replace(
        images[0],
        cosine=min(image.cosine for image in images),
        worst=max(image.worst for image in images),
        worst_absolute=max(image.worst_absolute for image in images),
    )
