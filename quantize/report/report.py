"""``report.html``: what a quantization tried and gave, for someone who has never quantized a model.

One file: no script, nothing loaded from elsewhere. Every part is drawn from ``QuantizationRecord`` alone; what the record does not
have is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from edgecv.bundles.metric_names import in_words
from edgecv.quantize.record import (
    Attempt,
    Check,
    FormatRecord,
    Labelled,
    QuantizationRecord,
    WorstImage,
    write_result,
)
from edgecv.quantize.report.charts import Point, bar, pareto, side_by_side
from edgecv.quantize.report.figures import decibels, figure, megabytes, milliseconds, noise, ratio
from edgecv.quantize.report.markup import Markup
from edgecv.quantize.report.rows import (
    MOST_CLASSES,
    class_rows,
    comparison_rows,
    figure_rows,
    rounding_told,
    source_rows,
    unrounded_rows,
)
from edgecv.quantize.report.template import render_report
from edgecv.quantize.report.words import FORMATS, GLOSSARY

_MOST_LAYERS = 12
_FACTS: Mapping[str, str] = MappingProxyType(
    {
        "brightness": "brightness (middle image, 0 to 255)",
        "contrast": "contrast (middle image, 0 to 255)",
        "width_px": "width in pixels (middle image)",
        "height_px": "height in pixels (middle image)",
        "distinct": "images that differ visibly",
        "near_duplicates": "share that look almost like another",
        "unused": "frames left out between the two parts",
    }
)


def write_report(record: QuantizationRecord, path: Path) -> None:
    """Write the report as one self-contained HTML file.

    Raises:
        EdgeCVError: the file cannot be written.
    """
    write_result(path, report_html(record).encode())


def report_html(record: QuantizationRecord) -> str:
    """Render a quantization record as an HTML page."""
    found = record.calibration
    hashed = ("sha256 of the images", found.sha256)
    return render_report(
        "edgecv.quantize.report",
        "convert",
        record=record,
        formats=_parts(record),
        labelled=_is_labelled(record),
        variants=_variants(record),
        chart=_chart(record),
        facts=[*((_FACTS.get(name, name), figure(value)) for name, value in found.facts.items()), hashed],
        glossary=GLOSSARY,
        most_classes=MOST_CLASSES,
        **_HELPERS,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One format of the record, as the template shows it."""

    form: FormatRecord  # its record
    name: str  # its name
    first: int  # number of its first attempt, when all are counted through
    best: Attempt | None  # the attempt that became the variant
    judged: Labelled | None  # what labels say about that attempt, or about the last one that met them
    timed: bool  # whether it is known what leaving a layer float costs
    pairs: tuple[tuple[WorstImage, Markup], ...]  # the worst images that can be shown, and float beside INT8 of each


def _parts(record: QuantizationRecord) -> list[_Part]:
    parts = []
    attempts, images = 1, 1  # counted through all formats
    for form in record.formats:
        best = chosen(form)
        judged = best or next((attempt for attempt in reversed(form.attempts) if attempt.labelled), None)
        pairs = [(image, side_by_side(image, images + at)) for at, image in enumerate(form.worst)]
        parts.append(
            _Part(
                form=form,
                name=_name(form),
                first=attempts,
                best=best,
                judged=judged.labelled if judged is not None else None,
                timed=any(layer.float_cost_ms is not None for layer in form.layers),
                pairs=tuple((image, pair) for image, pair in pairs if pair),
            )
        )
        attempts, images = attempts + len(form.attempts), images + len(form.worst)
    return parts


def _verdict(form: FormatRecord, record: QuantizationRecord) -> str:
    best = chosen(form)
    if best is None:
        reasons = [attempt.reason for attempt in form.attempts if attempt.reason]
        why = f" The last one: {reasons[-1]}." if reasons else ""
        return f"no INT8 variant. {_recipes(len(form.attempts))} kept what was asked for, so none was written.{why}"
    note = f"Note: {best.reason}." if best.reason else ""
    is_fp16 = best.recipe == "fp16"
    ready = "No INT8 recipe passed: fp16 was written." if is_fp16 else f"INT8 is ready (recipe {best.recipe})."
    sentences = (
        ready,
        _speed(form, best, record.by_speed),
        _size(form, best),
        _quality(best, record),
        note,
        *form.notes,
    )
    return " ".join(sentence for sentence in sentences if sentence)


def _recipes(count: int) -> str:
    return "The one recipe that was tried has not" if count == 1 else f"None of the {count} recipes that were tried has"


def _speed(form: FormatRecord, attempt: Attempt, is_the_device: bool) -> str:
    if not attempt.latency_ms or form.float_latency_ms <= 0:
        return ""
    times = form.float_latency_ms / attempt.latency_ms
    spent = f"{attempt.latency_ms:.1f} ms per image where float takes {form.float_latency_ms:.1f} ms"
    if times < 1 and is_the_device:
        return f"It takes {spent}: it is not faster than float on this device."
    if times < 1:
        return f"It takes {spent}: on the machine that converted it is not faster than float. Your device may differ: edgecv tune."
    return f"It takes {spent}: {times:.1f} times as fast."


def _size(form: FormatRecord, attempt: Attempt) -> str:
    if not attempt.bytes or not form.float_bytes:
        return ""
    return f"Its files take {megabytes(attempt.bytes)} instead of {megabytes(form.float_bytes)}."


