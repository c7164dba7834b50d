"""Padding with the zero point: the same integers, and XNNPACK computes all of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv.quantize.litert.padding import pad_with_zero_points

SHAPE = (1, 16, 16, 3)


def quantized(folder: Path, *, rectified: bool, padded: bool = False) -> Path:
    """An int8 convolution and a padded max-pool; with ``rectified`` a ReLU between them, with ``padded`` a ``PAD`` as well."""
    import litert_torch
    import torch
    from ai_edge_quantizer import quantizer, recipe

    class Small(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.convolution = torch.nn.Conv2d(3, 8, 3, stride=2 if padded else 1, padding=1 if padded else 0)
            self.pool = torch.nn.MaxPool2d(3, stride=2, padding=1)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            made = self.convolution(image.permute(0, 3, 1, 2))
            return self.pool(torch.relu(made) if rectified else made)

    floats, path = folder / "float.tflite", folder / "int8.tflite"
    floats.write_bytes(litert_torch.convert(Small().eval(), (torch.zeros(SHAPE),)).model_content())
    work = quantizer.Quantizer(str(floats))
    work.load_quantization_recipe(recipe.static_wi8_ai8())
    (signature,) = interpreter(floats).get_signature_list()
    found = work.calibrate({signature: [{"args_0": random_image(seed)} for seed in range(8)]})
    work.quantize(found).export_model(str(path))
    return path


def interpreter(path: Path) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    made = Interpreter(model_path=str(path), num_threads=1)
    made.allocate_tensors()
    return made


def random_image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)


def outputs(path: Path, seed: int) -> np.ndarray:
    made = interpreter(path)
    stored = np.random.default_rng(seed).integers(-128, 128, SHAPE, np.int8)
    made.set_tensor(made.get_input_details()[0]["index"], stored)
    made.invoke()
    return made.get_tensor(made.get_output_details()[0]["index"])


def operators(path: Path) -> list[str]:
    return [operator["op_name"] for operator in interpreter(path)._get_ops_details()]


@pytest.mark.parametrize("padded", [False, True], ids=["no PAD before", "a PAD before"])
def test_after_a_relu_the_network_is_one_piece_and_gives_the_same_integers(tmp_path: Path, padded: bool) -> None:
    before = quantized(tmp_path, rectified=True, padded=padded)
    after = tmp_path / "after.tflite"
    shutil.copy(before, after)
    assert pad_with_zero_points(after) == 1
    assert operators(before).count("PADV2") == 1
    assert operators(before).count("DELEGATE") == 2
    assert operators(after).count("PADV2") == 0
    assert operators(after).count("PAD") == (2 if padded else 1)
    assert operators(after).count("DELEGATE") == 1
    for seed in range(20, 24):
        assert np.array_equal(outputs(before, seed), outputs(after, seed))
    assert pad_with_zero_points(after) == 0


def test_where_the_padding_is_no_zero_the_file_is_left_alone(tmp_path: Path) -> None:
    path = quantized(tmp_path, rectified=False)
    before = path.read_bytes()
    assert "PADV2" in operators(path)
    assert pad_with_zero_points(path) == 0
    assert path.read_bytes() == before
