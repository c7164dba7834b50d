"""Made ``vtest_detections.npz`` once: what YOLOv8n sees in ``../shared/data/vtest.avi``, down to the scores a tracker uses.

    python -m tests.unit.pipelines.record_detections yolov8n.ecv ../shared/data/vtest.avi

Tests read it with ``recorded.py``. Boxes are kept in 1/16 pixels and scores in 1/10000, so that they fit 16 bits.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import edgecv
from edgecv.media.video_reader import VideoReader

FRAMES = 400
LOWEST = 0.1
TARGET = Path(__file__).parent / "vtest_detections.npz"


def record(bundle: str, video: str) -> None:
    """Write ``TARGET``."""
    model, reader = edgecv.load(bundle, threads=1), VideoReader(video)
    found = []
    for _ in range(FRAMES):
        image = reader.read()
        assert image is not None
        found.append(model(image, confidence=LOWEST))
    np.savez_compressed(
        TARGET,
        boxes_16th_px=np.concatenate([np.rint(one.xyxy * 16) for one in found]).astype(np.uint16),
        scores_1e4=np.concatenate([np.rint(one.confidence * 1e4) for one in found]).astype(np.uint16),
        classes=np.concatenate([one.class_id for one in found]).astype(np.uint8),
        per_frame=np.array([len(one) for one in found], np.uint16),
    )


if __name__ == "__main__":
    record(*sys.argv[1:])
