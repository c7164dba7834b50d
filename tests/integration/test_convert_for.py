"""``edgecv convert --for PROFILE``: the device chooses formats and CPU class, on whatever machine that converts."""

from __future__ import annotations

from subprocess import CompletedProcess

import pytest

from edgecv.devices.detect import detect
from edgecv.devices.profiles import Profile, find_profile, profile_of, profiles
from edgecv.quantize.recipes import ACCELERATED
from tests.command_line import run_here


def explained(*arguments: str, int8: bool = True) -> CompletedProcess[str]:
    return run_here("convert", "resnet18", *(["--int8"] if int8 else []), "--explain", *arguments)


def words_of(text: str) -> str:
    return " ".join(text.split())


def formats_in(told: str) -> list[str]:
    return [line.split()[2] for line in told.splitlines() if " Export " in line]


@pytest.mark.parametrize("profile", profiles(), ids=lambda profile: profile.name)
def test_the_formats_and_the_cpu_class_are_those_of_the_profile(profile: Profile) -> None:
    done = explained("--for", profile.name)
    assert done.returncode == 0, done.stderr
    assert formats_in(done.stdout) == list(profile.formats)
    wanted = [profile.cpu_class] if profile.cpu_class else ["x86-vnni", "x86", "arm64"]
    if "onnx" in profile.formats:
        assert all(f"Quantize onnx for {cpu_class}, recipe by recipe" in words_of(done.stdout) for cpu_class in wanted)
    for name in profile.accelerators:
        model_format = ACCELERATED[name].format
        first = ACCELERATED[name].rounded.name
        assert f"Quantize {model_format} for {name}, recipe by recipe ({first} -> " in words_of(done.stdout)
    assert ("Store the weights of onnx as fp16" in words_of(done.stdout)) == ("tensorrt" in profile.accelerators)
    assert f"Made for {profile.name}" in words_of(done.stderr)
    assert "faster" not in done.stdout


def test_without_int8_there_is_no_cpu_class() -> None:
    done = explained("--for", "raspberry-pi-5", int8=False)
    assert done.returncode == 0, done.stderr
    assert formats_in(done.stdout) == list(find_profile("raspberry-pi-5").formats)
    assert "Quantize" not in done.stdout


def test_for_this_is_the_machine_at_hand_whose_speed_counts() -> None:
    mine = profile_of(detect())
    done = explained("--for", "this")
    assert formats_in(done.stdout) == list(mine.formats)
    assert f"Made for {mine.name}" in words_of(done.stderr)
    assert "and is faster than float here" in done.stdout


@pytest.mark.parametrize(
    "more", [("--to", "onnx"), ("--target", "arm64"), ("--to", "all", "--target", "all")], ids=" ".join
)
@pytest.mark.parametrize("name", ["raspberry-pi-5", "this"])
def test_with_formats_or_a_cpu_class_it_is_wrong_usage(name: str, more: tuple[str, ...]) -> None:
    done = explained("--for", name, *more)
    assert done.returncode == 2
    assert not done.stdout
    assert "Leave out --to and --target" in words_of(done.stderr)


@pytest.mark.parametrize("name", ["raspbery-pi-5", "", "../x86", "THIS", "\x1b[31m"])
def test_an_unknown_profile_lists_the_known_ones(name: str) -> None:
    done = explained("--for", name)
    assert done.returncode == 2
    assert not done.stdout
    said = words_of(done.stderr)
    assert all(profile.name in said for profile in profiles())
    assert "this" in said
    assert "\x1b[31m" not in done.stderr
