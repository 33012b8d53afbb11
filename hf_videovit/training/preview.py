"""A picture of the training data: clips as decoded, augmented, mixed and masked."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision.transforms import v2

from ..pictures.drawing import draw_strips
from .arguments import RunConfig
from .methods.choosing import method_of
from .methods.previewing import PreviewedClip, frames_of


MIN_HEIGHT = 96


def preview_clips(config: RunConfig, num_clips: int = 4, **given: Any) -> list[PreviewedClip]:
    """
    The first clips of a run's first epoch. No weights are loaded.

    Args:
        config ([`RunConfig`]):
            The run.
        num_clips (`int`, *optional*, defaults to 4):
            Number of clips. They are mixed with each other, so their partners differ from those in the run's batch.
        given:
            `processor` and `train_source`, see [`Method`].

    Returns:
        `list[PreviewedClip]`
    """
    return list(method_of(config, **given).preview(num_clips))


def draw_preview(
    config: RunConfig, path: str | Path, num_clips: int = 4, max_frames: int = 8, **given: Any
) -> list[PreviewedClip]:
    """
    Draw clips as training sees them. For each clip there is a strip with the decoded frames, and below it one for each
    augmented copy under its target. For masked modelling, further strips show the visible patches and those to
    predict.

    Args:
        config ([`RunConfig`]):
            The run.
        path (`str` or `Path`):
            File of the picture. Its suffix determines the format.
        num_clips (`int`, *optional*, defaults to 4):
            Number of clips in the picture.
        max_frames (`int`, *optional*, defaults to 8):
            Largest number of frames shown of a clip.
        given:
            See [`preview_clips`].

    Returns:
        `list[PreviewedClip]`: the clips in the picture.
    """
    clips = preview_clips(config, num_clips, **given)
    groups: list[tuple[str, Sequence[np.ndarray]]] = []
    for clip in clips:
        height, width = clip.after[0].shape[1:3]
        decoded = f"{clip.id}: decoded ({clip.before.shape[2]} x {clip.before.shape[1]})"
        groups.append((decoded, [_resized(clip.before, height)]))
        for index, frames in enumerate(clip.after):
            title = f"augmented ({width} x {height})" + (f", copy {index + 1}" if len(clip.after) > 1 else "")
            if clip.labels:
                title += ": " + target_text(clip.labels[index])
            if clip.masked:
                title += "; seen by the encoder; to be predicted"
            groups.append((title, [frames, *(clip.masked[index] if clip.masked else ())]))
    draw_strips(groups, path, max_frames, min_height=MIN_HEIGHT)
    return clips


def target_text(shares: dict[str, float]) -> str:
    """
    A target as text, such as `0.70 jump + 0.30 fall`.

    Args:
        shares (`dict[str, float]`):
            Share of each label, by its name.

    Returns:
        `str`
    """
    ordered = sorted(shares.items(), key=lambda share: -share[1])
    return ordered[0][0] if len(ordered) == 1 else " + ".join(f"{share:.2f} {name}" for name, share in ordered)


def _resized(frames: np.ndarray, height: int) -> np.ndarray:
    """Frames at the height of the augmented ones, for the picture."""
    width = max(1, round(frames.shape[2] * height / frames.shape[1]))
    clip = torch.from_numpy(frames).permute(0, 3, 1, 2)
    return frames_of(v2.functional.resize(clip, [height, width], antialias=True))


__all__ = ["draw_preview", "preview_clips", "target_text"]
