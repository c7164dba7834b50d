"""Code that ``app.toml`` names is loaded in one place, and only for a file on this device (docs/security.md)."""

from __future__ import annotations

import ast

from tests.unit.house.source_tree import SOURCES, imported, nodes_of, text_of

LOADER = "edgecv.cli.own_code"
ASKS = "edgecv/cli/app_parts.py"
# Who may say that a file lies on this device: the commands that read `--config FILE` themselves.
COMMANDS = {"edgecv/cli/privacy.py", "edgecv/cli/replay.py", "edgecv/cli/run.py"}


def test_one_module_alone_loads_own_code() -> None:
    importers = {str(path) for path in SOURCES if LOADER in imported(path)}
    assert importers == {ASKS}
    mentions = {str(path) for path in SOURCES if "load_own" in text_of(path)}
    assert mentions == {ASKS, "edgecv/cli/own_code.py"}


def test_only_commands_with_a_local_file_let_it_be_loaded() -> None:
    sayers = {
        str(path)
        for path in SOURCES
        for node in nodes_of(path)
        if isinstance(node, ast.Call) and any(keyword.arg == "code_beside" for keyword in node.keywords)
    }
    assert sayers == COMMANDS
    for name in COMMANDS:
        values = [
            keyword.value
            for path in SOURCES
            if str(path) == name
            for node in nodes_of(path)
            if isinstance(node, ast.Call)
            for keyword in node.keywords
            if keyword.arg == "code_beside"
        ]
        assert [ast.unparse(value) for value in values] == ["config"], f"{name}: the file that the command was given"


def test_what_comes_over_a_network_knows_nothing_of_it() -> None:
    rooms = ("cloud_sync", "pipelines", "devices")
    assert not [path for path in SOURCES if path.parts[0] in rooms and "own_code" in text_of(path)]
