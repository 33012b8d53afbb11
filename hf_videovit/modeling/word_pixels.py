"""The input of a tokenizer of visual words: a small copy of a frame in the value range of the DALL-E encoder."""

import math
from functools import lru_cache

import torch


LOWEST, RANGE = 0.1, 0.8  # grey level 0 and white as the DALL-E encoder was trained on them
TAPS = 8


@lru_cache(maxsize=32)
def lanczos_weights(source: int, target: int, device: str | torch.device = "cpu") -> torch.Tensor:
    """
    Resampling of a side of `source` pixels to `target` as a matrix `(target, source)`: Lanczos with four lobes over
    the pixels as they are, at any scale (OpenCV's `INTER_LANCZOS4`, no antialiasing), edges continued.

    Args:
        source (`int`):
            Pixels of the side before.
        target (`int`):
            Pixels after.
        device (`str` or `torch.device`, *optional*, defaults to `"cpu"`):
            Device of the matrix. It is copied there once, since the copy waits for the device.

    Returns:
        `torch.Tensor` of shape `(target, source)` in float32.
    """
    weights = torch.zeros(target, source, dtype=torch.float64, device="cpu")
    for row in range(target):
        place = (row + 0.5) * source / target - 0.5
        first = math.floor(place) - TAPS // 2 + 1
        distances = [place - (first + tap) for tap in range(TAPS)]
        taps = [
            1.0 if gap == 0 else math.sin(math.pi * gap) * math.sin(math.pi * gap / 4) / gap**2 for gap in distances
        ]
        if 0.0 in distances:
            taps = [float(gap == 0) for gap in distances]
        for tap, value in enumerate(taps):
            weights[row, min(max(first + tap, 0), source - 1)] += value / sum(taps)
    return weights.float().to(device)


def resize_for_words(pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """
    Args:
        pixels (`torch.Tensor` of shape `(..., channels, height, width)`):
            Grey levels from 0 to 255.
        size (`tuple[int, int]`):
            Height and width of the copy.

    Returns:
        `torch.Tensor`: float32 grey levels, rounded to whole ones.
    """
    pixels = pixels.float()
    if tuple(pixels.shape[-2:]) == tuple(size):
        return pixels
    down, across = (lanczos_weights(source, target, pixels.device) for source, target in zip(pixels.shape[-2:], size))
    return (down @ pixels @ across.T).round().clamp(0, 255)


def word_pixels(pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """
    The input of the tokenizer, in [0.1, 0.9].

    Args:
        pixels (`torch.Tensor` of shape `(..., channels, height, width)`):
            Cropped frames, grey levels from 0 to 255.
        size (`tuple[int, int]`):
            Height and width that the tokenizer sees: half the model's, since one of its words stands for 8 x 8 pixels
            and the model predicts one for each 16 x 16.

    Returns:
        `torch.Tensor` of shape `(..., channels, *size)` in float32.
    """
    return resize_for_words(pixels, size) / 255 * RANGE + LOWEST


def moving_pixels(pixels: torch.Tensor) -> torch.Tensor:
    """
    The difference from the mean frame of a clip, or from the mean colours of an image. What equals the mean is grey.

    Args:
        pixels (`torch.Tensor` of shape `(num_clips, num_frames, num_channels, height, width)` or \
            `(num_images, [1,] num_channels, height, width)`):
            Clips or images, in [0.1, 0.9].

    Returns:
        `torch.Tensor` of the same shape, in the same range.
    """
    alone = pixels.ndim == 4 or pixels.shape[-4] == 1
    mean = pixels.mean((-2, -1), keepdim=True) if alone else pixels.mean(-4, keepdim=True)
    return (pixels - mean + LOWEST + RANGE / 2).clamp(LOWEST, LOWEST + RANGE)


__all__ = ["LOWEST", "RANGE", "moving_pixels", "resize_for_words", "word_pixels"]
