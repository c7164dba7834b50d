"""What tests share is made once, and never half."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.once import made_once


def test_who_comes_second_gets_what_the_first_made(tmp_path_factory: pytest.TempPathFactory) -> None:
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "file").write_text("whole")

    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: made_once(tmp_path_factory, "of-test-once", make), range(4)))
    assert len(made) == len(folders) == 1
    assert (folders.pop() / "file").read_text() == "whole"


def test_what_failed_is_made_anew(tmp_path_factory: pytest.TempPathFactory) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError):
        made_once(tmp_path_factory, "of-test-once-failed", fail)
    folder = made_once(tmp_path_factory, "of-test-once-failed", lambda folder: (folder / "whole").touch())
    assert [path.name for path in folder.iterdir()] == ["whole"]
