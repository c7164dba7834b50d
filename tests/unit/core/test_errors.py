"""Errors as text."""

from __future__ import annotations

import pytest

from edgecv.errors import in_one_line


@pytest.mark.parametrize(
    ("message", "hint", "line"),
    [
        ("It broke", "Mend it.", "It broke. Mend it."),
        ("It broke.", "Mend it.", "It broke. Mend it."),
        ("It broke.", "", "It broke."),
        ("Broken: [Errno 111] refused", "Check the port.", "Broken: [Errno 111] refused. Check the port."),
    ],
)
def test_message_and_next_step_are_sentences_of_one_line(message: str, hint: str, line: str) -> None:
    assert in_one_line(message, hint) == line
