"""A bundle as one file: what goes in comes out, and nothing else does."""

from __future__ import annotations

import json
import stat
import zipfile
from pathlib import Path

import pytest

from edgecv.bundles.bundle import Bundle
from edgecv.bundles.manifest import MANIFEST
from edgecv.bundles.packing import pack, unpack
from edgecv.errors import BundleError, ConfigError
from tests.conftest import names_in
from tests.models import write_bundle

MODEL = "onnx-fp32/model.onnx"


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "tiny.ecv")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_unpacking_gives_the_very_same_bundle(bundle: Bundle, tmp_path: Path) -> None:
    archive = pack(bundle.path)
    assert archive == tmp_path / "tiny.ecv.zip"
    unpacked = unpack(archive, tmp_path / "copy.ecv")
    assert contents(unpacked) == contents(bundle.path)
    assert Bundle.open(unpacked).manifest == bundle.manifest


def test_only_what_the_manifest_lists_is_packed(bundle: Bundle) -> None:
    (bundle.path / "notes.txt").write_text("private")
    with zipfile.ZipFile(pack(bundle.path)) as archive:
        assert set(archive.namelist()) == {MANIFEST, MODEL, "onnx-int8/model.onnx"}


def test_a_damaged_bundle_is_not_packed(bundle: Bundle, tmp_path: Path) -> None:
    (bundle.path / MODEL).write_bytes(b"something else")
    with pytest.raises(BundleError, match="sha256"):
        pack(bundle.path)
    assert names_in(tmp_path) == ["tiny.ecv"]


def test_existing_targets_are_refused_without_force(bundle: Bundle, tmp_path: Path) -> None:
    archive = pack(bundle.path)
    before = archive.read_bytes()
    with pytest.raises(ConfigError, match="exists"):
        pack(bundle.path)
    with pytest.raises(ConfigError, match="exists"):
        unpack(archive)  # tiny.ecv is still there
    assert archive.read_bytes() == before
    assert pack(bundle.path, force=True) == archive
    assert contents(unpack(archive, force=True)) == contents(bundle.path)
    assert names_in(tmp_path) == ["tiny.ecv", "tiny.ecv.zip"]


def test_an_unwritable_place_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    archive = pack(bundle.path)
    for place in (tmp_path / "missing/x", Path("/proc/self/x")):
        with pytest.raises(ConfigError):
            pack(bundle.path, place)
        with pytest.raises(ConfigError):
            unpack(archive, place)


