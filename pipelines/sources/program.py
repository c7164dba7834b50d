"""A program that sends images through a pipe: ``gst-launch-1.0``, ``rpicam-vid``."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence

from edgecv.pipelines.sources.live import Unrecoverable

# Runs between fork and exec in a process of its own, so that the program dies with the worker, however that dies.
# 1 is PR_SET_PDEATHSIG of prctl(2).
_LEASH = "import ctypes,os,sys; ctypes.CDLL(None).prctl(1, 9); os.execvp(sys.argv[1], sys.argv[1:])"
_PIPE_BYTES = 1 << 20  # fewer system calls per image; the most that an unprivileged process may ask for
_BUFFER_BYTES = 1 << 16
_STDERR_BYTES = 4096
_TERMINATE_S = 0.3


class Program:
    """A running program, what it writes to its pipe (``output``), and its last words.

    The pipe is not its standard output: what programs print there would tear the images.
    """

    def __init__(self, arguments: Sequence[str], hint: str) -> None:
        """Start it; ``{pipe}`` in an argument becomes the number of the pipe it shall write to.

        Raises ``Unrecoverable`` when there is no such program; ``hint`` says how to get it.
        """
        if shutil.which(arguments[0]) is None:
            raise Unrecoverable(f"The program {arguments[0]} is not installed.", hint, code="missing")
        ours, theirs = os.pipe()
        with contextlib.suppress(OSError, AttributeError):  # not on every system
            fcntl.fcntl(ours, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        filled = [argument.replace("{pipe}", str(theirs)) for argument in arguments]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _LEASH, *filled],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(theirs,),
            )
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        self.output = io.BufferedReader(io.FileIO(ours), _BUFFER_BYTES)
        self._words = bytearray()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def outcome(self) -> tuple[int | None, str]:
        """After the end of its output: exit code and last words; no code when it does not end soon."""
        code = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._process.wait(_TERMINATE_S)
            self._listener.join(_TERMINATE_S)
        return code, self._words.decode(errors="replace").strip()

    def close(self) -> None:
        """End it: politely first, so that it gives the camera back."""
        self._process.terminate()
        try:
            self._process.wait(_TERMINATE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.output.close()
        self._listener.join(_TERMINATE_S)

    def _listen(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as errors:
            while data := os.read(errors.fileno(), _STDERR_BYTES):
                self._words = (self._words + data)[-_STDERR_BYTES:]
