"""One table from names to code."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgecv import registry
from edgecv._internal.extras import require
from edgecv.errors import MissingDependency, PluginError, UnknownPlugin

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
    ],
)
def test_a_misspelt_name_is_told_the_nearest(kind: str, name: str, suggestion: str) -> None:
    with pytest.raises(UnknownPlugin, match=f"'{name}'") as caught:
        registry.resolve(kind, name)
    assert f"Did you mean '{suggestion}'" in caught.value.hint
    assert caught.value.exit_code == 2


def test_a_name_like_no_other_is_told_all() -> None:
    with pytest.raises(UnknownPlugin) as caught:
        registry.target("runtimes", "zzz")
    assert "Did you mean" not in caught.value.hint
    assert "onnxruntime" in caught.value.hint


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution on the path, as pip leaves it, with a good, a broken and a competing entry point."""
    info = tmp_path / "other_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[edgecv.sinks]\nnotebook = other_package:Notebook\nbroken = other_package:Missing\n"
        "absent = no_such_module:Sink\njsonl = other_package:Notebook\n"
    )
    (tmp_path / "other_package.py").write_text("class Notebook: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "other_package", raising=False)


@pytest.mark.usefixtures("plugin")
class TestEntryPoints:
    def test_an_installed_plugin_is_found_by_its_name(self) -> None:
        assert "notebook" in registry.names("sinks")
        assert registry.resolve("sinks", "notebook").__name__ == "Notebook"

    @pytest.mark.parametrize("name", ["broken", "absent"])
    def test_a_broken_plugin_names_itself(self, name: str) -> None:
        with pytest.raises(PluginError, match=f"'{name}'.*cannot be loaded"):
            registry.resolve("sinks", name)

    def test_a_built_in_name_wins(self) -> None:
        assert registry.target("sinks", "jsonl").startswith("edgecv.")


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
