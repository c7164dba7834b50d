from __future__ import annotations

import pytest

from edgecv.benchmarks.child import Failure
from edgecv.benchmarks.process import call_module
from edgecv.benchmarks.run import _error
from edgecv.errors import BundleError, EdgeCVError


def test_the_answer_is_the_last_line():
    assert call_module("platform", "terse", timeout_s=60).startswith("Linux")


def test_a_crash_becomes_an_error_with_the_last_line_of_stderr():
    with pytest.raises(EdgeCVError, match="No module named edgecv_that_is_not_there") as caught:
        call_module("edgecv_that_is_not_there", "", timeout_s=60)
    assert caught.value.hint


def test_a_process_that_takes_too_long_is_ended():
    with pytest.raises(EdgeCVError, match="took over"):
        call_module("timeit", "import time; time.sleep(30)", timeout_s=0.5)


@pytest.mark.parametrize(
    ("name", "kind"), [("BundleError", BundleError), ("ForeignError", EdgeCVError), ("ClassVar", EdgeCVError)]
)
def test_an_error_of_the_child_keeps_its_class(name, kind):
    error = _error(Failure(error=name, message="broken", hint="mend it"))
    assert (type(error), error.message, error.hint) == (kind, "broken", "mend it")
