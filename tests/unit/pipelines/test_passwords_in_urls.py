"""Passwords with any character, in every kind of URL: understood or refused, and never shown."""

from __future__ import annotations

import string
from urllib.parse import quote, unquote

import pytest

from edgecv._internal.redaction import redact
from edgecv.cli.console import fail
from edgecv.cloud_sync.mqtt.broker_url import parse_broker_url
from edgecv.errors import ConfigError
from edgecv.pipelines.sinks.webhook.client import check_url
from edgecv.pipelines.sources.network.address import NetworkOptions, camera_url
from edgecv.pipelines.sources.network.source import NetworkSource
from edgecv.pipelines.uris import parse_sink, parse_source, scrub

MARKS = sorted({*string.punctuation, " "})
# The first begins like a port, the second like a word, the third ends like a host: what stands before and after the mark.
HALVES = (("1234", "5678"), ("xyzzy", "plugh"), ("1234", "plugh@56"), ("xy@zz", "5678"), ("", "5678"), ("1234", ""))
PASSWORDS = [f"{before}{mark}{after}" for mark in MARKS for before, after in HALVES]
CAMERAS = ("rtsp", "rtsps", "http", "https")


def parts_of(password: str) -> list[str]:
    return [part for part in ("1234", "5678", "xyzzy", "plugh") if part in password]


def assert_hidden(text: str, password: str) -> None:
    assert not [part for part in parts_of(password) if part in text], text


@pytest.mark.parametrize("scheme", CAMERAS)
@pytest.mark.parametrize("end", ["", "/1", "/1?channel=2", ":554/1"])
def test_a_camera_with_any_password_is_understood_or_refused_with_the_next_step(scheme: str, end: str) -> None:
    for password in PASSWORDS:
        url = f"{scheme}://admin:{password}@camera{end}"
        try:
            uri = parse_source(url)
        except ConfigError as error:
            assert "percent-encode" in error.hint, url
            assert "password_file" in error.hint, url
            assert_hidden(str(error), password)
        else:
            assert uri.name == f"{scheme}://camera{end}", url
            sent = camera_url(uri, NetworkOptions()).partition("://")[2]
            assert sent.startswith("admin:"), url
            assert sent.partition("@")[2] == f"camera{end}", url
            assert_hidden(scrub(f"admin:{password} at {url} and {quote(unquote(password))}", uri), password)


@pytest.mark.parametrize("scheme", CAMERAS)
def test_a_password_that_is_percent_encoded_is_understood_always(scheme: str) -> None:
    for password in PASSWORDS:
        uri = parse_source(f"{scheme}://admin:{quote(password, safe='')}@camera:554/1")
        NetworkSource.check(uri)
        assert uri.name == f"{scheme}://camera:554/1"


def test_whatever_may_hold_a_password_is_redacted() -> None:
    for scheme in (*CAMERAS, "mqtt", "mqtts", "rtmp", "webhook:https"):
        for password in PASSWORDS:
            if " " not in password:
                assert_hidden(redact(f"{scheme}://admin:{password}@camera/1"), password)
                assert_hidden(redact(f"gone: {scheme}://admin:{password}@camera/1 is away"), password)


@pytest.mark.parametrize("scheme", ["mqtt", "mqtts"])
@pytest.mark.parametrize("end", ["", ":1883", "?insecure=1", "/"])
def test_a_broker_with_any_password_is_refused_and_does_not_show_it(scheme: str, end: str) -> None:
    for password in PASSWORDS:
        with pytest.raises(ConfigError) as refused:
            parse_broker_url(f"{scheme}://dev:{password}@localhost{end}")
        assert refused.value.hint
        assert_hidden(f"{refused.value} {refused.value.hint}", password)


def test_a_broker_as_a_sink_shows_no_password() -> None:
    for password in PASSWORDS:
        try:
            shown = parse_sink(f"mqtts://dev:{password}@broker").name
        except ConfigError as error:
            shown = str(error)
        assert_hidden(shown, password)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_webhook_with_any_password_is_refused_and_does_not_show_it(scheme: str) -> None:
    for password in PASSWORDS:
        url = f"{scheme}://me:{password}@hooks.example/hook"
        for opened in (lambda url=url: check_url(url), lambda url=url: check_url(parse_sink(f"webhook:{url}").path)):
            with pytest.raises(ConfigError) as caught:
                opened()
            assert_hidden(str(caught.value), password)


def test_a_pipeline_of_gstreamer_shows_no_password() -> None:
    for password in PASSWORDS:
        if not {" ", '"', "'"} & set(password):
            uri = parse_source(f"gst:rtspsrc location=rtsp://admin:{password}@camera/1 ! decodebin")
            assert_hidden(uri.name, password)
            assert_hidden(scrub(f"rtspsrc: rtsp://admin:{password}@camera/1: 401, admin:{password}", uri), password)


def test_the_message_on_stderr_is_whole_and_holds_no_password(capsys: pytest.CaptureFixture[str]) -> None:
    for password in ("1234#56", "1234/56", "1234?56", "12@34#56"):
        with pytest.raises(ConfigError) as caught:
            parse_source(f"rtsp://admin:{password}@camera/1")
        assert fail(caught.value) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: 'rtsp://camera/1' can be read in two ways: with a password, or with a port."), (
            said
        )
        assert "34" not in said


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://cam/v?user=me@example.com", "http://cam/v?user=***"),
        ("rtsp://[::1]:554/a@b", "rtsp://[::1]:554/a@b"),
        ("rtsp://cam:554/a%40b", "rtsp://cam:554/a%40b"),
        ("rtsp://me@example.com:secret@cam/1", "rtsp://cam/1"),
        ("rtsp://viewer@cam:554/1?password_file=/etc/me%40x", "rtsp://cam:554/1"),
    ],
)
def test_what_can_be_read_in_one_way_alone_is_taken(url: str, name: str) -> None:
    assert parse_source(url).name == name


def test_a_folder_with_an_at_sign_stays_a_folder() -> None:
    assert parse_source("file:///home/me@work/a:1/b.mp4").path == "/home/me@work/a:1/b.mp4"
    assert parse_source("images/me@x:1/a.png").name == "images/me@x:1/a.png"
    assert parse_sink("jsonl:/home/a:1/b@c.jsonl").path == "/home/a:1/b@c.jsonl"
