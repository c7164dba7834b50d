"""Which URLs a picture may go to, and the URLs that ingest signs."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from edgecv.cloud_sync.blobs.http import check_headers, check_url
from edgecv.cloud_sync.ingest.blobs.signers import BlobName, CommandSigner, S3Signer, parse_signer
from edgecv.cloud_sync.mqtt.topics import Address
from edgecv.errors import ConfigError, SyncError

SHA256 = "ab" * 32
BLOB = BlobName(address=Address(tenant="acme", device="cam-1"), sha256=SHA256, bytes=5, type="image/jpeg")


def test_a_url_is_signed_as_in_the_documentation_of_aws() -> None:
    """The example of «Authenticating Requests: Using Query Parameters (AWS Signature Version 4)»."""
    signer = S3Signer(
        bucket="examplebucket",
        prefix="",
        region="us-east-1",
        key_id="AKIAIOSFODNN7EXAMPLE",
        secret="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        expires_s=86400,
        clock=lambda: datetime(2013, 5, 24, tzinfo=timezone.utc),
    )
    assert signer.presign("GET", "test.txt", {}) == (
        "https://examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256"
        "&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z"
        "&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
        "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )
    assert "AKIA" not in repr(signer)
    assert "wJalr" not in repr(signer)


def secret_file(tmp_path: Path, text: str = "KEY:SECRET:TOKEN/=") -> Path:
    path = tmp_path / "s3.secret"
    path.touch(0o600)
    path.write_text(text)
    return path


def test_an_upload_is_signed_for_one_picture_of_one_device(tmp_path: Path) -> None:
    secret = secret_file(tmp_path)
    signer = parse_signer(f"s3://my.bucket/a/b/?region=eu-central-1&credentials_file={secret}&expires_s=60")
    signed = signer.sign(BLOB)
    parts = urlsplit(signed.url)
    query = dict(parse_qsl(parts.query))
    assert parts.netloc == "s3.eu-central-1.amazonaws.com"  # a bucket with a dot has no certificate of its own
    assert parts.path == f"/my.bucket/a/b/acme/cam-1/{SHA256}.jpg"
    assert query["X-Amz-SignedHeaders"] == "content-type;host;x-amz-checksum-sha256"
    assert (query["X-Amz-Expires"], query["X-Amz-Security-Token"]) == ("60", "TOKEN/=")
    assert signed.place == f"s3://my.bucket/a/b/acme/cam-1/{SHA256}.jpg"
    assert signed.expires_s == 60.0
    check_headers(signed.headers)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s3:",
        "s3://?region=r&credentials_file=SECRET",
        "s3://UPPER/?region=r&credentials_file=SECRET",
        "s3://bucket?region=r",
        "s3://bucket?region=r&credentials_file=/nonexistent",
        "s3://bucket?region=r&credentials_file=SECRET&acl=public",
        "s3://bucket?region=r&credentials_file=SECRET&endpoint=http://minio.example",
        "command:",
        "https://example.com",
    ],
)
def test_what_is_no_place_for_urls_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        parse_signer(text.replace("SECRET", str(secret_file(tmp_path))))


@pytest.mark.parametrize(
    "script",
    [
        "exit 1",
        "echo no json",
        "echo '{}'",
        "yes",
        """echo '{"url": "https://x.example/", "headers": {"host": "y"}}'""",
    ],
)
def test_a_program_that_gives_no_url_is_an_error_without_its_words(script: str) -> None:
    with pytest.raises(SyncError) as caught:
        CommandSigner(["sh", "-c", script]).sign(BLOB)
    assert "no json" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("https://store.example/a?sig=x", []),
        ("https://store.example/a", ["store.example"]),
        ("https://STORE.example:8443/a", ["store.example"]),
        ("https://a.store.example/a", ["*.store.example"]),
        ("http://127.0.0.1:9000/a", ["127.0.0.1"]),
        ("http://localhost/a", ["localhost"]),
        ("http://[::1]:9000/a", ["::1"]),
    ],
)
def test_urls_that_may_be_used(url: str, hosts: list[str]) -> None:
    place = check_url(url, hosts)
    assert "sig" not in str(place)
    assert "sig" not in repr(place)


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("http://store.example/a", []),
        ("http://store.example/a", ["store.example"]),
        ("http://127.0.0.1/a", []),
        ("http://10.0.0.1/a", ["10.0.0.1"]),
        ("https://store.example/a", ["other.example"]),
        ("https://evilstore.example/a", ["*.store.example"]),
        ("https://store.example.evil/a", ["store.example"]),
        ("https://user:hidden@store.example/a", []),
        ("https://store.example@evil.example/a", ["store.example"]),
        ("https://store.example\\@evil.example/a", ["store.example"]),
        ("https://store.example/a b", []),
        ("https://store.example/a\r\nHost: x", []),
        ("https://store.example/a#hidden", []),
        ("https://store.example:0/a", []),
        ("https://store.example:99999/a", []),
        ("https:///a", []),
        ("https://[::1/a", []),
        ("ftp://store.example/a", []),
        ("file:///etc/passwd", []),
        ("//store.example/a", []),
        ("https://store.example/" + "a" * 5000, []),
        ("https://störe.example/a", []),
    ],
)
def test_urls_that_may_not_be_used(url: str, hosts: list[str]) -> None:
    with pytest.raises(SyncError) as caught:
        check_url(url, hosts)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("headers", [{"host": "x"}, {"Authorization": "x"}, {"content-type": "a\r\nb"}, {"x\n": "y"}])
def test_headers_that_may_not_be_asked_for(headers: dict[str, str]) -> None:
    with pytest.raises(SyncError):
        check_headers(headers)
