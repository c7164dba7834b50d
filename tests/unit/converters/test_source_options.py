"""What is said of a source either holds or is refused: nothing that was asked for is left out in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgecv.converters.families.foreign_onnx.open import open_onnx
from edgecv.converters.families.resnet import open_named
from edgecv.converters.families.sam.sam import open_sam
from edgecv.converters.families.sam.sam2 import open_sam2
from edgecv.converters.families.yolov8 import open_architecture, open_checkpoint
from edgecv.converters.source import SourceOptions
from edgecv.errors import ConfigError

GIVEN: dict[str, dict[str, Any]] = {
    "--weights": {"weights": Path("other.pth")},
    "--random-weights": {"random_weights": True},
    "--pretrained": {"pretrained": True},
    "--mean": {"preprocess": {"mean": (0.5, 0.5, 0.5)}},
    "--resize": {"preprocess": {"resize": "crop"}},
    "--labels": {"labels": ("a", "b")},
    "--trust-pickle": {"trust_pickle": True},
}


@pytest.mark.parametrize(
    ("opener", "source", "flags"),
    [
        (open_checkpoint, "m.pt", ("--weights", "--random-weights", "--pretrained", "--mean", "--resize", "--labels")),
        (open_architecture, "yolov8n.yaml", ("--weights", "--pretrained", "--mean", "--labels", "--trust-pickle")),
        (open_named, "resnet18", ("--mean", "--resize", "--trust-pickle")),
        (open_sam, "mobile_sam", ("--pretrained", "--mean", "--labels", "--trust-pickle")),
        (open_sam2, "sam2.1_t", ("--pretrained", "--mean", "--labels", "--trust-pickle")),
        (open_onnx, "m.onnx", ("--weights", "--random-weights", "--pretrained", "--trust-pickle")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_option_that_means_nothing_for_a_source_is_refused(opener: Any, source: str, flags: tuple[str, ...]) -> None:
    for flag in flags:
        with pytest.raises(ConfigError, match=f"{flag} means nothing for {source}"):
            opener(Path(source), SourceOptions(**GIVEN[flag]))


def test_a_detector_needs_no_preprocessing_said(exported: Path) -> None:
    with pytest.raises(ConfigError, match=r"--mean means nothing for real\.onnx, a detector"):
        open_onnx(exported, SourceOptions(preprocess={"mean": (0.0, 0.0, 0.0)}))


def test_labels_of_another_number_than_the_classes_are_refused(exported: Path) -> None:
    with pytest.raises(ConfigError, match="has 80 classes, not 2"):
        open_onnx(exported, SourceOptions(labels=("a", "b")))
    with pytest.raises(ConfigError, match="has 1000 classes, not 2"):
        open_named(Path("resnet18"), SourceOptions(random_weights=True, size_wh=(32, 32), labels=("a", "b")))
