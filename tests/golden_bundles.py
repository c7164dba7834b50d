"""Bundles of the tiny detector with golden vectors, in ONNX and in OpenVINO."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgecv.bundles.bundle import Bundle, describe_file
from edgecv.bundles.golden import EVENLY, GOLDEN, SAMPLING, sample
from edgecv.bundles.manifest import MANIFEST, ModelFiles, Variant, dump_manifest
from edgecv.runtimes.adapter import open_session
from edgecv.specs import RuntimeOptions
from tests.models import IMAGE, PREDICTION, detector, manifest


def golden_bundle(folder: Path, *, right: bool = True) -> Bundle:
    """``onnx-fp32`` and ``openvino-fp32``; the golden vectors hold what ONNX Runtime gives, or something else."""
    openvino = pytest.importorskip("openvino")
    onnx, xml = folder / "onnx-fp32/model.onnx", folder / "openvino-fp32/model.xml"
    for path in (onnx, xml):
        path.parent.mkdir(parents=True)
    detector(onnx)
    openvino.save_model(openvino.Core().read_model(str(onnx)), str(xml))
    files = {"onnx": (onnx,), "openvino": (xml, xml.with_suffix(".bin"))}
    variants = [
        Variant(
            name=f"{name}-fp32",
            format=name,
            precision="fp32",
            size_wh=(64, 64),
            latency_ms=1.0,
            models={
                "main": ModelFiles(
                    files=tuple(describe_file(folder, path) for path in paths), inputs=(IMAGE,), outputs=(PREDICTION,)
                )
            },
        )
        for name, paths in files.items()
    ]
    _write_golden(folder, variants, right)
    made = msgspec.structs.replace(manifest(variants), extras=(describe_file(folder, folder / GOLDEN),))
    (folder / MANIFEST).write_bytes(dump_manifest(made))
    return Bundle.open(folder)


def _write_golden(folder: Path, variants: list[Variant], right: bool) -> None:
    image = np.random.default_rng(0).integers(0, 256, IMAGE.shape, np.uint8)
    onnx = folder / "onnx-fp32/model.onnx"
    found = open_session("onnxruntime", onnx, RuntimeOptions(threads=1)).run({"image": image})["prediction"]
    vectors = {SAMPLING: np.array(EVENLY)}
    for variant in variants:
        vectors[f"{variant.name}/main/in/image"] = image
        vectors[f"{variant.name}/main/out/prediction"] = sample(found if right else found[..., ::-1])
    np.savez(folder / GOLDEN, **vectors)
