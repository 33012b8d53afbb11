"""The image processor that every family shares."""

from typing import Any

import torch
from torchvision.transforms.v2 import functional as tvF
from transformers.image_processing_backends import TorchvisionBackend
from transformers.image_utils import SizeDict


class CentredImageProcessor(TorchvisionBackend):
    """An image processor of transformers whose crops are those of torchvision."""

    def center_crop(self, image: torch.Tensor, size: SizeDict, **kwargs: Any) -> torch.Tensor:
        """
        The centre of an image. Half pixels are rounded to the even one, as in torchvision, which the official loaders
        use; transformers rounds them down.

        Args:
            image (`torch.Tensor` of shape `(..., height, width)`):
                The image.
            size (`SizeDict`):
                Height and width of the crop.

        Returns:
            `torch.Tensor` of shape `(..., size.height, size.width)`.

        Raises:
            ValueError: `size` has no height or no width.
        """
        if not (size.height and size.width):
            raise ValueError(f"`crop_size` must have 'height' and 'width', got {size}.")
        return tvF.center_crop(image, [size.height, size.width])


__all__ = ["CentredImageProcessor"]
