"""Small files that ask for much memory or disk: images, videos, archives, arrays, documents. Memory is measured in a child."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import struct
import zipfile
import zlib
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from edgecv.bundles.bundle import Bundle, describe_file
from edgecv.bundles.golden import GOLDEN
from edgecv.bundles.manifest import MANIFEST, BundleFile, Manifest, dump_manifest
from edgecv.bundles.packing import pack, unpack
from edgecv.cli.app import explain
from edgecv.errors import BundleError, CalibrationError, ConfigError, SourceError, SpecMismatch
from edgecv.media.image_headers import (
    DEFAULT_MEGAPIXELS,
    check_image_size,
    image_size,
    max_megapixels,
    set_max_megapixels,
)
from edgecv.media.images import read_image
from edgecv.media.video_reader import VideoReader
from edgecv.quantize.calibration.video import array_frames
from edgecv.quantize.labels.dataset import read_dataset
from edgecv.quantize.labels.evaluate import read_labels
from edgecv.quantize.recipe_files import find_recipe
from edgecv.specs import PreprocessSpec
from edgecv.vision.letterbox import fit
from tests.models import write_bundle
from tests.security.measured import Ended, run_code, run_edgecv

PLAIN_MB = 250  # what a child with numpy and OpenCV takes without any attack, with room
SIDE = 30_000  # 900 megapixels: 2.7 GB once decoded


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bomb(width: int, height: int) -> bytes:
    """A valid PNG of one bit per pixel, all black."""
    squeeze = zlib.compressobj(6)
    row = b"\0" + bytes((width + 7) // 8)
    rows = b"".join(squeeze.compress(row * 100) for _ in range(height // 100)) + squeeze.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


def honest(suffix: str, width: int = 64, height: int = 48) -> bytes:
    """A small image that is what it says."""
    image = np.arange(width * height * 3, dtype=np.uint8).reshape(height, width, 3)
    done, data = cv2.imencode(suffix, image)
    assert done
    return data.tobytes()


def _patched(data: bytes, at: int, code: str, *values: int) -> bytes:
    changed = bytearray(data)
    struct.pack_into(code, changed, at, *values)
    return bytes(changed)


def _tiff(tags: dict[int, int]) -> bytes:
    """The head of a TIFF with these tags, each a LONG."""
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(64)


def _webp(kind: bytes, body: bytes) -> bytes:
    chunk = kind + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def _u24(value: int) -> bytes:
    return value.to_bytes(3, "little")


# Heads that claim SIDE x SIDE pixels (GIF, JPEG and WebP as much as their fields hold).
CLAIMS: dict[str, bytes] = {
    "png": b"\x89PNG\r\n\x1a\n"
    + _chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0))
    + _chunk(b"IEND", b""),
    "jpeg": b"\xff\xd8\xff\xe0\0\x04ab\xff\xc0\0\x11\x08"
    + struct.pack(">HH", SIDE, SIDE)
    + b"\x03"
    + bytes(9)
    + b"\xff\xd9",
    "jpeg behind rubbish": b"\xff\xd8ab\xff\xff\xff\x01\xff\xc2\0\x11\x08"
    + struct.pack(">HH", SIDE, SIDE)
    + bytes(9)
    + b"\xff\xd9",
    "bmp": _patched(honest(".bmp"), 18, "<ii", SIDE, SIDE),
    "bmp upside down": _patched(honest(".bmp"), 18, "<ii", SIDE, -SIDE),
    "gif": b"GIF89a" + struct.pack("<HH", SIDE, SIDE) + bytes(20),
    "pnm": f"P6 # an image\n{SIDE}\n{SIDE} 255\n".encode(),
    "pnm with a comment that ends at a return": f"P6 #\r{SIDE} {SIDE}\n1 1 255\n".encode(),
    "webp": _webp(b"VP8X", bytes(4) + _u24(SIDE - 1) + _u24(SIDE - 1)),
    "webp lossless": _webp(b"VP8L", b"\x2f" + struct.pack("<I", 16383 | 16383 << 14) + bytes(8)),
    "webp lossy": _webp(b"VP8 ", bytes(3) + b"\x9d\x01\x2a" + struct.pack("<HH", 16383, 16383) + bytes(8)),
    "webp behind a small canvas": _webp(b"VP8X", bytes(4) + _u24(9) + _u24(9))
    + b"VP8L"
    + struct.pack("<I", 13)
    + b"\x2f"
    + struct.pack("<I", 16383 | 16383 << 14)
    + bytes(8),
    "tiff": _tiff({256: SIDE, 257: SIDE}),
    "tiff with huge tiles": _tiff({256: 64, 257: 64, 322: SIDE, 323: SIDE}),
    "tiff with deep pixels": _tiff({256: 7000, 257: 7000, 258: 64, 277: 4}),
}


class TestImages:
    @pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".tif", ".ppm", ".gif"])
    def test_the_size_stands_in_the_header(self, tmp_path: Path, suffix: str) -> None:
        assert image_size(honest(suffix)) == (64, 48)
        (tmp_path / f"a{suffix}").write_bytes(honest(suffix))
        assert read_image(tmp_path / f"a{suffix}").shape == (48, 64, 3)

    @pytest.mark.parametrize("name", CLAIMS)
    def test_a_head_that_claims_too_much_is_refused(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / "bomb"
        path.write_bytes(CLAIMS[name])
        with pytest.raises(SourceError, match="limit of 64 megapixels") as caught:
            read_image(path)
        assert (caught.value.code, caught.value.exit_code) == ("codec", 1)
        assert "--max-megapixels" in caught.value.hint

    @pytest.mark.parametrize(
        "data",
        [b"", b"rubbish", bytes(99), b"P7\nWIDTH 9\nHEIGHT 9\n", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"],
        ids=["empty", "rubbish", "zeros", "pam", "cut png", "cut jpeg"],
    )
    def test_an_unknown_or_cut_head_is_refused(self, data: bytes) -> None:
        with pytest.raises(SourceError):
            check_image_size(data)

    def test_a_real_bomb_takes_no_memory(self, tmp_path: Path) -> None:
        path = tmp_path / "bomb.png"
        path.write_bytes(png_bomb(SIDE, SIDE))
        assert path.stat().st_size < 400_000
        self.refused(run_code(f"from edgecv.media.images import read_image; read_image({str(path)!r})"))

    def test_a_chunk_that_claims_more_than_the_file_takes_no_memory(self, tmp_path: Path) -> None:
        """OpenCV took 2 GB for a PNG of 6 kB: it makes room for a chunk before it reads it."""
        small = honest(".png")
        at = small.index(b"IDAT") - 4
        path = tmp_path / "bomb.png"
        path.write_bytes(_patched(small, at, ">I", 0x7F000000))
        self.refused(run_code(f"from edgecv.media.images import read_image; read_image({str(path)!r})"))

    def test_tiles_larger_than_the_image_take_no_memory(self, tmp_path: Path) -> None:
        path = tmp_path / "bomb.tif"
        path.write_bytes(_tiled_tiff(10_000))
        self.refused(run_code(f"from edgecv.media.images import read_image; read_image({str(path)!r})"))

    @staticmethod
    def refused(ended: Ended) -> None:
        assert ended.stdout.startswith("refused: "), ended.stderr
        assert ended.peak_mb < PLAIN_MB

    def test_the_command_line_sets_the_limit(self, tmp_path: Path) -> None:
        bundle = write_bundle(tmp_path / "b.ecv", {"fp32": 1.0})
        (tmp_path / "a.png").write_bytes(honest(".png"))
        arguments = ["predict", bundle.path, tmp_path / "a.png", "--max-megapixels", "0.003"]
        ended = run_edgecv(*arguments)
        assert ended.code == 1
        assert "above the limit of 0.003 megapixels" in ended.stderr
        arguments[-1] = "0.004"
        assert run_edgecv(*arguments).code == 0

    def test_the_limit_can_be_raised_and_stays_sane(self) -> None:
        data = CLAIMS["png"]
        assert check_image_size(data, max_megapixels=900) == (SIDE, SIDE)
        assert max_megapixels() == DEFAULT_MEGAPIXELS
        try:
            set_max_megapixels(10)
            with pytest.raises(SourceError, match="limit of 10 mega"):
                check_image_size(b"P5 4000 4000 255\n")
        finally:
            set_max_megapixels(DEFAULT_MEGAPIXELS)
        for wrong in (0, -1, 5000, float("nan")):
            with pytest.raises(ConfigError):
                set_max_megapixels(wrong)

    def test_a_header_without_end_is_read_quickly(self) -> None:
        endless = b"\xff\xd8" + b"\xff\xe0\0\x02" * 2_000_000
        with pytest.raises(SourceError):
            image_size(endless)

    @pytest.mark.parametrize("shape", [(60_000, 1, 3), (1, 60_000, 3)])
    def test_a_line_cannot_be_blown_up_for_a_crop(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(SpecMismatch, match="too narrow"):
            fit(np.zeros(shape, np.uint8), PreprocessSpec(size_wh=(224, 224), resize="crop"))


def _tiled_tiff(side: int) -> bytes:
    """An image of 64 x 64 in one tile of ``side`` x ``side``, deflated."""
    squeeze = zlib.compressobj(1)
    packed = b"".join(squeeze.compress(bytes(side * 3)) for _ in range(side)) + squeeze.flush()
    tags = [(256, 64), (257, 64), (258, 8), (259, 8), (262, 2), (277, 3), (284, 1), (322, side), (323, side)]
    tags += [(324, 200), (325, len(packed))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return (b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries).ljust(200, b"\0") + packed


def mjpeg(path: Path, sizes: list[int], width: int, height: int) -> Path:
    """A film of grey squares of these sides in a container that says ``width`` x ``height``."""
    av = pytest.importorskip("av")
    encoded = {side: cv2.imencode(".jpg", np.full((side, side), 9, np.uint8))[1].tobytes() for side in set(sizes)}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuvj420p"
        for number, side in enumerate(sizes):
            packet = av.Packet(encoded[side])
            packet.stream, packet.pts, packet.dts, packet.is_keyframe = stream, number, number, True
            container.mux(packet)
    return path


READ_ALL = """
from edgecv.media.video_reader import VideoReader
reader = VideoReader({path!r})
print('open', flush=True)
while reader.read() is not None:
    pass
