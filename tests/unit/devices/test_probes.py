"""The temperature of a device, as its kernel tells it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecv.devices.probes import device_gauges, temperature_c
from edgecv.devices.roots import Roots


def _zones(folder: Path, *texts: str) -> Roots:
    for number, text in enumerate(texts):
        zone = folder / f"class/thermal/thermal_zone{number}"
        zone.mkdir(parents=True)
        (zone / "temp").write_text(text)
    return Roots(sys=folder)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ((), None),
        (("48312\n",), 48.312),
        (("41000\n", "63500\n", "52000\n"), 63.5),
        (("-274000\n", "55000\n"), 55.0),
        (("4294967295\n", "37000\n"), 37.0),
        (("asleep\n",), None),
    ],
)
def test_the_hottest_zone_that_makes_sense_counts(
    tmp_path: Path, texts: tuple[str, ...], expected: float | None
) -> None:
    assert temperature_c(_zones(tmp_path, *texts)) == expected


def test_the_gauge_reads_anew_each_time(tmp_path: Path) -> None:
    roots = _zones(tmp_path, "40000")
    (gauge,) = device_gauges(roots)
    assert gauge.name == "device_temperature_c"
    assert gauge.read() == 40.0
    (tmp_path / "class/thermal/thermal_zone0/temp").write_text("41000")
    assert gauge.read() == 41.0
