"""Reconstructions of a masked autoencoder, as pixels and as a picture. No training run is needed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedModel

from ..modes import evaluation_mode
from .drawing import draw_strips


HIDDEN_GREY = 0.5


@dataclass(frozen=True)
class Reconstruction:
    """
    Clips, their visible part and their reconstruction; all uint8 of shape `(batch_size, num_frames, height, width,
    num_channels)`.

    Args:
        original (`np.ndarray`):
            The clips.
        visible (`np.ndarray`):
            The clips with hidden tubelets in grey.
        reconstructed (`np.ndarray`):
            Hidden tubelets as predicted, visible ones unchanged.
    """

    original: np.ndarray
    visible: np.ndarray
    reconstructed: np.ndarray


@torch.no_grad()
def reconstruct_clips(
    model: PreTrainedModel, pixel_values: torch.Tensor, encoder_mask: torch.Tensor
) -> Reconstruction:
    """
    Reconstruct every hidden tubelet of a batch of clips.

    A model trained on normalised targets predicts the pattern of a tubelet but not its mean and contrast. These are
    taken from the true tubelet, as in the pictures of the paper, so the result looks better than the prediction alone.

    Args:
        model (`PreTrainedModel`):
            A model for pretraining such as [`VideoMAEV2ForPreTraining`].
        pixel_values (`torch.Tensor` of shape `(batch_size, num_frames, num_channels, height, width)`):
            Normalised clips.
        encoder_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`):
            `True` = hidden.

    Returns:
        [`Reconstruction`]
    """
    with evaluation_mode(model):
        pixel_values, encoder_mask = pixel_values.to(model.device), encoder_mask.to(model.device).bool()
        outputs = model(pixel_values=pixel_values, encoder_mask=encoder_mask)
    config = model.config
    pixels = model.targets(pixel_values, normalize=False).unflatten(2, (-1, config.num_channels))
    predicted = outputs.logits.float().unflatten(2, (-1, config.num_channels))  # (batch, decoded, pixels, channels)
    rows = torch.arange(len(pixels), device=pixels.device)[:, None]
    if config.normalize_targets:
        true = pixels[rows, outputs.decoded_indices]
        deviation = true.var(dim=2, unbiased=True, keepdim=True).sqrt() + 1e-6
        predicted = predicted * deviation + true.mean(dim=2, keepdim=True)
    reconstructed, visible = pixels.clone(), pixels.clone()
    reconstructed[rows, outputs.decoded_indices] = predicted
    visible[encoder_mask] = HIDDEN_GREY
    shape = pixel_values.shape
    return Reconstruction(*(tubelets_to_frames(part, shape, config) for part in (pixels, visible, reconstructed)))


def tubelets_to_frames(tubelets: torch.Tensor, shape: Sequence[int], config: PreTrainedConfig) -> np.ndarray:
    """
    Assemble clips from tubelets in [0, 1].

    Args:
        tubelets (`torch.Tensor` of shape `(batch_size, sequence_length, tubelet_size * patch_size ** 2, channels)`):
            Pixels in frame, row, column order.
        shape (`Sequence[int]`):
            Shape of the clips: `(batch_size, num_frames, num_channels, height, width)`.
        config (`PreTrainedConfig`):
            `tubelet_size` and `patch_size` are read.

    Returns:
        `np.ndarray` of shape `(batch_size, num_frames, height, width, num_channels)`: uint8.
    """
    batch_size, num_frames, num_channels, height, width = shape
    tubelet, patch = config.tubelet_size, config.patch_size
    grid = (num_frames // tubelet, height // patch, width // patch)
    clips = tubelets.view(batch_size, *grid, tubelet, patch, patch, num_channels)
    clips = clips.permute(0, 1, 4, 2, 5, 3, 6, 7)  # (batch, frames, tubelet, rows, patch, columns, patch, channels)
    clips = clips.reshape(batch_size, num_frames, height, width, num_channels)
    return (clips.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def draw_reconstructions(reconstruction: Reconstruction, path: str | Path, max_frames: int = 8) -> Path:
    """
    Draw three strips of frames for each clip: the original, the visible part and the reconstruction.

    Args:
        reconstruction ([`Reconstruction`]):
            From [`reconstruct_clips`].
        path (`str` or `Path`):
            The picture; its suffix decides the format.
        max_frames (`int`, *optional*, defaults to 8):
            Frames to show per clip, evenly spaced.

    Returns:
        `Path`: the picture's file.
    """
    strips = zip(reconstruction.original, reconstruction.visible, reconstruction.reconstructed)
    return draw_strips([("", clips) for clips in strips], path, max_frames)
