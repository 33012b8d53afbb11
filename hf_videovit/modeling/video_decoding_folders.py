"""
A folder of pictures as a video: `clip1/img_00001.jpg`, `clip1/img_00002.jpg`, ... A picture is a frame; the natural
order of the names is the order of the frames.
"""

import os
import re
import struct
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps

from .video_decoding_pyav import PyAVReader
from .video_decoding_types import PICTURE_SUFFIXES, Reading, VideoDecodingError, VideoLimits, VideoProbe


FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
DEEP_MODES = ("I", "F")  # Pillow cuts their values off at 255
ORIENTATION_TAG, TURNED = 0x0112, (5, 6, 7, 8)  # EXIF: sides that are swapped
CACHED_LISTINGS = 512
# Errors of Pillow on broken pictures.
BROKEN = (OSError, ValueError, SyntaxError, EOFError, TypeError, KeyError, IndexError, struct.error, zlib.error)

_listings: dict[Any, tuple[list[str], int]] = {}


def natural_order(name: str) -> list[Any]:
    """
    Key by which names are sorted as people count: `img_2.jpg` is before `img_10.jpg`.

    Args:
        name (`str`):
            The name.

    Returns:
        `list`: text and numbers in turn. Names that differ in leading zeros only are in the order of their text.
    """
    parts = re.split(r"(\d+)", name)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)] + [name]


def is_series(names: Iterable[str]) -> bool:
    """
    Whether names are those of the frames of one video: they differ in numbers only.

    Args:
        names (`Iterable[str]`):
            Names of pictures.

    Returns:
        `bool`
    """
    return len(patterns := _patterns(names)) == 1 and "#" in next(iter(patterns))


def is_frame_folder(path: str | os.PathLike) -> bool:
    """
    Whether a path is a folder of pictures that are the frames of a video.

    Args:
        path (`str` or `os.PathLike`):
            A path.

    Returns:
        `bool`
    """
    return os.path.isdir(path) and is_series(name for name, _ in _pictures(os.fspath(path)))


def list_pictures(folder: str) -> tuple[list[str], int]:
    """
    The frames of a folder.

    Args:
        folder (`str`):
            The folder.

    Returns:
        `tuple[list[str], int]`: names of the pictures in their natural order, and their bytes altogether.

    Raises:
        VideoDecodingError: there are no pictures, or pictures of several series.
    """
    pictures = _pictures(folder)
    names = sorted((name for name, _ in pictures), key=natural_order)
    if not names:
        raise VideoDecodingError(folder, None, f"a folder without pictures ({', '.join(PICTURE_SUFFIXES)})", "missing")
    if not is_series(names):
        patterns = sorted(_patterns(names))
        shown = ", ".join(repr(pattern) for pattern in patterns[:4]) + (", ..." if len(patterns) > 4 else "")
        reason = f"a folder of pictures whose names must differ in one series of numbers only (#), got {shown}"
        raise VideoDecodingError(folder, None, reason)
    return names, sum(size for _, size in pictures)


def _patterns(names: Iterable[str]) -> set[str]:
    return {re.sub(r"\d+", "#", name.lower()) for name in names}


def _pictures(folder: str) -> list[tuple[str, int]]:
    """Name and bytes of each picture that a user sees."""
    with os.scandir(folder) as entries:
        return [
            (entry.name, entry.stat().st_size)
            for entry in entries
            if entry.name.lower().endswith(PICTURE_SUFFIXES) and not entry.name.startswith(".") and entry.is_file()
        ]


class _BadPicture(Exception):
    """A picture cannot be a frame of the video."""


