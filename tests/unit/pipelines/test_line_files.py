"""Files of lines that a service goes on with, and that others rotate, cut and fill the disk of."""

from __future__ import annotations

import csv
import errno
import json
import os
import resource
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgecv.errors import ConfigError, SinkError
from edgecv.pipelines.sinks import open_sink
from edgecv.protocols import Sink
from tests.conftest import names_in
from tests.unit.pipelines.made_results import made_result

KINDS = ["jsonl", "csv"]
PERSONAL_HEADER = b"a,b,c\r\n"


def frames(path: Path) -> list[int]:
    """The numbers of the frames in a file, each line of which has to be whole."""
    data = path.read_bytes()
    assert data.endswith(b"\n")
    assert b"\0" not in data
    if path.suffix == ".csv" or ".csv." in path.name:
        rows = list(csv.DictReader(data.decode().splitlines()))
        assert all(None not in row.values() for row in rows)
        return [int(row["index"]) for row in rows]
    return [json.loads(line)["index"] for line in data.splitlines()]


def write(sink: Sink, *numbers: int) -> None:
    for number in numbers:
        sink.emit(made_result(number / 10))


def append(path: Path, *numbers: int, more: str = "") -> None:
    sink = open_sink(f"{path.suffix[1:]}:{path}?append=1{more}")
    write(sink, *numbers)
    sink.close()


