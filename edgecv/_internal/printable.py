"""Text for people to read, from wherever it comes: what a terminal would obey instead of showing is written as an escape.

Names in bundles, files, sources and brokers are chosen by others. An ESC in one of them can rewrite what a terminal shows, a
bidirectional override can show a name backwards, a line break can pretend to be another message.
"""

from __future__ import annotations

import logging
import re
import unicodedata

# Invisible, but letters of Persian and of Indian scripts, and emoji, are joined by them.
_JOINERS = frozenset({"\u200c", "\u200d"})
_KEPT = frozenset({"\t"}) | _JOINERS
# Control characters, halves of a pair that belongs to no character, line and paragraph separators, invisible formatting.
_CONTROLS = frozenset({"Cc", "Cs", "Zl", "Zp"})
_ESCAPED = _CONTROLS | {"Cf"}
# In JSON text the same stand in strings alone; JSON itself demands escapes of U+0000 to U+001F only.
_IN_JSON = re.compile("[\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
_SHORT = 60  # characters of a value in a message
_SUSPECT = re.compile("[^\t\n -~]")  # most texts have none, and are done


def printable(text: str, limit: int | None = None) -> str:
    """At most ``limit`` characters of a text on one line, with escapes such as ``\\x1b`` for what is not shown.

    Letters of every script stay.
    """
    text = text[:limit]
    if "\n" not in text and not _SUSPECT.search(text):
        return text
    return "".join(_escaped(char) for char in text)


def short(value: object) -> str:
    """A value of any type for a message, such as ``True (bool)``: cut where it is long."""
    return f"{printable(repr(value), _SHORT)} ({type(value).__name__})"


def is_name(text: str) -> bool:
    """Whether it can be the name of something: letters, joiners, blanks and marks of every script, but nothing that controls.

    What is invisible in it, such as a soft hyphen or a mark for the direction, is escaped where it is printed.
    """
    return not any(unicodedata.category(char) in _CONTROLS for char in text)


def as_name(text: str) -> str:
    """The text with a blank for each run of what cannot stand in a name, such as a tab or a line break."""
    words = "".join(char if is_name(char) else "\n" for char in text).split("\n")
    return " ".join(word for word in words if word)


def printable_lines(text: str) -> str:
    """The same with its line breaks kept; each further line is indented, so that none looks like a message of its own."""
    return "\n  ".join(printable(line) for line in text.split("\n"))


def printable_json(text: str) -> str:
    """JSON text with ``\\uXXXX`` for what is not shown: another spelling of the same data."""
    return _IN_JSON.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


class PrintableFormatter(logging.Formatter):
    """Log lines in which nothing is left for a terminal to obey."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name in `logging`
        """Format a record as ``logging.Formatter`` does, with every line made printable."""
        return printable_lines(super().formatMessage(record))

    def formatException(self, ei: object) -> str:  # noqa: N802 - the name in `logging`
        """See ``logging.Formatter``; a traceback keeps its lines."""
        lines = super().formatException(ei).split("\n")  # type: ignore[arg-type]
        return "\n".join(printable(line) for line in lines)


def _escaped(char: str) -> str:
    if char in _KEPT or unicodedata.category(char) not in _ESCAPED:
        return char
    return char.encode("unicode_escape").decode("ascii")