class FrameFolderReader:
    """
    A folder of pictures, read as [`PyAVReader`] reads a file.

    Args:
        folder (`str`):
            The folder.
        name (`str`):
            Name for messages.
        fps (`float`):
            Frame rate in frames a second. Pictures do not tell one.
        limits ([`VideoLimits`]):
            Upper bounds.
        deadline (`float`, *optional*):
            `time.monotonic()` at which to give up.
        cache_key (*optional*):
            Identity of the folder, under which its list of pictures is kept for the next call.

    Raises:
        VideoDecodingError: the folder is not one series of pictures, or is beyond `limits`.
    """

    decoder = "pillow"
    damaged_packets = 0

    def __init__(
        self,
        folder: str,
        name: str,
        *,
        fps: float,
        limits: VideoLimits,
        deadline: float | None = None,
        cache_key: Any = None,
    ) -> None:
        self.folder = folder
        self.name = name
        self.fps: float | None = fps
        self.limits = limits
        self.deadline = deadline
        self._shape: tuple[int, int] | None = None
        self._format = ""
        self._good: list[int] | None = None
        try:
            self._names, size = _listings.get(cache_key) or list_pictures(folder)
        except OSError as error:
            raise self._error(error.strerror or type(error).__name__, "missing") from None
        except VideoDecodingError as error:
            raise self._error(error.reason, error.kind) from None
        if cache_key is not None:
            while len(_listings) >= CACHED_LISTINGS:
                _listings.pop(next(iter(_listings)))
            _listings[cache_key] = self._names, size
        self._check_limits(size)

    def __enter__(self) -> "FrameFolderReader":
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def close(self) -> None:
        """Nothing stays open between two pictures."""

    @property
    def num_frames(self) -> int:
        """Number of pictures."""
        return len(self._names)

    @property
    def duration(self) -> float:
        """Seconds at the frame rate."""
        return self.num_frames / (self.fps or 1.0)

    def probe(self) -> VideoProbe:
        """
        Facts about the video. The head of the first picture is read.

        Returns:
            [`VideoProbe`]

        Raises:
            VideoDecodingError: no picture can be read.
        """
        try:
            height, width = self._first_shape()
        except _BadPicture as error:
            raise self._error(str(error)) from None
        return VideoProbe(
            num_frames=self.num_frames,
            fps=self.fps,
            duration=self.duration,
            height=height,
            width=width,
            codec=self._format,
            container="folder",
            timestamps=np.arange(self.num_frames) / (self.fps or 1.0),
        )

    def read(self, positions: Sequence[int]) -> Reading:
        """
        Frames, each of the size of the first picture.

        Args:
            positions (`Sequence[int]`):
                Frame numbers, ascending, without repeats.

        Returns:
            [`Reading`]: the frames, or the problem that was met.
        """
        try:
            frames = self._room_for(len(positions))
            for slot, position in enumerate(positions):
                frames[slot] = self._pixels(position)
        except _BadPicture as error:
            return Reading(damaged_packets=1, problem="damaged", reason=str(error))
        return Reading(frames, np.array(positions) / (self.fps or 1.0))

    def read_counted(self, positions: Sequence[int]) -> Reading:
        """
        Frames by their number among those that decode and have one size.

        Args:
            positions (`Sequence[int]`):
                Numbers, ascending, without repeats.

        Returns:
            [`Reading`]: the frames, or the problem that was met.
        """
        good = self._count() if self._good is None else self._good
        reading = self.read([good[position] for position in positions])
        reading.damaged_packets = self.num_frames - len(good)
        return reading

    def count(self) -> tuple[int, int]:
        """
        Pictures that can be frames, and the others.

        Returns:
            `tuple[int, int]`: their numbers.
        """
        good = len(self._count())
        return good, self.num_frames - good

    def _count(self) -> list[int]:
        good = []
        for position in range(self.num_frames):
            try:
                self._pixels(position)
            except _BadPicture:
                continue
            good.append(position)
        self._good = good
        return good

    def _first_shape(self) -> tuple[int, int]:
        """Height and width of the first picture that has a head."""
        faults = []
        for position in range(0 if self._shape is None else self.num_frames, self.num_frames):
            try:
                with self._opened(position) as image:
                    turned = image.getexif().get(ORIENTATION_TAG, 1) in TURNED
                    self._shape = image.size if turned else image.size[::-1]
                    self._format = (image.format or "").lower()
                    break
            except _BadPicture as error:
                faults.append(error)
        if self._shape is None:
            raise faults[0]
        return self._shape

    def _room_for(self, num_frames: int) -> np.ndarray:
        height, width = self._first_shape()
        needed, allowed = num_frames * height * width * 3, self.limits.max_decoded_bytes
        if needed > allowed:
            raise self._error(f"{num_frames} frames take {needed} bytes, allowed are {allowed}", "limit")
        return np.empty((num_frames, height, width, 3), dtype=np.uint8)

    def _pixels(self, position: int) -> np.ndarray:
        """A picture in RGB and upright, of the size of the first one."""
        height, width = self._first_shape()
        with self._opened(position) as image:
            if image.mode.startswith(DEEP_MODES):
                raise _BadPicture(f"{self._called(position)} has more than 8 bits a channel (mode {image.mode})")
            pixels = np.asarray(ImageOps.exif_transpose(image.convert("RGB")))
        if pixels.shape[:2] != (height, width):
            size = f"{pixels.shape[1]}x{pixels.shape[0]} pixels, not the {width}x{height} of the first one"
            raise _BadPicture(f"{self._called(position)} has {size}: the frames of a video have one size")
        return pixels

    @contextmanager
    def _opened(self, position: int) -> Iterator[Image.Image]:
        """A picture whose pixels are not read yet. Errors of Pillow, there and in the block, become ours."""
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise self._error("decoding takes too long", "timeout")
        path = os.path.join(self.folder, self._names[position])
        try:
            with open(path, "rb") as file, Image.open(file, formats=FORMATS) as image:
                width, height = image.size
                if width * height > self.limits.max_pixels:
                    reason = f"{self._called(position)} has {width}x{height} pixels"
                    raise self._error(f"{reason}, allowed are {self.limits.max_pixels}", "limit")
                yield image
        except Image.DecompressionBombError as error:
            raise self._error(f"{self._called(position)}: {error}", "limit") from None
        except Image.UnidentifiedImageError:
            reason = f"is damaged, or is no file of {', '.join(FORMATS)}"
            raise _BadPicture(f"{self._called(position)} {reason}") from None
        except BROKEN as error:
            raise _BadPicture(f"{self._called(position)} is damaged ({error})") from None

    def _called(self, position: int) -> str:
        return f"picture {self._names[position]!r}"

    def _check_limits(self, size: int) -> None:
        limits = self.limits
        if self.num_frames > limits.max_frames:
            raise self._error(f"more than {limits.max_frames} frames", "limit")
        if size > limits.max_bytes:
            raise self._error(f"{size} bytes, allowed are {limits.max_bytes}", "limit")
        if self.duration > limits.max_duration:
            raise self._error(f"{self.duration:.0f} seconds, allowed are {limits.max_duration:.0f}", "limit")

    def _error(self, reason: str, kind: str = "undecodable") -> VideoDecodingError:
        return VideoDecodingError(self.name, self.decoder, reason, kind)


