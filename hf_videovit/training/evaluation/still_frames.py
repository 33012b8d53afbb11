"""Clips of a single repeated frame: a control that shows how much of a score does not depend on motion."""

from typing import Any

import numpy as np
from transformers.video_utils import VideoMetadata

from ...modeling.frame_sampling import Random, random_integers
from ...modeling.video_processing_base import ClipVideoProcessor
from ...modeling.video_processing_videomae_v2 import VideoMAEV2VideoProcessor


class StillFrameMixin(ClipVideoProcessor):
    """
    Replaces all frames of each clip by one of them: a random one if the sampling is random, else the middle one. Use
    it as the first base class, before the processor of a family.
    """

    def sample_frames(self, metadata: VideoMetadata, *args: Any, **kwargs: Any) -> np.ndarray:
        """
        Sample the indices as the family does, then repeat one index of each clip.

        Args:
            metadata (`VideoMetadata`):
                Number of frames and frame rate of the video.

        Returns:
            `np.ndarray` of shape `(num_clips, num_frames)` or `(num_frames,)`.
        """
        rng: Random | None = kwargs.get("rng")
        indices = super().sample_frames(metadata, *args, **kwargs)
        num_frames = indices.shape[-1]
        chosen = num_frames // 2 if rng is None else int(random_integers(rng, 0, num_frames))
        return np.repeat(indices[..., [chosen]], num_frames, axis=-1)


class StillFrameVideoMAEV2VideoProcessor(StillFrameMixin, VideoMAEV2VideoProcessor):
    """The processor of VideoMAE V2 with clips of a single repeated frame."""
