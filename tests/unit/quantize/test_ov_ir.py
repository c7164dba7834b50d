"""OpenVINO's files: the same model is the same bytes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv.quantize.ov.ir import names_of, number_above, save_ir
from edgecv.quantize.ov.quantizer import drawn
from tests.conftest import CHECKOUT

openvino = pytest.importorskip("openvino")


def model() -> Any:
    """A multiplication, an addition that its source named like OpenVINO does, and a node that belongs to it."""
    made = openvino.opset13
    image = made.parameter([1, 4], np.float32, name="image")
    added = made.add(made.multiply(image, made.constant(np.full(4, 2, np.float32))), made.constant(np.float32(1)))
    added.set_friendly_name("Add_7")
    scaled = made.multiply(added, made.constant(np.float32(3)))
    scaled.set_friendly_name(f"{added.get_name()}/scaled")
    return openvino.Model([made.result(scaled, name="answer")], [image], "tiny")


def test_a_second_model_of_a_process_is_written_as_the_first_one_and_names_of_the_source_stay(tmp_path: Path) -> None:
    number_above({"Add_7"})
    first, second = model(), model()
    assert names_of(first) != names_of(second)
    written = []
    for number, made in enumerate((first, second)):
        files = save_ir(made, tmp_path / f"{number}.xml", kept={"Add_7"})
        written.append([path.read_bytes() for path in files])
    assert written[0] == written[1]
    assert {"image", "Add_7", "answer"} <= names_of(first)


NUMBERS = """
import openvino
from edgecv.quantize.ov.ir import number_above
from edgecv.quantize.ov.quantizer import drawn
number_above({"Reshape_700", "Conv_99999999999", "no number"})
print(openvino.opset13.constant(0).get_name())
"""


def test_numbers_of_the_source_are_left_to_it() -> None:
    """In a process of its own: in one that has converted a lot, OpenVINO's numbers are past those that a source has."""
    done = subprocess.run(
        [sys.executable, "-c", NUMBERS], cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=True
    )
    assert 700 < int(done.stdout.rpartition("_")[2]) < 99999


def test_what_was_renamed_has_names_of_its_own(tmp_path: Path) -> None:
    made = model()
    save_ir(made, tmp_path / "a.xml", kept={"Add_7", "Constant_0"})
    names = [op.get_friendly_name() for op in made.get_ops()]
    assert len(names) == len(set(names))
    assert "Constant_0" not in names


def test_names_that_a_file_has_stay_as_they_are(tmp_path: Path) -> None:
    path, _ = save_ir(model(), tmp_path / "a.xml")
    read = openvino.Core().read_model(str(path))
    again, _ = save_ir(read, tmp_path / "b.xml", kept=names_of(read))
    assert again.read_bytes() == path.read_bytes()


def test_a_seed_draws_other_images_and_seed_0_takes_all() -> None:
    images = [np.full(1, at) for at in range(16)]
    assert drawn(images, 0) is images
    first, second, again = ([int(image[0]) for image in drawn(images, seed)] for seed in (1, 2, 1))
    assert first == again != second
    assert len(first) == 14
    assert sorted(set(first)) == first
    assert len(drawn(images[:1], 1)) == 1