def rezipped(archive: Path, out: Path, changes: dict[str, bytes | None], extra: dict[str, bytes] | None = None) -> Path:
    """A copy of a packed bundle with members changed, dropped (``None``) or added."""
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            content = changes.get(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
        for name, content in (extra or {}).items():
            new.writestr(name, content)
    return out


def flipped(content: bytes) -> bytes:
    return content[:100] + bytes([content[100] ^ 1]) + content[101:]


@pytest.mark.parametrize(
    ("changes", "extra", "named"),
    [
        ({}, {"../evil.txt": b"x"}, "leads outside"),
        ({}, {"onnx-fp32/../../evil.txt": b"x"}, "leads outside"),
        ({}, {"/tmp/evil.txt": b"x"}, "leads outside"),
        ({}, {"..\\evil.txt": b"x"}, "leads outside"),
        ({}, {"notes.txt": b"unlisted"}, "not what"),
        ({MODEL: b"short"}, {}, "not what"),
        ({MODEL: None}, {}, "lacks"),
        ({MANIFEST: None}, {}, MANIFEST),
        ({MANIFEST: b"{}"}, {}, "damaged"),
        ({MANIFEST: json.dumps({"schema": 99}).encode()}, {}, "schema 99"),
        ({MANIFEST: b" " * (17 << 20)}, {}, "no usable"),
    ],
)
def test_a_changed_archive_is_refused_and_leaves_nothing(bundle: Bundle, tmp_path: Path, changes, extra, named) -> None:
    archive = rezipped(pack(bundle.path), tmp_path / "bad.zip", changes, extra)
    with pytest.raises(BundleError, match=named):
        unpack(archive, tmp_path / "out.ecv")
    assert names_in(tmp_path) == ["bad.zip", "tiny.ecv", "tiny.ecv.zip"]
    assert not Path("/tmp/evil.txt").exists()


def test_a_changed_byte_in_a_member_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    archive = pack(bundle.path)
    bad = rezipped(archive, tmp_path / "bad.zip", {MODEL: flipped((bundle.path / MODEL).read_bytes())})
    with pytest.raises(BundleError, match="sha256"):
        unpack(bad, tmp_path / "out.ecv")
    assert not (tmp_path / "out.ecv").exists()


@pytest.mark.parametrize("name", [MODEL, "link"])
def test_a_link_in_the_archive_is_refused(bundle: Bundle, tmp_path: Path, name: str) -> None:
    bad = rezipped(pack(bundle.path), tmp_path / "bad.zip", {MODEL: None})
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(bad, "a") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(BundleError, match="is a link"):
        unpack(bad, tmp_path / "out.ecv")


def test_a_bomb_that_states_a_small_size_does_not_unpack(bundle: Bundle, tmp_path: Path) -> None:
    packed = pack(bundle.path)
    size = (bundle.path / MODEL).stat().st_size
    bad = tmp_path / "bad.zip"
    with zipfile.ZipFile(packed) as old, zipfile.ZipFile(bad, "w", zipfile.ZIP_DEFLATED) as new:
        new.writestr(MANIFEST, old.read(MANIFEST))
        new.writestr(MODEL, b"\0" * (50 << 20))
        new.getinfo(MODEL).file_size = size  # the directory at the end lies
    with pytest.raises(BundleError):
        unpack(bad, tmp_path / "out.ecv")
    assert not (tmp_path / "out.ecv").exists()


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04" + b"\0" * 50], ids=["empty", "text", "magic"])
def test_what_is_no_zip_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.ecv.zip"
    path.write_bytes(content)
    with pytest.raises(BundleError, match="not a packed bundle"):
        unpack(path)
    assert names_in(tmp_path) == ["x.ecv.zip"]


def test_a_truncated_archive_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    archive = pack(bundle.path)
    archive.write_bytes(archive.read_bytes()[:-30])
    with pytest.raises(BundleError, match="not a packed bundle"):
        unpack(archive, tmp_path / "out.ecv")


def test_damage_inside_a_compressed_member_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    archive = pack(bundle.path)
    with zipfile.ZipFile(archive) as opened:
        start = opened.getinfo(MODEL).header_offset + 30 + len(MODEL)
    content = bytearray(archive.read_bytes())
    content[start : start + 40] = b"\xff" * 40
    archive.write_bytes(content)
    with pytest.raises(BundleError):
        unpack(archive, tmp_path / "out.ecv")
    assert not (tmp_path / "out.ecv").exists()


@pytest.mark.parametrize("name", [MANIFEST, MODEL])
def test_a_member_that_cannot_be_read_is_refused(bundle: Bundle, tmp_path: Path, name: str) -> None:
    bad = tmp_path / "bad.zip"
    with zipfile.ZipFile(pack(bundle.path)) as old, zipfile.ZipFile(bad, "w") as new:
        for member in old.namelist():
            new.writestr(member, old.read(member))
        new.getinfo(name).flag_bits |= 1  # encrypted, says the directory
    with pytest.raises(BundleError):
        unpack(bad, tmp_path / "out.ecv")
    assert not (tmp_path / "out.ecv").exists()


def test_a_missing_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="does not exist"):
        unpack(tmp_path / "nothing.zip", tmp_path / "out.ecv")


def test_a_folder_is_no_archive(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        unpack(bundle.path, tmp_path / "out.ecv")


def test_an_archive_is_not_unpacked_onto_itself(bundle: Bundle, tmp_path: Path) -> None:
    archive = pack(bundle.path, tmp_path / "tiny")
    with pytest.raises(ConfigError, match="onto itself"):
        unpack(archive)
