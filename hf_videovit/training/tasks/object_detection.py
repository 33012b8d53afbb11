"""Training of detectors of objects."""

import torch

from ...modeling.modeling_region_proposals import relative_boxes
from .base import Task


class ObjectDetectionTask(Task):
    """
    The model's own losses of a batch of images.

    Args:
        model (`PreTrainedModel`):
            [`UniFormerForObjectDetection`].
    """

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """
        Compute the losses of a batch.

        Args:
            batch (`dict[str, torch.Tensor]`):
                `pixel_values` of shape `(batch_size, 3, height, width)`, `sizes` of shape `(batch_size, 2)` (height
                and width without padding), `boxes` of shape `(batch_size, objects, 4)` (corners in pixels),
                `class_labels` of shape `(batch_size, objects)` (-1 where there is no object) and, with masks, `masks`
                of shape `(batch_size, objects, height, width)`.

        Returns:
            `dict[str, torch.Tensor]`: `loss` and its parts.
        """
        pixel_values = batch["pixel_values"]
        height, width = pixel_values.shape[-2:]
        left, top, right, bottom = relative_boxes(batch["boxes"], (height, width)).unbind(-1)
        shares = torch.stack(((left + right) / 2, (top + bottom) / 2, right - left, bottom - top), dim=-1)
        labels = []
        for index, classes in enumerate(batch["class_labels"]):
            known = classes >= 0
            one = {"class_labels": classes[known], "boxes": shares[index][known]}
            labels.append(one | ({"masks": batch["masks"][index][known]} if "masks" in batch else {}))
        rows = torch.arange(height, device=pixel_values.device)[:, None] < batch["sizes"][:, 0, None, None]
        columns = torch.arange(width, device=pixel_values.device) < batch["sizes"][:, 1, None, None]
        outputs = self.model(pixel_values=pixel_values, pixel_mask=(rows & columns).long(), labels=labels)
        return {"loss": outputs.loss, **outputs.loss_dict}


__all__ = ["ObjectDetectionTask"]
