from __future__ import annotations

import pytest

from edgecv.bundles.cpu_classes import CPU_CLASS_NAMES, cpu_class_of, suits
from edgecv.devices.cpu import read_cpu
from edgecv.quantize.recipes import TARGETS
from tests.unit.devices.boards import ORIN_CPUINFO, PI5_CPUINFO, TX2_CPUINFO, X86_CPUINFO


@pytest.mark.parametrize(
    ("cpuinfo", "arch", "model", "cores", "cpu_class"),
    [
        (PI5_CPUINFO, "aarch64", "Cortex-A76", 4, "arm64"),
        (ORIN_CPUINFO, "aarch64", "Cortex-A78AE", 6, "arm64"),
        (TX2_CPUINFO, "aarch64", "4 x Cortex-A57 + 2 x ARMv8 Processor rev 0 (v8l)", 6, "arm64"),
        (X86_CPUINFO, "x86_64", "Intel(R) Xeon(R) Processor", 2, "x86-vnni"),
        (X86_CPUINFO.replace("_vnni", "_none"), "x86_64", "Intel(R) Xeon(R) Processor", 2, "x86"),
        (PI5_CPUINFO, "armv7l", "Cortex-A76", 4, "other"),
        ("", "riscv64", "", 0, "other"),
    ],
)
def test_model_cores_and_class_of_known_machines(cpuinfo, arch, model, cores, cpu_class):
    cpu = read_cpu(cpuinfo, arch)
    assert (cpu.model, cpu.cores, cpu.cpu_class) == (model, cores, cpu_class)


def test_devices_recipes_and_bundles_name_the_same_classes():
    assert tuple(TARGETS) == CPU_CLASS_NAMES
    assert all(suits(name, platform, frozenset(flags)) for name, platform, flags in CLASSES)
    assert [cpu_class_of(platform, frozenset(flags)) for _, platform, flags in CLASSES] == list(CPU_CLASS_NAMES)


CLASSES = [("x86-vnni", "x86_64", {"avx512_vnni"}), ("x86", "AMD64", {"avx2"}), ("arm64", "aarch64", {"asimddp"})]


def test_features_are_those_that_matter_for_int8():
    assert read_cpu(X86_CPUINFO, "x86_64").features == (
        "sse4_2",
        "avx2",
        "avx_vnni",
        "avx512f",
        "avx512_vnni",
        "avx512_bf16",
    )
    assert read_cpu(PI5_CPUINFO, "aarch64").features == ("asimd", "asimdhp", "asimddp")


def test_a_feature_that_one_core_lacks_does_not_count():
    weaker = PI5_CPUINFO.replace(" asimddp", "", 1)
    assert "asimddp" not in read_cpu(weaker, "aarch64").features


def test_an_unknown_arm_part_is_named_by_its_number():
    assert read_cpu(PI5_CPUINFO.replace("0xd0b", "0xfff"), "aarch64").model == "ARM part 0xfff"


def test_a_hypervisor_is_seen():
    assert read_cpu(X86_CPUINFO, "x86_64").virtual
    assert not read_cpu(PI5_CPUINFO, "aarch64").virtual
