"""The linter for TensorRT finds each broken rule, and nothing in what keeps them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest

from edgecv.errors import ConfigError, MissingDependency, QuantizationError
from edgecv.quantize.lint.lint import lint_file, lint_model, refuse_findings
from edgecv.quantize.lint.tensorrt import RULES
from tests.command_line import run_here
from tests.unit.quantize.onnx_graphs import Node, graph_of, pixels_of, weights

I8, U8 = np.int8(0), np.uint8(0)
ONES = np.ones(16, np.float32)
NUMBERS: dict[str, Any] = {
    **{"s": np.float32(0.1), "t": np.float32(0.2), "z": I8, "ss": ONES, "zz": np.zeros(16, np.int8)},
    **{"w": np.ones((16, 16, 1, 1), np.int8), "f": weights(16, 16, 1, 1), "b": np.ones(16, np.int32)},
    "zb": np.zeros(16, np.int32),
}


def pair(tensor: str, made: str, scale: str = "s", zero: str = "z", **attributes: Any) -> list[Node]:
    """``tensor`` rounded, as ``made``."""
    return [
        ("QuantizeLinear", f"{tensor} {scale} {zero}", f"q_{made}", attributes),
        ("DequantizeLinear", f"q_{made} {scale} {zero}", made, attributes),
    ]


WEIGHTS: Node = ("DequantizeLinear", "w ss zz", "wf", {"axis": 0})
GOOD = [*pair("x", "xr"), WEIGHTS, ("Conv", "xr wf", "out")]

BROKEN: dict[str, tuple[list[Node], dict[str, Any], str]] = {
    "operator": ([("AcmeThing", "x", "out")], {}, "out"),
    "operator, dynamic": ([("DynamicQuantizeLinear", "x", "q a b"), ("DequantizeLinear", "q a b", "out")], {}, "q"),
    "zero-point": ([*pair("x", "xr", zero="odd"), ("Conv", "xr f", "out")], {"odd": np.int8(3)}, "q_xr"),
    "int8": ([*pair("x", "xr", zero="u"), ("Conv", "xr f", "out")], {"u": U8}, "q_xr"),
    "int8, no zero point": (
        [("QuantizeLinear", "x s", "q"), ("DequantizeLinear", "q s", "xr"), ("Conv", "xr f", "out")],
        {},
        "q",
    ),
    "weight-axis": (
        [*pair("x", "xr"), ("DequantizeLinear", "w ss zz", "wf", {"axis": 1}), ("Conv", "xr wf", "out")],
        {},
        "out",
    ),
    "activation-scale": ([*pair("x", "xr", "ss", "zz", axis=1), ("Conv", "xr f", "out")], {}, "q_xr"),
    "bias": ([*GOOD[:3], ("DequantizeLinear", "b ss zb", "bf", {"axis": 0}), ("Conv", "xr wf bf", "out")], {}, "out"),
    "float-operator": ([*pair("x", "xr"), ("Relu", "xr", "out")], {}, "out"),
    "float-operator, sigmoid": ([*pair("x", "xr"), ("Sigmoid", "xr", "g"), ("Mul", "x g", "out")], {}, "g"),
    "float-operator, silu": ([("Sigmoid", "x", "g"), *pair("x", "xr"), ("Mul", "xr g", "out")], {}, "out"),
    "float-operator, softmax": ([("Softmax", "x", "p"), *pair("p", "pr"), ("Conv", "pr f", "out")], {}, "p"),
    "add": ([*pair("x", "a"), *pair("x", "c"), ("Add", "a c", "out")], {}, "out"),
    "concat": ([*pair("x", "a"), *pair("x", "c", "t"), ("Concat", "a c", "out", {"axis": 1})], {}, "out"),
    "concat, its output": ([*pair("x", "a"), ("Concat", "a a", "j", {"axis": 0}), *pair("j", "out", "t")], {}, "j"),
}


def findings(nodes: list[Node], **more: Any) -> set[tuple[str, str]]:
    constants = NUMBERS | more.pop("constants", {})
    return {(one.rule, one.node) for one in lint_model(graph_of(nodes, constants, ["out"], **more))}


def test_a_graph_that_keeps_the_rules_has_no_finding() -> None:
    assert findings(GOOD) == set()
    around: list[Node] = [
        *GOOD[:3],
        ("Conv", "xr wf", "c"),
        ("Add", "c xr", "sum"),
        ("Sigmoid", "sum", "g"),
        ("Mul", "sum g", "out"),
    ]
    assert findings(around) == set()
    assert findings([*pair("f", "wf", "ss", "zz", axis=0), *pair("x", "xr"), ("Conv", "xr wf", "out")]) == set()


@pytest.mark.parametrize("name", BROKEN)
def test_each_broken_rule_is_found_where_it_is(name: str) -> None:
    nodes, constants, place = BROKEN[name]
    assert (name.partition(",")[0], place) in findings(nodes, constants=constants)


def test_open_sizes_and_a_late_opset_are_found() -> None:
    assert findings(GOOD, shape=("n", 16, 8, 8)) == {("input-size", "x")}
    assert findings(GOOD, opset=18) == {("opset", "model")}


def test_every_rule_is_broken_in_a_test_and_says_why_and_what_to_do() -> None:
    assert {rule.name for rule in RULES} == {name.partition(",")[0] for name in BROKEN} | {
        "input-size",
        "opset",
        "pixels",
    }
    assert all(rule.why.endswith(".") and rule.fix.endswith(".") for rule in RULES)


def test_pixels_that_something_else_than_a_cast_reads_are_told_and_no_failure(tmp_path: Path) -> None:
    model = pixels_of(cast_first=False)
    (found,) = lint_model(model)
    assert (found.rule, found.level, found.node) == ("pixels", "warn", "moved")
    assert lint_model(pixels_of(cast_first=True)) == ()
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    done = run_here("info", "--lint", "tensorrt", path)
    assert (done.returncode, "1 finding." in done.stdout) == (0, True), done.stderr


@pytest.mark.parametrize("operator", ["QuantizeLinear", "DequantizeLinear", "Conv", "Sigmoid", "Mul", "Concat"])
def test_an_operator_without_what_it_must_have_is_wrong_usage(tmp_path: Path, operator: str) -> None:
    for inputs, outputs in (([], []), ([], ["m"]), (["x"], [])):
        model = graph_of(GOOD, NUMBERS, ["out"])
        model.graph.node.append(onnx.helper.make_node(operator, inputs, outputs))
        model.graph.node.append(onnx.helper.make_node("Softmax", ["m"], ["n"]))
        path = tmp_path / "model.onnx"
        onnx.save(model, path)
        try:
            lint_file(path)
        except ConfigError as error:
            assert "damaged" in error.message


@pytest.mark.parametrize("field", [{"raw_data": b"\0\0\0"}, {"data_type": 99}], ids=str)
def test_a_torn_constant_is_wrong_usage(tmp_path: Path, field: dict[str, Any]) -> None:
    model = graph_of(GOOD, NUMBERS, ["out"])
    constant = next(one for one in model.graph.initializer if one.name == "ss")
    for name, value in field.items():
        setattr(constant, name, value)
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    with pytest.raises(ConfigError, match="damaged"):
        lint_file(path)


def test_only_what_fails_is_refused(tmp_path: Path) -> None:
    good, late, bad = (tmp_path / f"{name}.onnx" for name in ("good", "late", "bad"))
    onnx.save(graph_of(GOOD, NUMBERS, ["out"]), good)
    onnx.save(graph_of(GOOD, NUMBERS, ["out"], opset=18), late)
    onnx.save(graph_of(BROKEN["add"][0], NUMBERS, ["out"]), bad)
    for path in (good, late):
        refuse_findings(path, "mine")
    with pytest.raises(QuantizationError, match="mine made a file that TensorRT would not fuse: out: Both") as caught:
        refuse_findings(bad, "mine")
    assert "goes around" in caught.value.hint


def test_the_command_ends_with_1_on_a_finding_and_with_0_without(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.onnx", tmp_path / "bad.onnx"
    onnx.save(graph_of(GOOD, NUMBERS, ["out"]), good)
    onnx.save(graph_of(BROKEN["add"][0], NUMBERS, ["out"]), bad)
    done = run_here("info", "--lint", "tensorrt", good)
    assert (done.returncode, "no findings" in done.stdout) == (0, True), done.stderr
    done = run_here("info", "--lint", "tensorrt", bad)
    assert done.returncode == 1
    assert all(
        words in done.stdout for words in ("bad.onnx, out: Both", "why  TensorRT fuses", "fix  Round", "1 finding.")
    )
    done = run_here("info", "--lint", "tensorrt", bad, "--json")
    assert done.returncode == 1
    told = msgspec.json.decode(done.stdout)
    assert (told["findings"], told["files"]["bad.onnx"][0]["rule"]) == (1, "add")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "holds no operators"),
        (b"no protobuf", "no ONNX model"),
        (None, "no ONNX model"),
        (b"torn", "no ONNX model"),
    ],
    ids=["empty", "text", "missing", "torn"],
)
def test_what_is_no_onnx_model_is_wrong_usage(tmp_path: Path, content: bytes | None, named: str) -> None:
    path = tmp_path / "model.onnx"
    if content == b"torn":
        content = graph_of(GOOD, NUMBERS, ["out"]).SerializeToString()[:-40]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=named) as caught:
        lint_file(path)
    assert "--to onnx" in caught.value.hint
    if content is not None:
        assert run_here("info", "--lint", "tensorrt", path).returncode == 2


def test_without_onnx_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(graph_of(GOOD, NUMBERS, ["out"]), path)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingDependency) as caught:
        lint_file(path)
    assert "edgecv[convert]" in caught.value.hint


def test_a_circle_ends(tmp_path: Path) -> None:
    model = graph_of([("Relu", "x", "out")], NUMBERS, ["out"])
    for operator, given, made in (
        ("QuantizeLinear", "dq", "q"),
        ("DequantizeLinear", "q", "dq"),
        ("Sigmoid", "dq", "g"),
    ):
        rest = ["s", "z"] if operator != "Sigmoid" else []
        model.graph.node.append(onnx.helper.make_node(operator, [given, *rest], [made], name=made))
    model.graph.node.append(onnx.helper.make_node("Mul", ["dq", "g"], ["m"], name="m"))
    assert ("float-operator", "m") in {(one.rule, one.node) for one in lint_model(model)}


def test_a_target_without_rules_is_wrong_usage(tmp_path: Path) -> None:
    done = run_here("info", "--lint", "tensort", tmp_path)
    assert done.returncode == 2
    assert "Did you mean 'tensorrt'" in " ".join(done.stderr.split())
