"""Self-supervision by masked pixels."""

import torch
from transformers import PreTrainedModel

from .base import Task


class MaskedModelingTask(Task):
    """
    Reconstruct what is hidden. The model knows targets, masks and loss ([`VideoMAEV2ForPreTraining`] and its kin); the
    masks come with each sample, drawn from seed, epoch and sample id, so neither the number of workers nor a restart
    changes them.

    Args:
        model (`PreTrainedModel`):
            A model for pretraining that takes `encoder_mask` and `decoder_mask`.
    """

    def __init__(self, model: PreTrainedModel):
        super().__init__(model)

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """
        Args:
            batch (`dict[str, torch.Tensor]`):
                `pixel_values` of shape `(batch_size, num_frames, num_channels, height, width)`, `encoder_mask` and
                `decoder_mask` of shape `(batch_size, sequence_length)`.

        Returns:
            `dict[str, torch.Tensor]`: `loss`, and `feature_std`, the spread between the clips' mean features: near 0
            the encoder tells no clip from another.
        """
        outputs = self.model(
            pixel_values=batch["pixel_values"],
            encoder_mask=batch["encoder_mask"],
            decoder_mask=batch["decoder_mask"],
        )
        features = outputs.encoder_last_hidden_state.detach().float().mean(dim=1)  # (batch, hidden)
        return {"loss": outputs.loss, "feature_std": features.std(dim=0, unbiased=False).mean()}
