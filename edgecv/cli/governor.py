"""``edgecv run --governor auto``: keeps the device below the temperature at which it slows down by itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgecv.devices.governor.models import CheaperModels, Swap
    from edgecv.devices.governor.rules import Sample
    from edgecv.devices.governor.watch import FrameWatch
    from edgecv.devices.sensors.sensors import Sensors
    from edgecv.pipelines.pipeline import Pipeline


@contextmanager
def governed(
    pipeline: Pipeline, watch: FrameWatch | None, models: CheaperModels | None = None, sensors: Sensors | None = None
) -> Iterator[None]:
    """Govern a pipeline while the block runs.

    Args:
        pipeline: Its pace changes, and its model where there are cheaper ones.
        watch: Is given its results; ``None`` for a pipeline that nobody governs.
        models: Which models it may run; its own alone by default. They stay open.
        sensors: Of the device; this one's by default. They are closed.
    """
    if watch is None:
        yield
        return
    from edgecv.devices.detect import detect
    from edgecv.devices.governor.loop import Governor, Seams
    from edgecv.devices.sensors.sensors import Sensors

    def pace(fps: float | None) -> None:
        pipeline.pace = fps

    def model(number: int) -> Swap | None:
        if models is None:
            return None
        taken, swap = models.take(number)
        pipeline.replace_model(taken)
        return swap

    with sensors or Sensors.of(detect()) as opened:
        seams = Seams(
            sample=lambda: sample_of(opened, watch),
            fps=watch.fps,
            pace=pace,
            tell=pipeline.tell,
            models=1 if models is None else models.count,
            model=model,
        )
        governor = Governor(seams, opened.read().limit_c)
        governor.start()
        try:
            yield
        finally:
            governor.close()


def sample_of(sensors: Sensors, watch: FrameWatch) -> Sample:
    """What the governor looks at, at this moment."""
    from edgecv.devices.governor.rules import Sample

    now = sensors.read()
    return Sample(
        temperature_c=now.temperature_c,
        counters=None if now.throttle is None else now.throttle.count,
        speed=watch.speed(),
    )
