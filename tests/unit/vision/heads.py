"""Raw YOLOv8 heads made of random numbers, and what they mean, written out with plain loops."""

from __future__ import annotations

import msgspec
import numpy as np

from edgecv.specs import DecodeSpec, TensorSpec

SIZE_WH = (96, 64)
STRIDES = (8, 16, 32)
BINS = 16
LABELS = ("cat", "dog", "bird")
CELLS = sum((SIZE_WH[0] // s) * (SIZE_WH[1] // s) for s in STRIDES)

Outputs = dict[str, np.ndarray]


def raw_head(seed: int = 0) -> tuple[Outputs, tuple[TensorSpec, ...]]:
    """Outputs in which about one cell in ten scores above a half, and their specs."""
    rng = np.random.default_rng(seed)
    outputs: Outputs = {}
    specs = []
    for stride in STRIDES:
        grid = (SIZE_WH[1] // stride, SIZE_WH[0] // stride)
        for role, channels, shift in (("box", 4 * BINS, 0.0), ("class", len(LABELS), -3.5)):
            name = f"{role}_{stride}"
            outputs[name] = rng.normal(shift, 2.0, (1, channels, *grid)).astype(np.float32)
            specs.append(
                TensorSpec(
                    name=name,
                    role=f"{role}/{stride}",
                    shape=outputs[name].shape,
                    dtype="float32",
                    layout="NCHW",
                )
            )
    return outputs, tuple(specs)


def prediction_of(outputs: Outputs) -> np.ndarray:
    """The classic ``(1, 4 + classes, cells)`` prediction of a raw head, cell by cell in double precision."""
    columns = []
    for stride in STRIDES:
        box, score = outputs[f"box_{stride}"].astype(float), outputs[f"class_{stride}"].astype(float)
        for y in range(box.shape[2]):
            for x in range(box.shape[3]):
                sides = []
                for side in range(4):
                    weights = np.exp(box[0, side * BINS : (side + 1) * BINS, y, x])
                    sides.append(float(weights @ np.arange(BINS) / weights.sum()))
                left, top, right, bottom = sides
                centre = (x + 0.5 + (right - left) / 2, y + 0.5 + (bottom - top) / 2)
                rows = [*(stride * v for v in (*centre, left + right, top + bottom))]
                columns.append([*rows, *(1 / (1 + np.exp(-score[0, :, y, x])))])
    return np.array(columns).T[None].astype(np.float32)


def quantized(outputs: Outputs, specs: tuple[TensorSpec, ...]) -> tuple[Outputs, tuple[TensorSpec, ...], Outputs]:
    """The head stored as uint8, its specs, and the real values that the stored ones stand for."""
    stored: Outputs = {}
    real: Outputs = {}
    changed = []
    for spec in specs:
        values = outputs[spec.name]
        scale = float(np.ptp(values)) / 255
        zero_point = round(-float(values.min()) / scale)
        stored[spec.name] = np.clip(np.rint(values / scale) + zero_point, 0, 255).astype(np.uint8)
        real[spec.name] = ((stored[spec.name].astype(float) - zero_point) * scale).astype(np.float32)
        changed.append(msgspec.structs.replace(spec, dtype="uint8", scale=scale, zero_point=zero_point))
    return stored, tuple(changed), real


def channels_last(outputs: Outputs, specs: tuple[TensorSpec, ...]) -> tuple[Outputs, tuple[TensorSpec, ...]]:
    """The same head in the layout of TFLite files."""
    moved = {name: np.ascontiguousarray(value.transpose(0, 2, 3, 1)) for name, value in outputs.items()}
    changed = [msgspec.structs.replace(s, shape=moved[s.name].shape, layout="NHWC") for s in specs]
    return moved, tuple(changed)


def decode_spec(decoder: str = "yolov8-raw", **limits: float) -> DecodeSpec:
    """For the labels above."""
    return DecodeSpec(task="detect", decoder=decoder, labels=LABELS, **limits)
