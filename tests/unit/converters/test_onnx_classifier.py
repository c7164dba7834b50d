"""Somebody else's classifier: its answers stay its own, whatever its opset, its end and what its file says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import edgecv
from edgecv._internal.quiet import quiet
from edgecv.converters.families.foreign_onnx.open import open_onnx
from edgecv.converters.families.ultralytics_import import tasks
from edgecv.converters.source import SourceModel, SourceOptions
from edgecv.errors import ConfigError, UnsupportedSource
from edgecv.vision.classify import LogitsDecoder
from edgecv.vision.geometry import ImageTransform
from tests.conftest import SHARED, shared_case

TRANSFORM = ImageTransform(scale_xy=(1.0, 1.0), offset_xy=(0.0, 0.0), frame_wh=(32, 32))


def with_end(
    path: Path, out: Path, operator: str, constants: dict[str, list[int]] | None = None, **attributes: Any
) -> Path:
    """The classifier with one more operator at its end; ``constants`` are its further inputs."""
    model = onnx.load(str(path))
    value = model.graph.output[0]
    end = f"end{len(model.graph.node)}"
    for name, numbers in (constants or {}).items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(numbers, np.int64), f"{end}/{name}"))
    inputs = [value.name, *(f"{end}/{name}" for name in constants or {})]
    model.graph.node.append(onnx.helper.make_node(operator, inputs, [end], **attributes))
    value.name = end
    value.type.tensor_type.ClearField("shape")
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info(end, onnx.TensorProto.FLOAT, None))
    model = onnx.shape_inference.infer_shapes(model)
    onnx.checker.check_model(model)
    onnx.save(model, str(out))
    return out


def answers(path: Path, planes: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: planes})[0]


def planes_of(image: np.ndarray, mean: Any, std: Any) -> np.ndarray:
    real = (image[..., ::-1].astype(np.float32) / 255 - np.float32(mean)) / np.float32(std)
    return np.ascontiguousarray(real.transpose(2, 0, 1)[None], np.float32)


def image(side: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (side, side, 3), np.uint8)


def test_a_softmax_at_the_end_is_applied_once(resnet20: Path, tmp_path: Path) -> None:
    path = with_end(resnet20, tmp_path / "soft.onnx", "Softmax", axis=1)
    source = open_onnx(path, SourceOptions())
    spec = source.spec.preprocess
    given = source.parts[0].reference({"image": image(32)[None]})
    found = LogitsDecoder(source.spec.decode, source.parts[0].outputs)(given, TRANSFORM, source.spec.decode, False)
    wanted = answers(path, planes_of(image(32), spec.mean, spec.std))[0]
    assert found.class_id[0] == wanted.argmax()
    np.testing.assert_allclose(found.confidence, np.sort(wanted)[::-1][:5], atol=1e-5)
    assert {node.op_type for node in source.parts[0].graph.graph.node}.isdisjoint({"Softmax"})


@pytest.mark.parametrize(
    ("after", "attributes"),
    [
        ("Identity", {}),
        ("Flatten", {"axis": 1}),
        ("Cast", {"to": onnx.TensorProto.FLOAT}),
        ("Squeeze", {"axes": [2, 3]}),
    ],
    ids=["Identity", "Flatten", "Cast", "four axes, squeezed"],
)
def test_a_softmax_is_found_behind_what_only_copies(
    after: str, attributes: dict[str, Any], resnet20: Path, tmp_path: Path
) -> None:
    if after == "Squeeze":
        path = with_end(resnet20, tmp_path / "wide.onnx", "Unsqueeze", constants={"axes": [2, 3]})
        path = with_end(path, tmp_path / "soft.onnx", "Softmax", axis=1)
        path = with_end(path, tmp_path / "end.onnx", "Squeeze", constants={"axes": [2, 3]})
    else:
        path = with_end(resnet20, tmp_path / "soft.onnx", "Softmax", axis=1)
        path = with_end(path, tmp_path / "end.onnx", after, **attributes)
    source = open_onnx(path, SourceOptions())
    logits = source.parts[0].reference({"image": image(32)[None]})["logits"]
    spec = source.spec.preprocess
    np.testing.assert_allclose(
        logits, answers(resnet20, planes_of(image(32), spec.mean, spec.std)), rtol=1e-4, atol=1e-4
    )


def test_probabilities_that_cannot_be_taken_back_stay_as_they_are(resnet20: Path, tmp_path: Path) -> None:
    path = with_end(resnet20, tmp_path / "soft.onnx", "Softmax", axis=1)
    path = with_end(with_end(path, tmp_path / "once.onnx", "Neg"), tmp_path / "twice.onnx", "Neg")
    source = open_onnx(path, SourceOptions())
    assert source.spec.decode.options["activation"] == "none"
    np.testing.assert_allclose(np.sort(confidences_of(source)), np.sort(confidences_of_file(path, source)), atol=1e-5)


def confidences_of(source: SourceModel, side: int = 32) -> np.ndarray:
    """What the bundle's decoder makes of the graph over pixels, by class."""
    session = onnxruntime.InferenceSession(source.parts[0].graph.SerializeToString())
    given = {"logits": session.run(None, {"image": image(side)[None]})[0]}
    decode = source.spec.decode
    found = LogitsDecoder(decode, source.parts[0].outputs)(given, TRANSFORM, decode, False)
    return found.confidence[np.argsort(found.class_id)]


