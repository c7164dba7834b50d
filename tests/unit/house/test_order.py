"""The order in which ``make test`` takes the files."""

from __future__ import annotations

from tests.conftest import CHECKOUT, LONGEST_FIRST


def test_the_files_that_take_longest_are_there() -> None:
    assert [name for name in LONGEST_FIRST if not (CHECKOUT / "tests" / name).is_file()] == []
