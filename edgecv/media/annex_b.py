"""H.264 and H.265 as cameras send them (Annex B), and the parameter sets as an MP4 wants them.

Sources: ITU-T H.264 and H.265, annex B; ISO/IEC 14496-15, 5.3.3 (``avcC``) and 8.3.3 (``hvcC``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from edgecv.errors import SinkError
from edgecv.media.packets import Codec

_START = re.compile(rb"\x00\x00\x01")
_EMULATION = re.compile(rb"\x00\x00\x03")
# Parameter sets by codec, in the order of the decoder's configuration.
_SPS, _PPS = 7, 8
_VPS_265, _SPS_265, _PPS_265 = 32, 33, 34
_PARAMETERS = {"h264": (_SPS, _PPS), "hevc": (_VPS_265, _SPS_265, _PPS_265)}
# 8 bits, 4:2:0: what cameras send. The configuration of other profiles would have to say more.
_PROFILES_264 = {66, 77, 88, 100}
_DEPTHS_265 = {1: 8, 2: 10}  # Main, Main 10
_HIGH = 100


def nal_units(data: bytes) -> Iterator[bytes]:
    """The units of an Annex B stream, without their start codes."""
    starts = [match.end() for match in _START.finditer(data)]
    for at, start in enumerate(starts):
        # A longer start code has one zero more before it, and no unit ends with zero.
        unit = data[start : starts[at + 1] - 3].rstrip(b"\x00") if at + 1 < len(starts) else data[start:]
        if unit:
            yield unit


def length_prefixed(data: bytes) -> bytes:
    """Annex B as the samples of an MP4: each unit after its length."""
    return b"".join(len(unit).to_bytes(4, "big") + unit for unit in nal_units(data))


def parameter_sets(codec: Codec, data: bytes) -> bytes:
    """The parameter sets that stand in a packet, in Annex B; empty when there are none."""
    wanted = _PARAMETERS.get(codec, ())
    found = [unit for unit in nal_units(data) if _kind(codec, unit) in wanted]
    return b"".join(b"\x00\x00\x00\x01" + unit for unit in found)


def decoder_configuration(codec: Codec, parameters: bytes) -> bytes:
    """The contents of ``avcC`` or ``hvcC``.

    Raises ``SinkError``: the parameter sets are not whole, or of a profile that is not kept.
    """
    sets = {kind: [unit for unit in nal_units(parameters) if _kind(codec, unit) == kind] for kind in _PARAMETERS[codec]}
    if not all(sets.values()):
        raise SinkError(f"The camera's {codec} lacks parameter sets.", "Nothing can be made of it without decoding.")
    return _avcc(sets[_SPS], sets[_PPS]) if codec == "h264" else _hvcc(sets)


def _kind(codec: Codec, unit: bytes) -> int:
    return unit[0] & 0x1F if codec == "h264" else (unit[0] >> 1) & 0x3F


def _avcc(sps: list[bytes], pps: list[bytes]) -> bytes:
    profile = sps[0][1:4]
    if len(profile) < 3 or profile[0] not in _PROFILES_264:
        raise SinkError("The camera sends a rare profile of H.264.", "Set it to Baseline, Main or High.")
    head = b"\x01" + profile + b"\xff" + bytes([0xE0 | len(sps)])
    more = b"\xfd\xf8\xf8\x00" if profile[0] == _HIGH else b""  # 4:2:0, 8 bits, no extensions
    return head + _counted(sps) + bytes([len(pps)]) + _counted(pps) + more


def _hvcc(sets: dict[int, list[bytes]]) -> bytes:
    # The bytes of profile, tier and level follow the two of the unit's header and one of ids.
    plain = _EMULATION.sub(b"\x00\x00", sets[_SPS_265][0])
    general = plain[3:15]
    depth = _DEPTHS_265.get(general[0] & 0x1F) if len(general) == 12 else None
    if depth is None:
        raise SinkError("The camera sends a rare profile of H.265.", "Set it to Main.")
    layers, nested = ((plain[2] >> 1) & 7) + 1, plain[2] & 1
    bits = bytes([0xF8 | (depth - 8)])
    head = b"\x01" + general + b"\xf0\x00\xfc\xfd" + bits + bits + b"\x00\x00" + bytes([layers << 3 | nested << 2 | 3])
    arrays = b"".join(
        bytes([0x80 | kind]) + len(units).to_bytes(2, "big") + _counted(units) for kind, units in sets.items()
    )
    return head + bytes([len(sets)]) + arrays


def _counted(units: list[bytes]) -> bytes:
    return b"".join(len(unit).to_bytes(2, "big") + unit for unit in units)
