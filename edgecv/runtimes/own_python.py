"""A module of EdgeCV in a process of its own, which imports from where this one does."""

from __future__ import annotations

import sys

# Not `-m`, which looks in the working folder first, where anybody may have put a module of that name.
_RUN = (
    "import sys; sys.path[:] = sys.argv.pop(1).split('\\n'); "
    "import runpy; runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)


def module_command(module: str, *arguments: str) -> list[str]:
    """What to start instead of ``python -m MODULE ARGUMENT ...``."""
    return [sys.executable, "-c", _RUN, "\n".join(sys.path), module, *arguments]
