"""Errors of foreign libraries and of the system, said in EdgeCV's words once."""

from __future__ import annotations

import errno
import functools
import inspect
import resource
import struct
import sysconfig
import traceback
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType

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
    one of those that pass. Where the code of the application took part, its file and line are named, too.
    """
    try:
        yield
    except passing:
        raise
    except EdgeCVError as error:
        error.message = f"{place}: {error.message}{in_brackets(raised_at(error))}"
        error.args = (error.message, *error.args[1:])
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {printable(str(error))}{in_brackets(raised_at(error))}"
        raise PluginError(f"{place}, raised {said}", "The traceback shows where: --debug.") from error


def what_is_said(error: BaseException) -> str:
    """An error in one line: its message, the kind of one that is not of EdgeCV, and where in the application's code it arose."""
    said = printable(str(error))
    if not isinstance(error, EdgeCVError | OSError):
        said = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return f"{said or type(error).__name__}{in_brackets(raised_at(error))}"


def raised_at(error: BaseException) -> str:
    """Where in the code of the application an error arose, as ``mystep.py, line 12``.

    Empty where that took no part, and where it raised an error of EdgeCV itself: then it is no mistake.
    """
    frames = [(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    own = [(code, line) for code, line in frames if _is_of_the_app(code)]
    if not own or (isinstance(error, EdgeCVError) and own[-1] == frames[-1]):
        return ""
    return f"{shown_path(own[-1][0].co_filename)}, line {own[-1][1]}"


def defined_at(function: object) -> str:
    """Where a function, or the class of an object that is called, is written, as ``mystep.py, line 3``; empty if not in Python."""
    while isinstance(function, functools.partial):
        function = function.func
    if not isinstance(function, type) and not inspect.isroutine(function):
        function = type(function).__call__
    found = inspect.unwrap(function)
    code = found.__code__ if inspect.isfunction(found) else None
    return f"{shown_path(code.co_filename)}, line {code.co_firstlineno}" if code is not None else ""


def in_brackets(place: str) -> str:
    """A place behind a message; empty where there is none."""
    return f" ({place})" if place else ""


def shown_path(path: str) -> str:
    """A file as a person in the current folder would write it."""
    here = Path.cwd()
    return printable(str(Path(path).relative_to(here) if Path(path).is_relative_to(here) else path))


def _is_of_the_app(code: CodeType) -> bool:
    """Whether it is neither EdgeCV's, nor Python's own, nor that of an installed package."""
    path = code.co_filename
    return not path.startswith(("<", *_foreign_folders()))


@functools.cache
def _foreign_folders() -> tuple[str, ...]:
    ours = Path(__file__).parents[2]
    rooms = ("edgecv", "pipelines", "devices", "cloud_sync", "converters", "quantize", "benchmarks")
    installed = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return tuple(f"{folder}/" for folder in (*(ours / room for room in rooms), *installed))


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
