"""Every parser of the room: what it knows, and that nothing else is an error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from edgecv.devices.facts.board import fitted_bytes
from edgecv.devices.facts.jetson import jetpack_of, power_mode_name, power_mode_number, release_of
from edgecv.devices.facts.system import os_name
from edgecv.devices.roots import cpu_numbers, read_int, read_list, read_text, to_int
from edgecv.devices.sensors.power import grown, pmic_watts
from edgecv.devices.sensors.thermal import lowest_passive_c
from edgecv.devices.sensors.throttle import parse_throttled

PARSERS: list[Callable[[str], object]] = [
    fitted_bytes,
    jetpack_of,
    release_of,
    power_mode_number,
    lambda text: power_mode_name(text, 0),
    os_name,
    cpu_numbers,
    to_int,
    pmic_watts,
    parse_throttled,
]
# Texts that are nearly right: what hypothesis would seldom make.
NEARLY = st.sampled_from(
    [
        "# R36 (release), REVISION: ",
        "# R (release), REVISION: 4.3",
        "pmode:",
        "pmode:99999999999999999999",
        "< POWER_MODEL ID= NAME= >",
        "< POWER_MODEL ID=0 NAME=",
        "0-",
        "-3",
        "5-2",
        "0-99999999999",
        "1,,2",
        "0x",
        "throttled=",
        "throttled=0x",
        " A current(0)=A",
        " X_A current(0)=1.2.3A\n X_V volt(0)=1V",
        " X_A current(0)=.A\n X_V volt(0)=1V",
        "Revision\t: zzz",
        "Revision\t: 0",
        "PRETTY_NAME",
        "٣",
        "²",
    ]
)


@pytest.mark.parametrize("parse", PARSERS)
@settings(max_examples=60)
@given(text=st.one_of(st.text(max_size=80), NEARLY))
def test_no_text_is_an_error(parse: Callable[[str], object], text: str) -> None:
    parse(text)


@given(content=st.binary(max_size=40))
def test_no_content_of_a_file_is_an_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "content"
    path.write_bytes(content)
    read_text(path), read_list(path), read_int(path)


def test_a_file_that_cannot_be_read_is_empty(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none", tmp_path / "a\0b", Path("/proc/self/mem")):
        assert (read_text(path), read_list(path), read_int(path)) == ("", (), None)


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("0\n", 0),
        ("50005\n", 0x50005),
        ("0x50005", 0x50005),
        ("throttled=0x50005\n", 0x50005),
        ("", None),
        ("throttled=", None),
        ('error=1 error_msg="Command not registered"', None),
    ],
)
def test_throttle_bits_come_with_or_without_their_mark(text: str, bits: int | None) -> None:
    assert parse_throttled(text) == bits


@pytest.mark.parametrize(
    ("text", "l4t", "jetpack"),
    [
        ("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64", "36.4.3", "6.2"),
        ("# R36 (release), REVISION: 4.7, GCID: 1\n# KERNEL_VARIANT: oot\n", "36.4.7", "6.2.1"),
        ("# R32 (release), REVISION: 7.4, GCID: 1, BOARD: t210ref", "32.7.4", "4.6"),
        ("# R35 (release), REVISION: 4.1, GCID: 1, BOARD: t186ref", "35.4.1", "5.1.2"),
        ("# R35 (release), REVISION: 9.1, GCID: 1, BOARD: t186ref", "35.9.1", "5"),
        ("# R39 (release), REVISION: 2.0, GCID: 1", "39.2.0", "7.2"),
        ("# R40 (release), REVISION: 1.0, GCID: 1", "40.1.0", ""),
        ("R36", "", ""),
        ("", "", ""),
    ],
)
def test_the_jetpack_follows_from_the_release(text: str, l4t: str, jetpack: str) -> None:
    assert (release_of(text), jetpack_of(release_of(text))) == (l4t, jetpack)


@pytest.mark.parametrize(
    ("text", "number"),
    [("pmode:0002", 2), ("pmode:0000 fmode:quiet\n", 0), ("fmode:quiet", None), ("pmode:", None), ("", None)],
)
def test_the_power_mode_is_the_number_behind_its_mark(text: str, number: int | None) -> None:
    assert power_mode_number(text) == number


@pytest.mark.parametrize(
    ("code", "gibibytes"),
    [("902120", 0.5), ("a22082", 1), ("c03111", 4), ("d04170", 8), ("e04171", 16), ("2902120", 0.5), ("000f", None)],
)
def test_the_memory_of_a_pi_is_in_its_revision(code: str, gibibytes: float | None) -> None:
    found = fitted_bytes(f"processor\t: 0\n\nHardware\t: BCM2835\nRevision\t: {code}\n")
    assert found == (None if gibibytes is None else gibibytes * 2**30)


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("0-3,8\n", {0, 1, 2, 3, 8}), ("0 1 2", {0, 1, 2}), ("5", {5}), ("", set()), ("3-1", set()), ("a-b,4", {4})],
)
def test_lists_of_cpus_have_ranges(text: str, cpus: set[int]) -> None:
    assert cpu_numbers(text) == cpus


def test_the_rails_of_a_pi_5_are_added_where_both_numbers_are_there() -> None:
    text = (
        "     3V7_WL_SW_A current(0)=0.1A\n       VDD_CORE_A current(7)=2.0A\n"
        "     VDD_CORE_V volt(15)=0.9V\n EXT5V_V volt(24)=5.1V\n"
    )
    assert pmic_watts(text) == pytest.approx(1.8)


@given(before=st.integers(0, 1000), by=st.integers(0, 1000))
def test_a_counter_that_began_anew_has_grown_by_the_same(before: int, by: int) -> None:
    most = 1000
    assert grown((before + by) % most, before % most, most) == by % most or before == most


@pytest.mark.parametrize(
    ("trips", "limit"),
    [
        ([("active", 50000), ("critical", 110000)], None),
        ([("passive", 85000), ("passive", 75000), ("hot", 95000)], 75.0),
        ([("passive", None), ("passive", -274000), ("passive", 0)], None),
    ],
)
def test_the_limit_is_the_lowest_trip_that_slows_down(trips: list[tuple[str, int | None]], limit: float | None) -> None:
    assert lowest_passive_c(trips) == limit
