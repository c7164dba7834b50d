"""The seam of the editor: who keeps the steps of a pipeline, and writes them down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from edgecv.errors import ConfigError
from edgecv.pipelines.preview.editor.shapes import Edit


class OutOfDate(ConfigError):
    """Somebody else changed the steps since they were read; nothing was overwritten."""


class StepBook(Protocol):
    """The steps of a running pipeline as tables of ``app.toml``; called from any thread.

    Attributes:
        name: What the page calls the place where they are kept, such as ``app.toml``.
    """

    name: str

    @property
    def editable(self) -> bool:
        """Whether the operator allowed edits."""

    def reason(self) -> str:
        """Why nothing can be saved; empty where it can."""

    def read(self) -> tuple[str, Sequence[Mapping[str, Any]]]:
        """The version of the steps, and all of them in order."""

    def save(self, edit: Edit) -> None:
        """Let the pipeline go on with other lines and zones, and write them down: both, or neither.

        Raises:
            OutOfDate: the version is not the newest, or the place was changed by hand.
            ConfigError: a shape does not fit, or nothing can be saved.
            EdgeCVError: it cannot be written.
        """
