"""Whether a camera and a broker answer, as findings of ``edgecv doctor``. Nothing is sent but what it takes to connect."""

from __future__ import annotations

import os
import queue
import shlex
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from edgecv._internal.printable import printable
from edgecv._internal.redaction import redact
from edgecv.devices.doctor.finding import Finding
from edgecv.errors import ConfigError, EdgeCVError, MissingDependency, SourceError
from edgecv.vision.input_shapes import better_fit, fill_of

if TYPE_CHECKING:
    from edgecv.cloud_sync.mqtt.broker_url import BrokerUrl
    from edgecv.protocols import Source
    from edgecv.uri import Uri

LIMIT_S = 15.0
_POLL_S = 0.05
_SQUARE = (640, 640)  # what detectors have unless they were converted otherwise
_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}


def source_finding(uri: Uri, limit_s: float = LIMIT_S) -> Finding:
    """Whether a source gives a frame; a camera is opened in a process of its own, as ``edgecv run`` does it."""
    from edgecv.pipelines.sources import open_source

    try:
        source = open_source(uri)
    except EdgeCVError as error:
        if error.exit_code == ConfigError.exit_code:  # wrong usage
            raise
        return _no_frames(uri, error.message, error.hint, _code(error), _pip(error))
    try:
        return _first_frame(uri, source, limit_s)
    except Exception as error:  # noqa: BLE001 - a plug-in's, too: it is the answer
        return _no_frame(uri, error)
    finally:
        source.close()


def broker_finding(broker: BrokerUrl, limit_s: float = LIMIT_S) -> Finding:
    """Whether a broker lets this device in; nothing is published, and the name of the client is used once."""
    from edgecv.cloud_sync.mqtt.events import Connected, Disconnected, LinkOptions
    from edgecv.cloud_sync.mqtt.transport import MqttTransport

    try:
        _need_paho()
    except MissingDependency as error:
        return Finding(id="broker", level="fail", what=error.message, why=error.hint, fix=_pip(error))
    events: queue.SimpleQueue[Any] = queue.SimpleQueue()
    transport = MqttTransport(broker, LinkOptions(client_id=f"edgecv-doctor-{os.urandom(6).hex()}"), events.put)
    transport.start()
    reason, deadline_s = "", time.monotonic() + limit_s
    try:
        while (left_s := deadline_s - time.monotonic()) > 0:
            with suppress(queue.Empty):
                event = events.get(timeout=left_s)
                if isinstance(event, Connected):
                    return Finding(id="broker", level="ok", what=f"{broker} answers, MQTT {event.protocol}")
                if isinstance(event, Disconnected):
                    reason = event.reason
                    if not _is_other_protocol(reason):
                        break
    finally:
        transport.close(2.0)
    return _no_broker(broker, reason or f"{broker} does not answer within {limit_s:g} s.")


def _is_other_protocol(reason: str) -> bool:
    """A broker of MQTT 3.1.1 refuses 5, and is asked again at once."""
    return "nsupported protocol" in reason or "closed the connection" in reason


def _need_paho() -> None:
    from edgecv._internal.extras import require

    require("paho.mqtt.client", "mqtt")


def _first_frame(uri: Uri, source: Source, limit_s: float) -> Finding:
    from edgecv.protocols import KeepsNewest

    if not isinstance(source, KeepsNewest):
        return _within(uri, source, limit_s)
    deadline_s = time.monotonic() + limit_s
    while time.monotonic() < deadline_s:
        frame, health = source.newest(), source.health()
        if frame is not None:
            return _answers(uri, frame.image)
        if health.error:
            return _no_frames(uri, health.error, health.hint, health.code)
        time.sleep(_POLL_S)
    return _no_frames(uri, f"{uri.name} gives no frame within {limit_s:g} s.", "", "timeout")


def _within(uri: Uri, source: Source, limit_s: float) -> Finding:
    """One frame of a file: a disk or a share may hang, so another thread reads it."""
    said: queue.SimpleQueue[Finding] = queue.SimpleQueue()
    threading.Thread(target=lambda: said.put(_read(uri, source)), name="edgecv-doctor-read", daemon=True).start()
    try:
        return said.get(timeout=limit_s)
    except queue.Empty:
        return _no_frames(uri, f"{uri.name} gives no frame within {limit_s:g} s.", "", "timeout")


