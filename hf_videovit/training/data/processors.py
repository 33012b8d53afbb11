"""The interface of a processor for training."""

import os
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch


class ClipProcessor(Protocol):
    """
    A video processor with the protocol of a checkpoint: [`ClipVideoProcessor`] or a reader of image files.
    """

    num_frames: int | None
    published_num_frames: int
    frame_sampling: str
    frame_stride: int
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
    valid_kwargs: Any
    decoder: str
    decoding_policy: str

    def __call__(self, videos: Any, **kwargs: Any) -> Any:
        """Views of videos as input of the model."""

    def load_clips(
        self, video: Any, *, sampling_mode: str | None = None, rng: np.random.Generator | None = None
    ) -> tuple[torch.Tensor, Any]:
        """
        Sample, decode and resize the clips of a video.

        Args:
            video (`Any`):
                A path, URL, bytes or frames.
            sampling_mode (`str`, *optional*):
                How frames are sampled; the default of the processor otherwise.
            rng (`np.random.Generator`, *optional*):
                Random numbers of the sampling.

        Returns:
            `tuple[torch.Tensor, Any]`: uint8 clips of shape `(num_clips, num_frames, num_channels, height, width)` and
            the metadata of the video.
        """

    def normalize_clips(self, clips: torch.Tensor) -> torch.Tensor:
        """
        Rescale and normalise clips.

        Args:
            clips (`torch.Tensor` of shape `(num_clips, num_frames, num_channels, height, width)`):
                uint8 clips.

        Returns:
            `torch.Tensor` of the same shape: input of the model.
        """

    def to_dict(self) -> dict[str, Any]:
        """The fields of the processor."""

    def to_json_string(self) -> str:
        """The processor's saved fields as JSON."""

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> Any:
        """
        Save the processor beside a model.

        Args:
            save_directory (`str` or `os.PathLike`):
                Folder that receives the configuration.
        """


__all__ = ["ClipProcessor"]
