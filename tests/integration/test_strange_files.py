"""Images, names and labels as other systems leave them, through the commands that people call."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import edgecv
from edgecv.bundles.bundle import Bundle
from edgecv.bundles.packing import pack, unpack
from edgecv.cli.app import explain, run_command
from edgecv.cli.convert import _labels as labels_of
from edgecv.errors import BundleError, ConfigError, SessionError, SourceError
from edgecv.media.images import read_image
from edgecv.media.video_reader import VideoReader
from tests.conftest import SHARED
from tests.models import write_bundle

# U+3000, no-break space, ZWNJ, an emoji of three, soft hyphen, right-to-left mark, line separator and tab within
LABELS = [
    "大\u3000人",
    "a\u00a0b",
    "می\u200cخواهم",
    "👩\u200d🚒",
    "so\u00adft",
    "\u200fעברית",
    "c\u2028d",
    "e\tf",
    "g",
    "G",
]
WRITTEN = (*LABELS[:6], "c d", "e f", "g", "G")


def case(name: str) -> Path:
    path = SHARED / "cases" / name
    if not path.exists():
        pytest.skip("../shared/cases is not on this machine")
    return path


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["edgecv", *map(str, arguments)])
        try:
            code = run_command()
        except Exception as error:  # noqa: BLE001 - as the program ends
            code = explain(error)
        said = capfd.readouterr()
        return code, said.out, said.err

    return call


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("model") / "tiny.ecv").path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with 3 images, 2 damaged ones among them, and what macOS leaves."""
    place = shutil.copytree(case("run/unpadded"), tmp_path / "images")
    (place / "frame3.jpg").write_bytes((place / "frame2.jpg").read_bytes()[:500])
    (place / "frame0.jpg").touch()
    shutil.copy(case("run/mac/._0.jpg"), place)
    return place


def test_labels_of_every_script_come_back_as_they_were(resnet20: Path, tmp_path: Path, command) -> None:
    (tmp_path / "labels.txt").write_bytes("\r\n".join(LABELS).encode("utf-16"))
    code, _, said = command("convert", resnet20, "--labels", tmp_path / "labels.txt", "--out", tmp_path / "r.ecv")
    assert code == 0, said
    assert Bundle.open(tmp_path / "r.ecv").labels == WRITTEN
    assert "Labels 6, 7 hold characters that name nothing" in said
    assert Bundle.open(unpack(pack(tmp_path / "r.ecv"), tmp_path / "again.ecv")).labels == WRITTEN


def test_the_labels_of_notepad() -> None:
    assert labels_of(case("convert/labels_bom.txt")) == ("cat", "dog", "bird")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_labels_of_any_editor(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "labels.txt").write_bytes("\r\n".join(["", *LABELS, "\t"]).encode(encoding))
    assert labels_of(tmp_path / "labels.txt") == tuple(LABELS)


def test_labels_in_utf_16_without_a_mark_are_refused_before_any_work(resnet20: Path, tmp_path: Path, command) -> None:
    (tmp_path / "labels.txt").write_bytes("\n".join("abcdefghij").encode("utf-16-le"))
    code, _, said = command("convert", resnet20, "--labels", tmp_path / "labels.txt", "--out", tmp_path / "r.ecv")
    assert code == 2
    assert "save it as UTF-8" in said


def test_a_name_that_no_bundle_can_have_is_refused_before_any_work(resnet20: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be called"):
        edgecv.convert(resnet20, precision="fp32", out=tmp_path / "a\nb.ecv")


def test_a_bundle_that_cannot_be_read_back_leaves_the_good_one(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = shutil.copytree(bundle, tmp_path / "t.ecv")
    monkeypatch.setattr("edgecv.converters.manifest.dump_manifest", lambda _: b"{}")
    with pytest.raises(BundleError):
        edgecv.convert(case("convert/t_binary.onnx"), precision="fp32", out=good, force=True)
    Bundle.open(good).verify_files()


def test_predict_passes_damaged_images_and_names_them_all(bundle: Path, folder: Path, command) -> None:
    code, out, said = command("predict", bundle, folder, case("run/mac/0.jpg"), "--json")
    assert code == 1
    assert [Path(row["image"]).name for row in json.loads(out)] == ["frame1.jpg", "frame2.jpg", "frame10.jpg", "0.jpg"]
    assert "2 of 6 images cannot be read" in said
    assert "frame0.jpg" in said
    assert "frame3.jpg" in said


def test_run_passes_damaged_images_and_names_them_all(bundle: Path, folder: Path, tmp_path: Path, command) -> None:
    code, _, said = command("run", bundle, "--source", folder, "--out", f"jsonl:{tmp_path / 'out.jsonl'}")
    assert code == 1
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    frames = [row for row in rows if "event" not in row]
    assert [row["path"] for row in frames] == [str(folder / f"frame{number}.jpg") for number in (1, 2, 10)]
    assert "2 of 5 images cannot be read" in said
    assert "frame0.jpg" in said
    assert "frame3.jpg" in said


def test_run_of_a_part_of_a_folder_names_what_it_passed(bundle: Path, folder: Path, caplog, command) -> None:
    code, _, _ = command("run", bundle, "--source", folder, "--max-frames", 1)
    assert code == 0
    assert "1 of 5 images cannot be read" in caplog.text


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"\0\0\0\x20ftypheic\0\0\0\0", "HEIC"),
        (b"\0\0\0\x20ftypavif\0\0\0\0", "AVIF"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\0\x05\x16\x07\0\x02\0\0Mac OS X", "AppleDouble"),
    ],
)
def test_an_image_of_another_format_is_named_with_the_way_out(tmp_path: Path, start: bytes, name: str) -> None:
    (tmp_path / "x.jpg").write_bytes(start + bytes(100))
    with pytest.raises(SourceError, match=f"in the format {name}, which is not read") as caught:
        read_image(tmp_path / "x.jpg")
    assert "magick x.jpg" in caught.value.hint


