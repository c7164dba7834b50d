"""Rows of the report's tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from types import MappingProxyType

from edgecv.bundles.metric_names import in_words
from edgecv.quantize.record import Comparison, ErrorSource, Labelled, RoundingRecord
from edgecv.quantize.report.charts import bar

MOST_CLASSES = 20
_SOURCES: Mapping[str, str] = MappingProxyType(
    {
        "weights": "weights",
        "after_silu": "tensors after a SiLU",
        "before_silu": "tensors before a SiLU",
        "sigmoid": "sigmoids",
        "concatenations": "concatenations",
        "additions": "additions",
        "activations": "tensors after a ReLU or the like",
        "convolutions": "convolutions without an activation",
        "copies": "copies (splits, maximum pooling, resizing)",
        "outputs": "outputs",
        "others": "others",
    }
)


def figure_rows(found: Labelled) -> list[tuple[str, str]]:
    """Further figures against labels, with their names in words."""
    return [(in_words(name), f"{value:.3f}") for name, value in found.more.items()]


def class_rows(found: Labelled) -> list[tuple[str, ...]]:
    """What the classes that lost most lost, in points."""
    return [
        (
            each.label,
            f"{100 * each.float_score:.1f}",
            f"{100 * each.int8_score:.1f}",
            f"{100 * (each.float_score - each.int8_score):+.1f}",
            str(each.count),
        )
        for each in found.classes[:MOST_CLASSES]
    ]


def comparison_rows(comparisons: Sequence[Comparison]) -> list[tuple[str, ...]]:
    """What each two recipes gave on the same images and seeds, with their intervals, and whether that shows a difference."""
    return [
        (
            f"{found.second} against {found.first}",
            f"{found.error_ratio:.2f} times ({found.error_low:.2f} to {found.error_high:.2f})",
            f"{found.f1_gain:+.3f} ({found.f1_low:+.3f} to {found.f1_high:+.3f})",
            f"{found.second} is {found.shown}" if found.shown else "no difference shown",
        )
        for found in comparisons
    ]


def source_rows(sources: Sequence[ErrorSource]) -> list[tuple[str, ...]]:
    """Bars of what each kind of rounding does alone, as a share of what all of it does; the largest first."""
    whole = next((source.error for source in sources if source.kind == "all"), 0.0)
    shares = [(source, source.error / whole if whole else 0.0) for source in sources if source.kind != "all"]
    return [
        (_SOURCES.get(source.kind, source.kind), bar(share), f"{share:.0%}", str(source.tensors or "–"))
        for source, share in shares
    ]


def rounding_told(found: RoundingRecord) -> str:
    """How many layers were rounded before the export, and what it gained."""
    pairs = [(one.error, one.nearest_error) for one in found.layers if not one.reason]
    ratios = [error / nearest for error, nearest in pairs if error is not None and nearest]
    gained = f" That leaves {median(ratios):.0%} of the squared error (median over the layers)." if ratios else ""
    return (
        f"The weights of {len(pairs)} of {len(found.layers)} layers were rounded before the export, so that their outputs change "
        f"least, instead of each weight to its nearest step.{gained}"
    )


def unrounded_rows(found: RoundingRecord) -> list[tuple[str, ...]]:
    """Layers that were left to the quantizer, and why."""
    return [(one.name, one.reason) for one in found.layers if one.reason]
