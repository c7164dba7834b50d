"""TLS, passwords, and that neither shows up anywhere."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from edgecv.cloud_sync.sink import MqttSink
from tests.unit.cloud_sync.support import (
    FAST_SEND,
    SMALL,
    make_result,
    running_ingest,
    running_mosquitto,
    stored_ids,
    until,
)

SECRET = "hunter2"
NEEDS_OPENSSL = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
NEEDS_PASSWD = pytest.mark.skipif(shutil.which("mosquitto_passwd") is None, reason="needs mosquitto_passwd")


def open_sink(url: str, folder: Path, drain_s: float = 15.0) -> MqttSink:
    return MqttSink(url, tenant="t", device="d", outbox=folder, limits=SMALL, options=FAST_SEND, drain_s=drain_s)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    extension = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*command.split(), *extension], check=True, capture_output=True, timeout=20.0)
    return key, cert


@NEEDS_OPENSSL
def test_tls_delivers_to_a_trusted_broker_and_to_no_other(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    key, cert = certificate
    with running_mosquitto(tmp_path, ("allow_anonymous true", f"certfile {cert}", f"keyfile {key}")) as broker:
        stranger = open_sink(f"mqtts://127.0.0.1:{broker.port}", tmp_path / "outbox", drain_s=0.0)
        stranger.emit(make_result())
        until(lambda: "TLS failed" in stranger.stats().last_error, "the unknown certificate is refused")
        stranger.close()
        trusted = f"mqtts://127.0.0.1:{broker.port}?ca_file={cert}"
        with running_ingest(trusted, tmp_path / "db"):
            sink = open_sink(trusted, tmp_path / "outbox")
            sink.close()
        assert sink.stats().acknowledged == len(stored_ids(tmp_path / "db")) == 1


@NEEDS_PASSWD
def test_a_wrong_password_is_reported_and_never_quoted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    passwords = tmp_path / "passwords"
    subprocess.run(
        ["mosquitto_passwd", "-b", "-c", str(passwords), "alice", "right"],
        check=True,
        capture_output=True,
        timeout=10.0,
    )
    with running_mosquitto(tmp_path, ("allow_anonymous false", f"password_file {passwords}")) as broker:
        wrong = tmp_path / "wrong"
        wrong.write_text(SECRET)
        wrong.chmod(0o600)
        url = f"mqtt://alice@127.0.0.1:{broker.port}?password_file={wrong}"
        sink = open_sink(url, tmp_path / "outbox", drain_s=0.0)
        sink.emit(make_result())
        until(lambda: "refused the connection" in sink.stats().last_error, "the refusal")
        shown = [repr(sink.stats()), repr(sink), str(vars(sink))]
        sink.close()
        right = tmp_path / "secret"
        right.write_text("right\n")
        right.chmod(0o600)
        url = f"mqtt://alice@127.0.0.1:{broker.port}?password_file={right}"
        with running_ingest(url, tmp_path / "db"):
            open_sink(url, tmp_path / "outbox").close()
        assert len(stored_ids(tmp_path / "db")) == 1
    shown += capfd.readouterr()
    assert not any(SECRET in text or "alice" in text for text in shown)
    assert SECRET.encode() not in b"".join(path.read_bytes() for path in (tmp_path / "outbox").iterdir())
