"""``--force`` and ``overwrite`` replace a thing of the kind that is written, and nothing else."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest

import edgecv
from edgecv.benchmarks.demo.run import _prepare, run_demo
from edgecv.bundles.bundle import Bundle
from edgecv.bundles.manifest import MANIFEST, SCHEMA
from edgecv.bundles.packing import pack, unpack
from edgecv.errors import BundleError, ConfigError
from edgecv.pipelines.sinks import open_sink
from tests.conftest import SHARED, names_in
from tests.contract.test_sinks import make_result


@pytest.fixture(scope="module")
def bundle(resnet20: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return edgecv.convert(resnet20, precision="fp32", out=tmp_path_factory.mktemp("made") / "r.ecv").path


def project(path: Path) -> Path:
    path.mkdir()
    (path / "notes.txt").write_text("hello")
    return path


def note(path: Path) -> Path:
    path.write_text("hello")
    return path


@pytest.fixture(params=[project, note], ids=["project", "file"])
def other(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return request.param(tmp_path / "X")


def content(path: Path) -> str:
    return (path / "notes.txt" if path.is_dir() else path).read_text()


def test_convert_leaves_what_is_no_bundle(other: Path) -> None:
    model = SHARED / "cases/convert/t_logits.onnx"
    if not model.exists():
        pytest.skip("../shared/cases is not on this machine")
    kind = "folder that is no bundle" if other.is_dir() else "a file"
    with pytest.raises(ConfigError, match=kind) as caught:
        edgecv.convert(model, precision="fp32", out=other, force=True)
    assert "only a bundle would be" in caught.value.message
    assert content(other) == "hello"
    assert names_in(other.parent) == ["X"]


def test_pack_and_unpack_leave_what_is_no_bundle(other: Path, bundle: Path, tmp_path: Path) -> None:
    packed = pack(bundle, tmp_path / "p.zip")
    for write in (lambda: unpack(packed, other, force=True), lambda: pack(bundle, other, force=True)):
        with pytest.raises(ConfigError, match="not replaced"):
            write()
        assert content(other) == "hello"


def test_pack_leaves_another_zip_file(bundle: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("holiday.txt", "hello")
    with pytest.raises(ConfigError, match="a zip file without"):
        pack(bundle, tmp_path / "photos.zip", force=True)
    pack(bundle, tmp_path / "p.zip")
    pack(bundle, tmp_path / "p.zip", force=True)


@pytest.mark.parametrize("scheme", ["jsonl", "csv", "record"])
def test_sinks_leave_what_they_did_not_write(other: Path, scheme: str) -> None:
    with pytest.raises(ConfigError):
        open_sink(f"{scheme}:{other}", overwrite=True)
    assert content(other) == "hello"


def test_a_video_is_not_written_over_a_note_that_has_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not replaced"):
        open_sink(f"video:{note(tmp_path / 'out.mp4')}", overwrite=True)
    assert content(tmp_path / "out.mp4") == "hello"


def test_results_are_not_written_over_other_json(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"name": "mine"}')
    with pytest.raises(ConfigError, match="not replaced"):
        open_sink(f"jsonl:{tmp_path / 'config.json'}", overwrite=True)


def test_a_bundle_with_something_of_its_owner_in_it_stays(bundle: Path, tmp_path: Path) -> None:
    packed = pack(bundle, tmp_path / "p.zip")
    target = shutil.copytree(bundle, tmp_path / "r.ecv")
    (target / "docs").mkdir()
    (target / "docs/measured.txt").write_text("hello")
    with pytest.raises(ConfigError, match=r"also holds docs/measured.txt"):
        unpack(packed, target, force=True)
    (target / "docs/measured.txt").unlink()
    (target / ".DS_Store").write_text("litter")
    unpack(packed, target, force=True)
    assert not (target / ".DS_Store").exists()


@pytest.mark.parametrize("damage", ["newer", "lacks a file", "unreadable name"])
def test_a_bundle_that_cannot_be_read_is_replaced_all_the_same(bundle: Path, tmp_path: Path, damage: str) -> None:
    packed = pack(bundle, tmp_path / "p.zip")
    target = shutil.copytree(bundle, tmp_path / "r.ecv")
    text = (target / MANIFEST).read_text()
    if damage == "newer":
        (target / MANIFEST).write_text(text.replace(f'"schema": {SCHEMA}', '"schema": 99'))
    elif damage == "unreadable name":
        (target / MANIFEST).write_text(text.replace('"name": "r"', '"name": "r\\u0007"'))
    else:
        next(target.rglob("*.onnx")).unlink()
    with pytest.raises(BundleError):
        Bundle.open(target).verify_files()
    unpack(packed, target, force=True)
    Bundle.open(target).verify_files()


def test_a_link_to_another_folder_stays_and_one_to_a_bundle_is_replaced(bundle: Path, tmp_path: Path) -> None:
    packed = pack(bundle, tmp_path / "p.zip")
    (tmp_path / "to-project").symlink_to(project(tmp_path / "project"))
    with pytest.raises(ConfigError, match="no bundle"):
        unpack(packed, tmp_path / "to-project", force=True)
    (tmp_path / "to-bundle").symlink_to(shutil.copytree(bundle, tmp_path / "r.ecv"))
    unpack(packed, tmp_path / "to-bundle", force=True)
    assert not (tmp_path / "to-bundle").is_symlink()
    Bundle.open(tmp_path / "r.ecv").verify_files()


def test_the_demo_leaves_what_lies_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / ".edgecv-demo").touch()
    (tmp_path / "thesis.txt").write_text("hello")
    with pytest.raises(ConfigError, match=r"thesis.txt"):
        run_demo(tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_the_demo_makes_its_own_folder_anew_also_one_of_an_earlier_release(tmp_path: Path) -> None:
    for name in (".edgecv-demo", "clip.avi", "clip.truth.jsonl", "report.html"):
        (tmp_path / "demo" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "demo" / name).touch()
    _prepare(tmp_path / "demo")
    assert [path.name for path in (tmp_path / "demo").iterdir()] == [".edgecv-demo"]


def test_a_recording_stays_until_the_new_one_has_a_frame(tmp_path: Path) -> None:
    for frames in (2, 0):
        sink = open_sink(f"record:{tmp_path / 'door.rec'}", overwrite=True)
        for number in range(frames):
            sink.emit(make_result(number))
        sink.close()
    assert len(list((tmp_path / "door.rec").rglob("*.jpg"))) == 2
    sink = open_sink(f"record:{tmp_path / 'door.rec'}", overwrite=True)
    sink.emit(make_result(0))
    sink.close()
    assert len(list((tmp_path / "door.rec").rglob("*.jpg"))) == 1
    assert names_in(tmp_path) == ["door.rec"]
