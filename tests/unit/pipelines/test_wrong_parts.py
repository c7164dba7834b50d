"""What a step, sink, source or model is not is an error that names the thing, its place and what is expected."""

from __future__ import annotations

import contextlib
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv import registry
from edgecv._internal.strict import read_struct
from edgecv.errors import ConfigError, EdgeCVError, PluginError, SourceError
from edgecv.events import Event
from edgecv.pipelines.pipeline import Pipeline
from edgecv.pipelines.sinks import open_sink
from edgecv.pipelines.sources import open_source
from edgecv.pipelines.steps.options import step_type
from edgecv.results import Detections, Frame, Result
from tests.unit.core.test_registry import install
from tests.unit.pipelines.blob import BlobModel

SOURCE = "synthetic://?frames=3&width=64&height=48"


def counts_people(_: Result) -> bool:
    return True


def passes(result: Result) -> Result:
    return result


class Always:
    def __call__(self, _: Result) -> list[int]:
        return [1] * 100


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([passes, counts_people], r"Step 2 of 2, 'counts_people', gave True \(bool\)"),
        ([Always()], r"Step 1 of 1, 'Always', gave \[1, 1, .* \(list\)"),
    ],
)
def test_a_step_that_gives_something_else_is_named_with_its_place(steps: list[Any], said: str) -> None:
    with pytest.raises(EdgeCVError, match=said) as caught:
        Pipeline(SOURCE, BlobModel(), steps=steps).run()
    assert len(caught.value.message) < 200
    assert "returns a Result, or None" in caught.value.hint


class Numbers:
    """A source that gives images, not frames."""

    source_id, live, fps = "numbers", False, 0.0

    def read(self) -> Any:
        return np.zeros((48, 64, 3), np.uint8)

    def close(self) -> None: ...


def test_a_source_that_gives_no_frame_is_named() -> None:
    with pytest.raises(PluginError, match=r"The source numbers gave array.*\(ndarray\), not a Frame") as caught:
        Pipeline(Numbers(), BlobModel()).run()
    assert "FrameStamper" in caught.value.hint


def test_an_object_that_is_no_source_says_what_it_lacks() -> None:
    with pytest.raises(ConfigError, match=r"\(generator\) is no source: it lacks source_id, live, fps, read"):
        Pipeline((frame for frame in ()), BlobModel())


class NoClose:
    def emit(self, result: Result) -> None: ...


@pytest.mark.parametrize(
    ("sink", "said"),
    [
        (NoClose(), "The sink NoClose lacks close"),
        (NoClose, r"NoClose'> \(type\) is no sink"),
        (3, r"3 \(int\) is no sink"),
    ],
)
def test_a_sink_that_lacks_something_is_refused_before_the_first_frame(sink: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        Pipeline(SOURCE, BlobModel(), sinks=[sink])
    assert caught.value.hint


@pytest.mark.parametrize("model", ["yolov8n.ecv", Path("yolov8n.ecv"), None, 3])
def test_a_model_that_was_not_loaded_is_told_how(model: Any) -> None:
    with pytest.raises(ConfigError, match="must be a loaded one, not") as caught:
        Pipeline(SOURCE, model)
    assert "edgecv.load" in caught.value.hint


@pytest.mark.parametrize("given", [3, None, "track", Always])
def test_what_is_no_step_and_no_gate_is_refused(given: Any) -> None:
    for wrong in ({"steps": [given]}, {"gates": [given]}):
        with pytest.raises(ConfigError, match=r"is no (step|gate)"):
            Pipeline(SOURCE, BlobModel(), **wrong)


def test_an_unknown_priority_lists_the_choices() -> None:
    with pytest.raises(ConfigError, match=r"'crowd.began' has the priority 'urgent'") as caught:
        Event(kind="crowd.began", time_ns=0, priority="urgent")  # type: ignore[arg-type]
    assert "alarm, event, telemetry, blob" in caught.value.hint


MODULE = """
import msgspec
import numpy as np
from edgecv.pipelines.steps import Options
from edgecv.pipelines.sources.frames import FrameStamper
from edgecv.pipelines.sources.live import LiveSource
from edgecv.protocols import SinkType, SourceType

def function(result): return result

class Plain:
    def __call__(self, result): return result

class HerdOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    most: int = 3

class Herd:
    Options = HerdOptions
    def __init__(self, options): self.most = options.most
    def __call__(self, result): return result

class Built(Options, frozen=True, kw_only=True):
    most: int
    def build(self, labels=()): return lambda result: (self.most, labels)

class Unbuilt(Options, frozen=True, kw_only=True): ...

class Loose(msgspec.Struct): ...

class Silent: ...

class NoId(SourceType):
    live, fps = False, 0.0
    def __init__(self, uri): ...
    def read(self): return None
    def close(self): ...

class NotFrames(LiveSource):
    fps = 0.0
    def __init__(self, uri): self.source_id = uri.name
    def read(self): return 3
    def close(self): ...

class NotLive(SourceType):
    live = supervised = True
    def __init__(self, uri): ...
    def read(self): ...
    def close(self): ...

class Nothing(SinkType):
    @classmethod
    def from_uri(cls, uri, *, fps=0.0, overwrite=False): return 3
    def emit(self, result): ...
    def close(self): ...
"""


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "foreign_parts.py").write_text(textwrap.dedent(MODULE))
    names = {
        "steps": ("function", "Plain", "Herd", "Built", "Unbuilt", "Loose", "Silent"),
        "sources": ("NoId", "NotFrames", "NotLive"),
        "sinks": ("Nothing",),
    }
    points = [
        f"[edgecv.{kind}]\n" + "".join(f"{name.lower()} = foreign_parts:{name}\n" for name in group)
        for kind, group in names.items()
    ]
    install(tmp_path, "foreign_parts", "".join(points))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "foreign_parts", raising=False)
    registry.entry_points.cache_clear()
    yield
    registry.entry_points.cache_clear()


