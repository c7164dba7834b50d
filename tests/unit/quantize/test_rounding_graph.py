"""An ONNX graph is rounded as the torch module that it was exported from, by what its layers see in onnxruntime."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgecv.converters.source import Part, exporter, image_input
from edgecv.quantize.quantizer import quantizer_type
from edgecv.quantize.recipes import RECIPES
from edgecv.quantize.rounding.graph import round_graph
from edgecv.quantize.rounding.grid import NNCF_WEIGHTS, SYMMETRIC, Grid
from edgecv.quantize.rounding.layers import RoundedNetwork
from edgecv.quantize.rounding.module import round_module
from edgecv.specs import TensorSpec
from tests.unit.quantize.onnx_graphs import weights
from tests.unit.quantize.stored_weights import in_onnx, in_openvino


def pictures(count: int, side: int = 24) -> list[np.ndarray]:
    rng = np.random.default_rng(2)
    return [np.cumsum(rng.integers(0, 9, (1, side, side, 3)), axis=2).astype(np.uint8) for _ in range(count)]


def pixels_to(nodes: list[Any], constants: dict[str, Any], outputs: list[str], *, side: int = 24) -> Any:
    """A model from ``image`` through ``nodes`` that begin at ``x``, ``(1, 3, side, side)``, pixels between 0 and 1."""
    entry = [
        helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["floats", "most"], ["x"]),
    ]
    graph = helper.make_graph(
        [*entry, *nodes],
        "small",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, (1, side, side, 3))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in {"most": np.float32(255), **constants}.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model = onnx.shape_inference.infer_shapes(model)
    onnx.checker.check_model(model)
    return model


def rounded(model: Any, count: int = 6, grid: Grid = SYMMETRIC) -> RoundedNetwork:
    before = model.SerializeToString()
    found = round_graph(model, pictures(count), (grid,))[grid.name]
    assert model.SerializeToString() == before  # it is a copy
    onnx.checker.check_model(found.network)
    return found


def answer(model: Any, image: np.ndarray, *names: str) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(list(names) or None, {"image": image})


def constants_of(model: Any) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def integers(rows: np.ndarray, grid: Grid = SYMMETRIC) -> np.ndarray:
    """Of weights ``(rows, ...)``, which must lie on the grid."""
    flat = rows.reshape(len(rows), -1)
    steps = flat / grid.scales(flat.astype(np.float64))
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
    return np.rint(steps).astype(int).reshape(rows.shape)


class Every(torch.nn.Module):
    """Every kind of layer of a module that becomes another node."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.depthwise = torch.nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.grouped = torch.nn.Conv2d(8, 8, (3, 2), dilation=2, padding=(2, 1), groups=2)
        self.products = torch.nn.Linear(8, 6)
        self.last = torch.nn.Linear(6, 5)
        self.requires_grad_(False)

    def forward(self, image: Any) -> Any:
        found = torch.relu(self.first(image.permute(0, 3, 1, 2).float() / 255))
        found = self.grouped(torch.relu(self.depthwise(found)))
        found = torch.relu(self.products(found.flatten(2).transpose(1, 2)))
        return self.last(found.mean(1))


@pytest.fixture(scope="module")
def exported() -> Any:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Every().eval(), (torch.zeros(1, 24, 24, 3, dtype=torch.uint8),), file, input_names=["image"], dynamo=False
        )
    return onnx.load_from_string(file.getvalue())


