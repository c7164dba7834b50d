"""Code of the application that ``app.toml`` names, ``python = "module:attribute"``: the one place where it is loaded.

Whoever may write such a name runs code on this device. So it is only loaded for a file on this device, never for what came over
a network (tests/unit/house/test_own_code.py), and only from files that nobody else may write (docs/security.md).
"""

from __future__ import annotations

import importlib
import os
import pwd
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from edgecv._internal.foreign import in_brackets, raised_at, shown_path
from edgecv._internal.printable import nearest, printable
from edgecv.errors import ConfigError, EdgeCVError, PluginError

_EXAMPLE = 'Write python = "module:attribute": for the function crowd in mystep.py that is "mystep:crowd".'


def load_own(place: str, config: Path) -> Any:
    """What ``module:attribute`` names, from a file beside ``config`` or from an installed package.

    The folder of ``config`` is searched while the module is imported, and not afterwards.

    Raises:
        ConfigError: it is no such name, there is no such module or attribute, or others may write the file.
        PluginError: the module cannot be imported; the message says in which file and line.
    """
    module, colon, attribute = place.partition(":")
    names = module.split(".")
    if not colon or not attribute.isidentifier() or not all(name.isidentifier() for name in names):
        raise ConfigError(f"python = {place!r} names no code.", _EXAMPLE)
    folder = config.absolute().parent
    _check_writers(config.absolute(), config)
    if (folder / f"{names[0]}.py").is_file() or (folder / names[0]).is_dir():
        _check_free(folder, names[0])
    with _searched(config, names[0]):
        found = _imported(module, folder, config)
    if attribute not in vars(found):
        known = [name for name in vars(found) if not name.startswith("_")]
        where = shown_path(_file_of(found)) or module
        raise ConfigError(f"{where} has no '{attribute}'.", f"{nearest(attribute, known)}{_EXAMPLE}")
    return vars(found)[attribute]


def _file_of(module: ModuleType) -> str:
    return str(vars(module).get("__file__") or "")


def _check_free(folder: Path, name: str) -> None:
    """A module that is loaded under the same name would be taken in place of the file."""
    loaded = sys.modules.get(name)
    is_ours = loaded is not None and Path(_file_of(loaded)).is_relative_to(folder)
    if name in sys.stdlib_module_names or (loaded is not None and not is_ours):
        raise ConfigError(f"{name}.py has the name of another module of Python.", f"Rename it, such as my_{name}.py.")


def _imported(module: str, folder: Path, config: Path) -> ModuleType:
    try:
        return importlib.import_module(module)
    except EdgeCVError:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}.") and not raised_at(error):
            known = [path.stem for path in folder.glob("*.py")]
            raise ConfigError(
                f"There is no module '{module}', neither beside {config} nor installed.",
                f"{nearest(module, known)}{_EXAMPLE}",
            ) from error
        raise _broken(module, error) from error
    except (Exception, SystemExit) as error:
        raise _broken(module, error) from error


def _broken(module: str, error: BaseException) -> PluginError:
    at = raised_at(error)
    if isinstance(error, SyntaxError) and error.filename:
        at = f"{shown_path(error.filename)}, line {error.lineno}"
    said = error.msg if isinstance(error, SyntaxError | ImportError) else str(error)
    return PluginError(
        f"The module '{module}' cannot be imported, {type(error).__name__}: {printable(str(said))}{in_brackets(at)}",
        "Mend it there; python -c 'import MODULE' in that folder says the same.".replace("MODULE", module),
    )


class _FromText(SourceFileLoader):
    """Reads the file itself: bytecode beside it might be older, or somebody else's, and none is left there."""

    def path_stats(self, path: str) -> Any:
        """No bytecode fits to a file that nothing is known of."""
        raise OSError(path)


class _Beside(MetaPathFinder):
    """Finds modules beside ``config``, all or the one of a ``name``, and those inside them; checks their files before they run."""

    def __init__(self, config: Path, name: str = "") -> None:
        self._config, self._folder, self._name = config, config.absolute().parent, name

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The file of a module in the folder, or in a package of it; ``None`` for any other."""
        if path is None and self._name not in ("", fullname):
            return None
        searched = [str(self._folder)] if path is None else [one for one in path if self._holds(one)]
        spec = PathFinder.find_spec(fullname, searched, target) if searched else None
        if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
            return None
        _check_writers(Path(spec.origin), self._config)
        return spec_from_file_location(
            fullname,
            spec.origin,
            loader=_FromText(fullname, spec.origin),
            submodule_search_locations=spec.submodule_search_locations,
        )

    def _holds(self, path: str) -> bool:
        return Path(path).is_relative_to(self._folder)


@contextmanager
def _searched(config: Path, name: str) -> Iterator[None]:
    """Search the folder of ``config``: before all others for the module that is named, after them for what that imports."""
    first, last = _Beside(config, name), _Beside(config)
    sys.meta_path.insert(0, first)
    sys.meta_path.append(last)
    try:
        yield
    finally:
        sys.meta_path.remove(first)
        sys.meta_path.remove(last)


def _check_writers(path: Path, config: Path) -> None:
    """Refuse a file that somebody else may write, or put another one in place of: it would run with the rights of this program.

    It may belong to who runs the program, to root, or to whom ``config`` belongs: that says what runs.
    """
    owners = (0, os.geteuid(), config.stat().st_uid)
    for one in dict.fromkeys((path, path.parent, path.resolve(), path.resolve().parent)):
        found = one.stat()
        if found.st_uid not in owners:
            raise ConfigError(
                f"{one} belongs to another user, and code is run from it.",
                f"sudo chown {owners[-1]} {shown_path(str(one))}",
            )
        if found.st_mode & stat.S_IWOTH:
            raise ConfigError(
                f"Everybody may write {one}, and code is run from it.", f"chmod o-w {shown_path(str(one))}"
            )
        if found.st_mode & stat.S_IWGRP and not _is_private_group(found.st_gid):
            raise ConfigError(f"A group may write {one}, and code is run from it.", f"chmod g-w {shown_path(str(one))}")


def _is_private_group(group: int) -> bool:
    """Whether a group is that of this user alone, as many systems make one for each, or the administrator's."""
    import grp

    try:
        user, found = pwd.getpwuid(os.geteuid()), grp.getgrgid(group)
    except KeyError:
        return False
    return group == 0 or (found.gr_name == user.pw_name and set(found.gr_mem) <= {user.pw_name})
