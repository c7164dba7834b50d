from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgecv._internal.file_locks import is_locked, lock_file, lock_owner
from tests.conftest import CHECKOUT

HOLD = """
import sys, time
from pathlib import Path
from edgecv._internal.file_locks import lock_file
held = lock_file(Path(sys.argv[1]), sign=True)
print("held", flush=True)
time.sleep(60)
"""


def test_a_lock_is_somebodys_until_their_process_dies(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_locked(path)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True, cwd=CHECKOUT
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert lock_file(path) is None
        assert is_locked(path)
        assert lock_owner(path) == str(holder.pid)
        holder.kill()
    assert not is_locked(path)
    lock = lock_file(path)
    assert lock is not None
    assert lock_owner(path) == str(holder.pid)  # who does not sign leaves the contents alone
    lock.close()


def test_a_lock_that_is_closed_is_free(tmp_path: Path) -> None:
    first = lock_file(tmp_path / "lock")
    assert first is not None
    assert lock_file(tmp_path / "lock") is None
    first.close()
    second = lock_file(tmp_path / "lock", sign=True)
    assert second is not None
    second.close()


def test_a_lock_is_not_made_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match=r"[Ss]ymbolic"):
        lock_file(tmp_path / "lock")
    assert not (tmp_path / "victim").exists()


def test_a_longer_signature_is_replaced_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("123456789012345\n")
    lock = lock_file(tmp_path / "lock", sign=True)
    assert lock is not None
    assert (tmp_path / "lock").read_text().count("\n") == 1
    assert len(lock_owner(tmp_path / "lock")) < 15
    lock.close()