@pytest.mark.parametrize(
    ("model_format", "recipe", "kept_float"),
    [
        pytest.param("onnx", "ort-s8s8-arm64", 1, id="onnxruntime, whose stem stays float"),
        pytest.param("openvino", "ov-mixed", 1, id="nncf, whose first layer has seven bits"),
    ],
)
def test_the_quantizers_find_the_integers_of_the_graph(
    exported: Any, model_format: str, recipe: str, kept_float: int, tmp_path: Path
) -> None:
    graph = rounded(exported).network
    part = Part(
        inputs=(image_input((24, 24)),),
        outputs=(TensorSpec(name=graph.graph.output[0].name, role="logits", shape=(1, 5), dtype="float32"),),
        reference=dict,
        graph=graph,
    )
    for name in ("float", "work", "int8"):
        (tmp_path / name).mkdir()
    made = exporter(model_format).export(part, tmp_path / "float")
    quantizer = quantizer_type(model_format)(made.files, made.outputs, tmp_path / "work")
    quantizer.calibrate(pictures(4))
    (path, *_), _ = quantizer.quantize(
        msgspec.structs.replace(RECIPES[recipe], bias_correction="none"), tmp_path / "int8"
    )
    found = {"onnx": in_onnx, "openvino": in_openvino}[model_format](path)
    held = constants_of(graph)
    nodes = [node for node in graph.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    wanted = [held[node.input[1]].T if node.op_type == "MatMul" else held[node.input[1]] for node in nodes]
    lost = [number for number, one in enumerate(wanted) if not any(np.array_equal(integers(one), w) for w in found)]
    assert lost == list(range(kept_float))


@pytest.mark.parametrize("grid", [SYMMETRIC, NNCF_WEIGHTS], ids=lambda grid: grid.name)
def test_the_module_and_its_export_get_the_same_integers(exported: Any, grid: Grid) -> None:
    module = round_module(Every(), pictures(6), (grid,))[grid.name]
    graph = rounded(exported, grid=grid)
    assert len(graph.layers) == len(module.layers) == 5
    wanted = [(layer.weight.numpy(), layer.bias.numpy()) for layer in module.network.children()]
    nodes = [node for node in graph.network.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    held = constants_of(graph.network)
    same = total = 0
    for node, (weight, _), of_module, of_graph in zip(nodes, wanted, module.layers, graph.layers, strict=True):
        found = held[node.input[1]]
        found = found.T if node.op_type == "MatMul" else found
        integers_found, integers_wanted = integers(found, grid), integers(weight, grid)
        same, total = same + (integers_found == integers_wanted).sum(), total + integers_wanted.size
        assert of_graph.error == pytest.approx(of_module.error, rel=0.05)
    assert same >= 0.99 * total  # sums of float32 in another order tip a rounding here and there
    image = pictures(7)[6]
    np.testing.assert_allclose(
        answer(graph.network, image)[0], module.network(torch.from_numpy(image)).numpy(), rtol=1e-2, atol=1e-3
    )


CONVOLUTIONS = {
    "plain": ((8, 3, 3, 3), {}),
    "grouped, dilated": ((6, 1, 3, 3), {"group": 3, "dilations": [2, 1], "pads": [1, 0, 2, 1]}),
    "asymmetric pads": ((8, 3, 3, 2), {"strides": [2, 3], "pads": [0, 1, 2, 0]}),
    "same upper": ((8, 3, 4, 4), {"strides": [2, 3], "auto_pad": "SAME_UPPER"}),
    "same lower": ((8, 3, 4, 4), {"strides": [3, 2], "auto_pad": "SAME_LOWER"}),
    "valid": ((8, 3, 3, 3), {"auto_pad": "VALID"}),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_the_rows_of_a_convolution_are_what_its_weights_meet(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bias that convolutions without one are given takes back the mean change on the images that were seen."""
    monkeypatch.setattr("edgecv.quantize.rounding.patches.ROWS_PER_IMAGE", 10**6)
    shape, settings = CONVOLUTIONS[case]
    model = pixels_to(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="c", **settings)], {"w": weights(*shape)}, ["y"]
    )
    found = rounded(model, 4)
    assert (np.abs(integers(constants_of(found.network)["w"])).max(axis=(1, 2, 3)) == 127).all()
    change = np.mean([answer(found.network, image)[0] - answer(model, image)[0] for image in pictures(4)], axis=0)
    np.testing.assert_allclose(change.mean((0, 2, 3)), 0, atol=1e-5)
    assert np.abs(change).max() > 1e-5
    (layer,) = found.layers
    assert layer.error is not None and layer.nearest_error is not None and layer.error < layer.nearest_error


def test_a_convolution_over_one_dimension_is_rounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecv.quantize.rounding.patches.ROWS_PER_IMAGE", 10**6)
    nodes = [
        helper.make_node("Reshape", ["x", "flat"], ["line"]),
        helper.make_node("Conv", ["line", "w"], ["y"], strides=[2], pads=[1, 2], dilations=[2]),
    ]
    model = pixels_to(nodes, {"flat": np.array([1, 3, -1]), "w": weights(4, 3, 3)}, ["y"])
    found = rounded(model, 4)
    integers(constants_of(found.network)["w"])
    change = np.mean([answer(found.network, image)[0] - answer(model, image)[0] for image in pictures(4)], axis=0)
    np.testing.assert_allclose(change.mean((0, 2)), 0, atol=1e-5)


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("bias", ["none", "row", "one"])
def test_a_gemm_is_rounded_with_its_bias(transposed: int, bias: str) -> None:
    stored = weights(5, 3) if transposed else weights(3, 5)
    constants = {"w": stored, "row": weights(5), "one": np.float32(0.3)}
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node(
            "Gemm", ["mean", "w", *([bias] if bias != "none" else [])], ["y"], transB=transposed, alpha=2.0, beta=0.5
        ),
    ]
    model = pixels_to(nodes, {k: v for k, v in constants.items() if k in ("w", bias)}, ["y"])
    found = rounded(model)
    integers(constants_of(found.network)["w"] if transposed else constants_of(found.network)["w"].T)
    change = np.mean([answer(found.network, image)[0] - answer(model, image)[0] for image in pictures(6)], axis=0)
    np.testing.assert_allclose(change, 0, atol=1e-5)


def product(*, after: str) -> Any:
    nodes = [
        helper.make_node("Transpose", ["x"], ["rows"], perm=[0, 2, 3, 1]),
        helper.make_node("MatMul", ["rows", "w"], ["y" if after == "nothing" else "p"]),
        *([helper.make_node("Add", ["b", "p"], ["y"])] if after == "constant" else []),
        *([helper.make_node("Add", ["p", "p"], ["y"])] if after == "itself" else []),
    ]
    return pixels_to(nodes, {"w": weights(3, 5), **({"b": weights(1, 5)} if after == "constant" else {})}, ["y"])


def test_what_is_added_after_a_product_takes_back_the_mean_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecv.quantize.rounding.patches.ROWS_PER_IMAGE", 10**6)
    model = product(after="constant")
    found = rounded(model)
    integers(constants_of(found.network)["w"].T)
    change = np.mean([answer(found.network, image)[0] - answer(model, image)[0] for image in pictures(6)], axis=0)
    np.testing.assert_allclose(change.mean((0, 1, 2)), 0, atol=1e-5)


@pytest.mark.parametrize("after", ["nothing", "itself"])
def test_a_product_without_a_bias_is_rounded_for_inputs_with_their_mean(after: str) -> None:
    model = product(after=after)
    found = rounded(model)
    assert [node.op_type for node in found.network.graph.node] == [node.op_type for node in model.graph.node]
    stored, before = constants_of(found.network)["w"], constants_of(model)["w"]
    integers(stored.T)
    nearest = np.rint(before / SYMMETRIC.scales(before.T.astype(np.float64)).T) * SYMMETRIC.scales(before.T).T
    rows = np.concatenate([image.reshape(-1, 3) / 255 for image in pictures(6)])
    assert ((rows @ (stored - before)) ** 2).mean() <= ((rows @ (nearest - before)) ** 2).mean()


def test_a_batch_norm_after_a_convolution_does_not_change_the_integers(tmp_path: Any) -> None:
    """Who folds it later, as onnxruntime's quantizer does, finds them."""
    import onnxruntime

    norm = {
        "g": weights(8, seed=3) + 1,
        "z": weights(8),
        "m": weights(8, seed=4),
        "v": np.abs(weights(8, seed=5)) + 0.5,
    }
    norm["g"][2] *= -1
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="c"),
        helper.make_node("BatchNormalization", ["c", *norm], ["y"]),
    ]
    model = pixels_to(nodes, {"w": weights(8, 3, 3, 3), **norm}, ["y"])
    found = rounded(model)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "folded.onnx")
    onnxruntime.InferenceSession(found.network.SerializeToString(), options, providers=["CPUExecutionProvider"])
    folded = onnx.load(str(tmp_path / "folded.onnx"))
    (convolution,) = [node for node in folded.graph.node if node.op_type == "Conv"]
    assert not [node for node in folded.graph.node if node.op_type == "BatchNormalization"]
    signs = np.sign(norm["g"]).astype(int)[:, None, None, None]
    held = constants_of(found.network)["w"]
    np.testing.assert_array_equal(integers(constants_of(folded)[convolution.input[1]]), integers(held) * signs)


def test_constants_that_nodes_make_and_copy_are_rounded_and_no_longer_stored() -> None:
    nodes = [
        helper.make_node("Constant", [], ["made"], value=numpy_helper.from_array(weights(4, 3, 3, 3))),
        helper.make_node("Identity", ["made"], ["w"]),
        helper.make_node("Identity", ["held"], ["b"]),
        helper.make_node("Conv", ["x", "w", "b"], ["y"], name="c"),
        helper.make_node("Conv", ["y", "v", "held"], ["z"], name="d"),
    ]
    model = pixels_to(nodes, {"held": weights(4), "v": weights(4, 4, 1, 1)}, ["z"])
    found = rounded(model)
    assert [layer.reason for layer in found.layers] == ["", ""]
    assert not [node for node in found.network.graph.node if node.op_type in ("Constant", "Identity")]
    held = constants_of(found.network)
    convolutions = [node for node in found.network.graph.node if node.op_type == "Conv"]
    assert "held" not in held or not np.array_equal(held[convolutions[0].input[2]], held[convolutions[1].input[2]])
    for node in convolutions:
        integers(held[node.input[1]])


def test_layers_that_cannot_be_rounded_say_why() -> None:
    broken, halves = weights(3, 3, 1, 1), weights(3, 3, 1, 1)
    broken[0, 0] = np.inf
    nodes = [
        helper.make_node("Conv", ["x", "shared"], ["a"], name="first"),
        helper.make_node("Conv", ["a", "shared"], ["b"], name="second"),
        helper.make_node("Mul", ["halves", "mean"], ["moving"]),
        helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=1),
        helper.make_node("Conv", ["b", "moving"], ["c"], name="moving"),
        helper.make_node("Conv", ["c", "broken"], ["d"], name="broken"),
        helper.make_node("ConvTranspose", ["c", "halves"], ["e"], name="up"),
        helper.make_node("MatMul", ["c", "stack"], ["f"], name="stack"),
        helper.make_node("MatMul", ["c", "c"], ["g"], name="attention"),
        helper.make_node("Conv", ["x", "fine"], ["h"], name="fine"),
    ]
    nodes[2], nodes[3] = nodes[3], nodes[2]
    constants = {"shared": weights(3, 3, 1, 1), "halves": halves, "broken": broken, "stack": weights(3, 24, 4)}
    model = pixels_to(nodes, {**constants, "fine": weights(4, 3, 1, 1)}, list("defgh"))
    found = rounded(model)
    assert {layer.name: layer.reason for layer in found.layers} == {
        "fine": "",
        "first": "several layers share its weights",
        "second": "several layers share its weights",
        "moving": "its weights are no constants",
        "broken": "its weights are not finite",
        "up": "transposed convolutions are rounded to the nearest step",
        "stack": "its weights have 3 dimensions",
    }
    held = constants_of(found.network)
    for name, value in constants.items():
        np.testing.assert_array_equal(held[name], value)


