"""Two recipes compared over images and seeds, with known answers."""

from __future__ import annotations

import numpy as np
import pytest

from edgecv.quantize.gate.accuracy_gate import GateReport
from edgecv.quantize.gate.class_scores import ScoreError
from edgecv.quantize.gate.paired import SEEDS, ImageFigures, compare_recipes, image_figures, over_seeds
from edgecv.quantize.recipes import FP16, RECIPES, QuantizeRecipe
from edgecv.quantize.record import Check, Comparison
from edgecv.quantize.search import Candidate, Judgement, RecipeOrder, SearchResult, search
from edgecv.results import Classification, Detections

IMAGES = 32
FIRST = (RECIPES["ort-u8s8"], RECIPES["ort-u8s8-float-stem"])
ORDER = RecipeOrder(first=FIRST, last=(RECIPES["ort-weights"], FP16), compare=True)


def figures(error: float = 1.0, f1: float = 0.95, seed: int = 0) -> ImageFigures:
    """Figures of 32 images that are unlike each other; ``seed`` adds what another sample of the calibration values does."""
    images, sample = np.random.default_rng(7), np.random.default_rng(seed)
    difficulty = images.lognormal(0, 1, IMAGES)
    boxes = images.integers(4, 20, IMAGES).astype(float)
    noise = sample.normal(1, 0.08) * sample.normal(1, 0.05, IMAGES).clip(0.5)
    same = sample.binomial(boxes.astype(int), f1)
    return ImageFigures(squared=error * difficulty * noise, same=same.astype(float), found=2 * boxes)


def three(error: float = 1.0, f1: float = 0.95, start: int = 0) -> ImageFigures:
    return over_seeds([figures(error, f1, start + seed) for seed in SEEDS])


def compared(ours: ImageFigures, theirs: ImageFigures) -> Comparison:
    return compare_recipes("a", "b", ours, theirs)


def test_a_recipe_is_no_better_than_itself() -> None:
    found = compared(three(), three())
    assert (found.error_ratio, found.error_low, found.error_high) == (1.0, 1.0, 1.0)
    assert (found.f1_gain, found.f1_low, found.f1_high) == (0.0, 0.0, 0.0)
    assert found.shown == ""
    assert (found.seeds, found.images) == (3, IMAGES)


def test_no_difference_is_shown_between_recipes_that_differ_by_chance() -> None:
    found = compared(three(), three(start=10))
    assert found.error_ratio != 1.0
    assert found.error_low < 1 < found.error_high
    assert found.shown == ""


def test_half_the_error_is_shown_and_twice_the_error_likewise() -> None:
    better = compared(three(), three(error=0.5, start=10))
    assert better.error_low < 0.5 * 1.2
    assert better.error_high < 1
    assert better.shown == "better"
    assert compared(three(), three(error=2.0, start=10)).shown == "worse"


def test_boxes_alone_can_show_it() -> None:
    ours, theirs = three(f1=0.7), three(f1=0.99)
    found = compared(ours, ImageFigures(squared=ours.squared, same=theirs.same, found=theirs.found))
    assert found.f1_low > 0
    assert found.shown == "better"


def test_nothing_is_shown_where_the_two_measures_contradict_each_other() -> None:
    found = compared(three(f1=0.99), three(error=0.5, f1=0.7, start=10))
    assert found.error_high < 1
    assert found.f1_high < 0
    assert found.shown == ""


def test_seeds_that_disagree_widen_the_interval() -> None:
    steady = over_seeds([figures(0.9, seed=10)] * 3)
    mixed = over_seeds([figures(error, seed=10) for error in (0.5, 0.9, 1.3)])
    ours = over_seeds([figures()] * 3)
    narrow, wide = compared(ours, steady), compared(ours, mixed)
    assert wide.error_high - wide.error_low > 3 * (narrow.error_high - narrow.error_low)
    assert wide.shown == ""


def test_two_recipes_of_equal_worth_are_seldom_told_apart() -> None:
    pairs = [compared(three(start=10 * at), three(start=10 * at + 5)) for at in range(1, 41)]
    assert sum(found.shown != "" for found in pairs) <= 3  # a plain bootstrap over three seeds tells 6 of them apart


def test_the_same_figures_give_the_same_interval() -> None:
    assert compared(three(), three(0.7, start=10)) == compared(three(), three(0.7, start=10))


