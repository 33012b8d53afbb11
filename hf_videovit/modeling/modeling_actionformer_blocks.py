"""
Parts of ActionFormer's pyramid: convolutions over time, banded attention, and the blocks of ActionFormer and TriDet.

Sequences are `(batch, steps, hidden)`, masks `(batch, steps, 1)` and `True` where a sequence has a step.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torchvision.ops import StochasticDepth
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_actionformer import ActionFormerConfig
from .layers import LayerScale, eager_attention_forward


# Queries that share their keys in banded attention. Fewer would copy keys more often, more would waste products.
QUERIES_AT_ONCE = 64


class ActionFormerConv1d(nn.Conv1d):
    """
    Convolution over the steps of a sequence that keeps its length, or halves it with a stride of 2.

    Args:
        in_channels (`int`):
            Channels of the input.
        out_channels (`int`):
            Channels of the output.
        kernel_size (`int`):
            Odd number of steps.
        options (`Any`):
            `stride`, `groups` and `bias` of `nn.Conv1d`.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, **options: Any):
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2, **options)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """
        Convolve.

        Args:
            hidden_states (`torch.Tensor` of shape `(batch_size, steps, in_channels)`):
                The sequence.

        Returns:
            `torch.Tensor` of shape `(batch_size, new_steps, out_channels)`.
        """
        if self.kernel_size == (1,) and self.stride == (1,) and self.groups == 1:
            return F.linear(hidden_states, self.weight.squeeze(2), self.bias)
        return super().forward(hidden_states.transpose(1, 2)).transpose(1, 2)


def residual_branch(config: ActionFormerConfig) -> nn.Module:
    """
    End of a residual branch: a learnt factor for each channel, and stochastic depth.

    Args:
        config ([`ActionFormerConfig`]):
            Configuration.

    Returns:
        `nn.Module`
    """
    drop_path = StochasticDepth(config.drop_path_rate, "row")
    if config.layer_scale_init_value == 0:
        return drop_path
    return nn.Sequential(LayerScale(config.hidden_size, config.layer_scale_init_value), drop_path)


def max_pool(hidden_states: torch.Tensor) -> torch.Tensor:
    """
    Maximum of three neighbouring steps at every second step.

    Args:
        hidden_states (`torch.Tensor` of shape `(batch_size, steps, hidden_size)`):
            The sequence.

    Returns:
        `torch.Tensor` of shape `(batch_size, ceil(steps / 2), hidden_size)`.
    """
    return F.max_pool1d(hidden_states.transpose(1, 2), 3, stride=2, padding=1).transpose(1, 2)


