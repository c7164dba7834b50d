"""EdgeCV against one peer at a time: ratios of frame rate and memory, and whether a target is met."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import msgspec

from edgecv.benchmarks.lab.peers.rounds import Summary
from edgecv.benchmarks.lab.peers.sides import LITERT, ONNX, OWN_OPENVINO, SAME_OPENVINO

_ASYNC, _PREDICT = "Model API, asynchronous", "Ultralytics predict"


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What EdgeCV is held to.

    Attributes:
        group: Where EdgeCV's side stands; its first one is taken.
        peer: The beginning of the other side's name: the fastest of those is taken.
        peer_group: Where it stands.
        speed: At least this times its frame rate.
        memory: At most this times its memory; ``None`` where nothing was promised.
    """

    group: str
    peer: str
    peer_group: str
    speed: float
    memory: float | None = None


TARGETS = (
    Target(group=SAME_OPENVINO, peer=_ASYNC, peer_group=SAME_OPENVINO, speed=1.1, memory=0.8),
    Target(group=OWN_OPENVINO, peer=_ASYNC, peer_group=OWN_OPENVINO, speed=1.1, memory=0.8),
    Target(group=OWN_OPENVINO, peer=_PREDICT, peer_group=SAME_OPENVINO, speed=1.35),
    Target(group=ONNX, peer=_PREDICT, peer_group=ONNX, speed=5.0),
    Target(group=LITERT, peer=_PREDICT, peer_group=LITERT, speed=1.0),
)


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """One target, measured.

    Attributes:
        target: Which.
        peer: The side that was the fastest.
        speed: Ratio of the medians.
        speed_range: Lowest and highest ratio of a round.
        round_speed: Median of the rounds' own ratios.
        memory: Ratio of the peak memory, shared pages divided.
    """

    target: Target
    peer: str
    speed: float
    speed_range: tuple[float, float]
    round_speed: float
    memory: float

    @property
    def fast_enough(self) -> bool:
        """Whether both ratios reach the target: where they differ, something else used the machine."""
        return min(self.speed, self.round_speed) >= self.target.speed

    @property
    def small_enough(self) -> bool:
        """Whether the memory stays below the target; true where there is none."""
        return self.target.memory is None or self.memory <= self.target.memory


def judged(summaries: Sequence[Summary], targets: Sequence[Target] = TARGETS) -> list[Verdict]:
    """The targets whose two sides were both measured."""
    found = []
    for target in targets:
        ours = next((one for one in _of(summaries, target.group) if one.side.reads == "edgecv"), None)
        peers = [one for one in _of(summaries, target.peer_group) if one.side.name.startswith(target.peer)]
        if ours is not None and peers:
            found.append(_verdict(target, ours, max(peers, key=lambda one: one.fps)))
    return found


def _of(summaries: Sequence[Summary], group: str) -> list[Summary]:
    return [one for one in summaries if one.side.group == group and not one.reason]


def _verdict(target: Target, ours: Summary, peer: Summary) -> Verdict:
    ratios = [a / b for a, b in zip(ours.rounds_fps, peer.rounds_fps, strict=False)]
    return Verdict(
        target=target,
        peer=peer.side.name,
        speed=round(ours.fps / peer.fps, 3),
        speed_range=(round(min(ratios), 3), round(max(ratios), 3)),
        round_speed=round(median(ratios), 3),
        memory=round(ours.peak_pss_mb / peer.peak_pss_mb, 3) if peer.peak_pss_mb else 0.0,
    )
