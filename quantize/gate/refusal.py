"""What is said when no recipe passes the accuracy gate."""

from __future__ import annotations

from collections.abc import Sequence

from edgecv.errors import AccuracyGateError
from edgecv.quantize.gate.accuracy_gate import GateReport
from edgecv.quantize.record import Attempt, LayerLoss

_NAMED_LAYERS = 3


def refusal(
    attempts: Sequence[Attempt], layers: Sequence[LayerLoss] = (), reports: Sequence[GateReport] = ()
) -> AccuracyGateError:
    """The error when every recipe failed: what was tried, what each gave, and where most is lost."""
    tried = "; ".join(f"{attempt.recipe}: {attempt.reason}" for attempt in attempts)
    worst = ", ".join(f"{layer.name} ({layer.sqnr_db:.1f} dB)" for layer in layers[:_NAMED_LAYERS])
    lost = f" Most is lost in {worst}." if worst else ""
    lenient = next((report.recipe for report in reports if report.strict_alone), "")
    relaxed = f"Without --strict {lenient} would be written. " if lenient else ""
    return AccuracyGateError(
        f"No INT8 recipe keeps the accuracy of the float model. Tried {tried}.{lost}",
        f"Nothing was written. {relaxed}Check that the calibration images look like what the model was trained on, or keep float: "
        "--fp32.",
        report=reports[-1] if reports else None,
    )
