"""Masked autoencoding of pixels."""

import torch
from transformers import PreTrainedModel

from .base import Task


class MaskedModelingTask(Task):
    """
    Reconstruct the hidden patches. The model computes targets and loss, see [`VideoMAEV2ForPreTraining`]. The masks
    come with each sample. They depend on seed, epoch and sample id only, so neither the number of workers nor a
    restart changes them.

    Args:
        model (`PreTrainedModel`):
            A model for pretraining that takes `encoder_mask` and `decoder_mask`.
    """

    def __init__(self, model: PreTrainedModel):
        super().__init__(model)

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """
        Compute the loss of a batch.

        Args:
            batch (`dict[str, torch.Tensor]`):
                `pixel_values` of shape `(batch_size, num_frames, num_channels, height, width)`, `encoder_mask` and
                `decoder_mask` of shape `(batch_size, sequence_length)`, and optionally the positions that they leave,
                `visible_indices` and `decoded_indices`, without which the model waits for its device.

        Returns:
            `dict[str, torch.Tensor]`: `loss`, and `feature_std`, the spread between the clips' mean features; a value
            near 0 means that the encoder does not distinguish clips.
        """
        outputs = self.model(
            pixel_values=batch["pixel_values"],
            encoder_mask=batch["encoder_mask"],
            decoder_mask=batch["decoder_mask"],
            visible_indices=batch.get("visible_indices"),
            decoded_indices=batch.get("decoded_indices"),
        )
        features = outputs.encoder_last_hidden_state.detach().float().mean(dim=1)  # (batch, hidden)
        return {"loss": outputs.loss, "feature_std": features.std(dim=0, unbiased=False).mean()}