"""


class TestVideos:
    def test_frames_above_the_limit_are_refused_before_one_is_decoded(self, tmp_path: Path) -> None:
        path = mjpeg(tmp_path / "a.avi", [9_000] * 3, 9_000, 9_000)
        ended = run_code(READ_ALL.format(path=str(path)))
        assert "limit of 64 megapixels" in ended.stdout
        assert ended.peak_mb < PLAIN_MB

    def test_a_stream_that_grows_in_the_middle_takes_no_more_memory(self, tmp_path: Path) -> None:
        """The header says 64 x 64; FFmpeg took memory for what the frames say: 3 GB of a file of 7 MB."""
        path = mjpeg(tmp_path / "a.avi", [64] * 10 + [10_000] * 4, 64, 64)
        ended = run_code(READ_ALL.format(path=str(path)))
        assert ended.stdout.startswith("open\nrefused: ")
        assert ended.peak_mb < PLAIN_MB

    def test_a_stream_may_honestly_change_its_size(self, tmp_path: Path) -> None:
        path = mjpeg(tmp_path / "a.avi", [64] * 3 + [1024] * 3, 64, 64)
        reader, shapes = VideoReader(path), []
        while (frame := reader.read()) is not None:
            shapes.append(frame.shape)
        assert shapes == [(64, 64, 3)] * 3 + [(1024, 1024, 3)] * 3

    def test_a_keyword_sets_the_limit(self, tmp_path: Path) -> None:
        path = mjpeg(tmp_path / "a.avi", [200] * 3, 200, 200)
        with pytest.raises(SourceError, match=r"limit of 0\.01"):
            VideoReader(path, max_megapixels=0.01).read()


def _zeros(size: int) -> tuple[str, int]:
    """sha256 and size of a file of zeros."""
    digest = hashlib.sha256()
    for _ in range(size >> 20):
        digest.update(bytes(1 << 20))
    return digest.hexdigest(), size


@pytest.fixture(scope="module")
def zip_bomb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed bundle that lists, truthfully, an extra file of 200 MB of zeros: 0.2 MB."""
    folder = tmp_path_factory.mktemp("zip")
    bundle = write_bundle(folder / "b.ecv", {"fp32": 1.0})
    sha256, size = _zeros(200 << 20)
    extras = (BundleFile(path="zeros", sha256=sha256, bytes=size),)
    manifest = dump_manifest(_replaced(bundle, extras))
    packed = folder / "bomb.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr(MANIFEST, manifest)
        archive.write(bundle.path / "onnx-fp32/model.onnx", "onnx-fp32/model.onnx")
        with archive.open("zeros", "w") as sink:
            for _ in range(size >> 20):
                sink.write(bytes(1 << 20))
    return packed


