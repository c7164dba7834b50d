"""``edgecv totals`` shows the state file of a counter, and moves totals to another name."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Annotated

import typer

from edgecv.cli.console import print_json, say
from edgecv.errors import ConfigError


def totals(
    file: Annotated[Path, typer.Argument(help="State file of a line or a zone, such as door.json.")],
    source: Annotated[
        list[str] | None,
        typer.Option(help="OLD=NEW: add the totals of one source to those of another. May be repeated."),
    ] = None,
    forget: Annotated[list[str] | None, typer.Option(help="Drop the totals of a source. May be repeated.")] = None,
    counter: Annotated[str | None, typer.Option(help="New name of the counter, as app.toml has it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the file as JSON.")] = False,
) -> None:
    """Show the totals in the state file of a counter, or move them to a renamed source or counter."""
    import msgspec

    from edgecv.pipelines.steps.count.state_file import DAMAGES, lock_state, moved, read_state, write_state

    try:
        state = read_state(file)
        if source or forget or counter:
            with lock_state(file):
                state = read_state(file)
                renames = dict(_pair(text, state.sources) for text in source or ())
                state = moved(state, renames, forget or (), counter or "")
                write_state(file, state, flush=True)
    except DAMAGES as error:
        raise ConfigError(
            f"{file} is no state file of a counter: {error}.", "It is the file that a step names with: state"
        ) from error
    if as_json:
        print_json(msgspec.to_builtins(state))
        return
    say(f"{state.counter}{f' ({state.rule})' if state.rule else ''}")
    for name in state.sources:
        say(f"  {name}: {state.words(name)}")


def _pair(text: str, known: Container[str]) -> tuple[str, str]:
    """The old and the new name of a source; a name may itself have a ``=``."""
    splits = [(text[:at], text[at + 1 :]) for at, letter in enumerate(text) if letter == "=" and text[at + 1 :]]
    if not splits:
        raise ConfigError(f"{text!r} names no two sources.", "Write it as --source OLD=NEW.")
    return next((split for split in splits if split[0] in known), splits[0])
