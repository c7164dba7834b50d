"""Charts of the page as inline SVG: how times are distributed, and how figures move."""

from __future__ import annotations

from collections.abc import Sequence

from edgecv.quantize.report.markup import Markup, element

_WIDTH, _HEIGHT = 640.0, 220.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 62.0, 16.0, 14.0, 40.0
_BARS = 48
_SHOWN = 0.995  # the slowest times would press all others into one bar; how many they are is said
_MOST_POINTS = 600


def distribution(times_ms: Sequence[float], marks: Sequence[tuple[str, float]]) -> Markup:
    """How many times fall into each span of milliseconds, with a line for each of ``marks`` (a name and a time)."""
    ordered = sorted(times_ms)
    shown = ordered[: max(1, round(len(ordered) * _SHOWN))]
    low, high = shown[0], max(shown[-1], shown[0] * 1.001, shown[0] + 1e-3)
    counts = [0] * _BARS
    for ms in shown:
        counts[min(int((ms - low) / (high - low) * _BARS), _BARS - 1)] += 1
    inside = [(name, ms) for name, ms in marks if low <= ms <= high]
    return _svg(
        "How long the runs took",
        *_frame((low, high), (0.0, float(max(counts))), "ms", "runs"),
        *(_bar(number, count / max(counts)) for number, count in enumerate(counts) if count),
        *(_mark(name, _LEFT + (ms - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)) for name, ms in inside),
    )


def left_out(times_ms: Sequence[float]) -> int:
    """How many of the slowest times the distribution does not show."""
    return len(times_ms) - max(1, round(len(times_ms) * _SHOWN))


def series(points: Sequence[tuple[float, float]], across: str, up: str) -> Markup:
    """A figure over time or runs: ``points`` are (place, value), ``across`` and ``up`` name the axes."""
    step = max(1, len(points) // _MOST_POINTS)
    kept = points[::step]
    xs, ys = [x for x, _ in kept], [y for _, y in kept]
    wide, tall = _span(xs, 0.0), _span(ys, 0.05)
    placed = " ".join(f"{_x(x, wide):.1f},{_y(y, tall):.1f}" for x, y in kept)
    return _svg(
        f"{up} over {across}",
        *_frame(wide, tall, across, up),
        element("polyline", points=placed, class_="line"),
    )


def _span(values: Sequence[float], margin: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    more = (high - low) * margin or (0.0 if high > low else abs(high) * 0.05 + 0.5)
    return max(low - more, min(low, 0.0)), high + more


def _x(value: float, span: tuple[float, float]) -> float:
    return _LEFT + (value - span[0]) / (span[1] - span[0]) * (_WIDTH - _LEFT - _RIGHT)


def _y(value: float, span: tuple[float, float]) -> float:
    return _HEIGHT - _BOTTOM - (value - span[0]) / (span[1] - span[0]) * (_HEIGHT - _BOTTOM - _TOP)


def _svg(title: str, *children: Markup) -> Markup:
    box = f"0 0 {_WIDTH:g} {_HEIGHT:g}"
    return element("svg", element("title", title), *children, viewBox=box, class_="chart", role="img")


def _bar(number: int, share: float) -> Markup:
    width = (_WIDTH - _LEFT - _RIGHT) / _BARS
    height = share * (_HEIGHT - _BOTTOM - _TOP)
    top = _HEIGHT - _BOTTOM - height
    return element("rect", x=_LEFT + number * width, y=top, width=max(width - 1, 1), height=height, class_="bar")


def _mark(name: str, x: float) -> Markup:
    line = element("line", x1=x, x2=x, y1=_TOP, y2=_HEIGHT - _BOTTOM, class_="limit")
    return element("g", line, element("text", name, x=x + 3, y=_TOP + 9))


def _frame(wide: tuple[float, float], tall: tuple[float, float], across: str, up: str) -> list[Markup]:
    """The axes with four numbers each, and their names."""
    found = [element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=_HEIGHT - _BOTTOM, y2=_HEIGHT - _BOTTOM, class_="axis")]
    for part in range(4):
        x, y = wide[0] + (wide[1] - wide[0]) * part / 3, tall[0] + (tall[1] - tall[0]) * part / 3
        px, py = _x(x, wide), _y(y, tall)
        found += [
            element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=py, y2=py, class_="grid"),
            element("text", _short(y), x=_LEFT - 6, y=py + 4, text_anchor="end"),
            element("text", _short(x), x=px, y=_HEIGHT - _BOTTOM + 16, text_anchor="middle"),
        ]
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    return [
        *found,
        element("text", across, x=middle, y=_HEIGHT - 6, text_anchor="middle", class_="name"),
        element("text", up, x=4, y=_TOP - 3, class_="name"),
    ]


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
