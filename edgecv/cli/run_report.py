"""What ``edgecv run`` says at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgecv.cli.console import note, print_json
from edgecv.cli.counts_view import counts_at_end

_DROPS = {
    "latest": "a newer frame was there before the model was ready",
    "too_old": "older than max_age_ms",
    "every_nth": "the policy uses one of nth",
    "still": "a gate skipped them",
    "step": "a step dropped them",
    "unreadable": "damaged in their file",
    "mask_failed": "they could not be masked",
}

if TYPE_CHECKING:
    from edgecv.cloud_sync.stats import SyncStats
    from edgecv.pipelines.summary import Summary
    from edgecv.status import SinkCount


def report_run(summary: Summary, stats: SyncStats | None, json: bool) -> None:
    """Say how a run went: as JSON on stdout, or in words; ``stats`` are those of the cloud, where there is one."""
    document: dict[str, Any] = summary.as_dict()
    if stats is not None:
        document["sync"] = {name: getattr(stats, name) for name in stats.__slots__}
    if json:
        print_json(document)
        return
    note(f"{summary.frames} frames in {summary.elapsed_s:.1f} s: {summary.fps:.1f} fps")
    if summary.frames:
        note("  " + ", ".join(f"{stage} {ms:.1f} ms" for stage, ms in summary.stage_p50_ms.items()) + " (median)")
    for line in counts_at_end(summary.counts):
        note(f"  {line}")
    for reason, count in summary.dropped.items():
        words = f" ({_DROPS[reason]})" if reason in _DROPS else ""
        note(f"  {count} frames dropped: {reason}{words}")
    for name, reason in summary.never_live.items():
        note(f"  {name} never gave a frame: {reason or 'it did not answer before the end.'}")
    for sink in summary.sinks:
        if sink.failed or sink.dropped or sink.events_lost:
            note(f"  {_losses(sink)}")
        if sink.held_back:
            note(f"  {sink.name} held back {sink.held_back} events (cooldown_s, at_most); later ones said how many")
    if summary.damaged:
        note(f"  {summary.damaged} frames are damaged in their file; in JSON lines they say so (damaged)")
    if stats is not None:
        _report_sync(stats)


def _losses(sink: SinkCount) -> str:
    """What a sink did not get, and why. When a signal ends the run this is the only place that says it."""
    lost = sink.failed + sink.dropped
    text = f"{sink.name} lost {lost} of {sink.emitted + lost} results"
    if sink.failed:
        text += f" ({sink.failed} failed, {sink.dropped} came too fast or too late)"
    if sink.events_lost:
        text += f" and {sink.events_lost} events"
    return f"{text}: {sink.error}" if sink.error else f"{text}."


def _report_sync(stats: SyncStats) -> None:
    note(f"  events: {stats.accepted} accepted, {stats.acknowledged} delivered, {stats.pending} waiting on disk")
    if stats.pending and not stats.connected:
        note("  the broker is out of reach; they go out with the next run")
    if stats.notified or stats.held_back:
        note(f"  notifications: {stats.notified} marked; {stats.held_back} events were sent without the mark")
    if stats.last_error:
        note(f"  last trouble: {stats.last_error}")
