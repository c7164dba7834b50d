"""Silence what foreign tools print and log while they work; their errors still come as exceptions."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No warnings, log lines below errors, or stdout inside the block."""
    level = logging.root.manager.disable
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(level)


def no_telemetry() -> None:
    """Keep OpenVINO and NNCF from reporting their use; ``require`` calls it before it imports either.

    Each report forks the converting process, several at a time: four copies of one gigabyte. Both tools go on without the package
    that reports when it is not there.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
