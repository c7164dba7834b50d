"""An ``app.toml`` that runs with a page whose editor may change it: a real pipeline, a real server, the real file."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import msgspec

from edgecv.cli.app_config import check_app, read_app_file
from edgecv.cli.app_edit import AppSteps
from edgecv.events import Event
from edgecv.model import Model
from edgecv.pipelines.pipeline import Pipeline
from edgecv.pipelines.preview.sink import PreviewSink
from edgecv.results import Result
from tests.integration.preview_scene import DEADLINE_S, until
from tests.unit.pipelines.blob import BlobModel

LIVE = "synthetic://?frames=0&live=1&fps={fps}&width=320&height=240"
STEPS = """
[[steps]]
type = "track"

# the door to the street
[[steps]]
type = "line"     # counts people
name = "door"
points = [[160, 0], [160, 239]]   # in pixels
settle_s = 0.0

[[steps]]
type = "zone"
name = "yard"
points = [[0.1, 0.1], [0.4, 0.1], [0.4, 0.9], [0.1, 0.9]]
units = "relative"
settle_s = 0.0

# the page
[preview]
port = 8080
edit = true
"""


def app_text(*cameras: str, steps: str = STEPS, fps: int = 50, policy: str = "auto") -> str:
    uri = LIVE.format(fps=fps)
    sources = "".join(
        f'\n[[sources]]\nname = "{name}"\nuri = "{uri}"\npolicy = "{policy}"\n' for name in cameras or ("cam",)
    )
    return f'# my cameras\nsinks = []\n\n[model]\nbundle = "blob.ecv"\n{sources}{steps}'


class Running:
    """A pipeline that runs what a file says."""

    def __init__(self, path: Path, edit: bool, token: str | None, model: object) -> None:
        self.path = path
        self.results: list[Result] = []
        self.events: list[Event] = []
        file = read_app_file(path)
        assert file.preview is not None
        file = msgspec.structs.replace(file, preview=msgspec.structs.replace(file.preview, edit=edit))
        app = check_app(file, str(path))
        editor = AppSteps(app, path)
        self.sink = PreviewSink(0, token=token, editor=editor)
        self.pipeline = Pipeline(
            file.sources,
            cast(Model, model),
            steps=app.steps,
            sinks=[self.sink],
            on_result=self.results.append,
            on_event=self.events.append,
        )
        editor.attach(self.pipeline)

    def ask(
        self,
        method: str = "GET",
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        path: str = "/api/shapes",
    ) -> tuple[int, dict[str, Any]]:
        sent = body if body is None or isinstance(body, bytes | str) else json.dumps(body)
        kind = {"Content-Type": "application/json"} if body is not None else {}
        connection = http.client.HTTPConnection("127.0.0.1", self.sink.port, timeout=DEADLINE_S)
        try:
            connection.request(method, path, sent, {**kind, **(headers or {})})
            answer = connection.getresponse()
            text = answer.read()
            is_json = answer.headers.get_content_type() == "application/json"
            return answer.status, json.loads(text) if is_json else {"error": text.decode()}
        finally:
            connection.close()

    def edited(self, **changes: Any) -> tuple[int, dict[str, Any]]:
        """Change the shapes that are named, as the page does: ``None`` removes one, a new name adds one."""
        document = self.ask()[1]
        shapes = {shape["name"]: {**shape, "was": shape["name"]} for shape in document["shapes"]}
        for name, change in changes.items():
            shapes[name] = (
                None if change is None else {**shapes.get(name, {"name": name, "units": "relative"}), **change}
            )
        kept = [shape for shape in shapes.values() if shape is not None]
        return self.ask("PUT", {"version": document["version"], "shapes": kept})

    def counts(self, source: str = "cam") -> Mapping[str, int]:
        return next(dict(one.counts) for one in self.pipeline.status().sources if one.source_id == source)

    def wait_for_frames(self, more: int = 10) -> None:
        seen = len(self.results)
        until(lambda: len(self.results) >= seen + more, "frames")


@contextmanager
def running_app(
    path: Path, text: str | None = None, *, edit: bool = True, token: str | None = None, model: object = None
) -> Iterator[Running]:
    """Run what ``text`` says, which is written to ``path``, or what stands there, until the block ends."""
    if text is not None:
        path.write_text(text)
    run = Running(path, edit, token, model or BlobModel())
    thread = threading.Thread(target=run.pipeline.run)
    thread.start()
    try:
        run.wait_for_frames(3)
        yield run
    finally:
        run.pipeline.stop()
        thread.join(DEADLINE_S)
        assert not thread.is_alive()
