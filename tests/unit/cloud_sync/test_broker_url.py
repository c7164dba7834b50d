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


def test_user_and_password_are_unquoted_and_in_no_text_form() -> None:
    broker = parse_broker_url(f"mqtts://al%40ice:{SECRET}%2F@broker.example")
    assert (broker.username, broker.password) == ("al@ice", f"{SECRET}/")
    for text in (repr(broker), str(broker)):
        assert SECRET not in text
        assert "ice" not in text


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
