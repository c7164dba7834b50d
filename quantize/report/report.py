"""``report.html``: what a quantization tried and gave, for someone who has never quantized a model.

One file: no script, nothing loaded from elsewhere. Every part is drawn from ``QuantizationRecord`` alone; what the record does not
have is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from edgecv.errors import EdgeCVError
from edgecv.quantize.record import (
    Attempt,
    CalibrationRecord,
    Check,
    ClassLoss,
    FormatRecord,
    Labelled,
    LayerLoss,
    QuantizationRecord,
    ThresholdRecord,
    WorstImage,
)
from edgecv.quantize.report.charts import Point, bar, pareto, side_by_side
from edgecv.quantize.report.markup import Markup, element, join
from edgecv.quantize.report.words import FORMATS, GLOSSARY, METRICS, STYLE

_MOST_CLASSES, _MOST_LAYERS = 20, 12
_UNLIMITED = 1e300
_LONG_CELL = 24  # characters
_FACTS: Mapping[str, str] = MappingProxyType(
    {
        "brightness": "brightness (middle picture, 0 to 255)",
        "contrast": "contrast (middle picture, 0 to 255)",
        "width_px": "width in pixels (middle picture)",
        "height_px": "height in pixels (middle picture)",
        "distinct": "pictures that differ visibly",
        "near_duplicates": "share that look almost like another",
        "unused": "frames left out between the two parts",
    }
)


def write_report(record: QuantizationRecord, path: Path) -> None:
    """Write the report as one self-contained HTML file.

    Raises:
        EdgeCVError: the file cannot be written.
    """
    try:
        path.write_text(report_html(record), encoding="utf-8")
    except OSError as error:
        raise EdgeCVError(
            f"{path} cannot be written: {error.strerror}.", "Is there space, and may you write?"
        ) from error


def report_html(record: QuantizationRecord) -> str:
    """The report as text."""
    title = f"INT8 report: {record.model}"
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Markup(STYLE)),
    )
    body = element("body", element("main", element("h1", title), *(part for part in _parts(record) if part)))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _parts(record: QuantizationRecord) -> list[Markup]:
    attempts = _firsts([len(form.attempts) for form in record.formats], 1)
    pictures = _firsts([len(form.worst) for form in record.formats], 1)
    return [
        _verdicts(record),
        _variants(record),
        _picture(record, attempts),
        *(_tried(each, first) for each, first in zip(record.formats, attempts, strict=True)),
        *(_accuracy(each) for each in record.formats),
        *(_layers(each) for each in record.formats),
        *(_worst(each, first) for each, first in zip(record.formats, pictures, strict=True)),
        _calibration(record.calibration),
        _threshold(record.threshold),
        _glossary(),
        _made_by(record),
    ]


def _verdicts(record: QuantizationRecord) -> Markup:
    what = "Quantizing stores the numbers of a model in 8 bits (INT8), so that it becomes smaller and faster. "
    how = f"This page tells what that gave for {record.model} ({record.task}), compared with its float model, the original."
    return element("section", element("p", what + how), *(_verdict(each, record) for each in record.formats))


def _verdict(form: FormatRecord, record: QuantizationRecord) -> Markup:
    best = chosen(form)
    if best is None:
        reasons = [attempt for attempt in form.attempts if attempt.reason]
        why = f" The last one: {reasons[-1].reason}." if reasons else ""
        text = f"no INT8 variant. {_recipes(len(form.attempts))} kept what was asked for, so none was written.{why}"
        return element("p", element("strong", f"{_name(form)}: "), text, class_="verdict bad")
    note = f"Note: {best.reason}." if best.reason else ""
    found = (_speed(form, best), _size(form, best), _quality(best, record), note)
    ready = (
        "No INT8 recipe passed: fp16 was written."
        if best.recipe == "fp16"
        else f"INT8 is ready (recipe {best.recipe})."
    )
    sentences = [ready, *found]
    text = " ".join(sentence for sentence in sentences if sentence)
    return element("p", element("strong", f"{_name(form)}: "), text, class_="verdict good")


def _recipes(count: int) -> str:
    return "The one recipe that was tried has not" if count == 1 else f"None of the {count} recipes that were tried has"


def _speed(form: FormatRecord, attempt: Attempt) -> str:
    if not attempt.latency_ms or form.float_latency_ms <= 0:
        return ""
    times = form.float_latency_ms / attempt.latency_ms
    spent = f"{attempt.latency_ms:.1f} ms per picture where float takes {form.float_latency_ms:.1f} ms"
    if times < 1:
        return f"It takes {spent}: on this machine it is not faster than float."
    return f"It takes {spent}: {times:.1f} times as fast."


def _size(form: FormatRecord, attempt: Attempt) -> str:
    if not attempt.bytes or not form.float_bytes:
        return ""
    return f"Its files take {_megabytes(attempt.bytes)} instead of {_megabytes(form.float_bytes)}."


def _quality(attempt: Attempt, record: QuantizationRecord) -> str:
    if attempt.labelled is not None:
        return _loss(attempt.labelled)
    main = _main_check(attempt)
    if main is None:
        return ""
    return (
        f"On {record.calibration.held_out} pictures that it has not seen, its answers agree with the float model's: "
        f"{_metric(main.metric)} {_figure(main.value)}, where 1 is the same."
    )


def _loss(found: Labelled) -> str:
    """The loss and what the sample can show, in words."""
    moved = "gains" if found.drop < 0 else "loses"
    said = (
        f"Against labels it {moved} {abs(found.drop):.1f} points of {_metric(found.metric)} "
        f"({100 * found.float_score:.1f} to {100 * found.int8_score:.1f}). "
        f"On {found.images} images the loss lies between {found.low:.1f} and {found.high:.1f} points "
        "(below zero is a gain); smaller differences cannot be seen."
    )
    return said + (" Zero lies within: the difference may be chance alone." if found.low <= 0 <= found.high else "")


def _variants(record: QuantizationRecord) -> Markup:
    labelled = any(attempt.labelled for form in record.formats for attempt in form.attempts)
    header = [
        "variant",
        "size",
        "of float",
        "time",
        "of float",
        "against labels" if labelled else "agreement with float",
    ]
    rows = []
    for form in record.formats:
        best = chosen(form)
        known = next((f"{100 * a.labelled.float_score:.1f}" for a in form.attempts if a.labelled), "–")
        score = known if labelled else "1"
        size, time = _megabytes(form.float_bytes), _ms(form.float_latency_ms)
        rows.append([f"{_name(form)} float", size, "1", time, "1", score])
        if best is not None:
            size, time = _ratio(best.bytes, form.float_bytes), _ratio(best.latency_ms, form.float_latency_ms)
            rows.append(
                [
                    f"{_name(form)} INT8",
                    _megabytes(best.bytes),
                    size,
                    _ms(best.latency_ms),
                    time,
                    _score(best, labelled),
                ]
            )
    return element("section", element("h2", "INT8 beside float"), _table(header, rows))


def _score(attempt: Attempt, labelled: bool) -> str:
    if labelled:
        return f"{100 * attempt.labelled.int8_score:.1f}" if attempt.labelled else "–"
    main = _main_check(attempt)
    return _figure(main.value) if main else "–"


def _picture(record: QuantizationRecord, firsts: Sequence[int]) -> Markup:
    """Latency against accuracy: labelled when every attempt that was measured was, else agreement."""
    measured = [
        attempt for form in record.formats for attempt in form.attempts if attempt.labelled or _main_check(attempt)
    ]
    labelled = bool(measured) and all(attempt.labelled for attempt in measured)
    points = [
        point for form, first in zip(record.formats, firsts, strict=True) for point in _points(form, first, labelled)
    ]
    if not measured:
        return Markup()
    metric = (
        f"{_metric(measured[0].labelled.metric)} x 100"
        if labelled and measured[0].labelled
        else "agreement with the float model"
    )
    legend = "Each number is one attempt of the tables below. Square: float. Disc: chosen. Ring: good, not chosen. Cross: refused. "
    return element(
        "section",
        element("h2", "What speed costs"),
        element("div", pareto(points, metric), class_="scroll"),
        element("p", legend + "The best variant stands at the upper left.", class_="note"),
    )


def _points(form: FormatRecord, first: int, labelled: bool) -> list[Point]:
    best = chosen(form)
    scores = [attempt.labelled.float_score for attempt in form.attempts if attempt.labelled]
    height = 100 * scores[0] if labelled and scores else 1.0
    float_point = Point(
        number=_name(form),
        title=f"{_name(form)} float, {_ms(form.float_latency_ms)}",
        kind="float",
        latency_ms=form.float_latency_ms,
        value=height,
    )
    found = [float_point] if scores or not labelled else []
    for index, attempt in enumerate(form.attempts):
        value = _height(attempt, labelled)
        kind = "chosen" if attempt is best else "passed" if attempt.passed else "refused"
        title = f"{_name(form)} {attempt.recipe}, {_ms(attempt.latency_ms)}, {kind}"
        number = str(first + index)
        found.append(Point(number=number, title=title, kind=kind, latency_ms=attempt.latency_ms, value=value))
    return found


def _height(attempt: Attempt, labelled: bool) -> float:
    if labelled:
        return 100 * attempt.labelled.int8_score if attempt.labelled else math.nan
    main = _main_check(attempt)
    return main.value if main else math.nan


def _tried(form: FormatRecord, first: int) -> Markup:
    """Every attempt in the order it was made, numbered from ``first``."""
    if not form.attempts:
        return Markup()
    best = chosen(form)
    rows = [
        [
            str(first + index),
            attempt.recipe,
            "chosen" if attempt is best else "good" if attempt.passed else "refused",
            _ms(attempt.latency_ms),
            _ratio(attempt.latency_ms, form.float_latency_ms),
            _checks(attempt),
            attempt.reason or "–",
        ]
        for index, attempt in enumerate(form.attempts)
    ]
    header = ["no.", "recipe", "outcome", "time", "of float", "figures (and their limits)", "remark"]
    told = "Recipes are tried in turn until one keeps what was asked for. Each was judged on pictures it had not seen."
    return element(
        "section", element("h2", f"What was tried for {_name(form)}"), element("p", told), _table(header, rows, mark=2)
    )


def _checks(attempt: Attempt) -> Markup:
    """The figures of the gate, a line each; one that failed is said to have failed."""
    lines = [_check(check) for check in attempt.checks]
    if attempt.labelled is not None:
        found = attempt.labelled
        text = f"{_metric(found.metric)} loss {found.drop:.1f} points ({found.low:.1f} to {found.high:.1f})"
        lines.append(element("li", text))
    return element("ul", *lines) if lines else Markup("–")


def _check(check: Check) -> Markup:
    text = f"{_metric(check.metric)} {_figure(check.value)}"
    if not check.limited:
        return element("li", text)
    limits = f" (from {_figure(check.least)} to {_figure(check.most)})"
    return element("li", text, limits, "" if check.passed else element("strong", " failed"))


def _accuracy(form: FormatRecord) -> Markup:
    best = chosen(form) or next((attempt for attempt in reversed(form.attempts) if attempt.labelled), None)
    if best is None or best.labelled is None:
        return Markup()
    found = best.labelled
    parts = [element("h2", f"Accuracy of {_name(form)} against labels"), element("p", _loss(found))]
    if found.more:
        rows = [[_metric(name), f"{value:.3f}"] for name, value in found.more.items()]
        parts.append(_table(["figure", "value"], rows))
    if found.classes:
        parts += [element("h3", "Classes that lost most"), _classes(found.classes)]
    return element("section", *parts)


def _classes(classes: Sequence[ClassLoss]) -> Markup:
    rows = [
        [
            each.label,
            f"{100 * each.float_score:.1f}",
            f"{100 * each.int8_score:.1f}",
            f"{100 * (each.float_score - each.int8_score):+.1f}",
            str(each.count),
        ]
        for each in classes[:_MOST_CLASSES]
    ]
    left = len(classes) - len(rows)
    note = f"{left} more classes are in quantization.json. " if left else ""
    said = element("p", f"{note}A class with few examples moves by several points by chance.", class_="note")
    return join([_table(["class", "float", "INT8", "loss in points", "examples"], rows), said])


def _layers(form: FormatRecord) -> Markup:
    """Bars of the noise that INT8 adds, worst layer first: 20 dB is a tenth of the signal."""
    if not form.layers:
        return Markup()
    layers = sorted(form.layers, key=lambda layer: layer.sqnr_db)[:_MOST_LAYERS]
    timed = any(layer.float_cost_ms is not None for layer in layers)
    rows: list[list[str]] = [
        [layer.name, bar(_noise(layer)), f"{_noise(layer):.1%}", _decibels(layer.sqnr_db)] for layer in layers
    ]
    if timed:
        rows = [[*row, _ms(layer.float_cost_ms)] for row, layer in zip(rows, layers, strict=True)]
    header = ["layer", "noise", "of the signal", "signal to noise", *(["cost of leaving it float"] if timed else [])]
    told = (
        "How much INT8 disturbs what each layer computes, on its own. Leaving the worst ones float is the first remedy."
    )
    return element(
        "section", element("h2", f"Most sensitive layers of {_name(form)}"), element("p", told), _table(header, rows)
    )


def _decibels(value: float) -> str:
    return f"{value:.1f} dB" if abs(value) < _UNLIMITED else "no noise" if value > 0 else "lost"


def _noise(layer: LayerLoss) -> float:
    """Noise as a share of the signal's amplitude, at most 10."""
    return float(min(10.0, 10 ** (-max(-20.0, layer.sqnr_db) / 20)))


