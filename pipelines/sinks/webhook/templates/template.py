"""``Template``: what the request for a notification looks like, read from a TOML file.

The files of this folder are the templates that have a name; a user may write one more and name its path. A template holds texts
with fields in braces, such as ``{rule}``. There is no code in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from edgecv._internal.printable import nearest, printable
from edgecv._internal.strict import named_file, named_files, read_struct, read_toml
from edgecv.errors import ConfigError
from edgecv.events import Priority
from edgecv.pipelines.sinks.webhook.templates.fields import FIELDS, PICTURE_FIELDS

FOLDER = Path(__file__).parent
ONLY_WITH = "only_with"
"""In a table of ``json``: the field without which the table is left out."""

FIELD = re.compile(r"\{([a-z_0-9]+(?:\.[^{}]*)?)\}")
_MOST_BYTES = 64 * 1024
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2


class PictureTable(msgspec.Struct, frozen=True, kw_only=True):
    """``[picture]``: how a picture goes along.

    Attributes:
        as_the: ``body``: the JPEG is the body of the request, and what ``text`` says has to stand in a header. ``part``: a
            multipart form, of ``text`` or ``json`` as one part and the JPEG as another. ``field``: in ``json``, as the field
            ``{snapshot_base64}``.
        headers: Headers that a request with a picture has besides.
        document: With ``part``, the name of the part with the document.
        name: With ``part``, the name of the part with the JPEG.
    """

    as_the: Literal["body", "part", "field"]
    headers: dict[str, str] = {}
    document: str = "document"
    name: str = "picture"


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """What a whole file says; it has either ``text`` or ``json``.

    Attributes:
        title: Whose template it is.
        source: Where the format is described.
        method: Of the request.
        time: How ``{time}`` is written, as in ``strftime``.
        escape: ``entities``: in values, ``& < >`` are written as in HTML.
        priorities: What ``{priority}`` is, by the priority of an event; those that are missing stand as they are.
        headers: Headers of each request; one whose text is empty is left out.
        text: The body as text.
        json: The body as JSON, in which each text may hold fields. A text that is one field alone becomes its value: a number,
            an object.
        picture: How a picture goes along; without it this receiver takes none.
    """

    title: str
    source: str = ""
    method: Literal["POST", "PUT"] = "POST"
    time: str = "%Y-%m-%d %H:%M:%S %Z"
    escape: Literal["none", "entities"] = "none"
    priorities: dict[Priority, str] = {}
    headers: dict[str, str] = {}
    text: str | None = None
    json: dict[str, Any] | None = None
    picture: PictureTable | None = None


def template_names() -> tuple[str, ...]:
    """The templates that have a name."""
    return named_files(FOLDER)


def read_template(name: str) -> Template:
    """A template by its name, or from a file of the user's own: a path that ends in ``.toml``.

    Raises:
        ConfigError: there is no such template or file, or what stands in it is wrong.
    """
    return _read(named_file(name, FOLDER, "template"))


def _read(path: Path) -> Template:
    document = read_toml(
        path,
        missing="Check the path of the template.",
        example="docs/notifications.md shows one.",
        most_bytes=_MOST_BYTES,
    )
    template = read_struct(document, Template, str(path))
    if (template.text is None) == (template.json is None):
        raise ConfigError(f"{path} needs either text or [json].", "docs/notifications.md shows one.")
    headers = {**template.headers, **(template.picture.headers if template.picture else {})}
    for header in headers:
        if not _HEADER.fullmatch(header):
            raise ConfigError(f"{path} has a header '{printable(header, 60)}', which is no name.")
    for text in (*headers.values(), template.text or "", *_texts(template.json or {})):
        _check_fields(text, path)
    if template.picture is not None and template.picture.as_the == "field" and template.json is None:
        raise ConfigError(f"{path} has as_the = 'field', and no [json] for it.", "Use 'part' or 'body'.")
    return template


def _texts(value: Any) -> Iterator[str]:
    """Every text of a JSON document; a field of ``only_with`` as it stands in a text."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, Mapping):
        for name, one in value.items():
            yield from _texts(f"{{{one}}}" if name == ONLY_WITH else one)


def _check_fields(text: str, path: Path) -> None:
    known = (*FIELDS, *PICTURE_FIELDS)
    for name in FIELD.findall(text):
        if name not in known and not re.fullmatch(r"data\.\w+", name):
            raise ConfigError(
                f"{path} has {{{printable(name, 60)}}}, which stands for nothing.",
                f"{nearest(name, known)}Known: {', '.join(known)}, and data.NAME for a field of the event's data.",
            )
