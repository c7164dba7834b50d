"""What may be taken for a video: containers and streams that hold their images themselves.

FFmpeg looks at the content, not at the name: a ``clip.mp4`` that is a playlist (HLS, DASH, concat, SDP) would open whatever it
names, in the network too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgecv.detections import Image
from edgecv.errors import SourceError

_HEAD_BYTES = 512
_TEXT = re.compile(rb"[\t\n\f\r\x20-\x7e\x80-\xff]+")
_TEXT_VIDEOS = (b"YUV4MPEG2 ", b"--")  # raw images, and MJPEG in parts, begin as a text does

# By FFmpeg's names of demuxers, for its option `format_whitelist`.
STREAM_FORMATS = (
    "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,live_flv,asf,ogg,nut,ivf,obu,av1,"
    "h264,hevc,vvc,m4v,mjpeg,mpjpeg,h261,h263"
)
FILE_FORMATS = (
    f"{STREAM_FORMATS},mxf,rm,wtv,dv,gxf,yuv4mpegpipe,gif,apng,smjpeg,nsv,vc1,cavsvideo,dirac,dnxhd,"
    "avs2,avs3,evc,ipu,3dostr,amv,swf,vob"
)


@dataclass(frozen=True, slots=True, eq=False)
class DecodedImage:
    """One decoded frame of a video."""

    image: Image  # `(H, W, 3)` uint8, BGR, upright
    time_s: float | None  # when it is shown, from the start of the file; `None` where the file does not say
    is_damaged: bool  # whether the decoder made up a part of it


def check_no_text(path: Path) -> None:
    """Refuse a file that is written in characters, as every playlist is: for readers that know no ``format_whitelist``, too.

    Raises:
        SourceError: it is a text (code ``codec``), or cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}.", "May you read it?", code="refused") from error
    if _TEXT.fullmatch(head) and not head.startswith(_TEXT_VIDEOS):
        raise SourceError(
            f"{path} is a text, no video.",
            "Playlists (HLS, DASH, concat, SDP) are not opened: give the video itself, or the camera's rtsp:// or http:// URL.",
            code="codec",
        )
