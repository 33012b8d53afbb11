"""Self-supervision by masked visual words."""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ...modeling.word_pixels import word_pixels
from ..visual_words import VisualTokenizer
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
            size, vocabulary = model.config.prediction_patch_size, model.config.vocab_size
            if 2 * tokenizer.patch_size != size:
                raise ValueError(
                    f"`tokenizer` must name patches of {size // 2} pixels, half of the model's {size}, it names "
                    f"patches of {tokenizer.patch_size}"
                )
            if tokenizer.vocab_size > vocabulary:
                raise ValueError(
                    f"`tokenizer` must have at most the model's {vocabulary} words (`vocab_size`), it has "
                    f"{tokenizer.vocab_size}"
                )
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
                with each `frames` and `image_frames`, their grey levels from 0 to 255 before normalisation, or
                `labels` and `image_labels`, their words.

        Returns:
            `dict[str, torch.Tensor]`: `loss`; `video_loss`, `image_loss` and the `video_accuracy` and
            `image_accuracy` of hidden words.
        """
        outputs = self.model(**self.with_words(batch), masked_only=True)
        parts = ("video_loss", "image_loss", "video_accuracy", "image_accuracy")
        return {"loss": outputs.loss} | {name: outputs[name].detach() for name in parts if name in outputs}

    def with_words(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The model's inputs: the words of all frames, found in one go, in the frames' place."""
        inputs = {name: value for name, value in batch.items() if not name.endswith("frames")}
        frames = {name: batch[name] for name in ("frames", "image_frames") if name in batch}
        if not frames:
            return inputs
        if self.tokenizer is None:
            raise ValueError("`tokenizer` is needed where batches bring no words")
        pixels = [word_pixels(value, (value.shape[-2] // 2, value.shape[-1] // 2)) for value in frames.values()]
        with torch.no_grad(), torch.autocast(pixels[0].device.type, enabled=False):
            words = self.words([value.flatten(0, -4) for value in pixels])
        for name, value, found in zip(frames, pixels, words):
            inputs[name.replace("frames", "labels")] = found.unflatten(0, value.shape[:-3])
        return inputs

    def words(self, groups: list[torch.Tensor]) -> list[torch.Tensor]:
        """Words of groups of images, together where they are of one size."""
        tokenizer = self.tokenizer.to(groups[0].device) if isinstance(self.tokenizer, nn.Module) else self.tokenizer
        if len({group.shape[-2:] for group in groups}) > 1:
            return [tokenizer(group) for group in groups]
        return list(tokenizer(torch.cat(groups)).split([len(group) for group in groups]))