@pytest.fixture
def latin(tmp_path: Path) -> Path:
    place = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    place.mkdir()
    return place


def test_a_video_whose_name_is_no_utf_8_ends_with_a_message(latin: Path) -> None:
    """In a process of its own: it died of signal 11."""
    shutil.copy(case("run/interlaced.mp4"), latin)
    program = "import sys, edgecv.media.file_capture as f\ntry: f.FileCapture(sys.argv[1])\nexcept f.SourceError as e: print(e)"
    done = subprocess.run(
        [sys.executable, "-c", program, latin / "interlaced.mp4"], capture_output=True, timeout=60, check=True
    )
    assert rb"caf\xe9/interlaced.mp4 is no name in UTF-8" in done.stdout


def test_images_whose_names_are_no_utf_8_are_read(latin: Path, bundle: Path, command) -> None:
    shutil.copy(case("run/unpadded/frame1.jpg"), latin)
    for arguments in (
        ["run", bundle, "--source", latin, "--out", f"jsonl:{latin}/out.jsonl"],
        ["predict", bundle, latin / "frame1.jpg"],
    ):
        code, _, said = command(*arguments)
        assert code == 0, said
    row = json.loads((latin / "out.jsonl").read_text().splitlines()[0])
    assert row["path"].endswith(r"/caf\xe9/frame1.jpg")


def test_models_whose_names_are_no_utf_8_are_refused_before_any_work(latin: Path, resnet20: Path) -> None:
    shutil.copy(resnet20, latin)
    for source, out in ((latin / resnet20.name, latin.parent / "r.ecv"), (resnet20, latin / "r.ecv")):
        with pytest.raises(ConfigError, match="is no name in UTF-8"):
            edgecv.convert(source, precision="fp32", out=out)


def test_models_and_videos_in_a_folder_that_is_no_utf_8(
    latin: Path, bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "edgecv")
    shutil.copytree(bundle, latin / "tiny.ecv")
    with edgecv.load(latin / "tiny.ecv"):
        assert "edgecv tune" in caplog.text
        caplog.text.encode()  # a log that is written to a file must not fail at the name
    with edgecv.load(latin / "tiny.ecv", runtime="onnxruntime") as model:
        assert model.labels
    shutil.copy(next(bundle.rglob("*.onnx")), latin / "bare.onnx")
    with pytest.raises(SessionError, match="is no name in UTF-8"):
        edgecv.load(latin / "bare.onnx", spec=Bundle.open(bundle).spec)
    shutil.copy(case("run/interlaced.mp4"), latin)
    try:
        assert VideoReader(latin / "interlaced.mp4").read() is not None
    except SourceError as error:
        assert "no name in UTF-8" in error.message


def test_record_takes_classes_as_run_does(bundle: Path, tmp_path: Path, command) -> None:
    first, second = Bundle.open(bundle).labels[:2]
    code, _, said = command(
        *("record", bundle, "--source", "synthetic://?frames=2&width=64&height=64"),
        *("--classes", f"{first}, {second}", "--out", tmp_path / "x.rec"),
    )
    assert code == 0, said
    assert msgspec.json.decode((tmp_path / "x.rec/recording.json").read_bytes())["classes"] == [first, second]


def test_record_and_replay_use_the_cache_of_the_app(tmp_path: Path, command) -> None:
    pytest.importorskip("openvino")
    bare = SHARED.resolve() / "peers/ultralytics-openvino-int8/yolov8n.xml"
    if not bare.exists():
        pytest.skip("../shared/peers is not on this machine")
    table = {"bundle": bare, "runtime": "openvino", "cache_dir": tmp_path / "cache"}
    rows = [f'{name} = "{value}"' for name, value in table.items()]
    (tmp_path / "app.toml").write_text("\n".join(["[model]", *rows]))
    recorded = ("record", "--source", "synthetic://?frames=2&width=64&height=64", "--out", tmp_path / "x.rec")
    code, _, said = command(*recorded, "--config", tmp_path / "app.toml")
    assert code == 0, said
    assert list((tmp_path / "cache").iterdir())
    shutil.rmtree(tmp_path / "cache")
    code, _, said = command(
        "replay", tmp_path / "x.rec", "--bundle", bare, "--runtime", "openvino", "--config", tmp_path / "app.toml"
    )
    assert code == 0, said
    assert list((tmp_path / "cache").iterdir())
