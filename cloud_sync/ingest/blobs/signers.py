"""Where the URLs come from to which devices upload: an S3-compatible store, or a program of yours."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import shlex
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Annotated, Literal, Protocol
from urllib.parse import parse_qsl, quote, urlsplit

import msgspec

from edgecv._internal.secret_files import read_secret
from edgecv._internal.strict import read_struct
from edgecv.cloud_sync.blobs.http import Place, Request, check_headers, check_url
from edgecv.cloud_sync.blobs.messages import State
from edgecv.cloud_sync.mqtt.topics import Address
from edgecv.errors import ConfigError, SyncError, TransportError

_COMMAND_S = 10.0
_HEAD_S = 10.0
_MOST_ANSWER_BYTES = 16 * 1024
_HINT = "Write s3://BUCKET/PREFIX?region=eu-central-1&credentials_file=s3.secret, or command:PROGRAM."


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobName:
    """A picture that is to be uploaded."""

    address: Address  # of its device
    sha256: str
    bytes: int
    type: str


class SignedUrl(msgspec.Struct, frozen=True, kw_only=True):
    """Where one picture may be put, and nothing else."""

    url: Annotated[str, msgspec.Meta(min_length=10, max_length=4096)]
    headers: dict[str, str] = {}  # which the device has to send
    expires_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 300.0
    place: Annotated[str, msgspec.Meta(max_length=1000)] = ""  # for the table: where it will be, without any secret
    head_url: Annotated[str, msgspec.Meta(max_length=4096)] = ""  # to look whether it came; empty: nobody looks


class UrlSigner(Protocol):
    """Makes a URL for one picture."""

    def sign(self, blob: BlobName) -> SignedUrl:
        """Sign; may take some seconds. Raises ``SyncError`` when that is not possible now."""
        ...


def look(signed: SignedUrl, size_bytes: int) -> State:
    """Whether an upload is there: ``stored`` when its size was seen, ``claimed`` when nobody could look.

    Raises:
        SyncError: it is not there, or of another size.
    """
    if not signed.head_url:
        return "claimed"
    try:
        status, found = Request(_own_place(signed.head_url)).head(_HEAD_S)
    except TransportError:
        return "claimed"
    if status == 404 or (status == 200 and found not in (-1, size_bytes)):
        raise SyncError(f"An upload is not where it should be (HTTP {status}, {found} of {size_bytes} bytes).")
    return "stored" if status == 200 and found == size_bytes else "claimed"


def parse_signer(text: str) -> UrlSigner:
    """The signer that ``--blob-urls`` names.

    Raises:
        ConfigError: it names none, or its credentials cannot be read.
    """
    scheme, _, rest = text.partition(":")
    if scheme == "command" and rest.strip():
        return CommandSigner(shlex.split(rest))
    if scheme == "s3" and rest.startswith("//"):
        return S3Signer.from_uri(text)
    raise ConfigError("--blob-urls names no place that can give URLs.", _HINT)


class _S3Options(msgspec.Struct, frozen=True, kw_only=True):
    region: str
    credentials_file: str
    endpoint: str = ""
    expires_s: Annotated[int, msgspec.Meta(ge=10, le=86_400)] = 300
    checksum: Literal["0", "1"] = "1"


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Signer:
    """URLs of an S3-compatible store, signed here with AWS Signature Version 4; nothing is asked of the store."""

    bucket: str
    prefix: str  # before `<tenant>/<device>/<sha256>.jpg`; empty or with a `/` at its end
    region: str
    key_id: str = field(repr=False)
    secret: str = field(repr=False)
    token: str = field(default="", repr=False)  # of temporary credentials
    endpoint: str = ""  # such as `https://minio.example`; empty: AWS
    expires_s: int = 300
    checksum: bool = True  # whether the store is to compare the content with its SHA-256
    clock: Callable[[], datetime] = field(default=lambda: datetime.now(timezone.utc), repr=False)

    @classmethod
    def from_uri(cls, uri: str) -> S3Signer:
        """Read ``s3://BUCKET/PREFIX?region=…&credentials_file=FILE``; the file holds ``KEY_ID:SECRET``, or ``:TOKEN`` too."""
        parts = urlsplit(uri)
        try:
            given = read_struct(dict(parse_qsl(parts.query)), _S3Options, "--blob-urls s3:", texts=True)
        except ConfigError as error:
            raise ConfigError(error.message, _HINT) from error
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,62}", parts.netloc):
            raise ConfigError("--blob-urls names no bucket.", _HINT)
        try:
            _own_place(given.endpoint or "https://s3.amazonaws.com")
        except SyncError as error:
            raise ConfigError(f"--blob-urls has an endpoint that cannot be used: {error.message}", _HINT) from error
        key_id, _, rest = read_secret(given.credentials_file).strip().partition(":")
        secret, _, token = rest.partition(":")
        if not key_id or not secret:
            raise ConfigError(f"{given.credentials_file} does not hold KEY_ID:SECRET.")
        prefix = parts.path.strip("/")
        return cls(
            bucket=parts.netloc,
            prefix=f"{prefix}/" if prefix else "",
            region=given.region,
            key_id=key_id,
            secret=secret,
            token=token,
            endpoint=given.endpoint,
            expires_s=given.expires_s,
            checksum=given.checksum == "1",
        )

    def sign(self, blob: BlobName) -> SignedUrl:
        """A URL for PUT and one for HEAD."""
        key = f"{self.prefix}{blob.address.tenant}/{blob.address.device}/{blob.sha256}.jpg"
        headers = {"content-type": blob.type}
        if self.checksum:
            headers["x-amz-checksum-sha256"] = base64.b64encode(bytes.fromhex(blob.sha256)).decode()
        return SignedUrl(
            url=self.presign("PUT", key, headers),
            headers=headers,
            expires_s=float(self.expires_s),
            place=f"s3://{self.bucket}/{key}",
            head_url=self.presign("HEAD", key, {}),
        )

    def presign(self, method: str, key: str, headers: Mapping[str, str]) -> str:
        """A presigned URL, as in AWS' «Authenticating Requests: Using Query Parameters»."""
        now = self.clock()
        moment, scope = f"{now:%Y%m%dT%H%M%SZ}", f"{now:%Y%m%d}/{self.region}/s3/aws4_request"
        base, path = self._base(key)
        signed = {**{name.lower(): value for name, value in headers.items()}, "host": urlsplit(base).netloc}
        query = {
            "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
            "X-Amz-Credential": f"{self.key_id}/{scope}",
            "X-Amz-Date": moment,
            "X-Amz-Expires": str(self.expires_s),
            **({"X-Amz-Security-Token": self.token} if self.token else {}),
            "X-Amz-SignedHeaders": ";".join(sorted(signed)),
        }
        line = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(query.items()))
        head = "".join(f"{name}:{signed[name].strip()}\n" for name in sorted(signed))
        request = "\n".join((method, path, line, head, ";".join(sorted(signed)), "UNSIGNED-PAYLOAD"))
        text = "\n".join(("AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(request.encode()).hexdigest()))
        key_bytes = f"AWS4{self.secret}".encode()
        for part in scope.split("/"):
            key_bytes = hmac.digest(key_bytes, part.encode(), "sha256")
        return f"{base}{path}?{line}&X-Amz-Signature={hmac.digest(key_bytes, text.encode(), 'sha256').hex()}"

    def _base(self, key: str) -> tuple[str, str]:
        """AWS has the bucket in the name of the host; others have it in the path."""
        path = quote(f"/{key}", safe="/-_.~")
        if not self.endpoint:
            region = "" if self.region == "us-east-1" else f".{self.region}"
            store = f"s3{region}.amazonaws.com"
            # A dot in the bucket's name would need another certificate.
            return (
                (f"https://{store}", f"/{self.bucket}{path}")
                if "." in self.bucket
                else (
                    f"https://{self.bucket}.{store}",
                    path,
                )
            )
        return self.endpoint.rstrip("/"), f"/{self.bucket}{path}"


@dataclass(frozen=True, slots=True)
class CommandSigner:
    """A program of yours: it reads one JSON document and writes another; for stores that sign in their own way."""

    command: Sequence[str]

    def sign(self, blob: BlobName) -> SignedUrl:
        """Run it once; it has ten seconds."""
        asked = {
            **{"tenant": blob.address.tenant, "device": blob.address.device, "sha256": blob.sha256},
            **{"bytes": blob.bytes, "type": blob.type},
        }
        code, answer = _run(self.command, msgspec.json.encode(asked))
        if code or len(answer) > _MOST_ANSWER_BYTES:
            raise SyncError(f"The program for URLs failed, or wrote too much (code {code}).", "Run it by hand.")
        try:
            signed = _answers.decode(answer)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise SyncError("The program for URLs wrote something else than a URL in JSON.") from None
        check_headers(signed.headers)
        return signed


def _run(command: Sequence[str], question: bytes) -> tuple[int, bytes]:
    """The code of a program and the beginning of what it wrote; it and what it started end after ten seconds."""
    try:
        program = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise SyncError(f"The program for URLs cannot be started: {error.strerror}.") from None

    def end() -> None:
        with suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)

    alarm = threading.Timer(_COMMAND_S, end)
    alarm.daemon = True
    alarm.start()
    with program:
        assert program.stdin is not None
        assert program.stdout is not None
        with suppress(BrokenPipeError):  # it need not read what it is asked
            program.stdin.write(question)
            program.stdin.close()
        answer = program.stdout.read(_MOST_ANSWER_BYTES + 1)
        if len(answer) > _MOST_ANSWER_BYTES:
            end()
    alarm.cancel()
    return program.returncode, answer


def _own_place(url: str) -> Place:
    """The place of a URL that our own side gave: any host is allowed, and http on this machine."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        host = ""
    return check_url(url, (host,))


_answers = msgspec.json.Decoder(SignedUrl)
