"""``edgecv devices``, as a person calls it."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from edgecv.devices.profiles import profiles
from tests.conftest import CHECKOUT


def _edgecv(*arguments: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *options, "-m", "edgecv", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=CHECKOUT)


def test_it_answers_without_numpy_parser_or_runtime() -> None:
    """On a board each of them takes longer than all the rest: 300 ms are allowed."""
    done = _edgecv("devices", options=("-X", "importtime"))
    imported = set(re.findall(r"\|\s+([\w.]+)$", done.stderr, re.MULTILINE))
    assert done.returncode == 0
    assert "edgecv.devices.detect" in imported
    heavy = ("numpy", "typer", "pydantic", "rich", "onnxruntime", "openvino", "ai_edge_litert", "cv2")
    assert not imported.intersection(heavy)


def test_the_json_document_has_what_the_page_of_documents_says() -> None:
    document = json.loads(_edgecv("devices", "--json").stdout)
    page = (CHECKOUT / "docs/devices.md").read_text()
    table = page.partition("## JSON")[2].partition("## Profiles")[0]
    assert set(document) == {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in _names(row)}
    assert all(f"`{name}`" in table for name in (*document["board"], *document["cpu"], *document["memory"]))


def _names(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


def test_profiles_are_listed_and_one_is_this_device() -> None:
    done = _edgecv("devices", "--profiles")
    assert all(profile.title in done.stdout for profile in profiles())
    assert done.stdout.count("<- this device") == 1
    listed = json.loads(_edgecv("devices", "--profiles", "--json").stdout)
    assert [profile["name"] for profile in listed] == [profile.name for profile in profiles()]
    assert sum(profile["this"] for profile in listed) == 1
    assert all(note["source"] for profile in listed for note in profile["notes"])


@pytest.mark.parametrize(("option", "code", "text"), [("--help", 0, "--profiles"), ("--jsn", 2, "No such option")])
def test_help_and_mistakes_are_the_parsers(option: str, code: int, text: str) -> None:
    done = _edgecv("devices", option)
    assert done.returncode == code
    assert text in done.stdout + done.stderr
