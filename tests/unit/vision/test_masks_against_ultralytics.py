"""Masks of noise, at frame sizes whose padding ends within a cell of the prototypes, are those of Ultralytics' own operations."""

from __future__ import annotations

import numpy as np
import pytest

from edgecv.converters.families.ultralytics_import import tasks
from edgecv.specs import DecodeSpec, TensorSpec
from edgecv.vision.letterbox import letterbox
from edgecv.vision.yolov8_tasks import SegmentDecoder
from tests.unit.vision.heads import LABELS, SIZE_WH, STRIDES, raw_head

torch = pytest.importorskip("torch")

CHANNELS, CELL = 8, 4


@pytest.mark.parametrize(
    "frame_wh",
    [(96, 64), (127, 95), (128, 96), (101, 77), (333, 200), (640, 427), (500, 375), (17, 300), (641, 639), (53, 53)],
)
def test_noise_gives_the_masks_of_ultralytics(frame_wh: tuple[int, int]) -> None:
    tasks()
    from ultralytics.utils import ops

    rng = np.random.default_rng(5)
    outputs, specs = raw_head(5)
    coefficients = rng.normal(size=CHANNELS).astype(
        np.float32
    )  # the same in every cell: no need to know which survived
    for stride in STRIDES:
        grid = (SIZE_WH[1] // stride, SIZE_WH[0] // stride)
        outputs[f"mask_{stride}"] = np.broadcast_to(coefficients[None, :, None, None], (1, CHANNELS, *grid)).copy()
        specs += (_planes(f"mask_{stride}", f"mask/{stride}", outputs[f"mask_{stride}"].shape),)
    outputs["proto"] = rng.normal(size=(1, CHANNELS, SIZE_WH[1] // CELL, SIZE_WH[0] // CELL)).astype(np.float32)
    specs += (_planes("proto", "proto", outputs["proto"].shape),)

    decode = DecodeSpec(task="segment", decoder="yolov8-segment", labels=LABELS, confidence=0.5)
    _, transform = letterbox(np.zeros((frame_wh[1], frame_wh[0], 3), np.uint8), SIZE_WH)
    found = SegmentDecoder(decode, specs)(outputs, transform, decode, False)
    assert len(found) > 10
    assert found.mask is not None

    wanted = (
        ops.process_mask_native(
            torch.from_numpy(outputs["proto"][0]),
            torch.from_numpy(np.tile(coefficients, (len(found), 1))),
            torch.from_numpy(found.xyxy),
            frame_wh[::-1],
        )
        .numpy()
        .astype(bool)
    )
    either = (found.mask | wanted).sum(axis=(1, 2))
    both = (found.mask & wanted).sum(axis=(1, 2))
    assert either.max() > 20
    assert (both[either > 0] / either[either > 0]).min() >= 0.98


def _planes(name: str, role: str, shape: tuple[int, ...]) -> TensorSpec:
    return TensorSpec(name=name, role=role, shape=shape, dtype="float32", layout="NCHW")
