"""Folders appear complete or not at all."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgecv._internal.atomic import Kind, check_target, new_folder
from edgecv.errors import ConfigError, EdgeCVError
from tests.conftest import names_in

ANY = Kind(name="anything", other=lambda _: "")


def fill(folder: Path, text: str) -> None:
    (folder / "inner").mkdir()
    (folder / "inner/file.txt").write_text(text)


def read(folder: Path) -> str:
    return (folder / "inner/file.txt").read_text()


def test_the_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "made"
    with new_folder(target) as work:
        fill(work, "new")
        assert not target.exists()
    assert read(target) == "new"
    assert names_in(tmp_path) == ["made"]


@pytest.mark.parametrize("error", [ValueError, ConfigError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("before", [False, True], ids=["nothing", "old"])
def test_an_interrupted_write_leaves_what_was_there(tmp_path: Path, error, before) -> None:
    target = tmp_path / "made"
    if before:
        target.mkdir()
        fill(target, "old")
    with pytest.raises(error), new_folder(target, force=True, kind=ANY) as work:
        fill(work, "new")
        raise error("stop")
    assert names_in(tmp_path) == (["made"] if before else [])
    assert not before or read(target) == "old"


def test_force_keeps_the_old_one_until_the_new_one_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "made"
    for text in ("old", "new"):
        with new_folder(target, force=True, kind=ANY) as work:
            fill(work, text)
            if text == "new":
                assert read(target) == "old"
    assert read(target) == "new"
    assert names_in(tmp_path) == ["made"]


@pytest.mark.parametrize("kind", ["file", "link", "dangling"])
def test_force_replaces_a_file_or_a_link_and_not_what_it_points_to(tmp_path: Path, kind: str) -> None:
    target, other = tmp_path / "made", tmp_path / "other"
    other.mkdir()
    fill(other, "not mine")
    if kind == "file":
        target.write_text("old")
    else:
        target.symlink_to(other if kind == "link" else tmp_path / "nowhere")
    with new_folder(target, force=True, kind=ANY) as work:
        fill(work, "new")
    assert not target.is_symlink()
    assert read(target) == "new"
    assert read(other) == "not mine"
    assert names_in(tmp_path) == ["made", "other"]


def make_file(path: Path) -> None:
    path.write_text("old")


@pytest.mark.parametrize("make", [Path.mkdir, make_file, lambda path: path.symlink_to("nowhere")])
def test_an_existing_target_is_refused_without_force(tmp_path: Path, make) -> None:
    target = tmp_path / "made"
    make(target)
    with pytest.raises(ConfigError, match="exists already") as caught, new_folder(target):
        pytest.fail("the block must not run")
    assert "--force" in caught.value.hint
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("parent", "named"),
    [
        ("missing", "does not exist"),
        ("missing/deeper", "does not exist"),
        ("file", "does not exist"),  # the way leads through a file
        ("/proc/self", "cannot be written"),  # refuses even root
    ],
)
def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path: Path, parent: str, named: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=named) as caught:
        check_target(tmp_path / parent / "made", force=False)
    assert caught.value.hint


def test_checking_a_target_leaves_no_trace(tmp_path: Path) -> None:
    check_target(tmp_path / "made", force=False)
    assert not names_in(tmp_path)


def test_a_disk_that_refuses_is_an_error_of_ours_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(EdgeCVError, match="failed") as caught, new_folder(tmp_path / "made") as work:
        (work / "no/such/folder").write_text("x")
    assert isinstance(caught.value.__cause__, OSError)
    assert not names_in(tmp_path)


KILLED = """
import sys, time
from pathlib import Path
from edgecv._internal.atomic import Kind, new_folder
ANY = Kind(name="anything", other=lambda path: "")
with new_folder(Path(sys.argv[1]), force=True, kind=ANY) as work:
    (work / "half").write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("before", [False, True], ids=["nothing", "old"])
def test_after_a_kill_the_next_run_cleans_up(tmp_path: Path, before: bool) -> None:
    target = tmp_path / "made"
    if before:
        target.mkdir()
        fill(target, "old")
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(target)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "writing\n"
    child.send_signal(signal.SIGKILL)
    child.wait(timeout=20)
    child.stdout.close()
    assert target.exists() == before
    assert len(names_in(tmp_path)) == 1 + before  # the half-written one is hidden beside the target
    with new_folder(target, force=True, kind=ANY) as work:
        fill(work, "new")
    assert read(target) == "new"
    assert names_in(tmp_path) == ["made"]


def dead_pid() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait(timeout=20)
    return child.pid


def test_what_was_being_replaced_when_the_power_went_comes_back(tmp_path: Path) -> None:
    old = tmp_path / f".made.old-{dead_pid()}"
    old.mkdir()
    fill(old, "old")
    with pytest.raises(RuntimeError), new_folder(tmp_path / "made") as work:
        fill(work, "new")
        raise RuntimeError("and now this run fails, too")
    assert read(tmp_path / "made") == "old"


def test_a_running_process_keeps_its_work_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not replaced"), new_folder(tmp_path / "made") as work:
        child = subprocess.run(
            [sys.executable, "-c", KILLED.replace("time.sleep(60)", ""), str(tmp_path / "made")],
            capture_output=True,
            timeout=20,
            check=False,
        )
        assert child.returncode == 0
        assert work.is_dir()
        shown_by = time.monotonic() + 5
        while not (tmp_path / "made/half").exists():
            assert time.monotonic() < shown_by
    assert (tmp_path / "made/half").exists(), "two writers without --force: the later one leaves what the first made"
