"""Whether a pipeline is well, with the reasons why not."""

from __future__ import annotations

from typing import Any

from edgecv.status import PipelineStatus, SourceStatus


def health_document(status: PipelineStatus | None) -> tuple[bool, dict[str, Any]]:
    """Whether a pipeline runs with at least one live source (a file being read is one), and what to answer.

    Returns:
        The verdict and ``{"ok", "reasons", "sources": {ID: {"state", "code", "error", "hint"}}}``; reasons also say what is
        wrong with single sources while others are live.
    """
    if status is None:
        return False, {"ok": False, "reasons": ["The pipeline has not started."], "sources": {}}
    reasons = [] if status.running else ["The pipeline is not running."]
    if not any(source.health.state == "live" for source in status.sources):
        reasons.append("No source is live.")
    healthy = not reasons
    reasons += [_complaint(source) for source in status.sources if source.health.state not in ("live", "ended")]
    return healthy, {
        "ok": healthy,
        "reasons": reasons,
        "sources": {source.source_id: _state(source) for source in status.sources},
    }


def _complaint(source: SourceStatus) -> str:
    health = source.health
    return f"{source.source_id} is {health.state}" + (f": {health.error}" if health.error else ".")


def _state(source: SourceStatus) -> dict[str, Any]:
    health = source.health
    return {"state": health.state, "code": health.code, "error": health.error, "hint": health.hint}
