"""Attacks by a bundle or a bare model file: files outside it, files exchanged while they are loaded, links to write through."""

from __future__ import annotations

import json
import os
import shutil
import sys
import zipfile
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest

from edgecv import registry
from edgecv._internal.printable import printable, printable_json, printable_lines
from edgecv.bundles.bundle import Bundle, describe_file
from edgecv.bundles.golden import GOLDEN, verify
from edgecv.bundles.manifest import MANIFEST, ModelFiles, Variant, dump_manifest
from edgecv.bundles.packing import pack, unpack
from edgecv.cli.console import print_table
from edgecv.errors import BundleError, CalibrationError, ConfigError, EdgeCVError, SessionError
from edgecv.model import load
from edgecv.quantize.labels.dataset import read_dataset
from edgecv.runtimes.adapter import open_session
from edgecv.specs import RuntimeOptions, TensorSpec
from tests.models import IMAGE, PREDICTION, arithmetic, detector, manifest, with_external_data, write_bundle
from tests.security.measured import run_code, run_edgecv

CORPUS = Path(__file__).parent / "corpus" / "bundles"


def bundle_of(folder: Path, model_format: str, names: tuple[str, ...]) -> Bundle:
    """A bundle of one variant that lists these files, which lie in it already."""
    files = tuple(describe_file(folder, folder / name) for name in names)
    variant = Variant(
        name=f"{model_format}-fp32",
        format=model_format,
        precision="fp32",
        size_wh=(64, 64),
        latency_ms=1.0,
        models={"main": ModelFiles(files=files, inputs=(IMAGE,), outputs=(PREDICTION,))},
    )
    (folder / MANIFEST).write_bytes(dump_manifest(manifest([variant])))
    return Bundle.open(folder)


