"""HTML and SVG built from values: text is escaped unless it was built here, so that no label can become markup."""

from __future__ import annotations

from html import escape

from edgecv._internal.printable import printable

_VOID = frozenset({"meta", "br", "img"})


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def element(name: str, /, *children: str, **attributes: str | float) -> Markup:
    """An element.

    Args:
        name: Its tag.
        children: Elements (``Markup``) as they are, other strings escaped.
        attributes: By name; ``class_`` stands for ``class``, ``_`` inside a name for ``-``.
    """
    named = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(printable(_number(value)))}"'
        for key, value in attributes.items()
    )
    if name in _VOID:
        return Markup(f"<{name}{named}>")
    return Markup(f"<{name}{named}>{join(children)}</{name}>")


def join(children: tuple[str, ...] | list[str]) -> Markup:
    """Elements and texts one after another."""
    return Markup("".join(child if isinstance(child, Markup) else escape(printable(child)) for child in children))


def _number(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"
