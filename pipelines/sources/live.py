"""What live sources share: their options, and errors that trying again does not mend.

A live source runs in a worker process of its own (``edgecv.pipelines.supervision``). It is a plain class made by
``SourceType(uri)`` with ``read`` and ``close``, and has besides:

- ``supervised = True``;
- ``options``: a struct derived from ``LiveOptions``;
- ``check(uri)``, a static method, called where the app runs: refuses what can never work, without touching the camera.
"""

from __future__ import annotations

import importlib.util
from typing import Annotated

import msgspec

from edgecv.errors import SourceError
from edgecv.extras import require

_Side = Annotated[int, msgspec.Meta(ge=0, le=16384)]
_Seconds = Annotated[float, msgspec.Meta(ge=0.1, le=3600)]


class LiveOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the query of every live source may say; 0 leaves it to the camera.

    Attributes:
        width: In pixels.
        height: In pixels.
        fps: At most so many frames per second; the others are passed over where they arrive.
        deadline_s: No frame for so long: the source is stale and opened anew.
        connect_s: How long an attempt may take until its first frame.
    """

    width: _Side = 0
    height: _Side = 0
    fps: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 0.0
    deadline_s: _Seconds = 5.0
    connect_s: _Seconds = 10.0


class Unrecoverable(SourceError):
    """A ``SourceError`` that trying again hardly mends: a wrong password, a missing decoder or program."""


def need(module: str, extra: str) -> None:
    """Make sure that a package is installed, without importing it.

    Raises:
        MissingDependency: it is not; the hint holds the pip line.
    """
    if importlib.util.find_spec(module) is None:
        require(module, extra)