@pytest.fixture(scope="module")
def openvino_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``model.xml`` and ``model.bin`` of the test detector."""
    openvino = pytest.importorskip("openvino")
    folder = tmp_path_factory.mktemp("ir")
    converted = openvino.convert_model(str(detector(folder / "model.onnx")))
    openvino.save_model(converted, str(folder / "model.xml"), compress_to_fp16=False)
    return folder


def with_openvino(folder: Path, files: Path) -> Path:
    folder.mkdir()
    for name in ("model.xml", "model.bin"):
        shutil.copy(files / name, folder / name)
    return folder


class TestFilesOfAFormat:
    def test_openvino_with_both_files_listed_loads(self, tmp_path: Path, openvino_files: Path) -> None:
        folder = with_openvino(tmp_path / "b.ecv", openvino_files)
        bundle_of(folder, "openvino", ("model.xml", "model.bin")).verify_files()
        with load(folder) as model:
            assert len(model(np.full((64, 64, 3), 255, np.uint8))) == 16

    def test_weights_that_are_not_listed_are_never_read(self, tmp_path: Path, openvino_files: Path) -> None:
        folder = with_openvino(tmp_path / "b.ecv", openvino_files)
        outside = tmp_path / "outside.bin"
        (folder / "model.bin").rename(outside)
        (folder / "model.bin").symlink_to(outside)
        bundle = bundle_of(folder, "openvino", ("model.xml",))
        with pytest.raises(BundleError, match=r"model\.bin.*does not list"):
            load(folder)
        with pytest.raises(BundleError):
            bundle.verify_files()

    def test_weights_that_are_a_link_are_refused(self, tmp_path: Path, openvino_files: Path) -> None:
        folder = with_openvino(tmp_path / "b.ecv", openvino_files)
        bundle = bundle_of(folder, "openvino", ("model.xml", "model.bin"))
        (folder / "model.bin").unlink()
        (folder / "model.bin").symlink_to(openvino_files / "model.bin")
        with pytest.raises(BundleError, match="leads outside"):
            bundle.verify_files()

    @pytest.mark.parametrize(
        ("model_format", "names"),
        [
            ("openvino", ("model.xml", "model.bin", "other.bin")),
            ("openvino", ("model.xml", "other.bin")),
            ("openvino", ("model.onnx",)),
            ("onnx", ("model.onnx", "other.bin")),
            ("onnx", ("model.xml",)),
            ("onnx", ("model.ort",)),
            ("tflite", ("model.tflite", "other.bin")),
            ("tflite", ("model.onnx",)),
        ],
    )
    def test_a_variant_consists_of_what_its_format_asks_for(self, tmp_path: Path, model_format, names) -> None:
        detector(tmp_path / "model.onnx")
        for name in ("model.xml", "model.ort", "model.tflite", "model.bin", "other.bin"):
            shutil.copy(tmp_path / "model.onnx", tmp_path / name)
        with pytest.raises(BundleError):
            bundle_of(tmp_path, model_format, names).verify_files()

    def test_external_data_is_checked_whatever_the_file_is_called(self, tmp_path: Path) -> None:
        """The check went by the suffix ``.onnx``; onnxruntime reads any name."""
        folder = tmp_path / "b.ecv"
        folder.mkdir()
        with_external_data(folder / "model.onnx")
        (folder / "model.onnx").rename(folder / "model.bin")
        with pytest.raises(BundleError):
            bundle_of(folder, "onnx", ("model.bin",)).verify_files()

    def test_a_location_that_onnxruntime_takes_for_an_address_in_memory_is_refused(self, tmp_path: Path) -> None:
        path = with_external_data(tmp_path / "model.onnx")
        model = onnx.load(str(path), load_external_data=False)
        location = "*/_ORT_MEM_ADDR_/*"
        for entry in model.graph.initializer[0].external_data:
            entry.value = location if entry.key == "location" else entry.value
        path.write_bytes(model.SerializeToString())
        place = tmp_path / location
        place.parent.mkdir(parents=True)
        (tmp_path / "weights.bin").rename(place)
        with pytest.raises(BundleError, match="leads outside"):
            bundle_of(tmp_path, "onnx", ("model.onnx", location)).verify_files()
        with pytest.raises(SessionError, match="outside"):
            load(path)


class TestBareFiles:
    @pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname", "sub/../../weights.bin", "link.bin"])
    def test_external_data_elsewhere_is_refused(self, tmp_path: Path, location: str) -> None:
        folder = tmp_path / "model"
        folder.mkdir()
        path = with_external_data(folder / "model.onnx")
        (folder / "weights.bin").rename(tmp_path / "weights.bin")
        (folder / "link.bin").symlink_to(tmp_path / "weights.bin")
        model = onnx.load(str(path), load_external_data=False)
        for entry in model.graph.initializer[0].external_data:
            entry.value = location if entry.key == "location" else entry.value
        path.write_bytes(model.SerializeToString())
        with pytest.raises(SessionError, match="outside"):
            load(path)

    def test_an_xml_that_is_another_format_is_not_given_to_openvino(self, tmp_path: Path) -> None:
        pytest.importorskip("openvino")
        shutil.copy(arithmetic(tmp_path / "model.onnx"), tmp_path / "model.xml")
        with pytest.raises(SessionError, match="not an OpenVINO graph"):
            load(tmp_path / "model.xml")

    @pytest.mark.parametrize("crasher", sorted(CORPUS.glob("tflite-litert-*")), ids=lambda path: path.name)
    def test_a_tflite_file_that_ended_the_process_is_refused(self, crasher: Path) -> None:
        pytest.importorskip("ai_edge_litert")
        with pytest.raises(SessionError, match="damaged"):
            registry.resolve("runtimes", "litert")(crasher, RuntimeOptions())

    @pytest.mark.parametrize("side", [10**9, 60_000, 0, -1])
    def test_metadata_with_an_impossible_input_is_refused(self, tmp_path: Path, side: int) -> None:
        path = detector(tmp_path / "model.onnx", {"names": "{0: 'a'}", "imgsz": f"[{side}, {side}]", "task": "detect"})
        with pytest.raises(EdgeCVError, match="says nothing"):
            load(path)


class TestManifest:
    @pytest.mark.parametrize("kind", ["link to a device", "link outside", "pipe", "folder"])
    def test_one_that_is_no_plain_file_is_refused_unread(self, tmp_path: Path, kind: str) -> None:
        bundle = write_bundle(tmp_path / "b.ecv")
        place = bundle.path / MANIFEST
        place.rename(tmp_path / "outside.json")
        {
            "link to a device": lambda: place.symlink_to("/dev/zero"),
            "link outside": lambda: place.symlink_to(tmp_path / "outside.json"),
            "pipe": lambda: os.mkfifo(place),
            "folder": place.mkdir,
        }[kind]()
        ended = run_edgecv("info", bundle.path, timeout_s=60)
        assert ended.code == 1
        assert ended.stderr.startswith("error: ")
        assert "bug in EdgeCV" not in ended.stderr
        assert ended.peak_mb < 200

    def test_one_that_is_too_large_is_not_read_to_its_end(self, tmp_path: Path) -> None:
        bundle = write_bundle(tmp_path / "b.ecv")
        os.truncate(bundle.path / MANIFEST, 3 << 30)
        ended = run_edgecv("info", bundle.path)
        assert (ended.code, ended.peak_mb < 200) == (1, True)
        assert "16 MiB" in ended.stderr

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            (lambda said: said["variants"][1].update(size_wh=[16000, 16000]), "size_wh"),
            (lambda said: said["preprocess"].update(crop_fraction=1e-9), "crop_fraction"),
            (lambda said: said["variants"][0]["models"]["main"]["inputs"][0].update(shape=[10**9, 64, 64, 3]), "shape"),
            (lambda said: said["variants"][0]["models"]["main"]["outputs"][0].update(shape=[-5, 6]), "shape"),
        ],
    )
    def test_numbers_that_would_fill_the_memory_are_refused(self, tmp_path: Path, change, named) -> None:
        bundle = write_bundle(tmp_path / "b.ecv")
        said = json.loads((bundle.path / MANIFEST).read_bytes())
        change(said)
        (bundle.path / MANIFEST).write_text(json.dumps(said))
        with pytest.raises(BundleError, match=named):
            Bundle.open(bundle.path)

    @pytest.mark.parametrize("path", [".", "./", "./model.onnx", "a//b", "a" * 300, "a/" * 2000 + "a"])
    def test_a_path_that_no_file_of_a_bundle_has_is_refused(self, tmp_path: Path, path: str) -> None:
        bundle = write_bundle(tmp_path / "b.ecv")
        said = json.loads((bundle.path / MANIFEST).read_bytes())
        said["extras"] = [{"path": path, "sha256": "0" * 64, "bytes": 1}]
        (bundle.path / MANIFEST).write_text(json.dumps(said))
        with pytest.raises(BundleError):
            Bundle.open(bundle.path).verify_files()

    def test_a_name_that_a_terminal_would_obey_is_said_in_a_sentence(self, tmp_path: Path) -> None:
        bundle = write_bundle(tmp_path / "b.ecv")
        said = json.loads((bundle.path / MANIFEST).read_bytes())
        (bundle.path / MANIFEST).write_text(json.dumps({**said, "name": "\x1b[2J"}))
        with pytest.raises(BundleError, match=r"has a name or label with control characters: '.*x1b\[2J'"):
            Bundle.open(bundle.path)

    def test_golden_vectors_that_are_too_large_together_are_refused(self, tmp_path: Path) -> None:
        bundle = write_bundle(tmp_path / "b.ecv")
        golden = bundle.path / GOLDEN
        variant = bundle.variants[0]
        inputs = tuple(TensorSpec(name=f"i{n}", role="image", shape=(1 << 26,), dtype="uint8") for n in range(9))
        with zipfile.ZipFile(golden, "w", zipfile.ZIP_DEFLATED) as archive:
            for spec in inputs:
                with archive.open(f"{variant.name}/main/in/{spec.name}.npy", "w") as sink:
                    np.lib.format.write_array_header_1_0(
                        sink, {"descr": "|u1", "fortran_order": False, "shape": spec.shape}
                    )
                    for _ in range(64):
                        sink.write(bytes(1 << 20))
        models = {"main": msgspec.structs.replace(variant.models["main"], inputs=inputs)}
        said = msgspec.structs.replace(
            bundle.manifest,
            variants=(msgspec.structs.replace(variant, models=models),),
            extras=(describe_file(bundle.path, golden),),
        )
        (bundle.path / MANIFEST).write_bytes(dump_manifest(said))
        assert golden.stat().st_size < 1_000_000
        (verdict,) = verify(Bundle.open(bundle.path))
        assert (verdict.status, "more than any model" in verdict.reason) == ("cannot run", True)


def test_more_files_than_any_bundle_has_are_refused_unseen(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b.ecv")
    said = json.loads((bundle.path / MANIFEST).read_bytes())
    said["extras"] = [{"path": f"a{number}", "sha256": "", "bytes": 1} for number in range(20_000)]
    (bundle.path / MANIFEST).write_text(json.dumps(said))
    with pytest.raises(BundleError, match="number of files"):
        Bundle.open(bundle.path)


def test_a_data_yaml_of_brackets_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("train: " + "[" * 3_000)
    with pytest.raises(CalibrationError, match="brackets are deeper"):
        read_dataset(tmp_path / "data.yaml")


class TestOpenedOnce:
    def test_a_file_exchanged_after_its_hash_was_checked_is_not_loaded(self, tmp_path: Path) -> None:
        bundle = write_bundle(tmp_path / "b.ecv", {"fp32": 1.0})
        variant = bundle.variants[0]
        evil = arithmetic(tmp_path / "evil.onnx")
        with pytest.raises(BundleError, match="changed while it was loaded"), bundle.opened_model(variant) as opened:
            evil.replace(opened.path)
            session = open_session("onnxruntime", opened, RuntimeOptions(), (), ())
            assert [spec.name for spec in session.inputs] == ["image"]  # the detector that was hashed
            session.close()

    def test_a_file_written_to_while_it_is_loaded_is_refused(self, tmp_path: Path) -> None:
        bundle = write_bundle(tmp_path / "b.ecv", {"fp32": 1.0})
        with pytest.raises(BundleError, match="changed"), bundle.opened_model(bundle.variants[0]) as opened:
            opened.path.write_bytes(opened.path.read_bytes())

    @pytest.mark.skipif(sys.platform != "linux", reason="/proc")
    def test_runtimes_open_the_descriptor_that_was_hashed(self, tmp_path: Path, openvino_files: Path) -> None:
        folder = with_openvino(tmp_path / "b.ecv", openvino_files)
        bundle = bundle_of(folder, "openvino", ("model.xml", "model.bin"))
        with pytest.raises(BundleError, match="changed"), bundle.opened_model(bundle.variants[0]) as opened:
            for name in ("model.xml", "model.bin"):
                (folder / name).unlink()
            open_session("openvino", opened, RuntimeOptions(), (), ()).close()  # loads: it needs no names

    def test_external_data_is_watched_as_well(self, tmp_path: Path) -> None:
        with_external_data(tmp_path / "model.onnx")
        bundle = bundle_of(tmp_path, "onnx", ("model.onnx", "weights.bin"))
        tensor = TensorSpec(name="x", role="", shape=(512,), dtype="float32")
        with bundle.opened_model(bundle.variants[0]) as opened:
            session = open_session("onnxruntime", opened, RuntimeOptions(), (tensor,), ())
            assert session.run({"x": np.zeros(512, np.float32)})["y"][511] == 511
            session.close()
        with pytest.raises(BundleError, match="changed"), bundle.opened_model(bundle.variants[0]):
            (tmp_path / "weights.bin").write_bytes(bytes(2048))


class TestPacking:
    def victim(self, tmp_path: Path) -> Path:
        victim = tmp_path / "victim"
        victim.write_text("mine")
        return victim

    @pytest.mark.parametrize("name", [".b.ecv.zip.tmp", ".b.ecv.zip.write-test-PID"])
    def test_pack_writes_through_no_link_that_waits_for_it(self, tmp_path: Path, name: str) -> None:
        bundle, victim = write_bundle(tmp_path / "b.ecv"), self.victim(tmp_path)
        (tmp_path / name.replace("PID", str(os.getpid()))).symlink_to(victim)
        before = victim.stat()
        assert pack(bundle.path) == tmp_path / "b.ecv.zip"
        assert (victim.read_text(), victim.stat().st_mtime_ns) == ("mine", before.st_mtime_ns)

    def test_an_output_that_is_a_link_to_a_packed_bundle_is_replaced_and_not_followed(self, tmp_path: Path) -> None:
        bundle, victim = write_bundle(tmp_path / "b.ecv"), self.victim(tmp_path)
        out = tmp_path / "out.zip"
        out.symlink_to(victim)
        with pytest.raises(ConfigError):
            pack(bundle.path, out)
        with pytest.raises(ConfigError, match="not replaced"):
            pack(bundle.path, out, force=True)
        assert victim.read_text() == "mine"
        packed = pack(bundle.path, tmp_path / "packed.zip").read_bytes()
        out.unlink()
        out.symlink_to(tmp_path / "packed.zip")
        pack(bundle.path, out, force=True)
        assert (tmp_path / "packed.zip").read_bytes() == packed
        assert zipfile.is_zipfile(out) and not out.is_symlink()

    @pytest.mark.parametrize("name", [MANIFEST, "onnx-fp32/model.onnx", "onnx-fp32"])
    def test_a_member_that_is_a_link_is_not_packed(self, tmp_path: Path, name: str) -> None:
        bundle = write_bundle(tmp_path / "b.ecv")
        (bundle.path / name).rename(tmp_path / "elsewhere")
        (bundle.path / name).symlink_to(tmp_path / "elsewhere")
        with pytest.raises(BundleError, match="leads outside"):
            pack(bundle.path)
        assert not list(tmp_path.glob("*.zip")) + list(tmp_path.glob(".*"))

    def test_what_was_packed_unpacks(self, tmp_path: Path) -> None:
        bundle = write_bundle(tmp_path / "b.ecv")
        again = Bundle.open(unpack(pack(bundle.path), tmp_path / "again.ecv"))
        again.verify_files()
        assert (tmp_path / "b.ecv.zip").stat().st_mode & 0o777 == 0o666 & ~_umask()

    @pytest.mark.parametrize("link", [".again.ecv.tmp-", ".again.ecv.old-"])
    def test_unpack_writes_through_no_link_that_waits_for_it(self, tmp_path: Path, link: str) -> None:
        bundle = write_bundle(tmp_path / "b.ecv")
        victim = tmp_path / "victims"
        victim.mkdir()
        (victim / "file").touch()
        (tmp_path / f"{link}{os.getpid()}").symlink_to(victim)
        unpack(pack(bundle.path), tmp_path / "again.ecv")
        assert [path.name for path in victim.iterdir()] == ["file"]

    def test_a_member_packed_with_lzma_is_refused(self, tmp_path: Path) -> None:
        bundle = write_bundle(tmp_path / "b.ecv")
        packed = tmp_path / "lzma.zip"
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_LZMA) as archive:
            for path in bundle.path.rglob("*"):
                archive.write(path, path.relative_to(bundle.path))
        with pytest.raises(BundleError, match="in a way that is not read"):
            unpack(packed)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


EVIL = "a\x1b]0;owned\x07b\x9b31mc\u202ed\r\ne"


class TestWhatIsPrinted:
    @pytest.mark.parametrize("text", ["Füße", "人", "می\u200cخواهم", "👩\u200d🚒", "naïve café", "1 < 2 [red]"])
    def test_letters_of_every_script_stay(self, text: str) -> None:
        assert printable(text) == text
        assert printable_lines(text) == text

    def test_what_a_terminal_obeys_is_an_escape(self) -> None:
        assert printable(EVIL) == r"a\x1b]0;owned\x07b\x9b31mc\u202ed\r\ne"
        assert printable("\udc80") == r"\udc80"

    def test_a_line_break_in_a_message_makes_no_message_of_its_own(self) -> None:
        assert printable_lines("one\nerror: two").splitlines() == ["one", "  error: two"]

    def test_json_keeps_its_data(self) -> None:
        text = json.dumps({"name": EVIL}, ensure_ascii=False)
        shown = printable_json(text)
        assert json.loads(shown) == {"name": EVIL}
        assert shown.isprintable()

    def test_a_table_shows_nothing_that_a_terminal_obeys(self, capsys: pytest.CaptureFixture[str]) -> None:
        print_table(EVIL, ("name",), [[EVIL]])
        assert not set(capsys.readouterr().out) & set("\x1b\x07\x9b\u202e\r")

    def hostile(self, tmp_path: Path) -> Path:
        bundle = write_bundle(tmp_path / "b.ecv", {"fp32": 1.0})
        changed = msgspec.structs.replace(
            bundle.manifest,
            family=EVIL,
            licence=EVIL,
            source=msgspec.structs.replace(bundle.manifest.source, file=EVIL),
            tools={EVIL: EVIL},
            variants=tuple(
                msgspec.structs.replace(variant, recipe=EVIL, metrics={EVIL: 1.0}) for variant in bundle.variants
            ),
        )
        (bundle.path / MANIFEST).write_bytes(dump_manifest(changed))
        return bundle.path

    def test_info_of_a_hostile_bundle(self, tmp_path: Path) -> None:
        ended = run_edgecv("info", self.hostile(tmp_path))
        assert ended.code == 0
        assert r"\x1b]0;owned" in ended.stdout
        assert not set(ended.stdout) & set("\x1b\x07\x9b\u202e\r")

    def test_json_of_a_hostile_bundle(self, tmp_path: Path) -> None:
        ended = run_edgecv("info", self.hostile(tmp_path), "--json")
        assert json.loads(ended.stdout)["licence"] == EVIL
        assert not set(ended.stdout) & set("\x1b\x07\x9b\u202e\r\x7f")

    @pytest.mark.parametrize("options", [(), ("--debug",)])
    def test_errors_about_a_hostile_file(self, tmp_path: Path, options: tuple[str, ...]) -> None:
        folder = tmp_path / "\x1b[2Jevil\u202e.ecv"
        folder.mkdir()
        (folder / MANIFEST).write_text("{")
        ended = run_edgecv(*options, "info", folder)
        assert ended.code == 1
        assert r"\x1b[2Jevil\u202e" in ended.stderr
        assert not set(ended.stderr) & set("\x1b\u202e")

    def test_log_lines(self) -> None:
        ended = run_code(
            "from edgecv.cli.console import log_lines\n"
            "import logging\n"
            "log_lines()\n"
            f"logging.getLogger('edgecv.pipelines').warning('camera %s', {EVIL!r})\n"
            "try:\n    raise ValueError('\\x1b[2J')\n"
            "except ValueError:\n    logging.getLogger('x').exception('it failed')\n"
        )
        assert r"camera a\x1b]0;owned" in ended.stderr
        assert r"ValueError: \x1b[2J" in ended.stderr
        assert not set(ended.stderr) & set("\x1b\x07\x9b\u202e\r")


@pytest.mark.parametrize("label", ["می\u200cخواهم", "Füße"])
def test_a_label_with_letters_of_any_script_is_fine(tmp_path: Path, label: str) -> None:
    bundle = write_bundle(tmp_path / "b.ecv")
    decode = msgspec.structs.replace(bundle.manifest.decode, labels=(label, "b"))
    (bundle.path / MANIFEST).write_bytes(dump_manifest(msgspec.structs.replace(bundle.manifest, decode=decode)))
    assert Bundle.open(bundle.path).labels == (label, "b")


def test_a_data_yaml_of_countless_values_is_refused_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgecv._internal.yaml_files._MOST_NODES", 100)
    (tmp_path / "data.yaml").write_text("train: [" + "1," * 2_000 + "@]")  # the damage at the end is never reached
    with pytest.raises(CalibrationError, match="larger than any description"):
        read_dataset(tmp_path / "data.yaml")
