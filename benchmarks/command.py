"""What the tools of this room share as programs: errors in words, one JSON document or lines for people."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from edgecv.cli.console import fail, interrupted, print_json
from edgecv.errors import EdgeCVError


def run_program(body: Callable[[], None]) -> NoReturn:
    """Run ``body`` and leave with its exit code; an ``EdgeCVError`` becomes message and next step on stderr."""
    try:
        body()
    except EdgeCVError as error:
        sys.exit(fail(error))
    except KeyboardInterrupt:
        sys.exit(interrupted())
    sys.exit(0)


def print_figures(figures: Mapping[str, Any], json: bool) -> None:
    """Figures by name: one JSON document, or a line each."""
    if json:
        print_json(dict(figures))
        return
    width = max(len(name) for name in figures)
    for name, value in figures.items():
        print(f"{name:{width}}  {value}")
