"""Training of a localiser, on sequences of features or together with the encoder on frames."""

import torch

from ...modeling.modeling_actionformer_losses import Segments
from .base import Task


class TemporalLocalizationTask(Task):
    """
    The loss of a localiser: that of the classes plus that of the offsets, see [`localization_losses`]. Both are sums
    over the batch, divided by a running count of positive points that the model keeps.

    Args:
        model (`PreTrainedModel`):
            A model for temporal action localisation.
    """

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """
        Compute the loss.

        Args:
            batch (`dict[str, torch.Tensor]`):
                `features` of shape `(batch_size, steps, feature_size)`, or `pixel_values` of shape `(batch_size,
                num_frames, num_channels, height, width)` for a model with an encoder; `attention_mask` of shape
                `(batch_size, steps)`, `segments` of shape `(batch_size, max_segments, 2)` in steps, and
                `class_labels` of shape `(batch_size, max_segments)`, -100 in padding.

        Returns:
            `dict[str, torch.Tensor]`: `loss`, `classification` and `regression`.
        """
        labels = Segments(batch["segments"].float(), batch["class_labels"])
        name = self.model.main_input_name
        outputs = self.model(**{name: batch[name]}, attention_mask=batch["attention_mask"], labels=labels)
        return {"loss": outputs.loss, **{name: value.detach() for name, value in outputs.loss_dict.items()}}


__all__ = ["TemporalLocalizationTask"]
