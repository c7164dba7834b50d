"""torchvision beside a torch that its compiled operators do not fit, and beside one that they do."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_ASK = """
from edgecv.converters.families.ultralytics_import import declare_torchvision_operators
declared = declare_torchvision_operators() is not None
import torchvision.models
print(declared, torchvision.__file__)
"""
# What the compiled part of torchvision does when it is loaded: it defines its operators, each once.
_POOLS = ("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d")
_OTHERS = (*_POOLS, *(f"_{name}_backward" for name in _POOLS), "qroi_align")
_OPERATORS = f"""
#include <torch/library.h>
TORCH_LIBRARY_FRAGMENT(torchvision, m) {{
  m.def("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor");
  m.def("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor");
  m.def("_cuda_version() -> int", [] {{ return static_cast<int64_t>(-1); }});
  {" ".join(f'm.def("{name}(Tensor input) -> Tensor");' for name in _OTHERS)}
}}
"""


def _installed() -> Path:
    spec = importlib.util.find_spec("torchvision")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def _torchvision(folder: Path, operators: bytes) -> Path:
    """A folder with the installed torchvision, whose compiled operators are others."""
    package = folder / "torchvision"
    package.mkdir(parents=True)
    for path in _installed().iterdir():
        if path.name != "_C.so":
            (package / path.name).symlink_to(path)
    (package / "_C.so").write_bytes(operators)
    return folder


def _asked(folder: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", _ASK],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, "PYTHONPATH": str(folder)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_operators_that_do_not_load_are_declared(tmp_path: Path) -> None:
    declared, origin = _asked(_torchvision(tmp_path / "path", b"no library"))
    assert declared == "True"
    assert Path(origin).is_relative_to(tmp_path)


@pytest.mark.slow  # it compiles C++; where torchvision fits its torch, every conversion shows the same
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_operators_that_load_are_not_declared_a_second_time(tmp_path: Path) -> None:
    import torch

    source, library = tmp_path / "operators.cpp", tmp_path / "operators.so"
    source.write_text(_OPERATORS)
    torch_folder = Path(torch.__file__).parent
    subprocess.run(
        [
            *("g++", "-std=c++20", "-shared", "-fPIC", "-O0", str(source), "-o", str(library)),
            *(f"-I{torch_folder / 'include'}", f"-L{torch_folder / 'lib'}", "-ltorch_cpu", "-lc10"),
        ],
        check=True,
        timeout=100,
    )
    declared, origin = _asked(_torchvision(tmp_path / "path", library.read_bytes()))
    assert declared == "False"
    assert Path(origin).is_relative_to(tmp_path)
