"""Inputs for the fuzzers of MQTT: seeds of the real protocol, ways to break them, and what once broke something."""

from __future__ import annotations

import hashlib
import json
import random
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edgecv.cloud_sync.acks import Ack, encode_acks
from edgecv.cloud_sync.envelope import encode, encode_batch
from edgecv.cloud_sync.outbox.outbox import Outbox
from edgecv.cloud_sync.wire.payloads import JSON
from tests.security.hostile_broker import PINGRESP, PUBACK, SUBACK, connack, packet, publish
from tests.unit.cloud_sync.support import ADDRESS, make_envelope

CORPUS = Path(__file__).parent / "corpus" / "mqtt"
ACK, EV, STATUS = ADDRESS.topic("ack"), ADDRESS.topic("ev"), ADDRESS.topic("status")

_LARGEST = 64 * 1024  # before an accident, which can make it fifty times as large
_NUMBERS = (
    *(b"0", b"-1", b"1e999", b"-0.0", b"9" * 30, b"9" * 5000, b"9007199254740993", b"9223372036854775808"),
    *(b"18446744073709551616", b"1.5", b"null", b'"1"', b"[]", b"{}", b"true", b"[" * 2000),
)
_TEXTS = (
    b'"\\u0000"',
    b'"\\ud800"',
    b'"\x1b[2J"',
    b'"\xff\xfe"',
    b'"../../x"',
    b'"' + b"a" * 5000 + b'"',
    b'"\\u202e"',
    *(
        b"\"__import__('os').system('touch /tmp/pwned')\"",
        b'"{0.__class__.__init__.__globals__}"',
        b'"%(x)s"',
        b'"; DROP TABLE events; --"',
    ),
)
_TOPICS = (
    "",
    "+",
    "#",
    "/",
    "edgecv",
    "edgecv/../x/ev",
    "edgecv/a/b/c/ev",
    "edgecv/acme/cam-1/ev/",
    "\0",
    "\x1b[2J",
    "x" * 3000,
)


_EXECUTES = frozenset(
    {
        "exec",
        "compile",
        "os.system",
        "os.exec",
        "os.posix_spawn",
        "os.fork",
        "subprocess.Popen",
        "ctypes.dlopen",
        "pickle.find_class",
    }
)
_seen: list[str] | None = None


def _watch(name: str, arguments: tuple[object, ...]) -> None:
    if _seen is not None and name in _EXECUTES:
        _seen.append(f"{name} {arguments!r:.200}")


sys.addaudithook(_watch)  # for good: a hook cannot be removed


@contextmanager
def nothing_executed() -> Iterator[None]:
    """Fail when the block runs code, a program or a library that came from anywhere."""
    global _seen  # noqa: PLW0603 (a hook has no other way to hear of it)
    found: list[str] = []
    _seen = found
    try:
        yield
    finally:
        _seen = None
    assert not found, found


def kept(kind: str) -> list[bytes]:
    """What broke something once."""
    return [path.read_bytes() for path in sorted((CORPUS / kind).glob("*.bin"))]


