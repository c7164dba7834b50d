"""The page's editor and ``app.toml``: an edit is written into the file, and the pipeline goes on with it; both, or neither."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from edgecv._internal.atomic import new_file
from edgecv._internal.bounded import read_bounded
from edgecv._internal.extras import require
from edgecv.cli.app_config import App, AppFile, read_app_file
from edgecv.cli.app_parts import part
from edgecv.cli.toml_steps import StepTable, edited_toml
from edgecv.errors import ConfigError, EdgeCVError
from edgecv.events import Event
from edgecv.pipelines.preview.editor.book import OutOfDate
from edgecv.pipelines.preview.editor.shapes import KINDS, Edit, differences, edited_tables

if TYPE_CHECKING:
    from edgecv.pipelines.pipeline import Pipeline
    from edgecv.protocols import StepOptions

_MOST_BYTES = 4 << 20
_VERSIONS = 32  # that are remembered, to say what changed since
_NO_EDIT = "Nothing can be saved here: start with --edit, or with [preview] edit = true. The TOML can be copied."

Tables = Sequence[Mapping[str, Any]]


class AppSteps:
    """The steps of an ``app.toml`` that runs, for ``StepBook``.

    The file is written where its name leads to at the start, also by a link, which stays. Its permissions and its owner stay,
    too. Options of the command line that add steps are no part of it.
    """

    def __init__(self, app: App, path: Path | None) -> None:
        """Look at the file, and write nothing.

        Raises ``ConfigError``: it shall be edited, and there is no file, or tomlkit is missing.
        """
        self._app, self.name = app, "app.toml" if path is None else path.name
        self._path: Path | None = None
        self._pipeline: Pipeline | None = None
        self._changing = threading.RLock()
        self._known: dict[str, list[dict[str, Any]]] = {}  # shapes by version, newest last
        self._given = 0  # steps of the command line, which stand before those of the file
        self._version, self._own = "", list(app.file.steps)  # of the file as it was last read or written, and its steps
        if app.file.preview is not None and app.file.preview.edit:
            if path is None:
                raise ConfigError("--edit writes into an app.toml, and there is none.", "Name it: --config app.toml")
            require("tomlkit", "preview")
            self._path = path.resolve()
            self._given = max(0, len(app.file.steps) - len(read_app_file(self._path).steps))
            self._look()

    def attach(self, pipeline: Pipeline) -> None:
        """Let edits change this pipeline, from now on."""
        self._pipeline = pipeline

    @property
    def editable(self) -> bool:
        """Whether the operator allowed edits."""
        return self._path is not None and self._pipeline is not None

    def reason(self) -> str:
        """Why nothing can be saved; empty where it can."""
        if self._path is None or self._pipeline is None:
            return _NO_EDIT
        try:
            self._look()
            _check_writable(self._path)
        except EdgeCVError as error:
            return f"{error.message} {error.hint}".strip()
        return ""

    def read(self) -> tuple[str, Tables]:
        """The version of the file, and all steps that run."""
        with self._changing:
            return self._version, list(self._app.file.steps)

    def save(self, edit: Edit) -> None:
        """As ``StepBook.save``, and tell the sinks what changed."""
        with self._changing:
            if self._path is None or self._pipeline is None:
                raise ConfigError(_NO_EDIT)
            text = self._text(edit.version)
            _check_writable(self._path)
            rows = [StepTable(table=table, origin=at) for at, table in edited_tables(self._own, edit.shapes)]
            changed = differences(self._own, [row.table for row in rows])
            if changed:
                self._write(self._path, self._pipeline, edited_toml(text, rows), rows)
                self._tell(changed)

    def _look(self) -> None:
        """Take note of the file, if its steps are those that run; raises ``OutOfDate`` else, and ``ConfigError`` where it cannot be
        read.
        """
        with self._changing:
            path = _place(self._path)
            version = _version(_read(path))
            if version == self._version:
                return
            steps = read_app_file(path).steps
            at_work = self._app.file.steps[self._given :]
            if at_work != steps:
                changed = differences(at_work, steps) or "the steps stand in another order"
                raise OutOfDate(f"{self.name} was changed by hand: {changed}.", "Start again to go on with that.")
            self._note(version, steps)

    def _note(self, version: str, steps: Sequence[dict[str, Any]]) -> None:
        self._version, self._own = version, list(steps)
        self._known.pop(version, None)
        self._known[version] = [table for table in steps if table.get("type") in KINDS]
        for old in list(self._known)[:-_VERSIONS]:
            del self._known[old]

    def _text(self, version: str) -> str:
        """The file as it is; raises ``OutOfDate`` unless it is the version that was drawn over."""
        self._look()
        if version != self._version:
            before, shapes = self._known.get(version), self._known[self._version]
            same = "the file was saved, with the same lines and zones"
            changed = "lines and zones were edited" if before is None else differences(before, shapes) or same
            raise OutOfDate(f"Somebody else was here meanwhile: {changed}. Nothing was overwritten.", "Load it anew.")
        return _read(_place(self._path)).decode()

    def _write(self, path: Path, pipeline: Pipeline, text: str, rows: Sequence[StepTable]) -> None:
        """Write the file beside the old one, let the pipeline go on with what can be read back from it, then exchange them."""
        data, found = text.encode(), path.stat()
        renamed = {
            self._own[row.origin]["name"]: row.table["name"]
            for row in rows
            if row.origin is not None and "name" in row.table
        }
        try:
            with new_file(path, 0o600) as file:
                file.write(data)
                _keep_owner(file, found)
                file.flush()
                app = self._checked(file, rows)
                os.fsync(file.fileno())  # what a full disk refuses, it refuses before anything is changed
                pipeline.replace_steps(app.steps, renamed=renamed)
        except OSError as error:
            with suppress(
                EdgeCVError
            ):  # it may have ended; and where only the name could not be taken, the steps go back
                pipeline.replace_steps(self._app.steps, renamed={new: old for old, new in renamed.items()})
            raise EdgeCVError(
                f"{self.name} cannot be written: {error.strerror or error}. The pipeline goes on as it was.",
                "May its folder be written, and is there space?",
            ) from error
        self._app = app
        self._note(_version(data), [dict(row.table) for row in rows])

    def _checked(self, file: BinaryIO, rows: Sequence[StepTable]) -> App:
        """What stands in the file that was written, with the options of all steps that did not change as they are."""
        written = read_app_file(Path(f"/proc/self/fd/{file.fileno()}"))
        wanted = [dict(row.table) for row in rows]
        if written.steps != wanted or _rest(written) != _rest(read_app_file(_place(self._path))):
            raise ConfigError(
                f"{self.name} has a form in which the edit cannot be written.", "Copy the TOML, and put it in by hand."
            )
        first = self._given
        steps = [*self._app.steps[:first], *(self._step(row, first) for row in rows)]
        tables = [*self._app.file.steps[:first], *wanted]
        return replace(self._app, file=_with_steps(self._app.file, tables), steps=tuple(steps))

    def _step(self, row: StepTable, first: int) -> StepOptions:
        """The options of a step: the same object as so far where nothing changed, so that the step goes on as it is."""
        if row.origin is not None and self._own[row.origin] == row.table:
            return self._app.steps[first + row.origin]
        options: StepOptions = part("steps", dict(row.table), self.name, None)
        return options

    def _tell(self, changed: str) -> None:
        if self._pipeline is not None:
            self._pipeline.tell(Event(kind="steps.edited", time_ns=time.time_ns(), data={"changed": changed[:1000]}))


def _with_steps(file: AppFile, steps: list[dict[str, Any]]) -> AppFile:
    return msgspec.structs.replace(file, steps=steps)


def _rest(file: AppFile) -> AppFile:
    return _with_steps(file, [])


def _place(path: Path | None) -> Path:
    assert path is not None
    return path


def _read(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would hold us up
            raise ConfigError(f"{path.name} is no file any more.", "Put it back.")
        return read_bounded(path, _MOST_BYTES)
    except OSError as error:
        raise ConfigError(f"{path.name} cannot be read any more: {error.strerror}.", "Put it back.") from error


def _version(data: bytes) -> str:
    return sha256(data).hexdigest()[:32]


def _check_writable(path: Path) -> None:
    """Raise ``ConfigError`` for a file that its owner closed against writing, or that would get another owner."""
    found = path.stat()
    if not found.st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH) or not os.access(path, os.W_OK):
        raise ConfigError(f"{path.name} may not be written.", "Allow it, or copy the TOML and put it in yourself.")
    if found.st_uid != os.geteuid() and os.geteuid():
        raise ConfigError(f"{path.name} belongs to another user.", "Run as that one, or copy the TOML.")
    if not os.access(path.parent, os.W_OK):
        raise ConfigError(f"The folder of {path.name} may not be written.", "Allow it, or copy the TOML.")


def _keep_owner(file: BinaryIO, found: os.stat_result) -> None:
    """The new file has the owner, the group and the permissions of the old one."""
    if (os.fstat(file.fileno()).st_uid, os.fstat(file.fileno()).st_gid) != (found.st_uid, found.st_gid):
        os.fchown(file.fileno(), found.st_uid, found.st_gid)
    os.fchmod(file.fileno(), stat.S_IMODE(found.st_mode))
