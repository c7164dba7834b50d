"""The model card says what a model is for, how it was proven, and where it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgecv.bundles.manifest import Calibration, Manifest
from edgecv.converters.model_card import write_model_card
from tests.models import write_bundle

SECTIONS = ("Intended use", "Variants", "Calibration", "Limits")


def card_of(manifest: Manifest, folder: Path) -> dict[str, str]:
    """Sections by their headings."""
    text = write_model_card(folder, manifest).read_text()
    _, *parts = text.split("\n## ")
    return {part.partition("\n")[0]: part.partition("\n")[2].strip() for part in parts}


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return write_bundle(tmp_path / "m.ecv").manifest


def changed(manifest: Manifest, **changes: Any) -> Manifest:
    return msgspec.structs.replace(manifest, **changes)


def test_no_section_is_empty(manifest: Manifest, tmp_path: Path) -> None:
    card = card_of(manifest, tmp_path)
    assert tuple(card) == SECTIONS
    assert all(len(text) > 20 for text in card.values())


def test_it_says_what_it_is_for_and_what_it_knows(manifest: Manifest, tmp_path: Path) -> None:
    text = card_of(manifest, tmp_path)["Intended use"]
    assert "Finds the objects" in text
    assert "bright, never" in text
    assert "edgecv eval" in text
    assert manifest.licence in text


def test_limits_name_the_size_and_what_was_not_judged(manifest: Manifest, tmp_path: Path) -> None:
    text = card_of(manifest, tmp_path)["Limits"]
    assert "64x64" in text
    assert "Nothing was judged on labels" in text
    assert "random" not in text


def test_what_was_judged_on_labels_is_no_limit(manifest: Manifest, tmp_path: Path) -> None:
    judged = {"metrics": {"map50_95_drop": 0.2}, "recipe": "ort-u8s8"}
    variants = tuple(msgspec.structs.replace(variant, **judged) for variant in manifest.variants)
    card = card_of(changed(manifest, variants=variants), tmp_path)
    assert "Nothing was judged on labels" not in card["Limits"]
    assert "calibration set" in card["Limits"]
    assert "map50_95_drop 0.2000" in card["Variants"]


def test_random_weights_assumptions_and_cpu_classes_are_limits(manifest: Manifest, tmp_path: Path) -> None:
    source = msgspec.structs.replace(manifest.source, file="resnet18: random weights, seed 0")
    variants = tuple(msgspec.structs.replace(variant, cpu_class="arm64") for variant in manifest.variants)
    made = changed(manifest, source=source, variants=variants, assumptions=("resize: stretch",))
    text = card_of(made, tmp_path)["Limits"]
    for words in ("random", "`arm64`", "resize: stretch"):
        assert words in text


def test_the_calibration_set_is_told(manifest: Manifest, tmp_path: Path) -> None:
    used = Calibration(images=128, held_out=32, sha256="ab" * 32)
    variants = tuple(msgspec.structs.replace(variant, recipe="ort-u8s8") for variant in manifest.variants)
    text = card_of(changed(manifest, calibration=used, variants=variants), tmp_path)["Calibration"]
    for words in ("128 images", "32 of them", used.sha256):
        assert words in text
