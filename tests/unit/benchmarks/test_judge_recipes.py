"""The parts of ``judge_recipes``: intervals over pictures and seeds, errors of logits, matches, options and tables."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from edgecv._internal.progress import silent
from edgecv.benchmarks.lab.cross_split import split_by_content
from edgecv.benchmarks.lab.recipes.asked import JudgeOptions, Side, sides_of
from edgecv.benchmarks.lab.recipes.bundles import OPEN_LIMITS, BundleMaker
from edgecv.benchmarks.lab.recipes.evidence import Candidate, FormatEvidence
from edgecv.benchmarks.lab.recipes.intervals import Estimate, Plan, drawn, ratio_of_sums
from edgecv.benchmarks.lab.recipes.judging import Failed, Judged, Verdicts, compared
from edgecv.benchmarks.lab.recipes.logits import class_logits, logits_error
from edgecv.benchmarks.lab.recipes.matches import MatchLog
from edgecv.benchmarks.lab.recipes.pictures import Part, Pictures, halves_of, open_pictures
from edgecv.benchmarks.lab.recipes.tables import NOT_SHOWN, document, markdown, picture_lines, verdict
from edgecv.errors import ConfigError
from edgecv.quantize.gate.accuracy_gate import judge as gate
from edgecv.quantize.gate.boxes import Agreement
from edgecv.quantize.labels.average_precision import mean_precision
from edgecv.quantize.labels.coco import Truth, match_boxes
from edgecv.quantize.recipe_files import dump_recipe
from edgecv.quantize.recipes import RECIPES
from edgecv.specs import TensorSpec
from tests.models import bright_cell, write_bundle
from tests.unit.quantize.test_bootstrap import CLASSES, images

NAN = float("nan")


def mean_of(values: np.ndarray, plan: Plan) -> Estimate:
    return drawn(ratio_of_sums(values, np.ones_like(values)), plan).estimate()


def test_the_interval_over_pictures_is_that_of_the_standard_error() -> None:
    values = np.random.default_rng(3).normal(2.0, 0.5, (1, 400))
    found = mean_of(values, Plan(seeds=1, pictures=400))
    error = values.std() / 20
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_seeds_that_differ_widen_the_interval_by_their_own_standard_error() -> None:
    by_seed = np.array([0.0, 0.1, 0.2])
    values = np.repeat(by_seed[:, None], 50, axis=1)
    found = drawn(ratio_of_sums(values, np.ones_like(values)), Plan(seeds=3, pictures=50))
    assert found.value == pytest.approx(0.1)
    assert found.draws.var() == pytest.approx(by_seed.var(ddof=1) / 3, rel=0.1)
    alone = mean_of(values[:1], Plan(seeds=1, pictures=50))
    assert (alone.low, alone.high) == (0.0, 0.0)


def test_a_drawn_picture_counts_for_every_seed() -> None:
    """What all seeds find hard does not average out over seeds."""
    hard = np.random.default_rng(5).normal(0.0, 1.0, 200)
    one, five = (mean_of(np.tile(hard, (seeds, 1)), Plan(seeds=seeds, pictures=200)) for seeds in (1, 5))
    assert five.high - five.low == pytest.approx(one.high - one.low, rel=0.1)


def test_what_is_hard_for_both_cancels_in_a_difference() -> None:
    random = np.random.default_rng(7)
    hard, plan = random.normal(0.0, 5.0, (3, 100)), Plan(seeds=3, pictures=100)
    other = hard + 0.1 + random.normal(0.0, 0.01, (3, 100))
    first, second = (drawn(ratio_of_sums(v, np.ones_like(v)), plan) for v in (hard, other))
    difference = second.against(first, "difference")
    assert first.estimate().high - first.estimate().low > 1
    assert 0.09 < difference.low < 0.1 < difference.high < 0.11


def test_a_ratio_of_errors_is_one_of_sums_and_the_draws_are_the_same_each_time() -> None:
    errors, plan = np.random.default_rng(9).uniform(1, 2, (2, 64)), Plan(seeds=2, pictures=64)
    first, half = (drawn(ratio_of_sums(e, np.ones_like(e)), plan) for e in (errors, errors / 2))
    assert half.against(first, "ratio") == Estimate(value=0.5, low=0.5, high=0.5)
    assert first.estimate() == mean_of(errors, plan)
    other = Plan(seeds=2, pictures=64, seed=1)
    assert first.estimate() != mean_of(errors, other)


def test_a_draw_without_anything_to_divide_by_is_left_out() -> None:
    under = np.zeros((1, 3))
    assert np.isnan(drawn(ratio_of_sums(under, under), Plan(seeds=1, pictures=3)).estimate().low)
    under[0, 0] = 2.0
    assert drawn(ratio_of_sums(under, under), Plan(seeds=1, pictures=3)).estimate() == Estimate(value=1, low=1, high=1)


def test_relevant_cells_are_those_in_which_the_float_model_sees_something() -> None:
    teacher = np.array([[-2.0, -9.0, -3.1], [-7.0, -8.0, -3.2]], np.float32)  # best: 0.12, 0.0003, 0.043
    student = teacher + np.array([[0.5, 1.0, 0.0], [0.0, 2.0, 3.0]], np.float32)
    found = logits_error(teacher, student)
    assert (found["relevant_error"], found["relevant_norm"], found["relevant_values"]) == (0.25, 53.0, 2.0)
    assert found["error"] == pytest.approx(0.25 + 1 + 4 + 9)
    assert found["values"] == 6


def test_logits_are_real_values_of_the_class_outputs_finest_grid_first() -> None:
    coarse = np.arange(2, dtype=np.float32).reshape(1, 2, 1, 1)
    fine = np.arange(8, dtype=np.int8).reshape(1, 2, 2, 2)  # NHWC: two channels
    specs = (
        TensorSpec(name="b", role="class/16", shape=(1, 2, 1, 1), dtype="float32", layout="NCHW"),
        TensorSpec(name="a", role="class/8", shape=(1, 2, 2, 2), dtype="int8", layout="NHWC", scale=0.5, zero_point=2),
        TensorSpec(name="x", role="box/8", shape=(1, 4, 2, 2), dtype="float32", layout="NCHW"),
    )
    found = class_logits({"a": fine, "b": coarse}, specs)
    assert found is not None
    np.testing.assert_array_equal(found, [[-1, 0, 1, 2, 0], [-0.5, 0.5, 1.5, 2.5, 1]])
    assert class_logits({"x": coarse}, specs[2:]) is None


def test_matches_of_pictures_one_by_one_are_those_of_all_at_once() -> None:
    pairs = images(120, seed=2)
    log = MatchLog(CLASSES, len(pairs))
    for place in np.random.default_rng(0).permutation(len(pairs)):  # as halves come
        log.add(int(place), *pairs[place])
    wanted, found, once = match_boxes(pairs, CLASSES), log.matches(), np.ones((1, len(pairs)), np.int64)
    np.testing.assert_array_equal(found.labels, wanted.labels)
    np.testing.assert_array_equal(found.hit.sum(axis=1), wanted.hit.sum(axis=1))
    assert mean_precision(found, once) == pytest.approx(mean_precision(wanted, once), abs=1e-12)


def test_without_recipes_the_first_of_each_format_is_judged() -> None:
    sides = sides_of(JudgeOptions())
    assert [side.format for side in sides] == ["onnx", "openvino", "tflite"]
    assert [side.recipe.name for side in sides][:2] == ["ort-u8s8-gptq", "ov-mixed-gptq"]


def test_named_recipes_say_which_formats_there_are(tmp_path: Path) -> None:
    file = tmp_path / "recipe.json"
    file.write_bytes(dump_recipe(msgspec.structs.replace(RECIPES["ort-u8s8"], name="mine")))
    sides = sides_of(JudgeOptions(recipes=("litert-static", str(file), "fp16")))
    told = [(side.format, side.recipe.name) for side in sides]
    assert told == [("tflite", "litert-static"), ("tflite", "fp16"), ("onnx", "mine"), ("onnx", "fp16")]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"recipes": ("ort-u8s9",)}, "no recipe 'ort-u8s9'"),
        ({"recipes": ("ov-mixed",), "formats": ("onnx",)}, "is for openvino"),
        ({"recipes": ("ov-mixed", "ov-mixed")}, "the same name"),
        ({"formats": ("ncnn",)}, "no format 'ncnn'"),
        ({"seeds": 0}, "--seeds 0"),
        ({"limit": 0}, "no picture"),
        ({"map_resamples": 5}, "--map-resamples 5"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_next_step(options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        sides_of(JudgeOptions(**options))  # type: ignore[arg-type]
    assert caught.value.hint


def write_pictures(root: Path, count: int) -> Path:
    """Black pictures with one bright cell, which is labelled."""
    for name in ("images", "labels"):
        (root / name).mkdir(parents=True)
    for number in range(count):
        row, column = divmod(number % 16, 4)
        image = bright_cell(row, column)
        image[0, 0] = number  # no two have the same content
        cv2.imwrite(str(root / f"images/{number:03d}.png"), image)
        label = f"0 {(column + 0.5) / 4} {(row + 0.5) / 4} 0.25 0.25\n"
        (root / f"labels/{number:03d}.txt").write_text(label, encoding="utf-8")
    return root


def test_halves_are_those_of_cross_split_and_another_split_makes_others(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "data", 40)
    pictures = open_pictures(data, "detect", ("bright", "never"))
    first = halves_of(pictures, tmp_path)
    wanted = split_by_content(pictures.paths)
    assert [[pictures.paths[at] for at in part.judged] for part in first] == [wanted[1], wanted[0]]
    for part in first:
        calibrated = {path.resolve() for path in part.calibration.iterdir()}
        assert calibrated.isdisjoint(pictures.paths[at] for at in part.judged)
        assert len(calibrated) + len(part.judged) == 40
    (tmp_path / "other").mkdir()
    assert {part.contents for part in halves_of(pictures, tmp_path / "other", split=1)}.isdisjoint(
        part.contents for part in first
    )


def test_a_limit_takes_the_same_pictures_each_time_and_too_few_are_refused(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "data", 40)
    some = open_pictures(data, "detect", ("bright",), limit=32)
    assert some.contents == open_pictures(data, "detect", ("bright",)).contents[:32]
    with pytest.raises(ConfigError, match="gives 8 different pictures"):
        open_pictures(data, "detect", ("bright",), limit=8)


def test_open_limits_pass_what_every_gate_would_refuse() -> None:
    worst = Agreement(f1_50=0.0, f1_75=0.0, matched_iou=0.0, score_bias=-0.9, teacher_boxes=100)
    assert gate(worst, OPEN_LIMITS, "bad").passed
    assert not gate(worst, RECIPES["ort-u8s8"].limits, "bad").passed


def test_a_bundle_is_found_again_by_all_that_it_was_made_from(tmp_path: Path) -> None:
    source = tmp_path / "model.onnx"
    source.write_bytes(b"1")
    part = Part(name="half0", calibration=tmp_path, contents="abc", judged=())
    side = Side(format="onnx", recipe=RECIPES["ort-u8s8"])

    def name(asked: JudgeOptions, side: Side = side, seed: int = 0, part: Part = part) -> str:
        maker = BundleMaker(source=source, asked=asked, folder=tmp_path, progress=silent)
        return maker._name(side, seed, part)

    changed = msgspec.structs.replace(side.recipe, subset_size=20)
    names = [
        name(JudgeOptions()),
        name(JudgeOptions(imgsz=320)),
        name(JudgeOptions(), side=Side(format="onnx", recipe=changed)),
        name(JudgeOptions(), seed=1),
        name(JudgeOptions(), part=Part(name="half0", calibration=tmp_path, contents="abd", judged=())),
    ]
    lax = msgspec.structs.replace(side.recipe, limits=OPEN_LIMITS)
    assert names[0] == name(JudgeOptions(seeds=1, limit=5)) == name(JudgeOptions(), Side(format="onnx", recipe=lax))
    source.write_bytes(b"2")
    assert len({*names, name(JudgeOptions())}) == 6


def test_equal_models_agree_in_everything(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "data", 32)
    pictures = open_pictures(data, "detect", ("bright", "never"))
    bundle = write_bundle(tmp_path / "tiny.ecv")
    sides = [Side(format="onnx", recipe=RECIPES[name]) for name in ("ort-u8s8", "ort-u8s7-x86")]
    gathered = FormatEvidence.of(sides, pictures, seeds=2, classes=2)
    for part in halves_of(pictures, tmp_path):
        candidates = [Candidate(side=side, row=row, bundle=bundle) for side in sides for row in (0, 1)]
        gathered.gather(candidates, part, silent, at_once=3)
    first, second = compared(gathered, resamples=100, map_resamples=100)
    assert first.figures["f1_50"] == Estimate(value=1.0, low=1.0, high=1.0)
    assert first.figures["map50_95"].value > 0.5
    assert first.figures["map50_95_loss"] == Estimate(value=0.0, low=0.0, high=0.0)
    assert not first.against
    assert verdict(second.against["f1_50"], "f1_50") == NOT_SHOWN


def test_a_student_that_misses_a_box_loses_it_in_f1_and_in_map(tmp_path: Path) -> None:
    evidence = FormatEvidence.of(
        [Side(format="onnx", recipe=RECIPES["ort-u8s8"])],
        Pictures(paths=(Path("a.png"), Path("b.png")), contents=("a", "b")),
        seeds=1,
        classes=CLASSES,
    )
    own, (first, second) = evidence.sides["ort-u8s8"], images(2, seed=4)
    for place, (truth, found) in enumerate((first, second)):
        assert evidence.floats is not None
        evidence.floats.add(place, truth, found)
        kept = found if place else found[found.confidence > 2]  # all of them, or none
        own.logs[0].add(place, truth, kept)
        own.put(0, place, {"boxes": 10.0 if place else 5.0, "hits_50": 5.0 if place else 0.0})
    (judged,) = compared(evidence, resamples=100, map_resamples=100)
    assert judged.figures["f1_50"].value == pytest.approx(2 * 5 / 15)
    assert judged.figures["map50_95_loss"].value > 0


@pytest.mark.parametrize(
    ("estimate", "name", "word"),
    [
        ((0.02, 0.01, 0.03), "f1_50", "better"),
        ((-0.02, -0.03, -0.01), "f1_50", "worse"),
        ((0.01, -0.01, 0.03), "f1_50", NOT_SHOWN),
        ((0.01, 0.0, 0.03), "f1_50", NOT_SHOWN),
        ((0.5, 0.4, 0.6), "relevant_mse", "better"),
        ((1.2, 1.1, 1.3), "relevant_mse", "worse"),
        ((0.9, 0.8, 1.1), "relevant_mse", NOT_SHOWN),
        ((0.01, 0.005, 0.02), "map50_95_loss", "worse"),
        ((0.5, NAN, NAN), "f1_50", NOT_SHOWN),
    ],
)
def test_a_word_is_said_only_where_the_interval_shows_it(
    estimate: tuple[float, float, float], name: str, word: str
) -> None:
    value, low, high = estimate
    assert verdict(Estimate(value=value, low=low, high=high), name) == word


def test_tables_and_documents_hold_the_figures_and_what_failed() -> None:
    good, same = Estimate(value=0.9, low=0.8, high=0.95), Estimate(value=0.01, low=-0.01, high=0.02)
    found = Verdicts(
        source="m.pt",
        data="d",
        pictures=128,
        seeds=(0,),
        parts=("half0", "half1"),
        judged=(
            Judged(format="onnx", recipe="a", figures={"f1_50": good}),
            Judged(format="onnx", recipe="b", figures={"f1_50": good}, against={"f1_50": same}),
        ),
        failed=(Failed(format="tflite", recipe="c", message="It cannot."),),
    )
    text = markdown(found)
    assert "| onnx | a | 0.900 [0.800, 0.950] |" in text
    assert "| onnx | b against a | +0.010 [-0.010, +0.020] no difference shown |" in text
    assert "tflite c gave no model: It cannot." in text
    assert "1 seed: intervals cover pictures alone" in text
    told = json.loads(json.dumps(document(found), allow_nan=False))
    assert told["recipes"][1]["against_first"]["f1_50"]["verdict"] == NOT_SHOWN
    assert told["failed"][0]["recipe"] == "c"
    assert list(picture_lines(found)) == []


def test_truth_of_a_picture_is_kept_with_it(tmp_path: Path) -> None:
    pictures = open_pictures(write_pictures(tmp_path / "data", 33), "detect", ("bright", "never"))
    assert pictures.truth is not None
    for path, truth in zip(pictures.paths, pictures.truth, strict=True):
        assert isinstance(truth, Truth)
        row, column = divmod(int(path.stem) % 16, 4)
        np.testing.assert_allclose(truth.xyxy[0], [column / 4, row / 4, (column + 1) / 4, (row + 1) / 4])
