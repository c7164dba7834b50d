"""What ``make bench-peers`` writes: multiply-adds, limits of the stages, and the tables of ``docs/benchmarks.md``."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecv.benchmarks.lab.peers.document import BEGIN, END, section, table, wins_and_losses, write_document
from edgecv.benchmarks.lab.peers.figures import Figures
from edgecv.benchmarks.lab.peers.int8_peak import Peak
from edgecv.benchmarks.lab.peers.judged import TARGETS, Verdict
from edgecv.benchmarks.lab.peers.limits import Limits, stages_of
from edgecv.benchmarks.lab.peers.multiply_adds import multiply_adds
from edgecv.benchmarks.lab.peers.rounds import Summary
from edgecv.benchmarks.lab.peers.sides import SAME_OPENVINO, Side
from edgecv.errors import ConfigError
from tests.conftest import CHECKOUT


def _layer(kind: str, inputs: list[tuple[int, ...]], output: tuple[int, ...], data: str = "") -> str:
    def port(shape: tuple[int, ...]) -> str:
        return "<port>" + "".join(f"<dim>{size}</dim>" for size in shape) + "</port>"

    return (
        f'<layer type="{kind}">{data}<input>{"".join(map(port, inputs))}</input><output>{port(output)}</output></layer>'
    )


@pytest.mark.parametrize(
    ("layer", "count"),
    [
        (_layer("Convolution", [(1, 3, 8, 8), (16, 3, 3, 3)], (1, 16, 4, 4)), 16 * 4 * 4 * 27),
        (_layer("GroupConvolution", [(1, 8, 6, 6), (8, 1, 1, 3, 3)], (1, 8, 6, 6)), 8 * 36 * 9),
        (_layer("MatMul", [(1, 5, 7), (1, 7, 2)], (1, 5, 2), '<data transpose_a="false" />'), 5 * 2 * 7),
        (_layer("MatMul", [(7, 5), (7, 2)], (5, 2), '<data transpose_a="true" />'), 5 * 2 * 7),
        (_layer("Add", [(1, 5), (1, 5)], (1, 5)), 0),
    ],
)
def test_multiply_adds_come_from_the_shapes_of_the_graph(tmp_path: Path, layer: str, count: int):
    graph = tmp_path / "m.xml"
    graph.write_text(f"<net><layers>{layer}{layer}</layers></net>")
    assert multiply_adds(graph) == 2 * count


def test_a_stage_says_how_many_times_its_limit_it_takes():
    times = {"read": 2.0, "prepare": 1.0, "infer": 50.0, "decode": 0.5}
    stages = stages_of(times, 1.6, {"prepare": 2_000_000, "decode": 4_000_000}, 1e10, 40.0)
    assert [round(one.distance, 2) for one in stages] == [1.25, 5.0, 1.25, 1.25]
    assert [one.limit_ms for one in stages] == [1.6, 0.2, 40.0, 0.4]


def _summary(name: str, fps: float, pss_mb: float, **more: object) -> Summary:
    reads = "edgecv" if name == "edgecv run" else "json"
    side = Side(name=name, group=SAME_OPENVINO, reads=reads, threads="`--threads 2`")
    values = {"fps_range": (fps - 1, fps + 1), "frames": 100, "cpu_s": 9.0, "boxes": 6.0, "agreement": 1.0} | more
    return Summary(side=side, fps=fps, peak_pss_mb=pss_mb, **values)


_EDGECV = _summary("edgecv run", 50.0, 200.0)
_FAILED = Summary(side=Side(name="Model API, synchronous", group=SAME_OPENVINO), reason="the environment has no wheel")


def _figures(**more: object) -> Figures:
    peak = Peak(per_s=1e11, threads=2, shape="3 × 3", tried={})
    stages = stages_of(
        {"read": 2.0, "prepare": 1.0, "infer": 50.0, "decode": 0.5}, 1.6, {"prepare": 1, "decode": 1}, 1e10, 40.0
    )
    verdict = Verdict(
        target=TARGETS[0], peer="Model API, asynchronous, 1 stream", speed=1.05, speed_range=(1.0, 1.1), round_speed=1.05,
        memory=0.7,
    )  # fmt: skip
    values = {
        "started": "2026-11-27 20:00 UTC",
        "machine": "A processor, 2 cores, Linux",
        "versions": {"edgecv": "0.1.0"},
        "pins": {"model-api": ("openvino-model-api==0.4.7",)},
        "command": "make bench-peers",
        "frames": 200,
        "threads": 2,
        "rounds": 5,
        "minutes": 11.0,
        "foreign_share": 0.01,
        "summaries": [_EDGECV, _summary("loop by hand", 60.0, 150.0), _FAILED],
        "verdicts": [verdict],
        "limits": Limits(stages=stages, multiply_adds=4_370_000_000, peak=peak, copied_bytes_per_s=1e10),
    }
    return Figures(**(values | more))


def test_the_page_has_machine_date_versions_and_what_was_not_met():
    text = section(_figures())
    assert all(
        part in text for part in ("2026-11-27 20:00 UTC", "A processor", "edgecv 0.1.0", "openvino-model-api 0.4.7")
    )
    assert "| 1.05 (1.00 to 1.10) | ≥ 1.1 | no | 0.70 | ≤ 0.8 | yes |" in text
    assert "4.37 · 10⁹ multiply-adds" in text
    assert "Noisy" not in text


def test_a_peer_that_failed_stays_on_the_page_with_its_reason():
    text = section(_figures())
    assert "| Model API, synchronous | not measured |" in text
    assert "Model API, synchronous has no figures: the environment has no wheel." in text


@pytest.mark.parametrize("share", [0.3, None])
def test_a_noisy_run_says_so(share):
    assert "**Noisy:**" in section(_figures(foreign_share=share))


def test_limits_that_failed_say_why():
    assert "It was not measured: no OpenVINO" in section(_figures(limits=None, limits_reason="no OpenVINO"))


def test_losses_stand_beside_wins():
    app = _summary("benchmark_app", 90.0, 100.0, boxes=None)
    faster, slower, larger = wins_and_losses(
        [_EDGECV, _summary("slow", 25.0, 400.0), _summary("quick", 100.0, 100.0), _summary("tie", 51.0, 201.0), app]
    )
    assert faster == "EdgeCV is faster than: slow (2.00)."
    assert slower == "EdgeCV is slower than: quick (0.50)."
    assert larger == "EdgeCV needs more memory than: quick (2.00)."


def test_only_what_stands_between_the_marks_is_written_anew(tmp_path: Path):
    page = tmp_path / "benchmarks.md"
    page.write_text(f"# Title\n\n{BEGIN}\nold figures\n{END}\n\nAfter.\n")
    write_document(page, _figures())
    first = page.read_text()
    assert first.startswith(f"# Title\n\n{BEGIN}\n")
    assert first.endswith(f"{END}\n\nAfter.\n")
    assert "old figures" not in first
    write_document(page, _figures())
    assert page.read_text() == first


def test_a_page_without_a_place_is_left_alone(tmp_path: Path):
    page = tmp_path / "other.md"
    page.write_text("# Title\n")
    with pytest.raises(ConfigError, match="no place for the figures"):
        write_document(page, _figures())
    assert page.read_text() == "# Title\n"


def test_the_document_of_this_tree_has_the_place():
    text = (CHECKOUT / "docs/benchmarks.md").read_text()
    assert text.count(BEGIN) == text.count(END) == 1


def test_a_table_keeps_its_columns_whatever_a_cell_holds():
    assert table(("a", "b"), [("x|y", "1")]) == "| a | b |\n| --- | ---: |\n| x\\|y | 1 |\n"
