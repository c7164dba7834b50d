"""``edgecv plugins`` lists everything that is registered."""

from __future__ import annotations

from edgecv import registry
from edgecv.cli.console import print_json, print_table
from edgecv.cli.options import Json


def plugins(json: Json = False) -> None:
    """List every runtime, decoder, source, sink, step, gate, family, exporter, quantizer and scenario, built in or installed."""
    found = {kind: {name: registry.place(kind, name) for name in registry.names(kind)} for kind in registry.KINDS}
    if json:
        print_json(found)
        return
    rows = [[kind, name, code] for kind, names in found.items() for name, code in names.items()]
    print_table("Plug-ins", ("kind", "name", "code"), rows)
