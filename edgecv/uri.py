"""``Uri``: the name of a source or sink, taken apart; ``edgecv.pipelines.uris`` reads it from a text."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from edgecv._internal.printable import printable
from edgecv._internal.redaction import SHOWN_LENGTH, redact, redact_pipeline

SECRET_PATHS = frozenset({"webhook"})  # chat services put the secret into the path of the URL


@dataclass(frozen=True, slots=True, kw_only=True)
class Uri:
    """A source or sink by name, taken apart."""

    scheme: str  # its name in the registry: `file`, `usb`, `jsonl` ...
    # What follows the scheme, without the query. It may hold credentials: show `name` instead.
    path: str
    options: Mapping[str, str] = field(default_factory=dict)  # the query, not yet checked (see `read_options`)
    separator: str = "://"  # what stood between scheme and path

    @property
    def name(self) -> str:
        """What to call it in results, logs and errors: without credentials, options and control characters."""
        if self.scheme in ("file", "images"):
            return printable(self.path)
        if self.scheme in SECRET_PATHS:
            return printable(f"{self.scheme}:{'/'.join(redact(self.path).split('/')[:3])}")
        if self.scheme == "gst":
            return printable(_pipeline_name(self.path))
        return printable(redact(f"{self.scheme}{self.separator}{self.path}"))


def _pipeline_name(pipeline: str) -> str:
    shown = redact_pipeline(pipeline)
    if len(shown) > SHOWN_LENGTH:  # the sum keeps two pipelines apart that begin alike
        whole = shown.encode(errors="backslashreplace")
        shown = f"{shown[:SHOWN_LENGTH]}...{zlib.crc32(whole):08x}"
    return f"gst:{shown}"
