"""A part of a video as a video: `{"path": "film.mp4", "start": 12.5, "end": 15}`."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers.video_utils import VideoMetadata

from .video_decoding_sources import EncodedVideo, source_name
from .video_decoding_types import VideoDecodingError, VideoProbe


SLACK = 1.0  # seconds by which a part may end after its video: ends are often rounded up


@dataclass(frozen=True)
class VideoPart:
    """
    A part of a video. The first frame of a video has number 0 and time 0. Times become frames by the mean rate of the
    video. The frame at the end is not in the part.

    Args:
        start (`float`, *optional*, defaults to 0.0):
            Start of the part.
        end (`float`, *optional*):
            End of the part; that of the video by default.
        in_frames (`bool`, *optional*, defaults to `False`):
            Whether start and end are numbers of frames, not seconds.
        name (`str`, *optional*, defaults to `""`):
            Name of the video, for messages.

    Raises:
        ValueError: `start` is negative, or `end` is not after it.
    """

    start: float = 0.0
    end: float | None = None
    in_frames: bool = False
    name: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start) and self.start >= 0):
            raise ValueError(f"`start` of a part must be at least 0, got {self.start}")
        if self.end is not None and not self.end > self.start:
            raise ValueError(f"`end` of a part must be after `start` {self.start:g}, got {self.end:g}")

    @classmethod
    def of(cls, source: Any) -> "VideoPart | None":
        """
        The part that a video names.

        Args:
            source:
                A video in any form. A dict may have `start` and `end` in seconds, or `start_frame` and `end_frame`.

        Returns:
            [`VideoPart`] or `None`: `None` for a whole video.
        """
        if isinstance(source, EncodedVideo):
            return source.part
        if not isinstance(source, dict):
            return None
        for names, in_frames in ((("start", "end"), False), (("start_frame", "end_frame"), True)):
            start, end = (source.get(name) for name in names)
            if start is not None or end is not None:
                return cls(start or 0.0, end, in_frames, source_name(source))
        return None

    def fields(self) -> dict[str, float]:
        """The fields by which a video names this part; see [`~VideoPart.of`]."""
        names = ("start_frame", "end_frame") if self.in_frames else ("start", "end")
        return {name: value for name, value in zip(names, (self.start, self.end)) if value is not None}

    def __str__(self) -> str:
        end = "end" if self.end is None else f"{self.end:g}"
        return f"{self.start:g}-{end}" + (" frames" if self.in_frames else " s")

    def bounds(self, metadata: VideoMetadata) -> tuple[int, int]:
        """
        The frames of the part.

        Args:
            metadata (`VideoMetadata`):
                Of the whole video.

        Returns:
            `tuple[int, int]`: the first frame, and the one after the last.

        Raises:
            VideoDecodingError: the video ends before the part.
        """
        rate = metadata.fps
        if not rate and not self.in_frames:
            raise VideoDecodingError(self.name, None, f"the part {self} has no frames: the rate is unknown", "empty")
        total, scale = metadata.total_num_frames, 1.0 if self.in_frames else float(rate or 1.0)
        first = math.ceil(self.start * scale - 1e-6)
        last = total if self.end is None else math.ceil(self.end * scale - 1e-6)
        if first >= total or last > total + math.ceil(SLACK * (rate or 25.0)) or first >= last:
            length = f"{total} frames" + (f" ({total / rate:.2f} s)" if rate else "")
            raise VideoDecodingError(self.name, None, f"the part {self} is not in the video of {length}", "empty")
        return first, min(last, total)

    def probe(self, probe: VideoProbe) -> VideoProbe:
        """
        Facts about the part.

        Args:
            probe ([`VideoProbe`]):
                Of the whole video.

        Returns:
            [`VideoProbe`]

        Raises:
            VideoDecodingError: the video ends before the part.
        """
        first, last = self.bounds(VideoMetadata(total_num_frames=probe.num_frames, fps=probe.fps))
        return dataclasses.replace(
            probe,
            num_frames=last - first,
            duration=(last - first) / probe.fps if probe.fps else None,
            timestamps=None if probe.timestamps is None else probe.timestamps[first:last],
        )

    def frames(self, plan: Callable[[Any, VideoMetadata], np.ndarray], indices: Any) -> Callable[..., np.ndarray]:
        """
        Frames of the part, as frames of the video.

        Args:
            plan (`Callable`):
                Turns indices and the metadata of a video into an array of indices.
            indices:
                Frames of the part: integers, a callable, or `None` for all.

        Returns:
            `Callable[[VideoMetadata], np.ndarray]`: indices in the video, of its metadata.
        """

        def of_video(metadata: VideoMetadata) -> np.ndarray:
            first, last = self.bounds(metadata)
            duration = (last - first) / metadata.fps if metadata.fps else None
            part = dataclasses.replace(metadata, total_num_frames=last - first, duration=duration)
            return plan(indices, part) + first

        return of_video


__all__ = ["VideoPart"]
