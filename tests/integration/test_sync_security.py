"""TLS, passwords, and that neither shows up anywhere."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from edgecv.cloud_sync.mqtt.broker_url import parse_broker_url
from edgecv.cloud_sync.mqtt.sockets import tls_context
from edgecv.cloud_sync.sink import MqttSink
from tests.command_line import run_here
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
    return make_certificate(tmp_path, "server")


def make_certificate(folder: Path, name: str, password: str = "") -> tuple[Path, Path]:
    """A key and a certificate that it signed itself."""
    key, cert = folder / f"{name}.key", folder / f"{name}.crt"
    locked = f"-passout pass:{password}" if password else "-nodes"
    command = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 {locked} -days 2 -subj /CN=localhost"
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


@NEEDS_OPENSSL
def test_a_device_shows_its_own_certificate_where_the_broker_asks_for_it(
    tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    key, cert = certificate
    device_key, device_cert = make_certificate(tmp_path, "device")
    _, stranger_cert = make_certificate(tmp_path, "stranger")
    config = ("allow_anonymous true", f"certfile {cert}", f"keyfile {key}", "require_certificate true")
    with running_mosquitto(tmp_path, (*config, f"cafile {device_cert}")) as broker:
        base = f"mqtts://127.0.0.1:{broker.port}?ca_file={cert}"
        for options, said in (
            ("", "certificate"),
            (f"&cert_file={stranger_cert}&key_file={tmp_path / 'stranger.key'}", "certificate"),
            (f"&cert_file={stranger_cert}&key_file={device_key}", "TLS failed"),  # they do not belong together
        ):
            refused = open_sink(base + options, tmp_path / "outbox", drain_s=0.0)
            until(lambda sink=refused, said=said: said in sink.stats().last_error, said)
            assert not refused.stats().connected
            refused.close()
        own = f"{base}&cert_file={device_cert}&key_file={device_key}"
        with running_ingest(own, tmp_path / "db"):
            sink = open_sink(own, tmp_path / "outbox")
            sink.emit(make_result())
            sink.close()
        assert sink.stats().acknowledged == 1


@NEEDS_OPENSSL
def test_an_encrypted_key_is_an_error_and_not_a_question_on_the_terminal(
    tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    _, cert = certificate
    key, own = make_certificate(tmp_path, "device", password="1234")
    url = f"mqtts://127.0.0.1:1?ca_file={cert}&cert_file={own}&key_file={key}"
    sink = open_sink(url, tmp_path / "outbox", drain_s=0.0)
    until(lambda: "encrypted" in sink.stats().last_error, "it is said")
    sink.close()


@NEEDS_OPENSSL
def test_tls_is_1_2_or_newer_and_always_verified(certificate: tuple[Path, Path]) -> None:
    for url in ("mqtts://broker.example", f"wss://broker.example?ca_file={certificate[1]}&insecure=1"):
        context = tls_context(parse_broker_url(url))
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        assert context.verify_mode == ssl.CERT_REQUIRED
        assert context.check_hostname


def test_no_password_is_taken_from_the_command_line(tmp_path: Path) -> None:
    """Not in a URL of `edgecv run` nor of `edgecv ingest`, and not in app.toml."""
    url = f"mqtts://alice:{SECRET}@broker.example"
    config = tmp_path / "app.toml"
    config.write_text(
        f"""[model]\nbundle = "x.ecv"\n[[sources]]\nuri = "0"\n[mqtt]\nurl = "{url}"\ntenant = "t"\ndevice = "d"\n"""
    )
    for arguments in (
        ["ingest", "--mqtt", url, "--db", str(tmp_path / "db")],
        [
            "run",
            "x.ecv",
            "--source",
            "0",
            "--mqtt",
            url,
            "--tenant",
            "t",
            "--device",
            "d",
            "--outbox",
            str(tmp_path / "o"),
        ],
        ["run", "--config", str(config)],
    ):
        done = run_here(*arguments)
        assert done.returncode == 2, done.stderr
        assert "?password_file=FILE" in done.stderr
        assert SECRET not in done.stderr + done.stdout
