"""
Augmentation of clips with boxes, as the official VideoMAE code trains action detection: a random crop, a change of
colours, a flip. Boxes go the same way as the pixels.
"""

from dataclasses import dataclass

import numpy as np
import torch

from ...modeling.box_geometry import crop_boxes, flip_boxes


@dataclass(frozen=True)
class BoxAugmentation:
    """
    Random changes of a resized clip.

    Args:
        crop_size (`int` or `tuple[int, int]`, *optional*, defaults to 224):
            Side of the crop in pixels, or its height and width.
        hue (`int`, *optional*, defaults to 10):
            Largest change of the hue, in steps of 2 degrees (OpenCV's 8-bit hues).
        saturation, value (`int`, *optional*, defaults to 26):
            Largest change of saturation and of value, of 255.
        flip (`float`, *optional*, defaults to 0.5):
            Probability of mirroring left and right.
        convention (`str`, *optional*, defaults to `"exclusive"`):
            Of the boxes' corners.

    Raises:
        ValueError: a number is not allowed.
    """

    crop_size: int | tuple[int, int] = 224
    hue: int = 10
    saturation: int = 26
    value: int = 26
    flip: float = 0.5
    convention: str = "exclusive"

    def __post_init__(self) -> None:
        if min(self.crop) < 1:
            raise ValueError(f"`crop_size` must be at least 1, got {self.crop_size}")
        for name, largest in (("hue", 90), ("saturation", 255), ("value", 255)):
            if not 0 <= getattr(self, name) <= largest:
                raise ValueError(f"`{name}` must be between 0 and {largest}, got {getattr(self, name)}")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"`flip` must be between 0 and 1, got {self.flip}")

    @property
    def crop(self) -> tuple[int, int]:
        """Height and width of the crop."""
        return (self.crop_size, self.crop_size) if isinstance(self.crop_size, int) else self.crop_size

    def __call__(
        self, clip: torch.Tensor, boxes: torch.Tensor, rng: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Change a clip at random.

        Args:
            clip (`torch.Tensor` of shape `(num_frames, 3, height, width)`):
                Resized frames, uint8; at least as large as the crop.
            boxes (`torch.Tensor` of shape `(num_boxes, 4)`):
                Corners in pixels.
            rng (`np.random.Generator`):
                Source of chance.

        Returns:
            `tuple`: the clip of the size of the crop, and the boxes. A box outside the crop stays at its edge.

        Raises:
            ValueError: the clip is smaller than the crop.
        """
        (height, width), (rows, columns) = clip.shape[-2:], self.crop
        if height < rows or width < columns:
            raise ValueError(f"`crop_size` is {self.crop_size}, but a clip has {height} x {width} pixels")
        left, top = int(rng.random() * (width - columns)), int(rng.random() * (height - rows))
        clip = clip[..., top : top + rows, left : left + columns]
        boxes = crop_boxes(boxes, top, left, rows, columns)
        changes = [int(rng.integers(-most, most + 1)) for most in (self.hue, self.saturation, self.value)]
        clip = shift_colours(clip, *changes)
        if rng.random() < self.flip:
            clip, boxes = clip.flip(-1), flip_boxes(boxes, columns, self.convention)
        return clip, boxes


def shift_colours(clip: torch.Tensor, hue: int, saturation: int, value: int) -> torch.Tensor:
    """
    Shift hue (wrapped), saturation and value (clipped) of all pixels, in 8 bits as OpenCV holds them.

    Args:
        clip (`torch.Tensor` of shape `(..., 3, height, width)`):
            RGB, uint8.
        hue (`int`):
            Steps of 2 degrees.
        saturation, value (`int`):
            Steps of 255.

    Returns:
        `torch.Tensor` of the same shape, uint8.
    """
    if not (hue or saturation or value):
        return clip
    red, green, blue = clip.float().unbind(dim=-3)
    largest = clip.amax(dim=-3).float()
    spread = largest - clip.amin(dim=-3).float()
    safe = spread.clamp(min=1)
    degrees = torch.where(
        largest == red,
        60 * (green - blue) / safe,
        torch.where(largest == green, 120 + 60 * (blue - red) / safe, 240 + 60 * (red - green) / safe),
    )
    hues = (degrees.remainder(360) / 2).round().remainder(180)
    saturations = (255 * spread / largest.clamp(min=1)).round()
    hues = (hues + hue).remainder(180)
    saturations = (saturations + saturation).clamp(0, 255)
    values = (largest + value).clamp(0, 255)
    return _to_rgb(hues / 30, saturations / 255, values)


def _to_rgb(sextants: torch.Tensor, saturations: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """RGB in uint8 of hues in sextants [0, 6), saturations in [0, 1] and values in [0, 255]."""
    channels = []
    for offset in (5, 3, 1):  # red, green, blue
        place = (offset + sextants).remainder(6)
        weight = torch.minimum(place, 4 - place).clamp(0, 1)
        channels.append(values * (1 - saturations * weight))
    return torch.stack(channels, dim=-3).round().to(torch.uint8)
