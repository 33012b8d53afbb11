"""Supervised classification of images and videos by one encoder."""

from collections.abc import Mapping

import torch
from transformers import PreTrainedModel

from .base import Task
from .classification import classification_terms


class JointClassificationTask(Task):
    """
    Batches of images and batches of clips in turn, each through its own classifier over one encoder (Piergiovanni et
    al., 2022, section 3.5).

    ```
    for batch in alternating(videos, images):                # never mixed: their numbers of tokens differ
        name = "images" if batch has one frame else "videos"
        loss = weight[name] * cross_entropy(model(batch, name), labels)
        # the other classifier, and tubes longer than a frame for images, get no gradient, not even zeros
    ```

    Args:
        model (`PreTrainedModel`):
            A model whose forward takes the name of the batch's data set.
        videos (`str`):
            Name of the videos' data set in the model.
        images (`str`):
            Name of the images'.
        label_smoothing (`float`, *optional*, defaults to 0.0):
            Share of the target spread over all labels.
        image_weight (`float`, *optional*, defaults to 1.0):
            Factor of the images' loss.
    """

    idle_parameters = True

    def __init__(
        self,
        model: PreTrainedModel,
        videos: str,
        images: str,
        label_smoothing: float = 0.0,
        image_weight: float = 1.0,
    ):
        super().__init__(model)
        datasets: Mapping[str, Mapping] = model.config.datasets
        for name in (videos, images):
            if name not in datasets:
                raise ValueError(f"`{name}` must be a data set of the model, it has {list(datasets)}")
        self.videos, self.images = videos, images
        self.label_smoothing, self.image_weight = label_smoothing, image_weight
        self.problem_types = {name: fields.get("problem_type") for name, fields in datasets.items()}

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """
        Args:
            batch (`dict[str, torch.Tensor]`):
                `pixel_values`: clips of shape `(batch_size, num_frames, num_channels, height, width)` or images,
                `(batch_size, num_channels, height, width)`; `labels` of shape `(batch_size,)` or `(batch_size,
                num_labels)`.

        Returns:
            `dict[str, torch.Tensor]`: `loss` and `accuracy`, see [`ClassificationTask`].
        """
        is_image = batch["pixel_values"].ndim == 4
        name = self.images if is_image else self.videos
        logits = self.model(pixel_values=batch["pixel_values"], dataset=name).logits.float()
        multi_label = self.problem_types[name] == "multi_label_classification"
        terms = classification_terms(logits, batch["labels"], self.label_smoothing, multi_label)
        return {**terms, "loss": terms["loss"] * self.image_weight} if is_image else terms
