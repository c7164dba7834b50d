"""Input shapes: what an image wastes in one, and which one it gets."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, strategies

from edgecv.errors import ConfigError
from edgecv.vision.input_shapes import (
    best_shape,
    better_fit,
    check_frame_size,
    fill_of,
    fitted_size,
    loss_of,
    read_fit,
    scale_of,
    shapes_for,
    told_waste,
)

SQUARE, WIDE, PHOTO, TALL = (640, 640), (640, 384), (640, 480), (384, 640)
HD, VGA, UPRIGHT = (1920, 1080), (640, 480), (1080, 1920)


@pytest.mark.parametrize(
    ("text", "fit"),
    [
        ("16:9", (16, 9)),
        ("4:3", (4, 3)),
        ("9:16", (9, 16)),
        ("1920:1080", (16, 9)),
        (" 016:09 ", (16, 9)),
        ("4:1", (4, 1)),
    ],
)
def test_a_shape_is_two_numbers_without_a_common_divisor(text: str, fit: tuple[int, int]) -> None:
    assert read_fit(text) == fit


@pytest.mark.parametrize(
    "text",
    ["0:1", "1:0", "16x9", "abc", "100:1", "1:5", "", ":", "16:", "16:9:1", "-16:9", "1.85:1", "１６:９", "16:9\n4:3", "1e9:1",
     "999999:999998"],
)  # fmt: skip
def test_what_is_no_shape_is_wrong_usage_with_the_next_step(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_fit(text)
    assert caught.value.exit_code == 2
    assert "--fit 16:9" in caught.value.hint


@pytest.mark.parametrize(
    ("fit", "longest", "size"),
    [
        ((16, 9), 640, (640, 384)),
        ((4, 3), 640, (640, 480)),
        ((9, 16), 640, (384, 640)),
        ((3, 4), 640, (480, 640)),
        ((16, 9), 320, (320, 192)),
        ((4, 3), 320, (320, 256)),
        ((1, 1), 640, (640, 640)),
        ((21, 9), 640, (640, 288)),
        ((4, 1), 640, (640, 160)),
    ],
)
def test_the_shorter_side_is_rounded_up_to_the_stride(
    fit: tuple[int, int], longest: int, size: tuple[int, int]
) -> None:
    assert fitted_size(fit, longest, 32) == size


def test_a_coarser_stride_makes_a_coarser_shape() -> None:
    assert fitted_size((4, 3), 640, 64) == (640, 512)


@given(strategies.integers(1, 40), strategies.integers(1, 40), strategies.integers(1, 40))
def test_an_image_is_as_large_in_its_shape_as_in_the_square(width: int, height: int, steps: int) -> None:
    longest = 32 * steps
    size = fitted_size((width, height), longest, 32)
    frame = (width * 100, height * 100)
    assert max(size) == longest
    assert all(side % 32 == 0 for side in size)
    assert scale_of(frame, size) == pytest.approx(scale_of(frame, (longest, longest)))
    assert fill_of(frame, size) >= fill_of(frame, (longest, longest)) - 1e-9


def test_the_fill_is_the_covered_part_of_the_area() -> None:
    assert fill_of(HD, SQUARE) == pytest.approx(0.5625)
    assert fill_of(HD, WIDE) == pytest.approx(360 / 384)
    assert fill_of(VGA, SQUARE) == pytest.approx(0.75)
    assert fill_of((5, 5), SQUARE) == 1


@pytest.mark.parametrize(
    ("frame", "shapes", "best"),
    [
        (HD, (SQUARE, WIDE), WIDE),
        (UPRIGHT, (SQUARE, WIDE), SQUARE),
        (UPRIGHT, (SQUARE, WIDE, TALL), TALL),
        (VGA, (SQUARE, WIDE), SQUARE),  # in the wide shape objects would be a fifth smaller
        (VGA, (SQUARE, WIDE, PHOTO), PHOTO),
        ((1280, 800), (SQUARE, WIDE), WIDE),  # 16:10 loses four hundredths of its scale
        ((500, 500), (WIDE, SQUARE), SQUARE),
        (HD, (SQUARE,), SQUARE),
        (HD, (WIDE, WIDE), WIDE),
    ],
)
def test_an_image_gets_the_shape_that_wastes_least_and_does_not_shrink_it(
    frame: tuple[int, int], shapes: tuple[tuple[int, int], ...], best: tuple[int, int]
) -> None:
    assert best_shape(frame, shapes) == best


def test_a_shape_that_makes_objects_small_wastes_everything() -> None:
    assert loss_of(VGA, WIDE, (SQUARE, WIDE)) == 1
    assert loss_of(VGA, WIDE, (WIDE,)) == pytest.approx(1 - 512 / 640)


@pytest.mark.parametrize(
    ("frames", "wanted"),
    [
        ([HD], (WIDE,)),
        ([HD, HD, HD], (WIDE,)),
        ([HD, VGA], (WIDE, PHOTO)),
        ([VGA, HD], (WIDE, PHOTO)),  # in the order of the bundle
        ([HD, VGA, UPRIGHT], (PHOTO, TALL)),  # the wide camera shares the shape of the other one
        ([HD, HD, HD, VGA, (500, 500)], (SQUARE, WIDE)),
    ],
)
def test_many_cameras_share_two_shapes_at_most(
    frames: list[tuple[int, int]], wanted: tuple[tuple[int, int], ...]
) -> None:
    assert shapes_for(frames, (SQUARE, WIDE, PHOTO, TALL)) == wanted


def test_as_many_shapes_as_a_bundle_may_have_are_compared_in_no_time() -> None:
    shapes = [(640, 32 + number) for number in range(256)]
    began = time.monotonic()
    assert len(shapes_for([(640, 50 + 10 * number) for number in range(16)], shapes)) == 2
    assert time.monotonic() - began < 15


@given(strategies.lists(strategies.tuples(strategies.integers(1, 4000), strategies.integers(1, 4000)), min_size=1))
def test_no_two_shapes_waste_less_in_all_than_the_chosen_ones(frames: list[tuple[int, int]]) -> None:
    shapes = (SQUARE, WIDE, PHOTO, TALL)

    def total(chosen: tuple[tuple[int, int], ...]) -> float:
        return sum(min(loss_of(frame, shape, shapes) for shape in chosen) for frame in frames)

    found = shapes_for(frames, shapes)
    assert len(found) <= 2
    assert total(found) <= min(total((one, other)) for one in shapes for other in shapes) + 1e-5


@pytest.mark.parametrize(
    ("frame", "size", "fit"),
    [
        (HD, SQUARE, "16:9"),
        ((768, 576), SQUARE, "4:3"),
        (UPRIGHT, SQUARE, "9:16"),
        ((1280, 1024), SQUARE, "5:4"),
        ((2560, 1600), SQUARE, "16:9"),  # as good as a shape of its own, and more usual
        (HD, WIDE, ""),
        ((800, 600), PHOTO, ""),
        ((600, 600), SQUARE, ""),
        ((640, 600), SQUARE, ""),  # 6 % are not worth another variant
        (HD, PHOTO, "16:9"),
    ],
)
def test_a_better_shape_is_named_where_it_is_worth_it(frame: tuple[int, int], size: tuple[int, int], fit: str) -> None:
    assert better_fit(frame, size) == fit
    assert (f"--fit {fit}`" in told_waste(frame, size)) == bool(fit)


def test_waste_is_told_in_one_sentence() -> None:
    fills, helps = told_waste(HD, SQUARE).split("; ")
    assert fills == "frames of 1920 x 1080 fill 56 % of the model's 640 x 640 input"
    assert helps == "`edgecv convert --fit 16:9` makes a model that wastes less"


@pytest.mark.parametrize(
    "size", [0, (1920,), (1920, 0), (1920, -1), (1.5, 2), ("a", "b"), (True, True), "16:9", (1, 1 << 20)]
)
def test_what_is_no_size_of_an_image_is_refused(size: object) -> None:
    with pytest.raises(ConfigError, match="fit"):
        check_frame_size(size)


def test_the_size_of_an_image_may_be_a_list() -> None:
    assert check_frame_size([1920, 1080]) == (1920, 1080)
