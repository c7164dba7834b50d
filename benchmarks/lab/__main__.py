"""``python -m edgecv.benchmarks.lab NAME ...``: the programs that measure this project itself; without a name, it lists them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from types import MappingProxyType

from edgecv.benchmarks.command import run_program
from edgecv.errors import ConfigError

# A program is a module with `main() -> None`, which reads its arguments from `sys.argv`.
PROGRAMS: Mapping[str, str] = MappingProxyType(
    {
        "around_session": "edgecv.benchmarks.lab.around_session",
        "clip_cost": "edgecv.benchmarks.lab.clip_cost",
        "cross_split": "edgecv.benchmarks.lab.cross_split",
        "figures": "edgecv.benchmarks.lab.matrix.figures",
        "judge_recipes": "edgecv.benchmarks.lab.recipes.judge",
        "long_run": "edgecv.benchmarks.lab.long_run",
        "many_cameras": "edgecv.benchmarks.lab.many_cameras",
        "matrix": "edgecv.benchmarks.lab.matrix.matrix",
        "peer_limits": "edgecv.benchmarks.lab.peers.limits",
        "peer_onnx": "edgecv.benchmarks.lab.peers.ultralytics_onnx",
        "peer_predict": "edgecv.benchmarks.lab.peers.ultralytics_predict",
        "peers": "edgecv.benchmarks.lab.peers.compare",
        "pipeline_overhead": "edgecv.benchmarks.lab.pipeline_overhead",
        "run_vs_loop": "edgecv.benchmarks.lab.run_vs_loop",
        "session_ratio": "edgecv.benchmarks.lab.session_ratio",
        "small_objects": "edgecv.benchmarks.lab.small_objects",
        "store_speed": "edgecv.benchmarks.lab.store_speed",
        "train_demo": "edgecv.benchmarks.lab.demo_training.train",
        "tune_check": "edgecv.benchmarks.lab.tune_check",
    }
)


def main() -> None:
    """Run the program that the first argument names.

    Raises:
        ConfigError: there is no program of that name.
    """
    name = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if name not in PROGRAMS:
        raise ConfigError(
            f"There is no program named '{name}'." if name else "Name a program.",
            "Known: " + ", ".join(PROGRAMS) + ".",
        )
    importlib.import_module(PROGRAMS[name]).main()


if __name__ == "__main__":
    run_program(main)
