"""Supervised classification of images and videos with a shared encoder."""

from collections.abc import Mapping

import torch
from transformers import PreTrainedModel

from .base import Task
from .classification import classification_terms


class JointClassificationTask(Task):
    """
    Alternating batches of images and of clips, each with its own classifier on a shared encoder (Piergiovanni et al.,
    2022, section 3.5).

    ```
    for batch in alternating(videos, images):                # never mixed: their numbers of tokens differ
        name = "images" if batch has one frame else "videos"
        loss = weight[name] * cross_entropy(model(batch, name), labels)
        # the other classifier, and for images the tubes longer than a frame, get no gradient (`None`, not zeros)
    ```

    Args:
        model (`PreTrainedModel`):
            A model whose forward takes the name of the batch's data set.
        videos (`str`):
            Name of the data set of videos in the model's configuration.
        images (`str`):
            Name of the data set of images in the model's configuration.
        label_smoothing (`float`, *optional*, defaults to 0.0):
            Share of the target that is spread over all labels.
        image_weight (`float`, *optional*, defaults to 1.0):
            Factor of the loss of images.

    Raises:
        ValueError: the model has no data set of one of these names.
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
                raise ValueError(f"`{name}` must be one of the model's data sets, which are {list(datasets)}")
        self.videos, self.images = videos, images
        self.label_smoothing, self.image_weight = label_smoothing, image_weight
        self.problem_types = {name: fields.get("problem_type") for name, fields in datasets.items()}

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """
        Compute the loss of a batch.

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