def _replaced(bundle: Bundle, extras: tuple[BundleFile, ...]) -> Manifest:
    return msgspec.structs.replace(bundle.manifest, extras=extras)


class TestArchives:
    def test_one_that_grows_beyond_what_models_do_is_refused_before_it_is_written(
        self, zip_bomb: Path, tmp_path
    ) -> None:
        assert zip_bomb.stat().st_size < 2 << 20
        ended = run_edgecv("unpack", zip_bomb, "--out", tmp_path / "out.ecv")
        assert ended.code == 1
        assert "more than models do" in ended.stderr
        assert ended.peak_mb < PLAIN_MB
        assert not list(tmp_path.iterdir())

    def test_one_that_is_larger_than_the_disk_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        packed = pack(write_bundle(tmp_path / "b.ecv").path)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: _Disk(free=1 << 20))
        with pytest.raises(ConfigError, match="left"):
            unpack(packed, tmp_path / "out.ecv")
        assert {path.name for path in tmp_path.iterdir()} == {"b.ecv", "b.ecv.zip"}

    def test_one_with_too_many_names_is_refused(self, tmp_path: Path) -> None:
        packed = tmp_path / "many.zip"
        with zipfile.ZipFile(packed, "w") as archive:
            for number in range(10_001):
                archive.writestr(f"{number}", b"")
        with pytest.raises(BundleError, match="10001 files"):
            unpack(packed)

    def test_a_header_that_states_less_than_there_is_writes_no_more(self, tmp_path: Path) -> None:
        """Both headers of a member say 10 bytes; the data go on for 100 MB."""
        bundle = write_bundle(tmp_path / "b.ecv", {"fp32": 1.0})
        sha256, _ = _zeros(0)
        extras = (BundleFile(path="zeros", sha256=sha256, bytes=10),)
        packed = tmp_path / "lie.zip"
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("zeros", bytes(100 << 20))
            archive.writestr(MANIFEST, dump_manifest(_replaced(bundle, extras)))
            archive.write(bundle.path / "onnx-fp32/model.onnx", "onnx-fp32/model.onnx")
        packed.write_bytes(packed.read_bytes().replace(struct.pack("<I", 100 << 20), struct.pack("<I", 10)))
        with pytest.raises(BundleError):
            unpack(packed, tmp_path / "out.ecv")
        assert not (tmp_path / "out.ecv").exists()


