"""What the kernels of real machines tell: text files to write below a folder, by path.

Sources of the processor lines: Raspberry Pi 5: hrw/arm-socs-table issue 96; Jetson TX2: issue 25 there; the x86 one is the
machine these tests were written on. The Jetson Orin is put together from its documented parts (Cortex-A78AE, part 0xd42).
"""

from __future__ import annotations

from pathlib import Path

from edgecv.devices.detect import Roots

_PI5_CORE = """processor\t: {core}
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1
"""
PI5_CPUINFO = "\n".join(
    [*(_PI5_CORE.format(core=core) for core in range(4)), "Revision\t: d04170\nModel\t\t: Raspberry Pi 5\n"]
)

_ORIN_CORE = """processor\t: {core}
model name\t: ARMv8 Processor rev 1 (v8l)
BogoMIPS\t: 62.50
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp uscat flagm
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd42
CPU revision\t: 1
"""
ORIN_CPUINFO = "\n".join(_ORIN_CORE.format(core=core) for core in range(6))

_TX2_CORE = """processor\t: {core}
model name\t: ARMv8 Processor rev {rev} (v8l)
BogoMIPS\t: 62.50
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32
CPU implementer\t: {implementer}
CPU architecture: 8
CPU part\t: {part}
"""
TX2_CPUINFO = "\n".join(
    _TX2_CORE.format(core=core, rev=rev, implementer=implementer, part=part)
    for core, (rev, implementer, part) in enumerate(
        [(3, "0x41", "0xd07"), (0, "0x4e", "0x003"), (0, "0x4e", "0x003"), *[(3, "0x41", "0xd07")] * 3]
    )
)

_X86_CORE = """processor\t: {core}
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Processor
flags\t\t: fpu sse4_2 avx f16c hypervisor avx2 avx512f avx_vnni avx512_bf16 avx512_vnni avx512_fp16 arch_capabilities
bugs\t\t: spectre_v1 spectre_v2
"""
X86_CPUINFO = "\n".join(_X86_CORE.format(core=core) for core in range(2))

_DEBIAN = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\n'

PI5 = {
    "proc/cpuinfo": PI5_CPUINFO,
    "proc/meminfo": "MemTotal:        8255616 kB\nMemFree:         6219488 kB\nMemAvailable:    7421936 kB\n",
    "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    "proc/sys/kernel/osrelease": "6.6.31+rpt-rpi-2712\n",
    "etc/os-release": _DEBIAN,
    "dev/hailo0": "",
    "dev/dri/renderD128": "",
    "sys/class/drm/renderD128/device/uevent": "DRIVER=v3d\nOF_NAME=v3d\n",
}
ORIN = {
    "proc/cpuinfo": ORIN_CPUINFO,
    "proc/meminfo": "MemTotal:        7802784 kB\nMemAvailable:    6100404 kB\n",
    "sys/firmware/devicetree/base/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "proc/sys/kernel/osrelease": "5.15.136-tegra\n",
    "etc/os-release": "PRETTY_NAME='Ubuntu 22.04.4 LTS'\n",
    "dev/nvhost-gpu": "",
    "dev/nvidiactl": "",
}
X86 = {
    "proc/cpuinfo": X86_CPUINFO,
    "proc/meminfo": "MemTotal:       24684092 kB\nMemAvailable:   24222472 kB\n",
    "sys/class/dmi/id/sys_vendor": "LENOVO\n",
    "sys/class/dmi/id/product_name": "ThinkCentre M75q\n",
    "sys/fs/cgroup/memory.max": "2147483648\n",
    "etc/os-release": _DEBIAN,
    "dev/nvidia0": "",
    "dev/apex_0": "",
}


def lay_out(files: dict[str, str], folder: Path) -> Roots:
    """Write the files and say where they are."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Roots(proc=folder / "proc", sys=folder / "sys", dev=folder / "dev", etc=folder / "etc")
