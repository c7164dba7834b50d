"""The parts of a webhook that need no network: addresses, pauses, the queue."""

from __future__ import annotations

import re
import socket
import threading
import time
from datetime import datetime, timezone
from pathlib import Path

import pytest

from edgecv.errors import ConfigError
from edgecv.pipelines.sinks import open_sink
from edgecv.pipelines.sinks.webhook.client import Poster, backoff_s, check_url, origin, retry_after_s
from edgecv.pipelines.sinks.webhook.queue import Waiting
from tests.unit.pipelines.receiver import write_secret

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=timezone.utc)


def test_pauses_grow_to_a_limit_and_are_spread() -> None:
    assert [backoff_s(attempt, 0.5, 1.0) for attempt in range(4)] == [0.5, 1.0, 2.0, 4.0]
    assert backoff_s(3, 0.5, 0.0) == 2.0
    assert backoff_s(10_000, 0.5, 1.0) == 30.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("", 0.0),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("86400", 60.0),
        ("Sat, 21 Nov 2026 12:00:20 GMT", 20.0),
        ("Sat, 21 Nov 2026 11:00:00 GMT", 0.0),
        ("Sat, 21 Nov 2027 11:00:00 GMT", 60.0),
        ("-5", 0.0),
        ("soon", 0.0),
        ("Sat, 99 Nov 2026 99:00:00 GMT", 0.0),
    ],
)
def test_retry_after_is_a_number_or_a_date_and_has_a_limit(value: str, seconds: float) -> None:
    assert retry_after_s(value, NOW) == seconds


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/",
        "http:///path",
        "https://host:99999/",
        "https://host:0/",
        "https://ho st/",
        "https://host/a\r\nX: y",
        "https://[::1/",
        "host/path",
        "https://" + "a" * 70 + ".example/",
    ],
)
def test_an_address_that_nobody_can_post_to_is_refused(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_url(url)
    assert caught.value.hint


def test_a_password_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        open_sink("webhook:https://me:hunter2@example.com/secret-path")
    assert "token_file" in caught.value.hint
    assert not {"hunter2", "secret-path"} & set(f"{caught.value} {caught.value.hint}".replace("/", " ").split())


def test_only_the_origin_of_an_address_is_shown() -> None:
    assert origin("https://hooks.example.com:8443/T000/B000/secret?key=secret") == "https://hooks.example.com:8443"
    assert origin("http://[::1]:80/x") == "http://[::1]:80"


def test_the_address_may_stand_in_a_file(tmp_path: Path) -> None:
    write_secret(tmp_path / "hook.url", "https://example.com/T000?key=1\n")
    open_sink(f"webhook:{tmp_path / 'hook.url'}?events=all").close()
    write_secret(tmp_path / "hook.url", "no address")
    with pytest.raises(ConfigError, match="no http or https"):
        open_sink(f"webhook:{tmp_path / 'hook.url'}")


@pytest.mark.parametrize("content", [None, "", "two\nlines", "späß"], ids=["missing", "empty", "two-lines", "no-ascii"])
def test_a_token_that_cannot_be_sent_is_refused_and_not_repeated(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        write_secret(tmp_path / "token", content)
    with pytest.raises(ConfigError, match="token") as caught:
        open_sink(f"webhook:https://example.com/?token_file={tmp_path / 'token'}")
    assert "lines" not in str(caught.value)


def test_a_token_is_never_sent_unencrypted(tmp_path: Path) -> None:
    write_secret(tmp_path / "token", "s3cret")
    with pytest.raises(ConfigError, match="unencrypted") as caught:
        open_sink(f"webhook:http://example.com/?token_file={tmp_path / 'token'}")
    assert "s3cret" not in str(caught.value)


def test_certificates_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(ConfigError, match="no certificates"):
        open_sink(f"webhook:https://example.com/?ca_file={tmp_path / 'ca.pem'}")


def test_the_oldest_documents_go_for_new_ones() -> None:
    waiting = Waiting(3, 100, 10)
    assert all(waiting.put(b"%d" % number) for number in range(5))
    waiting.close()
    assert waiting.pushed_out == 2
    assert waiting.take(0.0) == [b"2", b"3", b"4"]
    assert waiting.take(0.0) == []


def test_the_queue_is_bounded_in_bytes_too() -> None:
    waiting = Waiting(1000, 100, 10)
    assert not waiting.put(b"x" * 101)
    assert all(waiting.put(b"x" * 40) for _ in range(3))
    assert waiting.pushed_out == 1
    assert waiting.put(b"y" * 100)
    assert waiting.pushed_out == 3


def test_a_batch_has_at_most_a_megabyte_or_one_document() -> None:
    waiting = Waiting(1000, 10**8, 10)
    for size in (400_000, 500_000, 200_000, 3_000_000, 1):
        waiting.put(b"x" * size)
    waiting.close()
    batches = []
    while batch := waiting.take(0.0):
        batches.append([len(document) for document in batch])
    assert batches == [[400_000, 500_000], [200_000], [3_000_000], [1]]


def test_a_full_batch_does_not_wait_and_another_waits_for_company() -> None:
    waiting = Waiting(100, 10**6, 2)
    for number in range(3):
        waiting.put(b"%d" % number)
    assert waiting.take(60.0) == [b"0", b"1"]
    start = time.monotonic()
    assert waiting.take(0.2) == [b"2"]
    assert time.monotonic() - start > 0.05


def test_closing_wakes_who_waits() -> None:
    waiting = Waiting(100, 10**6, 2)
    taken: list[list[bytes]] = []
    threads = [
        threading.Thread(target=lambda: taken.append(waiting.take(60.0))),
        threading.Thread(target=lambda: waiting.pause(60.0, lambda: closed_at)),
    ]
    closed_at = time.monotonic() + 60.0
    for thread in threads:
        thread.start()
    closed_at = 0.0
    waiting.close()
    for thread in threads:
        thread.join(20.0)
        assert not thread.is_alive()
    assert taken == [[]]


def read_request(peer: socket.socket) -> bytes:
    """Read one request to the end of its body; an empty answer when the other side closed.

    A client may send head and body apart, and whoever closes before it read both resets the connection.
    """
    received = b""
    while (head_ends := received.find(b"\r\n\r\n")) < 0 or len(received) < head_ends + 4 + body_bytes(received):
        more = peer.recv(65536)
        if not more:
            break
        received += more
    return received


def body_bytes(head: bytes) -> int:
    """What the request's Content-Length says."""
    found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return int(found[1]) if found else 0


def answer_once_each(listener: socket.socket, asked: list[bytes], hang_up_after: int) -> None:
    """Answer a request on each connection; then read ``hang_up_after`` more on the first one and close it without a word."""
    for number in range(2):
        peer, _ = listener.accept()
        with peer:
            asked.append(read_request(peer))
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            for _ in range(hang_up_after if number == 0 else 0):
                asked.append(read_request(peer))


def test_a_request_on_a_connection_that_the_receiver_closed_is_made_again_at_once() -> None:
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        receiver = threading.Thread(target=answer_once_each, args=(listener, asked, 1), daemon=True)
        receiver.start()
        poster = Poster(f"http://127.0.0.1:{listener.getsockname()[1]}/hook", {})
        assert poster.post(b"1", {}, 5).is_delivered
        assert poster.post(b"2", {}, 5).is_delivered
        poster.close()
        receiver.join(10)
    assert len(asked) == 3


def test_a_connection_that_is_closed_without_an_answer_is_named_in_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)

        def hang_up() -> None:
            with listener.accept()[0] as peer:
                read_request(peer)

        receiver = threading.Thread(target=hang_up, daemon=True)
        receiver.start()
        poster = Poster(f"http://127.0.0.1:{listener.getsockname()[1]}/hook", {})
        with pytest.raises(ConnectionError, match=r"^Remote end closed connection without response$"):
            poster.post(b"1", {}, 5)
        receiver.join(10)
