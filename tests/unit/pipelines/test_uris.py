"""Names of sources and sinks taken apart, and credentials kept out of them."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

from edgecv._internal.redaction import redact
from edgecv.errors import ConfigError, UnknownPlugin
from edgecv.pipelines.sinks import open_sink
from edgecv.pipelines.sources import open_source
from edgecv.pipelines.uris import Uri, parse_sink, parse_source, read_options, scrub


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Options of a source in these tests."""

    frames: int = 1
    fps: float = 10.0
    live: bool = False


@pytest.mark.parametrize(
    ("text", "scheme", "path", "options"),
    [
        ("0", "usb", "0", {}),
        (2, "usb", "2", {}),
        ("usb://1?width=640", "usb", "1", {"width": "640"}),
        ("usb:///dev/video2", "usb", "/dev/video2", {}),
        ("clip.mp4", "file", "clip.mp4", {}),
        ("/a/clip.avi?x=1", "file", "/a/clip.avi", {"x": "1"}),
        ("file:///a/my%20clip.mp4", "file", "/a/my clip.mp4", {}),
        ("images/", "images", "images/", {}),
        ("photo.JPG", "images", "photo.JPG", {}),
        ("frames/*.png", "images", "frames/*.png", {}),
        ("frames/f_??.png?fps=5", "images", "frames/f_??.png", {"fps": "5"}),
        ("frames/a?.png", "images", "frames/a?.png", {}),
        ("synthetic://?frames=5&fps=2.5", "synthetic", "", {"frames": "5", "fps": "2.5"}),
        ("RTSP://u:p@cam/1", "rtsp", "u:p@cam/1", {}),
        ("rtsp://cam/1?channel=2&fps=10", "rtsp", "cam/1?channel=2", {"fps": "10"}),
        (
            "rtsp://u:p%40w@cam/a%20b?x=%20&x=2&flag&width=640",
            "rtsp",
            "u:p%40w@cam/a%20b?x=%20&x=2&flag",
            {"width": "640"},
        ),
        ("http://cam/v?camera.fps=5&fps=2", "http", "cam/v?fps=5", {"fps": "2"}),
        ("rtsp://u:p?fps=1@cam/1?transport=udp", "rtsp", "u:p?fps=1@cam/1", {"transport": "udp"}),
        ("gst:videotestsrc ! video/x-raw,width=320", "gst", "videotestsrc ! video/x-raw,width=320", {}),
        ("gst:videotestsrc num-buffers=5?fps=2", "gst", "videotestsrc num-buffers=5", {"fps": "2"}),
        ("gst:videotestsrc ?fps=2&width=8", "gst", "videotestsrc", {"fps": "2", "width": "8"}),
        ("gst:souphttpsrc location=http://cam/v?fps=2", "gst", "souphttpsrc location=http://cam/v?fps=2", {}),
    ],
)
def test_sources_are_taken_apart(text: str | int, scheme: str, path: str, options: dict[str, str]) -> None:
    uri = parse_source(text)
    assert (uri.scheme, uri.path, dict(uri.options)) == (scheme, path, options)
    assert parse_source(uri) is uri


def test_a_folder_is_images_without_its_slash(tmp_path: Path) -> None:
    assert parse_source(tmp_path).scheme == "images"


def test_a_file_with_a_question_mark_in_its_name_is_taken_as_it_is(tmp_path: Path) -> None:
    odd = tmp_path / "clip?a=1[2].mp4"
    odd.touch()
    assert parse_source(odd) == Uri(scheme="file", path=str(odd))


@pytest.mark.parametrize(
    ("text", "scheme", "path", "name"),
    [
        ("jsonl:out.jsonl", "jsonl", "out.jsonl", "jsonl:out.jsonl"),
        ("jsonl:-", "jsonl", "-", "jsonl:-"),
        ("jsonl:/a/out.jsonl?overwrite=1", "jsonl", "/a/out.jsonl", "jsonl:/a/out.jsonl"),
        ("video:out.mp4", "video", "out.mp4", "video:out.mp4"),
        ("mqtts://u:p@host:8883", "mqtts", "u:p@host:8883", "mqtts://host:8883"),
        (
            "webhook:https://chat.example/T0/SECRET",
            "webhook",
            "https://chat.example/T0/SECRET",
            "webhook:https://chat.example",
        ),
        ("webhook:hook.url", "webhook", "hook.url", "webhook:hook.url"),
    ],
)
def test_sinks_are_taken_apart(text: str, scheme: str, path: str, name: str) -> None:
    uri = parse_sink(text)
    assert (uri.scheme, uri.path, uri.name) == (scheme, path, name)


