"""The check of ``RuntimeOptions.extra``, which every runtime of EdgeCV makes."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

from edgecv._internal.printable import nearest, printable
from edgecv.errors import ConfigError

# Of all runtimes here: `auto` may take another runtime than the one that somebody thought of.
_KNOWN = ("build_engine", "config", "provider_options", "spinning")

log = logging.getLogger("edgecv.runtimes")


def check_extra(extra: Mapping[str, Any], runtime: str, own: Collection[str]) -> None:
    """Check the names in ``extra``, and say which of them a runtime does not use.

    Args:
        extra: Options of one runtime, by name.
        runtime: Its name.
        own: What it uses.

    Raises:
        ConfigError: no runtime of EdgeCV has such an option, or ``config`` is no mapping.
    """
    for name in extra:
        if name not in _KNOWN:
            raise ConfigError(
                f"No runtime has the option '{name}'.", f"{nearest(name, _KNOWN)}Known: {', '.join(_KNOWN)}."
            )
        if name not in own:
            log.warning("%s has no option '%s': it changes nothing.", runtime, printable(name))
    if not isinstance(extra.get("config", {}), Mapping):
        raise ConfigError("config is a mapping of the runtime's own options.", 'For example: {"NAME": "value"}.')
