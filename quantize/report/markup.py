"""SVG and its HTML built from values: text is escaped unless it was built here, so that no label can become markup."""

from __future__ import annotations

from html import escape

from edgecv._internal.printable import printable


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()

    def __html__(self) -> str:
        """The same; by this name templates know that it is not to be escaped."""
        return self


def element(name: str, /, *children: str, **attributes: str | float) -> Markup:
    """An element; children that are ``Markup`` stay as they are, other texts are escaped.

    In the names of attributes ``class_`` stands for ``class``, and ``_`` inside for ``-``.
    """
    named = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(printable(_number(value)))}"'
        for key, value in attributes.items()
    )
    inner = "".join(child if isinstance(child, Markup) else escape(printable(child)) for child in children)
    return Markup(f"<{name}{named}>{inner}</{name}>")


def _number(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"
