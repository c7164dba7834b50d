"""What goes wrong in a part of a pipeline names the part; what an app does about it never waits for the loop."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgecv.errors import PluginError, SourceError, SpecMismatch
from edgecv.events import Event
from edgecv.pipelines.pipeline import Pipeline
from edgecv.pipelines.source_config import SourceConfig
from edgecv.pipelines.steps import Line, Track
from edgecv.results import Frame, Result
from edgecv.status import SourceHealth
from tests.unit.pipelines.blob import DEADLINE_S, BlobModel

SOURCE = "synthetic://?frames=3&width=64&height=48"
PIXELS = np.zeros((48, 64, 3), np.uint8)


def passes(result: Result) -> Result:
    return result


def divides(result: Result) -> Result:
    raise ZeroDivisionError(f"by {result.frame.index}")


def refuses(_: Result) -> Result:
    raise SourceError("The map is gone.", "Draw another.", code="eof")


@pytest.mark.parametrize("classes", [None, [0]])
def test_an_exception_in_a_step_names_the_step_its_place_and_the_cause(classes: list[int] | None) -> None:
    said = r"Step 2 of 2, 'divides', raised ZeroDivisionError: by 0"
    with pytest.raises(PluginError, match=said) as caught:
        Pipeline(SOURCE, BlobModel(), steps=[passes, divides], classes=classes).run()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_an_error_of_our_own_in_a_step_keeps_its_kind_hint_and_code() -> None:
    with pytest.raises(SourceError, match=r"^Step 1 of 2, 'refuses': The map is gone\.$") as caught:
        Pipeline(SOURCE, BlobModel(), steps=[refuses, passes]).run()
    assert (caught.value.hint, caught.value.code) == ("Draw another.", "eof")
    assert caught.value.message == str(caught.value)


def never_fails(_: Frame) -> bool:
    return True


def fails(frame: Frame) -> bool:
    raise ZeroDivisionError(f"by {frame.index}")


def has_no_map(_: Frame) -> bool:
    raise SourceError("The map is gone.", "Draw another.", code="eof")


@pytest.mark.parametrize("live", ["", "&live=1"])
def test_an_exception_in_a_gate_names_the_gate_its_place_and_the_cause(live: str) -> None:
    said = r"Gate 2 of 2, 'fails', raised ZeroDivisionError: by 0"
    with pytest.raises(PluginError, match=said) as caught:
        Pipeline(SOURCE + live, BlobModel(), gates=[never_fails, fails]).run()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_an_error_of_our_own_in_a_gate_keeps_its_kind_hint_and_code() -> None:
    with pytest.raises(SourceError, match=r"^Gate 1 of 1, 'has_no_map': The map is gone\.$") as caught:
        Pipeline(SOURCE, BlobModel(), gates=[has_no_map]).run()
    assert (caught.value.hint, caught.value.code) == ("Draw another.", "eof")


@pytest.mark.parametrize("busy_s", [0.0, 0.02])
def test_an_index_error_in_a_decoder_is_raised_and_no_end_of_the_frames(busy_s: float) -> None:
    class OffByOne(BlobModel):
        def decode(self, *given: Any, **_: Any) -> Any:
            return given[len(given)]

    with pytest.raises(IndexError):
        Pipeline(SOURCE, OffByOne(busy_s)).run()
    with pytest.raises(IndexError):
        Pipeline(f"{SOURCE}&live=true", OffByOne(busy_s)).run()


@pytest.mark.parametrize("name", [None, 7])
def test_a_step_whose_name_is_no_text_is_named_by_its_class(name: object) -> None:
    class Numbered:
        def __init__(self) -> None:
            self.name = name

        def __call__(self, result: Result) -> Result:
            return divides(result)

    with pytest.raises(PluginError, match="Step 1 of 1, 'Numbered', raised ZeroDivisionError"):
        Pipeline(SOURCE, BlobModel(), steps=[Numbered()]).run()


def test_a_step_of_options_is_named_as_its_options_are() -> None:
    line = Line(name="door", points=((0, 10), (60, 10)))
    with pytest.raises(PluginError, match=r"Step 2 of 2, 'door', raised AttributeError"):
        Pipeline(SOURCE, BlobModel(), steps=[_no_detections, line]).run()
    with pytest.raises(Exception, match=r"Step 1 of 1, 'Track': The step 'track' follows detections"):
        Pipeline(SOURCE, Classifier(), steps=[Track()]).run()


def _no_detections(result: Result) -> Any:
    broken = object.__new__(Result)
    for name in Result.__slots__:
        object.__setattr__(broken, name, getattr(result, name))
    object.__setattr__(broken, "detections", "none")
    return broken


class Classifier(BlobModel):
    """Says that it found nothing to say a box about."""

    def decode(self, *_: Any, **__: Any) -> Any:
        from edgecv.results import Classification

        return Classification(class_id=np.zeros(1, np.int64), confidence=np.ones(1, np.float32))


class Newest:
    """A live source that keeps its newest frame itself: one good frame, then what ``then`` gives."""

    source_id, live, fps = "door", True, 0.0

    def __init__(self, then: Callable[[], Any]) -> None:
        self.on_change: Any = None
        self.wants: Any = None
        self.on_frame: Any = None
        self._then = then
        self._given = 0
        self._state: Any = "live"

    def read(self) -> Frame | None:
        raise AssertionError("its newest frame is taken")

    def newest(self) -> Any:
        self._given += 1
        if self._given > 1:
            self._state = "ended"
            return self._then() if self._given == 2 else None
        now_ns = time.monotonic_ns()
        return Frame(image=PIXELS, index=0, source_id="door", captured_ns=time.time_ns(), monotonic_ns=now_ns)

    def health(self) -> SourceHealth:
        return SourceHealth(state=self._state, since_ns=0)

    def interrupt(self) -> None: ...

    def begin_close(self) -> None: ...

    def wait_closed(self, timeout_s: float) -> bool:
        return True

    def close(self) -> None: ...


def asks_from_another_thread(pipeline: Pipeline) -> bool:
    """Whether somebody else who calls the pipeline at this moment gets an answer."""
    asking = threading.Thread(target=lambda: (pipeline.status(), pipeline.summary), daemon=True)
    asking.start()
    asking.join(1.0)
    return not asking.is_alive()


def test_who_is_told_of_a_failed_source_may_call_the_pipeline() -> None:
    answered: list[bool] = []

    def on_event(event: Event) -> None:
        if event.kind == "source.failed":
            answered.append(asks_from_another_thread(pipeline))

    small = Frame(image=PIXELS[..., :1], index=1, source_id="door", captured_ns=0, monotonic_ns=0)
    pipeline = Pipeline(Newest(lambda: small), BlobModel(), on_event=on_event)
    with pytest.raises(SpecMismatch):
        pipeline.run()
    assert answered == [True]


def test_an_image_is_copied_while_others_may_call_the_pipeline() -> None:
    answered: list[bool] = []
    pipeline = Pipeline(Newest(lambda: answered.append(asks_from_another_thread(pipeline))), BlobModel())
    assert pipeline.run().frames == 1
    assert answered == [True]


def test_a_source_that_is_added_while_the_last_one_ends_is_read() -> None:
    def add() -> None:
        thread = threading.Thread(target=pipeline.add_source, args=(SOURCE, "late"))
        thread.start()
        thread.join(DEADLINE_S)

    pipeline = Pipeline(Newest(add), BlobModel())
    assert [result.frame.source_id for result in pipeline] == ["door", *["late"] * 3]


@pytest.mark.parametrize(
    ("uri", "shown"),
    [("", "''"), ("rtsp://a:p/x@cam:80@x/1", "rtsp://"), ("a\0b", "a"), ("clip.mp4?a=1&a=2", "clip.mp4")],
)
def test_a_source_that_cannot_be_read_can_be_shown(uri: str, shown: str) -> None:
    said = repr(SourceConfig(uri))
    assert shown in said
    assert "p/x" not in said


def test_a_worker_can_import_the_sources_before_it_knows_where_packages_lie() -> None:
    code = "import sys, edgecv.pipelines.sources.supervised.worker; print({'msgspec', 'numpy'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert said.stdout.strip() == "set()"
