"""Errors of libraries become ours, with what they say of the matter."""

from __future__ import annotations

import pytest

from edgecv._internal.foreign import first_line, foreign_errors
from edgecv.errors import ConversionError, MissingDependency, QuantizationError


class Strange(Exception):
    """As OpenVINO's OpConversionFailure: no child of RuntimeError."""


@pytest.mark.parametrize("error", [Strange("what\nmore"), KeyError("what"), RuntimeError("what"), MemoryError("what")])
def test_whatever_a_library_raises_becomes_ours(error: Exception) -> None:
    with (
        pytest.raises(ConversionError, match=r"It cannot: '?what'?$") as caught,
        foreign_errors(ConversionError, "It cannot", "Do"),
    ):
        raise error
    assert caught.value.__cause__ is error
    assert caught.value.hint == "Do"


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), ImportError("x"), MissingDependency("x"), KeyboardInterrupt()]
)
def test_what_is_no_fault_of_the_model_passes(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, foreign_errors(QuantizationError, "It cannot", ""):
        raise error
    assert caught.value is error


def test_an_error_is_told_by_what_it_says_and_not_by_where() -> None:
    error = RuntimeError(
        "Check 'false' failed at src/frontends/report.cpp:151:\nFrontEnd API failed with OpConversionFailure:\n"
        "Model wasn't fully converted.\nSummary:\n-- No conversion rule found for operations: Det-17\n"
    )
    assert first_line(error) == "No conversion rule found for operations: Det-17"
    assert first_line(RuntimeError("Check 'x' failed at y:1:")) == "Check 'x' failed at y:1:"
    assert first_line(ValueError()) == "ValueError()"
