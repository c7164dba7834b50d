"""A program named ``rpicam-vid`` that sends images as the real one does; there is no Raspberry Pi here."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

RPICAM = """#!{python}
import sys, time, cv2, numpy as np
words = sys.argv[1:]
value = lambda name, default: words[words.index(name) + 1] if name in words else default
if value("--camera", "0") == "7":
    sys.exit("ERROR: *** no cameras available ***")
print("chatter that must not tear an image")
print("[0:00:01] INFO Camera camera_manager.cpp", file=sys.stderr)
width, height = int(value("--width", "640")), int(value("--height", "480"))
with open(value("--output", ""), "wb", buffering=0) as output:
    for number in range(10_000):
        image = np.full((height, width, 3), number % 200, np.uint8)
        data = cv2.imencode(".jpg", image)[1].tobytes()
        output.write(data[: len(data) // 2])
        output.write(data[len(data) // 2 :])
        time.sleep(1 / 50)
"""


def put_rpicam(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this machine one that has the program: camera 7 is absent, the others are there."""
    program = folder / "rpicam-vid"
    program.write_text(RPICAM.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
