"""Units (NAL units) of a packet of H.264 and HEVC, and what they tell without decoding."""

from collections.abc import Iterator
from itertools import islice, takewhile
from typing import Any


# Codecs in which every keyframe starts afresh. In H.264 and HEVC some do not; see `starts_afresh`.
CLEAN_CODECS = ("vp8", "vp9", "mjpeg", "ffv1", "prores", "dnxhd", "huffyuv", "rawvideo", "png", "qtrle")
# Type of the message (ITU-T H.264, D.1) that carries a display matrix.
DISPLAY_ORIENTATION = 47
PARAMETERS = {"h264": (7, 8, 13, 15), "hevc": (32, 33, 34)}
MESSAGES = {"h264": (6,), "hevc": (39, 40)}
PADDING = {"h264": (9, 12), "hevc": (35, 38)}  # delimiters and filler
# Profiles of H.264 whose parameters tell the form of colours
WITH_CHROMA_FORMAT = (44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244)


def unit_prefix(codec: str, extradata: bytes | None) -> int:
    """
    Length of the number before each unit that says its size (MP4, Matroska, FLV).

    Args:
        codec (`str`):
            FFmpeg's name of the codec.
        extradata (`bytes` or `None`):
            The stream's configuration record.

    Returns:
        `int`: bytes; 0 for start codes or another codec.
    """
    if not extradata or extradata[0] != 1:
        return 0
    at = {"h264": 4, "hevc": 21}.get(codec)
    return (extradata[at] & 3) + 1 if at is not None and len(extradata) > at else 0


def starts_afresh(codec: str, prefix: int, packet: Any) -> bool:
    """
    Whether decoding from this keyframe on is exact. Keyframes of H.264 and HEVC may let later frames reach back behind
    them; those with an IDR picture do not.

    Args:
        codec (`str`):
            FFmpeg's name of the codec.
        prefix (`int`):
            Of [`unit_prefix`].
        packet (`av.Packet`):
            The keyframe.

    Returns:
        `bool`: `False` also where it cannot be told.
    """
    if codec in CLEAN_CODECS:
        return True
    for unit, _ in _units(codec, prefix, packet):
        if codec == "h264" and 1 <= unit <= 5:  # the first slice
            return unit == 5
        if codec == "hevc" and unit < 32:
            return unit in (19, 20)
    return False


def carries_parameters(codec: str, prefix: int, packet: Any) -> bool:
    """
    Whether parameters of the stream stand before the first slice of a packet.

    Args:
        codec (`str`):
            FFmpeg's name of the codec.
        prefix (`int`):
            Of [`unit_prefix`].
        packet (`av.Packet`):
            The packet.

    Returns:
        `bool`
    """
    return any(unit in PARAMETERS[codec] for unit, _ in _before_slices(codec, prefix, packet))


def tells_orientation(codec: str, prefix: int, packet: Any) -> bool:
    """
    Whether a display orientation message stands before the first slice of a packet.

    Args:
        codec (`str`):
            FFmpeg's name of the codec.
        prefix (`int`):
            Of [`unit_prefix`].
        packet (`av.Packet`):
            The packet.

    Returns:
        `bool`
    """
    return any(
        unit == MESSAGES[codec][0] and DISPLAY_ORIENTATION in _message_types(payload)
        for unit, payload in _before_slices(codec, prefix, packet)
    )


def tells_references(codec: str, extradata: bytes | None) -> bool:
    """
    Whether the headers of a stream's units tell which frames no other frame needs.

    Interlaced H.264 is excluded, where a packet can hold half a frame, and HEVC with layers of time, where a frame
    without references in its own layer can have some in the next.

    Args:
        codec (`str`):
            FFmpeg's name of the codec.
        extradata (`bytes` or `None`):
            The stream's configuration record.

    Returns:
        `bool`: `False` also where it cannot be told.
    """
    if not unit_prefix(codec, extradata) or extradata is None:
        return False
    if codec == "hevc":
        return extradata[21] >> 3 & 7 == 1
    sets, at = [], 6
    for _ in range(extradata[5] & 31):
        size = int.from_bytes(extradata[at : at + 2], "big")
        sets.append(extradata[at + 2 : at + 2 + size])
        at += 2 + size
    return bool(sets) and all(map(_is_progressive, sets))


