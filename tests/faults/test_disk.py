"""A disk that is full, read-only or failing for a while, under a device that goes on."""

from __future__ import annotations

import errno
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.harness import World
from tests.faults.judge import names_in
from tests.faults.preload import DiskControl, build, environment
from tests.unit.cloud_sync.support import until

_REFUSED = 300  # offered, while the disk takes nothing


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An empty disk of 4 MB where the outbox will be; the test skips for whoever may not mount one."""
    folder = tmp_path / "outbox"
    folder.mkdir(mode=0o700)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"needs to mount a tmpfs: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], timeout=10, check=True)


def offers(world: World, more: int) -> None:
    """Wait until the device offered so many more events."""
    goal = len(names_in(world.folder / "offered")) + more
    until(lambda: len(names_in(world.folder / "offered")) >= goal, f"{more} more events", timeout_s=30.0, pause_s=0.02)


def require_exact(world: World) -> None:
    """Everything drained by itself, and each event is stored or counted as refused."""
    verdict = world.finish()
    verdict.require_perfect()
    stats = world.stats()
    assert (stats["emitted"], stats["evicted"], stats["pending"]) == (verdict.offered, 0, 0), stats
    assert stats["refused"] > 0, stats
    assert stats["accepted"] + stats["refused"] == verdict.offered, stats
    assert verdict.stored == stats["accepted"], (verdict, stats)


@pytest.mark.parametrize("reason", ["ENOSPC", "EROFS", pytest.param("EIO", marks=pytest.mark.slow)])
def test_a_disk_that_takes_nothing_for_a_while_refuses_exactly_and_drains_by_itself(
    tmp_path: Path, reason: str
) -> None:
    control = DiskControl(tmp_path / "control")
    preloaded = environment(build(tmp_path), tmp_path / "outbox", control=control)
    with World(tmp_path, rate=1000.0, environment=preloaded) as world:
        world.accepts()
        control.set(errno=getattr(errno, reason))
        offers(world, _REFUSED)
        control.set()
        world.accepts()
        require_exact(world)


def test_a_full_disk_of_4_mb_that_is_freed_again(small_disk: Path, tmp_path: Path) -> None:
    with World(tmp_path, rate=4000.0) as world:
        world.accepts()
        world.proxy.set("black_hole")
        fill = small_disk / "of-somebody-else"
        with fill.open("wb", buffering=0) as handle, suppress(OSError):
            while handle.write(bytes(4096)):  # somebody else takes the space, too
                time.sleep(0.0002)
        offers(world, 1000)
        assert world.device.running.poll() is None
        world.proxy.set("passing")
        time.sleep(1.0)  # what it has can be delivered; nothing can be deleted yet
        fill.unlink()
        world.accepts()
        require_exact(world)
