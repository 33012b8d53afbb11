"""Learning from a teacher's answers instead of labels."""

import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from ..data.sources import label_mapping
from .base import Task


class DistillationTask(Task):
    """
    Give the answers that a teacher gives to the very same augmented clip; labels play no part.

    ```
    for clip in batch:                                     # after mixup and cutmix
        wanted = softmax(teacher(clip) / temperature)
        given = softmax(student(clip) / temperature)
        loss += temperature ** 2 * (wanted * (log(wanted) - log(given))).sum() / len(batch)      # KL(wanted || given)
    ```

    Consistent views and long training are what makes this work (Beyer et al., 2022, "Knowledge distillation: a good
    teacher is patient and consistent"); the factor keeps gradients of one size at every temperature (Hinton et al.,
    2015).

    Args:
        model (`PreTrainedModel`):
            The student, a model for video classification.
        teacher (`PreTrainedModel`):
            A classifier of the same labels, in any order. It is frozen, stays in evaluation mode, and is no part of
            the task's parameters and checkpoints.
        temperature (`float`, *optional*, defaults to 1.0):
            Softens both sides.
    """

    def __init__(self, model: PreTrainedModel, teacher: PreTrainedModel, temperature: float = 1.0):
        super().__init__(model)
        theirs, ours = teacher.config.id2label, model.config.id2label
        if len(theirs) != len(ours):
            raise ValueError(
                f"`teacher` must know the student's {len(ours)} labels and no others, it has {len(theirs)}"
            )
        names = [[names[index] for index in range(len(names))] for names in (ours, theirs)]
        self.answers = label_mapping(names[0], names[1])
        self.temperature = temperature
        self._teacher = (teacher.eval().requires_grad_(False),)  # a tuple, so that torch does not take it for a part

    @property
    def teacher(self) -> PreTrainedModel:
        """The frozen teacher."""
        return self._teacher[0]

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """
        Args:
            batch (`dict[str, torch.Tensor]`):
                `pixel_values` of shape `(batch_size, num_frames, num_channels, height, width)`.

        Returns:
            `dict[str, torch.Tensor]`: `loss`, and `agreement`, the share of clips that both call the same.
        """
        pixel_values = batch["pixel_values"]
        with torch.no_grad():
            wanted = self.teacher.to(pixel_values.device)(pixel_values=pixel_values).logits.float()[:, self.answers]
        given = self.model(pixel_values=pixel_values).logits.float()
        student, teacher = (F.log_softmax(logits / self.temperature, dim=-1) for logits in (given, wanted))
        loss = F.kl_div(student, teacher, reduction="batchmean", log_target=True) * self.temperature**2
        return {"loss": loss, "agreement": (given.argmax(dim=-1) == wanted.argmax(dim=-1)).float().mean()}
