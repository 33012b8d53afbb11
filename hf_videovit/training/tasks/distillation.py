"""Knowledge distillation: a teacher's predictions instead of labels."""

import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from ..data.sources import label_mapping
from .base import Task


class DistillationTask(Task):
    """
    Match the teacher's predictions for the same augmented clip. Labels are not used.

    ```
    for clip in batch:                                     # after mixup and cutmix
        wanted = softmax(teacher(clip) / temperature)
        given = softmax(student(clip) / temperature)
        loss += temperature ** 2 * (wanted * (log(wanted) - log(given))).sum() / len(batch)      # KL(wanted || given)
    ```

    Consistent views and long training are essential (Beyer et al., 2022, "Knowledge distillation: a good teacher is
    patient and consistent"). The factor keeps the scale of the gradients independent of the temperature (Hinton et
    al., 2015).

    Args:
        model (`PreTrainedModel`):
            The student, a model for video classification.
        teacher (`PreTrainedModel`):
            A classifier of the same labels, in any order. It is frozen, stays in evaluation mode, and is not part of
            the task's parameters and checkpoints.
        temperature (`float`, *optional*, defaults to 1.0):
            Divides the logits of both.

    Raises:
        ValueError: the teacher and the student do not have the same labels.
    """

    answers: torch.Tensor

    def __init__(self, model: PreTrainedModel, teacher: PreTrainedModel, temperature: float = 1.0):
        super().__init__(model)
        theirs, ours = teacher.config.id2label, model.config.id2label
        if len(theirs) != len(ours):
            raise ValueError(
                f"`teacher` must have the same {len(ours)} labels as the student, got {len(theirs)} labels"
            )
        names = [[names[index] for index in range(len(names))] for names in (ours, theirs)]
        self.register_buffer("answers", torch.tensor(label_mapping(names[0], names[1])), persistent=False)
        self.temperature = temperature
        self._teacher = (teacher.eval().requires_grad_(False),)  # a tuple, so that torch does not register it

    @property
    def teacher(self) -> PreTrainedModel:
        """The frozen teacher."""
        return self._teacher[0]

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """
        Compute the loss of a batch.

        Args:
            batch (`dict[str, torch.Tensor]`):
                `pixel_values` of shape `(batch_size, num_frames, num_channels, height, width)`.

        Returns:
            `dict[str, torch.Tensor]`: `loss`, and `agreement`, the share of clips with the same prediction from both.
        """
        pixel_values = batch["pixel_values"]
        with torch.no_grad():
            if self.teacher.device != pixel_values.device:
                self.teacher.to(pixel_values.device)
            wanted = self.teacher(pixel_values=pixel_values).logits.float()[:, self.answers]
        given = self.model(pixel_values=pixel_values).logits.float()
        student, teacher = (F.log_softmax(logits / self.temperature, dim=-1) for logits in (given, wanted))
        loss = F.kl_div(student, teacher, reduction="batchmean", log_target=True) * self.temperature**2
        return {"loss": loss, "agreement": (given.argmax(dim=-1) == wanted.argmax(dim=-1)).float().mean()}
