"""The steps, gates and sinks of ``app.toml``: registered ones by their ``type``, own code by ``python = "module:attribute"``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from edgecv import registry
from edgecv._internal.strict import read_struct
from edgecv.cli.own_code import load_own
from edgecv.errors import ConfigError
from edgecv.pipelines.sinks import check_sink
from edgecv.pipelines.sinks.own import OwnSink
from edgecv.pipelines.steps.functions import GATE, STEP, OwnGate, OwnStep, check_arguments
from edgecv.pipelines.steps.options import step_type
from edgecv.protocols import GateOptions, StepOptions, lacks


def sink_part(sink: str | dict[str, Any], sources: int, where: str, code_beside: Path | None) -> str | OwnSink:
    """A sink that was checked: its URI, or what was loaded for a table; errors as ``check_sink`` and ``load_own``."""
    if isinstance(sink, str):
        check_sink(sink, sources)
        return sink
    if "python" not in sink:
        raise ConfigError(
            f"{where} has a table in 'sinks' without python.", 'Write { python = "mysink:tell" }, or a URI.'
        )
    place, found, options = _loaded(sink, where, code_beside)
    own = OwnSink(function=found, name=place, arguments=options)
    own.check()
    return own


def part(kind: str, table: Mapping[str, Any], where: str, code_beside: Path | None) -> Any:
    """The options of a step or gate: those of a registered one, or of the application's own code.

    Raises ``ConfigError``: they do not fit; ``UnknownPlugin``: there is no such type; else as ``load_own``.
    """
    if "python" not in table:
        return _plugin(kind, table, where)
    if "type" in table:
        raise ConfigError(f"{where} has a table in '{kind}' with both type and python.", "Keep one of them.")
    place, found, options = _loaded(table, where, code_beside)
    if isinstance(found, type) and issubclass(found, msgspec.Struct):
        if missing := lacks(found, StepOptions if kind == "steps" else GateOptions):
            raise ConfigError(f"{place} lacks {', '.join(missing)}.", "See docs/plugins.md.")
        return read_struct(options, found, f"{where}, {kind}, {place}")
    sources = options.pop("sources", [])
    if not isinstance(sources, list) or not all(isinstance(name, str) for name in sources):
        raise ConfigError(f"{where}, {kind}, {place}: sources must be a list of names.", 'sources = ["door"]')
    if not callable(found) or (isinstance(found, type) and "__call__" not in dir(found)):
        raise ConfigError(f"{place} cannot be called.", "Name a function, or give the class __call__(self, result).")
    made = (OwnStep if kind == "steps" else OwnGate)(
        function=found, name=place, arguments=options, sources=tuple(sources)
    )
    check_arguments(found, STEP if kind == "steps" else GATE, options)
    return made


def _loaded(table: Mapping[str, Any], where: str, code_beside: Path | None) -> tuple[str, Any, dict[str, Any]]:
    """The name of the application's own code, what stands behind it, and the options beside it."""
    options = dict(table)
    place = options.pop("python")
    if not isinstance(place, str):
        raise ConfigError(f"{where}: python must be a text.", 'python = "mystep:crowd"')
    if code_beside is None:
        raise ConfigError(
            f"{where} names the code {place!r}, which only a file on this device may do.", "Use a registered step."
        )
    return place, load_own(place, code_beside), options


def _plugin(kind: str, table: Mapping[str, Any], where: str) -> Any:
    """The options of a step or gate, checked by the struct that its ``type`` names."""
    options = dict(table)
    name = options.pop("type", None)
    if not isinstance(name, str):
        raise ConfigError(
            f"{where} has a table in '{kind}' without a type.", f"Known: {', '.join(registry.names(kind))}."
        )
    struct: type[Any] = step_type(name) if kind == "steps" else registry.resolve("gates", name)
    return read_struct(options, struct, f"{where}, {kind}, {name}")
