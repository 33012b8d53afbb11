"""
Scores of a classifier along a clip.

Everything follows `pipeline("video-classification")`: the model's own processor, its views and its merging of views.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from transformers.video_utils import VideoMetadata

from ..modeling.video_decoding import decode_video, opened_once, probe_video
from ..modeling.video_decoding_types import VideoProbe
from ..modeling.video_processing_base import ClipVideoProcessor


@dataclass(frozen=True)
class Views:
    """
    Input of the model for a clip, or for a part of it.

    Args:
        pixel_values (`torch.Tensor` of shape `(1, [num_views,] num_frames, num_channels, height, width)`):
            Output of the processor.
        indices (`np.ndarray` of shape `(num_clips, num_frames)`):
            Indices of these frames in the video. The crops of a clip follow one another in `pixel_values`.
        frames (`np.ndarray` of shape `(num_clips, num_frames, height, width, 3)`):
            The decoded frames, in uint8.
    """

    pixel_values: torch.Tensor
    indices: np.ndarray
    frames: np.ndarray

    def frame_tensor(self) -> torch.Tensor:
        """
        The views one after another.

        Returns:
            `torch.Tensor` of shape `(num_views, num_frames, num_channels, height, width)`
        """
        return self.pixel_values.view(-1, *self.pixel_values.shape[-4:])


@dataclass(frozen=True)
class Window:
    """
    Scores of a part of a clip.

    Args:
        first (`int`):
            First frame.
        end (`int`):
            The frame after the last one.
        start_seconds (`float`):
            Time of the first frame.
        end_seconds (`float`):
            Time at which the last frame ends.
        scores (`dict[str, float]`):
            Score of each label, best first.
    """

    first: int
    end: int
    start_seconds: float
    end_seconds: float
    scores: dict[str, float]


def scores_over_time(classifier: Any, video: Any, *, num_windows: int = 8) -> list[Window]:
    """
    Scores of all labels in windows along a clip.

    A window is as long as one clip of the checkpoint's protocol. If the protocol spreads a clip over more than half of
    the video, a window is a quarter of the video.

    Args:
        classifier ([`~pipeline.ClipClassificationPipeline`]):
            The pipeline.
        video (`Any`):
            One video, in any form that the processor accepts.
        num_windows (`int`, *optional*, defaults to 8):
            Maximum number of windows, evenly spaced from the first frame to the last.

    Returns:
        `list[Window]`: in temporal order; a single window if the video is not longer than one.

    Raises:
        ValueError: `num_windows` is less than 1.
        VideoDecodingError: the video cannot be read.
    """
    if num_windows < 1:
        raise ValueError(f"`num_windows` must be at least 1, got {num_windows}.")
    processor = classifier.video_processor
    windows = []
    with opened_once(video, limits=processor.decoding_limits) as opened:
        probe = probe_video(opened, **processor.probe_options)
        length = _window_length(processor, probe)
        starts = np.unique(np.linspace(0, probe.num_frames - length, num_windows).round().astype(int)).tolist()
        seconds = frame_seconds(probe)
        for first in starts:
            end = first + length
            scores = score_views(classifier, load_views(processor, opened, (first, end)).pixel_values)
            windows.append(Window(first, end, float(seconds[first]), float(seconds[end]), scores))
    return windows


def load_views(processor: ClipVideoProcessor, video: Any, window: tuple[int, int] | None = None) -> Views:
    """
    Decode a video and prepare the input of the model.

    Args:
        processor ([`ClipVideoProcessor`]):
            The checkpoint's processor.
        video:
            One video, in any form that the processor accepts.
        window (`tuple[int, int]`, *optional*):
            First frame and the one after the last. The protocol then treats these frames as the whole video.
            Identical clips of a window are returned once.

    Returns:
        [`Views`]: without a window, `pixel_values` equal the output of the processor.
    """

    def plan(metadata: VideoMetadata) -> np.ndarray:
        offset = 0
        if window is not None:
            offset, length = window[0], window[1] - window[0]
            duration = None if metadata.fps is None else length / metadata.fps
            metadata = replace(metadata, total_num_frames=length, duration=duration)
        indices = np.atleast_2d(processor.sample_frames(metadata))
        if window is not None:
            indices = np.unique(indices, axis=0)
        return indices + offset

    decoded = decode_video(video, plan, **processor.decode_options)
    frames = decoded.frames  # (clips, frames, height, width, channels)
    clips = [torch.from_numpy(clip).permute(0, 3, 1, 2) for clip in frames]  # (frames, channels, height, width)
    options = {"do_sample_frames": False, "input_data_format": "channels_first", "return_tensors": "pt"}
    pixel_values = processor(clips, **options)["pixel_values"]
    crops_apart = pixel_values.ndim == 6  # (clips, crops, frames, channels, height, width)
    views = pixel_values.flatten(0, 1) if crops_apart else pixel_values
    indices = np.asarray(decoded.metadata.frames_indices).reshape(frames.shape[:2])
    return Views(views[None] if len(views) > 1 else views, indices, frames)


def score_views(classifier: Any, pixel_values: torch.Tensor) -> dict[str, float]:
    """
    Scores of all labels for the views of a video.

    Args:
        classifier ([`~pipeline.ClipClassificationPipeline`]):
            The pipeline.
        pixel_values (`torch.Tensor` of shape `(1, [num_views,] num_frames, num_channels, height, width)`):
            Views of one video.

    Returns:
        `dict[str, float]`: the score of each label, best first.
    """
    outputs = classifier.forward({"pixel_values": [pixel_values], "errors": [None]})
    scores: dict[str, float] = {}
    for answer in classifier.postprocess(outputs, top_k=None):
        scores.setdefault(answer["label"], answer["score"])  # the better of two classes with one name
    return scores


def _window_length(processor: ClipVideoProcessor, probe: VideoProbe) -> int:
    metadata = VideoMetadata(
        total_num_frames=probe.num_frames,
        fps=probe.fps,
        duration=probe.duration,
        height=probe.height,
        width=probe.width,
    )
    clip = np.atleast_2d(processor.sample_frames(metadata))[0]
    span = int(np.ptp(clip)) + 1
    length = span if 2 * span <= probe.num_frames else max(len(clip), probe.num_frames // 4)
    return min(length, probe.num_frames)


def frame_seconds(probe: VideoProbe) -> np.ndarray:
    """
    Times of the frames of a video. A video without a rate has one frame per second.

    Args:
        probe ([`~video_decoding_types.VideoProbe`]):
            What is known about the video.

    Returns:
        `np.ndarray` of shape `(num_frames + 1,)`: start of each frame and end of the last one, in seconds.
    """
    if probe.timestamps is None:
        return np.arange(probe.num_frames + 1) / (probe.fps or 1.0)
    times = np.asarray(probe.timestamps, dtype=float) - probe.timestamps[0]
    last = times[-1] + (1 / probe.fps if probe.fps else 0.0)
    return np.append(times, last)


__all__ = ["Views", "Window", "frame_seconds", "load_views", "score_views", "scores_over_time"]
