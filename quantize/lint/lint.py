"""Whether an ONNX model can be what an accelerator makes fast: pure checks over its graph, one rule after the other.

``edgecv info --lint tensorrt`` runs them alone; a variant for that accelerator is not written while one of them fails.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from edgecv._internal.extras import require
from edgecv._internal.printable import nearest
from edgecv.errors import ConfigError, QuantizationError, SessionError
from edgecv.quantize.lint.rule import Finding, Rule
from edgecv.quantize.lint.tensorrt import RULES
from edgecv.quantize.ort.graph import Graph, load
from edgecv.runtimes.onnx_files import check_external

TARGETS: Mapping[str, Sequence[Rule]] = MappingProxyType({"tensorrt": RULES})


def lint_model(model: Any, target: str = "tensorrt") -> tuple[Finding, ...]:
    """What in a model goes against the rules of a target, rule by rule."""
    graph = Graph(model)
    return tuple(
        Finding(rule=rule.name, level=rule.level, node=node, what=what, why=rule.why, fix=rule.fix)
        for rule in TARGETS[target]
        for node, what in rule.check(graph)
    )


def lint_file(path: Path, target: str = "tensorrt") -> tuple[Finding, ...]:
    """The same of an ``.onnx`` file.

    Raises:
        ConfigError: there are no rules for the target, or the file is missing, damaged or no ONNX model.
        MissingDependency: onnx is not installed.
    """
    check_target(target)
    model = _read(path)
    try:
        return lint_model(model, target)
    except (LookupError, ValueError, TypeError) as error:  # an operator without what it must have, or a torn constant
        raise ConfigError(f"{path} is no ONNX model that can be read: it is damaged ({error}).", _NEXT) from error


def check_target(target: str) -> None:
    """Raise ``ConfigError`` unless there are rules for the target."""
    if target not in TARGETS:
        raise ConfigError(
            f"There are no rules for '{target}'.", f"{nearest(target, TARGETS)}Known: {', '.join(TARGETS)}."
        )


def refuse_findings(path: Path, recipe: str) -> None:
    """Check a file that a recipe for TensorRT has made.

    Raises:
        QuantizationError: a rule fails. What only warns is left to ``edgecv info --lint``.
    """
    failed = [finding for finding in lint_file(path) if finding.level == "fail"]
    if failed:
        more = f" ({len(failed)} findings in all)" if len(failed) > 1 else ""
        raise QuantizationError(
            f"{recipe} made a file that TensorRT would not fuse: {failed[0].node}: {failed[0].what}{more}",
            failed[0].fix,
        )


def _read(path: Path) -> Any:
    onnx = require("onnx", "convert")
    decode_error = require("google.protobuf.message", "convert").DecodeError
    try:
        check_external(path)
        model = load(path)
    except (decode_error, onnx.checker.ValidationError, SessionError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else "it is empty"
        raise ConfigError(f"{path} is no ONNX model that can be read: {reason}", _NEXT) from error
    if not model.graph.node:
        raise ConfigError(f"{path} is no ONNX model: it holds no operators.", _NEXT)
    return model


_NEXT = "Give a whole .onnx file, or a bundle with an ONNX variant: edgecv convert MODEL --to onnx."