def _worst(form: FormatRecord, first: int) -> Markup:
    shown = [_worst_image(picture, first + at) for at, picture in enumerate(form.worst)]
    figures = [figure for figure in shown if figure]
    if not figures:
        return Markup()
    told = (
        "The held-out pictures on which INT8 differs most from float: the worst there is, not the usual. "
        "Dashed boxes have no counterpart on the other side."
    )
    return element("section", element("h2", f"Worst pictures of {_name(form)}"), element("p", told), *figures)


def _worst_image(picture: WorstImage, number: int) -> Markup:
    pair = side_by_side(picture, number)
    caption = element("figcaption", f"{picture.name}: agreement {picture.agreement:.2f} of 1")
    return element("figure", caption, pair) if pair else Markup()


def _calibration(found: CalibrationRecord) -> Markup:
    told = (
        f"INT8 was fitted to {found.images - found.held_out} pictures and judged on {found.held_out} others, all from "
        f"{found.source}. They must look like what the camera will see."
    )
    rows = [[_FACTS.get(name, name), _figure(value)] for name, value in found.facts.items()]
    rows.append(["sha256 of the pictures", found.sha256])
    warnings = [element("p", element("strong", "Warning: "), text, class_="verdict warn") for text in found.warnings]
    return element(
        "section", element("h2", "Calibration pictures"), element("p", told), *warnings, _table(["fact", "value"], rows)
    )


