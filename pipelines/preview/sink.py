"""``preview:8080``: a page in the browser with live images, numbers and events."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import msgspec

from edgecv._internal.extras import require
from edgecv._internal.secret_files import read_secret
from edgecv.errors import ConfigError, SinkError
from edgecv.events import Event
from edgecv.pipelines.preview.overview import EventLog, Overview
from edgecv.pipelines.preview.painted import PaintedImages
from edgecv.pipelines.uris import Uri, read_options
from edgecv.pipelines.web.access import Access, show_new_token
from edgecv.pipelines.web.address import HostNames, resolve, split_names
from edgecv.protocols import SinkType
from edgecv.results import Result
from edgecv.status import Gauge, PipelineStatus

if TYPE_CHECKING:
    from edgecv.pipelines.preview.editor.book import StepBook

_MOST_FPS = 30.0
_WIDTHS = (64, 4096)
_TITLE = 100  # characters


class PreviewOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the query of ``preview:PORT`` may say; the names are explained at ``PreviewSink``, ``allowed_hosts`` has commas."""

    host: str = "127.0.0.1"
    token_file: str = ""
    title: str = "EdgeCV"
    fps: Annotated[float, msgspec.Meta(ge=0.1, le=_MOST_FPS)] = 10.0
    width: Annotated[int, msgspec.Meta(ge=_WIDTHS[0], le=_WIDTHS[1])] = 960
    allowed_hosts: str = ""
    path: str = ""
    events: str = ""


