"""Reports of two days, or two bundles in turns: what may be compared, and what is proven."""

from __future__ import annotations

import json
import random
from math import exp
from pathlib import Path

import pytest

from edgecv.benchmarks.comparing.compare import DAY_SD, compare, known_day_sd, names_apart
from edgecv.benchmarks.comparing.differences import differences, read_allowed
from edgecv.benchmarks.comparing.files import read_reports
from edgecv.benchmarks.comparing.regression import Run, against_bundle, against_file, read_percent
from edgecv.benchmarks.options import BenchOptions
from edgecv.benchmarks.report import Comparability, Quality, Report, as_document
from edgecv.benchmarks.statistics import StageStatistics
from edgecv.errors import ConfigError
from tests.unit.benchmarks.test_report import made_report

_NOISY = Quality(verdict="noisy", reasons=("other programs used 90% of the processors",))


def _report(ms: float = 20.0, **changes: object) -> Report:
    return made_report(stages={"total": StageStatistics(p50_ms=ms, p90_ms=ms, max_ms=ms)}, **changes)


def _written(path: Path, *reports: Report) -> Path:
    path.write_text(json.dumps([as_document(report) for report in reports]))
    return path


def _on(**key: object) -> Comparability:
    return Comparability(**{"device": "d1", "threads": 2, "runtimes": "onnxruntime 1.32.0", "model": "m1", **key})  # type: ignore[arg-type]


def test_a_file_holds_a_list_or_one_report(tmp_path: Path) -> None:
    one = tmp_path / "one.json"
    one.write_text(json.dumps(as_document(_report())))
    assert read_reports(one) == read_reports(_written(tmp_path / "list.json", _report())) == [_report()]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no report"),
        ("{", "no report"),
        ("\0\0\0\0", "no report"),
        ("[" * 5000, "no report"),
        ("[]", "no times"),
        ("3", "no version"),
        ('{"schema": 1, "scenario": "pipeline"}', "version 1"),
        ('{"schema": 99}', "version 99"),
        ('[{"schema": 2}]', "no report"),
        (json.dumps(as_document(_report())).replace('"fps": 42.0', '"fps": 0.0'), "impossible"),
        (json.dumps(as_document(_report(0.0))), "impossible"),
        (json.dumps(as_document(_report(5e-324))), "impossible"),
        (json.dumps(as_document(_report(1e308))), "impossible"),
        (json.dumps(as_document(_report(times_ms=(-1e308, 1e308)))), "impossible"),
        (json.dumps(as_document(_report())).replace('"fps": 42.0', '"fps": NaN'), "no report"),
        (json.dumps(as_document(_report()))[:-40], "no report"),
    ],
)
def test_a_damaged_or_older_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        read_reports(path)
    assert "bad.json" in caught.value.message
    assert caught.value.hint


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.json", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_reports(path)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"comparability": _on(device="d2")}, "device"),
        ({"comparability": _on(power_mode="15W")}, "power_mode"),
        ({"comparability": _on(governor="powersave")}, "governor"),
        ({"comparability": _on(runtimes="onnxruntime 2")}, "runtimes"),
        ({"comparability": _on(threads=4)}, "threads"),
        ({"comparability": _on(model="m2")}, "model"),
        ({"variant": "onnx-fp32"}, "variant"),
        ({"runtime": "openvino"}, "runtime"),
        ({"source": "golden"}, "source"),
        ({"images_per_run": 8}, "images_per_run"),
        ({"versions": {"edgecv": "1"}}, "edgecv"),
    ],
)
def test_unlike_reports_are_refused_unless_that_is_meant(changes: dict[str, object], name: str) -> None:
    old, new = _report(), _report(30.0, **changes)
    assert list(differences(old, new)) == [name]
    files = [(Path("a.json"), [old]), (Path("b.json"), [new])]
    with pytest.raises(ConfigError, match="cannot be compared") as caught:
        compare(files, frozenset())
    assert f"--allow {name}" in caught.value.hint
    (found,) = compare(files, read_allowed(name))
    assert (found.verdict, found.change) == ("slower", pytest.approx(0.5))
    assert found.differs


def test_like_reports_differ_in_nothing() -> None:
    assert differences(_report(), _report(30.0)) == {}


