"""
What a classifier says along a clip, and which parts of the clip its answer rests on.

All goes the way of `pipeline("video-classification")`: the model's own processor, its views, its way of merging them.
The importance of a moment is measured by occlusion: its frames are hidden and the model is asked again. That needs
nothing of the model but its answers, so it is the same measure for every family. What it does not tell: two moments
that show the same thing each look unimportant, since the other one is still seen; and a hidden frame is a frame that
no model has met in training, so small differences mean little.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from transformers.video_utils import VideoMetadata

from ..modeling.video_decoding import decode_video, probe_video
from ..modeling.video_decoding_types import VideoProbe
from ..modeling.video_processing_base import ClipVideoProcessor


@dataclass(frozen=True)
class Views:
    """
    What the model sees of a clip, or of a part of it.

    Args:
        pixel_values (`torch.Tensor` of shape `(1, [num_views,] num_frames, num_channels, height, width)`):
            As the processor makes them of the whole clip.
        indices (`np.ndarray` of shape `(num_clips, num_frames)`):
            Which frames of the video these are. The crops of a clip follow one another in `pixel_values`.
        frames (`np.ndarray` of shape `(num_clips, num_frames, height, width, 3)`):
            The frames as decoded, in uint8.
    """

    pixel_values: torch.Tensor
    indices: np.ndarray
    frames: np.ndarray


@dataclass(frozen=True)
class Window:
    """A part of a clip: first frame and the one after the last, the same in seconds, and the score of each label."""

    first: int
    end: int
    start_seconds: float
    end_seconds: float
    scores: dict[str, float]


@dataclass(frozen=True)
class Moment:
    """
    Neighbouring frames among those that the model looked at.

    Args:
        seconds (`float`):
            Time of the middle one.
        frame (`np.ndarray` of shape `(height, width, 3)`):
            The middle one, in uint8.
        drop (`float`):
            By how much the score of the label falls if they are hidden; below 0, they spoke against it.
    """

    seconds: float
    frame: np.ndarray
    drop: float


def scores_over_time(classifier: Any, video: Any, *, num_windows: int = 8) -> list[Window]:
    """
    The score of every label in windows along a clip.

    A window is as long as what one clip of the checkpoint's protocol covers; where the protocol spreads a clip over
    more than half of the video, a quarter of the video.

    Args:
        classifier ([`~pipelines.ClipClassificationPipeline`]):
            The pipeline.
        video:
            One video, in any form the processor takes.
        num_windows (`int`, *optional*, defaults to 8):
            Windows at most, evenly spaced from the first frame to the last.

    Returns:
        `list[Window]`, in the order of time; one window for a video that is no longer than that.

    Raises:
        VideoDecodingError: the video cannot be read.
    """
    if num_windows < 1:
        raise ValueError(f"`num_windows` must be at least 1, got {num_windows}.")
    processor = classifier.video_processor
    probe = probe_video(video, isolate=processor.isolate_decoding)
    length = _window_length(processor, probe)
    starts = np.unique(np.linspace(0, probe.num_frames - length, num_windows).round().astype(int)).tolist()
    seconds = _seconds(probe)
    windows = []
    for first in starts:
        end = first + length
        scores = score_views(classifier, load_views(processor, video, (first, end)).pixel_values)
        windows.append(Window(first, end, float(seconds[first]), float(seconds[end]), scores))
    return windows


def moments_that_mattered(
    classifier: Any, video: Any, label: str | None = None, *, num_moments: int = 8
) -> list[Moment]:
    """
    How much the score of a label rests on each part of what the model looked at, by hiding one part after another.

    A hidden frame has the mean colour of its view, in all crops of it.

    Args:
        classifier ([`~pipelines.ClipClassificationPipeline`]):
            The pipeline.
        video:
            One video, in any form the processor takes.
        label (`str`, *optional*):
            One of the model's labels. Defaults to the best one.
        num_moments (`int`, *optional*, defaults to 8):
            Parts into which the frames are divided, as equal in number as may be.

    Returns:
        `list[Moment]`, in the order of time.

    Raises:
        ValueError: the model has no such label.
        VideoDecodingError: the video cannot be read.
    """
    if num_moments < 1:
        raise ValueError(f"`num_moments` must be at least 1, got {num_moments}.")
    processor = classifier.video_processor
    views = load_views(processor, video)
    scores = score_views(classifier, views.pixel_values)
    label = next(iter(scores)) if label is None else label  # the best is the first
    if label not in scores:
        raise ValueError(f"`label` must be one of the model's {len(scores)} labels, got {label!r}.")
    seen = np.unique(views.indices)
    seconds = _seconds(probe_video(video, isolate=processor.isolate_decoding))
    moments = []
    for part in np.array_split(seen, min(num_moments, len(seen))):
        drop = scores[label] - score_views(classifier, _hide(views, part))[label]
        middle = part[len(part) // 2]
        clip, place = np.argwhere(views.indices == middle)[0]
        moments.append(Moment(float(seconds[middle]), views.frames[clip, place], drop))
    return moments


def load_views(processor: ClipVideoProcessor, video: Any, window: tuple[int, int] | None = None) -> Views:
    """
    Decode and prepare what the protocol looks at.

    Args:
        processor ([`ClipVideoProcessor`]):
            The checkpoint's processor.
        video:
            One video, in any form the processor takes.
        window (`tuple[int, int]`, *optional*):
            First frame and the one after the last: the protocol then takes these frames for the whole video. Clips
            that are the same in a window are there once.

    Returns:
        [`Views`]: without a window, the `pixel_values` that the processor itself gives.
    """
    shape: list[int] = []

    def plan(metadata: VideoMetadata) -> np.ndarray:
        offset = 0
        if window is not None:
            offset, length = window[0], window[1] - window[0]
            duration = None if metadata.fps is None else length / metadata.fps
            metadata = replace(metadata, total_num_frames=length, duration=duration)
        indices = np.atleast_2d(processor.sample_frames(metadata))
        if window is not None:
            indices = np.unique(indices, axis=0)
        shape[:] = indices.shape
        return indices + offset

    decoded = decode_video(
        video,
        plan,
        decoder=processor.decoder,
        policy=processor.decoding_policy,
        isolate=processor.isolate_decoding,
    )
    frames = decoded.frames.reshape(*shape, *decoded.frames.shape[1:])
    clips = [torch.from_numpy(clip).permute(0, 3, 1, 2) for clip in frames]  # (frames, channels, height, width)
    options = {"do_sample_frames": False, "input_data_format": "channels_first", "return_tensors": "pt"}
    pixel_values = processor(clips, **options)["pixel_values"]
    crops_apart = pixel_values.ndim == 6  # (clips, crops, frames, channels, height, width)
    views = pixel_values.flatten(0, 1) if crops_apart else pixel_values
    indices = np.asarray(decoded.metadata.frames_indices).reshape(shape)
    return Views(views[None] if len(views) > 1 else views, indices, frames)


def score_views(classifier: Any, pixel_values: torch.Tensor) -> dict[str, float]:
    """
    The pipeline's answer to views.

    Args:
        classifier ([`~pipelines.ClipClassificationPipeline`]):
            The pipeline.
        pixel_values (`torch.Tensor` of shape `(1, [num_views,] num_frames, num_channels, height, width)`):
            Of one video.

    Returns:
        `dict[str, float]`: the score of each label, best first.
    """
    outputs = classifier.forward({"pixel_values": [pixel_values], "errors": [None]})
    scores: dict[str, float] = {}
    for answer in classifier.postprocess(outputs, top_k=None):
        scores.setdefault(answer["label"], answer["score"])  # of two classes of one name the better
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


def _seconds(probe: VideoProbe) -> np.ndarray:
    """When each frame is shown, and when the last one ends. A video without a rate has one frame a second."""
    if probe.timestamps is None:
        return np.arange(probe.num_frames + 1) / (probe.fps or 1.0)
    times = np.asarray(probe.timestamps, dtype=float) - probe.timestamps[0]
    last = times[-1] + (1 / probe.fps if probe.fps else 0.0)
    return np.append(times, last)


def _hide(views: Views, part: np.ndarray) -> torch.Tensor:
    """The views with the frames `part` of the video in their view's mean colour."""
    pixel_values = views.pixel_values
    frames = pixel_values.view(-1, *pixel_values.shape[-4:])  # (views, frames, channels, height, width)
    crops = len(frames) // len(views.indices)
    mask = torch.from_numpy(np.isin(views.indices, part).repeat(crops, axis=0))  # (views, frames)
    colour = frames.mean(dim=(1, 3, 4), keepdim=True)  # (views, 1, channels, 1, 1)
    return torch.where(mask[..., None, None, None], colour, frames).view_as(pixel_values)


__all__ = ["Moment", "Views", "Window", "load_views", "moments_that_mattered", "score_views", "scores_over_time"]