def confidences_of_file(path: Path, source: SourceModel, side: int = 32) -> np.ndarray:
    spec = source.spec.preprocess
    return answers(path, planes_of(image(side), spec.mean, spec.std))[0]


def test_a_sigmoid_per_class_gives_the_confidence_of_each(tmp_path: Path) -> None:
    path = shared_case("t_multilabel.onnx")
    source = open_onnx(path, SourceOptions())
    wanted = confidences_of_file(path, source, 64)
    assert wanted.sum() > 1.05  # no softmax
    np.testing.assert_allclose(confidences_of(source, 64), wanted, atol=1e-5)


def test_one_sigmoid_is_the_confidence_of_the_second_of_two_classes(tmp_path: Path) -> None:
    path = shared_case("t_binary.onnx")
    source = open_onnx(path, SourceOptions(labels=("fine", "broken")))
    (wanted,) = confidences_of_file(path, source, 64)
    np.testing.assert_allclose(confidences_of(source, 64), [1 - wanted, wanted], atol=1e-5)
    with pytest.raises(ConfigError, match="2 classes, not 1"):
        open_onnx(path, SourceOptions(labels=("broken",)))


def test_plain_scores_are_what_the_caller_says(resnet20: Path) -> None:
    source = open_onnx(resnet20, SourceOptions(activation="sigmoid"))
    wanted = 1 / (1 + np.exp(-confidences_of_file(resnet20, source)))
    np.testing.assert_allclose(confidences_of(source), wanted, atol=1e-5)


def test_an_activation_that_the_file_contradicts_is_refused(resnet20: Path, tmp_path: Path) -> None:
    path = with_end(resnet20, tmp_path / "soft.onnx", "Softmax", axis=1)
    with pytest.raises(ConfigError, match="ends in a softmax"):
        open_onnx(path, SourceOptions(activation="sigmoid"))
    with pytest.raises(ConfigError, match="no activation"):
        SourceOptions(activation="tanh")  # type: ignore[arg-type]


def one_score(path: Path, out: Path) -> Path:
    """The classifier cut to its first score."""
    return with_end(path, out, "Gather", constants={"first": [0]}, axis=1)


def test_one_plain_score_may_be_anything_and_is_asked_about(resnet20: Path, tmp_path: Path) -> None:
    path = one_score(resnet20, tmp_path / "one.onnx")
    with pytest.raises(UnsupportedSource, match="one number per image") as caught:
        open_onnx(path, SourceOptions())
    assert "--activation sigmoid" in caught.value.hint
    assert open_onnx(path, SourceOptions(activation="sigmoid")).spec.decode.labels == ("0", "1")
    with pytest.raises(ConfigError, match="always 1"):
        open_onnx(path, SourceOptions(activation="softmax"))