def open_reader(
    file: str | BinaryIO,
    name: str,
    *,
    fps: float | None,
    limits: VideoLimits,
    num_threads: int = 1,
    deadline: float | None = None,
    cache_key: Any = None,
) -> PyAVReader | FrameFolderReader:
    """
    The reader of a video.

    Args:
        file (`str` or `BinaryIO`):
            A path or a seekable binary file.
        name (`str`):
            Name for messages.
        fps (`float` or `None`):
            Frame rate of a folder of pictures; `None` for a file.
        limits ([`VideoLimits`]):
            Upper bounds.
        num_threads (`int`, *optional*, defaults to 1):
            Threads of the decoder of a file.
        deadline (`float`, *optional*):
            `time.monotonic()` at which to give up.
        cache_key (*optional*):
            Identity of the video.

    Returns:
        [`PyAVReader`] or [`FrameFolderReader`]

    Raises:
        VideoDecodingError: the video cannot be read.
    """
    options: dict[str, Any] = {"limits": limits, "deadline": deadline, "cache_key": cache_key}
    if fps is None:
        return PyAVReader(file, name, num_threads=num_threads, **options)
    return FrameFolderReader(str(file), name, fps=fps, **options)


__all__ = ["FrameFolderReader", "is_frame_folder", "is_series", "list_pictures", "natural_order", "open_reader"]
