"""An error inside the accuracy gate says where it arose."""

from __future__ import annotations

import re
from typing import Any

import pytest

from edgecv._internal.progress import silent
from edgecv.converters.judge import AccuracyJudge
from edgecv.errors import CalibrationError, EdgeCVError, PluginError
from edgecv.quantize.recipes import RECIPES


def judge_that_raises(error: Exception) -> AccuracyJudge:
    class Broken(AccuracyJudge):
        def __post_init__(self, floats: Any) -> None: ...

        def _judged(self, *_: Any) -> Any:
            raise error

    nothing: Any = None
    return Broken(source=nothing, images=(), labelled=None, max_drop=1.0, sessions=nothing, floats={}, progress=silent)


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (
            TypeError("no boxes"),
            PluginError,
            r"The accuracy gate, recipe ort-u8s8, raised TypeError: no boxes \(.*, line \d+\)",
        ),
        (CalibrationError("Too few.", "More."), CalibrationError, r"The accuracy gate, recipe ort-u8s8: Too few\."),
    ],
)
def test_an_exception_in_the_gate_names_the_gate_and_the_recipe(
    error: Exception, kind: type[EdgeCVError], said: str
) -> None:
    with pytest.raises(kind) as caught:
        judge_that_raises(error).judge({}, RECIPES["ort-u8s8"])
    assert re.fullmatch(said, caught.value.message)
    assert caught.value.hint


def test_a_full_disk_is_no_fault_of_the_gate() -> None:
    with pytest.raises(OSError, match="No space"):
        judge_that_raises(OSError(28, "No space left")).judge({}, RECIPES["ort-u8s8"])
