"""An arm64 Debian 12 in ``.cache/arm64/root``, and how commands run in it.

On an x86 machine the kernel starts its programs with ``qemu-aarch64-static``, children and threads alike. On an arm64 machine they
run as they are.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from device_tests import CHECKOUT

HOME = CHECKOUT / ".cache/arm64"
ROOT = HOME / "root"
DESK = ROOT / "desk"  # the working folder; the guest calls it /desk
SUITE = "bookworm"
HOST_PACKAGES = ("debootstrap", "qemu-user-static", "mosquitto")
GUEST_PACKAGES = ("python3", "python3-venv")
# What qemu pretends to be: a core with 8-bit dot products (asimddp) as in a Raspberry Pi 5, and one without as in a Raspberry Pi 4;
# with the number of the part and the features as their kernels tell them.
PROCESSORS = {
    "cortex-a76": (
        "0xd0b",
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp",
    ),
    "cortex-a72": ("0xd08", "fp asimd evtstrm aes pmull sha1 sha2 crc32"),
}
DEADLINE_S = 3600.0

_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_PASSED_ON = ("http_proxy", "https_proxy", "no_proxy", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL")
# A command has a mount and a process namespace of its own: what it mounts and starts ends with it. This shell stays as the first
# process: a first process that crashes is not ended by the kernel, and would wait for ever.
_ENTER = """
root=$1 pip=$2 certificates=$3 cpuinfo=$4; shift 4
mkdir -p "$root/root/.cache/pip" "$root/etc/ssl/certs"
mount -t proc proc "$root/proc"
if [ -s "$cpuinfo" ]; then mount --bind "$cpuinfo" "$root/proc/cpuinfo"; fi
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
for file in /etc/resolv.conf "$certificates"; do
  if [ -s "$file" ]; then touch "$root$file"; mount --bind "$file" "$root$file"; fi
done
mount --bind "$pip" "$root/root/.cache/pip"
chroot "$root" "$@"
exit $?
"""


def make_root() -> None:
    """The packages that this machine needs, the emulation, and the root; what is there stays."""
    if missing := [name for name in HOST_PACKAGES if not _is_installed(name)]:
        run(["apt-get", "update", "-q"])
        run(["apt-get", "install", "-y", "-q", "--no-install-recommends", *missing])
    if platform.machine() != "aarch64":
        _emulate()
    if not (ROOT / "etc/debian_version").exists() or (ROOT / "debootstrap").exists():  # its folder goes at the end
        _debootstrap()


def _is_installed(package: str) -> bool:
    done = subprocess.run(["dpkg", "-s", package], capture_output=True, text=True, check=False)
    return "Status: install ok installed" in done.stdout


def _emulate() -> None:
    """Let the kernel start arm64 programs; where systemd runs, installing the package has done so."""
    if (_BINFMT / "qemu-aarch64").exists():
        return
    if not (_BINFMT / "register").exists():
        run(["mount", "-t", "binfmt_misc", "binfmt_misc", str(_BINFMT)])
    (_BINFMT / "register").write_text(Path("/usr/lib/binfmt.d/qemu-aarch64.conf").read_text().strip())


def _debootstrap() -> None:
    shutil.rmtree(ROOT, ignore_errors=True)
    (HOME / "debs").mkdir(exist_ok=True)
    options = [
        "--arch=arm64",
        "--variant=minbase",
        f"--include={','.join(GUEST_PACKAGES)}",
        f"--cache-dir={HOME / 'debs'}",
    ]
    run(["unshare", "--mount", "debootstrap", *options, SUITE, str(ROOT)])  # what it mounts goes with it


def guest(
    command: Sequence[str], *, processor: str = "cortex-a76", ok: Sequence[int] = (0,), capture: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a command in the guest, in ``/desk``; with ``capture`` its stdout is kept.

    Raises:
        SystemExit: The command ended with a code that is not ``ok``.
    """
    (HOME / "pip").mkdir(parents=True, exist_ok=True)
    DESK.mkdir(exist_ok=True)
    settings = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8", "NO_COLOR": "1"}
    settings |= {"QEMU_CPU": processor, "PIP_CERT": _CERTIFICATES, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    settings |= {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    places = [str(ROOT), str(HOME / "pip"), _CERTIFICATES, str(_cpuinfo(processor))]
    enter = [
        "setpriv",
        "--pdeathsig",
        "KILL",
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "sh",
        "-euc",
        _ENTER,
        "sh",
        *places,
    ]
    return run([*enter, "env", "-i", "--chdir=/desk", *_pairs(settings), *command], ok=ok, capture=capture)


def _cpuinfo(processor: str) -> Path:
    """What the guest finds in ``/proc/cpuinfo``; empty on an arm64 machine, which shows its own.

    qemu 7.2 shows the processor below instead. onnxruntime 1.32 for Arm crashes while it is imported when it reads that.
    """
    part, features = PROCESSORS[processor]
    fields = {"Features": features, "CPU implementer": "0x41", "CPU architecture": "8", "CPU part": part}
    lines = "".join(f"{name}\t: {value}\n" for name, value in fields.items())
    cores = range(0 if platform.machine() == "aarch64" else os.cpu_count() or 1)
    path = HOME / f"cpuinfo-{processor}"
    path.write_text("".join(f"processor\t: {core}\nBogoMIPS\t: 108.00\n{lines}\n" for core in cores))
    return path


def _pairs(settings: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in settings.items()]


def run(
    command: Sequence[str], *, ok: Sequence[int] = (0,), capture: bool = False, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command of this machine, and end with a message where it fails.

    Raises:
        SystemExit: The command ended with a code that is not ``ok``.
    """
    stdout = subprocess.PIPE if capture else None
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=stdout, text=True, timeout=DEADLINE_S, check=False, **options
    )
    if done.returncode not in ok:
        raise SystemExit(f"{' '.join(command[-8:])} ended with code {done.returncode}. {done.stdout or ''}")
    return done