def test_what_may_be_confidences_is_asked_about(resnet20: Path, tmp_path: Path) -> None:
    path = with_end(resnet20, tmp_path / "hard.onnx", "HardSigmoid")
    with pytest.raises(UnsupportedSource, match="between 0 and 1"):
        open_onnx(path, SourceOptions())
    source = open_onnx(path, SourceOptions(activation="none"))
    np.testing.assert_allclose(confidences_of(source), confidences_of_file(path, source), atol=1e-5)


@pytest.fixture(scope="module")
def ultralytics_classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Ultralytics makes of a classifier of seven classes: it ends in a softmax, and says what it is."""
    import torch
    from ultralytics import YOLO

    torch.manual_seed(0)
    network = tasks().ClassificationModel("yolov8n-cls.yaml", nc=7, verbose=False)
    network.args, network.names = {"imgsz": 64, "task": "classify"}, dict(enumerate("abcdefg"))
    path = tmp_path_factory.mktemp("cls") / "seven.pt"
    torch.save({"model": network.half()}, path)
    with quiet():
        return Path(YOLO(str(path)).export(format="onnx", simplify=False, verbose=False, imgsz=64))


def test_ultralytics_own_export_needs_no_assumption(ultralytics_classifier: Path) -> None:
    source = open_onnx(ultralytics_classifier, SourceOptions())
    spec = source.spec.preprocess
    assert source.assumptions == ()
    assert (spec.mean, spec.std, spec.resize, spec.interpolation) == ((0, 0, 0), (1, 1, 1), "crop", "antialias")
    assert source.spec.decode.labels == tuple("abcdefg")
    assert source.licence == "AGPL-3.0"
    given = source.parts[0].reference({"image": image(64)[None]})
    found = LogitsDecoder(source.spec.decode, source.parts[0].outputs)(given, TRANSFORM, source.spec.decode, False)
    wanted = answers(ultralytics_classifier, planes_of(image(64), spec.mean, spec.std))[0]
    np.testing.assert_allclose(found.confidence, np.sort(wanted)[::-1][:5], atol=1e-5)


def of_opset(path: Path, opset: int) -> Path:
    """A small network of operators that mean the same in each opset from 11 to 22."""
    rng = np.random.default_rng(0)
    weights = {
        "w0": rng.normal(size=(8, 3, 3, 3)) / 5,
        "w1": rng.normal(size=(8, 8, 3, 3)) / 8,
        "w2": rng.normal(size=(8, 10)),
        "b2": rng.normal(size=10),
    }
    node = onnx.helper.make_node
    nodes = [
        node("Conv", ["images", "w0"], ["c0"], pads=[1] * 4, strides=[2, 2]),
        node("Relu", ["c0"], ["r0"]),
        node("Conv", ["r0", "w1"], ["c1"], pads=[1] * 4),
        node("Relu", ["c1"], ["r1"]),
        node("GlobalAveragePool", ["r1"], ["pooled"]),
        node("Flatten", ["pooled"], ["flat"]),
        node("Gemm", ["flat", "w2", "b2"], ["sums"]),
        node("Softmax", ["sums"], ["scores"], axis=1),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "small",
        [onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, (1, 3, 32, 32))],
        [onnx.helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, (1, 10))],
        [onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=7)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize(("opset", "wanted"), [(11, 17), (12, 17), (17, 17), (19, 19), (22, 20)])
def test_an_opset_outside_17_to_20_is_brought_there_and_gives_the_same(opset: int, wanted: int, tmp_path: Path) -> None:
    path = of_opset(tmp_path / "other.onnx", opset)
    source = open_onnx(path, SourceOptions())
    made, spec = source.parts[0].graph, source.spec.preprocess
    assert [entry.version for entry in made.opset_import if entry.domain == ""] == [wanted]
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    logits = session.run(None, {"image": image(32)[None]})[0]
    scores = np.exp(logits - logits.max())
    np.testing.assert_allclose(
        scores / scores.sum(), answers(path, planes_of(image(32), spec.mean, spec.std)), rtol=1e-4, atol=1e-5
    )


def test_what_cannot_be_brought_to_another_opset_stays_as_it_is(tmp_path: Path) -> None:
    """GroupNormalization of opset 21 has no way back; float formats do not need one."""
    model = onnx.load(str(of_opset(tmp_path / "plain.onnx", 21)))
    relu = next(node for node in model.graph.node if node.output[0] == "r0")
    for name in ("scale", "shift"):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(8, np.float32), name))
    norm = onnx.helper.make_node("GroupNormalization", ["c0", "scale", "shift"], ["n0"], num_groups=2)
    model.graph.node.insert(1, norm)
    relu.input[0] = "n0"
    onnx.checker.check_model(model)
    onnx.save(model, str(tmp_path / "norm.onnx"))
    made = open_onnx(tmp_path / "norm.onnx", SourceOptions()).parts[0].graph
    assert [entry.version for entry in made.opset_import if entry.domain == ""] == [21]


def test_int8_of_an_old_opset(resnet20: Path, tmp_path: Path) -> None:
    bundle = edgecv.convert(
        of_opset(tmp_path / "old.onnx", 11),
        precision="int8",
        calibration=SHARED / "data/cifar10-jpeg/calibration",
        out=tmp_path / "old.ecv",
        int8=edgecv.Int8Options(recipes=("ort-u8s8-float-stem",)),
    )
    assert [variant.name for variant in bundle.variants] == ["onnx-fp32", "onnx-int8"]


def with_a_weight_called_logits(path: Path, out: Path) -> Path:
    model = onnx.load(str(path))
    weight, value = model.graph.initializer[0], model.graph.output[0]
    before = {weight.name: "logits", value.name: "scores"}
    weight.name, value.name = before[weight.name], before[value.name]
    for node in model.graph.node:
        node.input[:] = [before.get(name, name) for name in node.input]
        node.output[:] = [before.get(name, name) for name in node.output]
    onnx.checker.check_model(model)
    onnx.save(model, str(out))
    return out


def with_an_inner_tensor_called_logits(path: Path, out: Path) -> Path:
    assert onnx.load(str(path)).graph.output[0].name == "logits"
    return with_end(path, out, "Neg")


@pytest.mark.parametrize("change", [with_a_weight_called_logits, with_an_inner_tensor_called_logits])
def test_a_tensor_that_has_the_name_of_the_output_gets_another(change: Any, resnet20: Path, tmp_path: Path) -> None:
    path = change(resnet20, tmp_path / "twice.onnx")
    source = open_onnx(path, SourceOptions())
    session = onnxruntime.InferenceSession(source.parts[0].graph.SerializeToString())
    given = session.run(["logits"], {"image": image(32)[None]})[0]
    np.testing.assert_allclose(given, source.parts[0].reference({"image": image(32)[None]})["logits"], rtol=1e-4)


def test_an_open_size_that_nobody_knows_is_asked_for(resnet20: Path, tmp_path: Path) -> None:
    model = onnx.load(str(resnet20))
    for axis in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        axis.ClearField("dim_value")
        axis.dim_param = "side"
    onnx.save(model, str(tmp_path / "open.onnx"))
    with pytest.raises(ConfigError, match="input size open") as caught:
        open_onnx(tmp_path / "open.onnx", SourceOptions())
    assert "--imgsz" in caught.value.hint
    assert open_onnx(tmp_path / "open.onnx", SourceOptions(size_wh=(32, 32))).spec.preprocess.size_wh == (32, 32)


@pytest.mark.parametrize(
    "said",
    [
        {"std": (0.0, 0.0, 0.0)},
        {"std": (1.0, 1.0, -1.0)},
        {"mean": (float("nan"), 0.0, 0.0)},
        {"std": (float("inf"),) * 3},
    ],
    ids=str,
)
def test_a_normalisation_that_gives_no_numbers_is_refused(said: Any, resnet20: Path) -> None:
    with pytest.raises(ConfigError, match="normalises nothing"):
        open_onnx(resnet20, SourceOptions(preprocess=said))


@pytest.mark.parametrize(
    ("said", "mean", "std"),
    [
        (
            {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)},
            (0.485, 0.456, 0.406),
            (0.229, 0.224, 0.225),
        ),
        ({"mean": (127.5,), "std": (127.5,)}, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ({"mean": (0, 0, 0), "std": (255, 255, 255)}, (0, 0, 0), (1, 1, 1)),
        ({"mean": (103.94, 116.78, 123.68), "std": (1, 1, 1)}, (0.40761, 0.45796, 0.48502), (1 / 255,) * 3),
        ({"mean": (127.5, 127.5, 127.5)}, (0.5, 0.5, 0.5), (0.229, 0.224, 0.225)),
        ({"mean": (0, 0, 0), "std": (1, 1, 1)}, (0, 0, 0), (1, 1, 1)),
    ],
    ids=["mmcv", "one number", "over 255", "Caffe", "mean alone", "not scaled"],
)
def test_a_mean_of_0_to_255_is_taken_as_one_and_told(said: Any, mean: Any, std: Any, resnet20: Path) -> None:
    source = open_onnx(resnet20, SourceOptions(preprocess=said))
    assert source.spec.preprocess.mean == pytest.approx(mean, abs=1e-5)
    assert source.spec.preprocess.std == pytest.approx(std, abs=1e-5)
    told = [line for line in source.assumptions if "of pixels of 0 to 255" in line]
    assert bool(told) == (max(said["mean"]) > 1 or max(said.get("std", (0,))) > 2)


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ({"mean": (123.675, 116.28, 103.53), "std": (0.229, 0.224, 0.225)}, "--mean 0.485,0.456,0.406"),
        ({"mean": (0.485, 0.456, 0.406), "std": (58.395, 57.12, 57.375)}, "--std 0.229,0.224,0.225"),
    ],
)
def test_a_mean_of_0_to_255_beside_a_std_of_0_to_1_is_refused(said: Any, right: str, resnet20: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        open_onnx(resnet20, SourceOptions(preprocess=said))
    assert right in caught.value.hint


@pytest.mark.parametrize("said", [{"mean": (-0.485, 0.4, 0.4)}, {"mean": (300.0,)}, {"mean": (0.5, 0.5)}], ids=str)
def test_a_mean_that_no_image_has_is_refused(said: Any, resnet20: Path) -> None:
    with pytest.raises(ConfigError):
        open_onnx(resnet20, SourceOptions(preprocess=said))


def test_one_label_per_class(resnet20: Path) -> None:
    with pytest.raises(ConfigError, match="has 10 classes, not 3"):
        open_onnx(resnet20, SourceOptions(labels=("a", "b", "c")))
    assert open_onnx(resnet20, SourceOptions(labels=tuple("abcdefghij"))).spec.decode.labels == tuple("abcdefghij")


@pytest.mark.parametrize(
    ("names", "first"),
    [("None", "0"), ("5", "0"), ("{'0': 'cat'}", "cat"), ("{0: 'cat'}", "cat"), ("['cat']", "cat"), ("((((", "0")],
)
def test_names_in_the_metadata_are_taken_in_any_form_and_never_trip(
    names: str, first: str, resnet20: Path, tmp_path: Path
) -> None:
    model = onnx.load(str(resnet20))
    onnx.helper.set_model_props(model, {"names": names})
    onnx.save(model, str(tmp_path / "named.onnx"))
    labels = open_onnx(tmp_path / "named.onnx", SourceOptions()).spec.decode.labels
    assert (labels[0], labels[1], len(labels)) == (first, "1", 10)


@pytest.mark.parametrize("size", ["[1e999, 1e999]", "None", "[64]", "[64, 64]"])
def test_one_fixed_side_is_kept(size: str, resnet20: Path, tmp_path: Path) -> None:
    model = onnx.load(str(resnet20))
    width = model.graph.input[0].type.tensor_type.shape.dim[3]
    width.ClearField("dim_value")
    width.dim_param = "w"
    onnx.helper.set_model_props(model, {"imgsz": size})
    onnx.save(model, str(tmp_path / "half.onnx"))
    with pytest.raises(ConfigError, match="one fixed side" if size == "[64, 64]" else "size open"):
        open_onnx(tmp_path / "half.onnx", SourceOptions())
    assert open_onnx(tmp_path / "half.onnx", SourceOptions(size_wh=(32, 32))).spec.preprocess.size_wh == (32, 32)
