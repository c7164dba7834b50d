"""Errors of foreign libraries and of the system, said in EdgeCV's words once."""

from __future__ import annotations

import errno
import resource
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from edgecv._internal.printable import printable
from edgecv.errors import EdgeCVError, PluginError

# What `zipfile` raises for damaged or hostile archives: it has no base of its own.
ZIP_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError),
    *(OverflowError, RuntimeError, ValueError),  # NotImplementedError and UnicodeDecodeError among them
)
_OUT_OF_FILES = frozenset({errno.EMFILE, errno.ENFILE})
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


@contextmanager
def errors_named(place: str, passing: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """What a part raises inside the block says which part it was.

    An error of EdgeCV gets the place in its message and keeps its kind; another is the cause of a ``PluginError``, unless it is
    one of those that pass.
    """
    try:
        yield
    except passing:
        raise
    except EdgeCVError as error:
        error.message = f"{place}: {error.message}"
        error.args = (error.message, *error.args[1:])
        raise
    except Exception as error:
        raise PluginError(
            f"{place}, raised {type(error).__name__}: {printable(str(error))}", "The traceback shows where: --debug."
        ) from error


def is_out_of_files(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, is that no more files can be opened."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _OUT_OF_FILES:
            return True
        error = error.__cause__ or error.__context__
    return False


def more_files_hint() -> str:
    """The next step for a program that may open no more files."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return (
        f"This program may have {limit} files open at once; a camera takes about 8 of them. Allow more: ulimit -n 4096, or "
        "LimitNOFILE=4096 in a systemd service."
    )
