"""Events of the state of a source: what began a state is history, further tries in it are a state."""

from __future__ import annotations

from edgecv.events import Event
from edgecv.pipelines.loop.outlets import Outlets
from edgecv.status import SourceHealth, SourceState


def test_only_further_tries_in_the_same_state_share_a_key() -> None:
    told: list[Event] = []
    outlets = Outlets(None, told.append)

    def tell(state: SourceState, since_ns: int, error: str = "", name: str = "door") -> str:
        outlets.source_changed(name, SourceHealth(state=state, since_ns=since_ns, error=error))
        return told[-1].coalesce_key

    assert tell("live", 1) == ""
    assert tell("stale", 2) == ""
    assert tell("reconnecting", 3, "first try") == ""
    second = tell("reconnecting", 3, "second try")
    assert second
    assert tell("reconnecting", 3, name="yard") == ""  # another source
    assert tell("reconnecting", 3, "third try") == second
    assert tell("live", 4) == ""
    assert tell("reconnecting", 5) == ""  # the next outage is one of its own
    assert tell("reconnecting", 5) not in ("", second)


def test_a_long_name_keeps_its_key_within_what_an_event_may_have() -> None:
    told: list[Event] = []
    outlets = Outlets(None, told.append)
    for _ in range(2):
        outlets.source_changed("n" * 5000, SourceHealth(state="connecting", since_ns=1))
    assert len(told[-1].coalesce_key) == 200
