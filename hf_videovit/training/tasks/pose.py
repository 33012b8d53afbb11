"""Training of pose models."""

import torch
from transformers import PreTrainedModel

from ...dense.pose import encode_heatmaps
from .base import Task


class PoseTask(Task):
    """
    The model's own loss of crops of people, with Gaussians around the keypoints as targets.

    Args:
        model (`PreTrainedModel`):
            [`UniFormerForPoseEstimation`].
        sigma (`float`):
            Standard deviation of the Gaussians in cells of the heatmaps.
    """

    def __init__(self, model: PreTrainedModel, sigma: float):
        super().__init__(model)
        self.sigma = sigma

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """
        Compute the loss of a batch.

        Args:
            batch (`dict[str, torch.Tensor]`):
                `pixel_values` of shape `(batch_size, 3, height, width)`, `keypoints` of shape
                `(batch_size, num_keypoints, 2)` in pixels, and `visible` of shape `(batch_size, num_keypoints)`.

        Returns:
            `dict[str, torch.Tensor]`: `loss`, and `accuracy`: the share of labelled keypoints whose highest cell is at
            most two cells from the target's along both axes.
        """
        height, width = batch["pixel_values"].shape[-2:]
        labels, weights = encode_heatmaps(batch["keypoints"], batch["visible"], (height, width), sigma=self.sigma)
        outputs = self.model(pixel_values=batch["pixel_values"], labels=labels, keypoint_weights=weights)
        with torch.no_grad():
            columns = labels.shape[-1]
            found, wanted = (one.flatten(2).argmax(-1) for one in (outputs.heatmaps, labels))
            near = ((found % columns - wanted % columns).abs() <= 2) & (
                (found // columns - wanted // columns).abs() <= 2
            )
            known = weights > 0
            accuracy = (near & known).sum() / known.sum().clamp(min=1)
        return {"loss": outputs.loss, "accuracy": accuracy}


__all__ = ["PoseTask"]
