"""``make check-tensorrt``: what EdgeCV's recipe for TensorRT gives on an NVIDIA card, for whoever has one.

It converts a model, installs ONNX Runtime for NVIDIA cards and TensorRT into an environment of their own, and measures INT8 against
fp16 there. Without a card it says so, says what it would install, and changes nothing. Nobody has run it on a card yet.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".cache" / "tensorrt"
# The versions that go together (devices.md, section 2.1): this build was linked with TensorRT 10 and CUDA 13.
PACKAGES = ("onnxruntime-gpu[cuda,cudnn]==1.31.1", "tensorrt-cu13>=10.13,<11")
OLDEST_PYTHON = (3, 11)  # of that onnxruntime-gpu
LEAST_SHARE = 0.9  # of the nodes that TensorRT must take
VARIANTS = ("onnx-int8-tensorrt", "onnx-fp16")
NO_CARD = 3  # exit code: nothing was checked
_NVIDIA = "0x10de"
# Runs in the environment with TensorRT: golden vectors of one variant, by how much they differ.
_VERIFY = """
import sys
from pathlib import Path
from edgecv.bundles.bundle import Bundle
from edgecv.bundles.golden import verify_variant
from edgecv.specs import RuntimeOptions
bundle = Bundle.open(Path(sys.argv[1]))
variant = next(one for one in bundle.variants if one.name == sys.argv[2])
found = verify_variant(bundle, variant, "onnxruntime", RuntimeOptions(runtime="onnxruntime", device="tensorrt"))
print(found.status, found.cosine, found.reason)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One variant on TensorRT."""

    variant: str
    inference_ms: float
    share: float  # of its nodes on TensorRT
    golden: str  # what its golden vectors say

    @property
    def trouble(self) -> str:
        """What is wrong with it; empty where nothing is."""
        if self.share < LEAST_SHARE:
            return f"TensorRT took {self.share:.0%} of the nodes of {self.variant}, less than {LEAST_SHARE:.0%}."
        if not self.golden.startswith("ok"):
            return f"{self.variant} computes something else on TensorRT: {self.golden}."
        return ""


def why_not(proc: Path = Path("/proc"), sysfs: Path = Path("/sys")) -> str:
    """Why nothing can be checked on this machine; empty where it can."""
    if not (proc / "driver/nvidia/version").exists():
        cards = [path for path in sysfs.glob("bus/pci/devices/*/vendor") if path.read_text().strip() == _NVIDIA]
        return "There is an NVIDIA card, but no driver for it." if cards else "There is no NVIDIA card in this machine."
    if platform.machine() != "x86_64":
        return (
            f"This is {platform.machine()}: its ONNX Runtime comes from NVIDIA, not from the package index. Install that one as "
            "docs/guide-jetson.md says, then: edgecv tune BUNDLE --device tensorrt."
        )
    if sys.version_info < OLDEST_PYTHON:
        return (
            f"Python {platform.python_version()} is too old: {PACKAGES[0]} needs {'.'.join(map(str, OLDEST_PYTHON))}."
        )
    return ""


def install_lines() -> list[list[str]]:
    """The commands that make the environment."""
    python = str(FOLDER / "venv/bin/python")
    return [
        [sys.executable, "-m", "venv", str(FOLDER / "venv")],
        [python, "-m", "pip", "install", "-q", f"{ROOT}[vision]", *PACKAGES],
    ]


def run(command: list[str], **more: str) -> str:
    """Run a command, say which, and return what it printed."""
    print("$", shlex.join(command[:12]), flush=True)
    environment = {**os.environ, **more}
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT).stdout


def converted(model: Path, images: Path, imgsz: str) -> Path:
    """The bundle with a variant for TensorRT, made by the environment of ``make setup``."""
    out = FOLDER / "model.ecv"
    edgecv = str(ROOT / ".venv/bin/edgecv")
    asked = ["--int8", "--target", "tensorrt", "--to", "onnx", "--calib", str(images), "--imgsz", imgsz]
    run([edgecv, "convert", str(model), *asked, "--out", str(out), "--force"])
    run([edgecv, "info", "--lint", "tensorrt", str(out)])
    return out


def measured(bundle: Path) -> list[Row]:
    """INT8 and fp16 on TensorRT; its engines are built first, which takes minutes."""
    python = str(FOLDER / "venv/bin/python")
    (libraries,) = (FOLDER / "venv/lib").glob("python*/site-packages/tensorrt_libs")
    found = {
        "LD_LIBRARY_PATH": f"{libraries}:{os.environ.get('LD_LIBRARY_PATH', '')}",
        "EDGECV_CACHE": str(FOLDER / "cache"),
    }
    run([python, "-m", "edgecv", "tune", str(bundle), "--device", "tensorrt", "--again"], **found)
    rows = []
    for variant in VARIANTS:
        asked = [
            "--device",
            "tensorrt",
            "--runtime",
            "onnxruntime",
            "--variant",
            variant,
            "--scenario",
            "single_stream",
        ]
        told = run([python, "-m", "edgecv", "bench", str(bundle), *asked, "--json"], **found)
        golden = run([python, "-c", _VERIFY, str(bundle), variant], **found).strip()
        rows.append(row_of(variant, json.loads(told)[0], golden))
    return rows


def row_of(variant: str, report: dict, golden: str) -> Row:
    """A row from a report of ``edgecv bench --json``."""
    share = re.search(r"Tensorrt\w* (\d+)\s?%", report.get("computed_on", ""))
    return Row(
        variant=variant,
        inference_ms=report["stages"]["inference"]["p50_ms"],
        share=int(share[1]) / 100 if share else 0.0,
        golden=golden,
    )


def show(rows: list[Row]) -> int:
    """Print the table; the exit code."""
    print(f"\n{'variant':22}{'inference':>12}{'on TensorRT':>14}  golden vectors")
    for row in rows:
        print(f"{row.variant:22}{row.inference_ms:>9.2f} ms{row.share:>14.0%}  {row.golden}")
    troubles = [row.trouble for row in rows if row.trouble]
    print("\n".join(troubles) or "TensorRT takes both, and gives what the CPU gave.")
    return 1 if troubles else 0


def main() -> int:
    """Check, or say why that cannot be; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", type=Path, default=ROOT / "../shared/models/yolov8n-coco.pt", help="YOLOv8n checkpoint"
    )
    parser.add_argument(
        "--images", type=Path, default=ROOT / "../shared/data/coco128-train/images", help="to calibrate with"
    )
    parser.add_argument("--imgsz", default="640")
    given = parser.parse_args()
    lines = [shlex.join(line) for line in install_lines()]
    reason = why_not()
    if reason:
        print(f"{reason} Nothing was checked, installed or changed.\nWith a card this would install, gigabytes in all:")
        print(*lines, sep="\n")
        return NO_CARD
    missing = next((path for path in (given.model, given.images) if not path.exists()), None)
    if missing is not None:
        print(f"{missing} is not there. Give MODEL=FILE.pt and IMAGES=FOLDER: make check-tensorrt MODEL=... IMAGES=...")
        return 2
    print("This installs gigabytes from the package index and from pypi.nvidia.com, into .cache/tensorrt alone:")
    FOLDER.mkdir(parents=True, exist_ok=True)
    for line in install_lines():
        run(line)
    return show(measured(converted(given.model, given.images, given.imgsz)))


if __name__ == "__main__":
    sys.exit(main())
