"""A real RTSP camera: ``/usr/bin/python3 rtsp_server.py PORT [--size WxH] [--user NAME --password WORD] [--file H264.mkv]``.

Prints ``ready`` when it listens. H.264, 20 frames per second, a key frame every five seconds and for each new viewer.
``--fps``, ``--gop`` (frames between key frames), ``--b-frames``, ``--kbit`` and ``--codec h265`` make another camera of it.
"""

from __future__ import annotations

import argparse

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402


def main() -> None:
    arguments = _arguments()
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(str(arguments.port))
    factory = GstRtspServer.RTSPMediaFactory()
    width, height = arguments.size.split("x")
    factory.set_launch(
        f"( videotestsrc is-live=true pattern={arguments.pattern} ! video/x-raw,format=I420,width={width},height={height},"
        f"framerate={arguments.fps}/1 ! {_encoder(arguments)} name=pay0 pt=96 config-interval=1 )"
    )
    if arguments.file:  # as a recorder plays what it stored: with an end
        factory.set_launch(
            f'( filesrc location="{arguments.file}" ! matroskademux ! h264parse ! rtph264pay name=pay0 pt=96 config-interval=1 )'
        )
    factory.set_shared(not arguments.file)
    if arguments.user:
        _protect(server, factory, arguments.user, arguments.password)
    server.get_mount_points().add_factory("/1", factory)
    if not server.attach(None):
        raise SystemExit("the port is taken")
    print("ready", flush=True)
    GLib.MainLoop().run()


def _encoder(arguments: argparse.Namespace) -> str:
    """The encoder and what packs its stream, up to the options of the latter."""
    gop = f"speed-preset=ultrafast key-int-max={arguments.gop}"
    rate = f"bitrate={arguments.kbit}" if arguments.kbit else ""
    if arguments.codec == "h265":
        return f"x265enc tune=zerolatency {gop} {rate} ! rtph265pay"
    if arguments.b_frames:
        return f"x264enc {gop} {rate} bframes=2 b-adapt=false rc-lookahead=5 ! video/x-h264,profile=main ! rtph264pay"
    return f"x264enc tune=zerolatency {gop} {rate} ! rtph264pay"


def _protect(server: object, factory: object, user: str, password: str) -> None:
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)
    factory.add_role_from_structure(
        Gst.Structure.new_from_string("viewer, media.factory.access=true, media.factory.construct=true")
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--size", default="160x120")
    parser.add_argument("--user", default="")
    parser.add_argument("--password", default="")
    parser.add_argument("--file", default="")
    parser.add_argument("--fps", type=int, default=20)
    parser.add_argument("--gop", type=int, default=100)
    parser.add_argument("--kbit", type=int, default=0)
    parser.add_argument("--pattern", default="ball")  # snow: as many bits as --kbit allows
    parser.add_argument("--b-frames", action="store_true")
    parser.add_argument("--codec", choices=("h264", "h265"), default="h264")
    return parser.parse_args()


if __name__ == "__main__":
    main()
