"""Self-supervision by masked visual words."""

from typing import Any

import torch
from transformers import PreTrainedModel

from ..words.tokenizers import VisualTokenizer, check_tokenizer, find_words
from .base import Task


class MaskedWordsTask(Task):
    """
    Predict the visual words of hidden patches, of clips and of images ([`BevtForPreTraining`]). Each step sees a batch
    of either kind, sums their losses and goes back once.

    ```
    for clip, mask in clips:                                  # and so for images; none of them leaves its loss out
        words = [tokenizer(shrunk(frame)) for frame in clip]  # the very crop that the model sees, at half the size
        video_loss += mean(cross_entropy(model(clip, mask)[place], words[place]) for place in mask)
    loss = video_loss + image_loss                            # weighted as the model's configuration says
    ```

    Args:
        model (`PreTrainedModel`):
            A model for pretraining that takes `mask` and `labels`, and images likewise.
        tokenizer ([`VisualTokenizer`], *optional*):
            Gives the words. It is frozen, stays in evaluation mode, and is no part of the task's parameters and
            checkpoints. Without it the batches must bring words.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: VisualTokenizer | None = None):
        super().__init__(model)
        if tokenizer is not None:
            check_tokenizer(tokenizer, model.config)
        self._tokenizer = (tokenizer,)  # a tuple, so that torch does not take it for a part

    @property
    def tokenizer(self) -> Any:
        """The frozen tokenizer."""
        return self._tokenizer[0]

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """
        Args:
            batch (`dict[str, torch.Tensor]`):
                `pixel_values` and `mask` of clips, `image_pixel_values` and `image_mask` of images, either or both;
                with each `labels` and `image_labels`, their words, or `frames` and `image_frames`, their grey levels
                from 0 to 255 before normalisation, to find them by.

        Returns:
            `dict[str, torch.Tensor]`: `loss`; `video_loss`, `image_loss` and the `video_accuracy` and
            `image_accuracy` of hidden words.
        """
        outputs = self.model(**self.with_words(batch), masked_only=True)
        parts = ("video_loss", "image_loss", "video_accuracy", "image_accuracy")
        return {"loss": outputs.loss} | {name: outputs[name].detach() for name in parts if name in outputs}

    def with_words(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The model's inputs: the words of all frames, found in one go, in the frames' place, or those given."""
        inputs = {name: value for name, value in batch.items() if not name.endswith("frames")}
        known = {"frames": "labels", "image_frames": "image_labels"}
        frames = {name: batch[name] for name, words in known.items() if name in batch and words not in batch}
        if not frames:
            return inputs
        if self.tokenizer is None:
            raise ValueError("`tokenizer` is needed where batches bring no words")
        for name, found in zip(frames, find_words(self.tokenizer, *frames.values())):
            inputs[known[name]] = found
        return inputs
