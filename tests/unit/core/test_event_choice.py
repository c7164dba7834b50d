"""Which events people want: words, kinds and patterns, and what is said about mistakes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from edgecv import registry
from edgecv.errors import ConfigError
from edgecv.events import Event
from edgecv.notifications.choice import EventChoice, read_choice, read_kinds, strangers
from edgecv.pipelines.steps.options import step_type


@pytest.mark.parametrize(
    ("said", "choice"),
    [
        ("events", EventChoice("none", ("*",))),
        ("detections", EventChoice("found", ("*",))),
        ("all", EventChoice("all", ("*",))),
        ("line.crossed", EventChoice("none", ("line.crossed",))),
        ("line.crossed, zone.*", EventChoice("none", ("line.crossed", "zone.*"))),
        (["line.crossed", "governor"], EventChoice("none", ("line.crossed", "governor"))),
    ],
)
def test_a_choice_is_a_word_or_kinds(said: str | Sequence[str], choice: EventChoice) -> None:
    assert read_choice(said, "events") == choice


@pytest.mark.parametrize(
    ("said", "message", "hint"),
    [
        ("event", "app.toml, .mqtt. events = 'event' is no choice", "Did you mean 'events'?"),
        ("detection", "is no choice", "Did you mean 'detections'?"),
        ("crossings", "is no choice", "line.crossed"),
        ([], "names no kind", "'events'"),
        ("", "names no kind", "'events'"),
        (["line.crossed", ""], "names no kind", "'events'"),
        (["detections", "line.crossed"], "lists 'detections'", "Write it alone"),
    ],
)
def test_a_mistake_says_what_is_valid(said: str | Sequence[str], message: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read_choice(said, "app.toml, [mqtt] events")
    assert hint in caught.value.hint


def test_patterns_match_whole_kinds() -> None:
    choice = read_choice("line.crossed,zone.*", "events")
    kinds = ["line.crossed", "line.crossed.twice", "zone.left", "zone", "Line.crossed", "source.live"]
    assert [choice.wants(Event(kind=kind, time_ns=1)) for kind in kinds] == [True, False, True, False, False, False]


def test_a_kind_that_nobody_gives_is_named_with_the_nearest() -> None:
    kinds = ("line.crossed", "zone.entered", "source.stale")
    (said,) = strangers(read_kinds(["line.crosed", "zone.*", "*"], "events"), kinds)
    assert "'line.crosed'" in said
    assert "Did you mean 'line.crossed'?" in said


@pytest.mark.parametrize("name", registry.names("steps"))
def test_every_step_of_edgecv_says_which_kinds_it_gives(name: str) -> None:
    assert step_type(name).gives_kinds is not None