@contextmanager
def full_disk(most_bytes: int) -> Iterator[None]:
    """No file of this process grows beyond that; the error comes after as much as fits, as with a disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_gone_on_with_when_asked_and_refused_otherwise(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"out.{kind}"
    append(path, 1, 2)
    append(path, 3)
    assert frames(path) == [1, 2, 3]
    with pytest.raises(ConfigError, match="exists") as refused:
        open_sink(f"{kind}:{path}")
    assert "append=1" in refused.value.hint
    assert all(f"{scheme}:" in refused.value.hint for scheme in ("jsonl", "csv", "counts")), "all that go on"
    open_sink(f"{kind}:{path}?append=1", overwrite=True).close()  # --force of the command line
    assert frames(path) == [1, 2, 3]
    open_sink(f"{kind}:{path}", overwrite=True).close()
    assert path.read_bytes().count(b"\n") == (kind == "csv")


@pytest.mark.parametrize("kind", KINDS)
def test_every_cut_of_the_last_line_is_mended(tmp_path: Path, kind: str) -> None:
    append(tmp_path / f"whole.{kind}", 1, 2)
    data = (tmp_path / f"whole.{kind}").read_bytes()
    path = tmp_path / f"out.{kind}"
    for size in range(0, len(data), 7):
        path.write_bytes(data[:size])
        append(path, 3)
        assert frames(path)[-1] == 3
        assert set(frames(path)) <= {1, 2, 3}


def test_a_last_line_that_only_lacks_its_end_stays(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    append(path, 1, 2)
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    append(path, 3)
    assert frames(path) == [1, 2, 3]


def test_half_a_line_longer_than_a_block_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    append(path, 1)
    with path.open("ab") as file:
        file.write(b'{"masks": "' + b"x" * 300_000)
    append(path, 2)
    assert frames(path) == [1, 2]


def test_a_table_with_other_columns_is_not_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_bytes(PERSONAL_HEADER + b"1,2,3\r\n")
    with pytest.raises(ConfigError, match="other columns"):
        append(path, 1)
    assert path.read_bytes() == PERSONAL_HEADER + b"1,2,3\r\n"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["my notes", "one\ntwo", '{"name": "settings", "x": 1}', "{", "s\n", "\n"])
def test_a_file_of_somebody_else_is_neither_mended_nor_gone_on_with(tmp_path: Path, kind: str, text: str) -> None:
    path = tmp_path / f"out.{kind}"
    path.write_text(text)
    if (kind, text) == ("jsonl", "{"):
        append(path, 1)  # what a power cut leaves
        assert frames(path) == [1]
        return
    with pytest.raises(ConfigError):
        append(path, 1)
    assert path.read_text() == text


def test_a_table_that_a_spreadsheet_saved_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    append(path, 1)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\r\n", b"\n"))
    append(path, 2)
    assert len(list(csv.reader(path.read_text("utf-8-sig").splitlines()))) == 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("query", ["", "?append=1", "?overwrite=1"])
def test_logrotate_by_copy_and_by_name(tmp_path: Path, kind: str, query: str) -> None:
    path = tmp_path / f"out.{kind}"
    sink = open_sink(f"{kind}:{path}{query}")
    write(sink, 1, 2)
    shutil.copy(path, tmp_path / f"copied.{kind}")
    os.truncate(path, 0)  # copytruncate
    write(sink, 3)
    assert frames(path) == [3]
    path.rename(tmp_path / f"renamed.{kind}")
    write(sink, 4)
    path.unlink()
    write(sink, 5, 6)
    sink.close()
    assert frames(path) == [5, 6]
    assert frames(tmp_path / f"renamed.{kind}") == [3]
    assert frames(tmp_path / f"copied.{kind}") == [1, 2]


def test_a_name_that_leads_elsewhere_meanwhile_is_not_written_through(tmp_path: Path) -> None:
    path, victim = tmp_path / "out.jsonl", tmp_path / "victim"
    victim.write_bytes(b"precious\n")
    sink = open_sink(f"jsonl:{path}")
    write(sink, 1)
    path.rename(tmp_path / "moved.jsonl")
    path.symlink_to(victim)
    with pytest.raises(SinkError, match="link"):
        write(sink, 2)
    path.unlink()
    write(sink, 3)
    sink.close()
    assert (frames(path), victim.read_bytes()) == ([3], b"precious\n")


def test_a_folder_that_is_away_for_a_while_costs_only_what_came_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "dir" / "out.jsonl"
    path.parent.mkdir()
    sink = open_sink(f"jsonl:{path}")
    write(sink, 1)
    path.parent.rename(tmp_path / "away")
    with pytest.raises(SinkError, match="cannot be written"):
        write(sink, 2)
    path.parent.mkdir()
    write(sink, 3)
    sink.close()
    assert (frames(path), frames(tmp_path / "away" / "out.jsonl")) == ([3], [1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("room", [1, 50, 100])
def test_after_a_full_disk_it_goes_on_and_no_line_is_half(tmp_path: Path, kind: str, room: int) -> None:
    path = tmp_path / f"out.{kind}"
    sink = open_sink(f"{kind}:{path}")
    write(sink, 1)
    with full_disk(path.stat().st_size + room):
        for number in (2, 3):
            with pytest.raises(SinkError, match=os.strerror(errno.EFBIG)):
                sink.emit(made_result(number / 10, class_ids=(0, 1) * 40))
        assert frames(path) == [1]
    write(sink, 4)
    sink.close()
    assert frames(path) == [1, 4]


@pytest.mark.parametrize("kind", KINDS)
def test_files_rotate_by_size_and_the_oldest_go(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"out.{kind}"
    append(path, *range(40), more="&max_mb=0.001&keep=3")
    append(path, *range(40, 60), more="&max_mb=0.001&keep=3")
    names = [f"out.{kind}", f"out.{kind}.1", f"out.{kind}.2", f"out.{kind}.3"]
    assert names_in(tmp_path) == names
    numbers = [number for name in reversed(names) for number in frames(tmp_path / name)]
    assert numbers == list(range(60 - len(numbers), 60))
    assert all((tmp_path / name).stat().st_size <= 1000 for name in names)


def test_a_new_day_begins_a_new_file_also_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    append(path, 1, more="&every=day")
    append(path, 2, more="&every=day")
    assert names_in(tmp_path) == ["out.jsonl"]
    yesterday = time.time() - 24 * 3600
    os.utime(path, (yesterday, yesterday))
    append(path, 3, more="&every=day")
    assert (frames(tmp_path / "out.jsonl.1"), frames(path)) == ([1, 2], [3])
    tomorrow = time.time() + 40 * 24 * 3600  # the clock was wrong, and is right again
    os.utime(path, (tomorrow, tomorrow))
    append(path, 4, more="&every=day&keep=1")
    assert (frames(tmp_path / "out.jsonl.1"), frames(path)) == ([1, 2], [3, 4])


@pytest.mark.parametrize("query", ["append=1", "max_mb=1", "every=day"])
def test_standard_output_is_neither_gone_on_with_nor_rotated(query: str) -> None:
    with pytest.raises(ConfigError, match="Standard output"):
        open_sink(f"jsonl:-?{query}")


@pytest.mark.parametrize("query", ["every=week", "keep=0", "max_mb=-1", "apend=1"])
def test_wrong_options_are_refused(tmp_path: Path, query: str) -> None:
    with pytest.raises(ConfigError):
        open_sink(f"jsonl:{tmp_path / 'x.jsonl'}?{query}")
    assert names_in(tmp_path) == []


def test_a_pipe_with_a_name_is_written_to(tmp_path: Path) -> None:
    path = tmp_path / "pipe.jsonl"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    append(path, 1)
    assert json.loads(os.read(reader, 65536))["index"] == 1
    os.close(reader)