@pytest.mark.parametrize(
    ("ms", "quality", "said"),
    [
        (21.0, Quality(verdict="clean"), "cannot tell: two days"),
        (30.0, Quality(verdict="clean"), "slower"),
        (10.0, Quality(verdict="clean"), "faster"),
        (30.0, _NOISY, "noisy"),
    ],
)
def test_a_verdict_needs_more_than_days_differ_by(ms: float, quality: Quality, said: str) -> None:
    (found,) = compare(
        [(Path("a"), [_report()]), (Path("b"), [_report(ms, quality=quality)])],
        frozenset(),
    )
    assert said in found.verdict


def test_files_without_a_common_scenario_are_refused() -> None:
    with pytest.raises(ConfigError, match="no scenario in common"):
        compare([(Path("a"), [_report()]), (Path("b"), [_report(scenario="offline")])], frozenset())


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/a/one.json", "/b/two.json"], ["one.json", "two.json"]),
        (["/a/report.json", "/b/report.json"], ["a/report.json", "b/report.json"]),
        (["/a/x/report.json", "/b/x/report.json", "/c.json"], ["a/x/report.json", "b/x/report.json", "/c.json"]),
        (["/a/report.json", "/a/report.json"], ["report.json", "report.json"]),
    ],
)
def test_files_of_one_name_are_told_apart(paths: list[str], names: list[str]) -> None:
    assert names_apart([Path(path) for path in paths]) == names


def test_the_rows_of_a_comparison_name_their_files() -> None:
    report = _report()
    files = [(Path(f"/{folder}/report.json"), [report]) for folder in ("monday", "tuesday", "friday")]
    rows = [one.files for one in compare(files, frozenset())]
    assert rows == [("monday/report.json", "tuesday/report.json"), ("monday/report.json", "friday/report.json")]


def test_allow_names_what_it_does_not_know() -> None:
    assert read_allowed("") == frozenset()
    with pytest.raises(ConfigError, match="knows no 'thread'") as caught:
        read_allowed("device, thread")
    assert "'threads'" in caught.value.hint


@pytest.mark.parametrize(("text", "value"), [("5%", 0.05), ("5", 0.05), (" 2.5 % ", 0.025), ("100%", 1.0)])
def test_percentages_are_read(text: str, value: float) -> None:
    assert read_percent(text) == value


@pytest.mark.parametrize("text", ["", "0", "0%", "-5%", "five", "5%%", "nan", "1e3", "5000%"])
def test_what_is_no_percentage_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="percentage"):
        read_percent(text)


def _machine(seed: int, noise: float, **times_ms: float) -> Run:
    """A machine on which every bundle takes its time, with noise between processes."""
    rng = random.Random(seed)
    return lambda scenario, path, _options: _report(times_ms[path.stem] * exp(rng.gauss(0, noise)), scenario=scenario)


def _turns(run: Run) -> str:
    (found,) = against_bundle(
        Path("new.ecv"), Path("old.ecv"), BenchOptions(), 0.05, scenarios=["single_stream"], run=run
    )
    return found.decision.judgement


def test_a_slower_bundle_is_found_in_turns_and_an_equal_one_is_not() -> None:
    assert _turns(_machine(0, 0.01, old=20.0, new=22.0)) == "slower"
    assert _turns(_machine(0, 0.01, old=20.0, new=20.0)) == "fine"
    assert _turns(_machine(0, 0.01, old=22.0, new=20.0)) == "fine"


def test_the_sides_take_turns() -> None:
    order = []

    def run(scenario: str, path: Path, _options: BenchOptions) -> Report:
        order.append(path.stem)
        return _report(scenario=scenario)

    assert _turns(run) == "fine"
    assert order == ["old", "new", "new", "old", "old", "new", "new", "old", "old", "new"]


def test_noisy_rounds_are_repeated() -> None:
    rounds = iter([_NOISY] * 4 + [Quality(verdict="clean")] * 100)
    (found,) = against_bundle(
        Path("new.ecv"),
        Path("old.ecv"),
        BenchOptions(),
        0.05,
        scenarios=["offline"],
        run=lambda scenario, _path, _options: _report(scenario=scenario, quality=next(rounds)),
    )
    assert (found.decision.repeated, len(found.decision.rounds)) == (2, 5)


def _held_against(baseline: list[Report], run: Run, **more: object) -> str:
    (found,) = against_file(Path("new.ecv"), (Path("base.json"), baseline), BenchOptions(), 0.05, run=run, **more)  # type: ignore[arg-type]
    return found.decision.judgement


