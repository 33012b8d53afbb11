"""Functions on UniFormer's feature maps: layers applied with channels last, windows, pruning scores, MixToken."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F


MixBox = tuple[int, int, int, int]


def apply_convolution(layer: nn.Module, hidden_states: torch.Tensor) -> torch.Tensor:
    """
    Apply a convolution to a channels-last map; no data moves.

    Args:
        layer (`nn.Module`):
            A convolution in two or three dimensions.
        hidden_states (`torch.Tensor` of shape `(batch_size, [frames,] height, width, channels)`):
            Map.

    Returns:
        `torch.Tensor` of shape `(batch_size, [frames,] height, width, out_channels)`.
    """
    return layer(hidden_states.movedim(-1, 1)).movedim(1, -1)


def apply_batch_norm(norm: nn.Module, hidden_states: torch.Tensor) -> torch.Tensor:
    """
    Apply a BatchNorm to the last axis. The module itself sees two axes, so that `SyncBatchNorm` can replace it.

    Args:
        norm (`nn.Module`):
            A BatchNorm.
        hidden_states (`torch.Tensor` of shape `(batch_size, ..., channels)`):
            Map or tokens.

    Returns:
        `torch.Tensor` of the shape of `hidden_states`.
    """
    return norm(hidden_states.flatten(0, -2)).view(hidden_states.shape)


def partition_windows(hidden_states: torch.Tensor, window_size: int) -> torch.Tensor:
    """
    Cut a map into windows, padded with zeros at the bottom and on the right.

    Args:
        hidden_states (`torch.Tensor` of shape `(batch_size, height, width, channels)`):
            Map.
        window_size (`int`):
            Side of a window in tokens.

    Returns:
        `torch.Tensor` of shape `(batch_size * num_windows, window_size ** 2, channels)`.
    """
    height, width = hidden_states.shape[1:3]
    padded = F.pad(hidden_states, (0, 0, 0, -width % window_size, 0, -height % window_size))
    windows = padded.unflatten(2, (-1, window_size)).unflatten(1, (-1, window_size))
    return windows.transpose(2, 3).reshape(-1, window_size**2, hidden_states.shape[-1])


def merge_windows(windows: torch.Tensor, window_size: int, shape: torch.Size) -> torch.Tensor:
    """
    Undo [`partition_windows`].

    Args:
        windows (`torch.Tensor` of shape `(batch_size * num_windows, window_size ** 2, channels)`):
            Windows.
        window_size (`int`):
            Side of a window in tokens.
        shape (`torch.Size`):
            Shape of the map, `(batch_size, height, width, channels)`.

    Returns:
        `torch.Tensor` of shape `shape`.
    """
    batch_size, height, width, channels = shape
    rows, columns = -(-height // window_size), -(-width // window_size)
    grid = windows.view(batch_size, rows, columns, window_size, window_size, channels).transpose(2, 3)
    return grid.reshape(batch_size, rows * window_size, columns * window_size, channels)[:, :height, :width]


def pool_scores(scores: torch.Tensor, grid: Sequence[int]) -> torch.Tensor:
    """
    Pool the scores of stage 3 for the tokens of stage 4. The sum of each sample stays the same.

    Args:
        scores (`torch.Tensor` of shape `(batch_size, tokens)`):
            Scores of stage 3.
        grid (`Sequence[int]`):
            `([frames,] height, width)` of the map of stage 3.

    Returns:
        `torch.Tensor` of shape `(batch_size, tokens of stage 4)`.
    """
    maps = scores.view(-1, 1, *grid[-2:])  # each frame is a sample
    pooled = F.avg_pool2d(maps, 2).view(scores.shape[0], -1)
    return pooled * (scores.sum(dim=1, keepdim=True) / pooled.sum(dim=1, keepdim=True))


def last_map_side(side: int, stem: str) -> int:
    """
    Side of the map of stage 4. Overlapping convolutions round up, patches round down.

    Args:
        side (`int`):
            Height or width of the image in pixels.
        stem (`str`):
            `config.stem`.
    """
    if stem == "conv":
        return (side + 31) // 32
    return (side + 3) // 4 // 8 if stem == "conv_first" else side // 32


def mix_tokens(hidden_states: torch.Tensor, box: MixBox | None, axes: tuple[int, int] = (2, 3)) -> torch.Tensor:
    """
    Inside a box, replace each sample with its mirror image in the batch (the first with the last, and so on).

    Args:
        hidden_states (`torch.Tensor` of shape `(batch_size, ..., height, width, ...)`):
            Maps.
        box (`tuple[int, int, int, int]`, or `None`):
            Top, left, bottom and right in tokens. `None` changes nothing.
        axes (`tuple[int, int]`, *optional*, defaults to `(2, 3)`):
            Axes of height and width.

    Returns:
        `torch.Tensor` of the shape of `hidden_states`.

    Raises:
        ValueError: the box does not lie on the map.
    """
    if box is None:
        return hidden_states
    height, width = (hidden_states.shape[axis] for axis in axes)
    top, left, bottom, right = box
    if not (0 <= top <= bottom <= height and 0 <= left <= right <= width):
        raise ValueError(f"`mix_box` must lie on the map of {height} x {width} tokens, got {box}.")
    rows = torch.arange(height, device=hidden_states.device)
    columns = torch.arange(width, device=hidden_states.device)
    inside = ((rows >= top) & (rows < bottom))[:, None] & ((columns >= left) & (columns < right))
    inside = inside.view(*(1 for _ in range(axes[0])), height, width, *(1 for _ in hidden_states.shape[axes[1] + 1 :]))
    return torch.where(inside, hidden_states.flip(0), hidden_states)
