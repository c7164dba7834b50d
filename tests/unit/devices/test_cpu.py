from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from edgecv.bundles.cpu_classes import CPU_CLASS_NAMES, cpu_class_of, suits
from edgecv.devices.cpu import numbers_of, read_cpu
from edgecv.quantize.recipes import CPU_CLASSES
from tests.boards import cpuinfo

PI5, XEON = cpuinfo("pi-5"), cpuinfo("xeon-vm-quota")
# Source: sbc-bench, results/Nvidia-Jetson-TX2-mode-1.cpuinfo: two cores of NVIDIA's own design among four of Arm's.
TX2 = "\n".join(
    f"processor\t: {core}\nmodel name\t: ARMv8 Processor rev 3 (v8l)\nFeatures\t: fp asimd crc32\n"
    f"CPU implementer\t: {implementer}\nCPU part\t: {part}\n"
    for core, (implementer, part) in enumerate([("0x41", "0xd07"), *[("0x4e", "0x003")] * 2, *[("0x41", "0xd07")] * 3])
)


@pytest.mark.parametrize(
    ("text", "arch", "model", "cores", "cpu_class"),
    [
        (PI5, "aarch64", "Cortex-A76", 4, "arm64"),
        (TX2, "aarch64", "4 x Cortex-A57 + 2 x Denver 2", 6, "arm64"),
        (XEON, "x86_64", "Intel(R) Xeon(R) Processor", 64, "x86-vnni"),
        (XEON.replace("_vnni", "_none").replace("amx_int8", ""), "x86_64", "Intel(R) Xeon(R) Processor", 64, "x86"),
        (PI5, "armv7l", "Cortex-A76", 4, "other"),
        ("", "riscv64", "", 0, "other"),
    ],
)
def test_model_cores_and_class_of_known_machines(text, arch, model, cores, cpu_class):
    cpu = read_cpu(text, arch)
    assert (cpu.model, cpu.cores, cpu.cpu_class) == (model, cores, cpu_class)


def test_devices_recipes_and_bundles_name_the_same_classes():
    assert tuple(CPU_CLASSES) == CPU_CLASS_NAMES
    assert all(suits(name, platform, frozenset(flags)) for name, platform, flags in CLASSES)
    assert [cpu_class_of(platform, frozenset(flags)) for _, platform, flags in CLASSES] == list(CPU_CLASS_NAMES)


CLASSES = [("x86-vnni", "x86_64", {"avx512_vnni"}), ("x86", "AMD64", {"avx2"}), ("arm64", "aarch64", {"asimddp"})]


def test_features_are_those_that_matter_for_int8():
    assert read_cpu(cpuinfo("intel-n100"), "x86_64").features == ("sse4_2", "avx2", "avx_vnni")
    assert read_cpu(PI5, "aarch64").features == ("asimd", "asimdhp", "asimddp")


@pytest.mark.parametrize(("text", "arch", "cpu_class"), [(XEON, "aarch64", "arm64"), (PI5, "x86_64", "x86")])
def test_an_emulated_machine_is_not_described_as_the_one_below(text, arch, cpu_class):
    cpu = read_cpu(text, arch)
    assert (cpu.model, cpu.features, cpu.cpu_class) == ("", (), cpu_class)
    assert cpu.cores == len(numbers_of(text))


def test_a_feature_that_one_core_lacks_does_not_count():
    weaker = PI5.replace(" asimddp", "", 1)
    assert "asimddp" not in read_cpu(weaker, "aarch64").features


def test_a_core_that_this_process_may_not_use_does_not_count():
    weaker = PI5.replace(" asimddp", "", 1)  # CPU 0
    cpu = read_cpu(weaker, "aarch64", allowed=frozenset({1, 2, 3}))
    assert "asimddp" in cpu.features
    assert (cpu.cores, cpu.clusters[0].usable_cores) == (4, 3)
    assert "asimddp" not in cpu.clusters[0].features


def test_the_class_is_that_of_the_usable_cores():
    first, rest = XEON.split("\n\n", 1)
    mixed = first.replace("_vnni", "").replace("amx_int8", "") + "\n\n" + rest
    assert read_cpu(mixed, "x86_64").cpu_class == "x86"
    assert read_cpu(mixed, "x86_64", allowed=frozenset({1})).cpu_class == "x86-vnni"


def test_cores_of_one_kind_are_a_cluster():
    little, big = read_cpu(cpuinfo("rk3588"), "aarch64", max_khz={0: 1800000, 4: 2400000, 6: 2352000}).clusters
    assert (little.name, little.cores, little.max_mhz) == ("Cortex-A55", 4, 1800)
    assert (big.name, big.implementer, big.part, big.cores, big.max_mhz) == ("Cortex-A76", "0x41", "0xd0b", 4, 2400)


def test_an_unknown_arm_part_is_named_by_its_number():
    assert read_cpu(PI5.replace("0xd0b", "0xfff"), "aarch64").model == "ARM part 0xfff"


def test_the_same_part_number_of_another_maker_is_another_core():
    assert read_cpu(PI5.replace("0x41", "0x69"), "aarch64").model == "ARM part 0xd0b"


def test_a_hypervisor_is_seen():
    assert read_cpu(XEON, "x86_64").virtual
    assert not read_cpu(PI5, "aarch64").virtual


@given(st.text(max_size=300), st.sampled_from(["aarch64", "x86_64", ""]))
def test_no_text_is_an_error(text: str, arch: str) -> None:
    cpu = read_cpu(text, arch)
    assert cpu.cores == sum(one.cores for one in cpu.clusters) >= len(numbers_of(text))


@given(st.data())
def test_a_torn_file_is_no_error(data: st.DataObject) -> None:
    """It ends anywhere, and lines of it are lost."""
    lines = PI5[: data.draw(st.integers(0, len(PI5)))].splitlines(keepends=True)
    kept = [line for line in lines if data.draw(st.booleans())]
    assert 0 <= read_cpu("".join(kept), "aarch64").cores <= 4
