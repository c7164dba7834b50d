"""Figures that a tool of the laboratory measured, printed: one JSON document, or lines for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgecv.cli.console import print_json


def print_figures(figures: Mapping[str, Any], json: bool) -> None:
    """Figures by name: one JSON document, or a line each."""
    if json:
        print_json(dict(figures))
        return
    width = max(len(name) for name in figures)
    for name, value in figures.items():
        print(f"{name:{width}}  {value}")
