"""Fuzzers for what cameras, pipes, receivers and configurations say: no crash, no foreign error, no memory without end.

Each runs for ``FUZZ_S``; the same seeds give the same mutations. What fails stands in the message, ready to become a case of
``test_cameras.py``.
"""

from __future__ import annotations

import io
import random
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

import pytest

from edgecv._internal.redaction import redact
from edgecv.cloud_sync.mqtt.broker_url import parse_broker_url, redact as redact_broker
from edgecv.errors import EdgeCVError, SourceError
from edgecv.pipelines.sinks.webhook.client import NETWORK_ERRORS, Poster, check_url
from edgecv.pipelines.sources import open_source
from edgecv.pipelines.sources.jpeg_stream import JpegStream
from edgecv.pipelines.sources.live import LiveOptions
from edgecv.pipelines.sources.network.address import NetworkOptions
from edgecv.pipelines.sources.network.http_stream import Login, authorization
from edgecv.pipelines.sources.network.source import NetworkSource
from edgecv.pipelines.sources.y4m import Y4mReader
from edgecv.pipelines.uris import NETWORK_OPTIONS, NETWORK_SCHEMES, parse_sink, parse_source, read_options, scrub
from tests.cameras.hostile import MULTIPART, hostile, jpeg, jpeg_that_claims, part, vp8_that_grows

FUZZ_S = 60.0
MOST_GROWTH_MB = 500.0
PIECES = (
    *(
        b"\xff\xd8\xff",
        b"\xff\xd9",
        b"\xff\xda",
        b"\xff\xc0\x00\x11\x08\xff\xff\xff\xff\x03",
        b"\xff\xff",
        b"\0",
        b"\r\n",
        b"\r\n\r\n",
    ),
    *(b"--cut", b"FRAME\n", b"=", b"?", b"&", b"://"),
    *(b"@", b"%", b"%00", b"[", b"]", b"#", b"99999999999999999999", b"-1", b"\xe2\x80\xae", b"\x1b[2J", b":"),
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(FUZZ_S * 3 + 60)]


def _mutated(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice((1, 2, 8, 64)))
        kind = rng.randrange(6)
        if kind == 0 and data:
            data[at - 1] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at:end] = rng.randbytes(end - at)
        elif kind == 2:
            del data[at:end]
        elif kind == 3:
            data[at:at] = rng.choice(PIECES)
        elif kind == 4:
            data[at:at] = bytes(data[at:end]) * rng.choice((2, 9))
        else:
            data[at:] = rng.choice(seeds)[at:]
    return bytes(data)


def _peak_mb() -> float:
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024


def _fuzz(seeds: Sequence[bytes], run: Callable[[bytes], object], allowed: tuple[type[Exception], ...]) -> None:
    rng, count, before_mb, until = random.Random(20261127), 0, _peak_mb(), time.monotonic() + FUZZ_S
    while time.monotonic() < until:
        data, start = _mutated(rng, seeds), time.monotonic()
        try:
            run(data)
        except allowed:
            pass
        except BaseException as error:
            raise AssertionError(f"{error!r} from {data!r}") from error
        assert time.monotonic() - start < 20, f"too slow: {data!r}"
        count += 1
    assert count > 100
    assert _peak_mb() - before_mb < MOST_GROWTH_MB
    print(f"{count} inputs, {_peak_mb() - before_mb:.0f} MB more")


def test_bytes_between_and_of_jpeg_images() -> None:
    rng = random.Random(1)

    def run(data: bytes) -> None:
        file = io.BytesIO(data)
        stream = JpegStream(lambda size: file.read(rng.randint(1, size)), "x", 10**6)
        while (image := stream.next()) is not None:
            assert image.startswith(b"\xff\xd8\xff")
            assert image.endswith(b"\xff\xd9")

    _fuzz([part(jpeg()) * 3, jpeg() * 3, jpeg_that_claims(99, 9) * 2], run, (SourceError,))


