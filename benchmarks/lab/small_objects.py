"""What tiles bring for small objects: COCO mAP without and with them, on pictures whose objects are half as large as they were.

``python -m edgecv.benchmarks.lab small_objects BUNDLE DATA [--tiles 2x2] [--canvas large|same] [--seed 0] [--json]``

Each picture is pasted onto a grey canvas at a place that the seed chooses. ``large``: as it is, onto one of twice its width and
height, so that the model sees its objects half as large. ``same``: scaled to a half, onto one of its own size, so that its details
are gone as well. Small objects are those of COCO: below 32 x 32 pixels, measured on the canvas.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from edgecv._internal.extras import opencv
from edgecv.benchmarks.lab.figures import print_figures
from edgecv.detections import Image
from edgecv.media.images import read_image, write_image
from edgecv.model import Model
from edgecv.quantize.labels.coco import evaluation
from edgecv.quantize.labels.evaluate import judged, labelled_images, read_labels
from edgecv.tiles.model import TiledModel

_GREY = 114
_SCALE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """Mean average precision, 0 to 1, and the seconds of all images with reading them."""

    map50_95: float
    small_map50_95: float
    seconds: float


def write_canvases(data: str | Path, folder: Path, canvas: str, seed: int = 0) -> int:
    """Write the pictures of a labelled set, pasted onto canvases, with their labels; how many there are.

    Raises:
        ConfigError: the set holds no labelled images.
    """
    random, images = np.random.default_rng(seed), labelled_images(data)
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for path in images:
        picture = _halved(read_image(path)) if canvas == "same" else read_image(path)
        height, width = picture.shape[:2]
        place = np.array([random.integers(0, width + 1), random.integers(0, height + 1)])
        whole = np.full((2 * height, 2 * width, 3), _GREY, np.uint8)
        whole[place[1] : place[1] + height, place[0] : place[0] + width] = picture
        write_image(folder / "images" / f"{path.stem}.png", whole)
        labels, shift = read_labels(path), np.tile(place / (2 * width, 2 * height), 2)
        boxes = labels.xyxy.astype(np.float64) * _SCALE + shift
        lines = [_line(int(class_id), box) for class_id, box in zip(labels.class_id, boxes, strict=True)]
        (folder / "labels" / f"{path.stem}.txt").write_text("".join(lines), encoding="utf-8")
    return len(images)


def score(model: Model, data: Path) -> Scored:
    """Run a detector on a labelled set.

    Raises:
        ConfigError: the model is no detector.
    """
    started = time.perf_counter()
    pairs = judged(model, labelled_images(data))
    seconds = time.perf_counter() - started
    judge = evaluation(pairs, len(model.labels))
    if judge is None:
        return Scored(map50_95=0.0, small_map50_95=0.0, seconds=seconds)
    with contextlib.redirect_stdout(io.StringIO()):
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return Scored(map50_95=float(judge.stats[0]), small_map50_95=float(judge.stats[3]), seconds=seconds)


def _halved(image: Image) -> Image:
    cv2 = opencv()
    size = (max(1, round(image.shape[1] * _SCALE)), max(1, round(image.shape[0] * _SCALE)))
    halved: Image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return halved


def _line(class_id: int, box: Sequence[float] | np.ndarray) -> str:
    left, top, right, bottom = (float(value) for value in box)
    values = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
    return f"{class_id} {' '.join(f'{value:.7f}' for value in values)}\n"


def main() -> None:
    """Measure what the arguments ask for, and print it."""
    parser = argparse.ArgumentParser(prog="python -m edgecv.benchmarks.lab small_objects", description=__doc__)
    parser.add_argument("bundle", help="bundle of a detector")
    parser.add_argument("data", help="labelled images: data.yaml, or a folder with images/ and labels/")
    parser.add_argument("--tiles", default="2x2")
    parser.add_argument("--canvas", choices=("large", "same"), default="large")
    parser.add_argument("--seed", type=int, default=0, help="of the places of the pictures")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made, Model.load(given.bundle) as model:
        count = write_canvases(given.data, Path(made), given.canvas, given.seed)
        plain, tiled = (score(one, Path(made)) for one in (model, TiledModel(model, given.tiles)))
    ratio = tiled.small_map50_95 / plain.small_map50_95 if plain.small_map50_95 else float("inf")
    figures: dict[str, object] = {"images": count, "canvas": given.canvas, "tiles": given.tiles}
    for name, found in (("plain", plain), ("tiled", tiled)):
        figures |= {f"{name}_{key}": round(value, 4) for key, value in asdict(found).items()}
    print_figures({**figures, "small_ratio": round(ratio, 3)}, given.json)
