"""Answers as JSON, whatever stands in their texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response


def json_answer(document: Mapping[str, Any], code: int = 200) -> Response:
    """The document as JSON.

    Names of files and labels of models may hold halves of characters, which UTF-8 cannot hold: a question mark stands for each.
    """
    try:
        body = msgspec.json.encode(document, enc_hook=str)
    except UnicodeEncodeError:
        body = msgspec.json.encode(_encodable(msgspec.to_builtins(document, enc_hook=str)))
    return Response(body, code, media_type="application/json")


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_encodable(name): _encodable(one) for name, one in value.items()}
    return [_encodable(one) for one in value] if isinstance(value, list | tuple) else value
