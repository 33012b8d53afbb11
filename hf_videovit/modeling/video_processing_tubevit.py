"""TubeViT's published protocol."""

from typing import Any

import numpy as np
from transformers.processing_utils import Unpack
from transformers.video_utils import VideoMetadata

from .frame_sampling import sample_at_rate
from .video_processing_key_frames import KeyFrameVideoProcessor, KeyFrameVideoProcessorKwargs


class TubeViTVideoProcessorKwargs(KeyFrameVideoProcessorKwargs, total=False):
    """
    Args:
        frame_rate (`float`, *optional*):
            Frames per second of a dense clip, at any frame rate of the video. A video of unknown rate is sampled at
            `frame_stride`.
    """

    frame_rate: float | int | None


class TubeViTVideoProcessor(KeyFrameVideoProcessor):
    """
    Short side to 224, crops of 224 x 224, mean and deviation 0.5 (those of the image ViTs that training starts from).

    One centred view of 32 frames by default. The published numbers use `num_clips=4, num_crops=3`, on Kinetics with
    `num_frames=64, frame_rate=15`, on Charades `num_frames=128, frame_rate=6`, on Something-Something V2
    `num_frames=32, frame_rate=24`. How the 4 clips lie and how scores are averaged is not stated; here they are spread
    evenly from the first to the last possible one, and the model averages probabilities.

    Raises:
        ValueError: `frame_rate` is not above 0.
    """

    valid_kwargs = TubeViTVideoProcessorKwargs
    published_num_frames = 32
    image_mean = [0.5, 0.5, 0.5]
    image_std = [0.5, 0.5, 0.5]
    frame_sampling = "dense"
    frame_stride = 2
    frame_rate = None

    def __init__(self, **kwargs: Unpack[TubeViTVideoProcessorKwargs]):
        super().__init__(**kwargs)
        if self.frame_rate is not None and self.frame_rate <= 0:
            raise ValueError(f"`frame_rate` must be above 0, got {self.frame_rate}.")

    def sample_frames(
        self, metadata: VideoMetadata, num_frames: int | None = None, *args: Any, **options: Any
    ) -> np.ndarray:
        """
        Indices of the frames to read; `frame_rate` is an argument, too. See [`ClipVideoProcessor.sample_frames`].
        """
        frame_rate = options.pop("frame_rate", None) or self.frame_rate
        sampling, mode = (options.get(name) or getattr(self, name) for name in ("frame_sampling", "sampling_mode"))
        fixed_rate = frame_rate is not None and metadata.fps and options.get("fps") is None
        if args or not fixed_rate or sampling != "dense":
            return super().sample_frames(metadata, num_frames, *args, **options)
        clips = sample_at_rate(
            metadata.total_num_frames,
            num_frames or self.num_frames or self.published_num_frames,
            metadata.fps / frame_rate,
            sampling_mode=mode,
            num_clips=options.get("num_clips") or self.num_clips,
            rng=options.get("rng"),
        )
        return clips if len(clips) > 1 else clips[0]


__all__ = ["TubeViTVideoProcessor", "TubeViTVideoProcessorKwargs"]
