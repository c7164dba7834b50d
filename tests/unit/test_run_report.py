"""What ``edgecv run`` says at its end."""

from __future__ import annotations

import pytest

from edgecv.cli.run_report import report_run
from edgecv.pipelines.summary import Summary


def test_why_frames_were_dropped_is_said_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    dropped = {"latest": 3, "too_old": 2, "of_a_plugin": 1}
    report_run(
        Summary(
            frames=0, dropped=dropped, elapsed_s=1.0, fps=0.0, stage_p50_ms={}, age_p50_ms=0.0, age_p99_ms=0.0, sinks=()
        ),
        None,
        json=False,
    )
    said = capsys.readouterr().err.splitlines()
    assert "  3 frames dropped: latest (a newer frame was there before the model was ready)" in said
    assert "  2 frames dropped: too_old (older than max_age_ms)" in said
    assert "  1 frames dropped: of_a_plugin" in said
