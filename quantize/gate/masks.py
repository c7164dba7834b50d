"""Agreement of two SAMs: the same prompts on the same held-out images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecv._internal.progress import Progress, silent
from edgecv.bundles.golden import cosine
from edgecv.errors import CalibrationError
from edgecv.media.images import read_image
from edgecv.promptable import PromptableModel
from edgecv.protocols import Array
from edgecv.quantize.gate.accuracy_gate import GateReport
from edgecv.quantize.recipes import GateLimits
from edgecv.quantize.record import Check
from edgecv.results import BoolArray

GRID = 3  # prompts per side of the image
IMAGES = 16  # an encoder takes seconds for each


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MaskAnswer:
    """One image: ``embeddings`` and ``masks`` ``(GRID**2, H, W)``, one per point of a grid."""

    embeddings: Array
    masks: BoolArray


def mask_answers(
    model: PromptableModel, images: Sequence[Path], step: str, progress: Progress = silent
) -> tuple[MaskAnswer, ...]:
    """What a model answers to a grid of single points in each of the first ``IMAGES`` images."""
    chosen = images[:IMAGES]
    found = []
    for done, path in enumerate(chosen):
        progress(step, done, len(chosen))
        found.append(_answer(model, path))
    progress(step, len(chosen), len(chosen))
    return tuple(found)


def judge_masks(
    teacher: Sequence[MaskAnswer], student: Sequence[MaskAnswer], limits: GateLimits, recipe: str, trained: bool = True
) -> GateReport:
    """Mean cosine of the embeddings and mean IoU of the masks, held against the limits.

    The masks of random weights are noise around zero: of an untrained model the embeddings alone count.

    Raises:
        CalibrationError: no held-out image, or the float model marks nothing at all.
    """
    if trained and not any(answer.masks.any() for answer in teacher):
        raise CalibrationError("The float model marks nothing in the held-out images.", "Give more images.")
    pairs = list(zip(teacher, student, strict=True))
    near = float(np.mean([cosine(t.embeddings, s.embeddings) for t, s in pairs]))
    overlap = float(np.mean([_iou(a, b) for t, s in pairs for a, b in zip(t.masks, s.masks, strict=True)]))
    checks = (
        Check.of("embedding_cosine", near, least=limits.embedding_cosine, most=1.0 + 1e-6),
        Check.of("mask_iou", overlap, least=limits.mask_iou if trained else 0.0),
    )
    return GateReport(recipe=recipe, checks=checks)


def _answer(model: PromptableModel, path: Path) -> MaskAnswer:
    image = read_image(path)
    model.set_image(image)
    height, width = image.shape[:2]
    steps = (np.arange(GRID) + 0.5) / GRID
    masks = [model.predict(points=[[x * width, y * height]]).mask for y in steps for x in steps]
    # A copy: what onnxruntime hands out keeps all the memory of its session, gigabytes for a SAM.
    return MaskAnswer(embeddings=model.embeddings.copy(), masks=np.concatenate(masks))


def _iou(first: BoolArray, second: BoolArray) -> float:
    union = int((first | second).sum())
    return float((first & second).sum() / union) if union else 1.0
