"""Pictures of sparse tubes: their learnt kernels, their positions, and the weights of the pooling."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from ..modeling.configuration_base import frame_size
from ..modeling.configuration_tubevit import Triple, Tube, TubeViTConfig
from ..modeling.modeling_tubevit import TubeViTModel, own_kernel, tubes_in
from ..modeling.video_processing_base import ClipVideoProcessor
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


def draw_pooling(model: PreTrainedModel, pixel_values: torch.Tensor, frames: np.ndarray, path: str | Path) -> Path:
    """
    Draw the weights of the attention pooling over the places of a clip, below the clip itself: the mean of the heads,
    for all tubes together and for each alone. The brightest place of a row has its largest weight.

    Args:
        model (`PreTrainedModel`):
            A TubeViT with any head.
        pixel_values (`torch.Tensor` of shape `(1, num_frames, num_channels, height, width)`):
            One normalised clip.
        frames (`np.ndarray` of shape `(num_frames, height, width, 3)`):
            The same clip as a picture, in uint8.
        path (`str` or `Path`):
            The picture; its suffix decides the format.

    Returns:
        `Path`: the picture's file.

    Raises:
        ValueError: `frames` and `pixel_values` differ in shape, or the model is not a TubeViT.
    """
    maps = pooling_maps(model, pixel_values)
    if frames.shape[:3] != next(iter(maps.values())).shape:
        raise ValueError(
            f"`frames` must have the frames and size of `pixel_values`, got {frames.shape} and {pixel_values.shape}"
        )
    grey = frames.mean(axis=-1, keepdims=True)
    groups = [("clip", [frames])]
    for name, weights in {"all tubes": np.sum(list(maps.values()), axis=0), **maps}.items():
        share = (weights / max(weights.max(), 1e-12))[..., None]
        groups.append((name, [((1 - share) * 0.5 * grey + share * COLOUR).astype(np.uint8)]))
    return draw_strips(groups, path, MAP_FRAMES)


def draw_video_pooling(model: PreTrainedModel, processor: ClipVideoProcessor, video: Any, path: str | Path) -> Path:
    """
    [`draw_pooling`] of one centred clip of a video.

    Args:
        model (`PreTrainedModel`):
            A TubeViT with any head.
        processor ([`ClipVideoProcessor`]):
            Its processor.
        video:
            One video, in any form that the processor accepts.
        path (`str` or `Path`):
            The picture; its suffix decides the format.

    Returns:
        `Path`: the picture's file.
    """
    clip = processor(video, num_clips=1, num_crops=1, return_tensors="pt").pixel_values
    mean, std = (torch.tensor(one).view(-1, 1, 1) for one in (processor.image_mean, processor.image_std))
    frames = ((clip[0].cpu() * std + mean).clamp(0, 1) * 255).byte().permute(0, 2, 3, 1)
    return draw_pooling(model, clip.to(model.device), frames.numpy(), path)


@torch.no_grad()
def pooling_maps(model: PreTrainedModel, pixel_values: torch.Tensor) -> dict[str, np.ndarray]:
    """
    Weights of the pooling, spread over the pixels that each token covers.

    Args:
        model (`PreTrainedModel`):
            A TubeViT with any head.
        pixel_values (`torch.Tensor` of shape `(1, num_frames, num_channels, height, width)`):
            One normalised clip.

    Returns:
        `dict[str, np.ndarray]`: for each tube that fits, an array of shape `(num_frames, height, width)`. All arrays
        together sum to 1, or to less if there is a class token.

    Raises:
        ValueError: `pixel_values` is not one clip, or the model is not a TubeViT.
    """
    if pixel_values.ndim != 5 or len(pixel_values) != 1:
        raise ValueError(f"`pixel_values` must be one clip, got shape {tuple(pixel_values.shape)}")
    base = _tubevit(model)
    tokens = base(pixel_values).last_hidden_state
    weights = base.pooler.weights(tokens).mean(dim=1)[0].float().cpu().numpy()
    weights = weights[int(base.config.use_class_token) :]
    size = (pixel_values.shape[1], *pixel_values.shape[-2:])
    maps, start = {}, 0
    for index, tube in enumerate(base.config.tube_list):
        grid = tube.grid(size)
        count = int(np.prod(grid))
        if count:
            own = weights[start : start + count].reshape(grid)
            name = f"tube {index + 1}, {_size_words(tube.kernel)}"
            maps[name] = spread(tube, own / (tube.joined * np.prod(tube.kernel)), size)
            start += count
    return maps


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
    "draw_pooling",
    "draw_token_map",
    "draw_video_pooling",
    "kernel_images",
    "pooling_maps",
    "spread",
]
