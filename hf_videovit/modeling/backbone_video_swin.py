"""
Video Swin ([Liu et al., 2021](https://huggingface.co/papers/2106.13230)) as plain modules: joint space-time attention
inside shifted windows.

Behaviour follows the official code (xyzforever/BEVT, commit 8881b21, `swin_transformer.py`). Windows that are clipped
to a small grid take the first rows and columns of the full window's index of relative positions. Padding is added
after the first norm, so padded tokens enter attention as zeros and are attended to. Masked scores get -100.

A configuration has `hidden_sizes`, `depths`, `num_attention_heads`, `intermediate_sizes`, `window_size`, `patch_size`,
`tubelet_size`, `num_channels`, `qkv_bias`, `hidden_act`, `hidden_dropout_prob`, `attention_probs_dropout_prob`,
`drop_path_rate`, `layer_norm_eps` and `initializer_range`.

Hidden states have shape `(batch_size, frames, height, width, channels)` throughout, in tokens.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .layers import apply_mlp, apply_to_tokens, drop_path_rates, eager_attention_forward, init_as_torch


Size3 = tuple[int, int, int]

MASKED_SCORE = -100.0


@dataclass(frozen=True)
class SwinWindows:
    """
    How a block cuts a grid of tokens into windows.

    Args:
        size (`tuple[int, int, int]`):
            Frames, height and width of a window in tokens. The grid is zero-padded at the end to whole windows.
        roll (`tuple[int, int, int]`):
            The padded grid is rolled back by this much before it is cut.
        parts (`list[tuple[tuple[slice, ...], torch.Tensor | None]]`):
            Slices of the grid of windows, and the mask `(window_length, window_length)` that the windows in each
            share: 0, or -100 between tokens that are not neighbours in the grid. Only the last window on an axis is
            ever cut by a shift, so there are at most eight parts.
        index (`torch.Tensor` of shape `(window_length, window_length)`):
            Row of the table of relative positions for each pair of places in a window.
    """

    size: Size3
    roll: Size3
    parts: list[tuple[tuple[slice, ...], torch.Tensor | None]]
    index: torch.Tensor

    def split(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """
        Cut a grid into windows.

        Args:
            hidden_states (`torch.Tensor` of shape `(batch_size, frames, height, width, dim)`):
                Tokens of the grid.

        Returns:
            `torch.Tensor` of shape `(batch_size, *windows on each axis, window_length, dim)`.
        """
        frames, height, width = (-grid % size for grid, size in zip(hidden_states.shape[1:4], self.size))
        hidden_states = F.pad(hidden_states, (0, 0, 0, width, 0, height, 0, frames))
        if any(self.roll):
            hidden_states = hidden_states.roll([-shift for shift in self.roll], dims=(1, 2, 3))
        for axis, size in zip((1, 3, 5), self.size):
            hidden_states = hidden_states.unflatten(axis, (-1, size))
        return hidden_states.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4, 6)

    def join(self, windows: torch.Tensor, grid: Sequence[int]) -> torch.Tensor:
        """
        The inverse of `split`.

        Args:
            windows (`torch.Tensor` of shape `(batch_size, *windows on each axis, window_length, dim)`):
                Tokens of all windows.
            grid (`Sequence[int]`):
                Frames, height and width of the grid in tokens, without padding.

        Returns:
            `torch.Tensor` of shape `(batch_size, frames, height, width, dim)`.
        """
        hidden_states = windows.unflatten(4, self.size).permute(0, 1, 4, 2, 5, 3, 6, 7)
        hidden_states = hidden_states.flatten(5, 6).flatten(3, 4).flatten(1, 2)
        if any(self.roll):
            hidden_states = hidden_states.roll(self.roll, dims=(1, 2, 3))
        return hidden_states[:, : grid[0], : grid[1], : grid[2]]

    def gather(self, parts: Sequence[torch.Tensor], shape: Sequence[int]) -> torch.Tensor:
        """
        One tensor `(batch_size * num_windows, ...)` from those of each part.

        Args:
            parts (`Sequence[torch.Tensor]`):
                Tensors `(batch_size * windows of the part, ...)`.
            shape (`Sequence[int]`):
                Batch size and windows on each axis.

        Returns:
            `torch.Tensor` of shape `(batch_size * num_windows, ...)`.
        """
        if len(parts) == 1:
            return parts[0]  # the very tensor: recorded attentions belong to the graph
        gathered = parts[0].new_empty(*shape, *parts[0].shape[1:])
        for (where, _), part in zip(self.parts, parts):
            gathered[where] = part.reshape(gathered[where].shape)
        return gathered.flatten(0, 3)


def masked_parts(
    grid: Sequence[int], window: Size3, cut: Size3, device: torch.device
) -> list[tuple[tuple[slice, ...], torch.Tensor | None]]:
    """
    The parts of a grid of windows, see [`SwinWindows`].

    Args:
        grid (`Sequence[int]`):
            Frames, height and width in tokens, without padding.
        window (`tuple[int, int, int]`):
            Size of a window in tokens.
        cut (`tuple[int, int, int]`):
            On each axis the last window is cut this far before its end, and its two sides do not see each other. 0
            for no cut.
        device (`torch.device`):
            Device of the masks.

    Returns:
        `list[tuple[tuple[slice, ...], torch.Tensor | None]]`: slices and mask of each part.
    """
    axes = []
    for size, length, shift in zip(grid, window, cut):
        last = (slice(-1, None), shift)
        axes.append([(slice(None), 0)] if not shift else [last] if size <= length else [(slice(-1), 0), last])
    parts = []
    for choice in itertools.product(*axes):
        where, shifts = zip(*choice)
        parts.append(((slice(None), *where), _cut_mask(window, shifts, device)))
    return parts


def _cut_mask(window: Size3, cut: Sequence[int], device: torch.device) -> torch.Tensor | None:
    """Mask of a window that is cut this far before its end on each axis; `None` for a whole one."""
    if not any(cut):
        return None
    regions = torch.zeros(window, dtype=torch.long, device=device)
    for axis, (length, shift) in enumerate(zip(window, cut)):
        shape = [1, 1, 1]
        shape[axis] = length
        regions = 2 * regions + (torch.arange(length, device=device) >= length - shift).long().view(shape)
    regions = regions.flatten()
    return (regions[:, None] != regions[None, :]).float() * MASKED_SCORE


def relative_position_index(window: Size3, length: int, device: torch.device) -> torch.Tensor:
    """
    Row of the bias table for each pair of the first places of a window. A clipped window takes as many of the first
    places as it has, whatever their positions, as in the official code, mmaction2 and torchvision.

    Args:
        window (`tuple[int, int, int]`):
            Frames, height and width of the full window in tokens.
        length (`int`):
            Number of places.
        device (`torch.device`):
            Device of the index.

    Returns:
        `torch.LongTensor` of shape `(length, length)`.
    """
    places = torch.arange(length, device=device)
    frames, rows, columns = window
    axes = (places // (rows * columns), places // columns % rows, places % columns)
    index = torch.zeros(length, length, dtype=torch.long, device=device)
    for axis, size in zip(axes, window):
        index = index * (2 * size - 1) + axis[:, None] - axis[None, :] + size - 1
    return index


def resize_table(
    table: torch.Tensor, source: Sequence[int], target: Sequence[int], mode: str = "trilinear"
) -> torch.Tensor:
    """
    Interpolate a table of relative positions to another window size.

    Args:
        table (`torch.Tensor` of shape `(rows, num_heads)`):
            Table with one row for each relative position.
        source (`Sequence[int]`):
            Window of the table: frames, height and width in tokens.
        target (`Sequence[int]`):
            Window to resize to.
        mode (`str`, *optional*, defaults to `"trilinear"`):
            Mode of `torch.nn.functional.interpolate`.

    Returns:
        `torch.Tensor` of shape `(target rows, num_heads)`.
    """
    if list(source) == list(target):
        return table
    cells = table.float().T.reshape(1, table.shape[1], *(2 * size - 1 for size in source))
    resized = F.interpolate(cells, size=[2 * size - 1 for size in target], mode=mode, align_corners=False)
    return resized.reshape(table.shape[1], -1).T.to(table.dtype).contiguous()


class VideoSwinPatchEmbeddings(nn.Module):
    """
    A convolution whose stride equals its kernel, then a norm. Clips are zero-padded at the end to whole patches.

    Args:
        config (`PreTrainedConfig`):
            Configuration with the fields that the module names.
    """

    def __init__(self, config: Any):
        super().__init__()
        self.kernel_size = (config.tubelet_size, config.patch_size, config.patch_size)
        self.projection = nn.Conv3d(
            config.num_channels, config.hidden_sizes[0], self.kernel_size, stride=self.kernel_size
        )
        self.norm = nn.LayerNorm(config.hidden_sizes[0], eps=config.layer_norm_eps)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """
        Embed clips.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_frames, num_channels, height, width)`):
                Normalised clips.

        Returns:
            `torch.Tensor` of shape `(batch_size, frames, height, width, hidden_sizes[0])` in tokens.
        """
        pixels = pixel_values.to(self.projection.weight.dtype).transpose(1, 2)  # (batch, channels, frames, h, w)
        missing = [-size % length for size, length in zip(pixels.shape[2:], self.kernel_size)]
        if any(missing):
            pixels = F.pad(pixels, (0, missing[2], 0, missing[1], 0, missing[0]))
        return self.norm(self.projection(pixels).permute(0, 2, 3, 4, 1))


class VideoSwinAttention(nn.Module):
    """
    Self-attention inside windows with a learnt bias for each relative position and head.

    Args:
        config (`PreTrainedConfig`):
            Configuration with the fields that the module names.
        stage (`int`):
            Index of the stage.
    """

    def __init__(self, config: Any, stage: int):
        super().__init__()
        dim, num_heads = config.hidden_sizes[stage], config.num_attention_heads[stage]
        self.config = config
        self.window = _full_window(config)
        self.num_heads, self.scaling = num_heads, (dim // num_heads) ** -0.5
        self.is_causal = False
        self.attention_dropout = config.attention_probs_dropout_prob
        table_length = math.prod(2 * size - 1 for size in self.window)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(table_length, num_heads))
        self.qkv = nn.Linear(dim, 3 * dim, bias=config.qkv_bias)
        self.o_proj = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self, hidden_states: torch.Tensor, windows: SwinWindows, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Attend within each window.

        Args:
            hidden_states (`torch.Tensor` of shape `(batch_size, *windows on each axis, window_length, dim)`):
                Tokens of all windows.
            windows ([`SwinWindows`]):
                How the grid was cut.

        Returns:
            `tuple`: states of the same shape, and probabilities of shape `(batch_size * num_windows, num_heads,
            window_length, window_length)` if the implementation returns them.
        """
        attention = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        qkv = apply_to_tokens(self.qkv, hidden_states).unflatten(-1, (3, self.num_heads, -1))
        bias = self.bias(windows.index).to(hidden_states.dtype)
        outcomes = []
        for where, mask in windows.parts:
            query, key, value = qkv[where].flatten(0, 3).permute(2, 0, 3, 1, 4).unbind(0)
            outcome = attention(
                self,
                query,  # (windows, heads, window_length, head_dim)
                key,
                value,
                bias if mask is None else bias + mask.to(bias.dtype),
                dropout=self.attention_dropout if self.training else 0.0,
                scaling=self.scaling,
                is_causal=self.is_causal,
                **kwargs,
            )
            outcomes.append(outcome)
        contexts, weights = zip(*outcomes)
        context = windows.gather(contexts, qkv.shape[:4])
        if torch.compiler.is_exporting():  # the operators that replace the attention kernel leave other strides
            context = context.clone(memory_format=torch.contiguous_format)
        context = context.reshape(hidden_states.shape)
        probabilities = None if weights[0] is None else windows.gather(weights, qkv.shape[:4])
        return self.dropout(apply_to_tokens(self.o_proj, context)), probabilities

    @torch.no_grad()
    def resize_window(self, window: Size3) -> None:
        """
        Resize the table to another window, as the official fine-tuning loader does.

        Args:
            window (`tuple[int, int, int]`):
                Frames, height and width of the new window in tokens.
        """
        table = resize_table(self.relative_position_bias_table, self.window, window)
        self.relative_position_bias_table, self.window = nn.Parameter(table.clone()), window

    def bias(self, index: torch.Tensor) -> torch.Tensor:
        """
        Bias added to the scores.

        Args:
            index (`torch.LongTensor` of shape `(window_length, window_length)`):
                Row of the table for each pair of places.

        Returns:
            `torch.Tensor` of shape `(1, num_heads, window_length, window_length)`.
        """
        return F.embedding(index, self.relative_position_bias_table).permute(2, 0, 1).contiguous()[None]


class _VideoSwinMLP(nn.Module):
    def __init__(self, config: Any, stage: int):
        super().__init__()
        dim, intermediate_size = config.hidden_sizes[stage], config.intermediate_sizes[stage]
        self.fc1 = nn.Linear(dim, intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(intermediate_size, dim)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = self.dropout(self.activation(self.fc1(hidden_states)))
        return self.dropout(self.fc2(hidden_states))


class VideoSwinLayer(GradientCheckpointingLayer):
    """
    Pre-norm block. Padding is added after the norm: padded tokens are zero, and their keys are the projection's bias.

    Args:
        config (`PreTrainedConfig`):
            Configuration with the fields that the module names.
        stage (`int`):
            Index of the stage.
        drop_path_rate (`float`):
            Rate of stochastic depth.
    """

    def __init__(self, config: Any, stage: int, drop_path_rate: float):
        super().__init__()
        dim = config.hidden_sizes[stage]
        self.norm1 = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.attention = VideoSwinAttention(config, stage)
        self.norm2 = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.mlp = _VideoSwinMLP(config, stage)
        self.drop_path = StochasticDepth(drop_path_rate, "row")

    def forward(self, hidden_states: torch.Tensor, windows: SwinWindows, **kwargs: Any) -> torch.Tensor:
        """
        Run the block.

        Args:
            hidden_states (`torch.Tensor` of shape `(batch_size, frames, height, width, dim)`):
                Tokens of the grid.
            windows ([`SwinWindows`]):
                How the grid is cut.

        Returns:
            `torch.Tensor` of the same shape.
        """
        hidden_states = hidden_states + self.drop_path(self._attend(hidden_states, windows, **kwargs))
        return hidden_states + self.drop_path(apply_mlp(self._transform, hidden_states))

    def _transform(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.mlp(self.norm2(tokens))

    def _attend(self, hidden_states: torch.Tensor, windows: SwinWindows, **kwargs: Any) -> torch.Tensor:
        """Norm and attention of the grid. What they work on ends with this method and not with the block."""
        tokens, _ = self.attention(windows.split(self.norm1(hidden_states)), windows, **kwargs)
        return windows.join(tokens, hidden_states.shape[1:4])


class VideoSwinPatchMerging(nn.Module):
    """
    Merges four neighbours of a frame into one token of twice the width. Odd sides are zero-padded at the end.

    Args:
        config (`PreTrainedConfig`):
            Configuration with the fields that the module names.
        stage (`int`):
            Index of the stage.
    """

    def __init__(self, config: Any, stage: int):
        super().__init__()
        dim = config.hidden_sizes[stage]
        self.norm = nn.LayerNorm(4 * dim, eps=config.layer_norm_eps)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """
        Halve the grid in space.

        Args:
            hidden_states (`torch.Tensor` of shape `(batch_size, frames, height, width, dim)`):
                Tokens of the grid.

        Returns:
            `torch.Tensor` of shape `(batch_size, frames, height / 2, width / 2, 2 * dim)`, sides rounded up.
        """
        height, width = hidden_states.shape[2:4]
        if height % 2 or width % 2:
            hidden_states = F.pad(hidden_states, (0, 0, 0, width % 2, 0, height % 2))
        batch_size, frames, height, width, dim = hidden_states.shape
        quads = hidden_states.view(batch_size, frames, height // 2, 2, width // 2, 2, dim)
        quads = quads.permute(0, 1, 2, 4, 5, 3, 6).flatten(4)  # rows run fastest within a quad: 00, 10, 01, 11
        return apply_to_tokens(self.reduction, self.norm(quads))


class VideoSwinStage(nn.Module):
    """
    Blocks of one width, every second one with shifted windows, followed by patch merging.

    Args:
        config (`PreTrainedConfig`):
            Configuration with the fields that the module names.
        index (`int`):
            Index of the stage.
        drop_path_rates (`Sequence[float]`):
            Rate of stochastic depth of each block.
    """

    layer_class: type[VideoSwinLayer] = VideoSwinLayer

    def __init__(self, config: Any, index: int, drop_path_rates: Sequence[float]):
        super().__init__()
        self.window = _full_window(config)
        self.layers = nn.ModuleList(self.layer_class(config, index, rate) for rate in drop_path_rates)
        last = index == len(config.depths) - 1
        self.merging = None if last else VideoSwinPatchMerging(config, index)

    def forward(
        self, hidden_states: torch.Tensor, still: bool = False, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Run the stage.

        Args:
            hidden_states (`torch.Tensor` of shape `(batch_size, frames, height, width, dim)`):
                Tokens of the grid.
            still (`bool`, *optional*, defaults to `False`):
                The image stream of BEVT, for grids of one frame; see `windows`.

        Returns:
            `tuple`: the stage's output before and after merging.
        """
        windows = self.windows(hidden_states, still)
        for index, layer in enumerate(self.layers):
            hidden_states = layer(hidden_states, windows[index % 2], **kwargs)
        return hidden_states, hidden_states if self.merging is None else self.merging(hidden_states)

    def windows(self, hidden_states: torch.Tensor, still: bool) -> tuple[SwinWindows, SwinWindows]:
        """
        The windows of even and odd blocks.

        Args:
            hidden_states (`torch.Tensor` of shape `(batch_size, frames, height, width, dim)`):
                Tokens of the grid.
            still (`bool`):
                Whether to treat the grid as the official image stream does: windows are never clipped, every block
                applies the mask of shifted windows, and only odd blocks roll the grid.

        Returns:
            `tuple`: [`SwinWindows`] of even and of odd blocks.
        """
        grid, device, whole = hidden_states.shape[1:4], hidden_states.device, (0, 0, 0)
        frames, height, width = self.window
        if still:
            size, shift = (1, height, width), (0, height // 2, width // 2)
        else:
            frames, height, width = (min(pair) for pair in zip(grid, self.window))
            size = (frames, height, width)
            frames, height, width = (0 if pair[0] <= pair[1] else pair[1] // 2 for pair in zip(grid, self.window))
            shift = (frames, height, width)
        index = relative_position_index(self.window, math.prod(size), device)
        shifted = masked_parts(grid, size, shift, device)
        even = shifted if still else masked_parts(grid, size, whole, device)
        return SwinWindows(size, whole, even, index), SwinWindows(size, shift, shifted, index)


class VideoSwinEncoder(nn.Module):
    """
    All stages.

    Args:
        config (`PreTrainedConfig`):
            Configuration with the fields that the module names.
    """

    stage_class: type[VideoSwinStage] = VideoSwinStage

    def __init__(self, config: Any):
        super().__init__()
        rates = drop_path_rates(config.drop_path_rate, sum(config.depths))
        starts = [0, *itertools.accumulate(config.depths)]
        self.stages = nn.ModuleList(
            self.stage_class(config, index, rates[start:end])
            for index, (start, end) in enumerate(zip(starts, starts[1:]))
        )

    def forward(self, hidden_states: torch.Tensor, still: bool = False, **kwargs: Any) -> list[torch.Tensor]:
        """
        Run all stages.

        Args:
            hidden_states (`torch.Tensor` of shape `(batch_size, frames, height, width, hidden_sizes[0])`):
                Embedded patches.
            still (`bool`, *optional*, defaults to `False`):
                The image stream of BEVT, for grids of one frame.

        Returns:
            `list[torch.Tensor]`: each stage's output before merging, of shape `(batch_size, frames, height / 2 ** i,
            width / 2 ** i, hidden_sizes[i])`, sides rounded up.
        """
        outputs = []
        for stage in self.stages:
            output, hidden_states = stage(hidden_states, still, **kwargs)
            outputs.append(output)
        return outputs


def _full_window(config: Any) -> Size3:
    frames, height, width = config.window_size
    return frames, height, width


def init_video_swin(module: nn.Module, initializer_range: float) -> None:
    """
    Initialise a module of this file. Called by the `_init_weights` of a family.

    Args:
        module (`nn.Module`):
            Module to initialise.
        initializer_range (`float`):
            Standard deviation.
    """
    bounds = {"std": initializer_range, "a": -2.0, "b": 2.0}  # cut at absolute values, as timm does
    if isinstance(module, VideoSwinAttention):
        init.trunc_normal_(module.relative_position_bias_table, **bounds)
    elif isinstance(module, nn.Linear):
        init.trunc_normal_(module.weight, **bounds)
        if module.bias is not None:
            init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d | nn.Conv3d):
        init_as_torch(module)


__all__ = [
    "VideoSwinAttention",
    "VideoSwinEncoder",
    "VideoSwinLayer",
    "VideoSwinPatchEmbeddings",
    "VideoSwinPatchMerging",
    "VideoSwinStage",
    "init_video_swin",
    "resize_table",
]
