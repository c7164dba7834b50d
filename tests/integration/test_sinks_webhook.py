"""A webhook against a real HTTP server that misbehaves."""

from __future__ import annotations

import logging
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgecv.errors import SinkError
from edgecv.pipelines.pipeline import Pipeline
from edgecv.pipelines.sinks.webhook.sink import WebhookOptions, WebhookSink
from tests.unit.pipelines.blob import BlobModel, assert_no_threads
from tests.unit.pipelines.made_results import made_event, made_result
from tests.unit.pipelines.receiver import (
    Behaviour,
    Receiver,
    cut_answer,
    cut_body,
    drip,
    drip_answer,
    hang,
    long_answer,
    refuse,
    take,
    write_secret,
)

DEADLINE_S = 30.0
QUICK = {"linger_s": 0.01, "retry_s": 0.01}


def open_sink(url: str, **options: object) -> WebhookSink:
    return WebhookSink(url, options=WebhookOptions(**{**QUICK, **options}))


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert_no_threads()


def test_batches_are_the_documents_of_jsonl() -> None:
    with Receiver() as receiver:
        sink = open_sink(receiver.url, linger_s=20.0, batch=3)
        for step in range(7):
            sink.emit(made_result(step / 10))
        receiver.wait_for(lambda: len(receiver.batches) == 2)
        sink.close()
    assert [len(batch) for batch in receiver.batches] == [3, 3, 1]
    assert receiver.documents == [made_result(step / 10).as_dict() for step in range(7)]
    assert (sink.delivered, sink.lost) == (7, 0)
    assert receiver.paths == ["/hook"] * 3
    assert len(set(receiver.keys)) == 3
    assert receiver.headers[0]["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("events", "kinds"),
    [
        ("detections", ["detections", "frame with events", "source.stale"]),
        ("all", ["empty", "detections", "frame with events", "source.stale"]),
        ("events", ["line.crossed", "source.stale"]),
    ],
)
def test_what_is_sent(events: str, kinds: list[str]) -> None:
    def kind(document: dict[str, object]) -> str:
        if "event" in document:
            return str(document["event"]["kind"])  # type: ignore[index]
        return "frame with events" if "events" in document else "detections" if document["detections"] else "empty"

    with Receiver() as receiver:
        sink = open_sink(receiver.url, events=events)
        sink.emit(made_result(0.0, class_ids=()))
        sink.emit(made_result(0.1))
        sink.emit(made_result(0.2, class_ids=(), events=(made_event(),)))
        sink.emit_event(made_event("source.stale"))
        sink.close()
    assert [kind(document) for document in receiver.documents] == kinds


@pytest.mark.parametrize(
    "trouble",
    [
        [refuse(500), refuse(503)],
        [refuse(429, Retry_After="0")],
        [refuse(408)],
        [cut_body],
        [hang],
        [drip],
    ],
    ids=["5xx", "429", "408", "cut-body", "hang", "drip"],
)
def test_trouble_that_passes_loses_nothing_and_keeps_the_key(trouble: list[Callable[..., None]]) -> None:
    with Receiver(*trouble) as receiver:
        sink = open_sink(receiver.url, timeout_s=1.0 if trouble[0] in (hang, drip) else 20.0)
        sink.emit(made_result(0.0))
        receiver.wait_for(lambda: sink.delivered == 1)
        sink.close()
    assert (sink.delivered, sink.lost) == (1, 0)
    assert len(receiver.keys) > len(trouble)
    assert len(set(receiver.keys)) == 1, "a receiver can tell that it is the same batch"


def test_an_answer_that_breaks_off_after_its_status_is_an_answer() -> None:
    with Receiver(cut_answer) as receiver:
        sink = open_sink(receiver.url)
        sink.emit(made_result(0.0))
        receiver.wait_for(lambda: sink.delivered == 1)
        sink.close()
    assert len(receiver.documents) == 1


@pytest.mark.parametrize("behaviour", [drip_answer, long_answer])
def test_an_answer_that_never_ends_holds_nobody(behaviour: Behaviour) -> None:
    with Receiver(behaviour) as receiver:
        sink = open_sink(receiver.url, timeout_s=0.5, retry_s=20.0, batch=1)
        start = time.monotonic()
        sink.emit(made_result(0.0))
        sink.emit(made_result(0.1))
        receiver.wait_for(lambda: sink.delivered == 2)
        assert time.monotonic() - start < 5.0
        sink.close()
    assert len(receiver.documents) == 2, "its status counts, and nothing is sent twice"