def a_result() -> Result:
    frame = Frame(image=np.zeros((4, 4, 3), np.uint8), index=0, source_id="s", captured_ns=0, monotonic_ns=0)
    return Result(frame=frame, detections=Detections.empty(), labels=(), timings={}, age_ms=0.0)


@pytest.mark.usefixtures("foreign")
class TestForeignSteps:
    @pytest.mark.parametrize("name", ["function", "plain", "herd"])
    def test_a_function_or_a_class_becomes_options_that_build_it(self, name: str) -> None:
        options = read_struct({}, step_type(name), "app.toml")
        assert (options.needs_ids, options.gives_ids) == (False, True)
        Pipeline(SOURCE, BlobModel(), steps=[options]).run()

    def test_the_options_of_a_class_reach_it(self) -> None:
        step: Any = read_struct({"most": 7}, step_type("herd"), "app.toml").build()
        assert step.most == 7

    def test_a_struct_builds_its_step_with_the_labels(self) -> None:
        step: Callable[..., Any] = read_struct({"most": 7}, step_type("built"), "app.toml").build(("cat",))
        assert step(None) == (7, ("cat",))

    @pytest.mark.parametrize(("name", "known"), [("function", "none"), ("plain", "none"), ("herd", "most")])
    def test_an_unknown_option_lists_the_known_ones(self, name: str, known: str) -> None:
        with pytest.raises(ConfigError) as caught:
            read_struct({"mist": 7}, step_type(name), "app.toml")
        assert f"Known: {known}" in caught.value.hint

    @pytest.mark.parametrize("name", ["loose", "silent"])
    def test_what_is_no_step_is_told_what_is(self, name: str) -> None:
        with pytest.raises(PluginError, match=f"'{name}'.*cannot be used as a step") as caught:
            step_type(name)
        assert "Options" in caught.value.hint

    def test_options_without_build_say_so(self) -> None:
        with pytest.raises(PluginError, match="'Unbuilt' lacks build"):
            Pipeline(SOURCE, BlobModel(), steps=[step_type("unbuilt")()])


@pytest.mark.usefixtures("foreign")
class TestForeignSourcesAndSinks:
    def test_a_source_without_its_attributes_says_which(self) -> None:
        with pytest.raises(PluginError, match="source noid://x lacks source_id"):
            open_source("noid://x")

    def test_a_camera_that_gives_no_frames_says_so_from_its_process(self) -> None:
        said = r"notframes://x gave 3 \(int\), not a Frame"
        source = open_source("notframes://x?connect_s=20")
        with contextlib.closing(source), pytest.raises(SourceError, match=said):
            source.read()

    def test_a_supervised_source_needs_the_options_of_a_live_one(self) -> None:
        with pytest.raises(PluginError, match="no LiveOptions") as caught:
            open_source("notlive://x")
        assert "LiveSource" in caught.value.hint

    def test_what_from_uri_gives_must_be_a_sink(self) -> None:
        with pytest.raises(PluginError, match="sink nothing:x lacks emit, close"):
            open_sink("nothing:x")

    @pytest.mark.parametrize(("opened", "uri"), [(open_source, "noid://x?a=1"), (open_sink, "nothing:x?a=1")])
    def test_without_options_it_takes_none(self, opened: Callable[[str], object], uri: str) -> None:
        with pytest.raises(ConfigError, match="has no option 'a'"):
            opened(uri)
