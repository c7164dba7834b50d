"""``edgecv.read_image``: a file, or the bytes of one that somebody has sent."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest

import edgecv
from edgecv.errors import SourceError


def encoded(suffix: str = ".png", size_wh: tuple[int, int] = (64, 48)) -> bytes:
    image = np.full((size_wh[1], size_wh[0], 3), (200, 30, 60), np.uint8)
    return bytes(cv2.imencode(suffix, image)[1])


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".tiff", ".ppm"])
def test_bytes_are_read_as_a_file_with_them_is(tmp_path: Path, suffix: str, kind: type) -> None:
    data = encoded(suffix)
    (tmp_path / f"x{suffix}").write_bytes(data)
    found = edgecv.read_image(kind(data))
    assert (found.shape, found.dtype) == ((48, 64, 3), np.uint8)
    assert (found == edgecv.read_image(tmp_path / f"x{suffix}")).all()
    assert (found == edgecv.read_image(str(tmp_path / f"x{suffix}"))).all()


@pytest.mark.parametrize(
    ("data", "text", "code"),
    [
        (b"", "empty", "eof"),
        (b"<html>413 Request Entity Too Large</html>", "cannot be decoded", "codec"),
        (b'{"image": "data:image/png;base64,AAAA"}', "cannot be decoded", "codec"),
        (encoded(".png")[:60], "cannot be decoded", "codec"),
        (encoded(".jpg")[:-20], "ends in the middle", "codec"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC", "codec"),
        (b"%PDF-1.7\n", "cannot be decoded", "codec"),
        (b"\xff\xd8\xff\xd9", "cannot be decoded", "codec"),
    ],
    ids=["empty", "page", "json", "cut-png", "cut-jpeg", "heic", "pdf", "jpeg-of-nothing"],
)
def test_bytes_that_are_no_image_are_a_source_error(data: bytes, text: str, code: str) -> None:
    with pytest.raises(SourceError, match=text) as caught:
        edgecv.read_image(data)
    assert caught.value.code == code
    assert caught.value.hint
    assert "None" not in caught.value.message + caught.value.hint


def test_the_limit_of_pixels_holds_for_bytes() -> None:
    with pytest.raises(SourceError, match=r"limit of 0\.001 megapixels"):
        edgecv.read_image(encoded(), max_megapixels=0.001)
    with pytest.raises(SourceError, match="larger than an image"):
        edgecv.read_image(bytes(9000), max_megapixels=0.001)


@pytest.mark.parametrize(
    "given", [None, 3, io.BytesIO(b"x"), np.zeros((4, 4, 3), np.uint8)], ids=lambda one: type(one).__name__
)
def test_what_is_neither_path_nor_bytes_says_what_is_read(given: object) -> None:
    with pytest.raises(SourceError, match=type(given).__name__) as caught:
        edgecv.read_image(given)  # type: ignore[arg-type]
    assert "read()" in caught.value.hint


def test_a_missing_file_is_a_source_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        edgecv.read_image(tmp_path / "none.jpg")
