"""Pictures of sparse tubes: their learnt kernels and their positions."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from ..modeling.configuration_base import frame_size
from ..modeling.configuration_tubevit import Triple, Tube, TubeViTConfig
from ..modeling.modeling_tubevit import TubeViTModel, own_kernel, tubes_in
from .drawing import draw_strips


MAP_FRAMES = 16  # frames to show per clip
KERNEL_HEIGHT = 32  # small kernels are enlarged to this height in pixels
COLOUR = np.array([255, 110, 0], np.float32)


def draw_kernels(model: PreTrainedModel, path: str | Path, num_filters: int = 8) -> Path:
    """
    Draw learnt filters like figure 5 of the paper: one row per filter, its frames from left to right, in colour. For
    each tube, the filters with the largest norm are shown, largest first. The paper does not state the scaling; here
    each filter is scaled from its smallest to its largest weight.

    Args:
        model (`PreTrainedModel`):
            A TubeViT with any head, on three channels.
        path (`str` or `Path`):
            The picture; its suffix decides the format.
        num_filters (`int`, *optional*, defaults to 8):
            Number of filters per tube.

    Returns:
        `Path`: the picture's file.

    Raises:
        ValueError: the model is not a TubeViT on three channels, or `num_filters` is less than 1.
    """
    if num_filters < 1:
        raise ValueError(f"`num_filters` must be at least 1, got {num_filters}")
    base = _tubevit(model)
    if base.config.num_channels != 3:
        raise ValueError(f"`model` must have three input channels, got {base.config.num_channels}")
    groups = []
    for module, tube in zip(tubes_in(base), base.config.tube_list, strict=True):
        groups.append((_size_words(tube.kernel), kernel_images(own_kernel(base, module), num_filters)))
    return draw_strips(groups, path, max(tube.kernel[0] for tube in base.config.tube_list), KERNEL_HEIGHT)


@torch.no_grad()
def kernel_images(weight: torch.Tensor, num_filters: int) -> list[np.ndarray]:
    """
    The filters with the largest norm as clips.

    Args:
        weight (`torch.Tensor` of shape `(channels, 3, frames, height, width)`):
            Kernel of a tube.
        num_filters (`int`):
            Number of filters.

    Returns:
        `list[np.ndarray]`: each uint8 of shape `(frames, height, width, 3)`.
    """
    order = weight.flatten(1).norm(dim=1).argsort(descending=True)[:num_filters]
    filters = weight[order].float().flatten(1)
    low, high = filters.amin(dim=1, keepdim=True), filters.amax(dim=1, keepdim=True)
    scaled = ((filters - low) / (high - low).clamp(min=1e-12) * 255).round().byte()
    return list(scaled.view(len(order), *weight.shape[1:]).permute(0, 2, 3, 4, 1).cpu().numpy())


def draw_token_map(config: TubeViTConfig, path: str | Path, size: Sequence[int] | None = None) -> Path:
    """
    Draw the positions of the tokens of each tube: one row per tube, the frames of a clip from left to right. The
    brighter a pixel, the more windows cover it; black pixels are not covered.

    Args:
        config ([`TubeViTConfig`]):
            The configuration with the tubes.
        path (`str` or `Path`):
            The picture; its suffix decides the format.
        size (`Sequence[int]`, *optional*):
            Frames, height and width of the clip. Defaults to those of the configuration.

    Returns:
        `Path`: the picture's file.

    Raises:
        ValueError: `size` is not three positive numbers.
    """
    if size is None:
        height, width = frame_size(config.image_size)
        size = (config.num_frames, height, width)
    if len(size) != 3 or min(size) < 1:
        raise ValueError(f"`size` must be frames, height and width, got {size}")
    groups = []
    for tube in config.tube_list:
        grid = tube.grid(size)
        seen = spread(tube, np.ones(grid, np.float32), size)
        picture = (seen / max(1.0, seen.max()))[..., None] * COLOUR
        groups.append((f"{_size_words(tube.kernel)}: {_size_words(grid)} tokens", [picture.astype(np.uint8)]))
    return draw_strips(groups, path, MAP_FRAMES)


def spread(tube: Tube, values: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """
    Add a value of each token to every pixel of its windows.

    Args:
        tube ([`Tube`]):
            The tube.
        values (`np.ndarray` of shape `tube.grid(size)`):
            One number per token.
        size (`Sequence[int]`):
            Frames, height and width of the clip.

    Returns:
        `np.ndarray` of shape `size`, in float32.
    """
    spread_out = np.zeros(size, np.float32)
    for token in np.ndindex(*values.shape):
        for window in itertools.product(*map(range, tube.space_to_depth)):
            starts = [
                tube.offset[axis] + token[axis] * tube.stride[axis] + window[axis] * tube.window_stride[axis]
                for axis in range(3)
            ]
            place = tuple(slice(start, start + length) for start, length in zip(starts, tube.kernel))
            spread_out[place] += values[token]
    return spread_out


def _tubevit(model: PreTrainedModel) -> TubeViTModel:
    base = model.base_model
    if not isinstance(base, TubeViTModel):
        raise ValueError(f"`model` must be a TubeViT, got {type(model).__name__}")
    return base


def _size_words(size: Triple) -> str:
    return " x ".join(map(str, size))


__all__ = [
    "draw_kernels",
    "draw_token_map",
    "kernel_images",
    "spread",
]
