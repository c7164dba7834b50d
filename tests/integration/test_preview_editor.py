"""The editor's side of the server: app.toml and the pipeline change together or not at all, and only who may changes them."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgecv._internal.extras import require
from edgecv.cli.app_config import check_app, read_app_file
from edgecv.cli.app_edit import AppSteps
from edgecv.errors import ConfigError
from edgecv.pipelines.loop.step_chain import linked_steps
from edgecv.pipelines.preview.sink import PreviewSink
from edgecv.pipelines.steps import Line, Track, Zone
from edgecv.results import Result
from tests.command_line import run_here
from tests.integration.edited_app import Running, app_text, running_app
from tests.integration.preview_scene import until

TOKEN = "correct-horse-battery"
CORNERS = [[0.2, 0.2], [0.6, 0.2], [0.6, 0.8]]


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Running]:
    with running_app(tmp_path / "app.toml", app_text("cam")) as run:
        yield run


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """For edits that are refused."""
    with running_app(tmp_path_factory.mktemp("still") / "app.toml", app_text("cam")) as run:
        yield run


def steps_of(run: Running) -> tuple[Any, ...]:
    return run.pipeline._loop.chain.given


def reads_back(run: Running) -> bool:
    """Whether the file says exactly what runs."""
    return tuple(linked_steps(check_app(read_app_file(run.path), "app.toml").steps)) == steps_of(run)


def unchanged(run: Running, text: str) -> bool:
    return run.path.read_text() == text and reads_back(run) and not leftovers(run.path)


def leftovers(path: Path) -> list[Path]:
    return [one for one in path.parent.iterdir() if ".tmp" in one.name]


def test_it_says_what_can_be_drawn_over(still: Running) -> None:
    code, document = still.ask()
    assert code == 200
    assert (document["can_save"], document["reason"], document["file"]) == (True, "", "app.toml")
    assert document["sources"] == [{"name": "cam", "size_wh": [320, 240]}]
    assert document["labels"] == ["blob", "speck"]
    assert document["names"] == ["door", "yard"]
    assert [shape["name"] for shape in document["shapes"]] == ["door", "yard"]
    assert document["shapes"][0] == {
        "kind": "line",
        "name": "door",
        "points": [[160, 0], [160, 239]],
        "units": "px",
        "classes": [],
        "sources": [],
        "directions": ["in", "out"],
    }


def test_an_edit_is_in_the_file_with_its_comments_and_at_work(app: Running) -> None:
    before = app.path.read_text()
    until(lambda: sum(app.counts()[name] for name in ("door.in", "door.out")) >= 1, "a crossing")
    moved = [[0.1, 0.1], [0.5, 0.1], [0.5, 0.9], [0.1, 0.9]]
    code, document = app.edited(yard={"points": moved, "classes": ["blob"]})
    assert (code, document.get("error")) == (200, None)
    assert reads_back(app)
    text = app.path.read_text()
    assert text == before.replace("[[0.1, 0.1], [0.4, 0.1], [0.4, 0.9]", "[[0.1, 0.1], [0.5, 0.1], [0.5, 0.9]").replace(
        'units = "relative"\nsettle_s = 0.0\n', 'units = "relative"\nsettle_s = 0.0\nclasses = ["blob"]\n'
    )
    assert app.counts()["door.in"] + app.counts()["door.out"] >= 1
    until(lambda: any(event.kind == "steps.edited" for event in app.events), "the event")
    (event,) = [event for event in app.events if event.kind == "steps.edited"]
    assert event.data == {"changed": "zone 'yard' was changed (classes, points)"}


def test_shapes_are_added_renamed_turned_and_removed(app: Running) -> None:
    track = app.pipeline._loop.chain._steps[0][1]
    gate = {"kind": "line", "points": [[0.5, 0.0], [0.5, 1.0]], "directions": ["in", "out"], "sources": ["cam"]}
    code, document = app.edited(gate=gate, yard=None)
    assert (code, document.get("error")) == (200, None)
    assert [shape["name"] for shape in document["shapes"]] == ["door", "gate"]
    assert reads_back(app)
    app.wait_for_frames(2)
    assert set(app.counts()) == {"door.in", "door.out", "gate.in", "gate.out"}
    text = app.path.read_text()
    assert "# the page\n[preview]" in text
    assert "# the door to the street\n[[steps]]" in text
    assert "yard" not in text
    until(lambda: sum(app.counts()[name] for name in ("gate.in", "gate.out")) >= 1, "a crossing")
    before = app.counts()
    code, document = app.edited(gate={"name": "entry", "directions": ["enter", "leave"]}, door=None)
    assert (code, document.get("error")) == (200, None)
    assert reads_back(app)
    after = app.counts()
    assert set(after) == {"entry.enter", "entry.leave"}
    assert after["entry.enter"] >= before["gate.in"], "a name that became another keeps its totals"
    assert after["entry.leave"] >= before["gate.out"]
    assert app.pipeline._loop.chain._steps[0][1] is track, "the tracker goes on"


def test_what_is_sent_back_as_it_was_changes_not_a_byte(still: Running) -> None:
    before = still.path.stat()
    assert still.edited()[0] == 200
    assert still.path.stat() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"yard": {"points": [[0, 0], [1, 1], [1, 0], [0, 1]]}},
            "The border of zone 'yard' touches or crosses itself.",
        ),
        ({"yard": {"points": [[0, 0], [1, 1]]}}, "points"),
        ({"yard": {"points": [[0, 0], [2, 1], [1, 0]]}}, "outside 0 to 1"),
        ({"yard": {"classes": ["perso"]}}, "perso"),
        ({"yard": {"sources": ["cem"]}}, "for the source 'cem'"),
        ({"door": {"name": "yard"}}, "Two steps are named 'yard'"),
        ({"door": {"was": "nobody"}}, "'nobody' is no line"),
        ({"door": {"kind": "zone", "directions": None}}, "'door' is no zone"),
    ],
)
def test_what_does_not_fit_is_told_and_changes_nothing(still: Running, changes: dict[str, Any], message: str) -> None:
    before, steps = still.path.read_text(), steps_of(still)
    code, answer = still.edited(**changes)
    assert code == 422
    assert message in answer["error"] + answer["hint"]
    assert steps_of(still) == steps
    assert unchanged(still, before)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", 400),
        (b"\xff", 400),
        (b"[" * 100_000, 400),
        ({"version": "x"}, 400),
        ({"version": "x", "shapes": [{"kind": "track", "name": "t", "points": []}]}, 400),
        ({"version": "x", "shapes": [{"kind": "line", "name": "../x", "points": [[0, 0], [1, 1]]}]}, 400),
        ({"version": "x", "shapes": [{"kind": "line", "name": "a", "points": [], "state": "/etc/x"}]}, 400),
        ({"version": "x", "shapes": [{"kind": "line", "name": "a", "points": [], "python": "os:system"}]}, 400),
        ({"version": "x", "shapes": [], "path": "/etc/passwd"}, 400),
        ({"version": "x", "shapes": [], "sinks": ["jsonl:/tmp/x"]}, 400),
        ({"version": "x", "shapes": [{"kind": "zone", "name": "a", "points": [[0, 0]] * 300}]}, 400),
        (b" " * (1 << 19), 413),
        ({"version": "x", "shapes": []}, 409),
    ],
)
def test_nothing_but_lines_and_zones_can_be_said(still: Running, body: Any, code: int) -> None:
    before = still.path.read_text()
    assert still.ask("PUT", body)[0] == code
    assert unchanged(still, before)


def test_the_second_of_two_editors_is_told_what_the_first_one_did(app: Running) -> None:
    first, second = app.ask()[1], app.ask()[1]
    assert app.edited(door=None)[0] == 200
    before = app.path.read_text()
    shapes = [{**shape, "was": shape["name"]} for shape in second["shapes"]]
    code, answer = app.ask("PUT", {"version": first["version"], "shapes": shapes})
    assert code == 409
    assert "line 'door' was removed. Nothing was overwritten." in answer["error"]
    assert unchanged(app, before)


def test_of_many_editors_at_once_one_is_heard(app: Running) -> None:
    document = app.ask()[1]
    codes: list[int] = []

    def save(number: int) -> None:
        shapes = [{**shape, "was": shape["name"]} for shape in document["shapes"]]
        shapes.append({"kind": "zone", "name": f"z{number}", "points": CORNERS})
        codes.append(app.ask("PUT", {"version": document["version"], "shapes": shapes})[0])

    threads = [threading.Thread(target=save, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20.0)
    assert sorted(codes) == [200, *[409] * 5]
    assert len(app.ask()[1]["shapes"]) == 3
    assert reads_back(app)


def test_a_file_that_was_changed_by_hand_is_not_overwritten(app: Running) -> None:
    version = app.ask()[1]["version"]
    by_hand = app.path.read_text().replace("settle_s = 0.0", "settle_s = 0.5", 1)
    app.path.write_text(by_hand)
    code, answer = app.ask("PUT", {"version": version, "shapes": []})
    assert code == 409
    assert "app.toml was changed by hand: line 'door' was changed (settle_s)" in answer["error"]
    document = app.ask()[1]
    assert not document["can_save"]
    assert "Start again" in document["reason"]
    assert app.path.read_text() == by_hand


@pytest.mark.parametrize("kept", ["the last step", "no step"])
def test_first_steps_that_were_removed_by_hand_are_missed(app: Running, kept: str) -> None:
    text = app.path.read_text()
    first, end = (
        text.index("[[steps]]"),
        text.index('[[steps]]\ntype = "zone"' if kept == "the last step" else "# the page"),
    )
    by_hand = text[:first] + text[end:]
    app.path.write_text(by_hand)
    document = app.ask()[1]
    assert not document["can_save"]
    assert "app.toml was changed by hand" in document["reason"]
    assert "line 'door' was removed" in document["reason"]
    assert app.edited(yard={"points": [[0.2, 0.2], [0.4, 0.2], [0.4, 0.9]]})[0] == 409
    assert app.path.read_text() == by_hand


def test_a_pipe_in_the_place_of_the_file_holds_nobody_up(app: Running) -> None:
    text = app.path.read_text()
    app.path.unlink()
    os.mkfifo(app.path)
    assert "is no file any more" in app.ask()[1]["reason"]
    app.path.unlink()
    app.path.write_text(text)
    assert app.ask()[1]["can_save"]


def test_another_part_of_the_file_may_be_changed_by_hand_and_stays(app: Running) -> None:
    version = app.ask()[1]["version"]
    app.path.write_text(app.path.read_text().replace("# my cameras", "# our cameras\nmax_frames = 1000000"))
    code, answer = app.ask("PUT", {"version": version, "shapes": []})
    assert code == 409, "it was read before"
    assert "with the same lines and zones" in answer["error"]
    assert app.edited(door=None)[0] == 200
    assert app.path.read_text().startswith("# our cameras\nmax_frames = 1000000\n")
    app.path.write_text("sinks = 3")
    code, answer = app.edited(yard=None)
    assert code in (409, 422)
    app.path.unlink()
    assert "cannot be read any more" in app.ask()[1]["reason"]


def test_without_leave_nothing_is_changed_and_the_shapes_are_shown(tmp_path: Path) -> None:
    with running_app(tmp_path / "app.toml", app_text("cam"), edit=False) as run:
        before = run.path.read_text()
        document = run.ask()[1]
        assert not document["can_save"]
        assert "--edit" in document["reason"]
        assert len(document["shapes"]) == 2
        code, answer = run.edited(door=None)
        assert (code, answer["error"]) == (403, document["reason"])
        assert unchanged(run, before)


def test_a_page_without_an_app_knows_no_shapes() -> None:
    sink = PreviewSink(0)
    run = Running.__new__(Running)
    run.sink = sink
    try:
        document = run.ask()[1]
        assert (document["can_save"], document["shapes"]) == (False, [])
        assert run.ask("PUT", {"version": "", "shapes": []})[0] == 403
    finally:
        sink.close()


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
        {"Host": "evil.example"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": ""},
    ],
    ids=str,
)
def test_another_page_cannot_edit_although_there_is_no_token(still: Running, headers: dict[str, str]) -> None:
    before, document = still.path.read_text(), still.ask()[1]
    body = {"version": document["version"], "shapes": []}
    assert still.ask("PUT", body, headers)[0] in (403, 415, 421)
    assert unchanged(still, before)


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE", "OPTIONS"])
def test_no_other_way_leads_to_an_edit(still: Running, method: str) -> None:
    assert still.ask(method, {"version": still.ask()[1]["version"], "shapes": []})[0] == 405


def test_a_token_is_asked_for_before_anything_else(tmp_path: Path) -> None:
    with running_app(tmp_path / "app.toml", app_text("cam"), token=TOKEN) as run:
        before = run.path.read_text()
        assert run.ask()[0] == 401
        assert run.ask("PUT", {"version": "", "shapes": []})[0] == 401
        assert run.ask("PUT", {"version": "", "shapes": []}, {"Authorization": "Bearer wrong-horse-battery"})[0] == 401
        assert unchanged(run, before)
        assert run.ask(headers={"Authorization": f"Bearer {TOKEN}"})[0] == 200


def test_permissions_stay_and_so_does_a_link(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    real = tmp_path / "etc" / "real.toml"
    real.write_text(app_text("cam"))
    real.chmod(0o640)
    link = tmp_path / "app.toml"
    link.symlink_to(real)
    with running_app(link) as run:
        assert run.edited(door=None)[0] == 200
        assert link.is_symlink()
        assert "door" not in read_names(real)
        assert stat.S_IMODE(real.stat().st_mode) == 0o640
        assert not leftovers(real)


def read_names(path: Path) -> list[str]:
    return [step["name"] for step in read_app_file(path).steps if "name" in step]


def test_a_file_that_may_not_be_written_leaves_the_pipeline_as_it_was(app: Running) -> None:
    before, steps = app.path.read_text(), steps_of(app)
    app.path.chmod(0o444)
    assert "app.toml may not be written" in app.ask()[1]["reason"]
    code, answer = app.edited(door=None)
    assert code == 422
    assert "may not be written" in answer["error"]
    assert steps_of(app) == steps
    assert unchanged(app, before)


def test_a_disk_that_refuses_leaves_both_as_they_were(app: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    before, steps, built = app.path.read_text(), steps_of(app), app.pipeline._loop.chain._steps

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    for call in ("fsync", "fchmod", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, full)
            patch.setattr(Path, "replace", full if call == "replace" else Path.replace)
            code, answer = app.edited(door=None)
        assert code == 500, call
        assert "No space left on device. The pipeline goes on as it was." in answer["error"]
        assert steps_of(app) == steps
        assert unchanged(app, before)
        assert call == "replace" or app.pipeline._loop.chain._steps == built


def test_a_counter_with_a_state_file_keeps_it_and_its_name(tmp_path: Path) -> None:
    state = tmp_path / "door.json"
    text = app_text("cam").replace('name = "door"', f'name = "door"\nstate = "{state}"')
    with running_app(tmp_path / "app.toml", text) as run:
        until(lambda: run.counts()["door.in"] + run.counts()["door.out"] >= 1, "a crossing")
        before = run.counts()["door.in"]
        code, document = run.edited(door={"points": [[0.5, 0.0], [0.5, 1.0]], "units": "relative"})
        assert (code, document.get("error")) == (200, None)
        assert run.counts()["door.in"] >= before
        assert reads_back_with_state(run, state)
        code, answer = run.edited(door={"name": "gate"})
        assert code == 422
        assert "keeps its counts in a file" in answer["error"]
    assert '"door"' in state.read_text()


def reads_back_with_state(run: Running, state: Path) -> bool:
    line = check_app(read_app_file(run.path), "app.toml").steps[1]
    return isinstance(line, Line) and line.state == str(state) and line == steps_of(run)[1]


def test_a_rule_follows_the_zone_that_it_names(tmp_path: Path) -> None:
    rule = '\n[[steps]]\ntype = "crowd"\nname = "full"\nzone = "yard"\nleast = 1\n\n# the page\n'
    with running_app(tmp_path / "app.toml", app_text("cam").replace("\n# the page\n", rule)) as run:
        corners = [[0.2, 0.2], [0.6, 0.2], [0.6, 0.9], [0.2, 0.9]]
        code, document = run.edited(yard={"points": corners})
        assert (code, document.get("error")) == (200, None)
        crowd = steps_of(run)[3]
        assert crowd.points == tuple(map(tuple, corners))
        before = run.path.read_text()
        code, answer = run.edited(yard={"name": "court"})
        assert code == 422
        assert "'yard'" in answer["error"]
        assert run.path.read_text() == before


def test_steps_of_the_command_line_are_no_part_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "app.toml"
    path.write_text("[preview]\nport = 8080\nedit = true\n")
    file = read_app_file(path)
    file = msgspec.structs.replace(file, steps=[{"type": "track"}, *file.steps])  # as --track does
    editor = AppSteps(check_app(file, "app.toml"), path)
    with running_app(tmp_path / "other.toml", app_text("cam")) as run:
        editor.attach(run.pipeline)
        version, tables = editor.read()
        assert tables == [{"type": "track"}]
        shape = {"kind": "zone", "name": "new", "points": CORNERS}
        edits = require("edgecv.pipelines.preview.editor.shapes", "preview")
        editor.save(msgspec.convert({"version": version, "shapes": [shape]}, edits.Edit))
        zone = Zone(name="new", points=((0.2, 0.2), (0.6, 0.2), (0.6, 0.8)), units="relative")
        assert steps_of(run) == tuple(linked_steps([Track(), zone]))
    assert read_app_file(path).steps == [{"type": "zone", "name": "new", "points": CORNERS, "units": "relative"}]


def test_an_edit_needs_a_file(tmp_path: Path) -> None:
    path = tmp_path / "app.toml"
    path.write_text(app_text("cam"))
    with pytest.raises(ConfigError, match="there is none"):
        AppSteps(check_app(read_app_file(path), "app.toml"), None)


# --- the figure: an edit of a zone under load ---


def test_an_edit_under_load_is_applied_at_once_and_loses_no_frame(tmp_path: Path) -> None:
    figures = edit_under_load(tmp_path, cameras=2, edits=6, policy="lossless")
    assert sorted(figures["applied_s"])[3] <= 1.0
    assert figures["gaps"] == 0
    assert figures["ids_kept"]
    assert figures["totals_kept"]


def edit_under_load(tmp_path: Path, cameras: int, edits: int, policy: str) -> dict[str, Any]:
    """Cameras at 25 frames per second, and a corner of the zone that is moved again and again.

    ``applied_s`` is the time from the request to the first result of the new zone. With ``lossless`` every frame that is
    missing was lost on the way; with ``auto`` the machine may be too slow for one, with and without an edit.
    """
    names = [f"cam{number}" for number in range(cameras)]
    with running_app(tmp_path / "app.toml", app_text(*names, fps=25, policy=policy)) as run:
        run.wait_for_frames(10 * cameras)
        first, applied_s, totals_kept = len(run.results), [], True
        for at in range(edits):
            before = {name: run.counts(name) for name in names}
            corner = round(0.4 + 0.01 * (at + 1), 4)
            began = time.monotonic()
            code, answer = run.edited(yard={"points": [[0.1, 0.1], [corner, 0.1], [corner, 0.9], [0.1, 0.9]]})
            assert code == 200, answer
            until(lambda corner=corner: right_edge(run.results[-1]) == pytest.approx(320 * corner), "it is met")  # type: ignore[misc]
            applied_s.append(time.monotonic() - began)
            run.wait_for_frames(5 * cameras)
            for name in names:
                now = run.counts(name)
                totals_kept &= all(now[one] >= count for one, count in before[name].items() if ".inside" not in one)
        results = run.results[first:]
    indices = [[result.frame.index for result in results if result.frame.source_id == name] for name in names]
    seen = {
        (r.frame.source_id, int(one)) for r in results if r.detections is not None for one in r.detections.tracker_id
    }
    return {
        "applied_s": applied_s,
        "frames": len(results),
        "gaps": sum(one[-1] - one[0] + 1 - len(one) for one in indices),
        "ids_kept": len({one for one in seen if one[1] >= 0}) == cameras,
        "totals_kept": totals_kept,
    }


def right_edge(result: Result) -> float:
    """Of the zone, as it is drawn into a result."""
    return max(x for overlay in result.overlays if overlay.name == "yard" for x, _ in overlay.points)


def test_the_command_line_says_what_an_edit_needs(tmp_path: Path) -> None:
    path = tmp_path / "app.toml"
    path.write_text(app_text("cam", steps='[[steps]]\ntype = "track"\n'))
    without_page = run_here("run", "--config", path, "--edit")
    assert without_page.returncode == 2
    assert "--preview PORT, which is missing" in without_page.stderr
    without_file = run_here("run", "blob.ecv", "--source", "synthetic://", "--preview", 0, "--edit")
    assert without_file.returncode == 2
    assert "--edit writes into an app.toml, and there is none." in without_file.stderr
