"""``python -m tests.unit.runtimes.first_use RUNTIME FILE loaded|loading``: several threads use a runtime first, all at once.

The program ends with 0 when each got the right answer. ``loaded``: they share a session that never ran; ``loading``: each
opens its own. It ends for certain only when no thread waits for another: whoever starts it sets a deadline.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import numpy as np

from edgecv import registry
from edgecv.protocols import Session
from edgecv.specs import RuntimeOptions

THREADS = 4
FEEDS = {"pixels": np.ones((1, 4, 4, 3), np.uint8), "gain": np.array([1.0, 0.5], np.float32)}


def main(runtime: str, path: str, when: str) -> None:
    """See the module."""

    def opened() -> Session:
        session: Session = registry.resolve("runtimes", runtime)(Path(path), RuntimeOptions(threads=1))
        return session

    shared = opened() if when == "loaded" else None
    together, totals = threading.Barrier(THREADS), []

    def work() -> None:
        together.wait()
        totals.append((shared or opened()).run(FEEDS)["total"].tolist())

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    sys.setswitchinterval(1e-5)  # the more often threads take turns, the surer they meet
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os._exit(0 if totals == [[48.0, 24.0]] * THREADS else 1)


if __name__ == "__main__":
    main(*sys.argv[1:])
