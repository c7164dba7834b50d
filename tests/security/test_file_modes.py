"""What is written is for its owner alone, and where it was meant to be: no link leads it elsewhere, no name breaks out."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgecv._internal.atomic import write_private
from edgecv._internal.private_files import create_private, make_private_folder, open_private
from edgecv._internal.secret_files import read_secret
from edgecv.errors import ConfigError, EdgeCVError
from edgecv.media.images import write_image
from edgecv.media.video_writer import VideoWriter
from edgecv.pipelines.recording.sink import RecordSink
from edgecv.pipelines.sinks import open_sink
from edgecv.pipelines.sinks.video.segments import SegmentsSink
from edgecv.pipelines.sinks.video.snapshots import SnapshotsOptions, SnapshotsSink
from edgecv.pipelines.steps.count.totals import CounterFile
from edgecv.protocols import Sink
from tests.cameras.mjpeg_server import mjpeg_server
from tests.conftest import CHECKOUT
from tests.integration.preview_scene import make_result
from tests.models import write_bundle

DEADLINE_S = 60.0
UNIT = CHECKOUT / "docs/examples/edgecv.service"


@pytest.fixture(params=[0o000, 0o022], ids=["umask 000", "umask 022"])
def generous(request: pytest.FixtureRequest) -> Iterator[None]:
    """A umask that takes little or nothing away."""
    before = os.umask(request.param)
    yield
    os.umask(before)


def modes(folder: Path) -> set[int]:
    """Permissions of everything in a folder, and of itself."""
    return {stat.S_IMODE(path.lstat().st_mode) for path in [folder, *folder.rglob("*")]}


def emit(sink: Sink, name: str = "door") -> None:
    for index in range(3):
        sink.emit(make_result(index, name))
    sink.close()


def open_one(kind: str, target: Path) -> Sink:
    if kind == "snapshots":
        return SnapshotsSink(target, options=SnapshotsOptions(on="all", every_s=0.0))
    return RecordSink(target) if kind == "record" else SegmentsSink(target)


# --- permissions ---


@pytest.mark.parametrize("kind", ["snapshots", "segments", "record"])
@pytest.mark.usefixtures("generous")
def test_what_cameras_saw_is_for_its_owner_alone(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "seen.rec"
    emit(open_one(kind, target))
    assert len(list(target.rglob("*"))) >= 2
    assert modes(target) <= {0o700, 0o600}
    assert stat.S_IMODE(target.stat().st_mode) == 0o700


@pytest.mark.usefixtures("generous")
def test_an_existing_folder_keeps_its_permissions_and_new_files_are_private(tmp_path: Path) -> None:
    target = tmp_path / "shared"
    target.mkdir()
    before = stat.S_IMODE(target.stat().st_mode)
    (target / ".edgecv.jpg.lock").touch(0o644)  # of an earlier version
    emit(open_one("snapshots", target))
    assert stat.S_IMODE(target.stat().st_mode) == before
    assert {stat.S_IMODE(path.stat().st_mode) for path in target.iterdir()} == {0o600}


@pytest.mark.usefixtures("generous")
def test_counts_that_survive_a_restart_are_private(tmp_path: Path) -> None:
    file = CounterFile(tmp_path / "door.json", "door")
    file.join("cam")
    assert file.write("cam", {"in": 3}) == ""
    file.leave("cam")
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def run_edgecv(folder: Path, *arguments: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "edgecv", "run", *arguments],
        cwd=folder,
        umask=0o022,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _, said = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
    assert process.returncode == 0, said


APP = """
sinks = ["jsonl:service.jsonl?overwrite=1", "csv:service.csv", "video:service.mp4"]
[model]
bundle = "tiny.ecv"
[[sources]]
uri = "synthetic://?frames=5"
"""


def test_results_of_a_service_are_private_and_those_of_a_clip_follow_the_umask(tmp_path: Path) -> None:
    write_bundle(tmp_path / "tiny.ecv")
    (tmp_path / "app.toml").write_text(APP)
    (tmp_path / "service.jsonl").touch(0o644)  # of an earlier version: it is replaced, permissions and all
    run_edgecv(tmp_path, "--config", "app.toml")
    run_edgecv(tmp_path, "tiny.ecv", "--source", "synthetic://?frames=5", "--out", "jsonl:mine.jsonl")
    assert len((tmp_path / "service.jsonl").read_text().splitlines()) == 5
    found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert {found[name] for name in ("service.jsonl", "service.csv", "service.mp4")} == {0o600}
    assert found["mine.jsonl"] == 0o644


def test_results_of_a_camera_are_private(tmp_path: Path) -> None:
    write_bundle(tmp_path / "tiny.ecv")
    with mjpeg_server() as camera:
        source = f"http://{camera.host}/video"
        run_edgecv(tmp_path, "tiny.ecv", "--source", source, "--max-frames", "3", "--out", "jsonl:cam.jsonl")
    assert stat.S_IMODE((tmp_path / "cam.jsonl").stat().st_mode) == 0o600


# --- links and names ---


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim"
    path.write_text("mine")
    return path


@pytest.mark.parametrize("target", ["jsonl:{}.jsonl", "csv:{}.csv", "video:{}.mp4", "video:{}.mkv"])
def test_a_result_is_never_written_through_a_link(tmp_path: Path, victim: Path, target: str) -> None:
    uri = target.format(tmp_path / "out")
    link = Path(uri.partition(":")[2])
    link.symlink_to(victim)
    for more in ("", "?overwrite=1"):
        with pytest.raises(ConfigError) as caught:
            open_sink(uri + more)
        assert caught.value.hint
    assert victim.read_text() == "mine"
    link.unlink()
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError):
        open_sink(uri)
    assert not (tmp_path / "nowhere").exists()


def test_a_result_that_is_replaced_leaves_other_names_of_the_old_file_alone(tmp_path: Path, victim: Path) -> None:
    victim.write_text('{"index": 0, "source_id": "a", "captured_ns": 1, "detections": []}\n')
    before = victim.read_text()
    os.link(victim, tmp_path / "out.jsonl")
    sink = open_sink(f"jsonl:{tmp_path / 'out.jsonl'}?overwrite=1")
    emit(sink)
    assert victim.read_text() == before


def test_an_image_replaces_a_link_or_refuses_it(tmp_path: Path, victim: Path) -> None:
    (tmp_path / "out.jpg").symlink_to(victim)
    with pytest.raises(EdgeCVError):
        write_image(tmp_path / "out.jpg", np.zeros((4, 4, 3), np.uint8))
    assert victim.read_text() == "mine"


def test_a_video_goes_into_the_file_that_was_made_whatever_takes_its_name(tmp_path: Path, victim: Path) -> None:
    path = tmp_path / "out.mp4"
    writer = VideoWriter(path, 10.0)
    path.rename(tmp_path / "kept.mp4")
    path.symlink_to(victim)
    for index in range(3):
        writer.write(make_result(index).frame.image, index / 10)
    writer.close()
    assert victim.read_text() == "mine"
    assert (tmp_path / "kept.mp4").stat().st_size > 0


def test_snapshots_replace_links_that_wait_where_they_are_written(tmp_path: Path, victim: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    result = make_result(0, "door")
    with_time = SnapshotsSink(folder, options=SnapshotsOptions(on="all"))
    stem = with_time._ring.new_stem(result.frame.captured_ns, "door", ".jpg")
    for suffix in (".jpg", ".json"):
        (folder / f".{stem}{suffix}.tmp").symlink_to(victim)
    with_time.emit(result)
    with_time.close()
    assert victim.read_text() == "mine"
    assert json.loads((folder / f"{stem}.json").read_text())
    assert not any(path.is_symlink() for path in folder.iterdir())


@pytest.mark.parametrize("lock", [".edgecv.jpg.lock"])
def test_a_lock_is_not_made_through_a_link(tmp_path: Path, lock: str) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    (folder / lock).symlink_to(tmp_path / "made")
    with pytest.raises(EdgeCVError):
        SnapshotsSink(folder)
    assert not (tmp_path / "made").exists()


def test_counts_replace_a_link(tmp_path: Path, victim: Path) -> None:
    (tmp_path / ".door.json.tmp").symlink_to(victim)
    file = CounterFile(tmp_path / "door.json", "door")
    file.join("cam")
    assert file.write("cam", {"in": 3}) == ""
    file.leave("cam")
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("kind", ["snapshots", "segments", "record"])
@pytest.mark.parametrize(
    "name", ["../../out", "/etc/out", "a\n\x1b[31mb", "..", "ü" * 300, "x" * 5000, "\0", ".hidden"]
)
def test_the_name_of_a_source_never_leaves_the_folder(tmp_path: Path, kind: str, name: str) -> None:
    target = tmp_path / "inside" / "seen.rec"
    target.parent.mkdir()
    emit(open_one(kind, target), name)
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]
    assert [path.name for path in target.parent.iterdir()] == ["seen.rec"]
    names = [path.name for path in target.rglob("*") if not path.name.endswith(".lock")]
    assert names
    assert all(len(name) < 128 and name.isascii() and name.isprintable() for name in names)


# --- the functions themselves ---


@pytest.mark.usefixtures("generous")
def test_private_folders_and_files(tmp_path: Path) -> None:
    make_private_folder(tmp_path / "a" / "b", parents=True)
    write_private(tmp_path / "a" / "b" / "file", b"x")
    os.close(create_private(tmp_path / "a" / "new"))
    os.close(open_private(tmp_path / "a" / "lock"))
    (tmp_path / "a" / "wide").touch(0o666)
    os.close(open_private(tmp_path / "a" / "wide"))
    assert modes(tmp_path / "a") == {0o700, 0o600}
    make_private_folder(tmp_path / "a")
    with pytest.raises(FileExistsError):
        make_private_folder(tmp_path / "a", exist_ok=False)
    with pytest.raises(FileExistsError):
        make_private_folder(tmp_path / "a" / "new")
    with pytest.raises(FileExistsError):
        create_private(tmp_path / "a" / "new")


def test_what_could_not_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_private(tmp_path / "folder", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_secret_is_checked_and_read_from_one_descriptor_and_never_too_long(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(b"x" * 1_000_000)
    (tmp_path / "long").chmod(0o600)
    with pytest.raises(ConfigError, match="too long"):
        read_secret(tmp_path / "long")


# --- the unit of the service ---


def test_the_unit_closes_what_the_service_does_not_need() -> None:
    lines = {line.partition("=")[0]: line.partition("=")[2] for line in UNIT.read_text().splitlines() if "=" in line}
    expected = {
        "UMask": "0077",
        "StateDirectoryMode": "0700",
        "NoNewPrivileges": "true",
        "ProtectSystem": "strict",
        "ProtectHome": "true",
        "PrivateTmp": "true",
        "CapabilityBoundingSet": "",
        "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX AF_NETLINK",
        "MemoryMax": "1G",
    }
    assert {name: lines.get(name) for name in expected} == expected
    assert lines["User"] != "root"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on this machine")
def test_systemd_understands_the_unit_and_finds_it_well_closed(tmp_path: Path) -> None:
    unit = tmp_path / "edgecv.service"
    unit.write_text(UNIT.read_text().replace("/opt/edgecv/.venv/bin/edgecv", "/bin/true"))
    verified = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert (verified.returncode, verified.stderr) == (0, "")
    security = ["systemd-analyze", "security", "--offline=true", "--threshold=25", str(unit)]
    judged = subprocess.run(security, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert judged.returncode == 0, judged.stdout[-300:]
