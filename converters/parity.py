"""Proof that an export computes what its source computes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from edgecv.converters.source import Example, Exported, Part, SourceModel
from edgecv.errors import ParityError
from edgecv.golden import cosine
from edgecv.media import read_image
from edgecv.progress import Progress
from edgecv.protocols import Array, Session, Tensors
from edgecv.quantize.calibration import CalibrationSet
from edgecv.specs import TensorSpec
from edgecv.vision.letterbox import fit

# fp16 keeps eleven bits of each weight; errors add up over sixty layers.
MINIMUM_COSINE: Mapping[str, float] = {"fp32": 0.9999, "fp16": 0.999}
_PICTURES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputParity:
    """One output over all pictures: lowest cosine, and the largest difference of one element."""

    name: str
    cosine: float
    worst: float


def parity_examples(
    source: SourceModel, calibration: CalibrationSet | None, progress: Progress
) -> tuple[Mapping[str, Example], ...]:
    """What the source makes of held-out images; without any, of a picture of noise, which reaches every weight as well."""
    spec = source.spec.preprocess
    most = max(1, _PICTURES // source.batch)  # a batch shifts its picture from row to row
    paths = calibration.held_out[:most] if calibration is not None else ()
    width, height = spec.size_wh
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    pictures = [fit(read_image(path), spec)[0] for path in paths] or [noise]
    found = []
    for done, picture in enumerate(pictures):
        progress("Running the source", done, len(pictures))
        found.append(source.examples(picture))
    progress("Running the source", len(pictures), len(pictures))
    return tuple(found)


def check_parity(
    part: Part, exported: Exported, session: Session, examples: Iterable[Example], precision: str = "fp32"
) -> tuple[OutputParity, ...]:
    """Compare an export with its source.

    Args:
        part: The source.
        exported: The export.
        session: A session of the export, computing in fp32.
        examples: What the source makes of each picture.
        precision: Of the export's weights.

    Raises:
        ParityError: an output differs.
    """
    found: dict[str, OutputParity] = {}
    for example in examples:
        for name, given in outputs_of(part, exported, session, example.feeds).items():
            parity = _compare(name, example.outputs[name], given)
            before = found.get(name, parity)
            found[name] = OutputParity(
                name=name, cosine=min(parity.cosine, before.cosine), worst=max(parity.worst, before.worst)
            )
    bad = [parity for parity in found.values() if parity.cosine < MINIMUM_COSINE[precision]]
    if bad:
        listed = ", ".join(f"{p.name} cosine {p.cosine:.6f}, worst element {p.worst:.4g}" for p in bad)
        raise ParityError(f"The export of {part.name} differs from its source: {listed}.", "Nothing was written.")
    return tuple(found.values())


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


def _compare(name: str, wanted: Array, given: Array) -> OutputParity:
    worst = float(np.abs(wanted.astype(np.float64) - given.astype(np.float64)).max())
    return OutputParity(name=name, cosine=cosine(wanted, given), worst=worst)
