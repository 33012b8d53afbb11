"""Arguments and results of decoding; see [`~video_decoding.decode_video`]."""

from dataclasses import dataclass, field

import numpy as np


# Files that count as videos in a folder.
VIDEO_SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts"),
    *(".webm", ".wmv"),
)
# Files that count as the frames of a folder.
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


class VideoDecodingError(RuntimeError):
    """
    A video cannot be read.

    Args:
        source (`str`):
            Name of the file, URL or object.
        decoder (`str`, *optional*):
            Decoder that gave up; `None` before one was asked.
        reason (`str`, *optional*, defaults to `""`):
            The fault in words.
        kind (`str`, *optional*, defaults to `"undecodable"`):
            `"missing"` (no such file, or no right to read it), `"no_video_stream"`, `"empty"` (no frames),
            `"undecodable"` (damaged or no video at all), `"timeout"` or `"limit"` (beyond a [`VideoLimits`]).
    """

    def __init__(self, source: str, decoder: str | None = None, reason: str = "", kind: str = "undecodable") -> None:
        super().__init__(source, decoder, reason, kind)  # a copy sent by another process is made from these
        self.source = source
        self.decoder = decoder
        self.reason = reason
        self.kind = kind

    def __str__(self) -> str:
        by = f" [decoder: {self.decoder}]" if self.decoder else ""
        return f"{self.source}: {self.reason}{by}" if self.reason else self.source


@dataclass(frozen=True)
class VideoLimits:
    """
    Upper bounds; beyond them reading raises a [`VideoDecodingError`] of kind `"limit"`.

    Args:
        max_pixels (`int`, *optional*, defaults to 8192 * 4320):
            Pixels of one frame.
        max_duration (`float`, *optional*, defaults to 6 hours):
            Seconds.
        max_frames (`int`, *optional*, defaults to 1,000,000):
            Frames in the file.
        max_bytes (`int`, *optional*, defaults to 8 GiB):
            Encoded bytes, downloaded ones too.
        max_decoded_bytes (`int`, *optional*, defaults to 8 GiB):
            Bytes of the frames that one call returns.
    """

    max_pixels: int = 8192 * 4320
    max_duration: float = 6 * 3600.0
    max_frames: int = 1_000_000
    max_bytes: int = 8 * 2**30
    max_decoded_bytes: int = 8 * 2**30


@dataclass(frozen=True)
class VideoProbe:
    """
    Facts about a video, without its frames.

    Args:
        num_frames (`int`):
            Frames in the index; in a damaged file fewer may decode.
        fps (`float` or `None`):
            Average frame rate: that of the frames' times where they are known, else the one that the file declares. Of
            a folder of pictures the one that was given, 25 by default.
        duration (`float` or `None`):
            Seconds from the start of the first frame to the end of the last.
        height, width (`int`):
            As displayed, after rotation. Where frames change their shape midway, that of the first one, to which the
            others are scaled.
        rotation (`int`, *optional*, defaults to 0):
            Counter-clockwise rotation of the frames in degrees: 0, 90, 180 or 270.
        mirrored (`bool`, *optional*, defaults to `False`):
            Whether left and right are swapped after the rotation.
        codec, container (`str`, *optional*):
            FFmpeg's names.
        header_frames (`int`, *optional*):
            Frames that the container claims; 0 if it claims none.
        damaged_packets (`int`, *optional*):
            Packets that the container already knows to be incomplete.
        timestamps (`np.ndarray` of shape `(num_frames,)`, *optional*):
            Seconds at which each frame is shown; `None` if the file does not tell.
    """

    num_frames: int
    fps: float | None
    duration: float | None
    height: int
    width: int
    rotation: int = 0
    mirrored: bool = False
    codec: str | None = None
    container: str | None = None
    header_frames: int = 0
    damaged_packets: int = 0
    timestamps: np.ndarray | None = None


@dataclass
class Reading:
    """
    Frames that were read, or why they were not.

    Args:
        frames (`np.ndarray` of shape `(num_frames, height, width, 3)`, *optional*):
            RGB in uint8, rotated as displayed; none if there is a problem.
        timestamps (`np.ndarray` of shape `(num_frames,)`, *optional*):
            Seconds.
        damaged_packets (`int`, *optional*, defaults to 0):
            Packets that did not decode, and frames that the decoder knows to be wrong.
        problem (`str`, *optional*, defaults to `""`):
            `"damaged"`, or `"miscounted"`: the frames differ from those in the index, and there was no error.
        reason (`str`, *optional*, defaults to `""`):
            The problem in words.
    """

    frames: np.ndarray = field(default_factory=lambda: np.empty((0, 0, 0, 3), dtype=np.uint8))
    timestamps: np.ndarray = field(default_factory=lambda: np.empty(0))
    damaged_packets: int = 0
    problem: str = ""
    reason: str = ""
