"""Readers of bundles, models and images against mutated files, in child processes with a limit on memory and time.

A find is kept by copying the file that is named to ``corpus/bundles/KIND-NAME``; the default tests read it from then on.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecv.bundles.bundle import Bundle, describe_file
from edgecv.bundles.golden import GOLDEN
from edgecv.bundles.manifest import MANIFEST, dump_manifest
from edgecv.bundles.packing import pack
from tests.contract.test_runtimes import litert_arithmetic, openvino_arithmetic
from tests.models import METADATA, arithmetic, detector, manifest, with_external_data, write_bundle
from tests.security.fuzz_bundles import READERS

SECONDS = float(os.environ.get("EDGECV_FUZZ_S", "100"))
SEED = int(os.environ.get("EDGECV_FUZZ_SEED", "1"))
CORPUS = Path(__file__).parent / "corpus" / "bundles"
_ROOT = Path(__file__).resolve().parents[2]
_YAML = "task: detect\nimgsz:\n- 640\n- 640\nnames:\n  0: person\n  1: 'traffic light'\nargs: {'batch': 1}\n"


def _seed_bundle(folder: Path) -> Bundle:
    bundle = write_bundle(folder / "seed.ecv", {"fp32": 1.0})
    vectors = {
        "onnx-fp32/main/in/image": np.zeros((1, 64, 64, 3), np.uint8),
        "onnx-fp32/main/out/prediction": np.zeros(96, np.float32),
    }
    np.savez_compressed(bundle.path / GOLDEN, **vectors)  # type: ignore[arg-type]
    extras = (describe_file(bundle.path, bundle.path / GOLDEN),)
    (bundle.path / MANIFEST).write_bytes(dump_manifest(manifest(bundle.variants, extras=extras)))
    return Bundle.open(bundle.path)


def _images() -> list[bytes]:
    noise = np.random.default_rng(0).integers(0, 255, (37, 53, 3), np.uint8)
    return [
        cv2.imencode(f".{suffix}", noise)[1].tobytes() for suffix in ("png", "jpg", "bmp", "webp", "tif", "ppm", "gif")
    ]


def _onnx(folder: Path) -> list[bytes]:
    made = [detector(folder / "b.onnx", METADATA), detector(folder / "c.onnx", METADATA, floats=True)]
    return [path.read_bytes() for path in (*made, arithmetic(folder / "a.onnx"), with_external_data(folder / "d.onnx"))]


def _openvino(folder: Path) -> list[bytes]:
    graph = openvino_arithmetic(folder)
    shutil.copy(graph.with_suffix(".bin"), folder.parent / "model.bin")
    return [graph.read_bytes()]


def _tflite(folder: Path) -> list[bytes]:
    """One file as it is, and one with the metadata that Ultralytics appends."""
    path = litert_arithmetic(folder)
    plain = path.read_bytes()
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.json", json.dumps({"names": {"0": "a"}, "imgsz": [64, 64], "task": "detect"}))
    return [plain, path.read_bytes()]


_SEEDS: Mapping[str, Callable[[Path], list[bytes]]] = {
    "manifest": lambda folder: [(folder.parent / "seed.ecv" / MANIFEST).read_bytes()],
    "zip": lambda folder: [pack(folder.parent / "seed.ecv", folder / "a.zip").read_bytes()],
    "golden": lambda folder: [(folder.parent / "seed.ecv" / GOLDEN).read_bytes()],
    "onnx": lambda folder: _onnx(folder)[:3],
    "onnx-files": _onnx,
    "openvino": _openvino,
    "tflite": _tflite,
    "image": lambda _: _images(),
    "metadata": lambda _: [_YAML.encode()],
}


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 200)
@pytest.mark.parametrize("kind", READERS)
def test_a_reader_survives_mutated_files(tmp_path: Path, kind: str) -> None:
    for name in ("seeds", "made"):
        (tmp_path / name).mkdir()
    _seed_bundle(tmp_path)
    for number, data in enumerate(_SEEDS[kind](tmp_path / "made")):
        (tmp_path / "seeds" / str(number)).write_bytes(data)
    done = _child(kind, SEED, str(SECONDS), tmp_path, SECONDS + 120)
    print(done.stdout)
    current = tmp_path / "current"
    name = f"{zlib.crc32(current.read_bytes()):08x}" if current.exists() else "none"
    assert done.returncode == 0, (
        f"{kind} with seed {SEED} ended with {done.returncode}; keep it: cp {current} {CORPUS}/{kind}-{name}\n"
        + done.stderr[-2000:]
    )


@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda path: path.name)
def test_what_a_fuzzer_found_is_refused(tmp_path: Path, path: Path) -> None:
    kind = max((kind for kind in READERS if path.name.startswith(f"{kind}-")), key=len)
    if kind == "golden":
        _seed_bundle(tmp_path)
    done = _child(kind, SEED, str(path), tmp_path, 60)
    assert done.returncode == 0, done.stderr[-2000:]


def _child(kind: str, seed: int, until: str, folder: Path, deadline_s: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.security.fuzz_bundles", kind, str(seed), until, str(folder)],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=deadline_s,
        check=False,
        cwd=_ROOT,
    )
