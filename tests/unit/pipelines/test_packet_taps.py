"""Who gets what a camera encoded: only a sink that asks, and never of images that must not be seen as they came."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from edgecv.errors import ConfigError
from edgecv.media.packets import Packet
from edgecv.pipelines.pipeline import Pipeline
from edgecv.pipelines.source_config import SourceConfig
from edgecv.pipelines.sources.synthetic import SyntheticSource
from edgecv.pipelines.steps import Blur
from edgecv.results import Frame, Result
from tests.unit.pipelines.blob import BlobModel
from tests.unit.pipelines.made_packets import h264_packets

PACKETS = h264_packets(1.0)
MASK = [[(0.0, 0.0), (0.5, 0.0), (0.5, 0.5)]]


class Camera(SyntheticSource):
    """Gives a packet with each frame, to whoever wants them."""

    def __init__(self) -> None:
        super().__init__("synthetic://?frames=10&width=64&height=48&fps=10")
        self.on_packet: Callable[[Packet], None] | None = None
        self.given = 0

    def read(self) -> Frame | None:
        frame = super().read()
        if frame is not None and self.on_packet is not None:
            self.on_packet(PACKETS[self.given % len(PACKETS)])
            self.given += 1
        return frame


class Keeper:
    """A sink that wants packets."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, Packet]] = []
        self.dropped: list[str] = []

    def emit(self, result: Result) -> None: ...

    def take_packet(self, source_id: str, packet: Packet) -> None:
        self.kept.append((source_id, packet))

    def drop_packets(self, source_id: str) -> None:
        self.dropped.append(source_id)

    def close(self) -> None: ...


def ran(camera: Camera, sink: Any, *, steps: tuple[Any, ...] = (), mask: Any = ()) -> None:
    Pipeline(SourceConfig(camera, name="door", mask=mask), BlobModel(), sinks=[sink], steps=list(steps)).run()


def test_a_sink_that_asks_gets_every_packet_by_the_name_of_its_source() -> None:
    camera, keeper = Camera(), Keeper()
    ran(camera, keeper)
    assert camera.given == 10
    assert {name for name, _ in keeper.kept} == {"door"}
    assert len(keeper.kept) == 10
    assert not keeper.dropped


def test_without_such_a_sink_no_packet_is_made() -> None:
    camera = Camera()
    ran(camera, print)
    assert (camera.on_packet, camera.given) == (None, 0)


def test_a_camera_with_a_mask_is_never_asked_for_its_packets() -> None:
    camera, keeper = Camera(), Keeper()
    ran(camera, keeper, mask=MASK)
    assert (camera.on_packet, keeper.kept) == (None, [])


def test_a_step_that_says_that_it_paints_over_images_keeps_packets_away() -> None:
    camera, keeper = Camera(), Keeper()
    ran(camera, keeper, steps=(Blur(),))
    assert (camera.given, keeper.kept) == (0, [])


@pytest.mark.parametrize("then_dropped", [False, True])
def test_a_step_of_ones_own_that_paints_is_noticed_and_sinks_forget(then_dropped: bool) -> None:
    def paints_the_fifth(result: Result) -> Result:
        if result.frame.index != 5:
            return result
        return replace(result, frame=result.frame.with_image(result.frame.image.copy()))

    def drops_the_fifth(result: Result) -> Result | None:
        return None if then_dropped and result.frame.index == 5 else result

    camera, keeper = Camera(), Keeper()
    ran(camera, keeper, steps=(paints_the_fifth, drops_the_fifth))
    assert keeper.dropped == ["door"]
    assert camera.on_packet is None


def test_a_step_that_only_adds_events_changes_nothing() -> None:
    camera, keeper = Camera(), Keeper()
    ran(camera, keeper, steps=(lambda result: result.with_event("seen"),))
    assert len(keeper.kept) == 10


@pytest.mark.parametrize("how", ["mask", "gives none"])
def test_a_source_of_the_same_name_that_must_give_no_packets_has_none_of_the_earlier_one(how: str) -> None:
    first, keeper = Camera(), Keeper()
    other = SourceConfig(SyntheticSource("synthetic://?frames=100000&width=64&height=48&fps=10"), name="other")
    pipeline = Pipeline([SourceConfig(first, name="door"), other], BlobModel(), sinks=[keeper])
    give = first.on_packet
    assert give is not None
    again = Camera() if how == "mask" else SyntheticSource("synthetic://?frames=10&width=64&height=48&fps=10")
    config = SourceConfig(again, name="door", mask=MASK if how == "mask" else ())
    for number, _ in enumerate(pipeline):
        if number == 0:
            pipeline.remove_source("door")
        try:  # its last frames may be on their way
            pipeline.add_source(config)
        except ConfigError:
            assert number < 1000
            continue
        break
    assert keeper.dropped == ["door"]
    del keeper.kept[:]
    if how == "mask":
        give(PACKETS[0])  # the earlier one may have one on its way
        assert keeper.kept == []
    pipeline.close()
