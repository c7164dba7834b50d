"""What a bare model file says about itself: the metadata that Ultralytics writes into, or beside, its exports.

ONNX carries it as properties, TFLite as a zip at its end (``metadata.json``, in older exports a ``.txt`` with a Python literal),
OpenVINO as ``metadata.yaml`` beside the ``.xml``; without that file the labels are still in OpenVINO's own runtime info.
"""

from __future__ import annotations

import ast
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgecv._internal.bounded import read_plain_text
from edgecv._internal.foreign import ZIP_DAMAGE
from edgecv._internal.yaml_files import class_names, parse_yaml
from edgecv.bundles.manifest import MAX_INPUT_PIXELS, MAX_SIDE_PX
from edgecv.errors import SpecMismatch
from edgecv.protocols import HasMetadata, Session
from edgecv.specs import DecodeSpec, ModelSpec, PreprocessSpec

_MAX_BYTES = 1 << 20  # metadata of a thousand classes has 30 kB; more is something else
_SIDECAR = "metadata.yaml"
_UNREADABLE = (*ZIP_DAMAGE, AttributeError, KeyError, MemoryError, SyntaxError, TypeError)


def spec_of(path: Path, session: Session) -> ModelSpec:
    """How to use a bare model file, from its metadata.

    Raises:
        SpecMismatch: it carries none, or is no detector.
    """
    try:
        said = _metadata(path, session)
        height, width = (int(size) for size in said["imgsz"])
        if not (min(height, width) >= 1 and max(height, width) <= MAX_SIDE_PX and height * width <= MAX_INPUT_PIXELS):
            raise ValueError(f"an input of {width} x {height}")
        labels = _labels(said["names"])
    except _UNREADABLE as error:
        raise SpecMismatch(
            f"{path.name} says nothing about its labels and input{_why(path, error)}.", _next_step(path)
        ) from error
    if said.get("task") != "detect":
        raise SpecMismatch(
            f"{path.name} is a '{said.get('task')}' model; bare files are read for 'detect' only.",
            "Convert the checkpoint it was exported from: edgecv convert MODEL.pt",
        )
    # Its TFLite files give boxes in parts of the image: next to scores of 0 to 1, pixels would take all of int8's steps.
    options = {"box_scale": [width, height]} if path.suffix == ".tflite" else {}
    return ModelSpec(
        preprocess=PreprocessSpec(size_wh=(width, height)),
        decode=DecodeSpec(task="detect", decoder="yolov8", labels=labels, options=options),
    )


def _sidecar(path: Path) -> Path:
    return path.with_name(_SIDECAR)


def _why(path: Path, error: Exception) -> str:
    """What is wrong with the file beside a model, where there is one."""
    if path.suffix != ".xml" or not _sidecar(path).is_file():
        return ""
    reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
    return f": {_sidecar(path)} cannot be used: {reason}"


def _next_step(path: Path) -> str:
    if path.suffix == ".onnx":
        return f"Give spec=edgecv.ModelSpec(...), or convert it: edgecv convert {path.name}"
    give = "Give"
    if path.suffix == ".xml":
        there = _sidecar(path).is_file()
        give = f"Correct {_SIDECAR}, give" if there else f"Put the {_SIDECAR} of the export beside it, give"
    return f"{give} spec=edgecv.ModelSpec(...), or convert the checkpoint it was made from: edgecv convert MODEL.pt"


def _labels(names: object) -> tuple[str, ...]:
    """Class names in order, from a list or from a mapping of numbers (JSON has them as text)."""
    by_index = class_names(names)
    return tuple(by_index[index] for index in range(len(by_index)))


def _metadata(path: Path, session: Session) -> Mapping[str, Any]:
    if path.suffix == ".tflite":
        return _appended(path)
    written: Mapping[str, str] = session.metadata if isinstance(session, HasMetadata) else {}
    if path.suffix == ".xml":
        if not _sidecar(path).is_file():
            return _runtime_info(written, session)
        return parse_yaml(read_plain_text(_sidecar(path), _MAX_BYTES), "openvino")
    literal = {name: _literal(written[name]) for name in ("names", "imgsz")}
    return {**literal, "task": written.get("task")}


def _literal(text: str) -> Any:
    if len(text) > _MAX_BYTES:
        raise ValueError("longer than any metadata")
    return ast.literal_eval(text)


def _appended(path: Path) -> Mapping[str, Any]:
    """The zip at the end of a TFLite file."""
    with zipfile.ZipFile(path) as archive:
        files = {info.filename: info for info in archive.infolist() if _is_small(info)}
        if "metadata.json" in files:
            found = json.loads(archive.read("metadata.json"))
        else:
            name = next((name for name in files if name.endswith(".txt")), "")
            found = ast.literal_eval(archive.read(name).decode("utf-8"))
    if not isinstance(found, dict):
        raise TypeError(f"metadata of a {type(found).__name__}")
    return found


def _is_small(info: zipfile.ZipInfo) -> bool:
    """Whether reading it takes little memory; LZMA takes as much as the file asks for."""
    return info.file_size <= _MAX_BYTES and info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def _runtime_info(written: Mapping[str, str], session: Session) -> Mapping[str, Any]:
    """What OpenVINO's Model API needs, which Ultralytics writes into the ``.xml`` itself: labels without blanks."""
    if written.get("model_type", "").upper() != "YOLO":
        raise ValueError("no YOLO detector")
    if len(written["labels"]) > _MAX_BYTES:
        raise ValueError("longer than any metadata")
    names = [name.replace("_", " ") for name in written["labels"].split()]
    return {"names": names, "imgsz": session.inputs[0].shape[2:], "task": "detect"}
