"""What may be taken for a video: containers and streams that hold their pictures themselves.

FFmpeg looks at the content, not at the name: a ``clip.mp4`` that is a playlist (HLS, DASH, concat, SDP) would open whatever it
names, in the network too.
"""

from __future__ import annotations

# By FFmpeg's names of demuxers, for its option `format_whitelist`.
_STREAMED = (
    *(
        "mov",
        "matroska",
        "avi",
        "mpegts",
        "mpeg",
        "mpegvideo",
        "flv",
        "live_flv",
        "asf",
        "ogg",
        "nut",
        "ivf",
        "obu",
        "av1",
    ),
    *("h264", "hevc", "vvc", "m4v", "mjpeg", "mpjpeg", "h261", "h263"),
)
_FILES = (
    *(
        "mxf",
        "rm",
        "wtv",
        "dv",
        "gxf",
        "yuv4mpegpipe",
        "gif",
        "apng",
        "smjpeg",
        "nsv",
        "vc1",
        "cavsvideo",
        "dirac",
        "dnxhd",
    ),
    *("avs2", "avs3", "evc", "ipu", "3dostr", "amv", "swf", "vob"),
)
STREAM_FORMATS = ",".join(_STREAMED)
FILE_FORMATS = ",".join((*_STREAMED, *_FILES))
