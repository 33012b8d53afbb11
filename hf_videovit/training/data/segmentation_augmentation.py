"""
Augmentation of images with masks, as MMSegmentation trains on ADE20K: a random size, a crop that no label fills, a
flip, and changes of colours.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tvF
from transformers.image_utils import SizeDict

from ...modeling.image_processing_uniformer_dense import kept_ratio_size
from ...modeling.opencv_resize import resize_as_opencv


ATTEMPTS = 10  # to find a crop that no label fills
HUES = 180  # steps of a full turn, as in OpenCV's 8-bit hues


@dataclass(frozen=True)
class SegmentationAugmentation:
    """
    Random changes of an image and its mask.

    Args:
        size (`tuple[int, int]`, *optional*, defaults to `(512, 2048)`):
            Bounds of the short and of the long side in pixels, at a scale of 1.
        scale (`tuple[float, float]`, *optional*, defaults to `(0.5, 2.0)`):
            Smallest and largest factor of both bounds.
        crop (`tuple[int, int]`, *optional*, defaults to `(512, 512)`):
            Height and width of the crop in pixels. Smaller images are padded at the bottom and on the right.
        most_of_one_label (`float`, *optional*, defaults to 0.75):
            Share of one label, among the labelled pixels, from which a crop is drawn again, at most ten times; 1 takes
            the first.
        flip (`float`, *optional*, defaults to 0.5):
            Probability of mirroring left and right.
        brightness (`float`, *optional*, defaults to 32.0):
            Largest change of all values, of 255.
        contrast, saturation (`tuple[float, float]`, *optional*, defaults to `(0.5, 1.5)`):
            Smallest and largest factor of the values, and of the distance from grey.
        hue (`float`, *optional*, defaults to 18.0):
            Largest change of the hue, in steps of 2 degrees.

    Each change of colours happens with a probability of 0.5. Contrast comes before or after saturation and hue. These
    two are torchvision's, MMSegmentation's are in OpenCV's colour space.

    Raises:
        ValueError: a number is not allowed.
    """

    size: tuple[int, int] = (512, 2048)
    scale: tuple[float, float] = (0.5, 2.0)
    crop: tuple[int, int] = (512, 512)
    most_of_one_label: float = 0.75
    flip: float = 0.5
    brightness: float = 32.0
    contrast: tuple[float, float] = (0.5, 1.5)
    saturation: tuple[float, float] = (0.5, 1.5)
    hue: float = 18.0

    def __post_init__(self) -> None:
        if min(*self.crop, *self.size) < 1:
            raise ValueError(f"`crop` and `size` must be at least 1, got {self.crop} and {self.size}")
        for name in ("scale", "contrast", "saturation"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"`{name}` must be two positive numbers in increasing order, got {[low, high]}")
        for name, largest in (("flip", 1), ("most_of_one_label", 1), ("brightness", 255), ("hue", HUES / 2)):
            if not 0 <= getattr(self, name) <= largest:
                raise ValueError(f"`{name}` must be between 0 and {largest:g}, got {getattr(self, name)}")

    def __call__(
        self, image: torch.Tensor, labels: torch.Tensor, rng: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, tuple[int, int]]:
        """
        Change an image and its mask at random.

        Args:
            image (`torch.Tensor` of shape `(3, height, width)`):
                uint8.
            labels (`torch.Tensor` of shape `(height, width)`):
                uint8, 255 for pixels without a label.
            rng (`np.random.Generator`):
                Source of chance.

        Returns:
            `tuple`: image and labels of the size of the crop, and the height and width that are no padding.
        """
        image, labels = self._resized(image, labels, rng.uniform(*self.scale))
        image, labels = self._cropped(image, labels, rng)
        if rng.random() < self.flip:
            image, labels = image.flip(-1), labels.flip(-1)
        image = self.recoloured(image, rng)
        height, width = labels.shape
        spare = (0, self.crop[1] - width, 0, self.crop[0] - height)
        return F.pad(image, spare), F.pad(labels, spare, value=255), (height, width)

    def _resized(self, image: torch.Tensor, labels: torch.Tensor, factor: float) -> tuple[torch.Tensor, torch.Tensor]:
        bounds = SizeDict(shortest_edge=int(self.size[0] * factor), longest_edge=int(self.size[1] * factor))
        height, width = kept_ratio_size(image.shape[-2], image.shape[-1], bounds)
        mask = tvF.resize(labels[None], [height, width], interpolation=InterpolationMode.NEAREST)[0]
        return resize_as_opencv(image, height, width), mask

    def _cropped(
        self, image: torch.Tensor, labels: torch.Tensor, rng: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows, columns = self.crop
        for _ in range(ATTEMPTS):
            top, left = (int(rng.integers(max(length - side, 0) + 1)) for length, side in zip(labels.shape, self.crop))
            part = labels[top : top + rows, left : left + columns]
            counts = part.flatten().bincount(minlength=256)[:255]
            if (
                self.most_of_one_label == 1
                or (counts > 0).sum() > 1
                and (counts.max() < self.most_of_one_label * counts.sum())
            ):
                break
        return image[:, top : top + rows, left : left + columns], part

    def recoloured(self, image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """
        Change colours at random.

        Args:
            image (`torch.Tensor` of shape `(3, height, width)`):
                uint8.
            rng (`np.random.Generator`):
                Source of chance.

        Returns:
            `torch.Tensor` of the same shape: uint8.
        """
        brightness, first, contrast, saturation, hue = (bool(one) for one in rng.integers(2, size=5))
        amounts = (rng.uniform(-self.brightness, self.brightness), rng.uniform(*self.contrast))
        colour = (rng.uniform(*self.saturation), rng.uniform(-self.hue, self.hue) / HUES)
        if brightness:
            image = (image.float() + amounts[0]).round().clamp(0, 255).to(torch.uint8)
        if contrast and first:
            image = tvF.adjust_brightness(image, amounts[1])  # multiplies all values
        if saturation:
            image = tvF.adjust_saturation(image, colour[0])
        if hue:
            image = tvF.adjust_hue(image, colour[1])
        if contrast and not first:
            image = tvF.adjust_brightness(image, amounts[1])
        return image


__all__ = ["SegmentationAugmentation"]
