from __future__ import annotations

from pathlib import Path

import pytest

from edgecv.cloud_sync.mqtt.broker_url import parse_broker_url, redact
from edgecv.errors import ConfigError

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("url", "host", "port", "tls"),
    [
        ("mqtt://localhost", "localhost", 1883, False),
        ("mqtt://127.0.0.1:7", "127.0.0.1", 7, False),
        ("mqtt://[::1]:7", "::1", 7, False),
        ("mqtts://broker.example", "broker.example", 8883, True),
        ("mqtts://user@broker.example:9/", "broker.example", 9, True),
        ("mqtt://10.0.0.1?insecure=1", "10.0.0.1", 1883, False),
    ],
)
def test_a_url_says_where_to_connect(url: str, host: str, port: int, tls: bool) -> None:
    broker = parse_broker_url(url)
    assert (broker.host, broker.port, broker.tls) == (host, port, tls)


@pytest.mark.parametrize("host", ["10.0.0.1", "broker.example", "localhost.example", "[fe80::1]"])
def test_plaintext_outside_loopback_needs_an_explicit_flag(host: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_broker_url(f"mqtt://{host}")
    assert "insecure=1" in caught.value.hint


def secret_file(path: Path, text: str = SECRET, mode: int = 0o600) -> Path:
    path.write_text(f"{text}\n")
    path.chmod(mode)
    return path


def test_user_and_password_are_in_no_text_form(tmp_path: Path) -> None:
    password = secret_file(tmp_path / "password")
    broker = parse_broker_url(f"mqtts://al%40ice@broker.example?password_file={password}")
    assert (broker.username, broker.password) == ("al@ice", SECRET)
    for text in (repr(broker), str(broker)):
        assert SECRET not in text
        assert "ice" not in text


@pytest.mark.parametrize("scheme", ["mqtt", "mqtts", "ws", "wss"])
@pytest.mark.parametrize("password", [SECRET, "", "p%40ss"])
def test_a_password_in_the_url_is_refused_with_the_next_step(scheme: str, password: str) -> None:
    """`ps` shows it to everybody on the machine, and `app.toml` and shell histories keep it."""
    with pytest.raises(ConfigError, match="has a password in it") as caught:
        parse_broker_url(f"{scheme}://user:{password}@localhost")
    assert "?password_file=FILE" in caught.value.hint
    assert "LoadCredential=" in caught.value.hint


def test_the_user_may_come_from_a_file_too(tmp_path: Path) -> None:
    user = secret_file(tmp_path / "user", "acme/door-1")
    assert parse_broker_url(f"mqtts://broker.example?user_file={user}").username == "acme/door-1"


@pytest.mark.parametrize("name", ["$CREDENTIALS_DIRECTORY", "${CREDENTIALS_DIRECTORY}"])
def test_files_may_be_credentials_of_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    secret_file(tmp_path / "mqtt", mode=0o440)  # what systemd makes where it lets one user in by an ACL
    secret_file(tmp_path / "user", "acme/door-1", 0o400)
    secret_file(tmp_path / "ca.crt", mode=0o444)
    secret_file(tmp_path / "own.key", mode=0o440)
    files = "&".join(f"{key}={name}/{file}" for key, file in FILES.items())
    broker = parse_broker_url(f"mqtts://broker.example?{files}")
    assert (broker.username, broker.password) == ("acme/door-1", SECRET)
    assert (broker.ca_file, broker.key_file) == (str(tmp_path / "ca.crt"), str(tmp_path / "own.key"))
    (tmp_path / "mqtt").chmod(0o444)
    with pytest.raises(ConfigError, match="others may read"):
        parse_broker_url(f"mqtts://broker.example?{files}")


FILES = {"password_file": "mqtt", "user_file": "user", "ca_file": "ca.crt", "key_file": "own.key"}


def test_a_credential_outside_a_service_says_what_the_unit_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(ConfigError) as caught:
        parse_broker_url("mqtts://broker.example?password_file=$CREDENTIALS_DIRECTORY/mqtt")
    assert "LoadCredential=mqtt:" in caught.value.hint


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    key = secret_file(tmp_path / "device.key", mode=0o640)
    with pytest.raises(ConfigError, match="others may read"):
        parse_broker_url(f"mqtts://broker.example?key_file={key}")


@pytest.mark.parametrize(
    ("url", "port", "tls", "path", "shown"),
    [
        ("ws://localhost", 80, False, "/mqtt", "ws://localhost:80"),
        ("wss://broker.example", 443, True, "/mqtt", "wss://broker.example:443"),
        ("wss://user@broker.example:8443/some/path", 8443, True, "/some/path", "wss://broker.example:8443"),
        ("mqtt://localhost", 1883, False, "", "mqtt://localhost:1883"),
    ],
)
def test_a_websocket_has_a_port_and_a_path(url: str, port: int, tls: bool, path: str, shown: str) -> None:
    broker = parse_broker_url(url)
    assert (broker.port, broker.tls, broker.path, str(broker)) == (port, tls, path, shown)


@pytest.mark.parametrize(
    "url", ["ws://localhost/a b", "ws://localhost/a\r\nHost: x", "ws://localhost/a%", "ws://10.0.0.1"]
)
def test_a_websocket_url_that_cannot_be_used_is_a_config_error(url: str) -> None:
    if url.endswith("%"):
        assert parse_broker_url(url).path == "/a%"  # the server may refuse it; it ends no line
        return
    with pytest.raises(ConfigError):
        parse_broker_url(url)


def test_the_password_comes_from_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text(f"{SECRET}\n")
    path.chmod(0o600)
    url = f"mqtts://user@broker.example?password_file={path}"
    assert parse_broker_url(url).password == SECRET
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="others may read"):
        parse_broker_url(url)


@pytest.mark.parametrize(
    "url",
    [
        f"http://user:{SECRET}@host",
        f"mqtt://user:{SECRET}",
        f"mqtt://user:{SECRET}@host:port",
        f"mqtt://user:{SECRET}@host:0",
        f"mqtt://user:{SECRET}@host:99999",
        f"mqtt://user:pa/{SECRET}@host",
        f"mqtt://user:{SECRET}#@host",
        f"mqtt://user:{SECRET}@[::1",
        f"mqtt://user:{SECRET}@host/path",
        f"mqtt://user:{SECRET}@host",
        f"mqtts://user:{SECRET}@host?{SECRET}=1",
        f"mqtts://user:{SECRET}@host?protocol=4",
        f"mqtts://user:{SECRET}@host?ca_file=/nowhere",
        f"mqtts://user:{SECRET}@host?password_file=/nowhere",
        f"{SECRET}",
    ],
)
def test_no_refusal_quotes_the_password(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_broker_url(url)
    for text in (str(caught.value), caught.value.hint, repr(caught.value), redact(url)):
        assert SECRET not in text
    assert (
        caught.value.__suppress_context__
        or caught.value.__context__ is None
        or SECRET not in str(caught.value.__context__)
    )


def test_redaction_keeps_what_helps() -> None:
    assert redact(f"mqtts://u:{SECRET}@host:1?password_file=x") == "mqtts://host:1"
