"""Options that people write, read into structs: what does not exist is an error that names the nearest that does."""

from __future__ import annotations

import math
import numbers
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from edgecv._internal.bounded import MEBIBYTE, read_bounded_text
from edgecv._internal.printable import nearest, printable
from edgecv.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Options = TypeVar("Options", bound=msgspec.Struct)


def read_struct(given: Mapping[str, Any], kind: type[Options], where: str, *, texts: bool = False) -> Options:
    """``given`` as a struct.

    Args:
        given: Names and values; tables inside it become the structs that ``kind`` has there.
        kind: The struct.
        where: What to call the place in messages, such as ``rtsp://cam`` or ``app.toml``.
        texts: All values are texts, as in the query of a URI: ``"3"`` is a number where one is wanted.

    Raises:
        ConfigError: a name that does not exist (the hint says the nearest), or a value that does not fit.
    """
    check_names(given, kind, where)
    try:
        return msgspec.convert(dict(given), kind, strict=not texts)
    except UnicodeEncodeError as error:
        raise ConfigError(f"An option of {where} is no UTF-8 text.", "Write it anew.") from error
    except msgspec.ValidationError as error:
        raise ConfigError(f"An option of {where} is wrong: {error}.") from error


def read_toml(path: Path, *, missing: str, example: str, most_bytes: int = MEBIBYTE) -> dict[str, Any]:
    """The tables of a TOML file that a person wrote.

    Args:
        path: The file.
        missing: The next step where it cannot be read.
        example: The next step where it is no TOML, such as the document that shows one.
        most_bytes: A larger file is refused.

    Raises:
        ConfigError: it cannot be read, is too large, or is no TOML.
    """
    try:
        return tomllib.loads(read_bounded_text(path, most_bytes, encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.", missing) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is no TOML: {error}.", example) from error


def named_files(folder: Path) -> tuple[str, ...]:
    """The names of the TOML files in a folder of data, without their suffix, sorted."""
    return tuple(sorted(path.stem for path in folder.glob("*.toml")))


def named_file(name: str, folder: Path, what: str) -> Path:
    """The TOML file of a name in a folder of data, or a file of the user's own: a path that ends in ``.toml``.

    Raises ``ConfigError``: there is no ``what`` of that name; the hint says the nearest and lists all.
    """
    if name.endswith(".toml"):
        return Path(name)
    known = named_files(folder)
    if name not in known:
        raise ConfigError(
            f"There is no {what} '{printable(name, 60)}'.",
            f"{nearest(name, known)}Known: {', '.join(known)}. A file of your own ends in .toml.",
        )
    return folder / f"{name}.toml"


def check_number(
    name: str, value: Any, least: float, most: float = math.inf, *, whole: bool = False, hint: str = ""
) -> None:
    """Raise ``ConfigError`` for what is no number (``True`` and NaN are none), or lies outside ``least`` to ``most``."""
    is_number = isinstance(value, numbers.Integral if whole else numbers.Real) and not isinstance(value, bool)
    if not is_number or not least <= value <= most:
        limits = f"at least {least:g}" if most == math.inf else f"{least:g} to {most:g}"
        kind = "" if is_number else f"a {'whole ' * whole}number, "
        raise ConfigError(f"{name} must be {kind}{limits}, not {value!r}.", hint)


def check_names(given: Mapping[str, Any], kind: type[msgspec.Struct], where: str) -> None:
    """Raise ``ConfigError`` for the first name that ``kind``, or a struct inside it, does not have."""
    fields = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
    for name, value in given.items():
        if name not in fields:
            known = f"{nearest(name, fields)}Known: {', '.join(fields) or 'none'}."
            raise ConfigError(f"{where} has no option '{name}'.", known)
        for inner in _structs_in(fields[name]):
            rows = value if isinstance(value, list) else [value]
            for number, row in enumerate(rows):
                if isinstance(row, Mapping):
                    check_names(row, inner, f"{where}, {name}" + (f" {number + 1}" if len(rows) > 1 else ""))


def _structs_in(annotation: Any) -> list[type[msgspec.Struct]]:
    """The structs that an annotation such as ``list[Camera] | None`` names."""
    found: list[type[msgspec.Struct]] = []
    todo: list[Any] = [msgspec.inspect.type_info(annotation)]
    while todo:
        info = todo.pop()
        if isinstance(info, msgspec.inspect.StructType):
            found.append(info.cls)
        elif isinstance(info, msgspec.inspect.UnionType):
            todo += info.types
        elif isinstance(info, msgspec.inspect.ListType):
            todo.append(info.item_type)
    return found
