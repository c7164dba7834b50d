from __future__ import annotations

import pytest

from edgecv.benchmarks.memory import ProcessMemory, read_memory
from edgecv.errors import DeviceError


def test_memory_is_read_in_bytes(tmp_path):
    rollup = "5624-7fff ---p 00000000 00:00 0    [rollup]\nRss:    1616 kB\nPss:     353 kB\nPss_Dirty:  112 kB\n"
    (tmp_path / "smaps_rollup").write_text(rollup)
    (tmp_path / "status").write_text("Name:\tpython\nVmHWM:\t    2000 kB\nThreads:\t1\n")
    assert read_memory(tmp_path) == ProcessMemory(
        rss_bytes=1616 * 1024, pss_bytes=353 * 1024, peak_rss_bytes=2000 * 1024
    )


def test_this_process_holds_memory():
    found = read_memory()
    assert 0 < found.pss_bytes <= found.rss_bytes <= found.peak_rss_bytes


def test_a_process_that_is_gone_is_an_error(tmp_path):
    with pytest.raises(DeviceError, match="does not say how much memory"):
        read_memory(tmp_path / "4711")
