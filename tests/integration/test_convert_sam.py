"""SAM from its own builders through every format and precision: the same masks, and those of the source itself."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import cv2
import numpy as np
import pytest

import edgecv
from edgecv.bundles.bundle import Bundle
from edgecv.bundles.golden import cosine, verify
from edgecv.choosing import runtime_options, runtimes_for
from edgecv.converters.families.sam.networks import normalised
from edgecv.converters.families.sam.parts import SLOTS
from edgecv.converters.families.sam.sam import open_sam
from edgecv.converters.families.sam.sam2 import open_sam2
from edgecv.converters.source import SourceOptions
from edgecv.errors import CalibrationError, ConfigError, SpecMismatch, UnsupportedSource
from edgecv.model import open_variant
from edgecv.promptable import PromptableModel, open_promptable
from edgecv.quantize.gate.masks import MaskAnswer, judge_masks
from edgecv.quantize.recipes import GateLimits
from edgecv.results import Image
from edgecv.specs import RuntimeOptions
from edgecv.vision.letterbox import fit
from edgecv.vision.sam import PADDING_BGR
from tests.command_line import run_here

torch = pytest.importorskip("torch")
pytest.importorskip("litert_torch")
pytest.importorskip("nncf")

pytestmark = pytest.mark.timeout(600)  # the fixture exports two networks to three formats

FORMATS = ("onnx", "openvino", "tflite")
SIDE = 128  # what SAM was trained at takes minutes; every layer is there at this size, too
FRAME = (90, 150)  # height and width: neither fills the square


def image(seed: int = 0, shape: tuple[int, int] = FRAME) -> Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC), np.uint8)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for seed in range(16):
        cv2.imwrite(str(folder / f"{seed}.png"), image(seed))
    return folder


@pytest.fixture(scope="module", params=[FORMATS[:2], pytest.param(FORMATS, marks=pytest.mark.slow)], ids=len)
def bundle(request: pytest.FixtureRequest, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("sam") / "sam.ecv"
    return edgecv.convert(
        "mobile_sam",
        formats=request.param,
        precision=("fp16", "int8"),
        calibration=images,
        imgsz=SIDE,
        out=out,
        options=edgecv.SourceOptions(random_weights=True),
        int8=edgecv.Int8Options(effort="quick"),
    )


@pytest.fixture(scope="module")
def source(images: Path) -> Any:
    """The same network again: seed 0, norms calibrated on the same images."""
    from edgecv.quantize.calibration.calibration_set import open_calibration

    options = SourceOptions(size_wh=(SIDE, SIDE), random_weights=True, images=open_calibration(images).calibrate)
    return open_sam(Path("mobile_sam"), options)


@pytest.fixture(scope="module")
def sam(bundle: Bundle) -> PromptableModel:
    model = opened(bundle, "onnx-fp32")
    model.set_image(image())
    return model


def opened(bundle: Bundle, name: str) -> PromptableModel:
    variant = next(variant for variant in bundle.variants if variant.name == name)
    runtime = runtimes_for(variant.format)[0]
    return open_promptable(bundle, variant, RuntimeOptions(), runtime)


def formats_of(bundle: Bundle) -> tuple[str, ...]:
    """The formats that were asked for; all three of them take a minute longer and are for ``make test-slow``."""
    formats = tuple(dict.fromkeys(variant.format for variant in bundle.variants))
    assert formats in (FORMATS[:2], FORMATS)
    return formats


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / max(1, (first | second).sum()))


def test_every_format_has_every_precision_and_the_int8_embeddings_agree(bundle: Bundle) -> None:
    precisions = ("fp32", "fp16", "int8")
    assert [variant.name for variant in bundle.variants] == [f"{f}-{p}" for f in formats_of(bundle) for p in precisions]
    for variant in bundle.variants[2::3]:
        assert variant.metrics["embedding_cosine"] >= 0.99


def test_int8_shrinks_the_encoder_and_shares_the_float_decoder(bundle: Bundle) -> None:
    sizes = {v.name: sum(entry.bytes for entry in v.models["encoder"].files) for v in bundle.variants}
    paths = {v.name: [entry.path for entry in v.models["decoder"].files] for v in bundle.variants}
    for name in formats_of(bundle):
        assert sizes[f"{name}-int8"] < 0.55 * sizes[f"{name}-fp32"]  # MobileSAM is half convolutions, which stay float
        assert paths[f"{name}-int8"] == paths[f"{name}-fp32"]


def test_the_model_card_says_how_much_one_call_takes(bundle: Bundle) -> None:
    card = (bundle.path / "MODEL_CARD.md").read_text()
    assert "8 points of one object, or 100 boxes" in card
    assert "Marks the object" in card
    assert "edgecv eval" not in card  # it judges by labels, which SAM has none of


def test_openvino_leaves_the_convolutions_float(bundle: Bundle) -> None:
    import openvino

    variant = next(variant for variant in bundle.variants if variant.name == "openvino-int8")
    model = openvino.Core().read_model(str(bundle.path / variant.models["encoder"].files[0].path))
    stored: dict[str, set[str]] = {}
    for node in model.get_ops():
        if node.get_type_name() in ("MatMul", "Convolution", "GroupConvolution"):
            stored.setdefault(node.get_type_name(), set()).update(_weight_types(node))
    assert "i8" in stored["MatMul"]
    assert "i8" not in stored["Convolution"] | stored["GroupConvolution"]


def _weight_types(node: Any) -> set[str]:
    """Element types of the constants behind a node's second input."""
    found, waiting = set(), [node.input_value(1).get_node()]
    while waiting:
        made = waiting.pop()
        if made.get_type_name() == "Constant":
            found.add(made.get_output_element_type(0).get_type_name())
        elif made.get_type_name() in ("Convert", "Multiply", "Subtract", "Reshape", "Transpose"):
            waiting += [made.input_value(at).get_node() for at in range(made.get_input_size())]
    return found