@pytest.mark.parametrize(
    ("text", "hint"),
    [("out.jsonl", "jsonl:out.jsonl"), ("out.mp4", "video:out.mp4"), ("jsonl:", "jsonl:out.jsonl"), ("", "jsonl:")],
)
def test_a_sink_without_scheme_or_target_is_refused_with_an_example(text: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_sink(text)
    assert hint in caught.value.hint


def test_a_name_longer_than_any_file_can_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="too long"):
        parse_source("a" * 5000)


@pytest.mark.parametrize("text", ["", "synthetic://?fps=1&fps=2", "rtsp://cam/1?fps=1&fps=2", "gst:a ?fps=1&fps=2"])
def test_an_unclear_source_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_source(text)


def test_options_are_converted() -> None:
    assert read_options(parse_source("x://?frames=3&fps=2.5&live=1"), Options) == Options(frames=3, fps=2.5, live=True)


@pytest.mark.parametrize(
    ("query", "in_message", "in_hint"),
    [("frmaes=3", "frmaes", "Did you mean 'frames'?"), ("zzz=3", "zzz", "Known: "), ("frames=many", "frames", "")],
)
def test_a_wrong_option_names_itself_and_the_nearest(query: str, in_message: str, in_hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_options(parse_source(f"x://?{query}"), Options)
    assert in_message in caught.value.message
    assert in_hint in caught.value.hint


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("rtsp://cam/1", "rtsp://cam/1"),
        ("rtsp://cam/a@b", "rtsp://cam/a@b"),
        ("rtsp://cam:554/a%40b", "rtsp://cam:554/a%40b"),
        ("rtsp://[::1]:554/a@b", "rtsp://[::1]:554/a@b"),
        ("rtsp://user:secret@cam:554/1", "rtsp://cam:554/1"),
        ("rtsp://user@cam/1", "rtsp://cam/1"),
        ("rtsp://user:se@cret@cam/1", "rtsp://cam/1"),
        ("rtsp://user:se/cret@cam/1", "rtsp://cam/1"),
        ("rtsp://user:se?cret@cam/1", "rtsp://cam/1"),
        ("http://cam/v.mjpg?user=me&password=secret&ch=1", "http://cam/v.mjpg?user=***&password=***&ch=1"),
        ("http://cam/v?access_token=secret", "http://cam/v?access_token=***"),
        ("http://cam/v?ch=2;sid=secret", "http://cam/v?ch=2;sid=***"),
        ("http://cam/;stok=secret/v?ch=2", "http://cam/;stok=***/v?ch=2"),
        ("http://cam/v?code=secret&codec=h264&side=2", "http://cam/v?code=***&codec=h264&side=2"),
        ("http://cam/v?%74oken=secret", "http://cam/v?%74oken=***"),
        ("http://cam/v?of=http%3A%2F%2Fme%3Asecret%40other%2F&ch=2", "http://cam/v?of=***&ch=2"),
        ("http://cam/v?of=http://me:secret@other/&ch=2", "http://cam/v?of=***&ch=2"),
        ("http://cam/v?of=token%3Dsecret", "http://cam/v?of=***"),
        ("http://cam/v?next=%2Fa%20b", "http://cam/v?next=%2Fa%20b"),
        ("http://cam/v#access_token=secret", "http://cam/v#access_token=***"),
        ("http://cam/\x1b[2Jv", r"http://cam/\x1b[2Jv"),
        ("clip.mp4", "clip.mp4"),
    ],
)
def test_credentials_are_redacted(uri: str, shown: str) -> None:
    assert parse_source(uri).name == shown
    assert "secret" not in redact(uri)


