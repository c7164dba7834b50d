"""``--strict``: the class scores before the sigmoid, and limits that a good recipe reaches and an ordinary one does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

import edgecv
from edgecv.errors import AccuracyGateError, ConfigError
from edgecv.protocols import Array, Tensors
from edgecv.quantize.gate.accuracy_gate import GateReport
from edgecv.quantize.gate.class_scores import FloatScores, ScoreError, ScoreErrors, TappedSession, has_class_scores
from edgecv.quantize.gate.refusal import refusal
from edgecv.quantize.gate.strict import strictly, tightened
from edgecv.quantize.recipes import RECIPES, STRICT, GateLimits
from edgecv.quantize.record import Check
from edgecv.specs import TensorSpec

PIXELS = TensorSpec(name="image", role="image", shape=(2, 4, 4, 3), dtype="uint8", layout="NHWC")
NCHW = TensorSpec(name="scores", role="class/8", shape=(1, 3, 2, 2), dtype="float32", layout="NCHW")
NHWC = TensorSpec(
    name="stored", role="class/8", shape=(1, 2, 2, 3), dtype="int8", layout="NHWC", scale=0.5, zero_point=-10
)
BOXES = TensorSpec(name="boxes", role="box/8", shape=(1, 64, 2, 2), dtype="float32", layout="NCHW")
LOGITS = TensorSpec(name="logits", role="logits", shape=(1, 4), dtype="float32")


def scores(*cells: tuple[float, float, float]) -> Array:
    """Scores of four cells ``(1, 3, 2, 2)``; cells that are not named are background."""
    rows = [*cells, *[(-20.0, -20.0, -20.0)] * (4 - len(cells))]
    return np.array(rows, np.float32).T.reshape(1, 3, 2, 2)


def error_of(wanted: list[Array], found: list[Array], spec: TensorSpec = NCHW, other: TensorSpec = NCHW) -> ScoreError:
    floats = FloatScores()
    for at, tensor in enumerate(wanted):
        floats.look(at, {spec.name: tensor}, (spec,))
    errors = ScoreErrors(floats)
    for at, tensor in enumerate(found):
        errors.look(at, {other.name: tensor}, (other,))
    return errors.error()


def test_only_cells_count_in_which_the_float_model_sees_something() -> None:
    wanted = scores((2.0, -6.0, -8.0))
    found = wanted + 0.5
    found[0, :, 1, 1] = 30.0  # a cell of the background, however far off
    error = error_of([wanted], [found])
    assert error.metric == "logit_error"
    assert error.value == pytest.approx(0.25, abs=1e-3)
    assert error.count.tolist() == [3]


def test_stored_integers_are_compared_by_what_they_stand_for_whatever_their_layout() -> None:
    wanted = scores((2.0, -6.0, -8.0), (0.0, -1.0, -2.0))
    stored = (wanted / 0.5 - 10).transpose(0, 2, 3, 1).astype(np.int8)
    assert error_of([wanted], [stored], other=NHWC).squared.tolist() == [0.0]
    stored[0, 0, 0, 0] += 2  # one score, one whole
    assert error_of([wanted], [stored], other=NHWC).squared.tolist() == [1.0]


def test_each_image_has_an_error_of_its_own() -> None:
    wanted = scores((2.0, -6.0, -8.0))
    error = error_of([wanted, wanted, scores()], [wanted, wanted + 1, scores()])
    assert error.squared.tolist() == [0.0, 3.0, 0.0]
    assert error.count.tolist() == [3, 3, 0]


def test_of_a_classifier_the_error_is_a_share_of_how_far_its_scores_are_spread() -> None:
    wanted = [np.array([[0.0, 2.0, 4.0, -6.0]], np.float32), np.array([[8.0, 0.0, -4.0, -4.0]], np.float32)]
    small = error_of(wanted, [tensor + 0.5 for tensor in wanted], LOGITS, LOGITS)
    large = error_of([100 * t for t in wanted], [100 * t + 50 for t in wanted], LOGITS, LOGITS)
    assert small.metric == "logit_noise"
    assert small.value == pytest.approx(large.value) == pytest.approx(0.25 / np.concatenate(wanted).var())


class Session:
    """Two images per run; what it gives is the mean of each."""

    inputs, outputs, providers = (PIXELS,), (LOGITS,), ("mine",)
    closed = False

    def run(self, feeds: Tensors) -> dict[str, Array]:
        means = feeds["image"].reshape(2, -1).mean(axis=1, keepdims=True)
        return {"logits": np.repeat(means, 4, axis=1)}

    def close(self) -> None:
        self.closed = True


def test_the_empty_rows_of_the_last_batch_are_no_images() -> None:
    seen: list[tuple[int, float]] = []
    session = Session()
    tapped = TappedSession(session, 3, lambda at, outputs, _: seen.append((at, float(outputs["logits"][0, 0]))))
    rows = np.stack([np.full((4, 4, 3), value, np.uint8) for value in (1, 2, 3, 0)])
    for start in (0, 2):
        assert tapped.run({"image": rows[start : start + 2]})["logits"].shape == (2, 4)
    assert seen == [(0, 1.0), (1, 2.0), (2, 3.0)]
    tapped.close()
    assert session.closed


def test_a_model_without_class_scores_is_known_by_its_outputs() -> None:
    assert has_class_scores((BOXES, NCHW))
    assert not has_class_scores((BOXES,))


def test_the_figure_is_told_and_limited_under_strict_alone() -> None:
    error = ScoreError(metric="logit_error", squared=np.array([5.0]), count=np.array([10]))
    told, strict = error.check(GateLimits()), error.check(tightened(GateLimits()))
    assert (told.value, told.passed, told.limited) == (0.5, True, False)
    assert (strict.passed, strict.limited, strict.most) == (False, True, STRICT.logit_error)


def test_strict_never_loosens_what_a_recipe_asks_for() -> None:
    own = GateLimits(f1_50=0.99, score_bias=0.01, logit_error=0.02)
    found = tightened(own)
    assert (found.f1_50, found.score_bias, found.logit_error) == (0.99, 0.01, 0.02)
    assert found.f1_75 == STRICT.f1_75
    assert found.mask_iou == GateLimits().mask_iou
    # Each strict limit asks for at least what a recipe does by default.
    assert tightened(GateLimits()) == STRICT


# On the 32 held-out images of coco128: F1 at 0.5, at 0.75, and the error of the scores.
@pytest.mark.parametrize(
    ("f1_50", "f1_75", "error", "passes"),
    [
        (0.937, 0.937, 0.169, False),  # ort-u8s8, rounded to nearest
        (0.948, 0.942, 0.110, False),  # ov-mixed, likewise
        (0.935, 0.928, 0.174, False),  # litert-static, likewise
        (0.955, 0.952, 0.079, True),  # what rounding by second moments gives
    ],
)
def test_recipes_that_round_to_nearest_fail_and_better_ones_pass(
    f1_50: float, f1_75: float, error: float, passes: bool
) -> None:
    scores = ScoreError(metric="logit_error", squared=np.array([error]), count=np.array([1]))

    def report(limits: GateLimits) -> GateReport:
        checks = (Check.of("f1_50", f1_50, least=limits.f1_50), Check.of("f1_75", f1_75, least=limits.f1_75))
        return GateReport(recipe="ort-u8s8", checks=(*checks, scores.check(limits)))

    lenient, strict = report(GateLimits()), report(tightened(GateLimits()))
    assert lenient.passed
    assert strict.passed == passes
    assert strictly(strict, lenient).strict_alone != passes


def test_the_refusal_says_what_was_missed_and_that_it_would_pass_otherwise() -> None:
    check = Check.of("logit_error", 0.169, least=0.0, most=0.1)
    report = GateReport(recipe="ort-u8s8", checks=(check,), strict_alone=True)
    assert report.reason() == "logit_error 0.169 (limit 0.1); without --strict it passes"
    assert "Without --strict ort-u8s8 would be written" in refusal((), (), (report,)).hint
    assert "--strict" not in refusal((), (), (replace(report, strict_alone=False),)).hint


def test_strict_is_for_int8() -> None:
    with pytest.raises(ConfigError, match="--strict are for INT8"):
        edgecv.convert("resnet18", precision="fp32", int8=edgecv.Int8Options(strict=True))


def test_a_recipe_file_may_limit_the_error_of_the_scores() -> None:
    recipe = msgspec.structs.replace(RECIPES["ort-u8s8"], limits=GateLimits(logit_error=0.1))
    assert msgspec.json.decode(msgspec.json.encode(recipe), type=type(recipe)) == recipe


@pytest.mark.slow
def test_todays_recipe_fails_and_weights_alone_pass_on_a_trained_detector(
    yolov8n: Path, coco_images: list[Path], tmp_path: Path
) -> None:
    calibration = coco_images[0].parent

    def convert(recipe: str) -> edgecv.Bundle:
        options = edgecv.Int8Options(recipes=(recipe,), strict=True)
        return edgecv.convert(yolov8n, calibration=calibration, out=tmp_path / f"{recipe}.ecv", imgsz=320, int8=options)

    with pytest.raises(AccuracyGateError, match=r"logit_error .* without --strict it passes") as caught:
        convert("ort-u8s8")
    assert "Without --strict ort-u8s8 would be written" in caught.value.hint
    assert not list(tmp_path.iterdir())
    int8 = next(one for one in convert("ort-weights").variants if one.precision == "int8")
    assert int8.metrics["logit_error"] < 0.1
