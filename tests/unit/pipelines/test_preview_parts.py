"""The parts of the preview page that need no server: access, names, images."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest

from edgecv.errors import ConfigError, SinkError
from edgecv.pipelines.preview.details import details_text
from edgecv.pipelines.preview.painted import PaintedImage, PaintedImages, channel_key
from edgecv.pipelines.web.access import LONGEST_PAUSE_S, SESSION_S, Access
from edgecv.pipelines.web.address import HostNames, listen, resolve
from edgecv.results import Detections, Frame, Result

TOKEN = "correct-horse-battery"


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def result_of(source_id: str = "door", index: int = 0, side: int = 64) -> Result:
    image = np.full((side, side, 3), index % 256, np.uint8)
    frame = Frame(image=image, index=index, source_id=source_id, captured_ns=0, monotonic_ns=0)
    return Result(frame=frame, detections=Detections.empty())


# --- access ---


@pytest.mark.parametrize(
    "token", ["", "short", "fifteen-letters", "with a space in it", "größer-als-sechzehn", "tab\tin-the-middle-of"]
)
def test_a_weak_token_is_refused(token: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Access(token)
    assert "umask 077" in caught.value.hint
    assert not token or token not in caught.value.message


@pytest.mark.parametrize("given", ["", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "größe", "\udcff"])
def test_only_the_token_itself_is_admitted(given: str) -> None:
    access = Access(TOKEN)
    assert not access.admits(given, "10.0.0.1")
    assert access.admits(TOKEN, "10.0.0.1")


def fail(access: Access, address: str, times: int = 5) -> None:
    for _ in range(times):
        assert not access.admits("wrong", address)


def test_after_five_failures_an_address_waits_and_others_do_not() -> None:
    clock = Clock()
    access = Access(TOKEN, clock)
    fail(access, "10.0.0.1", 4)
    assert access.pause_s("10.0.0.1") == 0
    clock.now_s += 5
    fail(access, "10.0.0.1", 1)
    assert access.is_slowed("10.0.0.1")
    assert access.pause_s("10.0.0.1") == pytest.approx(0.2)
    assert access.pause_s("10.0.0.1") == pytest.approx(0.4), "one after the other"
    assert access.pause_s("10.0.0.2") == 0
    clock.now_s += 55
    assert access.pause_s("10.0.0.1") == 0


def test_the_right_token_is_never_refused_and_waits_for_seconds_at_most() -> None:
    access = Access(TOKEN, Clock())
    fail(access, "10.0.0.1", 1000)
    pauses = [access.pause_s("10.0.0.1") for _ in range(1000)]
    assert LONGEST_PAUSE_S - 0.3 < max(pauses) <= LONGEST_PAUSE_S
    assert sum(pause > 0 for pause in pauses) <= 15, "who waits takes a place"
    assert access.admits(TOKEN, "10.0.0.1")


def test_many_addresses_that_fail_slow_nobody_else_and_fill_no_memory() -> None:
    access = Access(TOKEN, Clock())
    for number in range(3000):
        fail(access, f"10.0.{number // 250}.{number % 250}")
    assert access.pause_s("192.168.1.7") == 0
    assert access.admits(TOKEN, "192.168.1.7")
    assert sum(access.is_slowed(f"10.0.{number // 250}.{number % 250}") for number in range(3000)) == 1024


@pytest.mark.parametrize(
    ("failing", "other", "same"),
    [
        ("2001:db8::1", "2001:db8:0:0:ffff::7", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("fe80::1%eth0", "fe80::1", True),
    ],
)
def test_an_address_of_ipv6_stands_for_its_network(failing: str, other: str, same: bool) -> None:
    access = Access(TOKEN, Clock())
    fail(access, failing)
    assert access.is_slowed(other) is same


def test_a_session_ends_and_of_many_the_oldest_is_forgotten() -> None:
    clock = Clock()
    access = Access(TOKEN, clock)
    first = access.open_session()
    assert access.knows(first)
    assert not access.knows("")
    clock.now_s += SESSION_S
    assert not access.knows(first)
    sessions = [access.open_session() for _ in range(100)]
    assert not access.knows(sessions[0])
    assert access.knows(sessions[-1])
    assert sum(access.knows(session) for session in sessions) <= 32


def test_neither_token_nor_sessions_are_kept_in_clear() -> None:
    access = Access(TOKEN)
    session = access.open_session()
    assert TOKEN not in repr(vars(access))
    assert session not in repr(vars(access))


# --- names and addresses ---


def believes(host: str, header: str, more: tuple[str, ...] = ()) -> bool:
    return HostNames(resolve(host, 0), more).believes(header)


@pytest.mark.parametrize(
    "header", ["localhost", "localhost:8080", "LocalHost.", "127.0.0.1:80", "127.3.2.1", "[::1]", "[0:0::1]:1"]
)
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_loopback_names_are_always_believed(host: str, header: str) -> None:
    assert believes(host, header)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "a b",
        "localhost:",
        "localhost:x",
        "u@localhost",
        "::1",
        "[evil]",
        "localhost\n",
    ],
)
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_other_names_are_not(host: str, header: str) -> None:
    assert not believes(host, header)


def test_addresses_in_numbers_are_believed_where_all_are_listened_on() -> None:
    assert believes("0.0.0.0", "192.168.1.7:8080")
    assert not believes("127.0.0.1", "192.168.1.7:8080")


def test_names_that_are_given_are_believed() -> None:
    assert believes("127.0.0.1", "Cam.Example:443", ("cam.example", "192.168.1.7"))
    assert believes("127.0.0.1", "192.168.1.7", ("cam.example", "192.168.1.7"))


@pytest.mark.parametrize("name", ["http://cam.example", "cam.example:80", "a/b", "", "two names"])
def test_what_is_no_host_name_cannot_be_given(name: str) -> None:
    with pytest.raises(ConfigError, match="no host name"):
        believes("127.0.0.1", "localhost", (name,))


@pytest.mark.parametrize("port", [-1, 65536])
def test_there_are_65535_ports(port: int) -> None:
    with pytest.raises(ConfigError, match=str(port)):
        resolve("127.0.0.1", port)


def test_an_address_of_another_machine_cannot_be_listened_on() -> None:
    with pytest.raises(SinkError, match=r"192\.0\.2\.1") as caught:  # TEST-NET-1 of RFC 5737
        listen(resolve("192.0.2.1", 0))
    assert "this machine" in caught.value.hint


def test_urls_can_be_typed_into_a_browser() -> None:
    assert resolve("127.0.0.1", 0).url(8080) == "http://127.0.0.1:8080/"
    assert resolve("::1", 0).url(8080) == "http://[::1]:8080/"
    everywhere = resolve("0.0.0.0", 0)
    assert HostNames(everywhere).believes(everywhere.url(8080).removeprefix("http://").rstrip("/"))


# --- images ---


def look(images: PaintedImages, key: str, times: int = 1) -> list[PaintedImage | None]:
    """As so many watchers at once."""

    async def together() -> list[PaintedImage | None]:
        channel = images.find(key)
        assert channel is not None
        return await asyncio.gather(*(images.current(channel) for _ in range(times)))

    return asyncio.run(together())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def images(clock: Callable[[], float]) -> PaintedImages:
    return PaintedImages(fps=10, width=32, clock_s=clock)


def test_a_result_is_painted_once_for_all_who_look_at_once(images: PaintedImages) -> None:
    images.offer(result_of())
    seen = look(images, channel_key("door"), times=8)
    assert images.painted == 1
    assert len(set(map(id, seen))) == 1
    images.close()


def test_looking_more_often_than_the_limit_shows_the_same_image(images: PaintedImages, clock: Clock) -> None:
    key = channel_key("door")
    for index in range(20):
        images.offer(result_of(index=index))
        look(images, key)
        clock.now_s += 0.0251
    assert images.painted == 5
    (last,) = look(images, key)
    assert last is not None
    assert last.number == 20
    images.close()


def test_a_frame_that_cannot_be_painted_is_skipped_and_said_once(
    images: PaintedImages, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    key = channel_key("door")
    images.offer(result_of(index=1))
    look(images, key)
    for _ in range(3):
        clock.now_s += 1
        gray = Frame(image=np.zeros((8, 8), np.uint8), index=2, source_id="door", captured_ns=0, monotonic_ns=0)
        images.offer(Result(frame=gray))
        (shown,) = look(images, key)
        assert shown is not None
        assert shown.number == 1
    assert len(caplog.records) == 1
    clock.now_s += 1
    images.offer(result_of(index=3))
    (shown,) = look(images, key)
    assert shown is not None
    assert shown.number == 5
    images.close()


def test_sources_are_bounded_and_the_most_silent_is_forgotten(images: PaintedImages) -> None:
    for number in range(100):
        images.offer(result_of(f"camera {number}"))
        images.offer(result_of("always"))
    names = {channel.source_id for channel in images.channels()}
    assert len(names) == 64
    assert {"always", "camera 99"} <= names
    assert "camera 0" not in names
    images.close()
    assert images.channels() == ()


def test_the_details_of_an_event_are_what_a_person_reads() -> None:
    data = {
        "counter": "door",
        "total": 3,
        "class_id": 0,
        "xyxy": [1.5, 2.5],
        "point": (1, 2),
        "seen_ns": 1795846464484841860,
    }
    assert details_text(data, 200) == "counter door, total 3"
    assert details_text(data, 200, {"counter"}) == "total 3"


def test_long_details_are_cut_after_a_whole_value_and_say_so() -> None:
    numbers = {f"n{number}": 123456789 for number in range(9)}
    assert details_text(numbers, 40) == "n0 123456789, n1 123456789, …"
    assert details_text({"text": "x" * 100}, 20) == "text " + "x" * 13 + " …"
    assert details_text({"text": "x" * 15}, 20) == "text " + "x" * 15
