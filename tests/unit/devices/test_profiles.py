"""Profiles are data: every file says all it must, and each fact has a source."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecv import registry
from edgecv.bundles.cpu_classes import CPU_CLASS_NAMES
from edgecv.choosing import runtimes_for
from edgecv.devices.detect import detect
from edgecv.devices.profiles import Profile, find_profile, profile_of, profiles
from edgecv.errors import ConfigError
from tests.boards import cpuinfo, roots_of, write_tree

ASKED_FOR = {
    *("raspberry-pi-5", "raspberry-pi-4", "raspberry-pi-3", "jetson-orin-nano", "jetson-nano", "jetson-xavier"),
    *("intel-n100", "x86-vnni", "x86", "rk3588", "generic"),
}


def test_the_profiles_that_the_documents_name_are_there() -> None:
    assert {profile.name for profile in profiles()} >= ASKED_FOR


@pytest.mark.parametrize("profile", profiles(), ids=lambda profile: profile.name)
def test_a_profile_says_what_can_be_done_and_from_where_it_knows(profile: Profile) -> None:
    assert profile.cpu_class in ("", *CPU_CLASS_NAMES)
    assert profile.formats
    assert set(profile.formats) <= set(registry.names("exporters"))
    assert set(profile.runtimes) == {"int8", "fp16", "fp32"}
    runs = {runtime for model_format in profile.formats for runtime in runtimes_for(model_format)}
    assert all(set(order) == runs and len(order) == len(runs) for order in profile.runtimes.values())
    assert profile.limit_c is None or 50 < profile.limit_c < 110
    assert profile.notes
    assert all(note.text and note.source for note in profile.notes)


def test_no_item_of_a_device_tree_is_in_two_profiles() -> None:
    items = [item for profile in profiles() for item in profile.match.compatible]
    assert len(items) == len(set(items))


def test_a_misspelt_profile_is_told_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="raspbery-pi-5") as caught:
        find_profile("raspbery-pi-5")
    assert "Did you mean 'raspberry-pi-5'?" in caught.value.hint
    assert "generic" in caught.value.hint


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ("avx_vnni avx2", "intel-n100"),
        ("avx2", "x86"),  # a virtual machine that hides the instructions: the name alone decides nothing
    ],
)
def test_the_instructions_count_before_the_name(flags: str, name: str, tmp_path: Path) -> None:
    write_tree({"proc/cpuinfo": cpuinfo("intel-n100").replace("avx2 avx_vnni", flags)}, tmp_path)
    assert profile_of(detect(roots_of(tmp_path), "x86_64")).name == name