def test_models_without_any_error_or_any_box_can_be_compared() -> None:
    nothing = over_seeds([ImageFigures(squared=np.zeros(4), same=np.zeros(4), found=np.zeros(4))] * 3)
    found = compared(nothing, nothing)
    assert (found.error_ratio, found.f1_gain, found.shown) == (1.0, 0.0, "")


def test_figures_of_an_image_come_from_its_boxes_or_its_class() -> None:
    box = np.array([[0, 0, 10, 10], [20, 20, 30, 30]], np.float32)
    both = Detections(xyxy=box, confidence=np.ones(2, np.float32), class_id=np.zeros(2, np.int64))
    error = ScoreError(metric="logit_error", squared=np.array([3.0, 0.0]), count=np.array([1, 1]))
    found = image_figures([both, both], [both[:1], both], error)
    assert (found.same.tolist(), found.found.tolist(), found.squared.tolist()) == ([1, 2], [3, 4], [3, 0])
    cat, dog = (Classification(class_id=np.array([n]), confidence=np.ones(1, np.float32)) for n in (0, 1))
    found = image_figures([cat, cat], [cat, dog], error)
    assert (found.same.tolist(), found.found.tolist()) == ([1, 0], [2, 2])


def searched(
    errors: dict[str, float], refused: tuple[str, ...] = (), float_ms: float | None = None
) -> tuple[SearchResult, list[QuantizeRecipe]]:
    """A search over recipes with these errors; ``refused`` ones fail the gate, others are not named and take an error of 1."""
    tried: list[QuantizeRecipe] = []

    def make(recipe: QuantizeRecipe) -> Candidate:
        tried.append(recipe)
        plain = recipe.name.removesuffix(f"-seed-{recipe.seed}")
        f1 = Check.of("f1_50", 0.0 if plain in refused else 0.95, least=0.9)
        judgement = Judgement(
            report=GateReport(recipe=recipe.name, checks=(f1,)),
            images=figures(errors.get(plain, 1.0), seed=recipe.seed + 100 * len(plain)),
        )
        return Candidate(recipe=recipe, parts={}, judgement=judgement, latency_ms=5.0, bytes=1)

    return search(ORDER, make, lambda _: (), float_ms), tried


def test_all_static_recipes_are_made_with_three_seeds_and_the_first_stands_where_nothing_is_shown() -> None:
    found, tried = searched({})
    assert [(recipe.name, recipe.seed) for recipe in tried] == [
        ("ort-u8s8", 0),
        ("ort-u8s8-seed-1", 1),
        ("ort-u8s8-seed-2", 2),
        ("ort-u8s8-float-stem", 0),
        ("ort-u8s8-float-stem-seed-1", 1),
        ("ort-u8s8-float-stem-seed-2", 2),
    ]
    assert found.chosen.recipe.name == "ort-u8s8"
    (comparison,) = found.comparisons
    assert (comparison.first, comparison.second, comparison.shown) == ("ort-u8s8", "ort-u8s8-float-stem", "")
    assert len(found.attempts) == 6


def test_another_recipe_is_taken_where_it_is_shown_to_be_better_and_its_first_seed_is_written() -> None:
    found, _ = searched({"ort-u8s8-float-stem": 0.5})
    assert found.chosen.recipe == FIRST[1]
    assert found.comparisons[0].shown == "better"


def test_what_the_gate_refuses_is_not_compared() -> None:
    found, tried = searched({}, refused=("ort-u8s8",))
    assert [recipe.name for recipe in tried][:2] == ["ort-u8s8", "ort-u8s8-float-stem"]
    assert found.chosen.recipe.name == "ort-u8s8-float-stem"
    assert found.comparisons == ()
    found, tried = searched({}, refused=("ort-u8s8", "ort-u8s8-float-stem"))
    assert found.chosen.recipe.name == "ort-weights"
    assert len({recipe.name for recipe in tried}) == len(tried)


@pytest.mark.parametrize(("float_ms", "chosen"), [(10.0, "ort-u8s8"), (4.0, "ort-u8s8")])
def test_where_speed_counts_the_next_class_of_cost_comes_after_a_slow_winner(float_ms: float, chosen: str) -> None:
    found, tried = searched({}, float_ms=float_ms)
    assert found.chosen.recipe.name == chosen
    assert (tried[-1].name == "ort-weights") == (float_ms < 5.0)
