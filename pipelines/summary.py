"""What a pipeline did, in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from edgecv.status import SinkCount


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a pipeline did.

    Attributes:
        frames: Frames that went through the model.
        dropped: Frames that gave no result, by reason: ``latest`` (a newer one came first), ``too_old`` (beyond
            ``max_age_ms``), ``every_nth``, ``still`` (a gate said so), ``step`` (a step said so), ``unreadable`` (their
            file is damaged there), ``mask_failed`` (they could not be masked, so nobody saw them).
        elapsed_s: From the first wait for a frame to the last result; ``fps`` is ``frames / elapsed_s``. stage_p50_ms:
            Median per stage. age_p50_ms: Median age of a result when it was ready; 99 % stay below ``age_p99_ms``.
        never_live: Cameras that never gave a frame, each with the last reason that it gave.
        counts: What the steps counted, by source and then by name, such as ``{"cam": {"door.in": 3}}``, also of sources that
            ended or were removed; empty for a source at which nothing counts. Of a source that was removed and came back
            they are those since then.
        damaged: Of ``frames``, those whose file is damaged there: the decoder made up a part of the image.
    """

    frames: int
    dropped: Mapping[str, int]
    elapsed_s: float
    fps: float
    stage_p50_ms: Mapping[str, float]
    age_p50_ms: float
    age_p99_ms: float
    sinks: tuple[SinkCount, ...]
    never_live: Mapping[str, str] = field(default_factory=dict)
    damaged: int = 0
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the summary as a dict that JSON can hold."""
        return asdict(self)
