"""INT8 accuracy on images that calibration never saw, from one labelled set: each half judges what the other calibrated.

``python -m edgecv.benchmarks.lab cross_split SOURCE DATA_DIR [--format F] [--target T] [--recipe R] [--json]``
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from edgecv._internal.progress import Progress, silent
from edgecv.benchmarks.lab.figures import print_figures
from edgecv.bundles.bundle import Bundle, sha256_of
from edgecv.cli.console import progress_for
from edgecv.converters.convert import convert
from edgecv.converters.request import Int8Options
from edgecv.model import load
from edgecv.quantize.gate.boxes import Agreement, agreement
from edgecv.quantize.labels.coco import Truth, match_boxes
from edgecv.quantize.labels.evaluate import judged, labelled_images
from edgecv.quantize.labels.scores import DetectorScores
from edgecv.quantize.recipes import DEFAULT_CPU_CLASS
from edgecv.results import Detections
from edgecv.specs import DecodeSpec

Pairs = list[tuple[Truth, Detections]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossSplit:
    """Accuracy over all images, each judged by the model that did not calibrate on it.

    Attributes:
        images: Different images in the set.
        float_map: ``map50_95`` and ``map50`` of the float variant, 0 to 1.
        int8_map: The same of the two INT8 variants, their detections pooled.
        recipes: The recipe of each INT8 variant.
        agreement: Of INT8 with float, as the gate measures it; ``None`` where it was not.
    """

    images: int
    float_map: Mapping[str, float]
    int8_map: Mapping[str, float]
    recipes: tuple[str, str]
    agreement: Agreement | None = None

    def as_dict(self) -> dict[str, object]:
        """The figures, rounded, with what INT8 loses."""
        agreed = asdict(self.agreement) if self.agreement else {}
        return {
            "images": self.images,
            "recipes": list(self.recipes),
            **{f"float_{name}": round(value, 4) for name, value in self.float_map.items()},
            **{f"int8_{name}": round(value, 4) for name, value in self.int8_map.items()},
            "loss_map50_95": round(self.float_map["map50_95"] - self.int8_map["map50_95"], 4),
            "loss_map50": round(self.float_map["map50"] - self.int8_map["map50"], 4),
            **({name: round(value, 4) for name, value in agreed.items() if name != "teacher_boxes"}),
        }


@dataclass(slots=True, kw_only=True)
class _Pool:
    """Labels and detections collected over both halves."""

    float_pairs: Pairs = field(default_factory=list)
    int8_pairs: Pairs = field(default_factory=list)
    recipes: list[str] = field(default_factory=list)
    classes: int = 0


def cross_split(
    source: str | Path,
    data: str | Path,
    progress: Progress = silent,
    *,
    model_format: str = "onnx",
    int8: Int8Options | None = None,
) -> CrossSplit:
    """Convert ``source`` twice, calibrated on one half of the labelled images, and judge on the other.

    Args:
        source: What ``edgecv.convert`` takes.
        data: Folder with ``images/`` and ``labels/`` in YOLO form, or a ``data.yaml``.
        progress: Called as long steps go on.
        model_format: Format of the variants.
        int8: As in ``edgecv.convert``, one CPU class; accuracy for another class is judged on this one.

    Raises:
        ConfigError: there are no labelled images.
        CalibrationError: a half has too few images.
        AccuracyGateError: INT8 does not keep the accuracy on a half.
    """
    halves = split_by_content(labelled_images(data))
    pool = _Pool()
    with tempfile.TemporaryDirectory() as work:
        for number in (0, 1):
            folder = linked(halves[number], Path(work) / f"half{number}")
            bundle = convert(
                source,
                formats=(model_format,),
                calibration=folder,
                out=folder.with_suffix(".ecv"),
                int8=int8,
                progress=progress,
            )
            _judge(bundle, halves[1 - number], pool, progress)
    return CrossSplit(
        images=len(pool.float_pairs),
        float_map=_map_of(pool.float_pairs, pool.classes),
        int8_map=_map_of(pool.int8_pairs, pool.classes),
        recipes=(pool.recipes[0], pool.recipes[1]),
        agreement=agreement(
            [(_shown(f), _shown(i)) for (_, f), (_, i) in zip(pool.float_pairs, pool.int8_pairs, strict=True)]
        ),
    )


def _map_of(pairs: Pairs, classes: int) -> dict[str, float]:
    return DetectorScores(pairs=tuple(pairs), matches=match_boxes(pairs, classes)).figures()


def _shown(found: Detections) -> Detections:
    """What a user sees of detections that were collected for mAP, down to next to nothing."""
    return found[found.confidence >= DecodeSpec(task="detect", decoder="").confidence]


def split_by_content(images: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Two halves, the same wherever the files lie; copies of a file count once, so none is on both sides."""
    by_content: dict[str, Path] = {}
    for path in images:
        by_content.setdefault(sha256_of(path), path)
    ordered = [by_content[key] for key in sorted(by_content)]
    return ordered[0::2], ordered[1::2]


def linked(images: Sequence[Path], folder: Path) -> Path:
    """A new folder with links to the images."""
    folder.mkdir()
    for number, path in enumerate(images):
        (folder / f"{number:06d}{path.suffix}").symlink_to(path.resolve())
    return folder


def _judge(bundle: Bundle, images: Sequence[Path], pool: _Pool, progress: Progress) -> None:
    float_variant, quantized = bundle.variants[0], bundle.variants[-1]  # with TensorRT, fp16 is between them
    pool.classes = len(bundle.labels)
    pool.recipes.append(quantized.recipe)
    for variant, pairs in ((float_variant, pool.float_pairs), (quantized, pool.int8_pairs)):
        with load(bundle.path, variant=variant.name) as model:
            pairs.extend(judged(model, images, progress))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m edgecv.benchmarks.lab cross_split", description=__doc__)
    parser.add_argument("source", type=Path, help="checkpoint or ONNX that `edgecv convert` reads")
    parser.add_argument("data", type=Path, help="folder with images/ and labels/ in YOLO form, or data.yaml")
    parser.add_argument("--format", default="onnx", help="onnx (default), openvino or tflite")
    parser.add_argument("--target", default=DEFAULT_CPU_CLASS, help="CPU class of INT8 in ONNX")
    parser.add_argument(
        "--recipe", action="append", default=[], help="recipe by name or file, instead of one after the other"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    given = parser.parse_args()
    with progress_for(given.json) as progress:
        found = cross_split(
            given.source,
            given.data,
            progress,
            model_format=given.format,
            int8=Int8Options(cpu_class=given.target, recipes=given.recipe),
        )
    print_figures(found.as_dict(), given.json)