SECRET_NAMES = (
    *(
        "session",
        "sid",
        "PHPSESSID",
        "JSESSIONID",
        "code",
        "accessCode",
        "token",
        "access_token",
        "stok",
        "key",
        "apikey",
    ),
    *("auth", "authorization", "pwd", "pw", "pass", "passwd", "password", "psk", "signature", "sig", "X-Amz-Signature"),
    *(
        "X-Amz-Credential",
        "hmac",
        "hash",
        "digest",
        "nonce",
        "jwt",
        "ticket",
        "pin",
        "PIN2",
        "otp",
        "secret",
        "user",
        "usr",
    ),
)


@pytest.mark.parametrize("name", SECRET_NAMES)
@pytest.mark.parametrize(
    "form", ["http://cam/v?ch=1&{}=hunter2&x=3", "http://cam/v?{}=hunter2", "http://cam/a;{}=hunter2/v"]
)
def test_whatever_names_a_secret_is_redacted(name: str, form: str) -> None:
    assert parse_source(form.format(name)).name == form.format(name).replace("hunter2", "***")
    assert "hunter2" not in redact(f"'{form.format(name)}' cannot be read")


@pytest.mark.parametrize(
    "name", ["codec", "channel", "side", "inside", "zoom", "stream", "id", "camera", "encoder", "spin"]
)
def test_other_parameters_stay(name: str) -> None:
    assert parse_source(f"http://cam/v?{name}=5").name == f"http://cam/v?{name}=5"


def test_a_hostile_url_is_redacted_in_a_moment() -> None:
    start = time.monotonic()
    for part in ("?a=http://", "?a=http%3A//", ";a=%3d", "?a=b", "%25" * 9, "=/"):
        for count in (180, 20_000):
            redact("http://cam/" + part * count)
    assert time.monotonic() - start < 5.0


@pytest.mark.parametrize(
    ("pipeline", "shown"),
    [
        ("rtspsrc location=rtsp://me:secret@cam/1 ! decodebin", "rtspsrc location=rtsp://cam/1 ! decodebin"),
        (
            "rtspsrc location=rtsp://cam user-id=me user-pw=secret",
            "rtspsrc location=rtsp://cam user-id=*** user-pw=***",
        ),
        ("souphttpsrc password = 'my secret' ! fakesink", "souphttpsrc password = *** ! fakesink"),
        ("souphttpsrc location=http://cam/?token=secret", "souphttpsrc location=http://cam/?token=***"),
    ],
)
def test_credentials_in_a_pipeline_are_redacted(pipeline: str, shown: str) -> None:
    assert parse_source(f"gst:{pipeline}").name == f"gst:{shown}"


def test_long_pipelines_have_short_names_that_differ() -> None:
    names = {parse_source(f"gst:{'videoconvert ! ' * 20}videotestsrc pattern={number}").name for number in range(9)}
    assert len(names) == 9
    assert max(map(len, names)) < 90


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("rtsp://me:sec%2Fret@cam/1", "401 for me:sec/ret at rtsp://me:sec%2Fret@cam/1, password sec/ret"),
        ("http://cam/v?password=sec/ret", "GET /v?password=sec/ret failed: sec/ret"),
        ("gst:rtspsrc location=rtsp://me:sec/ret@cam user-pw='sec/ret'", "rtsp://me:sec/ret@cam (sec/ret)"),
        ("rtsp://cam/1", "see rtsp://x:sec/ret@other/1"),
    ],
)
def test_foreign_texts_lose_the_credentials(uri: str, text: str) -> None:
    shown = scrub(text, parse_source(uri))
    assert "ret" not in shown
    assert "sec" not in shown


def test_an_unknown_scheme_names_those_there_are_and_no_password() -> None:
    with pytest.raises(UnknownPlugin) as caught:
        open_source("rtsp2://user:secret@cam/1")
    assert "synthetic" in caught.value.hint
    assert "secret" not in str(caught.value)
    with pytest.raises(UnknownPlugin, match="jsnol"):
        open_sink("jsnol:out")


def test_a_source_with_a_zero_byte_is_refused() -> None:
    with pytest.raises(ConfigError, match="zero byte"):
        parse_source("images/\0*.png")


def test_an_error_text_of_a_url_that_is_no_utf_8_is_scrubbed() -> None:
    text = "https://[::1]:8443/v;stok=S3CRET/x?of=ht\udcf4p%3A%2F%2Fme%3AS3CRET%40h"
    assert "S3CRET" not in scrub(text, parse_source(text))
