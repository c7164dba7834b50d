"""Names of figures: short ones for tables, and words for the report."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_NAMES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "f1_50": ("F1@0.5", "same boxes (F1 at IoU 0.5)"),
        "f1_75": ("F1@0.75", "same boxes, tightly (F1 at IoU 0.75)"),
        "matched_iou": ("box IoU", "overlap of the same boxes (IoU)"),
        "score_bias": ("score bias", "change of confidence"),
        "source_cosine": ("cosine with source", "likeness to the source (cosine)"),
        "source_worst": ("worst element", "worst element against the source"),
        "output_cosine": ("cosine with float", "likeness of raw outputs (cosine)"),
        "logit_error": ("score error", "mean squared error of the class scores before the sigmoid"),
        "logit_noise": ("score noise", "squared error of the class scores, as a share of their variance"),
        "map50_95": ("mAP50-95", "mAP50-95"),
        "map50": ("mAP50", "mAP50"),
        "mask_map50_95": ("mask mAP50-95", "mask mAP50-95"),
        "mask_map50": ("mask mAP50", "mask mAP50"),
        "map50_95_drop": ("mAP points lost", "points of mAP50-95 lost on labels"),
        "mask_map50_95_drop": ("mask mAP points lost", "points of mask mAP50-95 lost on labels"),
        "top1": ("top-1", "top-1 accuracy"),
        "top5": ("top-5", "top-5 accuracy"),
        "top1_drop": ("top-1 points lost", "points of top-1 lost on labels"),
        "embedding_cosine": ("embedding cosine", "likeness of embeddings (cosine)"),
        "mask_iou": ("mask IoU", "overlap of masks (IoU)"),
        "top1_agreement": ("same class", "same best class"),
        "label_f1": ("label F1", "same labels (F1 at half confidence)"),
        "top1_lower_bound": ("at least", "same best class, at least"),
    }
)
_KINDS: Mapping[str, str] = MappingProxyType({"float": "float", "int8": "INT8"})


def short_name(metric: str) -> str:
    """What a column of a table calls a figure."""
    return _NAMES.get(metric, (metric,))[0]


def figures(metrics: Mapping[str, float]) -> str:
    """Figures with their short names, such as ``F1@0.5 0.981``; empty where there are none."""
    return ", ".join(f"{short_name(name)} {value:.3f}" for name, value in metrics.items())


def in_words(metric: str) -> str:
    """A figure in words for the report; ``float_map50`` is ``mAP50 of float``."""
    kind, _, inner = metric.partition("_")
    if kind in _KINDS and inner in _NAMES:
        return f"{in_words(inner)} of {_KINDS[kind]}"
    return _NAMES.get(metric, (metric,))[-1]
