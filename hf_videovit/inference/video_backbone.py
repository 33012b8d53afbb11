"""Any family's encoder as a backbone for frames in memory: policies, dense heads, anything that wants a map."""

import os
from typing import Any

import torch
from torch import nn
from transformers import AutoVideoProcessor
from transformers.modeling_outputs import BackboneOutput
from transformers.utils import logging

from ..auto import AutoModelForActionDetection
from ..modeling.video_processing_base import ClipVideoProcessor


ONE_STAGE = {"fused_stages": 1}


class VideoBackbone(nn.Module):
    """
    The encoder of a checkpoint as a backbone: a batch of frames in, a feature map out. Resizing, cropping and
    normalisation are those of the checkpoint, and run on the device of the frames.

    Args:
        model (`PreTrainedModel`):
            An action detector of any family with `detection_config={"fused_stages": 1}`, whose head is dropped.
        processor ([`ClipVideoProcessor`]):
            The checkpoint's processor.

    Raises:
        ValueError: the model gives a map of several stages.

    Example:

    ```python
    >>> import torch
    >>> from hf_videovit.inference.video_backbone import VideoBackbone

    >>> backbone = VideoBackbone.from_pretrained("path/to/model")
    >>> observations = torch.rand(2, 16, 3, 240, 320)  # of a simulator or a robot, values 0 to 1
    >>> maps = backbone(observations).feature_maps[0]  # (2, channels, time, height, width)
    ```"""

    def __init__(self, model: Any, processor: ClipVideoProcessor):
        super().__init__()
        if model.config.detection_config.fused_stages != 1:
            raise ValueError("`model` must give the map of one stage: `detection_config={'fused_stages': 1}`.")
        self.channels = [model.config.hidden_size]
        model.action_head = None
        self.model, self.processor = model, processor

    @classmethod
    def from_pretrained(cls, place: str | os.PathLike, **kwargs: Any) -> "VideoBackbone":
        """
        Load the encoder of any checkpoint.

        Args:
            place (`str` or `os.PathLike`):
                Folder or Hub id of a model of this package.
            kwargs (`Any`):
                Arguments of `AutoModelForActionDetection.from_pretrained`, such as `dtype`.

        Returns:
            [`VideoBackbone`]
        """
        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()  # that the head, which is dropped, is not in the checkpoint
        try:
            model = AutoModelForActionDetection.from_pretrained(place, detection_config=ONE_STAGE, **kwargs)
        finally:
            logging.set_verbosity(verbosity)
        return cls(model, AutoVideoProcessor.from_pretrained(place))

    @property
    def num_frames(self) -> int:
        """Frames that the encoder sees."""
        return self.processor.num_frames or self.model.config.num_frames

    def forward(self, frames: torch.Tensor) -> BackboneOutput:
        """
        Feature maps of clips.

        Args:
            frames (`torch.Tensor` of shape `(batch_size, num_frames, 3, height, width)`):
                uint8, or floats from 0 to 1. Of another number of frames than the encoder's, evenly spaced ones are
                taken or repeated. Frames without the second axis are clips that stand still.

        Returns:
            [`BackboneOutput`]: one map of shape `(batch_size, channels, time, height, width)`.

        Raises:
            ValueError: `frames` has another shape or type, or values beyond 1.
        """
        pixel_values = self.process(frames)
        dtype = next(self.model.parameters()).dtype
        return BackboneOutput(feature_maps=(self.model._encode(pixel_values.to(dtype))[0],))

    def process(self, frames: torch.Tensor) -> torch.Tensor:
        """
        Clips as the encoder takes them. The same frames from a file give the same pixels.

        Args:
            frames (`torch.Tensor` of shape `(batch_size, num_frames, 3, height, width)`):
                See [`~VideoBackbone.forward`].

        Returns:
            `torch.Tensor` of shape `(batch_size, num_frames, 3, height, width)`.

        Raises:
            ValueError: `frames` has another shape or type, or values beyond 1.
        """
        frames = frames[:, None] if frames.ndim == 4 else frames
        if frames.ndim != 5 or frames.shape[2] != 3:
            shape = "(batch_size, [num_frames,] 3, height, width)"
            raise ValueError(f"`frames` must have shape {shape}, got {tuple(frames.shape)}.")
        if frames.is_floating_point():
            if frames.numel() and (frames.min() < 0 or frames.max() > 1):
                raise ValueError("`frames` as floats must have values from 0 to 1.")
            frames = (frames * 255).round().to(torch.uint8)
        if frames.dtype != torch.uint8:
            raise ValueError(f"`frames` must be uint8 or floats, got {frames.dtype}.")
        places = torch.linspace(0, frames.shape[1] - 1, self.num_frames, device=frames.device).round().long()
        return self.processor.process_clips(frames[:, places][:, None], num_crops=1)[:, 0]


__all__ = ["VideoBackbone"]