def test_golden_vectors_replay_on_this_machine(bundle: Bundle) -> None:
    assert {verdict.status for verdict in verify(bundle)} == {"ok"}


def test_every_variant_marks_the_same_pixels(bundle: Bundle, sam: PromptableModel) -> None:
    wanted = sam.predict(points=[[50, 40]], multimask=True)
    for variant in bundle.variants:
        with opened(bundle, variant.name) as model:
            model.set_image(image())
            found = model.predict(points=[[50, 40]], multimask=True)
            near = cosine(sam.embeddings, model.embeddings)
        # Masks of random weights are noise around zero: rounding the encoder turns many of their pixels.
        assert near > (0.99999 if variant.precision == "fp32" else 0.99), variant.name
        assert variant.precision == "int8" or overlap(wanted.mask, found.mask) > 0.99, variant.name


def test_points_give_what_the_source_gives(sam: PromptableModel, source: Any) -> None:
    """Our slots, used and unused, against Ultralytics' own prompt encoder over just the points."""
    xy, labels = np.array([[30, 20], [120, 70], [10, 80]], np.float32), np.array([1, 0, 1])
    _, transform = fit(image(), sam.spec.preprocess)
    given = torch.from_numpy(transform.to_model(xy))[None], torch.from_numpy(labels)[None]
    logits, iou = _theirs(source, points=given)
    found = sam.predict(points=xy, labels=labels, multimask=True, low_res=True)
    assert found.low_res is not None
    np.testing.assert_allclose(found.low_res, logits[1:], atol=1e-3 * float(np.abs(logits).max()))
    np.testing.assert_allclose(found.iou, iou[1:], atol=1e-4)


def test_a_box_gives_what_the_source_gives(sam: PromptableModel, source: Any) -> None:
    box = np.array([20, 10, 100, 80], np.float32)
    _, transform = fit(image(), sam.spec.preprocess)
    corners = torch.from_numpy(transform.to_model(box.reshape(2, 2))).reshape(1, 4)
    logits, iou = _theirs(source, boxes=corners)
    best = int(iou.argmax())
    found = sam.predict(boxes=[box], low_res=True)
    assert found.low_res is not None
    np.testing.assert_allclose(found.low_res[0], logits[best], atol=1e-3 * float(np.abs(logits).max()))
    assert found.iou[0] == pytest.approx(iou[best], abs=1e-4)


def _theirs(source: Any, points: Any = None, boxes: Any = None) -> tuple[np.ndarray, np.ndarray]:
    encoder, decoder = source.parts
    fitted, _ = fit(image(), source.spec.preprocess)
    network = _network(decoder)
    with torch.no_grad():
        embeddings = torch.from_numpy(encoder.reference({"image": fitted[None]})["image_embeddings"])
        sparse, dense = network.prompts(points=points, boxes=boxes, masks=None)
        masks, iou = network.masks.predict_masks(embeddings, network.prompts.get_dense_pe(), sparse, dense)
    return masks.numpy()[0], iou.numpy()[0]


