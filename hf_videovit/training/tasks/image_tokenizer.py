"""Training of a tokenizer of visual words."""

import torch

from ...modeling.modeling_bevt_image_codebook import BevtImageCodebook
from ..words.perceptual import PerceptualDistance
from .base import Task


class ImageTokenizerTask(Task):
    """
    Reconstruct images from their words.

    Args:
        model ([`BevtImageCodebook`]):
            The tokenizer. It computes the loss of pixels and words.
        perceptual ([`PerceptualDistance`], *optional*):
            Compares features of images and reconstructions as well, as PeCo does. It is frozen and not part of the
            task's parameters and checkpoints.
        perceptual_weight (`float`, *optional*, defaults to 1.0):
            Weight of that distance.
    """

    def __init__(
        self, model: BevtImageCodebook, perceptual: PerceptualDistance | None = None, perceptual_weight: float = 1.0
    ):
        super().__init__(model)
        self._perceptual = (perceptual,)  # a tuple, so that torch does not register it
        self.perceptual_weight = perceptual_weight

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """
        Compute the loss of a batch.

        Args:
            batch (`dict[str, torch.Tensor]`):
                `pixel_values` of shape `(num_images, num_channels, height, width)`, in [0.1, 0.9].

        Returns:
            `dict[str, torch.Tensor]`: `loss`, `pixel_loss`, `commitment_loss`, `perplexity` and, with a network,
            `perceptual_loss`.
        """
        pixels = batch["pixel_values"]
        outputs = self.model(pixel_values=pixels)
        parts = {name: outputs[name].detach() for name in ("pixel_loss", "commitment_loss", "perplexity")}
        (perceptual,) = self._perceptual
        if perceptual is None:
            return {"loss": outputs.loss} | parts
        distance = perceptual.to(pixels.device)(outputs.reconstruction, pixels)
        loss = outputs.loss + self.perceptual_weight * distance
        return {"loss": loss} | parts | {"perceptual_loss": distance.detach()}


__all__ = ["ImageTokenizerTask"]
