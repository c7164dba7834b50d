"""Lines and zones as the page draws them, and the tables of ``app.toml`` that they stand for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec

from edgecv.errors import ConfigError
from edgecv.pipelines.steps.count.counting import Name
from edgecv.pipelines.steps.regions import Polygon, Units

KINDS = ("line", "zone")
_MOST_SHAPES = 100
_DIRECTIONS = ["in", "out"]
_Text = Annotated[str, msgspec.Meta(max_length=256)]


class DrawnShape(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that the page may say of a line or a zone; ``was`` is its name so far, empty for a new one.

    The names are those of the steps ``line`` and ``zone``.
    """

    kind: Literal["line", "zone"]
    name: Name
    points: Polygon
    units: Units = "relative"
    classes: Annotated[tuple[_Text | int, ...], msgspec.Meta(max_length=1000)] = ()
    sources: Annotated[tuple[_Text, ...], msgspec.Meta(max_length=1000)] = ()
    directions: tuple[Name, Name] | None = None
    was: _Text = ""


class Edit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All lines and zones as they shall be, and the version of those that were drawn over."""

    version: Annotated[str, msgspec.Meta(max_length=128)]
    shapes: Annotated[tuple[DrawnShape, ...], msgspec.Meta(max_length=_MOST_SHAPES)]


def shapes_of(tables: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The lines and zones among the tables of steps, in order, as JSON."""
    return [_shape(table) for table in tables if table.get("type") in KINDS]


def _shape(table: Mapping[str, Any]) -> dict[str, Any]:
    shape = {
        "kind": table["type"],
        "name": table.get("name", ""),
        "points": table.get("points", []),
        "units": table.get("units", "px"),
        "classes": table.get("classes", []),
        "sources": table.get("sources", []),
    }
    return shape | ({"directions": table.get("directions", _DIRECTIONS)} if table["type"] == "line" else {})


def edited_tables(
    tables: Sequence[Mapping[str, Any]], shapes: Sequence[DrawnShape]
) -> list[tuple[int | None, dict[str, Any]]]:
    """The tables of all steps after an edit, each with its place before, ``None`` for a new one.

    Everything but what the page draws stays as it is; new shapes come after the last line or zone, else at the end.

    Raises ``ConfigError``: a shape was none of these, twice the same, or of the other kind; or its counts belong to its name.
    """
    drawn = _by_origin(tables, shapes)
    kept: list[tuple[int | None, dict[str, Any]]] = []
    last = 0
    for at, table in enumerate(tables):
        is_shape = table.get("type") in KINDS
        if not is_shape:
            kept.append((at, dict(table)))
        elif at in drawn:
            kept.append((at, _redrawn(table, drawn[at])))
        last = len(kept) if is_shape else last
    new: list[tuple[int | None, dict[str, Any]]] = [(None, _table(shape)) for shape in shapes if not shape.was]
    place = last or len(kept)
    return [*kept[:place], *new, *kept[place:]]


def _by_origin(tables: Sequence[Mapping[str, Any]], shapes: Sequence[DrawnShape]) -> dict[int, DrawnShape]:
    places = {table.get("name"): at for at, table in enumerate(tables) if table.get("type") in KINDS}
    drawn: dict[int, DrawnShape] = {}
    for shape in shapes:
        if not shape.was:
            continue
        at = places.get(shape.was)
        if at is None or at in drawn or tables[at]["type"] != shape.kind:
            raise ConfigError(f"'{shape.was}' is no {shape.kind} that could be changed.", "Load the page anew.")
        if shape.name != shape.was and tables[at].get("state"):
            raise ConfigError(
                f"'{shape.was}' keeps its counts in a file, under its name: the page cannot rename it.",
                "Rename it in app.toml, with another state file, and start again.",
            )
        drawn[at] = shape
    return drawn


def _redrawn(table: Mapping[str, Any], shape: DrawnShape) -> dict[str, Any]:
    before, after = _shape(table), _table(shape)
    changed = {name: value for name, value in after.items() if name != "type" and before.get(name) != value}
    emptied = {name for name in ("classes", "sources") if before[name] and name not in after}
    redrawn = {name: value for name, value in (dict(table) | changed).items() if name not in emptied}
    if redrawn.get("units") == "px" and "units" not in table:
        del redrawn["units"]
    return redrawn


def _table(shape: DrawnShape) -> dict[str, Any]:
    """The options of a shape, without those that say nothing."""
    table: dict[str, Any] = {
        "type": shape.kind,
        "name": shape.name,
        "points": [[_tidy(x, shape.units), _tidy(y, shape.units)] for x, y in shape.points],
        "units": shape.units,
    }
    chosen = {"classes": list(shape.classes), "sources": list(shape.sources)}
    table |= {name: value for name, value in chosen.items() if value}
    return table | ({"directions": list(shape.directions)} if shape.directions is not None else {})


def _tidy(value: float, units: Units) -> float:
    return int(value) if units == "px" and value.is_integer() else value


def differences(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> str:
    """What became of steps, in words, such as ``zone 'yard' (points) was changed, line 'door' was removed``; may be empty."""
    return ", ".join(_differences(_named(before), _named(after)))


def _named(tables: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    named: dict[str, Mapping[str, Any]] = {}
    for table in tables:
        kind = str(table.get("type", "step"))
        name = f"{kind} '{table['name']}'" if "name" in table else kind
        named[name if name not in named else f"{name} ({len(named) + 1})"] = table
    return named


def _differences(before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name, table in after.items():
        if name not in before:
            yield f"{name} was added"
        elif table != before[name]:
            options = sorted(
                one for one in table.keys() | before[name].keys() if table.get(one) != before[name].get(one)
            )
            yield f"{name} was changed ({', '.join(options)})"
    yield from (f"{name} was removed" for name in before if name not in after)
