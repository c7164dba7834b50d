"""Watch a program's system calls with strace: which sockets it opens, which files it makes, and where."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT

_CALLS = "%network,open,openat,openat2,creat,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,mknod,mknodat"
# "1234  openat(AT_FDCWD</work>, "file", O_WRONLY|O_CREAT, 0666) = 3</work/file>", with `-y` behind each descriptor its path.
_LINE = re.compile(r"^\d+ +(?P<call>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+)(?P<path><[^>]*>)?")
_INTERNET = re.compile(r"\bAF_INET6?\b")
_ASKS_A_RESOLVER = re.compile(r"nscd|systemd/resolve|io\.systemd|avahi|dbus")
_MAKES = re.compile(r"\bO_CREAT\b")
_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')
_FOLDER = re.compile(r"(?:AT_FDCWD|\d+)<([^>]*)>")
# What every program may touch and what is no file that stays: devices, and Python's own compiled modules.
_ANYWHERE = re.compile(r"^/dev/(null|shm/|tty|pts/)|^/proc/self/|^/memfd:|/__pycache__(/|$)")
_SILENT_TODAY = re.compile(r"TELEMETRY|DO_NOT_TRACK|^YOLO_|^HF_|^XDG_|^MPL|^CI$|^OPENBLAS|^PYTEST|^ULTRALYTICS")


@dataclass(frozen=True)
class Observed:
    """What a traced program did, and how it ended."""

    code: int
    output: str
    seconds: float
    sockets: tuple[str, ...]  # calls that have to do with the network
    files: tuple[str, ...]  # what it made outside the given folders
    left: tuple[str, ...]  # what lies in its temporary folder and in its home afterwards


def needs_strace() -> None:
    """Skip where strace is missing or may not trace; on CI that is a failure."""
    why = _why_no_strace()
    if why:
        assert os.environ.get("CI") != "true", why
        pytest.skip(why)


def observe(command: Sequence[str], folder: Path, timeout_s: float, given: Sequence[Path] = ()) -> Observed:
    """Run Python with ``command`` under strace, as a person would: an empty home, none of our switches in the environment.

    It runs in ``folder / "work"``, where it may write, as in ``given`` and in its temporary folder.
    """
    home, temporary, work, trace = (folder / name for name in ("home", "tmp", "work", "trace"))
    for made in (home, temporary, work):
        made.mkdir(parents=True, exist_ok=True)
    inherited = {name: value for name, value in os.environ.items() if not _SILENT_TODAY.search(name)}
    names = {"HOME": str(home), "TMPDIR": str(temporary), "LOGNAME": "operator", "PYTHONPATH": str(CHECKOUT)}
    environment = {**inherited, **names}
    tracer = ["strace", "-f", "-qq", "-y", "-s", "300", "--seccomp-bpf", "-e", f"trace={_CALLS}", "-o", str(trace)]
    start = time.monotonic()
    done = subprocess.run(
        [*tracer, sys.executable, *command],
        cwd=work,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    lines = list(_whole_lines(trace.read_text(errors="replace").splitlines()))
    allowed = tuple(str(path.resolve()) for path in (work, temporary, *given))
    return Observed(
        code=done.returncode,
        output=done.stdout,
        seconds=time.monotonic() - start,
        sockets=tuple(line for line in lines if _is_network(line)),
        files=tuple(sorted({path for line in lines for path in _made(line, work) if not path.startswith(allowed)})),
        left=tuple(sorted(str(path) for kept in (home, temporary) for path in kept.rglob("*"))),
    )


def _why_no_strace() -> str:
    if shutil.which("strace") is None:
        return "strace is not installed: sudo make system-deps"
    tried = subprocess.run(
        ["strace", "-f", "-qq", "-o", os.devnull, "true"], capture_output=True, text=True, timeout=20, check=False
    )
    return f"strace may not trace here: {tried.stderr.strip()}" if tried.returncode else ""


def _whole_lines(lines: Sequence[str]) -> Iterator[str]:
    """The lines of a trace, with those put together that another thread's line parted."""
    begun: dict[str, str] = {}
    for line in lines:
        thread, _, rest = line.partition(" ")
        rest = rest.strip()
        if rest.endswith("<unfinished ...>"):
            begun[thread] = rest.removesuffix("<unfinished ...>")
        elif rest.startswith("<... ") and thread in begun:
            yield f"{thread} {begun.pop(thread)}{rest.partition(' resumed>')[2]}"
        else:
            yield line
    for thread, start in begun.items():  # killed in the call
        yield f"{thread} {start}"


def _is_network(line: str) -> bool:
    return bool(_INTERNET.search(line) or _ASKS_A_RESOLVER.search(line))


def _made(line: str, work: Path) -> Iterator[str]:
    """Paths of files, folders and links that a call made."""
    found = _LINE.match(line)
    if found is None or int(found["result"]) < 0:
        return
    call, arguments = found["call"], found["arguments"]
    if call.startswith("open") and not (_MAKES.search(arguments) and found["path"]):
        return
    if call.startswith("open") or call == "creat":
        path = (found["path"] or "")[1:-1].removesuffix(" (deleted)")
    elif call.startswith(("mkdir", "rename", "link", "symlink", "mknod")):
        name, folders = _TEXT.findall(arguments)[-1], _FOLDER.findall(arguments)
        path = os.path.normpath(Path(folders[-1] if folders else work) / name)
    else:
        return
    if not _ANYWHERE.search(path):
        yield path
