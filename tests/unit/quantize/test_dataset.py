"""Data sets as Ultralytics, Roboflow, CVAT and Label Studio write them, and as editors and systems leave them."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecv._internal.yaml_files import class_names, parse_yaml
from edgecv.errors import CalibrationError, ConfigError
from edgecv.media.image_files import images_below
from edgecv.quantize.calibration.calibration_set import open_calibration
from edgecv.quantize.labels.dataset import dataset_places, images_at, read_dataset
from edgecv.quantize.labels.evaluate import label_path, labelled_images, read_labels
from edgecv.quantize.labels.int8_loss import class_numbers, open_labelled
from tests.conftest import SHARED


def case(name: str) -> Path:
    path = SHARED / "cases/convert" / name
    if not path.exists():
        pytest.skip("../shared/cases is not on this machine")
    return path


def images(folder: Path, count: int = 2, label: str = "") -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        image = np.random.default_rng(number).integers(0, 255, (32, 32, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number}.jpg"), image)
        if label:
            path = label_path(folder / f"{number}.jpg")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(label)
    return folder


def names(paths: list[Path], root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in paths]


def chosen(yaml: Path, part: str = "train") -> list[Path]:
    return [image for place in dataset_places(yaml, part) for image in images_at(place, [yaml.parent])]


def test_the_data_yaml_of_roboflow_is_read_beside_its_folders(tmp_path: Path) -> None:
    shutil.copy(case("roboflow/data.yaml"), tmp_path)
    for part in ("train", "valid", "test"):
        images(tmp_path / part / "images", label="2 0.5 0.5 0.5 0.5\n")
    assert names(chosen(tmp_path / "data.yaml"), tmp_path) == ["train/images/0.jpg", "train/images/1.jpg"]
    assert names(labelled_images(tmp_path / "data.yaml"), tmp_path) == ["valid/images/0.jpg", "valid/images/1.jpg"]
    assert labelled_images(tmp_path) == labelled_images(tmp_path / "data.yaml"), "the folder is taken by its data.yaml"


@pytest.mark.parametrize("given", ["txt.yaml", "train.txt"])
def test_a_list_of_images_is_calibrated_with(tmp_path: Path, coco_images: list[Path], given: str) -> None:
    for name in ("txt.yaml", "train.txt"):
        shutil.copy(case(name), tmp_path)
    (tmp_path / "images/train").mkdir(parents=True)
    for line in (tmp_path / "train.txt").read_text().split():
        shutil.copy(coco_images[0].parent / Path(line).name, tmp_path / line)
    assert len(open_calibration(tmp_path / given)) == 24


@pytest.mark.parametrize(
    "lines",
    [
        "./images/train/0.jpg\r\nimages/train/1.jpg\r\n",
        "data/images/train/0.jpg\ndata/images/train/1.jpg\n",  # CVAT
        "images\\train\\0.jpg\n\n images\\train\\1.jpg \n",
        "{here}/images/train/0.jpg\n{here}/images/train/1.jpg",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lines_of_a_list_are_found_whoever_wrote_them(tmp_path: Path, lines: str, encoding: str) -> None:
    images(tmp_path / "images/train")
    (tmp_path / "train.txt").write_bytes(lines.format(here=tmp_path).encode(encoding))
    assert names(images_at(tmp_path / "train.txt"), tmp_path) == ["images/train/0.jpg", "images/train/1.jpg"]


@pytest.mark.parametrize(
    "text",
    [
        "train: images/train\n",
        "path: .\ntrain: [images/train]\n",
        "path: /content/nowhere\ntrain: images/train\n",  # made on another machine
        "path: ../{folder}\ntrain: images/train\n",
        "train: images\\train\n",
        "train: {here}/images/train\n",
        "train: ../images/train\n",
        "a: &one images/train\ntrain: *one\n",
        "train: images/train\nnames:\n- a\n- \x07b\n",
    ],
)
def test_paths_of_a_data_yaml_are_found(tmp_path: Path, text: str) -> None:
    images(tmp_path / "images/train")
    (tmp_path / "data.yaml").write_text(text.format(here=tmp_path, folder=tmp_path.name))
    assert len(chosen(tmp_path / "data.yaml")) == 2


def test_validation_is_another_word_for_val(tmp_path: Path) -> None:
    images(tmp_path / "v")
    (tmp_path / "data.yaml").write_text("train: nowhere\nvalidation: v\n")
    assert len(chosen(tmp_path / "data.yaml", "val")) == 2


def test_a_part_that_is_missing_says_where_it_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("path: elsewhere\ntrain: images\n")
    with pytest.raises(CalibrationError, match=r"train images does not exist; looked for in .*elsewhere"):
        dataset_places(tmp_path / "data.yaml", "train")


def test_linked_folders_are_read_once_and_their_labels_are_found(tmp_path: Path) -> None:
    images(tmp_path / "store/images/a", label="0 0.5 0.5 0.5 0.5")
    (tmp_path / "set").mkdir()
    (tmp_path / "set/linked").symlink_to(tmp_path / "store/images/a")
    (tmp_path / "set/again").symlink_to(tmp_path / "store/images/a")
    (tmp_path / "set/loop").symlink_to(tmp_path / "set")
    found = images_below(tmp_path / "set")
    assert len(found) == 2
    assert all(len(read_labels(image).class_id) == 1 for image in found)


def test_images_come_in_the_order_in_which_a_person_counts_without_litter(tmp_path: Path) -> None:
    for name in ("b/f10.jpg", "b/f9.jpg", "a2/1.jpg", "a10/1.jpg", "A2/2.JPG"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name in ("._f9.jpg", ".hidden.jpg", "__MACOSX/1.jpg", ".git/1.jpg", "@eaDir/1.jpg", ".ipynb_checkpoints/1.jpg"):
        (tmp_path / "b" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "b" / name).touch()
    assert names(images_below(tmp_path), tmp_path) == ["a2/1.jpg", "A2/2.JPG", "a10/1.jpg", "b/f9.jpg", "b/f10.jpg"]


def test_calibration_passes_what_macos_leaves(tmp_path: Path, coco_images: list[Path]) -> None:
    for image in coco_images[:16]:
        shutil.copy(image, tmp_path)
    shutil.copy(next(case("mac").iterdir()), tmp_path)
    assert len(open_calibration(tmp_path)) == 16


@pytest.mark.parametrize(("suffix", "name"), [("heic", "HEIC"), ("avif", "AVIF"), ("gif", "GIF"), ("jp2", "JPEG 2000")])
def test_images_that_are_not_read_are_named(tmp_path: Path, caplog, suffix: str, name: str) -> None:
    for number in range(3):
        (tmp_path / f"{number}.{suffix}").touch()
    with pytest.raises(CalibrationError, match=f"holds no images that are read, but 3 {name}") as caught:
        open_calibration(tmp_path)
    assert "JPEG or PNG" in caught.value.hint
    (tmp_path / "1.jpg").touch()
    assert len(images_below(tmp_path)) == 1
    assert f"left out are 3 {name}" in caplog.text


BOX = "0 0.5 0.5 0.2 0.2"


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ("", []),
        ("  \n\n", []),
        (f"{BOX}   \n", [0]),
        (f"1.0 0.5 0.5 0.2 0.2\n{BOX}", [1, 0]),
        (f"{BOX}\n{BOX}\n", [0]),
        (f"{BOX}\n1 0.5 0.5 0.2 0.2\n0 0.500 0.5 0.20 0.2 0.9\n", [0, 1]),
        ("0 0.1 0.1 0.3 0.1 0.3 0.3\n0 0.1 0.1 0.3 0.3 0.1 0.3\n", [0, 0]),  # two outlines in one box
        ("0 -0.005 0.5 0.2 0.2", [0]),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_label_files(tmp_path: Path, text: str, classes: list[int], encoding: str) -> None:
    (tmp_path / "1.txt").write_bytes(text.encode(encoding))
    assert read_labels(tmp_path / "1.jpg").class_id.tolist() == classes


def test_the_label_file_of_notepad(tmp_path: Path) -> None:
    shutil.copy(case("label_with_bom.txt"), tmp_path / "1.txt")
    found = read_labels(tmp_path / "1.jpg")
    assert found.class_id.tolist() == [59, 77]
    assert np.allclose(found.xyxy[0], [0.0220, 0.0060, 1.0000, 0.8782], atol=1e-3)


@pytest.mark.parametrize(
    "line",
    ["0 0.5 0.5 -0.2 0.2", "0 0.5 0.5 0.2 -0.2", "0 -0.5 0.5 0.2 0.2", "0.5 0.5 0.5 0.2 0.2", "0 nan 0.5 0.2 0.2"],
)
def test_labels_that_mean_nothing_are_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "1.txt").write_text(line)
    with pytest.raises(ConfigError, match="not a YOLO label file"):
        read_labels(tmp_path / "1.jpg")


def test_names_that_differ_in_case_are_two_classes(tmp_path: Path) -> None:
    for number, letter in enumerate("01"):
        images(tmp_path / f"images/{number}", 1, f"{letter} 0.5 0.5 0.2 0.2")
    shutil.copy(case("letters/case.yaml"), tmp_path)
    found = open_labelled(tmp_path / "case.yaml", "detect", ("A", "a"))
    assert [truth.class_id.tolist() for truth in found.truth] == [[0], [1]]


@pytest.mark.parametrize(
    ("given", "labels", "wanted"),
    [
        (["A", "a"], ("A", "a"), {0: 0, 1: 1}),
        (["A", "a"], ("a", "A"), {0: 1, 1: 0}),
        (["A", "a"], ("a",), {1: 0}),
        (["Car", "PERSON"], ("person", "car"), {0: 1, 1: 0}),
        (["x", "x"], ("x", "x"), {0: 0, 1: 1}),
        (["cafe\u0301"], ("caf\u00e9",), {0: 0}),
        ({"1": "b", 0: "a"}, ("a", "b"), {0: 0, 1: 1}),
        ([True, 5], ("True", "5"), {0: 0, 1: 1}),
    ],
)
def test_names_find_their_class(given: object, labels: tuple[str, ...], wanted: dict[int, int]) -> None:
    assert class_numbers(class_names(given), labels) == wanted


def test_a_name_that_the_model_has_twice_elsewhere_is_refused() -> None:
    with pytest.raises(ValueError, match="2 classes named 'x'"):
        class_numbers({0: "x"}, ("y", "x", "x"))


def test_folders_of_classes_that_differ_in_case(tmp_path: Path) -> None:
    images(tmp_path / "A", 1)
    images(tmp_path / "a", 1)
    assert open_labelled(tmp_path, "classify", ("a", "A")).truth == (1, 0)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{n}: &{n} [{', '.join([f'*{m}'] * 9)}]\n" for m, n in zip("abcdefg", "bcdefgh", strict=True)),
        "a: &a [*a]\n",
        "a: " + "[" * 100_000,
        "a: " + "[" * 5_000,
        "a: 1\na b: [",
        "!!python/object/apply:os.system ['true']",
        "- a\n- b\n",
    ],
    ids=["bomb", "loop", "very deep", "deep", "broken", "code", "list"],
)
def test_yaml_that_is_hostile_or_broken_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_yaml(text, "convert")
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(CalibrationError, match="cannot be read"):
        read_dataset(tmp_path / "data.yaml")
