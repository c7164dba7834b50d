"""``python = "module:attribute"`` in ``app.toml``: what is loaded, what is refused, and what messages say."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from edgecv._internal.strict import read_struct
from edgecv.cli.app_config import App, AppFile, check_app
from edgecv.errors import ConfigError, PluginError
from edgecv.pipelines.pipeline import Pipeline
from tests.models import write_bundle
from tests.unit.pipelines.blob import BlobModel

Load = Callable[..., App]
SOURCES = {"door": "synthetic://?frames=4&width=64&height=48", "yard": "synthetic://?frames=4&width=64&height=48"}


@pytest.fixture
def load(tmp_path: Path, request: pytest.FixtureRequest) -> Load:
    """Reads an app.toml beside a module, which has a name of its own in each test: MODULE in both texts."""
    name = f"own_{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]}"

    def read(toml: str, code: str = "", folder: Path = tmp_path) -> App:
        (folder / f"{name}.py").write_text(code)
        config = folder / "app.toml"
        config.write_text(toml.replace("MODULE", name))
        file = read_struct(msgspec.toml.decode(config.read_bytes()), AppFile, str(config))
        return check_app(file, "app.toml", code_beside=config)

    return read


CROWD = """
import collections

def crowd(result, memory, *, limit=3):
    memory["frames"] = memory.get("frames", 0) + 1
    if memory["frames"] == limit:
        return result.with_event("crowd.began", frames=memory["frames"])
    return result

class Crowd:
    def __init__(self, limit=3):
        self.frames, self.limit = 0, limit

    def __call__(self, result):
        self.frames += 1
        return result.with_event("crowd.began", frames=self.frames) if self.frames == self.limit else result

def odd(frame, memory):
    memory["n"] = memory.get("n", 0) + 1
    return memory["n"] % 2 == 1
"""


@pytest.mark.parametrize("attribute", ["crowd", "Crowd"])
def test_a_function_and_a_class_are_steps_with_options_and_a_state_for_each_source(load: Load, attribute: str) -> None:
    app = load(f'[[steps]]\npython = "MODULE:{attribute}"\nlimit = 2', CROWD)
    results = list(Pipeline(SOURCES, BlobModel(), steps=app.steps))
    said = {(r.frame.source_id, r.frame.index, e.kind) for r in results for e in r.events}
    assert said == {("door", 1, "crowd.began"), ("yard", 1, "crowd.began")}


def test_a_step_may_be_for_some_sources_alone(load: Load) -> None:
    toml = '[[sources]]\nname="door"\nuri="a.mp4"\n[[steps]]\npython = "MODULE:crowd"\nlimit = 2\nsources = ["door"]'
    results = list(Pipeline(SOURCES, BlobModel(), steps=load(toml, CROWD).steps))
    assert {r.frame.source_id for r in results if r.events} == {"door"}
    for wrong in (
        toml.replace('["door"]', '["dor"]'),
        toml.replace('["door"]', '["dor"]').replace("[[steps]]", "[[gates]]"),
    ):
        with pytest.raises(ConfigError, match="is for the source 'dor', and there is none of that name"):
            load(wrong, CROWD)


def test_the_same_function_may_stand_twice(load: Load) -> None:
    app = load('[[steps]]\npython="MODULE:crowd"\nlimit=1\n[[steps]]\npython="MODULE:crowd"\nlimit=2', CROWD)
    results = list(Pipeline(SOURCES, BlobModel(), steps=app.steps))
    assert sum(len(r.events) for r in results) == 4


def test_a_function_is_a_gate(load: Load) -> None:
    app = load('[[gates]]\npython = "MODULE:odd"', CROWD)
    found = [(r.frame.source_id, r.frame.index) for r in Pipeline(SOURCES, BlobModel(), gates=app.gates)]
    assert sorted(found) == [("door", 0), ("door", 2), ("yard", 0), ("yard", 2)]


OPTIONS = """
from edgecv.pipelines.steps import Options

class Loud(Options, frozen=True, kw_only=True):
    word: str = "hm"

    def build(self, labels=()):
        return lambda result: result.with_event(self.word)
"""


def test_a_struct_of_options_is_checked_as_those_of_plugins(load: Load) -> None:
    app = load('[[steps]]\npython = "MODULE:Loud"\nword = "ha"', OPTIONS)
    assert {e.kind for r in Pipeline(SOURCES, BlobModel(), steps=app.steps) for e in r.events} == {"ha"}
    with pytest.raises(ConfigError, match="no option 'wrod'") as caught:
        load('[[steps]]\npython = "MODULE:Loud"\nwrod = "ha"', OPTIONS)
    assert "Did you mean 'word'?" in caught.value.hint


SINKS = """
class Keeps:
    def __init__(self, path):
        self.file = open(path, "w")

    def emit(self, result):
        self.file.write(f"{result.frame.index}\\n")

    def close(self):
        self.file.close()