def _read(uri: Uri, source: Source) -> Finding:
    try:
        frame = source.read()
    except Exception as error:  # noqa: BLE001 - a plug-in's, too: it is the answer
        return _no_frame(uri, error)
    if frame is None:
        return _no_frames(uri, f"{uri.name} holds no frame.", "", "eof")
    return _answers(uri, frame.image)


def _answers(uri: Uri, image: Any) -> Finding:
    frame_wh = (image.shape[1], image.shape[0])
    what = f"{uri.name} gives frames of {frame_wh[0]} x {frame_wh[1]}"
    fit = better_fit(frame_wh, _SQUARE)
    if not fit:
        return Finding(id="source", level="ok", what=what)
    return Finding(
        id="source",
        level="note",
        what=what,
        why=f"They fill {100 * fill_of(frame_wh, _SQUARE):.0f} % of a square model input; the rest is computed for nothing.",
        fix=f"edgecv convert MODEL.pt --int8 --calib IMAGES --fit {fit}",
    )


def _no_frame(uri: Uri, error: Exception) -> Finding:
    return _no_frames(uri, str(error) or type(error).__name__, getattr(error, "hint", ""), _code(error))


def _no_frames(uri: Uri, what: str, why: str, code: str, fix: str = "") -> Finding:
    return Finding(
        id="source",
        level="fail",
        what=printable(redact(what)),
        why=printable(redact(why)) or "No frame reaches the model.",
        fix=fix or _source_fix(uri, code),
    )


def _source_fix(uri: Uri, code: str) -> str:
    if uri.scheme in _PORTS:
        host, port = _split(f"{uri.scheme}://{uri.path}")
        return _network_fix(host, port or _PORTS[uri.scheme], code)
    if uri.scheme == "usb":
        return "sudo usermod -aG video $USER && exec su - $USER" if code == "refused" else "v4l2-ctl --list-devices"
    if uri.scheme == "csi":
        return "rpicam-hello --list-cameras || ls -l /dev/video*"
    if uri.scheme in ("file", "images"):
        return f"ls -ld -- {shlex.quote(uri.path)}"
    return f"edgecv run --help  # --source {uri.scheme}: see docs/app.md"


def _network_fix(host: str, port: int, code: str) -> str:
    quoted = shlex.quote(host)
    if code == "dns":
        return f"getent hosts -- {quoted}"
    if code == "auth":
        return "(umask 077; read -rsp 'password: ' p; printf %s \"$p\" > camera.secret)  # then ?password_file=camera.secret"
    return f"nc -vz -w 5 -- {quoted} {port}"


def _split(url: str) -> tuple[str, int | None]:
    try:
        parts = urlsplit(url)
        return parts.hostname or "HOST", parts.port
    except ValueError:
        return "HOST", None


def _no_broker(broker: BrokerUrl, reason: str) -> Finding:
    host, words = shlex.quote(broker.host), reason.lower()
    if "certificate" in words or "tls" in words:
        place = f"[{broker.host}]:{broker.port}" if ":" in broker.host else f"{broker.host}:{broker.port}"
        fix = f"openssl s_client -connect {shlex.quote(place)} -servername {host} </dev/null"
    elif "authoriz" in words or "password" in words or "user name" in words:
        fix = "(umask 077; read -rsp 'password: ' p; printf %s \"$p\" > mqtt.secret)  # then ?password_file=mqtt.secret"
    else:
        fix = f"nc -vz -w 5 -- {host} {broker.port}"
    why = "Events stay on this device until the broker answers."
    return Finding(id="broker", level="fail", what=printable(reason), why=why, fix=fix)


def _code(error: Exception) -> str:
    return error.code if isinstance(error, SourceError) else ""


def _pip(error: EdgeCVError) -> str:
    """The pip line of a missing package stands in its hint."""
    at = error.hint.find("pip install")
    return error.hint[at:].splitlines()[0] if isinstance(error, MissingDependency) and at >= 0 else ""
