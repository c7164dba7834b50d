"""The package of docs/plugins.md, built, installed and run: it needs its own files and entry points, and no line of EdgeCV."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgecv.testing import RUNTIME_CHECKS
from tests.conftest import CHECKOUT
from tests.models import SPEC, write_bundle

DEADLINE_S = 90


def _blocks() -> dict[str, str]:
    """The code in docs/plugins.md, by the name of the file that stands before it."""
    text = (CHECKOUT / "docs/plugins.md").read_text()
    return dict(re.findall(r"`([\w.]+)`:\n\n```\w+\n(.*?)```", text, re.DOTALL))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip put the package."""
    project, target = tmp_path_factory.mktemp("acme"), tmp_path_factory.mktemp("site")
    for name, code in _blocks().items():
        (project / name).write_text(code)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--target", str(target), str(project)]
    subprocess.run([*pip, *offline], check=True, timeout=DEADLINE_S)
    return target


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Finds bright cells, and decodes with the decoder of the package."""
    write_bundle(tmp_path / "tiny.ecv", {"fp32": 1.0})
    manifest = tmp_path / "tiny.ecv/bundle.json"
    document = json.loads(manifest.read_text())
    document["decode"]["decoder"] = "brightest"
    manifest.write_text(json.dumps(document))
    return tmp_path / "tiny.ecv"


def _python(site: Path, *arguments: str, cwd: Path = CHECKOUT) -> str:
    paths = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _edgecv(site: Path, *arguments: str, cwd: Path = CHECKOUT) -> Any:
    return json.loads(_python(site, "-m", "edgecv", *arguments, "--json", cwd=cwd))


def test_its_names_are_listed(site: Path) -> None:
    listed = _edgecv(site, "plugins")
    assert listed["sources"]["blink"] == "acme_vision:Blink"
    assert listed["sinks"]["tally"] == "acme_vision:Tally"
    assert listed["steps"]["only_seen"] == "acme_vision:only_seen"
    assert listed["decoders"]["brightest"] == "acme_vision:Brightest"
    assert listed["runtimes"]["acme"] == "acme_runtime:AcmeSession"


def test_an_app_of_its_source_step_sink_and_decoder_runs(site: Path, bundle: Path, tmp_path: Path) -> None:
    *_, app = re.findall(r"```toml\n(.*?)```", (CHECKOUT / "docs/plugins.md").read_text(), re.DOTALL)
    (tmp_path / "app.toml").write_text(app)
    report = _edgecv(site, "run", str(bundle), "--config", "app.toml", cwd=tmp_path)
    assert report["frames"] == 4
    assert (tmp_path / "seen.txt").read_text() == "2\n", "every second image is bright, and has one brightest box"


def test_its_runtime_runs_a_model_and_is_listed_with_its_version(site: Path, tmp_path: Path) -> None:
    (tmp_path / "cells.acme").write_text("cells 16")
    spec = msgspec.json.encode(
        msgspec.structs.replace(
            SPEC, decode=msgspec.structs.replace(SPEC.decode, decoder="brightest", labels=("bright",))
        )
    ).decode()
    program = (
        "import sys, msgspec, numpy as np, edgecv\n"
        "spec = msgspec.json.decode(sys.argv[2], type=edgecv.ModelSpec)\n"
        "image = np.zeros((64, 64, 3), np.uint8); image[16:32, 48:64] = 255\n"
        "with edgecv.load(sys.argv[1], spec=spec) as model: print(model(image).xyxy.tolist())\n"
    )
    assert json.loads(_python(site, "-c", program, str(tmp_path / "cells.acme"), spec)) == [[48, 16, 64, 32]]
    assert _edgecv(site, "devices")["runtimes"]["acme-vision"] == "1.0"


def test_its_runtime_passes_the_checks_of_a_runtime(site: Path, tmp_path: Path) -> None:
    (tmp_path / "check_acme.py").write_text(_blocks()["check_acme.py"])
    passed = _python(site, str(tmp_path / "check_acme.py"), str(tmp_path / "model.acme")).split()
    assert passed == [name for name in RUNTIME_CHECKS if name != "golden_vectors"]


@pytest.mark.parametrize(
    ("app", "said"),
    [
        ('sources = [{ uri = "blink://?frame=4" }]', "Known: frames"),
        ('sources = [{ uri = "blink://" }]\nsinks = ["tally:seen.txt?foo=1"]', "has no option 'foo'"),
    ],
)
def test_its_options_are_as_strict_as_those_of_edgecv(
    site: Path, bundle: Path, tmp_path: Path, app: str, said: str
) -> None:
    (tmp_path / "app.toml").write_text(app)
    with pytest.raises(AssertionError) as caught:
        _edgecv(site, "run", str(bundle), "--config", "app.toml", cwd=tmp_path)
    assert said in str(caught.value)