def test_answers_of_a_camera_over_http() -> None:
    answer = [b""]
    heads = (
        MULTIPART,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: video/x-matroska\r\nContent-Length: 5000\r\n\r\n",
    )
    other = b'HTTP/1.1 401 No\r\nWWW-Authenticate: Digest realm="a", nonce="b", qop="auth", algorithm=MD5\r\n\r\n'
    bodies = (part(jpeg()) * 3, vp8_that_grows(16000, 16000, 2), part(jpeg_that_claims(16000, 16000)))
    seeds = [head + body for head in heads for body in bodies]
    seeds += [other, b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n"]
    with hostile(lambda _: (answer[0],)) as server:

        def run(data: bytes) -> None:
            answer[0] = data
            source = NetworkSource(f"http://me:pass@{server.host}/v?connect_s=2&deadline_s=2&max_megapixels=1")
            try:
                for _ in range(5):
                    assert source.read() is not None
            finally:
                source.close()

        _fuzz(seeds, run, (SourceError,))


def test_images_from_a_pipe() -> None:
    head, image = b"YUV4MPEG2 C420 W16 H16 Ip F25:1 A1:1\n", b"FRAME\n" + b"\x80" * 384

    def as_part(payload: bytes) -> bytes:
        return b"\r\n--edgecv\r\nContent-Type: a\r\nContent-Length: %d\r\n\r\n" % len(payload) + payload

    def run(data: bytes) -> None:
        reader = Y4mReader(io.BufferedReader(io.BytesIO(data)), "gst:x", LiveOptions())
        while reader.read() is not None:
            assert 0 <= reader.fps <= 1000

    _fuzz([as_part(head + image) + as_part(image) * 2, as_part(head + image) * 3], run, (SourceError,))


SOURCES = (
    "rtsp://me:S3CRET@cam:554/1?transport=tcp&fps=5",
    "http://me:S3CRET@cam/v?session=S3CRET&width=640",
    "https://[::1]:8443/v;stok=S3CRET/x?of=http%3A%2F%2Fme%3AS3CRET%40h",
    "gst:rtspsrc location=rtsp://me:S3CRET@cam user-pw='S3CRET' ! decodebin ?fps=5",
    "usb://0?width=64",
    "csi://0",
    "clip.mp4?max_megapixels=5",
    "images/?fps=2",
    "'frames/*.png'",
    "synthetic://?frames=3&width=64",
    "recording://a.rec?x=1",
)
OTHERS = (
    "jsonl:out.jsonl?overwrite=1",
    "webhook:https://hooks.example/T0/S3CRET?token_file=x",
    "metrics:9100?host=::1",
    "mqtts://me:S3CRET@broker:8883?protocol=5",
    "mqtt://localhost:1883?password_file=/nowhere",
    "https://example.com:8443/hook?key=S3CRET",
)


def test_uris_of_sources_sinks_and_brokers() -> None:
    def run(data: bytes) -> None:
        text = data.decode("utf-8", "surrogateescape")
        uris = []
        for parse in (parse_source, parse_sink):
            try:
                uris.append(parse(text))
            except EdgeCVError as error:
                assert error.message
        for uri in uris:
            _shown(uri.name)
            _shown(scrub(text, uri))
            _quietly(lambda uri=uri: read_options(uri, NetworkOptions))
            if uri.scheme in NETWORK_SCHEMES:
                _quietly(lambda uri=uri: NetworkSource.check(uri))
        for checked in (lambda: check_url(text), lambda: parse_broker_url(text)):
            _quietly(checked)
        redact(text)
        redact_broker(text)
        if text.partition(":")[0] in ("synthetic", "images", "clip.mp4"):
            _quietly(lambda: open_source(text).close())

    _fuzz([text.encode() for text in SOURCES + OTHERS], run, (EdgeCVError,))


def _shown(text: str) -> None:
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", text), ascii(text)


def _quietly(call: Callable[[], object]) -> None:
    try:
        call()
    except EdgeCVError as error:
        assert error.message


def test_no_url_that_can_be_read_says_its_secrets() -> None:
    """Well-formed URLs put together at random: the host is always shown, the secret never."""
    names = ("session", "sid", "code", "token", "apiKey", "auth", "pwd", "X-Signature", "PIN", "user_pw", "accessCode")

    def run(data: bytes) -> None:
        rng = random.Random(data)
        secret = "S3" + "".join(rng.choices("abc/+=-_.~%20é!", k=8)) + "CRET"
        shown_as = rng.choice((secret, quote(secret), quote(secret, safe="")))
        pairs = [
            f"{rng.choice(names)}={shown_as}" if rng.random() < 0.5 else f"ch={rng.randrange(9)}" for _ in range(4)
        ]
        login = rng.choice(("", "me@", f"me:{quote(secret, safe='')}@"))
        url = (
            f"http://{login}cam.example:8080/v{rng.choice(('', ';sid=S3xCRET', '/;stok=S3xCRET/w'))}?{'&'.join(pairs)}"
        )
        for text in (parse_source(url).name, redact(url), scrub(f"GET {url} failed", parse_source(url))):
            assert "cam.example:8080" in text
            assert "CRET" not in text, url

    _fuzz([b"12345678"], run, ())


def test_answers_of_a_webhook_receiver() -> None:
    answer = [b""]
    seeds = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 429 No\r\nRetry-After: Wed, 21 Oct 2026 07:28:00 GMT\r\n\r\n",
        b"HTTP/1.1 307 X\r\nLocation: /y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ]

    with hostile(lambda _: (answer[0],)) as server:

        def run(data: bytes) -> None:
            answer[0] = data
            poster = Poster(f"http://{server.host}/hook", {})
            try:
                assert 0 <= poster.post(b"[]", {}, 0.5).retry_after_s <= 60
            finally:
                poster.close()

        _fuzz(seeds, run, (EdgeCVError, *NETWORK_ERRORS))


def test_challenges_of_a_camera() -> None:
    seeds = [
        b'Digest realm="a, b", nonce="c", qop="auth,auth-int", opaque="d", algorithm=MD5-sess',
        b"Basic realm=x",
        b"digest",
    ]

    def run(data: bytes) -> None:
        header = authorization([data.decode("latin-1")], Login("me", "pässwörd"), "/v?x=1")
        assert not re.search(r"[\r\n]", header)
        header.encode("latin-1")

    _fuzz(seeds, run, ())


def test_our_own_options_are_known_to_every_network_camera() -> None:
    assert set(NetworkOptions.__struct_fields__) == NETWORK_OPTIONS
