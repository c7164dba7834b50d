"""Requests: the documents of a batch as one, or a notification as its template wants it."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any
from uuid import uuid4

from edgecv._internal.printable import as_name
from edgecv.pipelines.sinks.documents import encode
from edgecv.pipelines.sinks.webhook.parcels import JPEG, Files, Notification, Parcel, json_array
from edgecv.pipelines.sinks.webhook.templates.fields import field_values
from edgecv.pipelines.sinks.webhook.templates.template import FIELD, ONLY_WITH, Template

_JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"
_AS_THEY_ARE = frozenset({"snapshot_url", "snapshot_base64"})  # no text that people read


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is sent.

    Attributes:
        parcels: What is in it.
        body: As bytes.
        headers: That it has besides those of the connection.
        method: ``POST`` or ``PUT``.
    """

    parcels: Sequence[Parcel]
    body: bytes
    headers: Mapping[str, str]
    method: str = "POST"


class ArrayWriter:
    """Writes a batch as one JSON array."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def write(self, batch: Sequence[Parcel]) -> Iterator[Request]:
        """One request for the whole batch."""
        yield Request(parcels=batch, body=json_array(list(batch), self._files), headers={"Content-Type": _JSON})


class TemplateWriter:
    """Writes each notification as a template says."""

    def __init__(self, template: Template, files: Files, zone: tzinfo | None) -> None:
        """``zone`` is the time zone of ``{time}``; ``None``: that of this device."""
        self._template, self._files, self._zone = template, files, zone

    def write(self, batch: Sequence[Parcel]) -> Iterator[Request]:
        """One request for each notification."""
        for parcel in batch:
            if isinstance(parcel, Notification):
                yield self._request(parcel)

    def _request(self, notification: Notification) -> Request:
        template, values = self._template, self._values(notification)
        headers = dict(template.headers)
        body, content_type = self._document(values)
        if notification.picture and template.picture is not None:
            headers |= template.picture.headers
            if template.picture.as_the == "body":
                body, content_type = notification.picture, JPEG
            elif template.picture.as_the == "part":
                part = (template.picture.document, content_type, body)
                body, content_type = _multipart(part, template.picture.name, values, notification.picture)
        filled = {name: _header(_filled(text, values)) for name, text in headers.items()}
        return Request(
            parcels=(notification,),
            body=body,
            headers={"Content-Type": content_type, **{name: text for name, text in filled.items() if text}},
            method=template.method,
        )

    def _values(self, notification: Notification) -> dict[str, Any]:
        template = self._template
        values = field_values(
            notification,
            self._files,
            priorities={str(name): said for name, said in template.priorities.items()},
            time_format=template.time,
            zone=self._zone,
        )
        if template.escape == "none":
            return values
        return {name: value if name in _AS_THEY_ARE else _escaped(value) for name, value in values.items()}

    def _document(self, values: Mapping[str, Any]) -> tuple[bytes, str]:
        if self._template.text is not None:
            return _filled(self._template.text, values).encode(errors="replace"), _TEXT
        return encode(_json(self._template.json, values)), _JSON


def _json(value: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(value, str):
        alone = FIELD.fullmatch(value)
        return _value(alone[1], values) if alone else _filled(value, values)
    if isinstance(value, list):
        return [_json(one, values) for one in value if _is_wanted(one, values)]
    if isinstance(value, Mapping):
        return {
            name: _json(one, values) for name, one in value.items() if name != ONLY_WITH and _is_wanted(one, values)
        }
    return value


def _is_wanted(value: Any, values: Mapping[str, Any]) -> bool:
    return not isinstance(value, Mapping) or ONLY_WITH not in value or bool(_value(value[ONLY_WITH], values))


def _filled(text: str, values: Mapping[str, Any]) -> str:
    """The text with its fields; what a value looks like is never read as a field."""

    def said(found: re.Match[str]) -> str:
        value = _value(found[1], values)
        if isinstance(value, str):
            return value
        return "" if value is None else encode(value).decode()

    return FIELD.sub(said, text)


def _value(name: str, values: Mapping[str, Any]) -> Any:
    if name.startswith("data."):
        value = values["data"].get(name.removeprefix("data."))
        return as_name(value) if isinstance(value, str) else value
    return values[name]


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return html.escape(value, quote=False)
    if isinstance(value, Mapping):
        return {_escaped(name): _escaped(one) for name, one in value.items()}
    return [_escaped(one) for one in value] if isinstance(value, list | tuple) else value


def _header(text: str) -> str:
    """A text as a header can hold it: one line, and beyond ASCII as RFC 2047 says."""
    line = as_name(text).strip()
    return line if line.isascii() else f"=?UTF-8?B?{base64.b64encode(line.encode(errors='replace')).decode()}?="


def _multipart(
    document: tuple[str, str, bytes], name: str, values: Mapping[str, Any], picture: bytes
) -> tuple[bytes, str]:
    """A form of two parts (RFC 7578)."""
    boundary = uuid4().hex
    parts = (
        (f'name="{document[0]}"', document[1], document[2]),
        (f'name="{name}"; filename="{values["snapshot_name"]}"', JPEG, picture),
    )
    body = b"".join(
        f"--{boundary}\r\nContent-Disposition: form-data; {what}\r\nContent-Type: {kind}\r\n\r\n".encode()
        + data
        + b"\r\n"
        for what, kind, data in parts
    )
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"
