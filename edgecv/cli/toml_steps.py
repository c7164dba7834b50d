"""Changes the steps in the text of an ``app.toml``: comments, order and everything else stay as a person wrote them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgecv._internal.extras import require
from edgecv.errors import ConfigError

_HINT = "Nothing was written. Copy the TOML from the page, and put it in by hand."


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTable:
    """A table of ``steps`` as it shall be; ``origin`` is its place in the text so far, ``None`` for a new one."""

    table: Mapping[str, Any]
    origin: int | None = None


def edited_toml(text: str, steps: Sequence[StepTable]) -> str:
    """The text with these steps; those that stay keep their order.

    Raises ``ConfigError``: the text is written in a form that would not be kept.
    """
    tomlkit = require("tomlkit", "preview")
    crlf = "\r\n" in text and text.count("\n") == text.count("\r\n")
    mark, text = ("\ufeff", text[1:]) if text.startswith("\ufeff") else ("", text)
    whole = text if text.endswith("\n") or not text else text + "\n"
    document = tomlkit.parse(whole)
    if document.as_string() != whole:
        raise ConfigError("The [[steps]] do not stand one after the other in the file.", _HINT)
    if "steps" in document:
        _change(document["steps"], steps)
    elif steps:
        document["steps"] = tomlkit.aot()
        _change(document["steps"], steps, is_first=not whole)
    if "steps" in document and not len(document["steps"]) and isinstance(document["steps"], tomlkit.items.AoT):
        raise ConfigError("The last step cannot be removed from the page.", "Remove it from the file by hand.")
    changed: str = document.as_string()
    return mark + (changed.replace("\r\n", "\n").replace("\n", "\r\n") if crlf else changed)


def _change(rows: Any, steps: Sequence[StepTable], is_first: bool = False) -> None:
    tomlkit = require("tomlkit", "preview")
    is_tables = isinstance(rows, tomlkit.items.AoT)
    for step in steps:
        if step.origin is not None:
            _edit(rows[step.origin], step.table)
    kept = {step.origin for step in steps}
    for at in reversed(range(len(rows))):
        if at not in kept:
            _remove_table(rows, at) if is_tables else rows.pop(at)
    for at, step in enumerate(steps):
        if step.origin is None and is_tables:
            _insert_table(rows, at, step.table, is_first)
        elif step.origin is None:
            _insert_inline(rows, at, step.table)


def _edit(table: Any, wanted: Mapping[str, Any]) -> None:
    """Change what differs, and nothing else: a list of the same length in place, so that comments in it stay."""
    for name in [name for name in table if name not in wanted]:
        del table[name]
    for name, value in wanted.items():
        if name in table and _plain(table[name]) == value:
            continue
        if name in table and _is_alike(_plain(table[name]), value):
            _fill(table[name], value)
        elif name in table:
            table[name] = value
        else:
            rest = _taken_rest(table)
            table[name] = value
            _put_back(table, rest)


def _plain(item: Any) -> Any:
    tomlkit = require("tomlkit", "preview")
    return item.unwrap() if isinstance(item, tomlkit.items.Item) else item


def _is_alike(one: Any, other: Any) -> bool:
    """Whether both are lists of the same shape."""
    if not isinstance(one, list) or not isinstance(other, list) or len(one) != len(other):
        return False
    return all(not isinstance(a, list) or _is_alike(a, b) for a, b in zip(one, other, strict=True))


def _fill(array: Any, wanted: list[Any]) -> None:
    for at, value in enumerate(wanted):
        if isinstance(value, list):
            _fill(array[at], value)
        elif _plain(array[at]) != value:
            array[at] = value


def _inner(table: Any) -> list[Any]:
    """The rows of the text that end a table: its own, or those of the last table in it."""
    tomlkit = require("tomlkit", "preview")
    body: list[Any] = table.value.body
    while body and isinstance(body[-1][1], tomlkit.items.Table | tomlkit.items.AoT):
        last = body[-1][1]
        body = (last.body[-1] if isinstance(last, tomlkit.items.AoT) else last).value.body
    return body


def _taken_rest(table: Any) -> list[Any]:
    """Take off what stands behind the last option, from the first empty line on: it belongs to what follows."""
    body, start = _inner(table), 0
    tomlkit = require("tomlkit", "preview")
    for at in reversed(range(len(body))):
        key, item = body[at]
        if key is not None:
            break
        start = len(body) - at if isinstance(item, tomlkit.items.Whitespace) else start
    rest = body[len(body) - start :] if start else []
    del body[len(body) - len(rest) :]
    return rest


def _put_back(table: Any, rest: list[Any]) -> None:
    _inner(table).extend(rest)


def _insert_table(rows: Any, at: int, options: Mapping[str, Any], is_first: bool) -> None:
    tomlkit = require("tomlkit", "preview")
    table, has_next = tomlkit.table(), at < len(rows)
    for name, value in options.items():
        table[name] = value
    rest = _taken_rest(rows[at - 1]) if at else []
    rows.insert(at, table)
    table.trivia.indent = "\n" if at or not is_first else ""
    _put_back(table, rest or ([(None, tomlkit.ws("\n"))] if has_next else []))


def _remove_table(rows: Any, at: int) -> None:
    """What stood behind it stays, before the next table or behind the one before."""
    tomlkit = require("tomlkit", "preview")
    rest = _taken_rest(rows[at])
    del rows[at]
    if at:
        before = _inner(rows[at - 1])
        ends_empty = bool(before) and isinstance(before[-1][1], tomlkit.items.Whitespace)
        before.extend(rest[1:] if ends_empty else rest)
    elif rows:
        rows[0].trivia.indent = "".join(item.as_string() for _, item in rest) + rows[0].trivia.indent


def _insert_inline(rows: Any, at: int, options: Mapping[str, Any]) -> None:
    tomlkit = require("tomlkit", "preview")
    table = tomlkit.inline_table()
    for name, value in options.items():
        table[name] = value
    rows.insert(at, table)
