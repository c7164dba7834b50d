"""Write the locks: every package of the development world, its version and the hashes of the files that may be installed.

``make lock`` runs it, after a change of ``pyproject.toml`` or ``constraints.txt``. The versions come from ``constraints.txt``, the
hashes from the package index. A lock lists all wheels for Linux and the Pythons in ``PYTHONS``; a source archive where no wheel
is published.

- ``pip.lock``: pip itself, which installs the rest; the one that a Python brings is slower.
- ``demo.lock``: what ``make demo`` needs, on x86-64 and ARM64.
- ``dev.lock``: what ``make setup`` needs besides, but for torch, on x86-64: litert-converter is published for no other
  machine.
- ``torch-cpu.lock``: torch's CPU build. No index that we know here holds it, so its version and hash stand in ``CPU_BUILDS``.
- ``torch-cuda.lock``: the index's build instead, with the packages of CUDA that it asks for, where pip knows no CPU build.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomllib
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

CHECKOUT = Path(__file__).resolve().parents[1]
FOLDER = CHECKOUT / ".ci"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")  # numpy's pinned release needs 3.11
MACHINES = {"demo": ("x86_64", "aarch64"), "dev": ("x86_64",)}
CPU_BUILDS = {
    "torch==2.13.0+cpu": [
        (
            "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl",
            "sha256:6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b",
        )
    ]
}
# The CPU build of torch asks for these alone; the index's builds ask for CUDA, which `cuda.lock` holds.
CPU_TORCH = (
    "filelock",
    "fsspec>=0.8.5",
    "jinja2",
    "networkx>=2.5.1",
    "setuptools>=77.0.3",
    "sympy>=1.13.3",
    "typing-extensions>=4.10.0",
)
TOOLS = ("pip", "setuptools")  # what installs the rest, and what builds EdgeCV itself
LAST = f"3.{int(PYTHONS[-1].split('.')[1]) + 1}"

Lines = dict[str, str]  # "name==version" of each package, with a marker if it has one, by its name
Files = dict[str, list[tuple[str, str]]]  # "name==version" to the files that may be installed, and their hashes


def main() -> int:
    """Write the locks; the argument is where uv lies."""
    uv = sys.argv[1]
    demo, demo_files = resolve(uv, "demo", cpu_torch=True)
    dev, files = resolve(uv, "dev", cpu_torch=True)
    cuda, cuda_files = resolve(uv, "dev", cpu_torch=False)
    del dev["torch"]
    cpu = {"torch": next(pin for pin in CPU_BUILDS if pin.startswith(f"{cuda['torch']}+"))}
    pip = {"pip": demo.pop("pip")}
    del dev["pip"]
    _write("pip.lock", "`make setup` and `make demo`", pip, demo_files)
    _write("demo.lock", "`make demo`", demo, demo_files)
    _write("dev.lock", "`make setup`, beside demo.lock and one for torch", _without(dev, demo), files)
    _write("torch-cpu.lock", "`make setup`", cpu, CPU_BUILDS)
    _write("torch-cuda.lock", "`make setup` where pip knows no CPU build", _without(cuda, {**dev, **pip}), cuda_files)
    return 0


def constraints() -> list[str]:
    """The pins of ``constraints.txt``."""
    lines = (CHECKOUT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def resolve(uv: str, extra: str, *, cpu_torch: bool) -> tuple[Lines, Files]:
    """What an extra of EdgeCV brings at the pinned versions, by uv's word."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pyproject.toml").write_text(_project(extra, cpu_torch=cpu_torch), encoding="utf-8")
        _run(uv, "lock", "--quiet", folder=folder)
        exported = _run(
            uv,
            "export",
            "--quiet",
            "--frozen",
            "--no-hashes",
            "--no-annotate",
            "--no-header",
            "--no-emit-project",
            folder=folder,
        )
        locked = tomllib.loads((folder / "uv.lock").read_text(encoding="utf-8"))
    needed = [Requirement(line) for line in exported.splitlines()]
    return {requirement.name: _line(requirement, extra) for requirement in needed}, {
        f"{package['name']}=={package['version']}": _files(package) for package in locked["package"]
    }


