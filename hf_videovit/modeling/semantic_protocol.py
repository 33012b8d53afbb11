"""
The published evaluation of semantic segmentation: an image whole or in windows, its mirror image, several sizes. The
settings are fields of the processor.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F
from transformers import PreTrainedModel


def window_logits(
    model: PreTrainedModel,
    pixel_values: torch.Tensor,
    window_size: int | None = None,
    window_stride: int | None = None,
) -> torch.Tensor:
    """
    Logits of a whole image, or of its windows. Where windows overlap, logits are averaged. The last windows end at the
    edges.

    Args:
        model (`PreTrainedModel`):
            Its output has `logits`.
        pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
            Normalised images.
        window_size (`int`, *optional*):
            Side of a window in pixels. By default the images are whole.
        window_stride (`int`, *optional*):
            Pixels from one window to the next. Needed with `window_size`.

    Returns:
        `torch.Tensor` of shape `(batch_size, num_labels, height, width)`: float32.
    """
    if window_size is None or window_stride is None:
        return _sized(model(pixel_values).logits, pixel_values.shape[-2:])
    height, width = pixel_values.shape[-2:]
    total = pixel_values.new_zeros(1, 1, 1, 1, dtype=torch.float32)
    counts = pixel_values.new_zeros(1, 1, height, width, dtype=torch.float32)
    for top in _starts(height, window_size, window_stride):
        for left in _starts(width, window_size, window_stride):
            part = pixel_values[..., top : top + window_size, left : left + window_size]
            logits = _sized(model(part).logits, part.shape[-2:])
            around = (left, width - left - part.shape[-1], top, height - top - part.shape[-2])
            total = total + F.pad(logits, around)
            counts = counts + F.pad(torch.ones_like(logits[:1, :1]), around)
    return total / counts


def _starts(length: int, size: int, stride: int) -> list[int]:
    """First pixels of the windows along a side."""
    return [min(number * stride, max(length - size, 0)) for number in range(-(-max(length - size, 0) // stride) + 1)]


def _sized(logits: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    if tuple(logits.shape[-2:]) == tuple(size):
        return logits.float()
    return F.interpolate(logits.float(), size=tuple(size), mode="bilinear", align_corners=False)


@torch.no_grad()
def label_probabilities(
    model: PreTrainedModel, processor: Any, views: Sequence[torch.Tensor], size: tuple[int, int]
) -> torch.Tensor:
    """
    Probabilities of the labels of an image by the protocol of its processor: logits at the size of the image, softmax,
    and the mean over sizes and mirror images.

    Args:
        model (`PreTrainedModel`):
            A model for semantic segmentation, in evaluation mode.
        processor ([`UniFormerSegmenterImageProcessor`]):
            Its processor.
        views (`Sequence[torch.Tensor]` of shapes `(3, height, width)`):
            The image as `processor.views` makes it.
        size (`tuple[int, int]`):
            Height and width of the image in pixels.

    Returns:
        `torch.Tensor` of shape `(num_labels, height, width)`.

    Example:

    ```python
    >>> import torch

    >>> from hf_videovit import UniFormerForSemanticSegmentation, UniFormerSegmenterConfig
    >>> from hf_videovit import UniFormerSegmenterImageProcessor, label_probabilities

    >>> model = UniFormerForSemanticSegmentation(UniFormerSegmenterConfig.from_size("xxs", "fpn", num_labels=5)).eval()
    >>> processor = UniFormerSegmenterImageProcessor(
    ...     size={"shortest_edge": 64, "longest_edge": 128}, size_divisor=32, flip_test=True
    ... )
    >>> image = torch.zeros(3, 48, 60, dtype=torch.uint8)
    >>> list(label_probabilities(model, processor, processor.views(image), (48, 60)).shape)
    [5, 48, 60]
    ```"""
    window, found = (processor.window_size, processor.window_stride), []
    for view in views:
        pixels = view[None].to(model.device, model.dtype)
        found.append(_sized(window_logits(model, pixels, *window), size).softmax(1))
        if processor.flip_test:
            mirrored = _sized(window_logits(model, pixels.flip(-1), *window), size)
            found.append(mirrored.softmax(1).flip(-1))
    return torch.cat(found).mean(0)


__all__ = ["label_probabilities", "window_logits"]
