"""What is easy to do wrong is done in one place."""

from __future__ import annotations

import re

from tests.unit.house.source_tree import SOURCES, text_of


def _files_with(pattern: str) -> set[str]:
    return {str(path) for path in SOURCES if re.search(pattern, text_of(path))}


def test_files_are_locked_in_one_place_only() -> None:
    assert _files_with(r"\bflock\(|\blockf\(|F_SETLK") == {"edgecv/_internal/file_locks.py"}


def test_a_whole_file_appears_in_one_way_only() -> None:
    takes_a_name = r"\.replace\((self\._)?(path|target|out|file)\)|os\.(replace|rename)\("
    assert _files_with(takes_a_name) == {"edgecv/_internal/atomic.py"}


def test_paho_is_imported_in_one_place_only() -> None:
    inside = {name for name in _files_with(r"""["']paho\.|(import|from) paho""") if name.startswith("cloud_sync/")}
    assert inside == {"cloud_sync/mqtt/client.py"}


def test_a_frame_comes_in_in_one_place_only() -> None:
    # There its privacy mask is painted (docs/adr/0027): whoever makes a Work elsewhere goes round it.
    assert _files_with(r"\bWork\(") == {"pipelines/loop/source_reader.py"}