class ActionFormerAttention(nn.Module):
    """
    Attention of each step over the steps of its window, or over all. Queries, keys and values come from depth-wise
    convolutions, which also halve the sequence.

    Args:
        config ([`ActionFormerConfig`]):
            Configuration.
        window (`int`):
            Steps of a window; -1 for all.
        stride (`int`):
            1 or 2.
    """

    def __init__(self, config: ActionFormerConfig, window: int, stride: int):
        super().__init__()
        self.config = config
        self.radius = window // 2 if window > 1 else None
        self.num_heads, self.head_dim = config.num_attention_heads, config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = False
        size = config.hidden_size
        self.query_conv, self.key_conv, self.value_conv = (
            ActionFormerConv1d(size, size, 3, stride=stride, groups=size, bias=False) for _ in range(3)
        )
        self.query_norm, self.key_norm, self.value_norm = (
            nn.LayerNorm(size, eps=config.layer_norm_eps) for _ in range(3)
        )
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(size, size) for _ in range(4))
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        learnt = config.use_relative_positions and self.radius is not None
        self.relative_positions = RelativePositions(config.num_attention_heads, window) if learnt else None

    def forward(
        self, hidden_states: torch.Tensor, mask: torch.Tensor, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Attend.

        Args:
            hidden_states (`torch.Tensor` of shape `(batch_size, steps, hidden_size)`):
                The sequence.
            mask (`torch.BoolTensor` of shape `(batch_size, new_steps, 1)`):
                `True` where the output has a step.

        Returns:
            `tuple`: context `(batch_size, new_steps, hidden_size)` and, with eager attention, probabilities:
            `(batch_size, num_heads, new_steps, 2 * radius + 1)` of the offsets in the window, or of all steps.
        """
        heads = (self.num_heads, self.head_dim)
        query = self.q_proj(self.query_norm(self.query_conv(hidden_states))).unflatten(-1, heads)
        key = self.k_proj(self.key_norm(self.key_conv(hidden_states))).unflatten(-1, heads)
        value = self.v_proj(self.value_norm(self.value_conv(hidden_states))).unflatten(-1, heads)
        states = [one.transpose(1, 2) for one in (query, key, value)]  # (batch, heads, steps, head_dim)
        attend = self._attend_globally if self.radius is None else self._attend_in_windows
        context, probabilities = attend(states[0], states[1], states[2], mask.squeeze(-1), **kwargs)
        return self.dropout(self.o_proj(context.flatten(2))), probabilities

    def _attend(
        self, states: Sequence[torch.Tensor], bias: torch.Tensor, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        attention = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        return attention(self, *states, bias, scaling=self.scaling, is_causal=self.is_causal, **kwargs)

    def _attend_globally(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        bias = hidden_bias(mask[:, None, None], query.dtype).expand(-1, -1, query.shape[2], -1)
        return self._attend((query, key, value), bias, **kwargs)

    def _attend_in_windows(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Queries in groups, each with the keys from `radius` before its first to `radius` after its last: memory grows
        with the steps, not with their square.
        """
        radius, (batch, _, steps, _) = self.radius or 0, query.shape
        group = min(QUERIES_AT_ONCE, steps)
        rest = -steps % group
        keys = group + 2 * radius
        query = F.pad(query, (0, 0, 0, rest)).unflatten(2, (-1, group))  # (batch, heads, groups, group, head_dim)
        key, value = (F.pad(one, (0, 0, radius, radius + rest)).unfold(2, keys, group) for one in (key, value))
        states = (query, key.transpose(-1, -2), value.transpose(-1, -2))
        seen = F.pad(mask, (radius, radius + rest)).unfold(1, keys, group)[:, :, None]  # (batch, groups, 1, keys)
        offsets = torch.arange(keys, device=mask.device) - torch.arange(group, device=mask.device)[:, None]
        # a padded query sees itself: a row without keys has no softmax
        seen = (seen & (offsets >= 0) & (offsets <= 2 * radius)) | (offsets == radius)
        bias = hidden_bias(seen, query.dtype).flatten(0, 1)[:, None]  # (batch * groups, 1, group, keys)
        offsets = offsets.clamp(0, 2 * radius)
        if self.relative_positions is not None:
            bias = bias + self.relative_positions(offsets)
        grouped = [one.transpose(1, 2).flatten(0, 1) for one in states]  # (batch * groups, heads, ...)
        context, probabilities = self._attend(grouped, bias, **kwargs)
        context = context.unflatten(0, (batch, -1)).flatten(1, 2)[:, :steps]  # (batch, steps, heads, head_dim)
        if probabilities is not None:
            columns = (
                torch.arange(2 * radius + 1, device=mask.device) + torch.arange(group, device=mask.device)[:, None]
            )
            probabilities = probabilities.gather(3, columns.expand(*probabilities.shape[:2], -1, -1))
            probabilities = probabilities.unflatten(0, (batch, -1)).transpose(1, 2).flatten(2, 3)[:, :, :steps]
        return context, probabilities


class RelativePositions(nn.Module):
    """
    Learnt biases of the offsets in a window.

    Args:
        num_heads (`int`):
            Attention heads.
        window (`int`):
            Offsets, from `-(window // 2)` on.
    """

    def __init__(self, num_heads: int, window: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(num_heads, window))

    def forward(self, offsets: torch.Tensor) -> torch.Tensor:
        """
        Look up the biases.

        Args:
            offsets (`torch.LongTensor` of shape `(queries, keys)`):
                Offset of each key in the window of each query, from 0.

        Returns:
            `torch.Tensor` of shape `(num_heads, queries, keys)`.
        """
        return self.bias[:, offsets]


def hidden_bias(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """
    Bias of attention scores that hides keys.

    Args:
        seen (`torch.BoolTensor`):
            `True` where a query sees a key.
        dtype (`torch.dtype`):
            Type of the scores.

    Returns:
        `torch.Tensor` of the shape of `seen`: 0, or the lowest number.
    """
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)


def recomputed(function: Callable[..., torch.Tensor], *inputs: torch.Tensor, training: bool) -> torch.Tensor:
    """
    Apply an activation and the layer after it. In training the result of the activation is not kept for the backward
    pass but computed again, which costs little and halves what these layers keep.

    Args:
        function (`Callable`):
            The activation and the layer.
        inputs (`torch.Tensor`):
            Its inputs.
        training (`bool`):
            Whether the model is in training mode.

    Returns:
        `torch.Tensor`
    """
    if training and torch.is_grad_enabled():
        return checkpoint(function, *inputs, use_reentrant=False)
    return function(*inputs)


class ActionFormerMLP(nn.Module):
    """
    Two layers with GELU.

    Args:
        config ([`ActionFormerConfig`]):
            Configuration.
    """

    def __init__(self, config: ActionFormerConfig):
        super().__init__()
        assert config.intermediate_size is not None
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """
        Transform each step.

        Args:
            hidden_states (`torch.Tensor` of shape `(batch_size, steps, hidden_size)`):
                The sequence.
        """
        hidden_states = self.fc1(hidden_states)
        return recomputed(self._activate_and_project, hidden_states, training=self.training)

    def _activate_and_project(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.fc2(self.dropout(F.gelu(hidden_states))))


class PyramidBlock(GradientCheckpointingLayer):
    """Any block: it takes a sequence and its mask and returns the new sequence, half as long with a stride of 2."""


class ActionFormerBlock(PyramidBlock):
    """
    A block of the pyramid: attention and an MLP, each on the normalised sequence and added to it.

    Args:
        config ([`ActionFormerConfig`]):
            Configuration.
        level (`int`):
            Level of the output.
        stride (`int`):
            2 where the block makes a new level, otherwise 1.
    """

    def __init__(self, config: ActionFormerConfig, level: int, stride: int):
        super().__init__()
        self.stride, self.zero_padding = stride, config.padding_mode == "zeros"
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = ActionFormerAttention(config, config.attention_windows[level], stride)
        self.branch1 = residual_branch(config)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = ActionFormerMLP(config)
        self.branch2 = residual_branch(config)

    def forward(self, hidden_states: torch.Tensor, mask: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """
        Transform a sequence.

        Args:
            hidden_states (`torch.Tensor` of shape `(batch_size, steps, hidden_size)`):
                The sequence.
            mask (`torch.BoolTensor` of shape `(batch_size, steps, 1)`):
                `True` where there is a step.

        Returns:
            `torch.Tensor` of shape `(batch_size, ceil(steps / stride), hidden_size)`: zero beyond the end.
        """
        normed, new_mask = self.norm1(hidden_states), mask[:, :: self.stride]
        if self.zero_padding:
            normed = normed * mask
        context, _ = self.attention(normed, new_mask, **kwargs)
        if self.stride > 1:
            if self.zero_padding:  # a step beyond the end must not be the maximum
                hidden_states = hidden_states.masked_fill(~mask, torch.finfo(hidden_states.dtype).min)
            hidden_states = max_pool(hidden_states)
        hidden_states = torch.where(new_mask, hidden_states, 0) + self.branch1(context * new_mask)
        return hidden_states + self.branch2(self.mlp(self.norm2(hidden_states)) * new_mask)


class ActionFormerConvBlock(PyramidBlock):
    """
    A block without attention: two convolutions with ReLU, added to the sequence.

    Args:
        config ([`ActionFormerConfig`]):
            Configuration.
        level (`int`):
            Level of the output.
        stride (`int`):
            2 where the block makes a new level, otherwise 1.
    """

    def __init__(self, config: ActionFormerConfig, level: int, stride: int):
        super().__init__()
        self.stride, size = stride, config.hidden_size
        self.conv1 = ActionFormerConv1d(size, 2 * size, 3, stride=stride)
        self.conv2 = ActionFormerConv1d(2 * size, size, 3)
        self.downsample = nn.Linear(size, size) if stride > 1 else nn.Identity()

    def forward(self, hidden_states: torch.Tensor, mask: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """
        Transform a sequence.

        Args:
            hidden_states (`torch.Tensor` of shape `(batch_size, steps, hidden_size)`):
                The sequence.
            mask (`torch.BoolTensor` of shape `(batch_size, steps, 1)`):
                `True` where there is a step.

        Returns:
            `torch.Tensor` of shape `(batch_size, ceil(steps / stride), hidden_size)`.
        """
        new_mask = mask[:, :: self.stride]
        transformed = self.conv2(F.relu(self.conv1(hidden_states) * new_mask)) * new_mask
        residual = self.downsample(hidden_states[:, :: self.stride])
        return F.relu(transformed + (residual * new_mask if self.stride > 1 else residual))


class SGPBlock(PyramidBlock):
    """
    TriDet's block ([Shi et al., 2023](https://huggingface.co/papers/2303.07347)): depth-wise convolutions of two
    lengths gated by a third, and each channel gated by its mean over time.

    Args:
        config ([`ActionFormerConfig`]):
            Configuration.
        level (`int`):
            Level of the output.
        stride (`int`):
            2 where the block makes a new level, otherwise 1.
    """

    def __init__(self, config: ActionFormerConfig, level: int, stride: int):
        super().__init__()
        self.stride, self.zero_padding = stride, config.padding_mode == "zeros"
        self.downsampling, size = config.sgp_downsampling, config.hidden_size
        window = config.sgp_window_sizes[level]
        long_window = round((window + 1) * config.sgp_window_ratio)
        long_window += 1 - long_window % 2
        kernels = {"gate": window, "channel": 1, "short": window, "long": long_window, "mean": 1}
        self.convs = nn.ModuleDict(
            {name: SGPConv1d(size, size, kernel, groups=size) for name, kernel in kernels.items()}
        )
        self.downsample = nn.Linear(size, size) if stride > 1 and config.sgp_downsampling == "mean" else None
        self.norm1 = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.norm2 = SGPGroupNorm(16, size)
        self.mlp = ActionFormerMLP(config)
        # the official stem has neither factors nor stochastic depth
        self.branch1, self.branch2 = (residual_branch(config) if level else nn.Identity() for _ in range(2))

    def forward(self, hidden_states: torch.Tensor, mask: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """
        Transform a sequence. In the official padding modes its mean and its norm run over padding as well.

        Args:
            hidden_states (`torch.Tensor` of shape `(batch_size, steps, hidden_size)`):
                The sequence.
            mask (`torch.BoolTensor` of shape `(batch_size, steps, 1)`):
                `True` where there is a step.

        Returns:
            `torch.Tensor` of shape `(batch_size, ceil(steps / stride), hidden_size)`.
        """
        hidden_states = self._downsampled(hidden_states, mask)
        mask = mask[:, :: self.stride]
        counted = mask if self.zero_padding else None
        normed = self.norm1(hidden_states)
        if counted is not None:
            normed = normed * counted
            mean = normed.sum(dim=1, keepdim=True) / counted.sum(dim=1, keepdim=True).clamp(min=1)
        else:
            mean = normed.mean(dim=1, keepdim=True)
        convolved = {name: self.convs[name](normed) for name in ("gate", "channel", "short", "long")}
        gates = F.relu(self.convs["mean"](mean))
        mixed = convolved["channel"] * gates + (convolved["short"] + convolved["long"]) * convolved["gate"] + normed
        hidden_states = torch.where(mask, hidden_states, 0) + self.branch1(mixed)
        hidden_states = hidden_states + self.branch2(self.mlp(self.norm2(hidden_states, counted)))
        return hidden_states if counted is None else hidden_states * counted

    def _downsampled(self, hidden_states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self.stride == 1:
            return hidden_states
        if self.downsample is not None:
            return self.downsample(self._mean_of_pairs(hidden_states, mask))
        if not self.zero_padding:
            return max_pool(hidden_states)
        hidden_states = hidden_states.masked_fill(~mask, torch.finfo(hidden_states.dtype).min)
        return torch.where(mask[:, ::2], max_pool(hidden_states), 0)

    def _mean_of_pairs(self, hidden_states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        counted = mask if self.zero_padding else torch.ones_like(mask)
        rest = hidden_states.shape[1] % 2
        pairs, counts = (
            F.pad(one, (0, 0, 0, rest)).unflatten(1, (-1, 2)).sum(dim=2)
            for one in (hidden_states * counted, counted.to(hidden_states.dtype))
        )
        return pairs / counts.clamp(min=1)


class SGPConv1d(ActionFormerConv1d):
    """A depth-wise convolution of an SGP block, with its own initialisation."""


class SGPGroupNorm(nn.GroupNorm):
    """Norm of groups of channels over all steps that count."""

    def forward(self, hidden_states: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """
        Normalise.

        Args:
            hidden_states (`torch.Tensor` of shape `(batch_size, steps, hidden_size)`):
                The sequence.
            mask (`torch.BoolTensor` of shape `(batch_size, steps, 1)`, *optional*):
                `True` where a step counts; all by default.

        Returns:
            `torch.Tensor` of the shape of `hidden_states`.
        """
        if mask is None:
            return super().forward(hidden_states.transpose(1, 2)).transpose(1, 2)
        groups = hidden_states.unflatten(2, (self.num_groups, -1)).float()  # (batch, steps, groups, channels)
        weights = mask[..., None].float()
        count = (weights.sum(dim=1, keepdim=True) * groups.shape[-1]).clamp(min=1)
        mean = (groups * weights).sum(dim=(1, 3), keepdim=True) / count
        variance = ((groups - mean).square() * weights).sum(dim=(1, 3), keepdim=True) / count
        normed = ((groups - mean) * (variance + self.eps).rsqrt()).flatten(2).to(hidden_states.dtype)
        return normed * self.weight + self.bias


BLOCKS: dict[str, type[PyramidBlock]] = {
    "transformer": ActionFormerBlock,
    "conv": ActionFormerConvBlock,
    "sgp": SGPBlock,
}

__all__ = [
    "BLOCKS",
    "ActionFormerAttention",
    "ActionFormerBlock",
    "ActionFormerConv1d",
    "ActionFormerConvBlock",
    "ActionFormerMLP",
    "PyramidBlock",
    "RelativePositions",
    "SGPBlock",
    "SGPConv1d",
    "SGPGroupNorm",
    "recomputed",
]
