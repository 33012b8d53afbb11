"""What a model can know without time: the control that a claim about motion needs."""

from typing import Any

import numpy as np
from transformers.video_utils import VideoMetadata

from ...modeling.frame_sampling import Random, random_integers
from ...modeling.video_processing_base import ClipVideoProcessor
from ...modeling.video_processing_videomae_v2 import VideoMAEV2VideoProcessor


class StillFrameMixin(ClipVideoProcessor):
    """
    Shows one frame of each clip in the place of all of them: a random one where the sampling is random, else the
    middle one. Put it before a family's processor; training and evaluation then go on as with that one.
    """

    def sample_frames(self, metadata: VideoMetadata, *args: Any, **kwargs: Any) -> np.ndarray:
        """Indices as the family samples them, `(num_clips, num_frames)` or `(num_frames,)`, each clip of one frame."""
        rng: Random | None = kwargs.get("rng")
        indices = super().sample_frames(metadata, *args, **kwargs)
        num_frames = indices.shape[-1]
        chosen = num_frames // 2 if rng is None else int(random_integers(rng, 0, num_frames))
        return np.repeat(indices[..., [chosen]], num_frames, axis=-1)


class StillFrameVideoMAEV2VideoProcessor(StillFrameMixin, VideoMAEV2VideoProcessor):
    """VideoMAE V2's own processor, but every clip is a still."""