def test_retry_after_is_honoured() -> None:
    with Receiver(refuse(503, Retry_After="1")) as receiver:
        start = time.monotonic()
        sink = open_sink(receiver.url)
        sink.emit(made_result(0.0))
        receiver.wait_for(lambda: len(receiver.documents) == 1)
        assert time.monotonic() - start >= 1.0
        sink.close()


def test_a_refusal_is_not_repeated_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    with Receiver(refuse(401), refuse(401)) as receiver, caplog.at_level(logging.WARNING):
        sink = open_sink(receiver.url + "/secret-path")
        for step in range(3):
            sink.emit(made_result(step / 10))
            receiver.wait_for(lambda step=step: sink.lost + sink.delivered == step + 1)
        with pytest.raises(SinkError, match="did not get 2 of 3 documents: It answered with HTTP 401") as caught:
            sink.close()
    assert "token_file" in caught.value.hint
    assert len(receiver.keys) == 3
    assert len([record for record in caplog.records if "HTTP 401" in record.getMessage()]) == 1
    assert "secret-path" not in caplog.text + str(caught.value)


def test_a_redirect_within_the_host_is_followed_with_the_body() -> None:
    with Receiver(refuse(307, Location="/moved"), refuse(308, Location="again?x=1")) as receiver:
        sink = open_sink(receiver.url)
        sink.emit(made_result(0.0))
        receiver.wait_for(lambda: len(receiver.documents) == 1)
        sink.close()
    assert receiver.paths == ["/hook", "/moved", "/again?x=1"]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_to_another_host_gets_nothing(tmp_path: Path, status: int) -> None:
    write_secret(tmp_path / "token", "s3cret")
    with Receiver() as other, Receiver(refuse(status, Location=other.url + "?stolen=1")) as receiver:
        sink = open_sink(receiver.url, token_file=str(tmp_path / "token"))
        sink.emit(made_result(0.0))
        receiver.wait_for(lambda: sink.lost == 1)
        with pytest.raises(SinkError, match="not followed") as caught:
            sink.close()
        assert other.paths == []
    assert receiver.headers[0]["Authorization"] == "Bearer s3cret"
    assert not {"s3cret", "stolen"} & set(str(caught.value).replace("=", " ").replace("?", " ").split())


def test_redirects_in_a_circle_end() -> None:
    with Receiver(*[refuse(307, Location="/hook")] * 4) as receiver:
        sink = open_sink(receiver.url)
        sink.emit(made_result(0.0))
        receiver.wait_for(lambda: sink.lost == 1)
        with pytest.raises(SinkError, match="more than 3"):
            sink.close()
    assert len(receiver.paths) == 4


def test_basic_authentication_comes_from_the_file(tmp_path: Path) -> None:
    write_secret(tmp_path / "login", "me:hunter2\n")
    with Receiver() as receiver:
        sink = open_sink(receiver.url, token_file=str(tmp_path / "login"), auth="basic")
        sink.emit(made_result(0.0))
        sink.close()
    assert receiver.headers[0]["Authorization"] == "Basic bWU6aHVudGVyMg=="


def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with Receiver() as proxy, Receiver() as receiver:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        sink = open_sink(receiver.url)
        sink.emit(made_result(0.0))
        sink.close()
        assert proxy.paths == []
    assert len(receiver.documents) == 1


def test_a_connection_that_the_receiver_closed_meanwhile_is_no_trouble(caplog: pytest.LogCaptureFixture) -> None:
    def take_and_hang_up(request: object) -> None:
        take(request)  # type: ignore[arg-type]
        request.close_connection = True  # type: ignore[attr-defined]

    with Receiver(take_and_hang_up) as receiver, caplog.at_level(logging.WARNING):
        sink = open_sink(receiver.url, retry_s=20.0)
        for step in range(3):
            sink.emit(made_result(step / 10))
            receiver.wait_for(lambda step=step: sink.delivered == step + 1)
        sink.close()
    assert len(receiver.keys) == 3
    assert not caplog.records


