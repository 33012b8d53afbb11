"""BEVT's published protocol."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import BatchFeature
from transformers.image_utils import SizeDict

from .video_processing_key_frames import KeyFrameVideoProcessor, KeyFrameVideoProcessorKwargs
from .word_pixels import word_pixels


class BevtVideoProcessorKwargs(KeyFrameVideoProcessorKwargs, total=False):
    """
    Args:
        return_word_pixels (`bool`, *optional*, defaults to `False`):
            Whether to return the copies of the frames that the tokenizer of visual words sees, too.
    """

    return_word_pixels: bool | None


class BevtVideoProcessor(KeyFrameVideoProcessor):
    """
    32 frames at every second frame, a clip that runs over the end going on from the start; short side to 224
    (bilinear, not antialiased, as OpenCV), crops of 224 x 224, ImageNet normalisation. With `return_word_pixels=True`
    also `word_pixel_values`, the same crops at half the size for the tokenizer.

    One centred view by default. The published numbers use `num_clips=4, num_crops=3` on Kinetics-400, and on
    Something-Something V2 `num_crops=3` with `frame_sampling="sparse_middle"`. Pretraining uses 16 frames at stride
    8.
    """

    valid_kwargs = BevtVideoProcessorKwargs
    published_num_frames = 32
    frame_sampling = "dense_cyclic"
    frame_stride = 2
    antialias = False
    resize_as_opencv = True
    crop_rounding = "ends_first"
    return_word_pixels = False

    def resized_size(self, current: Sequence[int], size: SizeDict) -> tuple[int, int]:
        """
        Both sides times the scale of the short one, to the nearest pixel, as mmcv does. See
        [`ClipVideoProcessor.resized_size`].
        """
        if not size.shortest_edge or (size.height and size.width) or min(current) == size.shortest_edge:
            return super().resized_size(current, size)
        height, width = (int(side * size.shortest_edge / min(current) + 0.5) for side in current)
        return height, width

    def word_pixels(self, clips: torch.Tensor) -> torch.Tensor:
        """
        The tokenizer's copy of cropped frames.

        Args:
            clips (`torch.Tensor` of shape `(..., num_channels, height, width)`):
                Frames before normalisation, grey levels from 0 to 255.

        Returns:
            `torch.Tensor` of shape `(..., num_channels, height / 2, width / 2)` in [0.1, 0.9].
        """
        return word_pixels(clips, (clips.shape[-2] // 2, clips.shape[-1] // 2))

    def preprocess(self, videos: Any, **kwargs: Any) -> BatchFeature:  # type: ignore[override]  # boxes among them
        """
        Views of videos and, with `return_word_pixels`, `word_pixel_values` of the same axes as `pixel_values`. See
        [`ClipVideoProcessor.preprocess`].

        Raises:
            ValueError: `return_word_pixels` is set and the views differ in size.
        """
        wanted = kwargs.pop("return_word_pixels", None)
        if not (self.return_word_pixels if wanted is None else wanted):
            return super().preprocess(videos, **kwargs)
        options = {"return_tensors": "pt", "do_rescale": False, "do_normalize": False}
        batch = super().preprocess(videos, **{**kwargs, **options})
        pixels = batch["pixel_values"]
        if not torch.is_tensor(pixels):
            raise ValueError("`return_word_pixels` needs views of one size: leave `do_center_crop` on.")
        batch["word_pixel_values"] = self.word_pixels(pixels)
        if kwargs.get("do_rescale", self.do_rescale) and kwargs.get("do_normalize", self.do_normalize):
            batch["pixel_values"] = self.normalize_clips(pixels)
        return batch


__all__ = ["BevtVideoProcessor", "BevtVideoProcessorKwargs"]
