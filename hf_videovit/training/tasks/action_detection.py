"""Training of an action detection head."""

import torch
from transformers import PreTrainedModel

from ..data.streaming import Batch
from .base import HasIdleParameters, Task


class ActionDetectionTask(Task):
    """
    The loss of the boxes of a batch, as `config.detection_config` sets it.

    ```
    for clip, boxes, labels in batch:                        # labels: zeros and ones for each box
        losses = [loss(label, model(clip, box)) for box in boxes]
        loss += sum(losses) / len(batch)                     # "sum_over_boxes"
        loss += sum(losses) / number of boxes in the batch   # "mean_over_boxes", "mean"
    ```
    A sum over boxes is divided by the number of clips, so that the loss does not depend on how a batch is divided
    among processes. The official VideoMAE code does not divide; with AdamW and without clipping of gradients a
    constant factor has no effect.

    Args:
        model (`PreTrainedModel`):
            A model for action detection.
    """

    def __init__(self, model: PreTrainedModel):
        super().__init__(model)
        head = model.config.detection_config
        self.sums, self.skips_unlabelled = head.loss_reduction == "sum_over_boxes", head.ignore_unlabelled_boxes
        self.idle_parameters = isinstance(model, HasIdleParameters) and model.has_idle_parameters()

    def count(self, batch: Batch) -> int:
        """The number of clips, or of boxes with a loss of their own. See [`Task.count`]."""
        if self.sums:
            return len(batch)
        counted = batch.rows["box_mask"]
        if self.skips_unlabelled:
            counted = counted & (batch.rows["labels"].sum(dim=-1) > 0)
        return int(counted.sum())

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """
        Compute the loss of a batch.

        Args:
            batch (`dict[str, torch.Tensor]`):
                `pixel_values` of shape `(batch_size, num_frames, num_channels, height, width)`, `boxes` of shape
                `(batch_size, num_boxes, 4)`, `box_mask` of shape `(batch_size, num_boxes)` and `labels` of shape
                `(batch_size, num_boxes, num_labels)`.

        Returns:
            `dict[str, torch.Tensor]`: `loss`, and `accuracy`: the share of boxes whose highest logit is one of their
            labels.
        """
        outputs = self.model(**batch)
        loss = outputs.loss / len(batch["boxes"]) if self.sums else outputs.loss
        with torch.no_grad():
            best = outputs.logits.argmax(dim=-1, keepdim=True)
            hits = batch["labels"].gather(2, best).squeeze(2) * batch["box_mask"]
            accuracy = hits.sum() / batch["box_mask"].sum().clamp(min=1)
        return {"loss": loss, "accuracy": accuracy}


__all__ = ["ActionDetectionTask"]