def _line(requirement: Requirement, extra: str) -> str:
    """A requirement without a marker that holds on every machine and Python that the lock is for."""
    systems = [
        {
            "python_version": python,
            "python_full_version": f"{python}.0",
            "platform_machine": machine,
            "sys_platform": "linux",
        }
        for python in PYTHONS
        for machine in MACHINES[extra]
    ]
    marker = requirement.marker
    everywhere = marker is None or all(marker.evaluate(system) for system in systems)
    return f"{requirement.name}{requirement.specifier}" if everywhere else str(requirement)


def _project(extra: str, *, cpu_torch: bool) -> str:
    """A project for uv that asks for the extra and knows our pins; a JSON list of strings is TOML, too."""
    ours = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = sorted({*ours["dependencies"], *_extra(ours["optional-dependencies"], extra), *TOOLS})
    pins = constraints()
    systems = [
        f"sys_platform == 'linux' and implementation_name == 'cpython' and platform_machine == '{machine}'"
        for machine in MACHINES[extra]
    ]
    text = f"""
[project]
name = "world"
version = "0"
requires-python = ">={PYTHONS[0]},<{LAST}"
dependencies = {json.dumps(wanted)}
[tool.uv]
package = false
environments = {json.dumps(systems)}
constraint-dependencies = {json.dumps(pins)}
"""
    if not cpu_torch:
        return text
    version = next(pin.split("==")[1] for pin in pins if pin.startswith("torch=="))
    return f"""{text}
[[tool.uv.dependency-metadata]]
name = "torch"
version = "{version}"
requires-dist = {json.dumps(CPU_TORCH)}
"""


def _extra(extras: Mapping[str, Sequence[str]], name: str) -> Iterable[str]:
    """The requirements of an extra, with those of the extras that it names."""
    for line in extras[name]:
        requirement = Requirement(line)
        if canonicalize_name(requirement.name) == "edgecv":
            for inner in requirement.extras:
                yield from _extra(extras, inner)
        else:
            yield line


def _files(package: Mapping[str, Any]) -> list[tuple[str, str]]:
    wheels = [(entry["url"].rsplit("/", 1)[1], entry["hash"]) for entry in package.get("wheels", ())]
    fitting = sorted((name.replace("%2B", "+"), digest) for name, digest in wheels if _fits(name.replace("%2B", "+")))
    source = package.get("sdist")
    return fitting or ([(source["url"].rsplit("/", 1)[1], source["hash"])] if source else [])


def _fits(wheel: str) -> bool:
    """Whether a wheel is for one of our machines and Pythons; free-threaded ones and musl are not."""
    abis = {"none", "abi3", *(f"cp{version.replace('.', '')}" for version in PYTHONS)}
    return any(
        tag.abi in abis
        and (tag.platform == "any" or (tag.platform.endswith(MACHINES["demo"]) and "musl" not in tag.platform))
        for tag in parse_wheel_filename(wheel)[3]
    )


def _without(lines: Lines, others: Lines) -> Lines:
    return {name: line for name, line in lines.items() if name not in others}


def _write(name: str, use: str, lines: Lines, files: Files) -> None:
    text = [f"# Made by `make lock` from pyproject.toml and constraints.txt, for {use}. Do not edit."]
    for package in sorted(lines):
        pin = lines[package].split(";")[0].strip()
        assert files[pin], f"{pin}: no file for our machines is published"
        text.append(" \\\n    ".join([lines[package], *(f"--hash={digest}" for _, digest in files[pin])]))
    (FOLDER / name).write_text("\n".join(text) + "\n", encoding="utf-8")


def _run(*command: str, folder: Path) -> str:
    return subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
