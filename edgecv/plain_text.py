"""Text that others wrote, made fit to be shown: on a terminal, in a log, as a label."""

from __future__ import annotations

import unicodedata

# Control characters, half surrogates, marks that turn the direction of writing or hide, breaks of line and paragraph.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINERS = frozenset("\u200c\u200d")  # Persian, Indic scripts and emoji need them


def printable(text: str) -> str:
    """The text with a replacement mark for each character that could steer a terminal, end a line or hide the rest."""
    if text.isascii() and text.isprintable():
        return text
    return "".join("\N{REPLACEMENT CHARACTER}" if _is_unseen(char) else char for char in text)


def _is_unseen(char: str) -> bool:
    return unicodedata.category(char) in _UNSEEN and char not in _JOINERS
