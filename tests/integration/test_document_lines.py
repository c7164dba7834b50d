"""Every shell line of README.md and docs/ that can run on a PC is run, and every file that documents name exists."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer

from edgecv._internal.strict import read_struct
from edgecv.cli import app as cli
from edgecv.cli.app_config import AppFile, check_app
from tests.conftest import CHECKOUT, SHARED
from tests.documents import DOCUMENTS, ROOM_DOCUMENTS, Block, blocks, edgecv_calls, links, named_files
from tests.models import write_bundle
from tests.package_index import checkout_copy, needs_a_package_index
from tests.unit.test_media import write_mp4

FAST_DEADLINE_S = 100
SLOW_DEADLINE_S = 2400  # a conversion takes a minute, beside other work several
# Names that documents use for files of the user, and of others.
FOREIGN_FILES = {
    *(
        "app.toml",
        "data.yaml",
        "bundle.json",
        "service.py",
        "README.md",
        "report.html",
        "metadata.yaml",
        "recording.json",
    ),
    *("two_cameras.py", "edgecv.service", "quantization.json", "step.py", "pyproject.toml", "lscpu-arm.c"),
    "mystep.py",  # that a reader writes
    *("acme_vision.py", "acme_runtime.py", "check_acme.py"),  # of the package in docs/plugins.md
}
APP = """
[model]
bundle = "yolov8n.ecv"
[[sources]]
uri = "clip.mp4"
[[steps]]
type = "track"
[[steps]]
type = "line"
name = "door"
points = [[0.1, 0.5], [0.9, 0.5]]
units = "relative"
"""


def shell_blocks(document: Path) -> list[Block]:
    return [block for block in blocks(document) if block.is_shell]


def with_blocks(*how: str) -> list[Path]:
    return [path for path in DOCUMENTS if any(block.how in how for block in shell_blocks(path))]


def named(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


def run_blocks(document: Path, desk: Path, how: tuple[str, ...], deadline_s: float) -> None:
    """Run the blocks in their order, in one shell, in a folder of their own; ``edgecv`` is the code under test."""
    programs = desk.parent / "programs"
    programs.mkdir()
    (programs / "edgecv").write_text(f'#!/bin/sh\nPYTHONPATH={CHECKOUT} exec {sys.executable} -m edgecv "$@"\n')
    (programs / "edgecv").chmod(0o755)
    scripts = [block.script for block in shell_blocks(document) if block.how in how]
    environment = {
        **{name: value for name, value in os.environ.items() if name.startswith(("PIP_", "LANG", "LC_"))},
        "PATH": f"{programs}:{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(desk),
        "NO_COLOR": "1",
    }
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", "\n".join(scripts)],
        cwd=desk,
        env=environment,
        capture_output=True,
        text=True,
        timeout=deadline_s,
        check=False,
    )
    assert done.returncode == 0, f"{named(document)}: {done.stderr[-2000:]}"


def write_desk(desk: Path) -> None:
    """What documents speak of: a small model, a clip, images, an application."""
    desk.mkdir()
    write_bundle(desk / "yolov8n.ecv")
    write_bundle(desk / "new.ecv")
    write_mp4(desk / "clip.mp4", frames=5)
    (desk / "images").mkdir()
    write_frames(desk)
    (desk / "app.toml").write_text(APP)


def write_frames(desk: Path) -> None:
    import cv2

    from tests.unit.test_media import noise

    for index in range(2):
        cv2.imwrite(str(desk / f"images/{index}.png"), noise(index))


@pytest.mark.parametrize("document", with_blocks("fast"), ids=named)
def test_the_shell_lines_of_a_document_run(document: Path, tmp_path: Path) -> None:
    write_desk(tmp_path / "desk")
    run_blocks(document, tmp_path / "desk", ("fast",), FAST_DEADLINE_S)


@pytest.mark.slow
@pytest.mark.timeout(SLOW_DEADLINE_S + 60)
@pytest.mark.parametrize("document", with_blocks("slow"), ids=named)
def test_the_long_shell_lines_of_a_document_run(document: Path, tmp_path: Path, yolov8n: Path) -> None:
    how = ["slow"]
    if any(block.how == "install" for block in shell_blocks(document)):
        needs_a_package_index()
        how.append("install")
    desk = checkout_copy(tmp_path / "desk")
    shutil.copy(yolov8n, desk / "yolov8n.pt")
    shutil.copy(SHARED / "models/resnet20-cifar10.onnx", desk / "classifier.onnx")
    (desk / "crops").symlink_to((SHARED / "data/cifar10-jpeg/calibration").resolve())
    labelled_images(desk)
    if document.name == "benchmarks.md":  # the others convert by themselves
        convert_quickly(desk)
    run_blocks(document, desk, tuple(how), SLOW_DEADLINE_S)


def convert_quickly(desk: Path) -> None:
    options = "--out yolov8n.ecv --to onnx --to openvino --int8 --calib images --imgsz 320"
    command = [sys.executable, "-m", "edgecv", "convert", "yolov8n.pt", *options.split()]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    subprocess.run(command, cwd=desk, env=environment, check=True, timeout=600, capture_output=True)


def labelled_images(desk: Path) -> None:
    """Half of coco128 to calibrate with, and a quarter with its labels."""
    import yaml

    coco = (SHARED / "data/coco128-train").resolve()
    (desk / "images").mkdir()
    (desk / "val/images").mkdir(parents=True)
    (desk / "val/labels").symlink_to(coco / "labels")
    for number, image in enumerate(sorted((coco / "images").glob("*.jpg"))):
        if (folder := {0: "val/images", 1: "images", 2: "images"}.get(number % 4)) is not None:
            (desk / folder / image.name).symlink_to(image)
    ultralytics = importlib.util.find_spec("ultralytics")
    assert ultralytics is not None and ultralytics.origin is not None
    coco128 = Path(ultralytics.origin).parent / "cfg/datasets/coco128.yaml"
    names = yaml.safe_load(coco128.read_text())["names"]
    (desk / "val.yaml").write_text(yaml.safe_dump({"path": "val", "val": "images", "names": names}))


@pytest.mark.slow
@pytest.mark.timeout(SLOW_DEADLINE_S)
@pytest.mark.parametrize(
    "document", [path for path in with_blocks("install") if path not in with_blocks("slow")], ids=named
)
def test_the_install_lines_of_a_document_run(document: Path, tmp_path: Path) -> None:
    needs_a_package_index()
    run_blocks(document, checkout_copy(tmp_path / "desk"), ("install",), SLOW_DEADLINE_S)


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_lines_that_are_not_run_say_why(document: Path) -> None:
    for block in shell_blocks(document):
        assert block.how != "not run" or len(block.reason.split()) >= 3, f"{block.place}: no reason"


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_no_shell_line_hides_in_a_block_without_a_language(document: Path) -> None:
    for block in blocks(document):
        hidden = [line for line in block.lines if line.startswith(("edgecv ", "pip ", "make ", "sudo ", "$ "))]
        assert block.is_shell or not hidden, f"{block.place}: {hidden[:1]} would be run by no test"


@functools.cache
def all_commands() -> dict[str, Any]:
    commands: dict[str, Any] = typer.main.get_command(cli._app()).commands  # type: ignore[attr-defined]
    return commands


@pytest.mark.parametrize("document", [*DOCUMENTS, *ROOM_DOCUMENTS], ids=named)
def test_commands_and_options_that_documents_show_exist(document: Path) -> None:
    commands = all_commands()
    for place, words in edgecv_calls(document):
        name = words[1]
        assert name in commands, f"{place}: there is no command {name}"
        found = commands[name]
        if isinstance(found, typer.core.TyperGroup) and len(words) > 2 and not words[2].startswith("-"):
            name = f"{name} {words[2]}"
            assert words[2] in found.commands, f"{place}: there is no command {name}"
            found = found.commands[words[2]]
        known = {option for parameter in found.params for option in parameter.opts} | {"--help"}
        unknown = {word.partition("=")[0] for word in words[2:] if word.startswith("--")} - known
        assert not unknown, f"{place}: edgecv {name} has no {unknown}"


@pytest.mark.parametrize("document", [*DOCUMENTS, *ROOM_DOCUMENTS], ids=named)
def test_links_lead_somewhere(document: Path) -> None:
    assert [target for target in links(document) if not (document.parent / target).exists()] == []


@pytest.mark.parametrize("document", [*DOCUMENTS, *ROOM_DOCUMENTS], ids=named)
def test_files_that_a_document_names_exist(document: Path) -> None:
    """As seen from the root, from the room, or from a folder below the room."""
    missing = []
    for name in named_files(document):
        places = (CHECKOUT / name, document.parent / name)
        if name not in FOREIGN_FILES and not any(place.exists() for place in places):
            missing.append(name)
    assert missing == []


def test_the_small_application_of_the_guides_is_valid() -> None:
    text = (CHECKOUT / "docs/examples/app.toml").read_text()
    app = check_app(read_struct(msgspec.toml.decode(text), AppFile, "app.toml"), "app.toml")
    assert [source.name for source in app.file.sources] == ["door"]
    assert len(app.steps) == 2


@pytest.mark.parametrize("guide", sorted((CHECKOUT / "docs").glob("guide-*.md")), ids=named)
def test_a_guide_installs_to_the_place_that_the_unit_starts(guide: Path) -> None:
    text, unit = guide.read_text(), (CHECKOUT / "docs/examples/edgecv.service").read_text()
    program = (
        next(line for line in unit.splitlines() if line.startswith("ExecStart=")).split()[0].removeprefix("ExecStart=")
    )
    assert f"python3 -m venv {program.removesuffix('/bin/edgecv')}\n" in text
    assert f"ln -sf {program} /usr/local/bin/edgecv" in text, "edgecv is found without an active environment"
    copied = next(line for line in text.splitlines() if line.startswith("scp "))
    assert all(name in copied for name in ("edgecv-*.whl", ".ecv.zip", "app.toml", "edgecv.service"))
    assert "/var/lib/edgecv/" in text
    assert "does not use" in text.split("\n\n")[1] or "not for you" in text.split("\n\n")[1], (
        "first what it does not do"
    )


@pytest.mark.parametrize("decision", sorted((CHECKOUT / "docs/adr").glob("[0-9]*.md")), ids=named)
def test_decisions_have_one_form(decision: Path) -> None:
    text = decision.read_text()
    assert re.match(r"# \d+\. .+\n\nDate: \d{4}-\d\d-\d\d\. Status: (accepted|replaced by ADR \d+)", text)
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]
    assert f"({decision.name})" in (CHECKOUT / "docs/adr/README.md").read_text()
