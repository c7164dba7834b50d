"""The command line in this process, which imports torch and the runtimes once instead of once a call."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from subprocess import CompletedProcess
from unittest import mock

from edgecv.cli.app import explain, run_command


def run_here(*arguments: object) -> CompletedProcess[str]:
    """What ``edgecv ARGUMENTS`` says, and its exit code; what ends a process is in tests/integration/test_cli_endings.py."""
    words = ["edgecv", *map(str, arguments)]
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as stdout,
        tempfile.TemporaryFile("w+", encoding="utf-8") as stderr,
    ):
        with (
            contextlib.redirect_stdout(stdout),
            contextlib.redirect_stderr(stderr),
            mock.patch.object(sys, "argv", words),
        ):
            code = _exit_code()
        texts = []
        for stream in (stdout, stderr):
            stream.seek(0)
            texts.append(stream.read())
    return CompletedProcess(words, code, *texts)


def _exit_code() -> int:
    try:
        return run_command()
    except Exception as error:  # noqa: BLE001 - as the program ends
        return explain(error)