def tell(result, path):
    with open(path, "a") as file:
        file.write(f"{result.frame.index}\\n")

class Half:
    def emit(self, result):
        pass

ready = []
"""


@pytest.mark.parametrize("attribute", ["Keeps", "tell"])
def test_a_class_and_a_function_are_sinks(load: Load, tmp_path: Path, attribute: str) -> None:
    out = tmp_path / "out.txt"
    app = load(f'sinks = [{{ python = "MODULE:{attribute}", path = "{out}" }}]', SINKS)
    assert not out.exists(), "nothing opens while the file is checked"
    Pipeline(SOURCES["door"], BlobModel(), sinks=app.sinks).run()
    assert out.read_text().split() == list("0123")


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ('sinks = [{ python = "MODULE:Half" }]', "The sink .*:Half lacks close"),
        ('sinks = [{ python = "MODULE:Keeps" }]', "wants 'path', and nothing gives it"),
        ('sinks = [{ python = "MODULE:tell", path = "x", pth = "y" }]', "no option 'pth'"),
        ('sinks = [{ python = "MODULE:ready" }]', "lacks emit, close"),
        ('sinks = [{ uri = "jsonl:x" }]', "without python"),
        ('[[steps]]\npython = "MODULE:ready"', "cannot be called"),
        ('[[steps]]\npython = "MODULE:Half"', "cannot be called"),
        ('[[steps]]\npython = "MODULE:tell"', "wants 'path'|returns nothing"),
        ('[[steps]]\npython = "MODULE:tell"\ntype = "track"', "both type and python"),
        ('[[steps]]\npython = "MODULE"', "names no code"),
        ('[[steps]]\npython = "MODULE.py:tell"', "There is no module"),
        ('[[steps]]\npython = "../MODULE:tell"', "names no code"),
        ("[[steps]]\npython = 3", "python must be a text"),
        ('[[steps]]\npython = "json:step"', "has no 'step'"),
    ],
)
def test_what_cannot_work_is_said_before_anything_opens(load: Load, toml: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(toml, SINKS)


def test_a_name_that_is_nearly_right_is_told(load: Load) -> None:
    with pytest.raises(ConfigError, match=r"own_.*\.py has no 'crwd'") as caught:
        load('[[steps]]\npython = "MODULE:crwd"', CROWD)
    assert "Did you mean 'crowd'?" in caught.value.hint
    with pytest.raises(ConfigError, match="There is no module 'MODLE") as caught:
        load('[[steps]]\npython = "MODLEx:crowd"', CROWD)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def crowd(result):\n    return result\n\ndef broken(:\n", r"SyntaxError: .*\.py, line 4\)"),
        ("\nimport nothing_of_this_name\n", r"No module named 'nothing_of_this_name' .*\.py, line 2\)"),
        ("limit = 3\nlimit / 0\n", r"ZeroDivisionError: division by zero .*\.py, line 2\)"),
        ("import sys\n\nsys.exit(3)\n", r"SystemExit: 3 .*\.py, line 3\)"),
    ],
)
def test_a_module_that_cannot_be_imported_is_named_by_file_and_line(load: Load, code: str, said: str) -> None:
    with pytest.raises(PluginError, match=said):
        load('[[steps]]\npython = "MODULE:crowd"', code)


def test_modules_beside_the_file_are_found_while_it_is_imported_and_not_afterwards(load: Load, tmp_path: Path) -> None:
    (tmp_path / "own_helper_beside.py").write_text("LIMIT = 1\n")
    (tmp_path / "own_helper_late.py").write_text("")
    (tmp_path / "queue.py").write_text("raise SystemExit('not that of Python')\n")
    code = "import queue\nimport own_helper_beside\n\ndef step(result):\n    return result.with_event('x')\n"
    before = list(sys.path), list(sys.meta_path)
    load('[[steps]]\npython = "MODULE:step"', code)
    assert (sys.path, sys.meta_path) == before
    with pytest.raises(ImportError):
        import own_helper_late  # type: ignore[import-not-found]  # noqa: F401
    assert not (tmp_path / "__pycache__").exists(), "no bytecode is left, and none is believed"


def test_a_file_with_the_name_of_a_module_of_python_is_refused(tmp_path: Path) -> None:
    (tmp_path / "signal.py").write_text("def step(result):\n    return result\n")
    config = tmp_path / "app.toml"
    config.write_text("")
    file = AppFile(steps=[{"python": "signal:step"}])
    with pytest.raises(ConfigError, match=r"signal\.py has the name of another module") as caught:
        check_app(file, "app.toml", code_beside=config)
    assert "my_signal.py" in caught.value.hint


def test_without_a_file_on_this_device_no_code_is_loaded(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    (tmp_path / "own_remote.py").write_text(f"open({str(marker)!r}, 'w')\n")
    for table in ("steps", "gates", "sinks"):
        file = read_struct({table: [{"python": "own_remote:step"}]}, AppFile, "remote")
        with pytest.raises(ConfigError, match="only a file on this device may do"):
            check_app(file, "remote")
    assert not marker.exists()


@pytest.mark.parametrize("open_to", ["file", "folder", "config", "package", "sibling"])
def test_code_that_others_may_write_is_not_run(tmp_path: Path, open_to: str) -> None:
    folder, marker = tmp_path / "app", tmp_path / "ran"
    name = f"own_open_{open_to}"
    (folder / f"{name}_package").mkdir(parents=True)
    run_by = f"open({str(marker)!r}, 'w')\n"
    (folder / f"{name}.py").write_text(f"import {name}_sibling\nimport {name}_package.inner\n{run_by}")
    (folder / f"{name}_sibling.py").write_text("")
    (folder / f"{name}_package/__init__.py").write_text("")
    (folder / f"{name}_package/inner.py").write_text("")
    (folder / "app.toml").write_text("")
    wrong = {
        "file": folder / f"{name}.py",
        "folder": folder,
        "config": folder / "app.toml",
        "package": folder / f"{name}_package/inner.py",
        "sibling": folder / f"{name}_sibling.py",
    }[open_to]
    wrong.chmod(wrong.stat().st_mode | 0o002)
    with pytest.raises(ConfigError, match=rf"Everybody may write .*{wrong.name}") as caught:
        check_app(AppFile(steps=[{"python": f"{name}:step"}]), "app.toml", code_beside=folder / "app.toml")
    assert "chmod o-w" in caught.value.hint
    assert not marker.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_code_of_another_user_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "own_foreign.py").write_text("def step(result):\n    return result\n")
    (tmp_path / "app.toml").write_text("")
    os.chown(tmp_path / "own_foreign.py", 12345, 0)
    file = AppFile(steps=[{"python": "own_foreign:step"}])
    with pytest.raises(ConfigError, match="belongs to another user"):
        check_app(file, "app.toml", code_beside=tmp_path / "app.toml")
    os.chown(tmp_path / "app.toml", 12345, 0)
    check_app(file, "app.toml", code_beside=tmp_path / "app.toml")  # whoever owns the file says what runs


def test_run_uses_own_steps_gates_and_sinks_and_names_their_mistakes(tmp_path: Path) -> None:
    write_bundle(tmp_path / "tiny.ecv")
    (tmp_path / "mystep.py").write_text(CROWD + SINKS + "\ndef breaks(result):\n    return result.frame.nothing\n")
    steps = '[[steps]]\npython = "mystep:crowd"\nlimit = 2\n[[gates]]\npython = "mystep:odd"\n'
    app = (
        'sinks = ["jsonl:out.jsonl", { python = "mystep:Keeps", path = "kept.txt" }]\n'
        f'[model]\nbundle = "tiny.ecv"\nthreads = 1\n[[sources]]\nname = "door"\nuri = "{SOURCES["door"]}"\n{steps}'
    )
    (tmp_path / "app.toml").write_text(app)
    command = [sys.executable, "-m", "edgecv", "run", "--config", "app.toml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(row["index"], [e["kind"] for e in row.get("events", [])]) for row in rows] == [
        (0, []),
        (2, ["crowd.began"]),
    ]
    assert (tmp_path / "kept.txt").read_text() == "0\n2\n"

    (tmp_path / "app.toml").write_text(
        app.replace("jsonl:out", "jsonl:two").replace("crowd", "breaks").replace("limit = 2\n", "")
    )
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    line = (tmp_path / "mystep.py").read_text().splitlines().index("    return result.frame.nothing") + 1
    assert "Step 1 of 1, 'mystep:breaks', raised AttributeError: " in done.stderr
    assert f"(mystep.py, line {line})" in done.stderr
    assert "Traceback" not in done.stderr
