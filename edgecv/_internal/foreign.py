"""Errors of foreign libraries, said in EdgeCV's words once: where the library is called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edgecv.errors import EdgeCVError

# OpenVINO begins with where in its own source something went wrong, and says what on a later line.
_PLACES = ("Exception from ", "Check '", "FrontEnd API failed", "Model wasn't fully converted", "Summary:")


def first_line(error: BaseException) -> str:
    """What an error says, on one line; a line that only announces the next one (it ends in a colon) comes with that."""
    lines = [line.strip(" -\t") for line in str(error).splitlines() if line.strip(" -\t")] or [repr(error)]
    at = next((at for at, line in enumerate(lines) if not line.startswith(_PLACES)), 0)
    return " ".join(lines[at : at + 2]) if lines[at].endswith(":") else lines[at]


@contextmanager
def foreign_errors(kind: type[EdgeCVError], what: str, hint: str) -> Iterator[None]:
    """Whatever a library raises inside the block becomes ``kind``: converters have exception classes without a common base.

    EdgeCV's own errors pass. So do an ``OSError`` (a full disk is no fault of the model, and whoever writes the folder says it) and
    an ``ImportError`` (which a signal becomes while a compiled module is imported).
    """
    try:
        yield
    except (EdgeCVError, OSError, ImportError):
        raise
    except Exception as error:
        raise kind(f"{what}: {first_line(error)}", hint) from error
