"""A picture of masked visual words: what the model is shown, and what it says."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from ...modes import evaluation_mode
from ...pictures.reconstruction import Reconstruction, draw_reconstructions
from ..tasks import MaskedWordsTask
from ..words.tokenizers import PaintsWords


HIDDEN_GREY = 127.5
Rows = dict[str, torch.Tensor]


@torch.inference_mode()
def draw_words(model: PreTrainedModel, task: MaskedWordsTask, batch: Rows, path: str | Path) -> Path:
    """
    Draw what the model is shown, what it should say and what it says, one strip each: frames, frames with hidden
    patches in grey, and the words it predicts there. A tokenizer that can paint its words shows them as pictures;
    otherwise a predicted word is green where it is right and red where it is not.

    Args:
        model (`PreTrainedModel`):
            A model such as [`BevtForPreTraining`].
        task ([`MaskedWordsTask`]):
            Has the tokenizer.
        batch (`dict[str, torch.Tensor]`):
            As the task takes it, of one kind.
        path (`str` or `Path`):
            The picture.
    """
    with evaluation_mode(model):
        inputs = task.with_words(batch)
        outputs = model(**inputs)
    prefix = "" if "frames" in batch else "image_"
    frames, mask, words = (batch[f"{prefix}frames"].float(), inputs[f"{prefix}mask"], inputs[f"{prefix}labels"])
    if prefix:
        frames, mask, words = frames[:, None], mask[:, None], words[:, None]
    else:
        mask = mask.repeat_interleave(model.config.tubelet_size, dim=1)
    said = outputs.logits[..., : task.tokenizer.vocab_size].argmax(-1)
    predicted = torch.where(mask, said.view_as(words), words)
    pictures = paint_words(task.tokenizer, predicted, words, frames)
    hidden = enlarged(mask, frames)
    parts = (frames, torch.where(hidden, HIDDEN_GREY, frames), torch.where(hidden, pictures, frames))
    return draw_reconstructions(Reconstruction(*(_as_pictures(part) for part in parts)), path)


def paint_words(tokenizer: Any, predicted: torch.Tensor, words: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """Pictures like `frames` of predicted words `(batch_size, num_frames, height, width)`."""
    if isinstance(tokenizer, PaintsWords):
        small = tokenizer.paint(predicted.flatten(0, 1))
        grey = (small - 0.1) / 0.8 * 255
        large = torch.nn.functional.interpolate(grey, size=frames.shape[-2:])
        return large.view_as(frames)
    colours = torch.tensor([[200.0, 40.0, 40.0], [40.0, 160.0, 40.0]], device=frames.device)
    right = enlarged(predicted == words, frames)[:, :, :1].long().squeeze(2)  # (batch, frames, height, width)
    return colours[right].movedim(-1, 2)


def enlarged(places: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """A grid of places `(batch_size, num_frames, rows, columns)` in the shape of `frames`."""
    factors = (frames.shape[-2] // places.shape[-2], frames.shape[-1] // places.shape[-1])
    large = places.repeat_interleave(factors[0], dim=-2).repeat_interleave(factors[1], dim=-1)
    return large[:, :, None].expand_as(frames)


def _as_pictures(frames: torch.Tensor) -> np.ndarray:
    return frames.clamp(0, 255).round().to(torch.uint8).movedim(2, -1).cpu().numpy()


__all__ = ["draw_words", "enlarged", "paint_words"]