def _network(decoder: Any) -> Any:
    return decoder.module  # it holds Ultralytics' prompt encoder and mask decoder as they were built


def test_a_mask_of_before_is_taken_in(source: Any) -> None:
    """``mask_input`` counts when ``has_mask_input`` is 1, as in SAM's own export."""
    decoder = source.parts[1]
    feeds = source.examples(fit(image(), source.spec.preprocess)[0])["decoder"].feeds
    seen = np.random.default_rng(0).normal(size=feeds["mask_input"].shape).astype(np.float32)
    wanted = decoder.reference({**feeds, "mask_input": seen, "has_mask_input": np.ones(1, np.float32)})
    with torch.no_grad():
        tensors = [torch.from_numpy(feeds[spec.name]) for spec in decoder.inputs[:3]]
        found, _ = decoder.module(*tensors, torch.from_numpy(seen), torch.ones(1))
    assert cosine(wanted["low_res_masks"], found.numpy()) > 0.9999
    assert cosine(wanted["low_res_masks"], decoder.reference(feeds)["low_res_masks"]) < 0.9999


def test_masks_have_the_frames_size_and_stay_inside_their_boxes(sam: PromptableModel) -> None:
    found = sam.predict(boxes=[[0, 0, 60, 60], [40, 20, 149, 89]])
    assert len(found) == 2
    assert found.mask.shape == (2, *FRAME)
    assert found.mask.dtype == np.bool_
    assert found.iou.shape == (2,)
    for whole, box in zip(found.mask, found.xyxy, strict=True):
        rows, columns = np.nonzero(whole)
        if len(rows):
            assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == tuple(box)


def test_padding_is_zero_after_normalisation(source: Any) -> None:
    fitted, _ = fit(image(), source.spec.preprocess)
    assert (fitted[-1] == PADDING_BGR).all()
    with torch.no_grad():
        encoder = source.parts[0]
        assert (
            cosine(
                encoder.module(torch.from_numpy(fitted[None])).numpy(),
                encoder.reference({"image": fitted[None]})["image_embeddings"],
            )
            > 0.99999
        )


def test_a_new_image_replaces_the_old_one(bundle: Bundle) -> None:
    with opened(bundle, "onnx-fp32") as model:
        model.set_image(image(1))
        first = model.predict(points=[[50, 40]]).mask
        model.set_image(image(2, (60, 60)))
        assert model.predict(points=[[50, 40]]).mask.shape == (1, 60, 60)
        model.set_image(image(1))
        assert np.array_equal(model.predict(points=[[50, 40]]).mask, first)


