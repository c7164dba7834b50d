"""``edgecv predict --save``: annotated images, and nothing overwritten that was not meant."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

import edgecv
from edgecv.cli.app import explain, run_command
from edgecv.errors import EdgeCVError
from tests.conftest import names_in
from tests.models import bright_cell, write_bundle

Command = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("b") / "tiny.ecv").path


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["edgecv", *map(str, arguments)])
        try:
            code = run_command()
        except EdgeCVError as error:
            code = explain(error)
        read = capfd.readouterr()
        return code, read.out + read.err

    return call


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a/1.png", "b/1.png", "b/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), bright_cell(1, 2))
    return tmp_path


def test_each_image_is_written_with_what_was_found(folder: Path, bundle: Path, cli: Command) -> None:
    code, said = cli("predict", bundle, folder / "a", folder / "b", "--save", folder / "new/out")
    assert code == 0, said
    assert names_in(folder / "new/out") == ["1-2.jpg", "1.jpg", "2.jpg"]
    saved = edgecv.read_image(folder / "new/out/1-2.jpg")
    assert saved.shape == (64, 64, 3)
    assert np.abs(saved.astype(int) - bright_cell(1, 2)).max() > 100, "a box in colour is on it"
    assert (edgecv.read_image(folder / "a/1.png") == bright_cell(1, 2)).all()


def test_nothing_is_overwritten_unless_it_is_asked_for(folder: Path, bundle: Path, cli: Command) -> None:
    (folder / "out").mkdir()
    (folder / "out/2.jpg").write_bytes(b"mine")
    code, said = cli("predict", bundle, folder / "b", "--save", folder / "out")
    assert (code, names_in(folder / "out")) == (2, ["2.jpg"]), said
    assert "2.jpg exists" in said
    assert "--force" in said
    assert (folder / "out/2.jpg").read_bytes() == b"mine"
    assert cli("predict", bundle, folder / "b", "--save", folder / "out", "--force")[0] == 0
    assert (folder / "out/2.jpg").read_bytes() != b"mine"


def test_an_image_that_is_read_is_not_overwritten_even_by_force(folder: Path, bundle: Path, cli: Command) -> None:
    cv2.imwrite(str(folder / "b/2.jpg"), bright_cell(0, 0))
    before = (folder / "b/2.jpg").read_bytes()
    code, said = cli("predict", bundle, folder / "b/2.jpg", "--save", folder / "b", "--force")
    assert code == 2
    assert "one of the images that are read" in said
    assert (folder / "b/2.jpg").read_bytes() == before


def test_nothing_is_written_through_a_link(folder: Path, bundle: Path, cli: Command) -> None:
    (folder / "out").mkdir()
    (folder / "precious").write_bytes(b"mine")
    (folder / "out/1.jpg").symlink_to(folder / "precious")
    assert cli("predict", bundle, folder / "a", "--save", folder / "out", "--force")[0] != 0
    assert (folder / "precious").read_bytes() == b"mine"


def test_a_file_in_place_of_the_folder_is_named(folder: Path, bundle: Path, cli: Command) -> None:
    code, said = cli("predict", bundle, folder / "b/1.png", "--save", folder / "a/1.png")
    assert code == 2
    assert "a/1.png is a file" in said


def test_an_image_that_cannot_be_read_does_not_keep_the_others_from_being_written(
    folder: Path, bundle: Path, cli: Command
) -> None:
    (folder / "b/0.png").write_bytes(b"no image")
    code, said = cli("predict", bundle, folder / "b", "--save", folder / "out")
    assert code == 1
    assert "0.png" in said
    assert names_in(folder / "out") == ["1.jpg", "2.jpg"]