def test_a_stored_baseline_proves_less_because_days_differ() -> None:
    assert _held_against([_report()], _machine(0, 0.01, new=22.0)) == "cannot tell"
    assert _held_against([_report()], _machine(0, 0.01, new=26.0)) == "slower"
    assert _held_against([_report()], _machine(0, 0.01, new=17.0)) == "fine"


def test_five_reports_say_how_much_this_device_differs_from_day_to_day() -> None:
    days = [_report(ms) for ms in (20.0, 20.1, 19.9, 20.05, 19.95)]
    assert known_day_sd(days[:4]) == DAY_SD
    assert 0.004 < known_day_sd(days) < 0.006
    assert _held_against(days, _machine(0, 0.01, new=22.0)) == "slower"


def test_equal_bundles_on_days_that_differ_raise_no_alarm() -> None:
    rng = random.Random(0)
    alarms = sum(
        _held_against([_report(20.0 * exp(rng.gauss(0, DAY_SD)))], _machine(seed, 0.01, new=20.0)) == "slower"
        for seed in range(200)
    )
    assert alarms == 0


def test_a_baseline_of_another_device_is_refused_after_the_first_round() -> None:
    rounds = []

    def run(scenario: str, _path: Path, _options: BenchOptions) -> Report:
        rounds.append(scenario)
        return _report(comparability=_on(device="d2"))

    with pytest.raises(ConfigError, match="the device: d1 and d2"):
        _held_against([_report()], run)
    assert len(rounds) == 1
    assert _held_against([_report()], run, allowed=frozenset({"device"})) in ("fine", "cannot tell")


def test_a_new_bundle_runtime_or_edgecv_is_what_a_baseline_is_for() -> None:
    changed = {"comparability": _on(model="m2", runtimes="onnxruntime 9"), "versions": {"edgecv": "9"}}
    assert _held_against([_report()], lambda *_: _report(15.0, **changed)) == "fine"


def test_a_baseline_is_measured_again_as_it_was() -> None:
    asked = []

    def run(_scenario: str, _path: Path, options: BenchOptions) -> Report:
        asked.append(options)
        return _report()

    _held_against([_report()], run)
    assert (asked[0].variant, asked[0].runtime, asked[0].threads) == ("onnx-int8", "onnxruntime", 2)


def test_a_baseline_with_several_variants_asks_which() -> None:
    with pytest.raises(ConfigError, match="several reports"):
        _held_against([_report(), _report(variant="onnx-fp32")], lambda *_: _report())
    with pytest.raises(ConfigError, match="none of the scenarios"):
        _held_against([_report()], lambda *_: _report(), scenarios=["offline"])


def test_the_outcome_is_a_sentence() -> None:
    (found,) = against_bundle(
        Path("new.ecv"),
        Path("old.ecv"),
        BenchOptions(),
        0.05,
        scenarios=["single_stream"],
        run=_machine(1, 0.2, old=20.0, new=21.0),
    )
    assert "CANNOT TELL" in found.sentence
    assert "old.ecv" in found.sentence
    assert "15 rounds" in found.sentence


def test_a_change_that_nobody_notices_is_called_so() -> None:
    (found,) = against_bundle(
        Path("new.ecv"),
        Path("old.ecv"),
        BenchOptions(),
        0.05,
        scenarios=["x"],
        run=_machine(1, 0.0, old=0.30, new=0.35),
    )
    assert found.decision.judgement == "fine"
    assert "which nobody notices" in found.sentence


@pytest.mark.parametrize(
    ("old", "new"), [(_report(quality=_NOISY), _report(30.0)), (_report(), _report(30.0, quality=_NOISY))]
)
def test_a_busy_machine_proves_nothing_against_a_file(old: Report, new: Report) -> None:
    (found,) = against_file(Path("new.ecv"), (Path("base.json"), [old]), BenchOptions(), 0.05, run=lambda *_: new)
    assert found.decision.judgement == "cannot tell"
    assert "because" in found.sentence


def test_days_of_another_device_in_the_file_do_not_count() -> None:
    days = [_report(ms, comparability=_on(device="d2")) for ms in (90.0, 20.0, 9.0, 33.0)]
    (found,) = against_file(
        Path("new.ecv"), (Path("base.json"), [*days, _report()]), BenchOptions(), 0.05, run=lambda *_: _report()
    )
    assert found.decision.rounds[0].old_ms == 20.0
