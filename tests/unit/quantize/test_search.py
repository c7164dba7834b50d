"""The search for a recipe, run with figures that are written down instead of measured."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from edgecv.errors import AccuracyGateError, CalibrationError, QuantizationError
from edgecv.quantize.gate.accuracy_gate import GateReport
from edgecv.quantize.recipes import FP16, RECIPES, QuantizeRecipe
from edgecv.quantize.record import Check, LayerLoss
from edgecv.quantize.search import NOT_FASTER, Candidate, Judgement, RecipeOrder, SearchResult, search

FLOAT_MS = 10.0
LIMIT = 0.9
FIRST = (RECIPES["ort-u8s8"], RECIPES["ort-u8s8-float-stem"])
ORDER = RecipeOrder(first=FIRST, last=(RECIPES["ort-weights"], FP16), cpu_class="x86-vnni")
LAYERS = tuple(LayerLoss(name=f"conv{n}", sqnr_db=5.0 + n) for n in range(6))

# By recipe: F1 and milliseconds, or the error it ends in. What is not named gives an F1 of 0.
Figures = Mapping[str, tuple[float, float] | Exception]


def searched(
    figures: Figures, order: RecipeOrder = ORDER, *, foreign: bool = False
) -> tuple[SearchResult, list[QuantizeRecipe]]:
    tried: list[QuantizeRecipe] = []

    def make(recipe: QuantizeRecipe) -> Candidate:
        tried.append(recipe)
        found = figures.get(recipe.name, (0.0, 1.0))
        if isinstance(found, Exception):
            raise found
        f1, latency_ms = found
        check = Check.of("f1_50", f1, least=LIMIT)
        report = GateReport(recipe=recipe.name, checks=(check,))
        return Candidate(
            recipe=recipe, parts={}, judgement=Judgement(report=report), latency_ms=latency_ms, bytes=1, foreign=foreign
        )

    return search(order, make, lambda _: LAYERS, FLOAT_MS), tried


def outcome(found: SearchResult) -> list[tuple[str, bool, str]]:
    return [(attempt.recipe, attempt.passed, attempt.reason) for attempt in found.attempts]


def test_the_first_recipe_that_is_accurate_and_fast_ends_it() -> None:
    found, _ = searched({"ort-u8s8": (0.8, 3.0), "ort-u8s8-float-stem": (0.95, 4.0)})
    assert found.chosen.recipe.name == "ort-u8s8-float-stem"
    assert outcome(found) == [("ort-u8s8", False, "f1_50 0.800 (limit 0.9)"), ("ort-u8s8-float-stem", True, "")]
    assert found.attempts[1].latency_ms == 4.0


def test_a_recipe_that_the_runtime_would_not_fuse_is_an_attempt_with_its_reason() -> None:
    found, _ = searched({"ort-u8s8": QuantizationError("only 0 of 9 as integers"), "ort-u8s8-float-stem": (0.95, 4.0)})
    assert outcome(found)[0] == ("ort-u8s8", False, "only 0 of 9 as integers")
    assert found.chosen.recipe.name == "ort-u8s8-float-stem"


def test_the_most_sensitive_blocks_of_the_nearest_recipe_become_float_one_after_the_other() -> None:
    figures = {"ort-u8s8": (0.88, 3.0), "ort-u8s8-float-stem": (0.7, 3.0), "ort-u8s8-float-4": (0.92, 5.0)}
    found, tried = searched(figures)
    assert [(r.name, r.float_layers) for r in tried[2:]] == [
        ("ort-u8s8-float-1", ("conv0",)),
        ("ort-u8s8-float-2", ("conv0", "conv1")),
        ("ort-u8s8-float-4", ("conv0", "conv1", "conv2", "conv3")),
    ]
    assert found.chosen.recipe == tried[-1]
    assert found.layers == LAYERS


def test_what_is_accurate_but_slow_is_marked_and_only_other_kinds_are_tried_after_it() -> None:
    found, tried = searched({"ort-u8s8": (0.95, 12.0), "ort-weights": (0.99, 11.0)})
    assert [recipe.name for recipe in tried] == ["ort-u8s8", "ort-weights"]
    assert outcome(found) == [("ort-u8s8", True, NOT_FASTER), ("ort-weights", True, NOT_FASTER)]
    assert found.chosen.recipe.name == "ort-weights"  # the faster of the two


def test_int8_weights_and_then_fp16_come_when_integers_fail() -> None:
    found, tried = searched({"fp16": (0.999, 11.0)})
    assert [recipe.name for recipe in tried[-2:]] == ["ort-weights", "fp16"]
    assert found.chosen.recipe.name == "fp16"
    found, tried = searched({"ort-weights": (0.99, 11.0), "fp16": (0.999, 9.0)})
    assert tried[-1].name == "ort-weights"
    assert found.chosen.recipe.name == "ort-weights"


def test_the_speed_of_what_another_cpu_runs_is_not_judged_here() -> None:
    found, tried = searched({"ort-u8s8": (0.95, 99.0)}, foreign=True)
    assert [recipe.name for recipe in tried] == ["ort-u8s8"]
    assert outcome(found) == [("ort-u8s8", True, "")]
    assert found.attempts[0].latency_ms is None


def test_nothing_is_chosen_when_no_recipe_passes_and_the_error_says_where_it_is_lost() -> None:
    with pytest.raises(AccuracyGateError) as caught:
        searched({"ort-u8s8-float-stem": QuantizationError("not fused"), "ort-u8s8": (0.7, 3.0)})
    message = caught.value.message
    for name in ("ort-u8s8: f1_50 0.700 (limit 0.9)", "ort-u8s8-float-stem: not fused", "ort-u8s8-float-4", "fp16"):
        assert name in message
    assert "Most is lost in conv0 (5.0 dB), conv1 (6.0 dB), conv2 (7.0 dB)" in message
    assert "Nothing was written" in caught.value.hint
    assert isinstance(caught.value.report, GateReport)
    assert caught.value.exit_code == 3


def test_a_named_recipe_is_all_that_is_tried() -> None:
    plan = RecipeOrder(first=FIRST[:1], exact=True)
    found, tried = searched({"ort-u8s8": (0.95, 12.0)}, plan)
    assert (found.chosen.recipe.name, len(tried)) == ("ort-u8s8", 1)
    with pytest.raises(AccuracyGateError, match="not fused"):
        searched({"ort-u8s8": QuantizationError("not fused")}, plan)


def test_images_that_prove_nothing_end_the_search() -> None:
    with pytest.raises(CalibrationError):
        searched({"ort-u8s8": CalibrationError("nothing to see")})
