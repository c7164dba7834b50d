"""Steps in the text of an app.toml are changed, and nothing that a person wrote beside them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

import pytest

from edgecv.cli.toml_steps import StepTable, edited_toml
from edgecv.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TABLES = """\
# my cameras
sinks = []   # none yet

[model]
bundle = "x.ecv"

# what is done
[[steps]]
type = "track"   # ids

# the door
[[steps]]
type = "line"    # kind
name = "door"
points = [
  [100, 300],    # left post
  [500, 300],
]
# state = "door.json"

# the yard
[[steps]]   # big
type = "zone"
name = "yard"
points = [[1,1],[9,1],[9,9]]
[steps.schedule]
days = ["mon"]     # only then

# the page
[preview]
port = 8080
"""
INLINE = """\
steps = [
  {type = "track"},   # ids
  # the door
  {type = "line", name = "door", points = [[100, 300], [500, 300]]},
  {type = "zone", name = "yard", points = [[1, 1], [9, 1], [9, 9]]}, # the yard
]
[preview]
port = 8080  # the page
"""
ONE_LINE = (
    'steps=[{type="track"},{type="line",name="door",points=[[100,300],[500,300]]},'
    '{type="zone",name="yard",points=[[1,1],[9,1],[9,9]]}]'
)
DOTTED = """\
model.bundle = "x.ecv" # dotted
preview.port = 8080

[[steps]]
type = "track"
[[steps]]
type = "line"
name = 'door'
"points" = [[1e2, 0x12c], [5_00, 300]]
note.text = '''
[[steps]]
type = "no table"   #none
'''
[[steps]]
type = "zone"
name = "yard"
points = [[1, 1], [9, 1], [9, 9]]

# the end"""
TEXTS = {
    "tables": TABLES,
    "inline": INLINE,
    "one line": ONE_LINE,
    "dotted": DOTTED,
    "crlf": TABLES.replace("\n", "\r\n"),
    "inline crlf": INLINE.replace("\n", "\r\n"),
    "marked": "\ufeff" + TABLES,
    "indented": TABLES.replace("\n", "\n    "),
    "no end": TABLES.rstrip(),
}
NEW = {"type": "zone", "name": "new", "points": [[0.1, 0.2], [0.3, 0.2], [0.3, 0.4]], "units": "relative"}

Change = Callable[[list[StepTable]], list[StepTable]]


def move(rows: list[StepTable]) -> list[StepTable]:
    moved = {**rows[1].table, "points": [[0.25, 0.5], [0.75, 0.5]], "units": "relative", "classes": ['a"b\\c#d']}
    return [rows[0], StepTable(table=moved, origin=1), *rows[2:]]


CHANGES: dict[str, Change] = {
    "nothing": lambda rows: rows,
    "move": move,
    "add": lambda rows: [*rows, StepTable(table=NEW)],
    "add between": lambda rows: [*rows[:2], StepTable(table=NEW), *rows[2:]],
    "add first": lambda rows: [StepTable(table=NEW), *rows],
    "remove the door": lambda rows: [rows[0], rows[2]],
    "remove the yard": lambda rows: rows[:2],
    "remove the first": lambda rows: rows[1:],
    "all at once": lambda rows: [*move(rows)[:2], StepTable(table=NEW), StepTable(table={**NEW, "name": "newer"})],
}


def parsed(text: str) -> dict[str, Any]:
    return tomllib.loads(text.removeprefix("\ufeff"))


def comments(text: str) -> list[str]:
    return sorted(re.findall(r"(?:^|[ ,\t])(# [a-z =\".]+)", text, re.MULTILINE))


def edit(text: str, change: Change) -> tuple[str, list[dict[str, Any]]]:
    rows = [StepTable(table=table, origin=at) for at, table in enumerate(parsed(text).get("steps", []))]
    wanted = change(rows)
    return edited_toml(text, wanted), [dict(row.table) for row in wanted]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", TEXTS)
def test_what_was_asked_for_is_read_back_and_everything_else_stays(name: str, change: str) -> None:
    text = TEXTS[name]
    after, wanted = edit(text, CHANGES[change])
    assert parsed(after) == parsed(text) | {"steps": wanted}
    removed = {
        "remove the door": ("# kind", "# left post", "# state"),
        "remove the yard": ("# big", "# only then", "# the yard"),
    }
    gone = {"all at once": removed["remove the yard"], "remove the first": ("# ids",)} | removed
    kept = [one for one in comments(text) if not one.startswith(gone.get(change, ()))]
    assert set(kept) <= set(comments(after)), after
    assert after.startswith("\ufeff") == text.startswith("\ufeff")
    assert ("\r\n" in text) == ("\r\n" in after)
    assert not re.search(r"(?<!\r)\n", after) or "\r\n" not in text
    if change == "nothing":
        assert after.rstrip() == text.rstrip()
    again, _ = edit(after, CHANGES["nothing"])
    assert again == after


def test_lines_that_have_nothing_to_do_with_an_edit_stay_to_the_byte() -> None:
    after, _ = edit(TABLES, move)
    assert after == TABLES.replace("[100, 300],    #", "[0.25, 0.5],    #").replace(
        "[500, 300]", "[0.75, 0.5]"
    ).replace('# state = "door.json"\n', '# state = "door.json"\nunits = "relative"\nclasses = ["a\\"b\\\\c#d"]\n')
    added, _ = edit(TABLES, CHANGES["add"])
    block = (
        '[[steps]]\ntype = "zone"\nname = "new"\npoints = [[0.1, 0.2], [0.3, 0.2], [0.3, 0.4]]\nunits = "relative"\n\n'
    )
    assert added == TABLES.replace("# the page\n", block + "# the page\n")


@pytest.mark.parametrize(
    "text", ["", "max_frames = 1", "[preview]\nport = 1\n# the end\n", "steps = []\n[preview]\nport = 1\n"]
)
def test_the_first_step_of_a_file_without_any(text: str) -> None:
    after, wanted = edit(text, lambda _: [StepTable(table=NEW)])
    assert parsed(after) == parsed(text) | {"steps": wanted}
    assert set(comments(text)) <= set(comments(after))


def test_what_would_not_be_kept_is_refused() -> None:
    apart = TABLES + '\n[[steps]]\ntype = "zone"\nname = "late"\n'
    with pytest.raises(ConfigError, match="one after the other"):
        edit(apart, move)
    with pytest.raises(ConfigError, match="last step cannot be removed"):
        edit('[[steps]]\ntype = "zone"\n# note\n', lambda _: [])