def test_threads_may_ask_at_once(sam: PromptableModel) -> None:
    asked = [[x, 40] for x in range(10, 130, 10)]
    alone = [sam.predict(points=[point]).mask for point in asked]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda point: sam.predict(points=[point]).mask, asked))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize(
    ("prompt", "error", "words"),
    [
        ({}, ConfigError, "either points or boxes"),
        ({"points": [[1, 2]], "boxes": [[1, 2, 3, 4]]}, ConfigError, "either points or boxes"),
        ({"boxes": [[1, 2, 3, 4]], "labels": [1]}, ConfigError, "Labels belong to points"),
        ({"points": [[1, 2]], "labels": [1, 1]}, ConfigError, "need 1 labels"),
        ({"points": [[1, 2]], "labels": [5]}, ConfigError, "1 or 0"),
        ({"points": [[1, 2]] * 9}, ConfigError, "takes 1 to 8"),
        ({"points": np.zeros((0, 2))}, ConfigError, "takes 1 to 8"),
        ({"boxes": np.zeros((101, 4))}, ConfigError, "takes 1 to 100"),
        ({"boxes": [[10, 10, 10, 20]]}, ConfigError, "no area"),
        ({"points": [[1, 2], [3, 4]], "labels": [[1], [1, 0]]}, ConfigError, "need 2 labels"),
        ({"points": [[1, 2, 3]]}, SpecMismatch, r"\(N, 2\)"),
        ({"points": [[float("nan"), 2]]}, SpecMismatch, "finite"),
        ({"points": "left"}, SpecMismatch, "numbers"),
        ({"boxes": [1, 2, 3, 4]}, SpecMismatch, r"\(N, 4\)"),
    ],
)
def test_wrong_prompts_are_refused(sam: PromptableModel, prompt: dict[str, Any], error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        sam.predict(**prompt)


def test_eight_points_are_taken(sam: PromptableModel) -> None:
    assert sam.max_points == SLOTS - 1 == 8
    assert len(sam.predict(points=[[x, 20] for x in range(0, 80, 10)], labels=[1, 0] * 4)) == 1


def test_a_prompt_before_an_image_and_a_call_are_refused(bundle: Bundle) -> None:
    with edgecv.load(bundle.path, runtime="onnxruntime", precision="fp32") as model:
        assert isinstance(model, PromptableModel)
        assert model.task == "promptable-segment"
        with pytest.raises(ConfigError, match="No image was set"):
            model.predict(points=[[1, 2]])
        with pytest.raises(ConfigError, match="answers prompts"):
            model(image())
        with pytest.raises(SpecMismatch, match="uint8"):
            model.set_image(image().astype(np.float32))


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--source", "synthetic://?frames=2", "--out", "jsonl:{out}"),
        ("run", "--source", "synthetic://?frames=2", "--compute-device", "CPU"),
        ("bench",),
        ("eval", "--data", "{out}"),
    ],
    ids=["run", "run on a device", "bench", "eval"],
)
def test_commands_that_ask_nothing_refuse_it(bundle: Bundle, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    command, *rest = (part.format(out=tmp_path / "out.jsonl") for part in arguments)
    done = cli(command, str(bundle.path), *rest)
    assert done.returncode in (1, 2)
    assert "prompts" in done.stderr
    assert "bug in EdgeCV" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_open_variant_names_the_way_for_prompts(bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match="answers prompts"):
        open_variant(bundle, bundle.variants[0], runtime_options(), "onnxruntime")


def test_fp16_keeps_the_embeddings_and_halves_the_files(bundle: Bundle) -> None:
    sizes = {v.name: sum(entry.bytes for part in v.models.values() for entry in part.files) for v in bundle.variants}
    metrics = {v.name: v.metrics for v in bundle.variants}
    for name in formats_of(bundle):
        assert sizes[f"{name}-fp16"] < 0.62 * sizes[f"{name}-fp32"]
        assert metrics[f"{name}-fp16"]["source_cosine"] >= 0.9999


@pytest.mark.slow
def test_weights_from_a_file_are_the_ones_that_run(source: Any, tmp_path: Path) -> None:
    """A state dict as SAM's are published, read without running what is in it."""
    from edgecv.converters.families import ultralytics_import

    ultralytics_import.tasks()
    from ultralytics.models.sam.build import build_mobile_sam

    torch.manual_seed(5)
    network = build_mobile_sam()
    weights = tmp_path / "mine.pt"
    torch.save(network.state_dict(), weights)
    made = edgecv.convert(
        "mobile_sam",
        precision="fp32",
        imgsz=SIDE,
        out=tmp_path / "w.ecv",
        options=edgecv.SourceOptions(weights=weights),
    )
    assert made.manifest.licence == "unknown"
    assert made.manifest.source.file == "mine.pt"
    assert "trained at 1024x1024" in made.manifest.assumptions[0]
    with edgecv.load(made.path) as model:
        model.set_image(image())
        fitted, _ = fit(image(), made.spec.preprocess)
        network.set_imgsz([SIDE, SIDE])
        with torch.no_grad():
            wanted = network.eval().image_encoder(torch.from_numpy(normalised(fitted, network)))
        assert cosine(model.embeddings, wanted.numpy()) > 0.9999


def test_bad_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="where do its weights come from"):
        edgecv.convert("mobile_sam", precision="fp32", out=tmp_path / "a.ecv")
    with pytest.raises(ConfigError, match="square"):
        edgecv.convert(
            "mobile_sam",
            precision="fp32",
            imgsz=(128, 96),
            out=tmp_path / "a.ecv",
            options=edgecv.SourceOptions(random_weights=True),
        )
    with pytest.raises(UnsupportedSource, match="does not exist"):
        edgecv.convert(
            "mobile_sam",
            precision="fp32",
            out=tmp_path / "a.ecv",
            options=edgecv.SourceOptions(weights=tmp_path / "no.pt"),
        )
    torch.save({"other": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(UnsupportedSource, match="does not hold weights"):
        edgecv.convert(
            "mobile_sam",
            precision="fp32",
            out=tmp_path / "a.ecv",
            options=edgecv.SourceOptions(weights=tmp_path / "other.pt"),
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.pt"]


@pytest.mark.slow
def test_sam2_answers_points_and_boxes_as_its_source_does(tmp_path: Path) -> None:
    """SAM 2.1 tiny, stretched, with finer features; a box is two points and an end."""
    source = open_sam2(Path("sam2.1_t"), SourceOptions(size_wh=(SIDE, SIDE), random_weights=True))
    made = edgecv.convert(
        "sam2.1_t",
        precision="fp32",
        imgsz=SIDE,
        out=tmp_path / "2.ecv",
        options=edgecv.SourceOptions(random_weights=True),
    )
    fitted, transform = fit(image(), made.spec.preprocess)
    features = source.parts[0].reference({"image": fitted[None]})
    masks = source.parts[1].module.masks
    prompts = source.parts[1].module.prompts
    corners = torch.from_numpy(transform.to_model(np.array([[20, 10], [100, 80]], np.float32)))[None]
    with edgecv.load(made.path) as model, torch.no_grad():
        model.set_image(image())
        for labels, asked in (([1, 0], {"points": [[20, 10], [100, 80]], "labels": [1, 0]}), ([2, 3], {})):
            sparse, dense = prompts(points=(corners, torch.tensor([labels])), boxes=None, masks=None)
            given = [torch.from_numpy(features[name]) for name in ("image_embeddings", "high_res_0", "high_res_1")]
            logits, iou, _, _ = masks.predict_masks(
                given[0], prompts.get_dense_pe(), sparse, dense, repeat_image=False, high_res_features=given[1:]
            )
            found = model.predict(**(asked or {"boxes": [[20, 10, 100, 80]]}), multimask=True, low_res=True)
            assert cosine(found.low_res, logits[0, 1:].numpy()) > 0.9999
            np.testing.assert_allclose(found.iou, iou[0, 1:].numpy(), atol=1e-3)


def answer(mask: np.ndarray, tilt: float = 0.0) -> MaskAnswer:
    embeddings = np.ones((1, 2, 2, 2), np.float32)
    embeddings[0, 0] += tilt
    return MaskAnswer(embeddings=embeddings, masks=mask)


def test_the_gate_sees_moved_masks_and_turned_embeddings() -> None:
    square = np.zeros((1, 10, 10), np.bool_)
    square[0, 2:8, 2:8] = True
    same = judge_masks([answer(square)], [answer(square)], GateLimits(), "r")
    assert same.passed
    assert same.metrics == {"embedding_cosine": 1.0, "mask_iou": 1.0}
    assert not judge_masks([answer(square)], [answer(np.roll(square, 3, 1))], GateLimits(), "r").passed
    assert judge_masks([answer(square)], [answer(np.roll(square, 3, 1))], GateLimits(), "r", trained=False).passed
    assert not judge_masks([answer(square)], [answer(square, tilt=3)], GateLimits(), "r", trained=False).passed
    with pytest.raises(CalibrationError, match="marks nothing"):
        judge_masks([answer(~square & square)], [answer(square)], GateLimits(), "r")


def cli(*arguments: str) -> CompletedProcess[str]:
    return run_here(*arguments)


def test_the_command_line_asks_by_point_and_by_box(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), image())
    asked = ["predict", str(bundle.path), str(path), "--runtime", "onnxruntime", "--precision", "fp32"]
    (row,) = json.loads(cli(*asked, "--point", "50,40", "--not-point", "5,5", "--json").stdout)
    assert row["masks"][0]["mask"]["size"] == list(FRAME)
    assert cli(*asked, "--box", "10,10,80,80", "--box", "20,20,90,70").stdout.count("mask") == 2


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ([], "answers prompts"),
        (["--point", "1"], "not 2 numbers"),
        (["--box", "1,2,3,4", "--point", "1,2"], "do not go together"),
    ],
)
def test_the_command_line_refuses_prompts_that_are_none(
    bundle: Bundle, tmp_path: Path, prompt: list[str], words: str
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), image())
    done = cli("predict", str(bundle.path), str(tmp_path / "a.png"), *prompt)
    assert done.returncode == 2
    assert words in done.stderr
