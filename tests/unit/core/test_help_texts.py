"""What ``edgecv predict --help`` and ``edgecv run --help`` say: short sentences, and one word for one thing."""

from __future__ import annotations

import re

import pytest
import typer

from edgecv.cli.app import _app

COMMANDS = typer.main.get_command(_app()).commands  # type: ignore[attr-defined]
OTHER_WORDS = {"picture": "image", "painted": "draw", "annotated": "draw", "page": "web page", "existing": "that exist"}


def _texts(command: str) -> list[str]:
    found = COMMANDS[command]
    return [found.help, *(parameter.help for parameter in found.params if parameter.help)]


@pytest.mark.parametrize("command", ["predict", "run"])
def test_help_is_short_sentences(command: str) -> None:
    for text in _texts(command):
        assert re.search(r"(\.|\)|FILE|/)$", text.strip()), text
        assert ";" not in text, text
        for sentence in re.split(r"(?<=[.]) ", text):
            assert len(sentence.split()) <= 16, sentence


@pytest.mark.parametrize("command", ["predict", "run"])
def test_help_has_one_word_for_one_thing(command: str) -> None:
    for text in _texts(command):
        words = text.lower().replace("web page", "")
        for other, word in OTHER_WORDS.items():
            assert not re.search(rf"\b{other}\b", words), f"'{text}': say '{word}'"
