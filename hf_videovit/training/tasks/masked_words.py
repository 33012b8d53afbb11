"""Prediction of masked visual words."""

from typing import Any

import torch
from transformers import PreTrainedModel

from ..words.tokenizers import VisualTokenizer, check_tokenizer, find_words
from .base import Task


class MaskedWordsTask(Task):
    """
    Predict the visual words of hidden patches, of clips and of images ([`BevtForPreTraining`]). Each step takes a
    batch of either kind, sums their losses and makes one backward pass.

    ```
    for clip, mask in clips:                                  # and the same for images
        words = [tokenizer(shrunk(frame)) for frame in clip]  # the crop that the model sees, at half the size
        video_loss += mean(cross_entropy(model(clip, mask)[place], words[place]) for place in mask)
    loss = video_loss + image_loss                            # weighted as the model's configuration says
    ```

    Args:
        model (`PreTrainedModel`):
            A model for pretraining that takes `pixel_values`, `mask` and `labels`, and for images
            `image_pixel_values`, `image_mask` and `image_labels`.
        tokenizer ([`VisualTokenizer`], *optional*):
            Computes the words. It is frozen, stays in evaluation mode, and is not part of the task's parameters and
            checkpoints. Without it the batches must contain the words.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: VisualTokenizer | None = None):
        super().__init__(model)
        if tokenizer is not None:
            check_tokenizer(tokenizer, model.config)
        self._tokenizer = (tokenizer,)  # a tuple, so that torch does not register it

    @property
    def tokenizer(self) -> Any:
        """The frozen tokenizer."""
        return self._tokenizer[0]

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """
        Compute the loss of a batch.

        Args:
            batch (`dict[str, torch.Tensor]`):
                `pixel_values` and `mask` of clips, `image_pixel_values` and `image_mask` of images, or both. With
                them either the words, `labels` and `image_labels`, or the frames from which the tokenizer computes
                them, `frames` and `image_frames`, with values from 0 to 255 before normalisation.

        Returns:
            `dict[str, torch.Tensor]`: `loss`, and of the kinds in the batch `video_loss`, `image_loss`,
            `video_accuracy` and `image_accuracy`. Accuracies are those of hidden words.
        """
        outputs = self.model(**self.with_words(batch), masked_only=True)
        parts = ("video_loss", "image_loss", "video_accuracy", "image_accuracy")
        return {"loss": outputs.loss} | {name: outputs[name].detach() for name in parts if name in outputs}

    def with_words(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """
        Replace the frames of a batch by their words, which are computed in one call of the tokenizer.

        Args:
            batch (`dict[str, torch.Tensor]`):
                See [`~MaskedWordsTask.forward`].

        Returns:
            `dict[str, torch.Tensor]`: the model's inputs.

        Raises:
            ValueError: the batch has frames without words, and there is no tokenizer.
        """
        inputs = {name: value for name, value in batch.items() if not name.endswith("frames")}
        known = {"frames": "labels", "image_frames": "image_labels"}
        frames = {name: batch[name] for name, words in known.items() if name in batch and words not in batch}
        if not frames:
            return inputs
        if self.tokenizer is None:
            raise ValueError("`tokenizer` is needed for batches without words")
        for name, found in zip(frames, find_words(self.tokenizer, *frames.values())):
            inputs[known[name]] = found
        return inputs
