"""One table from names to code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgecv import registry
from edgecv._internal.extras import require
from edgecv.converters.source import Exported, Exporter, Part
from edgecv.errors import MissingDependency, PluginError, UnknownPlugin
from edgecv.protocols import NoOptions, StepOptions, lacks

EVERY = [(kind, name) for kind in registry.KINDS for name in registry.names(kind)]


@pytest.mark.parametrize(("kind", "name"), EVERY, ids=lambda value: value)
def test_every_name_finds_its_code(kind: str, name: str) -> None:
    assert callable(registry.resolve(kind, name))


@pytest.mark.parametrize(
    ("kind", "name", "suggestion"),
    [
        ("runtimes", "onnxruntme", "onnxruntime"),
        ("decoders", "yolo8", "yolov8"),
        ("sinks", "json", "jsonl"),
        ("exporters", "onx", "onnx"),
        ("families", "resnet8", "resnet18"),
    ],
)
def test_a_misspelt_name_is_told_the_nearest(kind: str, name: str, suggestion: str) -> None:
    one = {"families": "family"}.get(kind, kind[:-1])
    with pytest.raises(UnknownPlugin, match=f"{one} named '{name}'") as caught:
        registry.resolve(kind, name)
    assert f"Did you mean '{suggestion}'" in caught.value.hint
    assert caught.value.exit_code == 2


def test_a_name_like_no_other_is_told_all() -> None:
    with pytest.raises(UnknownPlugin) as caught:
        registry.place("runtimes", "zzz")
    assert "Did you mean" not in caught.value.hint
    assert "onnxruntime" in caught.value.hint


MODULE = """
from edgecv.protocols import SinkType


class Notebook(SinkType):
    @classmethod
    def from_uri(cls, uri, *, fps=0.0, overwrite=False):
        return cls()

    def emit(self, result): ...

    def close(self): ...


class NoClose(SinkType):
    @classmethod
    def from_uri(cls, uri, *, fps=0.0, overwrite=False):
        return cls()

    def emit(self, result): ...


class Foreign:
    def emit(self, result): ...


def function(uri): ...


number = 3
"""


def install(folder: Path, package: str, points: str) -> None:
    """A distribution on the path, as pip leaves it."""
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(points)


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two distributions: good, broken and competing entry points."""
    install(
        tmp_path,
        "other_package",
        "[edgecv.sinks]\nnotebook = other_package:Notebook\nbroken = other_package:Missing\n"
        "absent = no_such_module:Sink\njsonl = other_package:Notebook\ntwice = other_package:Notebook\n"
        "no_close = other_package:NoClose\nforeign = other_package:Foreign\nfunction = other_package:function\n"
        "[edgecv.decoders]\nnumber = other_package:number\n",
    )
    install(
        tmp_path,
        "third_package",
        "[edgecv.sinks]\ntwice = third_package:Other\nnotebook = other_package:Notebook\n",
    )
    (tmp_path / "other_package.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "other_package", raising=False)
    registry.entry_points.cache_clear()
    yield
    registry.entry_points.cache_clear()


@pytest.mark.usefixtures("plugin")
class TestEntryPoints:
    def test_an_installed_plugin_is_found_by_its_name(self) -> None:
        assert "notebook" in registry.names("sinks")
        assert registry.resolve("sinks", "notebook").__name__ == "Notebook"

    def test_it_has_the_defaults_of_its_kind(self) -> None:
        kind = registry.resolve("sinks", "notebook")
        assert (kind.Options, kind.writes_files, kind.one_source) == (NoOptions, True, False)

    @pytest.mark.parametrize("name", ["broken", "absent"])
    def test_a_broken_plugin_names_itself(self, name: str) -> None:
        with pytest.raises(PluginError, match=f"'{name}'.*cannot be loaded"):
            registry.resolve("sinks", name)

    @pytest.mark.parametrize(
        ("kind", "name", "said"),
        [
            ("sinks", "no_close", "lacks close"),
            ("sinks", "foreign", "lacks Options, writes_files, one_source, non_blocking, from_uri, close"),
            ("sinks", "function", "must be a class"),
            ("decoders", "number", "must be a class or function, not 3"),
        ],
    )
    def test_what_a_plugin_lacks_is_said_when_it_is_loaded(self, kind: str, name: str, said: str) -> None:
        with pytest.raises(PluginError, match=rf"'{name}' \(other_package:\w+\) .*{said}") as caught:
            registry.resolve(kind, name)
        assert caught.value.hint

    @pytest.mark.parametrize(
        ("name", "places"),
        [
            ("jsonl", ["edgecv.pipelines.sinks.files.jsonl:JsonlSink (from EdgeCV)", "(from other_package)"]),
            ("twice", ["other_package:Notebook (from other_package)", "third_package:Other (from third_package)"]),
        ],
    )
    def test_a_name_that_stands_for_two_things_is_an_error_with_both_places(self, name: str, places: list[str]) -> None:
        with pytest.raises(PluginError, match=f"'{name}' is registered twice") as caught:
            registry.resolve("sinks", name)
        assert all(place in caught.value.message for place in places)

    def test_a_clash_of_one_name_leaves_the_others_alone(self) -> None:
        assert registry.resolve("sinks", "csv").__name__ == "CsvSink"


def test_installed_packages_are_looked_through_once_for_each_kind() -> None:
    registry.entry_points.cache_clear()
    for _ in range(3):
        registry.names("sinks")
        registry.place("sinks", "csv")
    assert registry.entry_points.cache_info().misses == 1


def test_a_missing_package_is_named_with_its_pip_line() -> None:
    with pytest.raises(MissingDependency, match="no_such_package") as caught:
        require("no_such_package.inner", "vision")
    assert caught.value.hint == "Install it with: pip install 'edgecv[vision]'"


def test_a_package_that_lacks_one_of_its_own_is_not_called_missing(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "half_installed.py").write_text("import a_module_nobody_has\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(PluginError, match="'half_installed' is installed, but 'a_module_nobody_has'") as caught:
        require("half_installed", "vision")
    assert not isinstance(caught.value, MissingDependency)


def test_a_class_that_inherits_its_kind_and_forgets_a_method_lacks_it() -> None:
    class HalfExporter(Exporter):
        format, runtime = "onnx", "onnxruntime"

        def export(self, part: Part, folder: Path) -> Exported:
            raise NotImplementedError

    class NoBuild(StepOptions):
        needs_ids = gives_ids = False

    assert lacks(HalfExporter, Exporter) == ["half"]
    assert "build" in lacks(NoBuild, StepOptions)
