"""Functions of an application as steps, gates and sinks: memory for each source, and mistakes that are named by file and line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from edgecv.errors import ConfigError, PluginError, SinkError
from edgecv.pipelines.pipeline import Pipeline
from edgecv.pipelines.steps.functions import Remembering
from edgecv.results import Frame, Result
from tests.unit.pipelines.blob import BlobModel

HERE = Path(__file__).name
SOURCE = "synthetic://?frames=3&width=64&height=48"
BOTH = {"door": SOURCE, "yard": SOURCE}


def line_of(text: str) -> int:
    """The line of this file that holds a mark."""
    lines = Path(__file__).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.endswith(f"# {text}"))


def numbers(result: Result, memory: dict[str, Any]) -> Result:
    memory["seen"] = memory.get("seen", 0) + 1
    return result.with_event("seen", number=memory["seen"])


def every_second(frame: Frame, memory: dict[str, Any]) -> bool:
    memory[frame.index] = True
    return len(memory) % 2 == 1


def test_a_step_has_a_memory_for_each_source() -> None:
    found = [(r.frame.source_id, r.events[0].data["number"]) for r in Pipeline(BOTH, BlobModel(), steps=[numbers])]
    assert sorted(found) == [(name, number) for name in ("door", "yard") for number in (1, 2, 3)]


def test_a_gate_has_a_memory_for_each_source() -> None:
    seen = [(r.frame.source_id, r.frame.index) for r in Pipeline(BOTH, BlobModel(), gates=[every_second])]
    assert sorted(seen) == [("door", 0), ("door", 2), ("yard", 0), ("yard", 2)]


def test_the_memory_of_a_source_goes_with_it() -> None:
    pipeline = Pipeline(BOTH, BlobModel(), steps=[numbers], max_frames=5)
    chain = pipeline._loop.chain
    assert len(list(pipeline)) == 5
    (step,) = [step for _, step in chain._steps]
    assert isinstance(step, Remembering)
    assert set(step._steps) == {"door", "yard"}
    chain.forget("door")
    assert set(step._steps) == {"yard"}


def forgets_to_return(result: Result) -> None:  # forgets
    result.with_event("lost")


def wants_more(result: Result, mem: dict[str, Any]) -> Result:  # wants
    return result


def takes_nothing() -> None:  # nothing
    return None


@pytest.mark.parametrize(
    ("step", "said", "hint", "mark"),
    [
        (forgets_to_return, "returns nothing", "return result", "forgets"),
        (wants_more, "wants 'mem', and nothing gives it", r"def step\(result, memory\)", "wants"),
        (takes_nothing, "takes no result", r"def step\(result\)", "nothing"),
    ],
)
def test_a_step_that_cannot_work_is_named_before_the_start(step: Any, said: str, hint: str, mark: str) -> None:
    with pytest.raises(ConfigError, match=rf"{HERE}, line {line_of(mark)}\).*{said}") as caught:
        Pipeline(SOURCE, BlobModel(), steps=[step])
    assert re.search(hint, caught.value.hint)


def divides(result: Result) -> Result:
    return deeper(result.frame.index)


def deeper(number: int) -> Any:
    return 1 // number  # divides


def says_true(result: Result) -> Any:  # says true
    return bool(result)


def bad_priority(result: Result) -> Result:
    return result.with_event("door.open", priority="urgent")  # type: ignore[arg-type]  # priority


def test_what_a_step_raises_is_named_by_file_and_line() -> None:
    with pytest.raises(
        PluginError, match=rf"'divides', raised ZeroDivisionError: .*{HERE}, line {line_of('divides')}\)"
    ):
        Pipeline(SOURCE, BlobModel(), steps=[divides]).run()
    with pytest.raises(ConfigError, match=rf"'bad_priority': .*'urgent'.*{HERE}, line {line_of('priority')}\)"):
        Pipeline(SOURCE, BlobModel(), steps=[bad_priority]).run()


def test_a_wrong_result_of_a_step_is_named_by_the_line_of_its_def() -> None:
    with pytest.raises(ConfigError, match=rf"gave True \(bool\) \({'.*'}{HERE}, line {line_of('says true')}\)"):
        Pipeline(SOURCE, BlobModel(), steps=[says_true]).run()


def sometimes(frame: Frame) -> Any:
    return True if frame.index else None


def test_a_gate_that_gives_none_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="Gate 1 of 1, 'sometimes': It gave None"):
        Pipeline(SOURCE, BlobModel(), gates=[sometimes]).run()


def broken_sink(result: Result) -> None:
    raise KeyError(result.frame.index)  # sink


def test_what_a_sink_raises_is_named_by_file_and_line(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SinkError, match=rf"broken_sink lost 3 of 3 results: KeyError: 0 .*line {line_of('sink')}\)"):
        Pipeline(SOURCE, BlobModel(), sinks=[broken_sink]).run()
    assert f"{HERE}, line {line_of('sink')}" in caplog.text


def test_a_sink_function_that_wants_more_is_named_before_the_start() -> None:
    def tells(result: Result, address: str) -> None:
        print(address, result)

    with pytest.raises(ConfigError, match=r"The sink 'tells' .* wants 'address'"):
        Pipeline(SOURCE, BlobModel(), sinks=[tells])  # type: ignore[list-item]
