"""HTML from Jinja2 templates: every value is escaped, and nothing invisible is left in it."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from edgecv._internal.extras import require
from edgecv._internal.printable import printable


def render_report(package: str, extra: str, **values: Any) -> str:
    """Fill in ``report.html.j2`` of a package; ``style`` is its ``report.css``. A value that has ``__html__`` is markup already.

    Raises:
        MissingDependency: Jinja2 is not installed; ``extra`` brings it to those who need this report.
    """
    jinja2, markup = require("jinja2", extra), require("markupsafe", extra).Markup
    environment = jinja2.Environment(
        autoescape=True, finalize=_shown, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template, style = ((files(package) / name).read_text(encoding="utf-8") for name in ("report.html.j2", "report.css"))
    filled: str = environment.from_string(template).render(style=markup(style), **values)
    return filled + "\n"


def _shown(value: object) -> object:
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value