def keep(kind: str, data: bytes) -> Path:
    """Write a crasher into the corpus; commit it together with the repair."""
    path = CORPUS / kind / f"{hashlib.sha256(data).hexdigest()[:16]}.bin"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def mutate(rng: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """``data`` after one to four random accidents."""
    for _ in range(rng.randrange(1, 5)):
        data = rng.choice(_ACCIDENTS)(rng, data[:_LARGEST], others)
    return data


def mutate_batch(rng: random.Random, payload: bytes, others: Sequence[bytes]) -> bytes:
    """A batch broken on the wire, or before it was compressed."""
    if rng.random() < 0.2 or payload[:1] == b"[":
        return mutate(rng, payload, others)
    try:
        text = zlib.decompressobj().decompress(payload, _LARGEST)  # some of the seeds are bombs
    except zlib.error:
        text = payload
    return zlib.compress(mutate(rng, text, others), 1)


def mutate_topic(rng: random.Random, topic: str) -> str:
    """Most often the topic itself."""
    if rng.random() < 0.8:
        return topic
    if rng.random() < 0.5:
        return rng.choice(_TOPICS)
    return mutate(rng, topic.encode(), [EV.encode()]).decode("utf-8", "replace")[:500]


def ack_seeds(boot: int, nonces: Sequence[str]) -> list[bytes]:
    """Acknowledgements of this device's events, by somebody who knows everything but the nonces in use."""
    ranges = ((boot, 1, 1), (boot, 2, 40), (boot, 0, 2**53))
    acks = [Ack(nonce=nonce, ranges=ranges) for nonce in nonces]
    bare = [json.dumps([list(one) for one in ranges]).encode(), b"", b"{}", b"[]"]
    return [*encode_acks(acks), *encode_acks(acks[:1]), *bare, *nack_seeds(nonces), *kept("ack")]


def nack_seeds(nonces: Sequence[str]) -> list[bytes]:
    """Refusals of this device's events, by somebody who knows neither a nonce in use nor the digest of a payload."""
    nacks = [{"nonce": nonce, "ranges": [], "nacks": [[0, "too large"], [49, "no schema"]]} for nonce in nonces]
    digest = hashlib.sha256(b"guessed").hexdigest()
    whole = {"v": 2, "acks": [], "refused": [{"digest": digest, "reason": "version 9"}]}
    messages = [{"v": 2, "acks": nacks}, {"v": 2, "acks": nacks[:1]}, whole, {"digest": digest, "reason": "version 9"}]
    return [json.dumps(one).encode() for one in messages]


def batch_seeds(outbox: Outbox) -> list[bytes]:
    """Batches of both versions and in JSON, large and small."""
    bodies = [encode(make_envelope(outbox, bulk=bulk)) for bulk in (0, 10, 3000)]
    return [
        *(
            encode_batch(bodies),
            encode_batch(bodies, "0123456789abcdef" * 2),
            encode_batch([]),
            encode_batch(bodies[:1]),
            JSON["cloudevents"]().pack(bodies, None),
        ),
        *kept("ev"),
    ]


def stream_seeds(acks: Sequence[bytes], *, v5: bool) -> list[bytes]:
    """What a broker sends after a CONNECT, each as one piece."""
    properties = b"" if v5 else None
    start = connack(v5=v5) + packet(SUBACK, b"\0\1" + (b"\0" if v5 else b"") + b"\1")
    more = [publish(ACK, payload, mid=n + 1, properties=properties) for n, payload in enumerate(acks)]
    pubacks = b"".join(packet(PUBACK, bytes([0, mid])) for mid in range(1, 20))
    return [*(start + one for one in more), start + b"".join(more) + pubacks, start + packet(PINGRESP), *kept("stream")]


def _flip(rng: random.Random, data: bytes, _others: Sequence[bytes]) -> bytes:
    if not data:
        return bytes([rng.randrange(256)])
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 5)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(rng: random.Random, data: bytes, _others: Sequence[bytes]) -> bytes:
    start, end = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
    return data[:start] + data[end:]


def _repeat(rng: random.Random, data: bytes, _others: Sequence[bytes]) -> bytes:
    start, end = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
    return data[:end] + data[start:end] * rng.choice((1, 2, 50)) + data[end:]


def _insert(rng: random.Random, data: bytes, _others: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice((rng.randbytes(rng.randrange(1, 9)), *_NUMBERS, *_TEXTS)) + data[at:]


def _splice(rng: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    other = rng.choice(others) if others else data
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def _replace_value(pattern: bytes, values: Sequence[bytes]) -> Callable[[random.Random, bytes, Sequence[bytes]], bytes]:
    def replace(rng: random.Random, data: bytes, _others: Sequence[bytes]) -> bytes:
        found = list(re.finditer(pattern, data[:20_000]))
        if not found:
            return data
        one = rng.choice(found)
        return data[: one.start()] + rng.choice(values) + data[one.end() :]

    return replace


_ACCIDENTS = (
    *(_flip, _cut, _repeat, _insert, _splice),
    _replace_value(rb"\d+", _NUMBERS),
    _replace_value(rb'"[^"]{0,100}"', (*_TEXTS, *_NUMBERS)),
    _replace_value(rb"[\[\]{},:]", (b"[", b"]", b"{", b"}", b",", b":", b"")),
)