@pytest.mark.parametrize("name", ["onnx-fp32/main/in/image", "something else"])
def test_golden_vectors_larger_than_their_specs_are_not_unpacked(tmp_path: Path, name: str) -> None:
    bundle = write_bundle(tmp_path / "b.ecv", {"fp32": 1.0})
    with (
        zipfile.ZipFile(bundle.path / GOLDEN, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(f"{name}.npy", "w") as sink,
    ):
        head = {"descr": "|u1", "fortran_order": False, "shape": (1, 250 << 10, 1024, 1)}
        np.lib.format.write_array_header_1_0(sink, head)
        for _ in range(250):
            sink.write(bytes(1 << 20))
    extras = (describe_file(bundle.path, bundle.path / GOLDEN),)
    (bundle.path / MANIFEST).write_bytes(dump_manifest(_replaced(bundle, extras)))
    ended = run_edgecv("verify", bundle.path)
    assert ended.code == 1
    assert "bug in EdgeCV" not in ended.stderr
    assert ended.peak_mb < PLAIN_MB


def test_a_golden_array_whose_header_lies_is_damage(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b.ecv", {"fp32": 1.0})
    array = io.BytesIO()
    np.lib.format.write_array_header_1_0(array, {"descr": "|u1", "fortran_order": False, "shape": (10**6, 10**6)})
    with zipfile.ZipFile(bundle.path / GOLDEN, "w") as archive:
        archive.writestr("onnx-fp32/main/in/image.npy", array.getvalue())
        archive.writestr("onnx-fp32/main/out/prediction.npy", array.getvalue())
    extras = (describe_file(bundle.path, bundle.path / GOLDEN),)
    (bundle.path / MANIFEST).write_bytes(dump_manifest(_replaced(bundle, extras)))
    ended = run_edgecv("verify", bundle.path)
    assert (ended.code, "bug in EdgeCV" in ended.stderr) == (1, False)
    assert "damaged" in ended.stderr


def test_a_frame_in_npy_whose_header_lies_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": (30_000, 30_000, 3)}
        )
    with pytest.raises(CalibrationError):
        array_frames([path])


# Ten lists of ten merges each: 10^8 entries of a document of 1 kB, where aliases are followed.
LAUGHS = "a: &a {" + ", ".join(f"k{n}: 1" for n in range(10)) + "}\n"
LAUGHS += "".join(
    f"{name}: &{name}\n  <<: [{', '.join('*' + before for _ in range(10))}]\n"
    for before, name in zip("abcdefg", "bcdefgh", strict=True)
)


class TestDocuments:
    def test_a_yaml_of_aliases_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "data.yaml"
        path.write_text(LAUGHS)
        ended = run_code(
            f"from pathlib import Path\nfrom edgecv.quantize.labels.dataset import read_dataset\nread_dataset(Path({str(path)!r}))"
        )
        assert ended.stdout.startswith("refused: ")
        assert ended.peak_mb < PLAIN_MB

    @pytest.mark.parametrize("text", ["[" * 100_000, "a: " * 100_000, "- " * 100_000], ids=["flow", "mapping", "list"])
    def test_a_yaml_nested_without_end_is_refused(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "data.yaml").write_text(text)
        with pytest.raises(CalibrationError):
            read_dataset(tmp_path / "data.yaml")

    @pytest.mark.parametrize(
        ("arguments", "code"),
        [
            (("run", "--config", "ENDLESS"), 2),
            (("convert", "resnet18", "--labels", "ENDLESS", "--random-weights"), 2),
            (("eval", "BUNDLE", "--data", "ENDLESS.yaml"), 2),
        ],
        ids=["app.toml", "labels", "data.yaml"],
    )
    def test_a_document_without_end_is_refused_with_its_sentence(self, tmp_path: Path, arguments, code) -> None:
        bundle = write_bundle(tmp_path / "b.ecv", {"fp32": 1.0})
        for suffix in ("", ".yaml"):
            with (tmp_path / f"ENDLESS{suffix}").open("wb") as file:
                file.truncate(3 << 30)
        places = {"BUNDLE": str(bundle.path)}
        ended = run_edgecv(
            *(places.get(word, str(tmp_path / word) if "ENDLESS" in word else word) for word in arguments)
        )
        assert ended.code == code
        assert "bug in EdgeCV" not in ended.stderr
        assert ended.peak_mb < 600

    def test_a_recipe_without_end_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "recipe.json"
        with path.open("wb") as file:
            file.truncate(3 << 30)
        with pytest.raises(ConfigError, match="too large"):
            find_recipe(str(path))
        path.write_text("[" * 100_000)
        with pytest.raises(ConfigError, match="no recipe"):
            find_recipe(str(path))

    @pytest.mark.parametrize(
        "line", ["inf 0.5 0.5 0.1 0.1", "nan 0.5 0.5 0.1 0.1", "1e400 .5 .5 .1 .1", "0 inf nan 1 1"]
    )
    def test_labels_that_are_no_numbers_are_refused(self, tmp_path: Path, line: str) -> None:
        (tmp_path / "a.txt").write_text(line)
        with pytest.raises(ConfigError):
            read_labels(tmp_path / "a.jpg")


@pytest.mark.parametrize("nesting", ["[", '{"a":'])
def test_json_nested_without_end_is_refused(tmp_path: Path, nesting: str) -> None:
    bundle = write_bundle(tmp_path / "b.ecv", {"fp32": 1.0})
    said = json.loads((bundle.path / MANIFEST).read_bytes())
    said["decode"]["options"] = {"x": 0}
    text = json.dumps(said).replace('{"x": 0}', '{"x": ' + nesting * 200_000)
    (bundle.path / MANIFEST).write_text(text)
    with pytest.raises(BundleError):
        Bundle.open(bundle.path)


def test_running_out_of_memory_is_no_bug_of_edgecv(capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(MemoryError()) == 1
    said = capsys.readouterr().err
    assert "not enough memory" in said
    assert "bug" not in said


class _Disk:
    def __init__(self, free: int) -> None:
        self.free = free
