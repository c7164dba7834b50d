"""The small inputs that once failed for strangers, as whole files; most others are tested beside the code that reads them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import edgecv
from edgecv._internal.yaml_files import class_names, parse_yaml
from edgecv.benchmarks.demo import MODEL_PATH
from edgecv.benchmarks.demo.data import write_clip, write_images
from edgecv.quantize.calibration.calibration_set import open_calibration
from edgecv.quantize.labels.dataset import dataset_places, images_at, read_dataset
from edgecv.quantize.labels.int8_loss import class_numbers
from tests.conftest import CHECKOUT, SHARED, shared_case

DEADLINE_S = 100


def run(folder: Path, *command: object) -> subprocess.CompletedProcess[str]:
    paths = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": paths, "PYTHONPATH": str(CHECKOUT)}
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def test_force_leaves_a_folder_that_is_no_bundle(tmp_path: Path) -> None:
    done = run(tmp_path, "bash", shared_case("force_deletes.sh"))
    assert done.stdout.split() == ["exit", "2", "notes.txt"], done.stderr


def test_a_line_and_a_zone_outside_the_image_are_named_and_the_frames_come(tmp_path: Path) -> None:
    config = SHARED / "cases/run/zone.toml"
    if not config.exists():
        pytest.skip("../shared/cases is not on this machine")
    (tmp_path / "out").mkdir()
    write_clip(tmp_path / "demo-output/clip.avi", frames=20, seed=1)
    edgecv.convert(MODEL_PATH, precision="fp32", out=tmp_path / "demo-output/shapes.ecv")
    done = run(tmp_path, sys.executable, "-m", "edgecv", "run", "--config", config)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stderr.split())
    assert "yard" in said
    assert "outside" in said
    rows = (tmp_path / "out/zone.jsonl").read_text().splitlines()
    assert sum('"detections"' in row for row in rows) == 20


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("metadata_emoji.yaml", "car \U0001f697"),
        ("metadata_long_name.yaml", "person"),
        ("metadata_wrapped.yaml", " ".join(["defect"] * 15) + " end"),
    ],
)
def test_class_names_are_read_as_ultralytics_writes_them(name: str, first: str) -> None:
    names = class_names(parse_yaml(shared_case(name).read_text(), "convert")["names"])
    assert names[0] == first


def test_roboflow_s_train_folder_is_found_beside_the_file(tmp_path: Path) -> None:
    shutil.copy(shared_case("roboflow/data.yaml"), tmp_path)
    made = write_images(tmp_path / "train/images", count=3, seed=0)
    (place,) = dataset_places(tmp_path / "data.yaml", "train")
    assert images_at(place) == sorted(made)


def test_a_list_of_images_calibrates(tmp_path: Path, coco_images: list[Path]) -> None:
    for name in ("txt.yaml", "train.txt"):
        shutil.copy(shared_case(name), tmp_path)
    listed = [Path(line).name for line in (tmp_path / "train.txt").read_text().split()]
    (tmp_path / "images").mkdir()
    by_name = {path.name: path for path in coco_images}
    (tmp_path / "images/train").mkdir()
    for name in listed:
        shutil.copy(by_name[name], tmp_path / "images/train")
    for source in ("train.txt", "txt.yaml"):
        found = open_calibration(tmp_path / source)
        assert {path.name for path in (*found.calibrate, *found.held_out)} == set(listed)


def test_files_of_macos_do_not_stop_calibration(tmp_path: Path) -> None:
    made = write_images(tmp_path, count=24, seed=0)
    litter = next(shared_case("mac").iterdir())
    shutil.copy(litter, tmp_path)
    found = open_calibration(tmp_path)
    assert {*found.calibrate, *found.held_out} == set(made)


def test_classes_that_differ_in_case_alone_stay_apart() -> None:
    names = class_names(read_dataset(shared_case("letters/case.yaml"))["names"])
    assert class_numbers(names, ("A", "a")) == {0: 0, 1: 1}
    assert class_numbers(names, ("a", "A")) == {0: 1, 1: 0}
