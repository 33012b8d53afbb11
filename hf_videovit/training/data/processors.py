"""What training asks of a processor."""

import os
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch


class ClipProcessor(Protocol):
    """
    A video processor that carries a checkpoint's protocol: [`ClipVideoProcessor`] and the readers of image files.
    """

    num_frames: int | None
    published_num_frames: int
    frame_sampling: str
    size: Any
    crop_size: Any
    do_center_crop: bool
    do_normalize: bool
    do_grayscale: bool
    image_mean: Sequence[float]
    image_std: Sequence[float]
    rescale_factor: float
    resample: Any
    antialias: bool

    def __call__(self, videos: Any, **kwargs: Any) -> Any:
        """Views of videos as the model takes them."""

    def load_clips(
        self, video: Any, *, sampling_mode: str | None = None, rng: np.random.Generator | None = None
    ) -> tuple[torch.Tensor, Any]:
        """uint8 clips of shape `(num_clips, num_frames, num_channels, height, width)`, and the video's metadata."""

    def normalize_clips(self, clips: torch.Tensor) -> torch.Tensor:
        """uint8 clips as the model takes them."""

    def to_dict(self) -> dict[str, Any]:
        """The processor's fields."""

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> Any:
        """Write the processor beside a model."""


__all__ = ["ClipProcessor"]