def _threshold(found: ThresholdRecord | None) -> Markup:
    if found is None:
        return Markup()
    moved = (
        f"It stays {_figure(found.after)}."
        if found.before == found.after
        else f"It was {_figure(found.before)} and is now {_figure(found.after)}."
    )
    told = f"The confidence below which a detection is not reported. {moved} {found.reason}"
    return element("section", element("h2", "Confidence threshold"), element("p", told))


def _glossary() -> Markup:
    entries = [part for word, meaning in GLOSSARY.items() for part in (element("dt", word), element("dd", meaning))]
    return element("section", element("h2", "Words"), element("dl", *entries))


def _made_by(record: QuantizationRecord) -> Markup:
    tools = ", ".join(f"{name} {version}" for name, version in record.tools.items())
    said = [f"Source: {record.source}."]
    said += [f"Measured on: {record.machine}."] if record.machine else []
    said += [f"Made with: {tools}."] if tools else []
    return element("footer", element("p", " ".join(said)))


def chosen(form: FormatRecord) -> Attempt | None:
    """The attempt that became the variant; ``None`` when none did."""
    return next((attempt for attempt in form.attempts if attempt.passed and attempt.recipe == form.chosen), None)


def _main_check(attempt: Attempt) -> Check | None:
    """The figure that stands for the whole: the gate's first."""
    return attempt.checks[0] if attempt.checks else None


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], mark: int | None = None) -> Markup:
    """A table that scrolls on its own where the screen is narrow; column ``mark`` becomes the class of its row."""
    head = element("thead", element("tr", *(element("th", name, scope="col") for name in header)))
    body = element(
        "tbody",
        *(element("tr", *(_cell(cell) for cell in row), class_="" if mark is None else row[mark]) for row in rows),
    )
    return element("div", element("table", head, body), class_="scroll")


def _cell(text: str) -> Markup:
    """A cell; a long text without spaces, such as a hash, may break anywhere."""
    is_long = not isinstance(text, Markup) and len(text) > _LONG_CELL
    return element("td", text, class_="long") if is_long else element("td", text)


def _firsts(counts: Sequence[int], start: int) -> list[int]:
    """The first number of each group when all are counted through."""
    return [start + sum(counts[:at]) for at in range(len(counts))]


def _name(form: FormatRecord) -> str:
    return FORMATS.get(form.format, form.format)


def _metric(name: str) -> str:
    return METRICS.get(name, name)


def _figure(value: float) -> str:
    """Three digits after the point at most; JSON holds no infinity, so that the largest number stands for it."""
    if math.isnan(value):
        return "not a number"
    if abs(value) > _UNLIMITED:
        return "no limit"
    if float(value).is_integer() and abs(value) >= 2:
        return f"{value:.0f}"
    return "0" if abs(value) < 5e-4 else f"{value:.3f}".rstrip("0").rstrip(".")


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}\N{NO-BREAK SPACE}ms"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f}\N{NO-BREAK SPACE}MB" if size else "–"


def _ratio(value: float | None, base: float) -> str:
    return f"{value / base:.2f}" if value and base > 0 else "–"
