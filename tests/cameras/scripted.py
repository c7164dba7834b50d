"""A raw source that does what its options say; it runs in the worker process, as any camera does."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np

from edgecv.errors import SourceError
from edgecv.pipelines.sources.frames import FrameStamper
from edgecv.pipelines.sources.live import LiveOptions, LiveSource, Unrecoverable
from edgecv.pipelines.uris import Uri, read_options
from edgecv.results import Frame

TARGET = "tests.cameras.scripted:ScriptedSource"
_HONEST_FRAMES = 5  # before it misbehaves
_BITE = 10 << 20
LEVELS = 251  # a prime: neighbouring frames and slots never look alike


class ScriptedOptions(LiveOptions, frozen=True, kw_only=True):
    """What the camera does.

    Attributes:
        rate: Frames per second it gives.
        frames: How many; 0 for no end.
        hang_after: Hang for ever after so many frames.
        grow_after: Double both sides after so many frames.
        fail: A code to fail with when it is opened.
        words: Written to standard error when it is opened.
        eat: After five frames take memory until there is no more: ``python`` or ``c++``, each with its own end.
        die: End the process after five frames, with last words that steer a terminal.
    """

    rate: float = 100.0
    frames: int = 0
    hang_after: int = -1
    grow_after: int = -1
    fail: str = ""
    words: str = ""
    eat: str = ""
    die: bool = False


class ScriptedSource(LiveSource):
    """Frames whose every pixel is their number modulo ``LEVELS``.

    The path of the URI is a file: while it is absent there is no camera; while it holds ``frozen`` the camera hangs.
    """

    live = True
    supervised = True
    Options = ScriptedOptions

    def __init__(self, uri: Uri) -> None:
        self._options = read_options(uri, ScriptedOptions)
        self._file = Path(uri.path)
        self.source_id = uri.name
        self.fps = self._options.rate
        self._count = 0
        self._stamper = FrameStamper(self.source_id)
        if self._options.words:
            sys.stderr.write(f"{self._options.words}\n")
            sys.stderr.flush()
        if self._options.fail:
            kind = Unrecoverable if self._options.fail == "auth" else SourceError
            raise kind(f"Scripted: {self._options.fail}.", "A hint.", code=self._options.fail)

    def read(self) -> Frame | None:
        options = self._options
        if self._count == options.hang_after or self._says("frozen"):
            time.sleep(1000)
        if options.frames and self._count == options.frames:
            return None
        if self._count == _HONEST_FRAMES:
            self._misbehave()
        time.sleep(1 / options.rate)
        side = 2 if 0 <= options.grow_after <= self._count else 1
        shape = ((options.height or 48) * side, (options.width or 64) * side, 3)
        image = np.full(shape, self._count % LEVELS, np.uint8)
        self._count += 1
        return self._stamper.stamp(image)

    def close(self) -> None:
        self._count = self._options.frames

    def _misbehave(self) -> None:
        eaten = []
        try:
            while self._options.eat:
                eaten.append(np.ones(_BITE, np.uint8))
        except MemoryError:
            if self._options.eat == "python":
                raise
            _die("terminate called after throwing an instance of 'std::bad_alloc'")
        if self._options.die:
            _die("\x1b[2J\x1b]0;owned\x07 boom")

    def _says(self, word: str) -> bool:
        if str(self._file) == ".":
            return False
        if not self._file.exists():
            raise SourceError("Scripted: unplugged.", "Plug it in.", code="missing")
        return self._file.read_text() == word


def _die(words: str) -> None:
    sys.stderr.write(f"{words}\n")
    sys.stderr.flush()
    os.abort()
