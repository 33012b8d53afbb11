"""The perceptual loss of a tokenizer that is trained: distances of the features of a frozen classifier of images."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoImageProcessor, AutoModelForImageClassification, PreTrainedModel

from ...files import loading
from ...modeling.configuration_base import frame_size
from ...modeling.word_pixels import LOWEST, RANGE


class PerceptualDistance(nn.Module):
    """
    Distance of images in the features of a frozen network: at each place of each layer, the squared distance between
    the features of both images, scaled to length 1.

    Args:
        network (`PreTrainedModel`):
            A classifier of images with hidden states.
        image_mean (`list[float]`):
            Mean colour in the normalisation of the network.
        image_std (`list[float]`):
            Standard deviation of the colours.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: PreTrainedModel, image_mean: list[float], image_std: list[float]):
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        size = getattr(network.config, "image_size", None)
        self.size = None if size is None else frame_size(size)
        self.register_buffer("mean", torch.tensor(image_mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(image_std).view(-1, 1, 1))

    @classmethod
    def load(cls, name: str | Path) -> "PerceptualDistance":
        """
        Load the network.

        Args:
            name (`str` or `Path`):
                Folder or Hub id of a classifier of images, of transformers or of this package.

        Returns:
            [`PerceptualDistance`]

        Raises:
            ValueError: there is no such model.
        """
        with loading("`perceptual_model`", name):
            network = AutoModelForImageClassification.from_pretrained(name, dtype=torch.float32)
            processor = AutoImageProcessor.from_pretrained(name)
        return cls(network, list(processor.image_mean), list(processor.image_std))

    def forward(self, pixels: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        """
        Compare images.

        Args:
            pixels (`torch.Tensor` of shape `(num_images, num_channels, height, width)`):
                Images, in [0.1, 0.9]. The gradient passes through them.
            others (`torch.Tensor` of the same shape):
                The images that they are compared with.

        Returns:
            `torch.Tensor` of shape `()`: the mean distance.
        """
        with torch.no_grad():
            wanted = self._features(others)
        gaps = [(own - other).square().sum(-1).mean() for own, other in zip(self._features(pixels), wanted)]
        return torch.stack(gaps).mean()

    def _features(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Features of each layer, `(num_images, places, channels)`."""
        colours = (pixels.float() - LOWEST) / RANGE
        if self.size is not None and tuple(colours.shape[-2:]) != self.size:
            colours = F.interpolate(colours, self.size, mode="bilinear", align_corners=False)
        outputs: Any = self.network((colours - self.mean) / self.std, output_hidden_states=True)
        layers = [one if one.ndim == 3 else one.flatten(2).transpose(1, 2) for one in outputs.hidden_states]
        return [F.normalize(one.float(), dim=-1) for one in layers]


__all__ = ["PerceptualDistance"]
