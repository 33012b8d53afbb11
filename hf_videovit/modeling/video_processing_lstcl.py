"""LSTCL's protocol: that of its TimeSformer encoder. The paper's own protocol is not known."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers.image_utils import SizeDict
from transformers.processing_utils import Unpack
from transformers.video_utils import VideoMetadata

from .frame_sampling import Random, sample_clips, span_clips, span_from_start
from .video_decoding import decode_video
from .video_processing_base import frames_to_tensor, is_frames, output_size_by_ratio
from .video_processing_key_frames import KeyFrameVideoProcessor, KeyFrameVideoProcessorKwargs


SHORT_SHARE = 4  # a short clip of segments covers one part in four of the video


class LstclVideoProcessorKwargs(KeyFrameVideoProcessorKwargs, total=False):
    """
    Args:
        stride_fps (`float`, *optional*, defaults to 30.0):
            Frame rate that `frame_stride` is meant for: videos of another rate are sampled over as much time. 0 counts
            the video's own frames.
        short_num_frames (`int`, *optional*):
            Frames of the short clip of pretraining; `num_frames` by default.
        short_frame_stride (`int`, *optional*, defaults to 8):
            Its stride. That of the long clip is `frame_stride`.
        short_inside_long (`bool`, *optional*, defaults to `False`):
            Whether the short clip lies within the long one's time; else both are placed on their own.
    """

    stride_fps: float | None
    short_num_frames: int | None
    short_frame_stride: int | None
    short_inside_long: bool | None


class LstclVideoProcessor(KeyFrameVideoProcessor):
    """
    8 frames at stride 32, short side to 224 by bilinear interpolation of unrounded pixels without antialiasing, mean
    0.45 and deviation 0.225 in every channel (TimeSformer's and SlowFast's).

    `frame_sampling="span_from_start"` spreads the frames of a clip over all of `num_frames * frame_stride` frames,
    both ends included, as TimeSformer's loader does. The first of several test clips starts with the video, as does a
    single one. Places beyond the end repeat the last frame. Spread frames are rounded down, so where strides are
    short they are not equally far apart (8 of 16 frames: 0, 2, 4, 6, 8, 10, 12, 15); `frame_sampling="dense_cyclic"`
    has exact strides. Data sets where order matters more than speed (Something-Something) take
    `frame_sampling="sparse_middle"`: a frame of each segment of the video.

    Raises:
        ValueError: a field has a value that is not allowed.
    """

    valid_kwargs = LstclVideoProcessorKwargs
    published_num_frames = 8
    frame_sampling = "span_from_start"
    frame_stride = 32
    stride_fps = 30.0
    short_num_frames: int | None = None
    short_frame_stride = 8
    short_inside_long = False
    image_mean = [0.45, 0.45, 0.45]
    image_std = [0.225, 0.225, 0.225]
    antialias = False
    round_resized = False
    crop_rounding = "up"

    def __init__(self, **kwargs: Unpack[LstclVideoProcessorKwargs]):
        super().__init__(**kwargs)
        for name in ("short_num_frames", "short_frame_stride"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if self.stride_fps < 0:
            raise ValueError(f"`stride_fps` must be at least 0, got {self.stride_fps}.")

    def resized_size(self, current: Sequence[int], size: SizeDict) -> tuple[int, int]:
        """
        The ratio of the sides is computed first, as in the official code, so a long side can be a pixel shorter. See
        [`ClipVideoProcessor.resized_size`].
        """
        return output_size_by_ratio(current, size)

    def sample_frames(
        self,
        metadata: VideoMetadata,
        num_frames: int | None = None,
        fps: int | float | None = None,
        frame_sampling: str | None = None,
        sampling_mode: str | None = None,
        frame_stride: int | None = None,
        num_clips: int | None = None,
        rng: Random | None = None,
        **kwargs: Any,
    ) -> np.ndarray:
        """As [`ClipVideoProcessor.sample_frames`]; the span of `"span_from_start"` follows `stride_fps`."""
        sampling = frame_sampling or self.frame_sampling
        frames = num_frames or self.num_frames or self.published_num_frames
        protocol = fps is None and (self.num_frames is not None or num_frames is None)
        if sampling != "span_from_start" or not protocol:
            return super().sample_frames(
                metadata, num_frames, fps, frame_sampling, sampling_mode, frame_stride, num_clips, rng
            )
        span = self._span_of(metadata, frames, frame_stride or self.frame_stride)
        indices = span_from_start(
            metadata.total_num_frames,
            frames,
            span,
            sampling_mode=sampling_mode or self.sampling_mode,
            num_clips=num_clips or self.num_clips,
            rng=rng or np.random.default_rng(),
        )
        return indices if len(indices) > 1 else indices[0]

    def _span_of(self, metadata: VideoMetadata, num_frames: int, stride: int) -> float:
        """Frames of the video that a clip stretches over."""
        rate = metadata.fps / self.stride_fps if self.stride_fps and metadata.fps else 1.0
        return num_frames * stride * rate

    def sample_short_and_long(self, metadata: VideoMetadata, rng: Random) -> tuple[np.ndarray, np.ndarray]:
        """
        Frames of the two clips that pretraining compares.

        Args:
            metadata (`VideoMetadata`):
                Of the video.
            rng (`numpy.random.Generator` or `numpy.random.RandomState`):
                Source of the places.

        Returns:
            `tuple`: indices of the short clip, and of the long one, each as `frame_sampling` places a training clip.
            Where that goes over the whole video (`"sparse"`, `"sparse_middle"`, `"segment"`, `"uniform"`) the short
            one goes over a contiguous quarter of it.
        """
        total = metadata.total_num_frames
        long_frames = self.num_frames or self.published_num_frames
        short_frames = self.short_num_frames or long_frames
        if self.frame_sampling != "span_from_start":
            return self._short_and_long_of_whole_frames(total, short_frames, long_frames, rng)
        spans = [
            self._span_of(metadata, frames, stride)
            for frames, stride in ((short_frames, self.short_frame_stride), (long_frames, self.frame_stride))
        ]
        start = rng.uniform(0, max(total - spans[1], 0.0))
        long = span_clips(total, long_frames, spans[1], np.array([start]))[0]
        low, high = 0.0, max(total - spans[0], 0.0)
        if self.short_inside_long:
            low, high = start, max(min(start + spans[1], total) - spans[0], start)
        return span_clips(total, short_frames, spans[0], np.array([rng.uniform(low, high)]))[0], long

    def _short_and_long_of_whole_frames(
        self, total: int, short_frames: int, long_frames: int, rng: Random
    ) -> tuple[np.ndarray, np.ndarray]:
        def sample(frames: int, num_frames: int, stride: int) -> np.ndarray:
            options: dict[str, Any] = {"frame_sampling": self.frame_sampling, "sampling_mode": "train", "rng": rng}
            return sample_clips(frames, num_frames=num_frames, frame_stride=stride, **options)[0]

        if self.frame_sampling in ("dense", "dense_cyclic", "span"):
            long = sample(total, long_frames, self.frame_stride)
            first, part = 0, total
            if self.short_inside_long:
                first = int(long.min())
                part = int(long.max()) + 1 - first
        else:
            part = max(total // SHORT_SHARE, 1)
            first = int(rng.uniform(0, total - part + 1))
            long = sample(total, long_frames, 1)
        return sample(part, short_frames, self.short_frame_stride) + first, long

    def load_short_and_long(self, video: Any, rng: Random) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Decode the two clips of pretraining, with one pass over the file.

        Args:
            video:
                One video in any form the processor takes.
            rng (`numpy.random.Generator` or `numpy.random.RandomState`):
                Source of their places.

        Returns:
            `tuple`: the short and the long clip, uint8 of shape `(num_frames, num_channels, height, width)`.

        Raises:
            VideoDecodingError: the video cannot be read.
        """

        def plan(metadata: VideoMetadata) -> np.ndarray:
            return np.concatenate(self.sample_short_and_long(metadata, rng))

        if is_frames(video):
            frames = self.convert_to_rgb(frames_to_tensor(video, None))
            chosen = frames[torch.from_numpy(plan(VideoMetadata(total_num_frames=len(frames))))]
        else:
            decoded = decode_video(video, indices=plan, **self.decode_options)
            chosen = torch.from_numpy(decoded.frames).permute(0, 3, 1, 2)
        num_short = self.short_num_frames or self.num_frames or self.published_num_frames
        return chosen[:num_short], chosen[num_short:]


__all__ = ["LstclVideoProcessor", "LstclVideoProcessorKwargs"]
