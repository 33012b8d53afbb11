"""Token-labelled image classification with MixToken."""

import math

import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from .base import Task


Box = tuple[int, int, int, int]


class TokenLabelTask(Task):
    """
    Image classification in which every token is classified too
    ([Jiang et al., 2021](https://huggingface.co/papers/2104.10858)), as in the official UniFormer code. Two images are
    mixed by swapping a box of their first tokens.

    ```
    box = a random box of the map of stage 1                    # as in cutmix, its share is distributed as Beta(1, 1)
    logits, token_logits = model(images, box from the image's mirror in the batch)
    token_logits inside the box go back to their own image      # on the map of stage 4
    share = size of the box on the map of stage 4 / its tokens
    target = (1 - share) * label + share * mirror's label
    loss = CE(logits, target) + mean over tokens of CE(token_logits, token's label)
    ```

    Args:
        model ([`UniFormerForImageClassification`]):
            A model with `config.use_auxiliary_head`.
        label_smoothing (`float`, *optional*, defaults to 0.0):
            Share of the target that is spread over all labels.
        mix_probability (`float`, *optional*, defaults to 1.0):
            Probability that a batch is mixed.

    Raises:
        ValueError: the model has no head for tokens.
    """

    def __init__(self, model: PreTrainedModel, label_smoothing: float = 0.0, mix_probability: float = 1.0):
        super().__init__(model)
        if not model.config.to_dict().get("use_auxiliary_head"):
            raise ValueError(f"`model` must have `use_auxiliary_head=True`, got a {type(model).__name__} without it.")
        self.label_smoothing, self.mix_probability = label_smoothing, mix_probability

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """
        Compute the loss of a batch.

        Args:
            batch (`dict[str, torch.Tensor]`):
                `pixel_values` of shape `(batch_size, [1,] num_channels, height, width)`; `labels` of shape
                `(batch_size,)` or `(batch_size, num_labels)`; optionally `token_labels`, soft labels of the tokens of
                stage 4 of shape `(batch_size, tokens, num_labels)`. Without them each token has the label of its
                image.

        Returns:
            `dict[str, torch.Tensor]`: `loss`, and `accuracy` with respect to the label with the largest share in the
            mixed image.
        """
        labels, num_labels = batch["labels"], self.model.config.num_labels
        soft = labels if labels.is_floating_point() else F.one_hot(labels, num_labels).float()
        soft = soft * (1 - self.label_smoothing) + self.label_smoothing / num_labels
        height, width = (side // 4 for side in batch["pixel_values"].shape[-2:])
        box = random_box(height, width) if torch.rand(()).item() < self.mix_probability else None
        outputs = self.model(
            pixel_values=batch["pixel_values"], labels=soft, token_labels=batch.get("token_labels"), mix_box=box
        )
        share = 0.0 if box is None else (box[2] // 8 - box[0] // 8) * (box[3] // 8 - box[1] // 8)
        mixed = soft if box is None else torch.lerp(soft, soft.flip(0), share / outputs.token_logits.shape[1])
        hits = outputs.logits.argmax(dim=-1) == mixed.argmax(dim=-1)
        return {"loss": outputs.loss, "accuracy": hits.float().mean()}


def random_box(height: int, width: int) -> Box:
    """
    Random box of cutmix, from torch's global CPU generator. Its centre is uniform. Its sides are those of the map
    times the square root of a uniform share. It is clipped at the edges.

    Args:
        height (`int`):
            Height of the map, in tokens.
        width (`int`):
            Width of the map, in tokens.

    Returns:
        `tuple[int, int, int, int]`: top, left, bottom, right.
    """
    root = math.sqrt(torch.rand(()).item())  # Beta(1, 1) is uniform, and so is one minus it
    edges = []
    for side in (height, width):
        half, centre = int(side * root) // 2, int(torch.randint(side, ()))
        edges.append((max(centre - half, 0), min(centre + half, side)))
    (top, bottom), (left, right) = edges
    return top, left, bottom, right


__all__ = ["TokenLabelTask", "random_box"]
