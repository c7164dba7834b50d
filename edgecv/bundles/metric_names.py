"""Short names of figures, as tables show them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

METRIC_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "f1_50": "F1@0.5",
        "f1_75": "F1@0.75",
        "matched_iou": "box IoU",
        "score_bias": "score bias",
        "source_cosine": "cosine with source",
        "source_worst": "worst element",
        "output_cosine": "cosine with float",
        "map50_95": "mAP50-95",
        "map50": "mAP50",
        "mask_map50_95": "mask mAP50-95",
        "mask_map50": "mask mAP50",
        "map50_95_drop": "mAP points lost",
        "mask_map50_95_drop": "mask mAP points lost",
        "top1": "top-1",
        "top5": "top-5",
        "top1_drop": "top-1 points lost",
        "embedding_cosine": "embedding cosine",
        "mask_iou": "mask IoU",
        "top1_agreement": "same class",
        "label_f1": "label F1",
        "top1_lower_bound": "at least",
    }
)
