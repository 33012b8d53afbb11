"""
TimeSformer ([Bertasius et al., 2021](https://huggingface.co/papers/2102.05095)) as plain modules: a ViT with attention
over time and then space, over both together, or over space only.

Behaviour follows the official code (facebookresearch/TimeSformer, commit a5ef29a, `vit.py`). Tables of positions and
times are resized to the clip at run time, so every number of frames and every size in whole patches works. The
official helper that resizes positions while loading treats the grid as a line; this package does not repeat that.

A configuration has `attention_type`, `hidden_size`, `num_hidden_layers`, `num_attention_heads`, `intermediate_size`,
`patch_size`, `num_frames`, `num_channels`, `position_grid`, `position_interpolation`, `time_interpolation`,
`hidden_act`, `qkv_bias`, `hidden_dropout_prob`, `attention_probs_dropout_prob`, `drop_path_rate`, `layer_norm_eps` and
`initializer_range`.

Hidden states have shape `(batch_size, 1 + height * width * frames, hidden_size)` in tokens. The class token comes
first; among the patches the frame index runs fastest.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .layers import (
    apply_attention,
    apply_mlp,
    drop_path_rates,
    eager_attention_forward,
    init_as_torch,
    known_equal,
    start_of,
    starting,
    token_grid,
)


Size3 = tuple[int, int, int]


class TimesformerPatchEmbeddings(nn.Module):
    """
    Embeds the patches of every frame.

    Args:
        config (`PreTrainedConfig`):
            Configuration with the fields that the module names.
    """

    def __init__(self, config: Any):
        super().__init__()
        size = config.patch_size
        self.projection = nn.Conv2d(config.num_channels, config.hidden_size, kernel_size=size, stride=size)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """
        Embed clips.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_frames, num_channels, height, width)`):
                Normalised clips.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_frames, num_patches, hidden_size)`.
        """
        frames = pixel_values.to(self.projection.weight.dtype).flatten(0, 1)
        tokens = self.projection(frames).flatten(2).transpose(1, 2)
        return tokens.unflatten(0, pixel_values.shape[:2])


class TimesformerEmbeddings(nn.Module):
    """
    Patches, the class token, and learnt tables of places and times.

    Args:
        config (`PreTrainedConfig`):
            Configuration with the fields that the module names.
    """

    def __init__(self, config: Any):
        super().__init__()
        self.patch_embeddings = TimesformerPatchEmbeddings(config)
        self.grid = (config.position_grid[0], config.position_grid[1])
        self.position_interpolation = config.position_interpolation
        self.time_interpolation = config.time_interpolation
        width, places = config.hidden_size, self.grid[0] * self.grid[1]
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position_embeddings = nn.Parameter(torch.zeros(1, 1 + places, width))
        timed = config.attention_type != "space_only"
        self.time_embeddings = nn.Parameter(torch.zeros(1, config.num_frames, width)) if timed else None
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, pixel_values: torch.Tensor, grid: Size3) -> torch.Tensor:
        """
        Embed clips.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_frames, num_channels, height, width)`):
                Normalised clips.
            grid (`tuple[int, int, int]`):
                Frames, height and width in tokens.

        Returns:
            `torch.Tensor` of shape `(batch_size, 1 + height * width * frames, hidden_size)`. Without times
            (`"space_only"`) every frame is a sample, and the shape is `(batch_size * frames, 1 + height * width,
            hidden_size)`.
        """
        frames, height, width = grid
        patches = self.patch_embeddings(pixel_values)  # (batch, frames, patches, hidden)
        positions = self.positions(height, width).to(patches.dtype)
        first = (self.cls_token + self.position_embeddings[:, :1]).to(patches.dtype)
        patches = self.dropout(patches + positions)
        if self.time_embeddings is None:
            patches = patches.flatten(0, 1)
            return torch.cat((self.dropout(first.expand(patches.shape[0], -1, -1)), patches), dim=1)
        times = resize_times(self.time_embeddings, frames, self.time_interpolation)
        patches = patches.transpose(1, 2) + times.to(patches.dtype)[:, None]
        patches = self.dropout(patches).flatten(1, 2)  # frame index fastest
        return torch.cat((self.dropout(first.expand(patches.shape[0], -1, -1)), patches), dim=1)

    def positions(self, height: int, width: int) -> torch.Tensor:
        """
        Position of each patch. As in the official code, the table is resized only if the number of patches differs
        from its own: another grid with the same number of patches takes its rows in order.

        Args:
            height (`int`):
                Rows of patches.
            width (`int`):
                Columns of patches.

        Returns:
            `torch.Tensor` of shape `(1, height * width, hidden_size)`.
        """
        table = self.position_embeddings[:, 1:]
        if known_equal((height * width,), (table.shape[1],)):
            return table
        grid = table.unflatten(1, self.grid).permute(0, 3, 1, 2)
        smooth: dict[str, Any] = {} if self.position_interpolation == "nearest" else {"align_corners": False}
        grid = F.interpolate(grid, size=(height, width), mode=self.position_interpolation, **smooth)
        return grid.flatten(2).transpose(1, 2)


def resize_times(table: torch.Tensor, frames: int, interpolation: str) -> torch.Tensor:
    """
    Resize a table of times to another number of frames.

    Args:
        table (`torch.Tensor` of shape `(1, num_frames, hidden_size)`):
            Table of times.
        frames (`int`):
            Frames to resize to.
        interpolation (`str`):
            `"nearest"` or `"linear"`.

    Returns:
        `torch.Tensor` of shape `(1, frames, hidden_size)`.
    """
    if known_equal((frames,), (table.shape[1],)):
        return table
    smooth: dict[str, Any] = {} if interpolation == "nearest" else {"align_corners": False}
    return F.interpolate(table.transpose(1, 2), size=frames, mode=interpolation, **smooth).transpose(1, 2)


class TimesformerAttention(nn.Module):
    """
    Self-attention over the second axis. The rows of the fused projection are queries, keys and values.

    Args:
        config (`PreTrainedConfig`):
            Configuration with the fields that the module names.
        hidden_size (`int`):
            Width.
        num_heads (`int`):
            Attention heads.
    """

    def __init__(self, config: Any, hidden_size: int, num_heads: int):
        super().__init__()
        self.config = config
        self.num_heads, self.scaling = num_heads, (hidden_size // num_heads) ** -0.5
        self.is_causal = False
        self.attention_dropout = config.attention_probs_dropout_prob
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size, bias=config.qkv_bias)
        self.o_proj = nn.Linear(hidden_size, hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: torch.Tensor, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Attend.

        Args:
            hidden_states (`torch.Tensor` of shape `(batch_size, sequence_length, hidden_size)`):
                Tokens.

        Returns:
            `tuple`: states of the same shape, and the probabilities of shape `(batch_size, num_heads, sequence_length,
            sequence_length)` if the implementation returns them.
        """
        return apply_attention(lambda part: self._attend(part, **kwargs), hidden_states)

    def _attend(self, hidden_states: torch.Tensor, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        attention = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        qkv = self.qkv(hidden_states).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = (part.transpose(1, 2) for part in qkv.unbind(2))  # (batch, heads, sequence, head_dim)
        context, probabilities = attention(
            self,
            query,
            key,
            value,
            None,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            is_causal=self.is_causal,
            **kwargs,
        )
        return self.dropout(self.o_proj(context.flatten(2))), probabilities


TEMPORAL_PROJECTION = "temporal projection"  # zero in a fresh model, which thus starts as an image ViT


class _TimesformerMLP(nn.Module):
    def __init__(self, config: Any):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = self.dropout(self.activation(self.fc1(hidden_states)))
        return self.dropout(self.fc2(hidden_states))


class TimesformerLayer(GradientCheckpointingLayer):
    """
    Pre-norm block: attention over time if attention is divided, attention, MLP.

    Args:
        config (`PreTrainedConfig`):
            Configuration with the fields that the module names.
        drop_path_rate (`float`):
            Rate of stochastic depth.
    """

    def __init__(self, config: Any, drop_path_rate: float):
        super().__init__()
        width, heads, eps = config.hidden_size, config.num_attention_heads, config.layer_norm_eps
        self.divided = config.attention_type == "divided_space_time"
        if self.divided:
            self.temporal_norm = nn.LayerNorm(width, eps=eps)
            self.temporal_attention = TimesformerAttention(config, width, heads)
            self.temporal_fc = starting(TEMPORAL_PROJECTION, nn.Linear(width, width))
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attention = TimesformerAttention(config, width, heads)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = _TimesformerMLP(config)
        self.drop_path = StochasticDepth(drop_path_rate, "row")

    def forward(self, hidden_states: torch.Tensor, frames: int, **kwargs: Any) -> torch.Tensor:
        """
        Run the block.

        Args:
            hidden_states (`torch.Tensor` of shape `(batch_size, 1 + height * width * frames, hidden_size)`):
                Tokens.
            frames (`int`):
                Frames of a clip in tokens.

        Returns:
            `torch.Tensor` of the same shape.
        """
        if self.divided:
            hidden_states = self._attend_in_turn(hidden_states, frames, **kwargs)
        else:
            hidden_states = hidden_states + self.drop_path(self.attention(self.norm1(hidden_states), **kwargs)[0])
        return hidden_states + self.drop_path(apply_mlp(self._transform, hidden_states))

    def _transform(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.mlp(self.norm2(tokens))

    def _attend_in_turn(self, hidden_states: torch.Tensor, frames: int, **kwargs: Any) -> torch.Tensor:
        """
        Attend over time without the class token, then within each frame with a copy of it. The residuals of the copies
        are averaged. Stochastic depth draws once for every place and once for every frame.
        """
        first, patches = hidden_states.split((1, hidden_states.shape[1] - 1), dim=1)
        patches = patches + self._attend_over_time(patches, frames, **kwargs)
        residual = self._attend_over_space(first, patches.unflatten(1, (-1, frames)), **kwargs)
        of_first, of_patches = residual.split((1, residual.shape[2] - 1), dim=2)
        first = first + of_first.mean(dim=1)
        patches = patches.unflatten(1, (-1, frames)) + of_patches.transpose(1, 2)
        return torch.cat((first, patches.flatten(1, 2)), dim=1)

    def _attend_over_time(self, patches: torch.Tensor, frames: int, **kwargs: Any) -> torch.Tensor:
        """Residual of the patches `(batch, places * frames, hidden)`."""
        series = self.temporal_norm(patches).view(-1, frames, patches.shape[-1])  # (batch * places, frames, hidden)
        series = self.temporal_fc(self.drop_path(self.temporal_attention(series, **kwargs)[0]))
        return series.view(patches.shape)

    def _attend_over_space(self, first: torch.Tensor, patches: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """
        Residual `(batch, frames, 1 + places, hidden)` of the class token `(batch, 1, hidden)`, copied into each frame,
        and of the patches `(batch, places, frames, hidden)`.
        """
        frames = patches.shape[2]

        def images() -> torch.Tensor:
            copies = first[:, None].expand(-1, frames, -1, -1)
            return self.norm1(torch.cat((copies, patches.transpose(1, 2)), dim=2).flatten(0, 1))

        residual = self.attention(images(), **kwargs)[0]
        return self.drop_path(residual).unflatten(0, (-1, frames))


class _TimesformerEncoder(nn.Module):
    def __init__(self, config: Any):
        super().__init__()
        rates = drop_path_rates(config.drop_path_rate, config.num_hidden_layers)
        self.layers = nn.ModuleList(TimesformerLayer(config, rate) for rate in rates)

    def forward(self, hidden_states: torch.Tensor, frames: int, **kwargs: Any) -> torch.Tensor:
        for layer in self.layers:
            hidden_states = layer(hidden_states, frames, **kwargs)
        return hidden_states


class TimesformerBackbone(nn.Module):
    """
    Embeddings, blocks and the final norm.

    Args:
        config (`PreTrainedConfig`):
            Configuration with the fields that the module names.
    """

    def __init__(self, config: Any):
        super().__init__()
        self.config = config
        self.embeddings = TimesformerEmbeddings(config)
        self.encoder = _TimesformerEncoder(config)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_frames, num_channels, height, width)`):
                Normalised clips.

        Returns:
            `torch.Tensor` of shape `(batch_size, 1 + height * width * frames, hidden_size)` in tokens, without the
            axis of frames for `"space_only"`: the class token first.

        Raises:
            ValueError: height or width is not a whole number of patches.
        """
        grid = token_grid(pixel_values, 1, self.config.patch_size)
        hidden_states = self.encoder(self.embeddings(pixel_values, grid), grid[0], **kwargs)
        if self.config.attention_type == "space_only":
            hidden_states = hidden_states.unflatten(0, (-1, grid[0])).mean(dim=1)
        return self.layernorm(hidden_states)


def init_timesformer(module: nn.Module, initializer_range: float) -> None:
    """
    Initialise a module of this file. Called by the `_init_weights` of a family.

    Args:
        module (`nn.Module`):
            Module to initialise.
        initializer_range (`float`):
            Standard deviation.
    """
    bounds = {"std": initializer_range, "a": -2.0, "b": 2.0}  # cut at absolute values, as timm does
    if start_of(module) == TEMPORAL_PROJECTION and isinstance(module, nn.Linear):
        init.zeros_(module.weight)
        init.zeros_(module.bias)
    elif isinstance(module, TimesformerEmbeddings):
        init.trunc_normal_(module.cls_token, **bounds)
        init.trunc_normal_(module.position_embeddings, **bounds)
        if module.time_embeddings is not None:
            init.zeros_(module.time_embeddings)
    elif isinstance(module, nn.Linear):
        init.trunc_normal_(module.weight, **bounds)
        if module.bias is not None:
            init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        init_as_torch(module)


__all__ = [
    "TEMPORAL_PROJECTION",
    "TimesformerAttention",
    "TimesformerBackbone",
    "TimesformerEmbeddings",
    "TimesformerLayer",
    "TimesformerPatchEmbeddings",
    "init_timesformer",
    "resize_times",
]
