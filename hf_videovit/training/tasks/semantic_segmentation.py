"""Training of semantic segmentation."""

import torch

from .base import Task


class SemanticSegmentationTask(Task):
    """
    The model's own loss of a batch of crops.

    Args:
        model (`PreTrainedModel`):
            A model for semantic segmentation.
    """

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """
        Compute the loss of a batch.

        Args:
            batch (`dict[str, torch.Tensor]`):
                `pixel_values` of shape `(batch_size, 3, height, width)` and `labels` of shape `(batch_size, height,
                width)`.

        Returns:
            `dict[str, torch.Tensor]`: `loss`, and `accuracy`: the share of labelled pixels whose highest logit is that
            of their label.
        """
        outputs = self.model(**batch)
        with torch.no_grad():
            labels = batch["labels"]
            known = labels != self.model.config.semantic_loss_ignore_index
            hits = (outputs.logits.argmax(1) == labels) & known
            accuracy = hits.sum() / known.sum().clamp(min=1)
        return {"loss": outputs.loss, "accuracy": accuracy}


__all__ = ["SemanticSegmentationTask"]