def is_needed_by_none(codec: str, prefix: int, packet: Any) -> bool:
    """
    Whether no other frame is decoded from this one, in a stream that [`tells_references`]. All other frames are the
    same without it.

    Args:
        codec (`str`):
            FFmpeg's name of the codec.
        prefix (`int`):
            Of [`unit_prefix`].
        packet (`av.Packet`):
            The packet.

    Returns:
        `bool`: `False` also for a packet that holds more than the frame, or is damaged.
    """
    data, at, slices = memoryview(packet), 0, 0
    while at + prefix < len(data):
        end = at + prefix + int.from_bytes(data[at : at + prefix], "big")
        header = data[at + prefix]
        unit = header & 31 if codec == "h264" else header >> 1 & 63
        if _is_slice(codec, unit):
            # H.264: plain slices whose `nal_ref_idc` is 0. HEVC: the even ones of the types below 16.
            free = unit == 1 and not header & 0x60 if codec == "h264" else unit < 16 and unit % 2 == 0
            slices += 1
        elif unit in MESSAGES[codec]:
            begin = at + prefix + (1 if codec == "h264" else 2)
            free = DISPLAY_ORIENTATION not in _message_types(data[begin:end])
        else:
            free = unit in PADDING[codec]
        if not free:
            return False
        at = end
    return slices > 0 and at == len(data)


def _is_slice(codec: str, unit: int) -> bool:
    return 1 <= unit <= 5 if codec == "h264" else unit < 32


def _before_slices(codec: str, prefix: int, packet: Any) -> Iterator[tuple[int, memoryview]]:
    """The units before the first slice."""
    return takewhile(lambda unit: not _is_slice(codec, unit[0]), _units(codec, prefix, packet))


def _units(codec: str, prefix: int, packet: Any) -> Iterator[tuple[int, memoryview]]:
    """Type and payload of each unit of a packet; none where their sizes are not known (`prefix` 0)."""
    data, at = memoryview(packet), 0
    while prefix and at + prefix < len(data):
        end = at + prefix + int.from_bytes(data[at : at + prefix], "big")
        header = data[at + prefix]
        if codec == "h264":
            yield header & 31, data[at + prefix + 1 : end]
        else:
            yield header >> 1 & 63, data[at + prefix + 2 : end]
        at = end


def _message_types(payload: memoryview) -> Iterator[int]:
    """Types of the messages in an SEI unit. Type and size are each a sum of bytes; those before the last are 255."""
    data = iter(bytes(payload).replace(b"\0\0\3", b"\0\0"))  # without the bytes that keep start codes from arising
    while True:
        numbers = [0, 0]
        for place in range(2):
            byte = 255
            while byte == 255:
                byte = next(data, -1)
                if byte < 0:
                    return
                numbers[place] += byte
        yield numbers[0]
        next(islice(data, numbers[1], numbers[1]), None)


def _is_progressive(parameters: bytes) -> bool:
    """Whether all pictures under these sequence parameters of H.264 (7.3.2.1.1) are whole frames, for certain."""
    bits = _Bits(parameters.replace(b"\0\0\3", b"\0\0"))
    try:
        bits.take(8)
        profile = bits.take(8)
        bits.take(16)
        bits.golomb()
        if profile in WITH_CHROMA_FORMAT:
            if bits.golomb() == 3:
                bits.take(1)
            bits.golomb()
            bits.golomb()
            bits.take(1)
            if bits.take(1):  # scaling matrices, which are rare and long
                return False
        bits.golomb()
        order = bits.golomb()
        if order == 0:
            bits.golomb()
        elif order == 1:
            bits.take(1)
            bits.golomb()
            bits.golomb()
            for _ in range(bits.golomb()):
                bits.golomb()
        bits.golomb()
        bits.take(1)
        bits.golomb()
        bits.golomb()
        return bits.take(1) == 1
    except ValueError:  # they end too early
        return False


class _Bits:
    """Numbers of a header: of fixed length, or in the code of Exp-Golomb."""

    def __init__(self, data: bytes) -> None:
        self._bits = f"{int.from_bytes(data, 'big'):0{8 * len(data)}b}"
        self._at = 0

    def take(self, count: int) -> int:
        start, self._at = self._at, self._at + count
        return int(self._bits[start : self._at], 2)

    def golomb(self) -> int:
        zeros = self._bits.index("1", self._at) - self._at
        self._at += zeros
        return self.take(zeros + 1) - 1