class PreviewSink(SinkType):
    """Serves a page that shows what a pipeline sees; ``metrics:`` at the same host and port shares its server.

    When nobody watches it costs nothing: it keeps a reference to the newest result of each source and encodes none. An
    image is encoded once for all who watch. Watchers are limited; slow ones miss images.

    On loopback everyone on this machine may look. Elsewhere a token is needed: typed into the page's form, or sent as
    ``Authorization: Bearer``. The page is not encrypted: over networks that are not yours, use an SSH tunnel or a TLS proxy.

    Attributes:
        port: The port it listens on.
        url: What to type into a browser.
    """

    Options: ClassVar[type[msgspec.Struct]] = PreviewOptions
    writes_files: ClassVar[bool] = False
    non_blocking: ClassVar[bool] = True
    name: ClassVar[str] = "preview"

    def __init__(
        self,
        port: int,
        host: str = "127.0.0.1",
        token: str | None = None,
        gauges: Sequence[Gauge] = (),
        *,
        title: str = "EdgeCV",
        fps: float = 10.0,
        width: int = 960,
        allowed_hosts: Sequence[str] = (),
        path: str = "",
        events: str | Path = "",
        editor: StepBook | None = None,
    ) -> None:
        """Begin to listen.

        Args:
            port: TCP port; 0 takes a free one.
            host: Address to listen on; ``0.0.0.0`` for all.
            token: What watchers have to know, 16 characters or more. Off loopback one is made and printed to the
                terminal when none is given.
            gauges: Numbers to show, such as the device's temperature.
            title: Heading of the page.
            fps: Images per second and source at most, 0.1 to 30.
            width: Of the images in pixels at most, 64 to 4096.
            allowed_hosts: More names of this server, such as that of a proxy before it.
            path: Under which a proxy serves the page, such as ``/door``, and passes on. One that takes it away needs nothing.
            events: The file that ``events:`` writes: the page shows all that is in it, and the files that show them.
            editor: Who keeps the lines and zones; without it they can be drawn and copied, and nothing is changed.

        Raises:
            ConfigError: no such port, address or path; the token is too weak, or missing where there is no terminal to show one.
            SinkError: the port is in use or reserved.
            MissingDependency: Starlette, uvicorn or OpenCV is not installed.
        """
        _check(fps, width)
        path = _checked_path(path)
        for module, extra in (("cv2", "vision"), ("starlette", "preview"), ("uvicorn", "preview")):
            require(module, extra)
        from edgecv.pipelines.preview.history.routes import History
        from edgecv.pipelines.preview.streams import Streams
        from edgecv.pipelines.web.places import take_place

        address = resolve(host, port)
        hosts = HostNames(address, allowed_hosts)
        if token is None and not address.is_loopback:
            token = show_new_token(host)
        access = Access(token)
        self._closed = False
        self._images = PaintedImages(fps, width)
        self._events = EventLog()
        self._overview = Overview(self._images, self._events, gauges)
        self._place = take_place(address)
        self.port = self._place.port
        self.url = address.url(self.port)
        self._streams = Streams(self._images, self._place.abort)
        self._history = History(events, self._place.abort) if str(events) else None
        self._start(title[:_TITLE], access, hosts, path, editor)

    @classmethod
    def from_uri(cls, uri: Uri, *, fps: float = 0.0, overwrite: bool = False) -> PreviewSink:  # noqa: ARG003 - the seam's
        """Open ``preview:PORT``; errors as in the constructor, and those of ``read_secret``."""
        options = read_options(uri, PreviewOptions)
        if re.fullmatch("[0-9]{1,5}", uri.path) is None:
            raise ConfigError(f"{uri.name} has no port.", "Write for example: preview:8080")
        return cls(
            int(uri.path),
            options.host,
            read_secret(options.token_file) if options.token_file else None,
            title=options.title,
            fps=options.fps,
            width=options.width,
            allowed_hosts=split_names(options.allowed_hosts),
            path=options.path,
            events=options.events,
        )

    @property
    def encoded(self) -> int:
        """Images encoded so far; stands still while nobody watches."""
        return self._images.painted

    @property
    def watchers(self) -> int:
        """How many streams are open at this moment."""
        return len(self._streams)

    def attach(self, status: Callable[[], PipelineStatus]) -> None:
        """Show what ``status`` says; it is called from a thread of the server, once a second while a page is open."""
        self._overview.status = status

    def emit(self, result: Result) -> None:
        """Keep a reference to the result until the next one of its source, and its events; ``SinkError`` when the page is
        closed.
        """
        self._check_open()
        self._images.offer(result)
        for event in result.events:
            self._events.add(event)

    def emit_event(self, event: Event) -> None:
        """Keep the text of an event; errors as in ``emit``."""
        self._check_open()
        self._events.add(event)

    def close(self) -> None:
        """End all streams, and the server where it serves nothing else; a second call does nothing.

        Raises ``SinkError`` when the server did not end in time.
        """
        self._closed = True
        self._streams.close()
        try:
            self._place.close()
        finally:
            self._images.close()
            if self._history is not None:
                self._history.close()

    def _start(self, title: str, access: Access, hosts: HostNames, path: str, editor: StepBook | None) -> None:
        from edgecv.pipelines.preview.app import Site, build_app

        site = Site(
            title=title,
            cookie=f"edgecv_preview_{self.port}",
            path=path,
            instance=secrets.token_hex(8),
            access=access,
            hosts=hosts,
            streams=self._streams,
            overview=self._overview,
            history=self._history,
            editor=editor,
        )
        self._place.serve(build_app(site))

    def _check_open(self) -> None:
        if self._closed:
            raise SinkError("The preview page is closed.")


def _check(fps: float, width: int) -> None:
    if not 0.1 <= fps <= _MOST_FPS:
        raise ConfigError(f"The preview shows 0.1 to {_MOST_FPS:.0f} images per second, not {fps:g}.")
    if not _WIDTHS[0] <= width <= _WIDTHS[1]:
        raise ConfigError(f"The preview's images are {_WIDTHS[0]} to {_WIDTHS[1]} pixels wide, not {width}.")


def _checked_path(path: str) -> str:
    """Without a ``/`` at its end; empty for the page alone on its address."""
    plain = path.rstrip("/")
    parts = plain.split("/")[1:]
    if plain and (plain[0] != "/" or not all(re.fullmatch(r"(?!\.+$)[A-Za-z0-9._~-]+", part) for part in parts)):
        raise ConfigError(f"The preview cannot be served under '{path}'.", "Write for example: path=/door")
    return plain
