"""How the tools of this room run as programs: errors in words, and the exit code that belongs to them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

from edgecv.cli.console import fail, interrupted
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