def wait_for_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not caplog.records:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_receiver_that_is_not_there_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    sink = open_sink(f"http://127.0.0.1:{port}/", drain_s=0.3)
    for step in range(3):
        sink.emit(made_result(step / 10))
    wait_for_a_warning(caplog)
    start = time.monotonic()
    with pytest.raises(SinkError, match="did not get 3 of 3 documents: Connection refused"):
        sink.close()
    assert time.monotonic() - start < DEADLINE_S


def test_a_full_queue_gives_up_the_oldest_and_says_so() -> None:
    with Receiver(hang) as receiver:
        sink = open_sink(receiver.url, queue=5, batch=1, drain_s=0.2, timeout_s=20.0)
        sink.emit(made_result(0.0))
        receiver.wait_for(lambda: len(receiver.keys) == 1)
        for step in range(1, 21):
            sink.emit(made_result(step / 10))
        assert sink.lost == 15
        with pytest.raises(SinkError, match="did not get 21 of 21"):
            sink.close()


def test_closing_is_bounded_whatever_the_receiver_does() -> None:
    with Receiver(hang) as receiver:
        sink = open_sink(receiver.url, timeout_s=120.0, drain_s=0.2)
        sink.emit(made_result(0.0))
        receiver.wait_for(lambda: len(receiver.keys) == 1)
        start = time.monotonic()
        with pytest.raises(SinkError, match="did not get 1 of 1"):
            sink.close()
        assert time.monotonic() - start < DEADLINE_S


def test_a_receiver_that_hangs_never_slows_the_frames() -> None:
    with Receiver(*[hang] * 10) as receiver:
        sink = open_sink(receiver.url, events="all", timeout_s=120.0, max_age_s=120.0, drain_s=0.2)
        pipeline = Pipeline("synthetic://?frames=40&width=64&height=48", BlobModel(), sinks=[sink])
        start = time.monotonic()
        seen = 0
        with pytest.raises(SinkError, match="did not get 40 of 40 documents"):
            for _ in pipeline:
                seen += 1
        assert time.monotonic() - start < DEADLINE_S, "one request alone waits for two minutes"
    assert seen == 40
    count = pipeline.summary.sinks[0]
    assert (count.emitted, count.failed) == (40, 0), "it took them all at once"
    assert count.dropped == 40, "and had to give them up"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", "both.pem", "-out", "cert.pem"]
    subprocess.run([*command.split(), *names], cwd=folder, check=True, capture_output=True, timeout=DEADLINE_S)
    with (folder / "both.pem").open("a") as both:
        both.write((folder / "cert.pem").read_text())
    return folder


def test_tls_delivers_to_a_trusted_receiver_and_to_no_other(
    certificate: Path, caplog: pytest.LogCaptureFixture
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "both.pem")
    with Receiver(tls=context) as receiver:
        url = receiver.url.replace("127.0.0.1", "localhost")
        trusting = open_sink(url, ca_file=str(certificate / "cert.pem"))
        trusting.emit(made_result(0.0))
        receiver.wait_for(lambda: len(receiver.documents) == 1)
        trusting.close()
        for address, ca_file in [(url, ""), (receiver.url, str(certificate / "cert.pem"))]:  # unknown; another name
            caplog.clear()
            careful = open_sink(address, ca_file=ca_file, drain_s=0.1)
            careful.emit(made_result(0.1))
            wait_for_a_warning(caplog)
            with pytest.raises(SinkError, match=r"(?i)certificate"):
                careful.close()
    assert len(receiver.documents) == 1


def test_an_attempt_cut_short_while_closing_does_not_hide_the_reason() -> None:
    with Receiver(refuse(500), *[hang] * 10) as receiver:
        sink = open_sink(receiver.url, retry_s=0.05, drain_s=1.0)
        sink.emit(made_result(0.0))
        receiver.wait_for(lambda: len(receiver.keys) == 2)
        with pytest.raises(SinkError, match="HTTP 500"):
            sink.close()


def test_no_thread_runs_before_something_is_to_be_sent() -> None:
    sink = open_sink("http://127.0.0.1:9/")
    assert not [thread for thread in threading.enumerate() if thread.name == "edgecv-webhook"]
    sink.close()
