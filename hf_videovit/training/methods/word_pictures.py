"""Pictures of the visual words that a model predicts for hidden patches."""

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
    Draw three strips per sample: the frames, the frames with hidden patches in grey, and the frames with the predicted
    words in hidden patches. Words are painted by the tokenizer if it can decode them. Otherwise a word is green if it
    is right and red if it is wrong.

    Args:
        model (`PreTrainedModel`):
            A model such as [`BevtForPreTraining`].
        task ([`MaskedWordsTask`]):
            The task with the tokenizer.
        batch (`dict[str, torch.Tensor]`):
            Input of the task, with clips or with images.
        path (`str` or `Path`):
            File of the picture.

    Returns:
        `Path`: the file.
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
    best = outputs.logits[..., : task.tokenizer.vocab_size].argmax(-1)
    predicted = torch.where(mask, best.view_as(words), words)
    pictures = _paint_words(task.tokenizer, predicted, words, frames)
    hidden = _enlarge(mask, frames)
    parts = (frames, torch.where(hidden, HIDDEN_GREY, frames), torch.where(hidden, pictures, frames))
    return draw_reconstructions(Reconstruction(*(_as_pictures(part) for part in parts)), path)


def _paint_words(tokenizer: Any, predicted: torch.Tensor, words: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """Predicted words `(batch_size, num_frames, rows, columns)` as images in the shape of `frames`."""
    if isinstance(tokenizer, PaintsWords):
        small = tokenizer.paint(predicted.flatten(0, 1))
        grey = (small - 0.1) / 0.8 * 255
        large = torch.nn.functional.interpolate(grey, size=frames.shape[-2:])
        return large.view_as(frames)
    colours = torch.tensor([[200.0, 40.0, 40.0], [40.0, 160.0, 40.0]], device=frames.device)
    right = _enlarge(predicted == words, frames)[:, :, :1].long().squeeze(2)  # (batch, frames, height, width)
    return colours[right].movedim(-1, 2)


def _enlarge(patches: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """Values of patches `(batch_size, num_frames, rows, columns)` in the shape of `frames`."""
    factors = (frames.shape[-2] // patches.shape[-2], frames.shape[-1] // patches.shape[-1])
    large = patches.repeat_interleave(factors[0], dim=-2).repeat_interleave(factors[1], dim=-1)
    return large[:, :, None].expand_as(frames)


def _as_pictures(frames: torch.Tensor) -> np.ndarray:
    return frames.clamp(0, 255).round().to(torch.uint8).movedim(2, -1).cpu().numpy()


__all__ = ["draw_words"]
