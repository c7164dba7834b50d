"""A real HTTP server that takes uploads as S3 does: it checks the signature of the URL and the checksum of the content."""

from __future__ import annotations

import base64
import hashlib
import hmac
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

KEY_ID, SECRET = "AKIDTEST", "secret/test+key"
Behaviour = Callable[["Request"], None]


class Request(BaseHTTPRequestHandler):
    """One PUT or HEAD; a behaviour decides what happens to a PUT."""

    protocol_version = "HTTP/1.1"
    timeout = 5.0
    store: ObjectStore

    def do_PUT(self) -> None:
        with self.store.lock:
            self.store.puts += 1
            behaviour = self.store.behaviours.pop(0) if self.store.behaviours else take
        behaviour(self)

    def do_HEAD(self) -> None:
        found = self.store.objects.get(unquote(urlsplit(self.path).path))
        status = 403 if not self.is_signed() else 404 if found is None else 200
        self.send_response(status)
        self.send_header("Content-Length", str(len(found or b"")))
        self.end_headers()

    def answer(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def is_signed(self) -> bool:
        """Whether the signature of the URL fits what came, computed from what came."""
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query))
        signature = query.pop("X-Amz-Signature", "")
        key_id, *scope = query.get("X-Amz-Credential", "").split("/")
        names = query.get("X-Amz-SignedHeaders", "").split(";")
        line = "&".join(f"{quote(name, safe='')}={quote(query[name], safe='')}" for name in sorted(query))
        heads = "".join(f"{name}:{self.headers.get(name, '')}\n" for name in names)
        request = f"{self.command}\n{parts.path}\n{line}\n{heads}\n{';'.join(names)}\nUNSIGNED-PAYLOAD"
        digest = hashlib.sha256(request.encode()).hexdigest()
        text = f"AWS4-HMAC-SHA256\n{query.get('X-Amz-Date')}\n{'/'.join(scope)}\n{digest}"
        key = f"AWS4{SECRET}".encode()
        for part in scope:
            key = hmac.new(key, part.encode(), "sha256").digest()
        return key_id == KEY_ID and hmac.new(key, text.encode(), "sha256").hexdigest() == signature

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


def take(request: Request) -> None:
    """Keep it, if the URL is signed and the content is what it claims."""
    data = request.body()
    claimed = request.headers.get("x-amz-checksum-sha256", "")
    if not request.is_signed():
        request.answer(403)
    elif claimed and base64.b64decode(claimed) != hashlib.sha256(data).digest():
        request.answer(400)
    else:
        with request.store.lock:
            request.store.objects[unquote(urlsplit(request.path).path)] = data
        request.answer(200)


def refuse(status: int, **headers: str) -> Behaviour:
    """Answer with ``status`` after reading."""

    def behave(request: Request) -> None:
        request.body()
        request.answer(status, **headers)

    return behave


def lie(request: Request) -> None:
    """Say that it was taken, and keep nothing."""
    request.body()
    request.answer(200)


def refuse_unread(request: Request) -> None:
    """Answer before the body was read, and hang up."""
    request.answer(403, Connection="close")
    request.close_connection = True


def hang(request: Request) -> None:
    """Say nothing until the test is over."""
    request.store.over.wait(20.0)
    request.close_connection = True


class ObjectStore:
    """Objects by path; ``behaviours`` are used up, one per PUT."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.over = threading.Event()
        self.behaviours: list[Behaviour] = []
        self.objects: dict[str, bytes] = {}
        self.puts = 0
        handler = type("Handler", (Request,), {"store": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def signer_uri(self, folder: Path) -> str:
        """What ``--blob-urls`` says to use it."""
        path = folder / "s3.secret"
        path.touch(0o600)
        path.chmod(0o600)
        path.write_text(f"{KEY_ID}:{SECRET}\n")
        return f"s3://pictures/field?region=eu-central-1&endpoint={self.endpoint}&credentials_file={path}"

    def __enter__(self) -> ObjectStore:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5.0)
