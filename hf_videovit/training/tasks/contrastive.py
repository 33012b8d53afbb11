"""Contrastive learning of short and long clips of the same video."""

import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from ..schedules import cosine_to_one
from .base import Task


class ContrastiveTask(Task):
    """
    Match each short clip with the long clip of its video. The model holds both branches and the loss
    ([`LstclForPreTraining`]). The task schedules the target branch: it is updated once per step, before the step's
    first pass, with a momentum that grows to 1.

    Args:
        model (`PreTrainedModel`):
            A model that takes `long_pixel_values`, `target_momentum` and `update_target`, and has
            `config.target_momentum`.
    """

    momentum: torch.Tensor

    def __init__(self, model: PreTrainedModel):
        super().__init__(model)
        self.register_buffer("momentum", torch.tensor(float(model.config.target_momentum)), persistent=False)
        self.update_target = True

    def begin_step(self, step: int, total_steps: int) -> None:
        """
        Set the target's momentum: half a cosine from `config.target_momentum` to 1 at the end of the run. See
        [`Task.begin_step`].
        """
        start = float(self.model.config.target_momentum)
        self.momentum.fill_(cosine_to_one(step, total_steps, start))
        self.update_target = True

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """
        Compute the loss of a batch.

        Args:
            batch (`dict[str, torch.Tensor]`):
                `pixel_values` and `long_pixel_values` of shape `(batch_size, num_frames, num_channels, height,
                width)`.

        Returns:
            `dict[str, torch.Tensor]`: `loss`; `feature_std`, the spread of the encoder's normalised features over the
            batch: 1 for features spread evenly over the sphere, 0 for identical features (collapse); `alignment`, the
            mean cosine between queries and keys.
        """
        outputs = self.model(
            pixel_values=batch["pixel_values"],
            long_pixel_values=batch["long_pixel_values"],
            target_momentum=self.momentum,
            update_target=self.update_target,
        )
        self.update_target = False  # later passes accumulate gradients of the same step
        features = F.normalize(outputs.features.detach().float(), dim=1)  # (batch, hidden)
        spread = features.std(dim=0, unbiased=False).mean() * features.shape[1] ** 0.5
        cosines = F.cosine_similarity(outputs.short_query.detach().float(), outputs.long_key.float(), dim=1)
        return {"loss": outputs.loss, "feature_std": spread, "alignment": cosines.mean()}