def test_weights_that_the_body_of_an_if_reads_are_shared() -> None:
    value = [helper.make_tensor_value_info("v", TensorProto.FLOAT, None)]
    body = helper.make_graph([helper.make_node("Mul", ["w", "w"], ["v"])], "body", [], value)
    nodes = [
        helper.make_node("If", ["yes"], ["y"], then_branch=body, else_branch=body),
        helper.make_node("Conv", ["x", "w"], ["z"], name="c"),
        helper.make_node("Conv", ["x", "own"], ["o"], name="d"),
    ]
    model = pixels_to(nodes, {"yes": np.array(True), "w": weights(4, 3, 1, 1), "own": weights(4, 3, 1, 1)}, list("yzo"))
    assert {one.name: one.reason for one in rounded(model).layers} == {"c": "several layers share its weights", "d": ""}


def test_without_images_all_stays_as_it_is(exported: Any) -> None:
    found = rounded(exported, 0)
    assert {layer.reason for layer in found.layers} == {"it did not run on the calibration images"}
    for name, value in constants_of(found.network).items():
        np.testing.assert_array_equal(value, constants_of(exported)[name])


def test_several_passes_and_several_grids_give_what_each_does_alone(
    exported: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgecv.quantize.rounding.patches.ROWS_PER_IMAGE", 10**6)  # no draw: the passes see the same
    whole = round_graph(exported, pictures(3), (SYMMETRIC, NNCF_WEIGHTS))
    monkeypatch.setattr("edgecv.quantize.rounding.patches.MOST_BYTES", 1)
    parts = round_graph(exported, pictures(3), (SYMMETRIC,))
    assert whole["int8"].layers == parts["int8"].layers
    assert whole["int8"].network.SerializeToString() == parts["int8"].network.SerializeToString()
    assert whole["nncf-weights"].network.SerializeToString() != whole["int8"].network.SerializeToString()


def test_the_same_seed_gives_the_same_file(exported: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecv.quantize.rounding.patches.ROWS_PER_IMAGE", 40)
    first, again, other = (
        round_graph(exported, pictures(2), (SYMMETRIC,), seed=seed)["int8"].network.SerializeToString()
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_convolutions_stay_where_products_alone_are_asked_for(exported: Any) -> None:
    found = round_graph(exported, pictures(2), (SYMMETRIC,), products_only=True)["int8"]
    kinds = {node.name or node.output[0]: node.op_type for node in exported.graph.node}
    reasons = {kinds[layer.name]: layer.reason for layer in found.layers}
    assert reasons["Conv"] == "its weights stay float"
    assert "" in {reasons.get("Gemm"), reasons.get("MatMul")}
