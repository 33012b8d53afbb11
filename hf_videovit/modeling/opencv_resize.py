"""
Bilinear resizing of 8-bit frames in OpenCV's fixed-point arithmetic (`cv2.resize` with `INTER_LINEAR`), which official
loaders use. torchvision's own differs by one grey level in about one value of five.

Weights have 11 bits. Rows are interpolated along the width first; sums are shifted before they are multiplied along
the height:

```
row = pixel[left] * weight_left + pixel[right] * weight_right
value = ((row_above >> 4) * weight_above >> 16) + ((row_below >> 4) * weight_below >> 16) + 2 >> 2
```
At exactly half the size on both axes OpenCV takes the mean of four pixels instead.
"""

import functools
from dataclasses import dataclass

import numpy as np
import torch


WEIGHT_BITS = 11


@dataclass
class _Places:
    """
    The two pixels along an axis that each pixel of the result is made of, and their weights.

    Args:
        first, second (`numpy.ndarray` of shape `(length,)`):
            Their places. Both are the outermost pixel beyond it.
        first_weights, second_weights (`numpy.ndarray` of shape `(length,)`):
            Their weights times 2048.
    """

    first: np.ndarray
    second: np.ndarray
    first_weights: np.ndarray
    second_weights: np.ndarray


def resize_as_opencv(frames: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """
    Resize 8-bit frames.

    Args:
        frames (`torch.Tensor` of shape `(..., height, width)`):
            uint8 frames.
        height (`int`):
            Height of the result in pixels.
        width (`int`):
            Width of the result in pixels.

    Returns:
        `torch.Tensor` of shape `(..., height, width)`: uint8 frames.

    Raises:
        ValueError: the frames are not uint8.
    """
    if frames.dtype != torch.uint8:
        raise ValueError(f"`frames` must be uint8, got {frames.dtype}.")
    if tuple(frames.shape[-2:]) == (height, width):
        return frames
    if tuple(frames.shape[-2:]) == (2 * height, 2 * width):
        halves = frames[..., 0::2, :].int() + frames[..., 1::2, :]
        return _halve(halves[..., 0::2] + halves[..., 1::2] + 2, 2).to(torch.uint8)
    rows, across = _places(frames.shape[-2], height), _places(frames.shape[-1], width)
    # outside the columns OpenCV takes the outermost one alone; outside the rows, both weights of the outermost one
    alone = across.first == across.second
    across.first_weights[alone], across.second_weights[alone] = 2**WEIGHT_BITS, 0
    if frames.device.type != "cpu" or torch.compiler.is_exporting():
        return _resize(frames, rows, across)
    # one at a time, they stay in the processor's cache: three times as fast
    resized = [_resize(frame, rows, across) for frame in frames.flatten(0, -3)]
    return torch.stack(resized).view(*frames.shape[:-2], height, width)


def _resize(frames: torch.Tensor, rows: _Places, across: _Places) -> torch.Tensor:
    """Frames `(..., height, width)` from the pixels and weights of both axes."""
    used, places = np.unique(np.stack((rows.first, rows.second)), return_inverse=True)
    to = functools.partial(torch.tensor, device=frames.device)
    lines = frames.index_select(-2, to(used)).contiguous()  # (..., used rows, width)
    left, right = (
        lines.index_select(-1, to(place)).int().mul_(to(weights))
        for place, weights in ((across.first, across.first_weights), (across.second, across.second_weights))
    )
    lines = _halve(left.add_(right), 4)
    above, below = (
        _halve(lines.index_select(-2, to(place)).mul_(to(weights)[:, None]), 16)
        for place, weights in zip(places.reshape(2, -1), (rows.first_weights, rows.second_weights))
    )
    return _halve(above.add_(below).add_(2), 2).to(torch.uint8)


def _halve(values: torch.Tensor, times: int) -> torch.Tensor:
    """Positive integers halved some times, rounded down. Not every runtime of exported graphs has shifts."""
    if torch.compiler.is_exporting():
        return values.div(2**times, rounding_mode="floor")
    return values.bitwise_right_shift_(times)


def _places(source: int, target: int) -> _Places:
    """Places and weights for an axis of `source` pixels that gets `target` ones."""
    scale = 1.0 / (target / source)  # as OpenCV computes it; `source / target` rounds differently
    centres = ((np.arange(target, dtype=np.float64) + 0.5) * scale - 0.5).astype(np.float32)
    first = np.floor(centres)
    share = centres - first
    places = [(first.astype(np.int64) + step).clip(0, source - 1) for step in (0, 1)]
    weights = [np.rint(one * np.float32(2**WEIGHT_BITS)).astype(np.int32) for one in (np.float32(1) - share, share)]
    return _Places(*places, *weights)


__all__ = ["resize_as_opencv"]
