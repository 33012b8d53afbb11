"""Facts about a video stream that are known before it is decoded: its frames, their times, its keyframes."""

import base64
import json
import zlib
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np


# Demuxers that land where they are told to; everything else is read from the start.
SEEKABLE = ("mov", "matroska", "flv")
# How the comment of a file begins that holds its own index, and bounds of it: characters, and bytes unpacked
STORED = "hf_videovit index 1 "
MOST_STORED = 2**20
MOST_UNPACKED = 2**24
NO_TIMES = np.empty(0, dtype=np.int64)
# Position in display order, time, whether decoding from here on is exact, packet number
Keyframe = tuple[int, int, bool, int]


class Orientation(NamedTuple):
    """
    How a coded frame is turned for display.

    Args:
        rotation (`int`):
            Degrees counter-clockwise: 0, 90, 180 or 270.
        mirrored (`bool`):
            Whether left and right are swapped after that.
    """

    rotation: int
    mirrored: bool


UPRIGHT = Orientation(0, False)


@dataclass
class StreamIndex:
    """
    Facts from demuxing the best video stream.

    Args:
        container, codec (`str`):
            FFmpeg's names.
        timed (`bool`):
            Whether the container has presentation times.
        stream (`int`):
            Number of the stream.
        num_frames (`int`):
            Frames that are shown.
        times (`np.ndarray` of shape `(num_frames,)`):
            Sorted, in units of `time_base`; none if frames have no times or share them.
        keyframes (`list[Keyframe]`):
            In display order.
        time_base (`float`):
            Seconds.
        fps, duration (`float` or `None`):
            Average rate, and seconds.
        header_frames (`int`):
            Frames that the container claims.
        damaged_packets (`int`):
            Packets that the container marks as incomplete.
        first_packet (`tuple` or `None`):
            Its times of presentation and decoding, and its size.
        size (`tuple[int, int]`):
            Height and width as coded.
        has_hidden_frames (`bool`):
            Whether some frames are decoded and never shown.
        needs_first_packet (`bool`):
            Whether frames after a keyframe depend on the first packet.
        shown ([`Orientation`], *optional*):
            Of the first frame, which gives all frames their shape.
        knows_shown (`bool`, *optional*, defaults to `False`):
            Whether a frame was decoded, which tells `shown`.
        landings (`dict[int, int]`, *optional*, defaults to `{}`):
            Position of each keyframe by its time.
        unit_prefix (`int`, *optional*, defaults to 0):
            Of units that tell which frames no other frame needs; 0 if they do not.
        stored (`bool`, *optional*, defaults to `False`):
            Whether the file itself told all this, instead of its packets.
    """

    container: str
    timed: bool
    codec: str
    stream: int
    num_frames: int
    times: np.ndarray
    keyframes: list[Keyframe]
    time_base: float
    fps: float | None
    duration: float | None
    header_frames: int
    damaged_packets: int
    first_packet: tuple[int | None, int | None, int] | None
    size: tuple[int, int]
    has_hidden_frames: bool
    needs_first_packet: bool
    shown: Orientation = UPRIGHT
    knows_shown: bool = False
    landings: dict[int, int] = field(default_factory=dict)
    unit_prefix: int = 0
    stored: bool = False

    @property
    def shown_size(self) -> tuple[int, int]:
        """Height and width as displayed."""
        return self.size[::-1] if self.shown.rotation % 180 else self.size

    @property
    def in_order(self) -> bool:
        """Whether decoded frames must carry exactly the listed times."""
        return self.timed and len(self.times) > 0

    @property
    def seekable(self) -> bool:
        """Whether decoding may start at a keyframe, and leave frames out."""
        if not self.in_order or not self.container.startswith(SEEKABLE) or not self.keyframes:
            return False
        position, _, _, number = self.keyframes[0]
        # Frames before the first keyframe may or may not decode, which shifts all that follow.
        return position == 0 and number == 0 and not self.needs_first_packet


@dataclass
class Packets:
    """
    Facts gathered while packets are listed.

    Args:
        room (`int`):
            Bytes of packets that may still be kept.
        times (`list[int | None]`, *optional*, defaults to `[]`):
            Presentation times in the order of the packets.
        keys (`list[tuple[int, bool, int]]`, *optional*, defaults to `[]`):
            Time of each keyframe, whether it starts afresh, and the number of its packet.
        first (`tuple`, *optional*):
            See [`StreamIndex`].
        last_duration (`int`, *optional*, defaults to 0):
            Of the last packet.
        count, damaged (`int`, *optional*, defaults to 0):
            Packets, and those that the container marks as incomplete.
        hidden (`bool`, *optional*, defaults to `False`):
            Whether some frames are never shown.
        new_parameters (`bool`, *optional*, defaults to `False`):
            Whether packets carry parameters beside those of the container.
        broken_off (`bool`, *optional*, defaults to `False`):
            Whether the list ends in an error.
        fps (`float`, *optional*):
            Average rate as the file itself tells it.
    """

    room: int
    times: list[int | None] = field(default_factory=list)
    keys: list[tuple[int, bool, int]] = field(default_factory=list)
    first: tuple[int | None, int | None, int] | None = None
    last_duration: int = 0
    count: int = 0
    damaged: int = 0
    hidden: bool = False
    new_parameters: bool = False
    broken_off: bool = False
    fps: float | None = None


def stored_text(index: StreamIndex) -> str:
    """
    An index as text, for the comment of its file.

    Args:
        index ([`StreamIndex`]):
            Of a file in which all keyframes start afresh.

    Returns:
        `str`: read by [`stored_packets`].
    """
    facts = {
        "times": np.diff(index.times, prepend=0).tolist(),
        "keyframes": [position for position, _, _, _ in index.keyframes],
        "fps": index.fps,
        "last_duration": round((index.duration or 0.0) / index.time_base - float(index.times[-1] - index.times[0])),
    }
    packed = zlib.compress(json.dumps(facts, separators=(",", ":")).encode())
    return STORED + base64.b64encode(packed).decode()


def stored_packets(comment: str, num_frames: int) -> Packets | None:
    """
    The packets of a file as its comment tells them. What it tells is checked where frames are read.

    Args:
        comment (`str`):
            The comment.
        num_frames (`int`):
            Frames that the container claims.

    Returns:
        [`Packets`] or `None`: `None` if the comment tells nothing, or nothing that can be true.
    """
    if not comment.startswith(STORED) or len(comment) > MOST_STORED:
        return None
    try:
        packed = base64.b64decode(comment[len(STORED) :], validate=True)
        facts: Any = json.loads(zlib.decompressobj().decompress(packed, MOST_UNPACKED))
        times = np.cumsum(np.array(facts["times"], dtype=np.int64))
        keyframes = np.array(facts["keyframes"], dtype=np.int64)
        last_duration = int(facts["last_duration"])
        fps = float(facts["fps"]) if facts.get("fps") is not None else None
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError, zlib.error):
        return None
    rising = all(array.ndim == 1 and len(array) and (np.diff(array) > 0).all() for array in (times, keyframes))
    if not rising or len(times) != num_frames or keyframes[0] != 0 or keyframes[-1] >= num_frames:
        return None
    keys = [(int(times[position]), True, int(position)) for position in keyframes]
    if fps is not None and not 0 < fps < float("inf"):
        return None
    return Packets(room=0, times=times.tolist(), keys=keys, last_duration=last_duration, count=num_frames, fps=fps)
