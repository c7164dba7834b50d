"""Frames and detections without a camera or a model: recorded ones of ``vtest.avi``, and scenes made up with a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecv.results import Detections, Frame, Result

EPOCH_NS = 1_800_000_000_000_000_000
SIZE_WH = (768, 576)
LABELS = ("person", "bicycle", "car")
# A view of one pixel: the steps look at the size of an image, not at the image.
_BLACK = np.broadcast_to(np.zeros(1, np.uint8), (SIZE_WH[1], SIZE_WH[0], 3))


def at_s(seconds: float, index: int = 0, source_id: str = "cam") -> Frame:
    """A frame taken so long after the start."""
    elapsed_ns = round(seconds * 1e9)
    return Frame(
        image=_BLACK,
        index=index,
        source_id=source_id,
        captured_ns=EPOCH_NS + elapsed_ns,
        monotonic_ns=5_000_000_000 + elapsed_ns,
    )


def boxes(*rows: Sequence[float], ids: Sequence[int] | None = None) -> Detections:
    """Detections from ``left, top, right, bottom[, confidence[, class]]``, and ids."""
    filled = [(*row, *(0.9, 0)[len(row) - 4 :]) for row in rows]
    table = np.array(filled, np.float64).reshape(-1, 6)
    return Detections(
        xyxy=table[:, :4].astype(np.float32),
        confidence=table[:, 4].astype(np.float32),
        class_id=table[:, 5].astype(np.int64),
        tracker_id=None if ids is None else np.array(ids, np.int64),
    )


def standing_at(*points: tuple[float, float], ids: Sequence[int] | None = None) -> Detections:
    """Boxes of 20 × 40 pixels whose bottom centres are these points."""
    return boxes(*((x - 10, y - 40, x + 10, y) for x, y in points), ids=ids)


def result_of(found: Detections | None, seconds: float = 0.0, source_id: str = "cam") -> Result:
    """A result as the loop hands it to the steps."""
    return Result(frame=at_s(seconds, source_id=source_id), labels=LABELS, detections=found)


def street() -> list[Detections]:
    """What YOLOv8n saw in the first 400 frames of ``vtest.avi``, from a confidence of 0.1 on (``record_detections.py``)."""
    with np.load(Path(__file__).parent / "vtest_detections.npz", allow_pickle=False) as kept:
        ends = np.cumsum(kept["per_frame"]).tolist()
        found = Detections(
            xyxy=kept["boxes_16th_px"].astype(np.float32) / 16,
            confidence=kept["scores_1e4"].astype(np.float32) / 10_000,
            class_id=kept["classes"].astype(np.int64),
        )
    return [found[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """People who walk straight across a frame of 768 × 576 at a steady pace.

    Attributes:
        people: How many.
        frames: How long.
        seed: Which crowd.
    """

    people: int = 12
    frames: int = 120
    seed: int = 0

    def detections(self) -> list[Detections]:
        """What a detector of our days sees of them: it misses some, is unsure when one is half hidden, and sees ghosts."""
        rng = np.random.default_rng(self.seed)
        size = rng.uniform((25, 60), (45, 120), (self.people, 2))
        start = rng.uniform((0, 100), (768, 500), (self.people, 2))
        pace = rng.uniform((-7, -3), (7, 3), (self.people, 2))
        return [self._frame(rng, start + pace * at, size) for at in range(self.frames)]

    def _frame(self, rng: np.random.Generator, centre: np.ndarray, size: np.ndarray) -> Detections:
        seen = centre + rng.normal(0, 0.02, centre.shape) * size
        extent = size * rng.normal(1, 0.02, size.shape)
        xyxy = np.concatenate([seen - extent / 2, seen + extent / 2], axis=1)
        score = rng.uniform(0.55, 0.95, len(seen))
        score[_hidden(centre, size)] -= 0.35
        ghosts = rng.uniform(0, 500, (rng.integers(0, 2), 4))
        ghosts[:, 2:] = ghosts[:, :2] + 30
        kept = (rng.uniform(size=len(seen)) > 0.05) & ((centre > 0) & (centre < SIZE_WH)).all(axis=1)
        return boxes(
            *np.column_stack([xyxy, score])[kept],
            *np.column_stack([ghosts, rng.uniform(0.1, 0.65, len(ghosts))]),
        )


def _hidden(centre: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Whose place somebody nearer to the camera takes."""
    near = np.abs(centre[:, None] - centre[None]) < (size[:, None] + size[None]) / 4
    nearer = (centre[:, 1] + size[:, 1] / 2)[None] > (centre[:, 1] + size[:, 1] / 2)[:, None]
    return np.asarray((near.all(axis=2) & nearer).any(axis=1))
