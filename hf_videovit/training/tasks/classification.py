"""Supervised classification of clips."""

import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from .base import HasIdleParameters, Task


class ClassificationTask(Task):
    """
    Cross-entropy with one label per clip, hard or soft. For multi-label models, binary cross-entropy of every label.

    ```
    for clip, label in batch:                                # label: an index, or probabilities (mixup, cutmix)
        target = (1 - smoothing) * one_hot(label) + smoothing / num_labels
        loss += -(target * log_softmax(model(clip))).sum() / len(batch)

    for clip, labels in batch:                               # multi-label: zeros and ones, or between (mixup, cutmix)
        target = (1 - smoothing) * labels + smoothing / 2
        p = sigmoid(model(clip))
        loss += -(target * log(p) + (1 - target) * log(1 - p)).mean() / len(batch)
    ```
    For models with a second classifier in training (`class_token_logits` of UniFormer's light models), the loss is the
    mean of both.

    Args:
        model (`PreTrainedModel`):
            A model for video classification.
        label_smoothing (`float`, *optional*, defaults to 0.0):
            Share of the target that is spread over all labels.
    """

    def __init__(self, model: PreTrainedModel, label_smoothing: float = 0.0):
        super().__init__(model)
        self.label_smoothing = label_smoothing
        self.multi_label = model.config.problem_type == "multi_label_classification"
        self.idle_parameters = isinstance(model, HasIdleParameters) and model.has_idle_parameters()

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """
        Compute the loss of a batch.

        Args:
            batch (`dict[str, torch.Tensor]`):
                `pixel_values` of shape `(batch_size, num_frames, num_channels, height, width)` and `labels` of shape
                `(batch_size,)` or `(batch_size, num_labels)`.

        Returns:
            `dict[str, torch.Tensor]`: `loss`, and `accuracy` with respect to the label with the largest share. For
            multi-label models `accuracy` is the share of clips whose highest logit is one of their labels (hit at 1).
        """
        outputs = self.model(pixel_values=batch["pixel_values"])
        others = batch["labels"], self.label_smoothing, self.multi_label
        terms = classification_terms(outputs.logits.float(), *others)
        second = getattr(outputs, "class_token_logits", None)
        if second is not None:
            terms["loss"] = (terms["loss"] + classification_terms(second.float(), *others)["loss"]) / 2
        return terms


def classification_terms(
    logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float, multi_label: bool
) -> dict[str, torch.Tensor]:
    """
    Loss and accuracy of a batch, as described in [`ClassificationTask`].

    Args:
        logits (`torch.Tensor` of shape `(batch_size, num_labels)`):
            Output of the classifier.
        labels (`torch.Tensor` of shape `(batch_size,)` or `(batch_size, num_labels)`):
            Class indices, or shares of the labels.
        label_smoothing (`float`):
            Share of the target that is spread over all labels.
        multi_label (`bool`):
            Whether a clip has any number of labels.

    Returns:
        `dict[str, torch.Tensor]`: the scalars `loss` and `accuracy`.

    Raises:
        ValueError: there is only one class to choose from.
    """
    if multi_label:
        target = labels.float() * (1 - label_smoothing) + label_smoothing / 2
        best = labels.gather(1, logits.argmax(dim=-1, keepdim=True))  # (batch, 1)
        return {"loss": F.binary_cross_entropy_with_logits(logits, target), "accuracy": (best > 0).float().mean()}
    if logits.shape[-1] == 1:
        raise ValueError("`num_labels` must be at least 2, got 1: the loss of a single class is always 0.")
    loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    hard = labels.argmax(dim=-1) if labels.ndim == 2 else labels
    return {"loss": loss, "accuracy": (logits.argmax(dim=-1) == hard).float().mean()}
