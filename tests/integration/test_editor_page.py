"""The editor as people use it, in headless Chromium: lines and zones are drawn with the mouse, and counted by the next frame."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgecv.cli.app_config import check_app, read_app_file
from edgecv.pipelines.loop.step_chain import linked_steps
from edgecv.pipelines.preview.sink import PreviewSink
from tests.integration.edited_app import Running, app_text, running_app
from tests.integration.preview_scene import Scene
from tests.integration.test_preview_page import (
    EVIL,
    PHONE,
    camera,
    chromium,
    moves,
    opened,
    showing,
    wait_for,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Running]:
    with running_app(tmp_path / "app.toml", app_text("cam", "side")) as run:
        yield run


class Editor:
    """The editor of one camera on a page: places are shares of its image."""

    def __init__(self, page: Page, name: str = "cam") -> None:
        self.page, self.card = page, camera(page, name) if name else page.locator("article")
        self.card.get_by_role("button", name="Lines and zones").click()
        self.svg = self.card.locator("svg.shapes")
        self.panel = self.card.locator(".editor")
        wait_for(page, lambda: self.svg.get_attribute("viewBox"), "the shapes are there")

    def place(self, at: tuple[float, float]) -> tuple[float, float]:
        box = self.svg.bounding_box()
        assert box is not None
        return box["x"] + at[0] * box["width"], box["y"] + at[1] * box["height"]

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.svg.scroll_into_view_if_needed()
        self.page.mouse.move(*self.place(start))
        self.page.mouse.down()
        self.page.mouse.move(*self.place(((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)))
        self.page.mouse.move(*self.place(end))
        self.page.mouse.up()

    def click(self, *places: tuple[float, float]) -> None:
        self.svg.scroll_into_view_if_needed()
        for at in places:
            self.page.mouse.click(*self.place(at))

    def press(self, name: str) -> None:
        self.panel.get_by_role("button", name=name, exact=True).click()

    def fill(self, title: str, text: str) -> None:
        self.panel.get_by_label(title, exact=True).fill(text)

    def corners(self) -> Locator:
        return self.svg.locator(".corner")

    def says(self, text: str) -> None:
        self.panel.get_by_role("status").filter(has_text=text).wait_for()

    def save(self) -> None:
        self.press("Save")
        self.says("Saved in app.toml")

    @property
    def toml(self) -> str:
        return self.panel.locator("pre").inner_text()


def steps_in(run: Running) -> dict[str, dict[str, Any]]:
    return {step["name"]: step for step in read_app_file(run.path).steps if "name" in step}


def is_at_work(run: Running) -> bool:
    return tuple(linked_steps(check_app(read_app_file(run.path), "app.toml").steps)) == run.pipeline._loop.chain.given


def about(points: Any, wanted: Any) -> bool:
    return [[pytest.approx(part, abs=0.02) for part in point] for point in wanted] == points


def test_a_line_that_is_drawn_counts_and_stands_in_the_file(browser: Browser, app: Running) -> None:
    with opened(browser, app.sink) as page:
        moves(page, "cam")
        editor = Editor(page)
        editor.press("New line")
        editor.drag((0.5, 0.05), (0.5, 0.95))
        editor.fill("Name", "gate")
        editor.fill("Along the arrow", "left")
        editor.fill("Other way", "right")
        editor.panel.get_by_label("Cameras").select_option("cam alone")
        editor.panel.locator("summary").click()
        editor.panel.get_by_label("blob", exact=True).check()
        assert 'name = "gate"' in editor.toml
        editor.save()
        gate = steps_in(app)["gate"]
        assert about(gate.pop("points"), [[0.5, 0.05], [0.5, 0.95]])
        assert gate == {
            "type": "line",
            "name": "gate",
            "units": "relative",
            "classes": ["blob"],
            "sources": ["cam"],
            "directions": ["left", "right"],
        }
        assert is_at_work(app)
        assert "# the door to the street" in app.path.read_text()
        shown = camera(page, "cam").locator('[data-name^="gate."] dd')
        wait_for(page, lambda: sum(int(text) for text in shown.all_inner_texts()) >= 1, "a crossing of the new line")
        assert not any(name.startswith("gate.") for name in app.counts("side"))


@pytest.mark.slow
def test_the_arrow_points_to_the_side_of_the_first_direction(browser: Browser, app: Running) -> None:
    """The square moves to the right first, and then back: what the arrow says is what is counted."""
    with opened(browser, app.sink) as page:
        moves(page, "cam")
        editor = Editor(page)
        editor.click(
            (0.5, 0.3)
        )  # the door, from top to bottom in the middle: its right side is on the left of the screen
        tip = editor.svg.locator("g.line.chosen .tip").bounding_box()
        line = editor.place((0.5, 0.5))
        assert tip is not None
        assert tip["x"] + tip["width"] < line[0]
        editor.press("Turn round")
        turned = editor.svg.locator("g.line.chosen .tip").bounding_box()
        assert turned is not None
        assert turned["x"] > line[0]
        editor.save()
        assert about(steps_in(app)["door"]["points"], [[0.5, 0.996], [0.5, 0.0]])
        seen = [event for result in app.results for event in result.events if event.kind == "line.crossed"]
        begin = len(app.results)

        def crossed() -> list[Any]:
            events = [event for result in app.results[begin:] for event in result.events]
            return [event for event in events if event.kind == "line.crossed" and event.data["counter"] == "door"]

        wait_for(page, crossed, "a crossing after the turn")
        event = crossed()[0]
        path = [
            r for r in app.results if r.frame.source_id == event.source_id and r.frame.captured_ns <= event.time_ns
        ][-2:]
        before, after = (float(result.detections.xyxy[0, 0]) for result in path if result.detections is not None)
        assert event.data["direction"] == ("in" if after > before else "out"), seen


def test_a_corner_of_a_zone_is_dragged_added_and_removed(browser: Browser, app: Running) -> None:
    with opened(browser, app.sink) as page:
        moves(page, "cam")
        editor = Editor(page)
        editor.click((0.25, 0.5))
        assert editor.corners().count() == 4
        editor.drag((0.4, 0.1), (0.6, 0.2))
        editor.save()
        assert about(steps_in(app)["yard"]["points"], [[0.1, 0.1], [0.6, 0.2], [0.4, 0.9], [0.1, 0.9]])
        assert steps_in(app)["yard"]["settle_s"] == 0.0
        assert is_at_work(app)
        editor.click((0.2, 0.5))
        editor.drag((0.1, 0.5), (0.02, 0.5))  # the small dot in the middle of the left edge
        assert editor.corners().count() == 5
        page.keyboard.press("Delete")
        assert editor.corners().count() == 4
        editor.drag((0.3, 0.6), (0.4, 0.5))  # all of it
        editor.save()
        assert about(steps_in(app)["yard"]["points"], [[0.2, 0.0], [0.7, 0.1], [0.5, 0.8], [0.2, 0.8]])
        assert is_at_work(app)


@pytest.mark.slow
def test_a_zone_is_drawn_corner_by_corner_and_keys_work(browser: Browser, app: Running) -> None:
    before = app.path.read_text()
    with opened(browser, app.sink) as page:
        moves(page, "cam")
        editor = Editor(page)
        editor.press("New zone")
        editor.click((0.6, 0.2), (0.9, 0.2))
        page.keyboard.press("Escape")
        assert "zone1" not in editor.toml
        editor.press("New zone")
        editor.click((0.6, 0.2), (0.9, 0.2), (0.9, 0.8), (0.6, 0.2))
        assert 'name = "zone1"' in editor.toml
        page.keyboard.press("Delete")
        assert "zone1" not in editor.toml
        editor.press("New zone")
        editor.click((0.6, 0.2), (0.9, 0.2), (0.9, 0.8))
        page.keyboard.press("Enter")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Shift+ArrowDown")
        editor.save()
        shift = (1 / 320, 10 / 240)
        wanted = [[x + shift[0], y + shift[1]] for x, y in ((0.6, 0.2), (0.9, 0.2), (0.9, 0.8))]
        assert about(steps_in(app)["zone1"]["points"], wanted)
        editor.panel.get_by_role("button", name="zone zone1").click()
        editor.press("Remove")
        editor.save()
        assert app.path.read_text() == before
        page.keyboard.press("Escape")
        editor.panel.wait_for(state="detached")


@pytest.mark.slow
def test_a_border_that_crosses_itself_is_told_and_nothing_changes(browser: Browser, app: Running) -> None:
    before = app.path.read_text()
    with opened(browser, app.sink) as page:
        moves(page, "cam")
        editor = Editor(page)
        editor.press("New zone")
        editor.click((0.5, 0.2), (0.9, 0.8), (0.9, 0.2), (0.5, 0.8))
        editor.press("Done")
        assert editor.svg.locator("g.zone.bad").count() == 1
        editor.press("Save")
        editor.says("The border of zone 'zone1' touches or crosses itself. List the corners in order round it.")
        assert app.path.read_text() == before
        editor.fill("Name", "two words")
        editor.says("Name: letters, digits")


def test_the_second_editor_is_told_and_loads_anew(browser: Browser, app: Running) -> None:
    with opened(browser, app.sink) as page:
        moves(page, "cam")
        editor = Editor(page)
        editor.click((0.25, 0.5))
        editor.drag((0.1, 0.1), (0.05, 0.1))
        assert app.edited(door=None)[0] == 200
        after = app.path.read_text()
        editor.press("Save")
        editor.says("line 'door' was removed. Nothing was overwritten.")
        assert app.path.read_text() == after
        assert editor.corners().count() == 4, "what was drawn is still there"
        editor.press("Load anew")
        editor.panel.get_by_role("button", name="line door").wait_for(state="detached")
        editor.click((0.25, 0.5))
        editor.drag((0.1, 0.1), (0.05, 0.1))
        editor.save()
        assert about(steps_in(app)["yard"]["points"], [[0.05, 0.1], [0.4, 0.1], [0.4, 0.9], [0.1, 0.9]])


@pytest.mark.slow
def test_without_leave_it_draws_and_shows_the_toml_and_saves_nothing(browser: Browser, tmp_path: Path) -> None:
    with running_app(tmp_path / "app.toml", app_text("cam"), edit=False) as app, opened(browser, app.sink) as page:
        before = app.path.read_text()
        moves(page, "cam")
        editor = Editor(page)
        editor.says("start with --edit")
        assert not editor.panel.get_by_role("button", name="Save").is_visible()
        editor.press("New line")
        editor.click((0.2, 0.2), (0.8, 0.2))
        app.path.write_text(before + "\n" + editor.toml.split("\n\n")[-1])
        assert about(steps_in(app)["line1"]["points"], [[0.2, 0.2], [0.8, 0.2]])
        check_app(read_app_file(app.path), "app.toml")


@pytest.mark.slow
def test_a_finger_draws_on_a_phone_and_nothing_scrolls_sideways(browser: Browser, app: Running) -> None:
    with opened(browser, app.sink, phone=True) as page:
        moves(page, "cam")
        editor = Editor(page)
        editor.press("New zone")
        editor.svg.scroll_into_view_if_needed()
        for at in ((0.5, 0.2), (0.9, 0.2), (0.9, 0.8)):
            page.touchscreen.tap(*editor.place(at))
        editor.press("Done")
        assert editor.corners().count() == 3
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        editor.save()
        assert about(steps_in(app)["zone1"]["points"], [[0.5, 0.2], [0.9, 0.2], [0.9, 0.8]])
        assert editor.svg.evaluate("svg => getComputedStyle(svg).touchAction") == "none", (
            "a finger draws, and does not scroll"
        )


def test_names_and_classes_from_the_device_are_text(browser: Browser) -> None:
    scene = Scene(EVIL)
    with showing(scene, editor=Evil()) as sink, opened(browser, sink) as page:
        editor = Editor(page, "")
        editor.says(EVIL)
        editor.panel.get_by_role("button", name=f"zone {EVIL}").click()
        editor.panel.locator("summary").click()
        assert EVIL in editor.panel.locator("summary").inner_text()
        assert EVIL in editor.svg.locator("text").first.text_content()  # type: ignore[operator]
        assert page.locator("img").count() == 1
        assert page.title() == "EdgeCV"


class Evil:
    """Steps whose every text is markup."""

    name = EVIL
    editable = False

    def reason(self) -> str:
        return EVIL

    def read(self) -> tuple[str, list[dict[str, Any]]]:
        points = [[0.1, 0.1], [0.9, 0.1], [0.9, 0.9]]
        shape = {"type": "zone", "name": EVIL, "points": points, "units": "relative", "classes": [EVIL]}
        return EVIL, [shape]

    def save(self, edit: object) -> None:
        raise AssertionError


def test_a_line_is_made_and_moved_by_keyboard_alone(browser: Browser, app: Running) -> None:
    with opened(browser, app.sink) as page:
        moves(page, "cam")
        camera(page, "cam").get_by_role("button", name="Lines and zones of cam").press("Enter")
        panel = camera(page, "cam").locator(".editor")
        panel.get_by_role("button", name="zone yard").wait_for()
        panel.get_by_role("button", name="New line").press("Enter")
        for key in ("Shift+ArrowRight", "c", "ArrowLeft"):
            page.keyboard.press(key)
        panel.get_by_role("button", name="Copy TOML").press("Delete")
        panel.get_by_role("button", name="zone yard").press("Enter")
        page.keyboard.press("Delete")
        panel.get_by_role("button", name="Save").press("Enter")
        panel.get_by_role("status").filter(has_text="Saved in app.toml").wait_for()
    assert set(steps_in(app)) == {"door", "line1"}
    assert about(steps_in(app)["line1"]["points"], [[0.5 + 9 / 320, 0.25], [0.5 + 10 / 320, 0.75]])


def test_keys_of_another_view_and_of_a_camera_that_went_change_nothing(browser: Browser, tmp_path: Path) -> None:
    scene = Scene("cam", "side")
    with showing(scene, events=tmp_path / "events.db", editor=Yard()) as sink, opened(browser, sink) as page:
        editor = Editor(page)
        editor.panel.get_by_role("button", name="zone yard").click()
        page.get_by_role("link", name="Events").click()
        for key in ("Delete", "Escape"):
            page.keyboard.press(key)
        page.get_by_role("link", name="Live").click()
        assert 'name = "yard"' in editor.toml
        scene.names = ("side",)
        wait_for(page, lambda: page.locator("article").count() == 1, "the camera went")
        assert page.evaluate("open === null")


class Yard:
    """Steps with one zone, which can only be drawn over."""

    name = "app.toml"
    editable = False

    def reason(self) -> str:
        return "Nothing can be saved."

    def read(self) -> tuple[str, list[dict[str, Any]]]:
        points = [[0.1, 0.1], [0.9, 0.1], [0.9, 0.9]]
        return "1", [{"type": "zone", "name": "yard", "points": points, "units": "relative"}]

    def save(self, edit: object) -> None:
        raise AssertionError


def test_a_page_of_another_server_cannot_edit(browser: Browser, app: Running) -> None:
    """No token is needed on loopback: what keeps a foreign page out is the check of where it comes from."""
    before, version = app.path.read_text(), app.ask()[1]["version"]
    other = PreviewSink(0)
    try:
        context = browser.new_context(bypass_csp=True)
        page = context.new_page()
        page.goto(other.url, wait_until="domcontentloaded")
        tried = page.evaluate(_ATTACK, [app.sink.url, version])
        assert tried == ["TypeError"] * 5, "no answer is readable elsewhere"
        page.evaluate(_FORM, app.sink.url)
        page.wait_for_url(re.compile("api/shapes"))
        assert app.path.read_text() == before
        assert app.ask()[1]["version"] == version
        context.close()
    finally:
        other.close()


_ATTACK = """async ([url, version]) => {
  const body = JSON.stringify({ version, shapes: [] });
  const json = { "Content-Type": "application/json" };
  const tries = [
    { method: "PUT", body, headers: json }, { method: "PUT", body }, { method: "POST", body, headers: json },
    { method: "POST", body, mode: "no-cors" }, { method: "POST", body, mode: "no-cors", headers: { "Content-Type": "text/plain" } },
  ];
  const found = [];
  for (const one of tries) {
    try { found.push((await fetch(`${url}api/shapes`, { credentials: "include", ...one })).type); }
    catch (error) { found.push(error.name); }
  }
  return found;
}"""
_FORM = """(url) => {
  const form = document.createElement("form");
  Object.assign(form, { method: "post", action: `${url}api/shapes`, enctype: "text/plain" });
  document.body.append(form);
  form.submit();
}"""
