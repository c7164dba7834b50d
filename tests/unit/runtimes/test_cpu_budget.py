"""How much of the machine a process may use: its quota and its limit of memory, at every level of its control groups."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from edgecv.runtimes.cpu_budget import _memory, _quota, cpu_quota, effective_cpus, memory_limit, within_quota
from tests.boards import write_tree

V2 = {"proc/self/cgroup": "0::/system.slice/edgecv.service\n"}
V1 = {"proc/self/cgroup": "4:memory:/docker/abc\n3:cpuset:/\n2:cpu,cpuacct:/docker/abc\n0::/\n"}
HYBRID = {"proc/self/cgroup": "2:cpu:/a\n1:memory:/a\n0::/a\n"}
NONE_V1 = "9223372036854771712\n"


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        (V2, None),
        (V2 | {"cgroup/system.slice/edgecv.service/cpu.max": "max 100000\n"}, None),
        (V2 | {"cgroup/system.slice/edgecv.service/cpu.max": "150000 100000\n"}, 1.5),
        (V2 | {"cgroup/system.slice/edgecv.service/cpu.max": "50000 100000\n"}, 0.5),
        # The level above is tighter than its own.
        (
            V2
            | {
                "cgroup/system.slice/cpu.max": "100000 100000\n",
                "cgroup/system.slice/edgecv.service/cpu.max": "400000 100000\n",
            },
            1.0,
        ),
        # In a container with a name space of its own the root is the container's group.
        ({"proc/self/cgroup": "0::/\n", "cgroup/cpu.max": "200000 100000\n"}, 2.0),
        # In one without, the place is that of the host, and only the root is there.
        ({"proc/self/cgroup": "0::/docker/4f1a\n", "cgroup/cpu.max": "200000 100000\n"}, 2.0),
        ({"proc/self/cgroup": "0::/../../user.slice\n", "cgroup/user.slice/cpu.max": "30000 10000\n"}, 3.0),
        ({"cgroup/cpu.max": "200000 100000\n"}, 2.0),
        (V1 | {"cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "-1\n"}, None),
        (
            V1
            | {
                "cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "250000\n",
                "cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000\n",
            },
            2.5,
        ),
        # A link of the same controller under its own name.
        (V1 | {"cgroup/cpu/cpu.cfs_quota_us": "50000\n", "cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        (HYBRID | {"cgroup/cpu/a/cpu.cfs_quota_us": "100000\n", "cgroup/cpu/a/cpu.cfs_period_us": "100000\n"}, 1.0),
        (HYBRID | {"cgroup/unified/a/cpu.max": "100000 100000\n"}, 1.0),
        # Torn, empty, or nonsense.
        (V2 | {"cgroup/cpu.max": "2000"}, None),
        (V2 | {"cgroup/cpu.max": ""}, None),
        (V2 | {"cgroup/cpu.max": "100000 0\n"}, None),
        (V2 | {"cgroup/cpu.max": "\x00\xff"}, None),
        (V1 | {"cgroup/cpu/cpu.cfs_quota_us": "50000\n"}, None),
    ],
)
def test_the_tightest_quota_up_to_the_root_counts(tmp_path: Path, files: dict[str, str], quota: float | None) -> None:
    write_tree(files, tmp_path)
    assert cpu_quota(tmp_path / "proc", tmp_path / "cgroup") == quota


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, None),
        (V2 | {"cgroup/system.slice/edgecv.service/memory.max": "max\n"}, None),
        (V2 | {"cgroup/system.slice/memory.max": "1073741824\n"}, 2**30),
        (V2 | {"cgroup/memory.max": "1000\n", "cgroup/system.slice/memory.max": "2000\n"}, 1000),
        (V1 | {"cgroup/memory/docker/abc/memory.limit_in_bytes": NONE_V1}, None),
        (V1 | {"cgroup/memory/docker/abc/memory.limit_in_bytes": "536870912\n"}, 2**29),
        (V1 | {"cgroup/memory/memory.limit_in_bytes": "536870912\n"}, 2**29),
        (V2 | {"cgroup/memory.max": "-5\n"}, None),
    ],
)
def test_the_tightest_limit_of_memory_up_to_the_root_counts(
    tmp_path: Path, files: dict[str, str], limit: int | None
) -> None:
    write_tree(files, tmp_path)
    assert memory_limit(tmp_path / "proc", tmp_path / "cgroup") == limit


@pytest.mark.parametrize(
    ("cpus", "quota", "threads"), [(64, 2.0, 2), (64, 1.5, 2), (4, 0.5, 1), (4, None, 4), (4, 64.0, 4), (0, None, 1)]
)
def test_threads_are_the_quota_rounded_up_but_no_more_than_there_are_cpus(
    cpus: int, quota: float | None, threads: int
) -> None:
    assert within_quota(cpus, quota) == threads


def test_this_machine_has_at_least_one_cpu_to_use() -> None:
    assert effective_cpus() >= 1


@given(st.binary(max_size=60), st.binary(max_size=30))
def test_no_content_of_the_files_is_an_error(
    tmp_path_factory: pytest.TempPathFactory, first: bytes, second: bytes
) -> None:
    folder = tmp_path_factory.getbasetemp() / "any"
    folder.mkdir(exist_ok=True)
    for name in ("cpu.max", "memory.max", "cpu.cfs_quota_us", "cpu.cfs_period_us", "memory.limit_in_bytes"):
        (folder / name).write_bytes(first)
    (folder / "cpu.cfs_period_us").write_bytes(second)
    (folder / "self").mkdir(exist_ok=True)
    (folder / "self/cgroup").write_bytes(first)
    assert cpu_quota(folder, folder) is None or _quota(folder) is not None
    assert memory_limit(folder, folder) is None or _memory(folder) is not None


def test_a_folder_in_place_of_a_file_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").mkdir()
    (tmp_path / "self").mkdir()
    (tmp_path / "self/cgroup").mkdir()
    assert cpu_quota(tmp_path, tmp_path) is None
