"""Steps that are replaced while a pipeline runs: between two frames, all or nothing, and what is the same goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

import edgecv
from edgecv._internal.file_locks import is_locked
from edgecv.errors import ConfigError, PluginError
from edgecv.events import Event
from edgecv.model import Model
from edgecv.pipelines.loop.step_chain import StepChain, build_steps
from edgecv.pipelines.pipeline import Pipeline
from edgecv.pipelines.steps import Blur, Confidence, Line, Options, PerSource, Track, Zone
from edgecv.results import Result
from tests.unit.pipelines.blob import DEADLINE_S, BlobModel
from tests.unit.pipelines.recorded import LABELS, result_of, standing_at, street

CLIP = "synthetic://?frames=60&width=160&height=120"
MIDDLE = ((80, 0), (80, 120))
FRAME_S = 0.1


def line(x: float = 80, **more: Any) -> Line:
    return Line(name="middle", points=((x, 0), (x, 120)), settle_s=0, **more)


def chain_of(*steps: Any) -> StepChain:
    return StepChain(build_steps(steps, LABELS), (), lambda _: 0.0)


def ids_of(result: Result) -> list[int]:
    found = result.detections
    return [] if found is None or found.tracker_id is None else sorted(found.tracker_id.tolist())


def run(edits: dict[int, list[Any]]) -> tuple[list[int], list[list[int]], Pipeline]:
    """Indices of all frames and the ids in them; the steps are replaced after the frames that ``edits`` names."""
    indices, ids = [], []
    with Pipeline(CLIP, cast(Model, BlobModel()), steps=[Track(), line()]) as pipeline:
        for result in pipeline:
            indices.append(result.frame.index)
            ids.append(ids_of(result))
            if result.frame.index in edits:
                pipeline.replace_steps(edits[result.frame.index])
    return indices, ids, pipeline


def test_no_frame_is_lost_and_tracks_go_on() -> None:
    edits = {
        20: [Track(), line(100)],
        40: [Track(lost_s=5.0), line(100), Zone(name="all", points=(*MIDDLE, (0, 120)))],
    }
    indices, ids, pipeline = run(edits)
    assert indices == list(range(60))
    assert ids == run({})[1]
    assert pipeline.summary.dropped.get("step", 0) == 0


def test_a_counter_that_is_not_given_any_more_is_gone_with_its_counts() -> None:
    _, _, pipeline = run({5: [Track()]})
    assert dict(pipeline.status().sources[0].counts) == {}


def test_what_is_given_again_or_is_equal_goes_on_as_it_is() -> None:
    seen: list[int] = []

    def count(result: Result) -> Result:
        seen.append(1)
        return result

    chain = chain_of(Track(), Line(name="door", points=[[100, 300], [500, 300]]), count)
    before = {id(step) for _, step in chain._steps}
    chain.replace([count, Track(), Line(name="door", points=((100, 300), (500, 300))), Confidence(least=0.1)], LABELS)
    kept = [id(step) in before for _, step in chain._steps]
    assert kept == [True, True, False, False], "a list is another value than a tuple: it is built anew, and takes over"
    chain(result_of(standing_at((300, 200))))
    assert seen == [1]


def test_totals_objects_and_ids_go_on_in_a_street() -> None:
    """Lines that are added, turned and changed beside it leave a counter as it would be without them."""
    door = Line(name="door", points=((300, 100), (300, 560)))
    plain, edited = chain_of(Track(), door), chain_of(Track(), door)
    for at, found in enumerate(street()[:200]):
        if at % 20 == 10:
            more = [Zone(name="yard", points=((0, 0), (at, 0), (at, 500)))] if at % 40 == 10 else []
            edited.replace([Track(lost_s=2.0 + at / 1e6), replace_points(door, at), *more], LABELS)
        one, other = (chain(result_of(found, at * FRAME_S)) for chain in (plain, edited))
        assert one is not None
        assert other is not None
        assert ids_of(one) == ids_of(other)
        assert [e.data for e in one.events] == [e.data for e in other.events if e.data["counter"] == "door"]
    counts = edited.counts("cam")
    assert {name: counts[name] for name in ("door.in", "door.out")} == plain.counts("cam")
    assert counts["door.in"] + counts["door.out"] >= 2


def replace_points(door: Line, at: int) -> Line:
    """The same line, a hair longer."""
    return Line(name=door.name, points=((300, 100), (300, 560 + at / 1e6)))


# --- all or nothing ---


class Broken(Options, frozen=True, kw_only=True):
    """A counter of somebody else that cannot take over."""

    name: str = "broken"
    number: int = 0

    def build(self, labels: tuple[str, ...] = ()) -> PerSource:
        return PerSource(lambda _: BrokenStep())


class BrokenStep:
    def __call__(self, result: Result) -> Result:
        return result

    def adopt(self, before: object) -> bool:
        raise ValueError("no room")


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([line()], "needs tracked objects"),
        ([Track(), line(classes=["persn"])], "persn"),
        ([Track(), line(), Zone(name="middle", points=((0, 0), (9, 0), (9, 9)))], "Two steps are named"),
        ([Track(), line(sources=("yard",))], "for the source 'yard'"),
        ([Track(), Zone(name="bow", points=((0, 0), (90, 90), (90, 0), (0, 90)))], "crosses itself"),
        ([Track(), Line(name="middle", points=((5, 5), (5, 5)))], "two different points"),
        ([Track, line()], "is no step"),
        ([Track(low=0.9), line()], "must rise"),
    ],
)
def test_what_does_not_fit_changes_nothing(steps: list[Any], message: str) -> None:
    with Pipeline(CLIP, cast(Model, BlobModel()), steps=[Track(), line()]) as pipeline:
        for result in pipeline:
            if result.frame.index == 9:
                before, counts = pipeline._loop.chain._steps, dict(pipeline.status().sources[0].counts)
                with pytest.raises(ConfigError, match=message):
                    pipeline.replace_steps(steps)
                assert pipeline._loop.chain._steps == before
                assert dict(pipeline.status().sources[0].counts) == counts
    assert result.frame.index == 59


def test_an_error_while_taking_over_changes_nothing_and_names_the_step(tmp_path: Path) -> None:
    state = tmp_path / "door.json"
    door = Line(name="door", points=((100, 300), (500, 300)), settle_s=0, state=str(state))
    chain = chain_of(Track(), door, Broken())
    chain(result_of(standing_at((300, 200))))
    before = chain._steps
    other = Line(name="door", points=((100, 310), (500, 300)), settle_s=0, state=str(state))
    with pytest.raises(PluginError, match="'broken', which takes over, raised ValueError: no room"):
        chain.replace([Track(), other, Broken(number=2)], LABELS)
    assert chain._steps == before
    assert is_locked(tmp_path / "door.json.lock"), "the counter that goes on still holds its file"
    chain.close()
    assert not is_locked(tmp_path / "door.json.lock")


def test_a_state_file_of_another_counter_is_refused_before_it_is_used(tmp_path: Path) -> None:
    state = str(tmp_path / "door.json")
    door = Line(name="door", points=((100, 300), (500, 300)), settle_s=0, state=state)
    first = chain_of(Track(), door)
    first(result_of(standing_at((300, 200))))
    with pytest.raises(ConfigError, match="in use"):
        first.replace([Track(), Line(name="gate", points=door.points, state=state)], LABELS)
    walk(first)
    first.close()
    second = chain_of(Track())
    with pytest.raises(ConfigError, match="holds the counts of 'door'"):
        second.replace([Track(), Line(name="gate", points=door.points, state=state)], LABELS)


class Tracker(Options, frozen=True, kw_only=True):
    """A tracker of somebody else."""

    gives_ids = True  # type: ignore[misc]
    number: int = 0

    def build(self, labels: tuple[str, ...] = ()) -> Callable[[Result], Result]:
        return lambda result: result


def test_a_tracker_is_not_exchanged_under_those_that_know_its_ids() -> None:
    door = Line(name="door", points=((100, 300), (500, 300)))
    chain = chain_of(Track(), door)
    for steps in ([Tracker(), door], [Track(), Tracker(), door]):
        with pytest.raises(ConfigError, match="cannot be exchanged"):
            chain.replace(steps, LABELS)
    with pytest.raises(ConfigError, match="cannot be exchanged"):
        chain_of(Tracker(), door).replace([Tracker(number=2), door], LABELS)
    chain.replace([Tracker()], LABELS)
    chain.replace([Track(), door], LABELS)


# --- files ---


def walk(chain: StepChain, times: int = 1, start_s: float = 0.0) -> list[Event]:
    events: list[Event] = []
    for at in range(times):
        for number, y in enumerate((280, 290, 310, 320)):
            result = chain(result_of(standing_at((300, y)), start_s + at * 3 + number * 0.1))
            events += [] if result is None else result.events
    return events


def test_the_file_of_a_counter_stays_its_own_through_every_change(tmp_path: Path) -> None:
    state, taken, ending = tmp_path / "door.json", [], threading.Event()
    door = Line(name="door", points=((100, 300), (500, 300)), settle_s=0, state=str(state))
    chain = chain_of(Track(lost_s=0.5), door)
    walk(chain)

    def steal() -> None:
        while not ending.is_set():
            try:
                Line(name="door", points=door.points, state=str(state)).build(LABELS)
            except ConfigError:
                continue
            taken.append(1)

    thief = threading.Thread(target=steal)
    thief.start()
    try:
        for at in range(30):
            moved = Line(name="door", points=((100 + at, 300), (500, 300)), settle_s=0, state=str(state))
            chain.replace([Track(lost_s=0.5), moved], LABELS)
            walk(chain, 1, 10.0 * (at + 1))
    finally:
        ending.set()
        thief.join(DEADLINE_S)
    assert not taken
    assert chain.counts("cam")["door.in"] == 31
    chain.replace([Track(lost_s=0.5)], LABELS)
    again = chain_of(Track(), door)
    walk(again, 1, 1000.0)
    assert again.counts("cam")["door.in"] == 32, "it was written when the counter was let go, and nothing holds it"
    again.close()


def test_a_counter_that_gets_a_file_brings_its_totals_along(tmp_path: Path) -> None:
    state = tmp_path / "door.json"
    chain = chain_of(Track(lost_s=0.5), Line(name="door", points=((100, 300), (500, 300)), settle_s=0))
    walk(chain, 2)
    door = Line(name="door", points=((100, 300), (500, 300)), settle_s=0, state=str(state))
    chain.replace([Track(lost_s=0.5), door], LABELS)
    assert chain.counts("cam")["door.in"] == 2
    chain.close()
    assert '"in": 2' in state.read_text()


def test_boxes_that_are_still_hidden_stay_hidden_when_the_step_changes() -> None:
    chain = chain_of(Blur(hold=3))
    chain(result_of(standing_at((300, 200))))
    chain.replace([Blur(hold=4)], LABELS)
    (step,) = cast(PerSource, chain._steps[0][1])._steps.values()
    assert len(cast(Any, step)._boxes) == 1


# --- threads ---


@pytest.fixture
def busy() -> Iterator[tuple[StepChain, threading.Event]]:
    """A chain that works without rest in another thread; its steps take a millisecond."""
    ending = threading.Event()

    def slow(result: Result) -> Result:
        time.sleep(0.001)
        return result

    chain = chain_of(slow)

    def work() -> None:
        while not ending.is_set():
            chain(result_of(None))

    worker = threading.Thread(target=work)
    worker.start()
    yield chain, ending
    ending.set()
    worker.join(DEADLINE_S)
    assert not worker.is_alive()


def test_a_loop_that_never_rests_lets_the_change_go_first(busy: tuple[StepChain, threading.Event]) -> None:
    took_s = []
    for least in range(20):
        began = time.monotonic()
        busy[0].replace([*busy[0].given[:1], Confidence(least=least / 100)], LABELS)
        took_s.append(time.monotonic() - began)
    assert sorted(took_s)[10] < 0.1
    assert busy[0].given[1] == Confidence(least=0.19)


def test_many_who_change_at_once_take_turns(busy: tuple[StepChain, threading.Event]) -> None:
    def change(number: int) -> None:
        for at in range(10):
            busy[0].replace([*busy[0].given[:1], Confidence(least=(number * 10 + at) / 100)], LABELS)

    threads = [threading.Thread(target=change, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert not any(thread.is_alive() for thread in threads)
    assert len(busy[0]._steps) == 2


def test_a_step_that_replaces_the_steps_is_told_to_leave_it() -> None:
    pipeline: Pipeline

    def meddle(result: Result) -> Result:
        pipeline.replace_steps([])
        return result

    pipeline = Pipeline(CLIP, cast(Model, BlobModel()), steps=[meddle])
    with pytest.raises(ConfigError, match="A step cannot replace the steps"):
        pipeline.run()


def test_the_app_may_do_it_for_each_result_and_not_after_the_end() -> None:
    def change(result: Result) -> None:
        pipeline.replace_steps([Track(), line(40 + result.frame.index)])

    pipeline = edgecv.Pipeline(CLIP, cast(Model, BlobModel()), steps=[Track(), line()], on_result=change)
    assert pipeline.run().frames == 60
    with pytest.raises(ConfigError, match="has ended"):
        pipeline.replace_steps([])


def test_a_source_that_is_removed_meanwhile_is_forgotten_by_the_new_steps() -> None:
    chain = chain_of(Track(), Line(name="door", points=((100, 300), (500, 300))))
    chain(result_of(standing_at((300, 200))))
    chain.replace([Track(), Line(name="door", points=((100, 310), (500, 300)))], LABELS)
    assert chain.counts("cam") == {"door.in": 0, "door.out": 0}
    chain.forget("cam")
    assert chain.counts("cam") == {}
    chain(result_of(standing_at((300, 200))))
