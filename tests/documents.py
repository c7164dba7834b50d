"""Reads README.md and docs/: the shell lines that they show, and the files that they name.

A block of shell lines is run by a test unless a comment right before it says otherwise::

    <!-- shell: slow -->                 run by `make test-slow`
    <!-- shell: install -->              the same, and it needs a package index
    <!-- shell: not run, the reason -->  it cannot run on a PC
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.conftest import CHECKOUT

How = Literal["fast", "slow", "install", "not run"]
DOCUMENTS = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").rglob("*.md"))]
ROOM_DOCUMENTS = sorted(
    path
    for room in ("benchmarks", "cloud_sync", "converters", "devices", "edgecv", "pipelines", "quantize")
    for path in (CHECKOUT / room).rglob("README.md")
)

_SHELL = ("sh", "bash", "shell", "console")
_MARK = re.compile(r"<!-- shell: (?P<how>fast|slow|install|not run)(, (?P<reason>.+))? -->")
_FENCE = re.compile(r"^\s*```(?P<language>\w*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block of a document.

    Attributes:
        place: File and line, for messages.
        language: What the fence names; empty if it names nothing.
        how: How its lines are run.
        reason: Why they are not run; empty otherwise.
        lines: Its lines.
    """

    place: str
    language: str
    how: How
    reason: str
    lines: tuple[str, ...]

    @property
    def is_shell(self) -> bool:
        """Whether its lines are for a shell."""
        return self.language in _SHELL

    @property
    def script(self) -> str:
        """The lines as a shell reads them, without the prompt of a console."""
        return "\n".join(line.removeprefix("$ ") for line in self.lines)


def blocks(document: Path) -> Iterator[Block]:
    """All fenced blocks of a document, and indented lines that begin with a prompt."""
    mark: re.Match[str] | None = None
    inside: str | None = None
    lines: list[str] = []
    name = document.relative_to(CHECKOUT)
    for number, line in enumerate(document.read_text().splitlines(), 1):
        if inside is not None:
            if line.strip() == "```":
                yield _block(f"{name}:{number - len(lines) - 1}", inside, mark, lines)
                inside, mark, lines = None, None, []
            else:
                lines.append(line)
        elif found := _FENCE.match(line):
            inside = found["language"]
        elif line.startswith("    $ "):
            yield _block(f"{name}:{number}", "console", mark, [line.strip()])
            mark = None
        elif "<!-- shell:" in line:
            mark = _MARK.fullmatch(line.strip())
            assert mark is not None, f"{name}:{number}: {line} is no marker that tests/documents.py understands"
        elif line.strip():
            assert mark is None, f"{name}:{number}: a marker stands before text, not before a block"


def _block(place: str, language: str, mark: re.Match[str] | None, lines: list[str]) -> Block:
    how: How = mark["how"] if mark else "fast"  # type: ignore[assignment]
    return Block(place=place, language=language, how=how, reason=(mark and mark["reason"]) or "", lines=tuple(lines))


def edgecv_calls(document: Path) -> Iterator[tuple[str, list[str]]]:
    """Every ``edgecv COMMAND ...`` of a document: where it stands, and its words."""
    text = re.sub(r"\\\n\s*", " ", document.read_text())
    for number, line in enumerate(text.splitlines(), 1):
        for code in re.findall(r"`(edgecv [a-z][^`]*)`", line) or re.findall(r"^\s*(?:\$ )?(edgecv [a-z].*)$", line):
            yield f"{document.relative_to(CHECKOUT)}:{number}", shlex.split(code, comments=True)


def links(document: Path) -> Iterator[str]:
    """The relative links of a document, without what stands after ``#``."""
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:|#", target):
            yield target.partition("#")[0]


def named_files(document: Path) -> Iterator[str]:
    """Files of this project that a document names in backticks, such as ``edgecv/model.py``."""
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    yield from re.findall(r"`([\w./-]+\.(?:py|toml|md|lock|service|html|css|js|svg|onnx|j2))(?:::?\w+)*`", text)