def _quality(attempt: Attempt, record: QuantizationRecord) -> str:
    if attempt.labelled is not None:
        return _loss(attempt.labelled)
    main = _main_check(attempt)
    if main is None:
        return ""
    return (
        f"On {record.calibration.held_out} images that it has not seen, its answers agree with the float model's: "
        f"{in_words(main.metric)} {figure(main.value)}, where 1 is the same."
    )


def _loss(found: Labelled) -> str:
    """The loss and what the sample can show, in words."""
    moved = "gains" if found.drop < 0 else "loses"
    said = (
        f"Against labels it {moved} {abs(found.drop):.1f} points of {in_words(found.metric)} "
        f"({100 * found.float_score:.1f} to {100 * found.int8_score:.1f}). "
        f"On {found.images} images the loss lies between {found.low:.1f} and {found.high:.1f} points "
        "(below zero is a gain); smaller differences cannot be seen."
    )
    return said + (" Zero lies within: the difference may be chance alone." if found.low <= 0 <= found.high else "")


def _is_labelled(record: QuantizationRecord) -> bool:
    return any(attempt.labelled for form in record.formats for attempt in form.attempts)


def _variants(record: QuantizationRecord) -> list[tuple[str, ...]]:
    labelled = _is_labelled(record)
    rows: list[tuple[str, ...]] = []
    for form in record.formats:
        best = chosen(form)
        known = next((f"{100 * a.labelled.float_score:.1f}" for a in form.attempts if a.labelled), "–")
        score = known if labelled else "1"
        size, time = megabytes(form.float_bytes), milliseconds(form.float_latency_ms)
        rows.append((f"{_name(form)} float", size, "1", time, "1", score))
        if best is not None:
            size, time = ratio(best.bytes, form.float_bytes), ratio(best.latency_ms, form.float_latency_ms)
            score = _score(best, labelled)
            rows.append(
                (f"{_name(form)} INT8", megabytes(best.bytes), size, milliseconds(best.latency_ms), time, score)
            )
    return rows


def _score(attempt: Attempt, labelled: bool) -> str:
    value = _height(attempt, labelled)
    if math.isnan(value):
        return "–"
    return f"{value:.1f}" if labelled else figure(value)


def _chart(record: QuantizationRecord) -> Markup:
    """Latency against accuracy: labelled when every attempt that was measured was, else agreement."""
    measured = [
        attempt for form in record.formats for attempt in form.attempts if attempt.labelled or _main_check(attempt)
    ]
    if not measured:
        return Markup()
    labelled = all(attempt.labelled for attempt in measured)
    points = [point for part in _parts(record) for point in _points(part.form, part.first, labelled)]
    known = measured[0].labelled
    return pareto(points, f"{in_words(known.metric)} x 100" if labelled and known else "agreement with the float model")


def _points(form: FormatRecord, first: int, labelled: bool) -> list[Point]:
    best = chosen(form)
    scores = [attempt.labelled.float_score for attempt in form.attempts if attempt.labelled]
    height = 100 * scores[0] if labelled and scores else 1.0
    float_point = Point(
        number=_name(form),
        title=f"{_name(form)} float, {milliseconds(form.float_latency_ms)}",
        kind="float",
        latency_ms=form.float_latency_ms,
        value=height,
    )
    found = [float_point] if scores or not labelled else []
    for index, attempt in enumerate(form.attempts):
        value = _height(attempt, labelled)
        kind = "chosen" if attempt is best else "passed" if attempt.passed else "refused"
        title = f"{_name(form)} {attempt.recipe}, {milliseconds(attempt.latency_ms)}, {kind}"
        number = str(first + index)
        found.append(Point(number=number, title=title, kind=kind, latency_ms=attempt.latency_ms, value=value))
    return found


def _height(attempt: Attempt, labelled: bool) -> float:
    if labelled:
        return 100 * attempt.labelled.int8_score if attempt.labelled else math.nan
    main = _main_check(attempt)
    return main.value if main else math.nan


def _layer_rows(part: _Part) -> list[tuple[str, ...]]:
    """Bars of the noise that INT8 adds, worst layer first: 20 dB is a tenth of the signal."""
    layers = sorted(part.form.layers, key=lambda layer: layer.sqnr_db)[:_MOST_LAYERS]
    return [
        (
            layer.name,
            bar(noise(layer)),
            f"{noise(layer):.1%}",
            decibels(layer.sqnr_db),
            *([milliseconds(layer.float_cost_ms)] if part.timed else []),
        )
        for layer in layers
    ]


def chosen(form: FormatRecord) -> Attempt | None:
    """The attempt that became the variant; ``None`` when none did."""
    return next((attempt for attempt in form.attempts if attempt.passed and attempt.recipe == form.chosen), None)


def _main_check(attempt: Attempt) -> Check | None:
    """The figure that stands for the whole: the gate's first."""
    return attempt.checks[0] if attempt.checks else None


def _name(form: FormatRecord) -> str:
    return FORMATS.get(form.format, form.format)


# What the template calls.
_HELPERS: Mapping[str, object] = MappingProxyType(
    {
        "verdict": _verdict,
        "loss": _loss,
        "metric": in_words,
        "figure": figure,
        "ms": milliseconds,
        "ratio": ratio,
        "figure_rows": figure_rows,
        "class_rows": class_rows,
        "layer_rows": _layer_rows,
        "comparison_rows": comparison_rows,
        "source_rows": source_rows,
        "rounding_told": rounding_told,
        "unrounded_rows": unrounded_rows,
    }
)
