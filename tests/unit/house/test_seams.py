"""What EdgeCV asks of a plug-in stands in a protocol: nothing is looked up by a name in a text (docs/adr/0014)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT
from tests.unit.house.test_imports import SOURCES

# Files, or folders, in which getattr or hasattr looks at something else than a plug-in, and at what.
ALLOWED = {
    "benchmarks/run.py": "our errors, by the name of their class",
    "cloud_sync/envelope.py": "a value that becomes JSON: NumPy's have tolist",
    "cloud_sync/mqtt/link.py": "answers of paho",
    "cloud_sync/mqtt/reasons.py": "what ssl says",
    "converters/checkpoints": "torch, by names that stand in a checkpoint",
    "converters/exporters": "torch's types, by their names",
    "converters/families": "networks of torch, torchvision and Ultralytics",
    "converters/source.py": "our own options, by their names",
    "edgecv/_internal/extras.py": "our own modules, loaded when they are first used",
    "edgecv/_internal/timing.py": "what this system has",
    "edgecv/_internal/yaml_files.py": "what PyYAML says",
    "edgecv/cli": "our own modules, options and results, by their names",
    "edgecv/detections.py": "our own fields by their names, and whatever was given for an image or an array",
    "edgecv/media": "what OpenCV, PyAV, supervision and the system give",
    "edgecv/registry.py": "what stands behind `module:attribute`: the one place where a plug-in is loaded",
    "edgecv/results.py": "our own fields, by their names",
    "edgecv/runtimes/accelerators": "what the installed release of onnxruntime has",
    "edgecv/runtimes/ov.py": "a thread's own request",
    "edgecv/vision/letterbox.py": "whatever was given for an image, to say what is wrong with it",
    "pipelines/loop/signals.py": "handlers of signals, anybody's",
    "pipelines/recording/records.py": "our own columns, by their names",
    "pipelines/sinks/webhook": "errors of the system",
    "pipelines/sources/__init__.py": "what this system has",
    "pipelines/sources/network": "what PyAV gives",
    "pipelines/steps/track": "our own columns, by their names",
    "quantize/report/template.py": "texts that say of themselves that they are HTML",
}
SHIPPED = [path for path in SOURCES if path.parts[:2] != ("benchmarks", "lab")]


def _look_ups(path: Path) -> Iterator[int]:
    for node in ast.walk(ast.parse((CHECKOUT / path).read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr"):
            yield node.lineno


def _reason(path: Path) -> str | None:
    return next((ALLOWED[str(at)] for at in (path, *path.parents) if str(at) in ALLOWED), None)


@pytest.mark.parametrize("path", [path for path in SHIPPED if _reason(path) is None], ids=str)
def test_nothing_is_looked_up_on_a_plugin(path: Path) -> None:
    assert not [f"{path}:{line}" for line in _look_ups(path)], (
        "declare the attribute in a protocol (edgecv/protocols/); for what is no plug-in add the file to ALLOWED, with the reason"
    )


@pytest.mark.parametrize("allowed", ALLOWED)
def test_what_is_allowed_is_needed(allowed: str) -> None:
    files = [path for path in SHIPPED if str(path) == allowed or allowed in map(str, path.parents)]
    assert any(line for path in files for line in _look_ups(path)), "take it off the list"
