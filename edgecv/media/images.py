"""Reads and writes images; a damaged file is an error."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgecv._internal.extras import opencv
from edgecv._internal.output_files import open_target
from edgecv._internal.private_files import write_all
from edgecv.errors import SinkError, SourceError
from edgecv.media.image_files import IMAGE_SUFFIXES, WAY_OUT, images_in, unread_format, unread_in
from edgecv.media.image_headers import check_image_size, max_megapixels as limit_megapixels
from edgecv.results import Image

_MOST_BYTES_PER_PIXEL = 8  # of an image's file: four channels of 16 bits, not compressed


def read_image(source: str | Path | bytes, max_megapixels: float | None = None) -> Image:
    """Read an image from a file, or from the bytes of one, such as the body of a request.

    Args:
        source: The path of a PNG, JPEG, BMP, WebP, TIFF, PNM or GIF file, or what such a file holds.
        max_megapixels: Largest image that is decoded, in millions of pixels; by default the limit of the process: 64, or
            what ``edgecv.media.image_headers.set_max_megapixels`` says.

    Returns:
        ``(H, W, 3)`` uint8, BGR, turned upright as its EXIF data say.

    Raises:
        SourceError: the file is missing, empty, cut short, no image or one above the limit.
        MissingDependency: OpenCV is not installed.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return _decoded(_checked_bytes(bytes(source), "The data", max_megapixels), "The data", None, max_megapixels)
    if not isinstance(source, str | Path):
        raise SourceError(
            f"An image is read from a path or from bytes, not from a {type(source).__name__}.",
            "Of an open file, give file.read().",
            code="missing",
        )
    path = Path(source)
    return _decoded(_file_bytes(path, max_megapixels), str(source), path, max_megapixels)


def _decoded(data: bytes, name: str, path: Path | None, max_megapixels: float | None) -> Image:
    """The image in ``data``; ``name`` is what messages call it."""
    if _is_cut_jpeg(data):  # OpenCV 4 pads it with grey and says nothing
        raise SourceError(f"{name} ends in the middle of the image.", "Copy it again.", code="codec")
    unread = unread_format(data)
    if unread:
        shown = path or Path("FILE")
        raise SourceError(
            f"{name} is an image in the format {unread}, which is not read.",
            WAY_OUT.format(name=shown.name, stem=shown.stem),
            code="codec",
        )
    check_image_size(data, name, max_megapixels)
    cv2 = opencv()
    try:
        image: Image | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise SourceError(f"{name} cannot be decoded: {error}.", "Is it an image?", code="codec") from error
    except MemoryError as error:
        raise SourceError(f"{name} needs more memory than there is.", "Use a smaller image.", code="codec") from error
    if image is None:
        raise SourceError(f"{name} cannot be decoded as an image.", "It is damaged or no image.", code="codec")
    return image


def write_image(path: str | Path, image: Image, *, overwrite: bool = True) -> None:
    """Write a ``(H, W, 3)`` uint8 BGR image in the format that the suffix names.

    Raises:
        ConfigError: the file exists and ``overwrite`` is not set, or it is a link.
        SinkError: it cannot be written.
        MissingDependency: OpenCV is not installed.
    """
    cv2 = opencv()
    try:
        _, data = cv2.imencode(Path(path).suffix, image)
        with open_target(path, overwrite=overwrite) as file:
            write_all(file.fileno(), data.tobytes())
    except cv2.error as error:
        raise SinkError(f"{path} is no image format.", "Use .jpg or .png.") from error
    except OSError as error:
        raise SinkError(f"{path} cannot be written: {error.strerror}.", "Is there space, and may you write?") from error


def list_images(folder: str | Path) -> list[Path]:
    """The images directly in a folder, by suffix, in the order in which a person counts: 1, 2, 10.

    Hidden files, such as the ``._NAME.jpg`` of macOS, are left out.

    Raises:
        SourceError: it is not a folder, or holds no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder.", "Give a folder of images.", code="missing")
    found = images_in(folder)
    if not found:
        suffixes, left_out = ", ".join(sorted(IMAGE_SUFFIXES)), unread_in(folder)
        but = f" that is read, but {left_out}" if left_out else ""
        hint = "Convert them to JPEG or PNG." if left_out else f"Read are: {suffixes}."
        raise SourceError(f"There is no image in {folder}{but}.", hint, code="missing")
    return found


def unreadable(errors: Sequence[SourceError], images: int) -> SourceError:
    """One error for every image of a set that could not be read: how many, which, and why; each on a line."""
    if images == 1:
        return errors[0]
    named = "\n".join(error.message for error in errors)
    hint = "All the others were read. Remove or replace these." if len(errors) < images else errors[0].hint
    return SourceError(f"{len(errors)} of {images} images cannot be read:\n{named}", hint, code=errors[0].code)


def check_file(path: Path) -> None:
    """Raise ``SourceError`` unless ``path`` is a file with content."""
    if not path.exists():
        raise SourceError(f"{path} does not exist.", "Check the name and the current folder.", code="missing")
    if not path.is_file():
        raise SourceError(f"{path} is not a file.", "Give a file; a folder of images ends with '/'.", code="missing")
    if path.stat().st_size == 0:
        raise SourceError(f"{path} is empty.", "Was it copied or recorded to its end?", code="eof")


def _file_bytes(path: Path, megapixels: float | None) -> bytes:
    check_file(path)
    try:
        with path.open("rb") as file:
            data = file.read(_most_bytes(megapixels) + 1)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}.", "May you read it?", code="refused") from error
    return _checked_bytes(data, str(path), megapixels)


def _checked_bytes(data: bytes, name: str, megapixels: float | None) -> bytes:
    if not data:
        raise SourceError(f"{name} is empty.", "Was it copied or sent to its end?", code="eof")
    if len(data) > _most_bytes(megapixels):
        raise SourceError(f"{name} is larger than an image that is read.", "Raise --max-megapixels.", code="codec")
    return data


def _most_bytes(megapixels: float | None) -> int:
    return int((megapixels or limit_megapixels()) * 1e6 * _MOST_BYTES_PER_PIXEL)


def _is_cut_jpeg(data: bytes) -> bool:
    """Whether a JPEG has no end mark after its image data; thumbnails inside the header do not count.

    Source: ITU-T T.81, annex B: segments of marker and big-endian length up to the start of scan.
    """
    if not data.startswith(b"\xff\xd8"):
        return False
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != 0xDA:
        has_length = data[position + 1] != 0xFF  # fill bytes may stand before a marker
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big") if has_length else 1
    return data.find(b"\xff\xd9", position) < 0
