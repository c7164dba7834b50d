"""``edgecv convert --strict``: an INT8 model must be as near to float as the best recipes come."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from edgecv.quantize.gate.accuracy_gate import GateReport
from edgecv.quantize.recipes import STRICT, GateLimits

_AT_MOST = ("score_bias", "logit_error", "logit_noise")  # the other limits are lower ones


def tightened(limits: GateLimits) -> GateLimits:
    """Of a recipe's own limits and the strict ones, each time the one that asks for more."""
    own, strict = msgspec.structs.asdict(limits), msgspec.structs.asdict(STRICT)
    asked = {name: _tighter(name, own[name], strict[name]) for name in own}
    return msgspec.structs.replace(limits, **asked)


def strictly(report: GateReport, lenient: GateReport) -> GateReport:
    """What the strict limits say, with a note where the recipe's own would let the model pass."""
    return replace(report, strict_alone=lenient.passed and not report.passed)


def _tighter(name: str, own: float | None, strict: float | None) -> float | None:
    known = [limit for limit in (own, strict) if limit is not None]
    return (min if name in _AT_MOST else max)(known) if known else None
