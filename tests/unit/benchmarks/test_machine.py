"""Who used the machine, and what that means for the figures."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgecv.benchmarks.machine.comparability import cpu_governor, fingerprint, model_hash
from edgecv.benchmarks.machine.processor_time import ProcessorTime, Shares, read_processor_time, shares_between
from edgecv.benchmarks.machine.quality import Seen, judge_quality
from edgecv.benchmarks.machine.spin import spin_speed
from edgecv.benchmarks.machine.watch import Watch, wait_until_idle
from edgecv.devices.detect import detect

_SECOND = os.sysconf("SC_CLK_TCK")


def _proc(folder: Path, stat: str, own: str = "7 (a b) c) S 1 7 7 0 -1 0 0 0 0 0 100 50 0 0 20 0 1 0 0") -> Path:
    (folder / "self").mkdir(parents=True)
    (folder / "stat").write_text(stat)
    (folder / "self/stat").write_text(own)
    return folder


def _line(busy_s: int, idle_s: int, stolen_s: int = 0) -> str:
    """The lines of every processor that this process may use."""
    cells = f"{busy_s * _SECOND} 0 0 {idle_s * _SECOND} 0 0 0 {stolen_s * _SECOND} 0 0"
    return "\n".join([f"cpu  {cells}", *(f"cpu{number} {cells}" for number in os.sched_getaffinity(0)), "intr 1"])


def _time(at_s: float, busy_s: float, own_s: float, stolen_s: float = 0.0) -> ProcessorTime:
    return ProcessorTime(at_s=at_s, cores=2, busy_s=busy_s, own_s=own_s, stolen_s=stolen_s)


def test_processor_time_is_read_of_the_usable_processors(tmp_path: Path) -> None:
    found = read_processor_time(_proc(tmp_path / "proc", _line(10, 90, 5)))
    assert found is not None
    cores = len(os.sched_getaffinity(0))
    assert (found.cores, found.busy_s, found.stolen_s, found.own_s) == (cores, 10 * cores, 5 * cores, 150 / _SECOND)


@pytest.mark.parametrize(
    "stat", ["", "cpu 1 2", "cpu0 a b c d e f g h\n", _line(0, 0), "cpu0 1 2 3 4\ncpu1 1 2 3 4\n", "\0\0\0"]
)
def test_a_torn_or_empty_stat_is_unknown(tmp_path: Path, stat: str) -> None:
    assert read_processor_time(_proc(tmp_path / "proc", stat)) is None


def test_a_missing_proc_is_unknown(tmp_path: Path) -> None:
    assert read_processor_time(tmp_path) is None


def test_shares_are_what_others_used() -> None:
    found = shares_between(_time(0, 100, 10), _time(10, 115, 15, 2))
    assert found == Shares(foreign=0.5, stolen=0.1)
    assert shares_between(_time(0, 100, 10), _time(10, 104, 15)) == Shares(foreign=0.0, stolen=0.0)
    assert shares_between(None, _time(0, 0, 0)) is None
    assert shares_between(_time(5, 0, 0), _time(5, 0, 0)) is None


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ({"shares": Shares(foreign=0.5, stolen=0.0)}, "other programs used 50%"),
        ({"shares": Shares(foreign=0.0, stolen=0.1)}, "kept 10%"),
        ({"speed_change": -0.05}, "counted 5% slower"),
        ({"throttled": 3}, "slowed itself 3 times"),
        ({"settled": False}, "not stable"),
        ({"drift": 0.2}, "second half was 20% slower"),
        ({"elapsed_s": 0.4}, "too short"),
    ],
)
def test_every_disturbance_is_a_reason(seen: dict[str, object], said: str) -> None:
    found = judge_quality(Seen(**{"elapsed_s": 10.0, **seen}))  # type: ignore[arg-type]
    assert found.verdict == "noisy"
    assert any(said in reason for reason in found.reasons), found.reasons


def test_an_idle_machine_is_clean_and_what_is_unknown_is_said() -> None:
    found = judge_quality(Seen(elapsed_s=10.0, shares=Shares(foreign=0.01, stolen=0.0), throttled=0))
    assert (found.verdict, found.reasons, found.unknown) == ("clean", (), ())
    blind = judge_quality(Seen(elapsed_s=10.0))
    assert blind.unknown == ("what other programs used", "whether the device slowed itself")


def test_it_waits_until_the_machine_is_idle() -> None:
    looks = iter([Shares(foreign=0.9, stolen=0.0), Shares(foreign=0.3, stolen=0.0), Shares(foreign=0.0, stolen=0.01)])
    assert wait_until_idle(30.0, lambda: next(looks)) is True
    assert wait_until_idle(0.0, lambda: Shares(foreign=0.9, stolen=0.0)) is False
    assert wait_until_idle(30.0, lambda: None) is None


def test_a_watch_reads_the_sensors_once_a_second_and_ends_with_a_verdict() -> None:
    watch = Watch(0.0)
    for _ in range(100):
        watch.tick()
    assert len(watch.readings) == 1
    assert watch.end().verdict == "noisy"  # no second has passed
    assert len(watch.readings) == 2


def test_a_loop_tells_the_speed_of_the_machine() -> None:
    assert spin_speed(0.02) > 0.5


def test_a_governor_is_read_where_there_is_one(tmp_path: Path) -> None:
    assert cpu_governor(tmp_path) == ""
    for number, name in enumerate(("ondemand\n", "performance\n", "ondemand\n")):
        folder = tmp_path / f"devices/system/cpu/cpufreq/policy{number}"
        folder.mkdir(parents=True)
        (folder / "scaling_governor").write_text(name)
    (tmp_path / "devices/system/cpu/cpufreq/policy0/scaling_governor").write_bytes(b"\xff\xfe")
    assert cpu_governor(tmp_path) == "ondemand,performance"


def test_the_fingerprint_is_the_same_every_time_and_names_no_machine() -> None:
    assert fingerprint(detect()) == fingerprint(detect())
    assert len(fingerprint(detect())) <= 64


def test_a_model_is_told_by_its_content(tmp_path: Path) -> None:
    first, second = tmp_path / "a.xml", tmp_path / "b.xml"
    first.write_text("<net/>")
    second.write_text("<net/>")
    assert model_hash(first) == model_hash(second)
    second.with_suffix(".bin").write_bytes(b"weights")
    assert model_hash(first) != model_hash(second)
