"""
Video Swin ([Liu et al., 2021](https://huggingface.co/papers/2106.13230)): joint space-time attention inside shifted
windows, plain modules for the families built on it.

Behaviour follows the official code (xyzforever/BEVT, commit 8881b21, `swin_transformer.py`): windows that are clipped
to a small grid take the first rows and columns of the full window's index of relative positions; padding is added
after the first norm, so padded tokens enter attention as zeros and are attended to; masked scores get -100.

A configuration has `embed_dim`, `depths`, `num_heads`, `window_size`, `patch_size`, `tubelet_size`, `num_channels`,
`mlp_ratio`, `qkv_bias`, `hidden_act`, `hidden_dropout_prob`, `attention_probs_dropout_prob`, `drop_path_rate`,
`layer_norm_eps` and `initializer_range`.

Hidden states have shape `(batch_size, frames, height, width, channels)` throughout, in tokens.
"""

import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
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

from .layers import drop_path_rates, eager_attention_forward, init_as_torch


Size3 = tuple[int, int, int]

MASKED_SCORE = -100.0
# Scores that the backward pass works out at a time: few enough to stay in a processor's cache.
SCORES_AT_ONCE = 2**19
# Geometry of this many input sizes, windows and devices is kept.
MAX_CACHED = 256
_cache: OrderedDict[tuple, Any] = OrderedDict()


def cached(make: Callable[..., Any], *key: Any) -> Any:
    """
    `make(*key)`, kept for the next time. What a compiler traces is made anew, as part of the graph; so is what other
    modes than plain tensors give.
    """
    if torch.compiler.is_compiling():
        return make(*key)
    full_key = (make.__name__, *key)
    if full_key in _cache:
        _cache.move_to_end(full_key)
        return _cache[full_key]
    with torch.inference_mode(False):  # a tensor of inference mode could not take part in training later
        made = make(*key)
    tensor = made if torch.is_tensor(made) else made.tokens
    if type(tensor) is torch.Tensor:
        _cache[full_key] = made
        while len(_cache) > MAX_CACHED:
            _cache.popitem(last=False)
    return made


@dataclass(frozen=True)
class WindowPlan:
    """
    How a grid of tokens falls into windows. Windows that see the same mask stand together: only the last window on an
    axis is ever cut by a shift, so there are at most eight kinds.

    Args:
        tokens (`torch.Tensor` of shape `(num_windows, window_length)`):
            Token of the flattened grid at each place of each window; the number of tokens where it is padding.
        places (`torch.Tensor` of shape `(num_tokens,)`):
            The inverse: place among all windows of each token.
        groups (`tuple[tuple[int, torch.Tensor | None], ...]`):
            Number of windows of each kind, and their mask `(window_length, window_length)`: 0, or -100 between
            regions that do not touch in the grid.
        padded (`bool`):
            Whether there is padding.
    """

    tokens: torch.Tensor
    places: torch.Tensor
    groups: tuple[tuple[int, torch.Tensor | None], ...]
    padded: bool


def make_plan(grid: Size3, window: Size3, cut: Size3, roll: Size3, device: torch.device) -> WindowPlan:
    """
    Args:
        grid (`tuple[int, int, int]`):
            Frames, height and width in tokens; padded at the end to whole windows.
        window (`tuple[int, int, int]`):
            Size of a window.
        cut (`tuple[int, int, int]`):
            On each axis the last window is cut this far before its end; its two parts do not see each other. 0 for no
            cut.
        roll (`tuple[int, int, int]`):
            The padded grid is rolled back by this much before it falls into windows.
        device (`torch.device`):
            Where the tensors go.
    """
    counts = [-(-size // length) for size, length in zip(grid, window)]
    padded = [count * length for count, length in zip(counts, window)]
    num_tokens = math.prod(grid)
    frames, rows, columns = (torch.arange(size, device=device) for size in padded)
    frames, rows, columns = frames.view(-1, 1, 1), rows.view(1, -1, 1), columns.view(1, 1, -1)
    inside = (frames < grid[0]) & (rows < grid[1]) & (columns < grid[2])
    tokens = torch.where(inside, (frames * grid[1] + rows) * grid[2] + columns, num_tokens)
    tokens = tokens.roll([-shift for shift in roll], dims=(0, 1, 2))
    tokens = tokens.view(counts[0], window[0], counts[1], window[1], counts[2], window[2])
    tokens = tokens.permute(0, 2, 4, 1, 3, 5)  # (windows on each axis, places on each axis)

    parts = [[(0, n - 1, False), (n - 1, n, True)] if shift else [(0, n, False)] for n, shift in zip(counts, cut)]
    chosen, groups = [], []
    for kind in itertools.product(*parts):
        (d0, d1, _), (h0, h1, _), (w0, w1, _) = kind
        members = tokens[d0:d1, h0:h1, w0:w1].reshape(-1, math.prod(window))
        if len(members):
            chosen.append(members)
            groups.append((len(members), cut_mask(window, cut, [last for *_, last in kind], device)))
    tokens = torch.cat(chosen)
    places = tokens.flatten().argsort()[:num_tokens]  # padding sorts behind every token
    return WindowPlan(tokens, places, tuple(groups), math.prod(padded) > num_tokens)


def cut_mask(window: Size3, cut: Size3, is_cut: Sequence[bool], device: torch.device) -> torch.Tensor | None:
    """Mask of a window that is cut on the axes `is_cut`; `None` for a whole one."""
    if not any(is_cut):
        return None
    regions = torch.zeros(window, dtype=torch.long, device=device)
    for axis, (length, shift, yes) in enumerate(zip(window, cut, is_cut)):
        if yes:
            shape = [1, 1, 1]
            shape[axis] = length
            regions = 2 * regions + (torch.arange(length, device=device) >= length - shift).long().view(shape)
    regions = regions.flatten()
    return (regions[:, None] != regions[None, :]).float() * MASKED_SCORE


def relative_position_index(window: Size3, length: int, device: torch.device) -> torch.Tensor:
    """
    Row of the bias table for each pair of the first `length` places of a window, `(length, length)`. A clipped window
    takes its own number of first places, whatever their positions (as the official code, mmaction2 and torchvision).
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
    """A table `(rows, heads)` of one window as that of another, interpolated between its cells."""
    if list(source) == list(target):
        return table
    cells = table.float().T.reshape(1, table.shape[1], *(2 * size - 1 for size in source))
    resized = F.interpolate(cells, size=[2 * size - 1 for size in target], mode=mode, align_corners=False)
    return resized.reshape(table.shape[1], -1).T.to(table.dtype).contiguous()


@dataclass(frozen=True)
class BatchPlan:
    """
    A [`WindowPlan`] for all samples of a batch, whose rows are `(samples, tokens)` on one side and `(windows, samples,
    places)` on the other: windows of one kind then stand together.
    """

    order: torch.Tensor
    inverse: torch.Tensor
    groups: tuple[tuple[int, torch.Tensor | None], ...]
    padded: bool
    length: int

    @classmethod
    def of(cls, plan: WindowPlan, batch_size: int) -> "BatchPlan":
        (_, length), num_tokens = plan.tokens.shape, plan.places.shape[0]
        sample = torch.arange(batch_size, device=plan.tokens.device)
        order = plan.tokens[:, None, :] + (sample * num_tokens)[None, :, None]
        if plan.padded:
            order = torch.where(plan.tokens[:, None, :] < num_tokens, order, batch_size * num_tokens)
        window, place = plan.places // length, plan.places % length
        inverse = (window[None, :] * batch_size + sample[:, None]) * length + place[None, :]
        groups = tuple((count * batch_size, mask) for count, mask in plan.groups)
        return cls(order.flatten(), inverse.flatten(), groups, plan.padded, length)


class TakeRows(torch.autograd.Function):
    """
    Rows in another order, where one past the last is a row of zeros. Each row is taken once, so the backward pass
    reads rows in the inverse order instead of adding them up.
    """

    @staticmethod
    def forward(rows: torch.Tensor, order: torch.Tensor, inverse: torch.Tensor, padded: str) -> torch.Tensor:
        return take_rows(rows, order, padded == "order")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        _, order, inverse, padded = inputs
        ctx.save_for_backward(order, inverse)
        ctx.padded = padded

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        order, inverse = ctx.saved_tensors
        turned = {"order": "inverse", "inverse": "order", "": ""}[ctx.padded]
        return TakeRows.apply(gradient, inverse, order, turned), None, None, None


def take_rows(rows: torch.Tensor, order: torch.Tensor, padded: bool) -> torch.Tensor:
    return (F.pad(rows, (0, 0, 0, 1)) if padded else rows).index_select(0, order)


class WindowedAttention(torch.autograd.Function):
    """
    Attention of all windows that keeps no scores for the backward pass and works them out again there, a few windows
    at a time. It stands in for `scaled_dot_product_attention` on a CPU, which for a bias that is trained would hold
    the scores of all windows at once, and several times.
    """

    @staticmethod
    def forward(
        qkv: torch.Tensor, bias: torch.Tensor, groups: tuple[tuple[int, torch.Tensor | None], ...], scaling: float
    ) -> torch.Tensor:
        """
        Args:
            qkv (`torch.Tensor` of shape `(num_windows, window_length, 3, num_heads, head_dim)`):
                Queries, keys and values.
            bias (`torch.Tensor` of shape `(1, num_heads, window_length, window_length)`):
                Added to the scores of every window.
            groups:
                Number of windows of each kind, and what else is added to their scores.
            scaling (`float`):
                Factor of the queries.

        Returns:
            `torch.Tensor` of shape `(num_windows, window_length, num_heads, head_dim)`.
        """
        contexts, bias = [], bias.detach()  # torch looks whether a mask is trained, even here
        for start, end, mask in spans(groups):
            query, key, value = qkv[start:end].permute(2, 0, 3, 1, 4).unbind(0)
            added = bias if mask is None else bias + mask.to(bias.dtype)
            context = F.scaled_dot_product_attention(query, key, value, attn_mask=added, scale=scaling)
            contexts.append(context.transpose(1, 2))
        return torch.cat(contexts)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        qkv, bias, ctx.groups, ctx.scaling = inputs
        ctx.save_for_backward(qkv, bias)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        qkv, bias = ctx.saved_tensors
        qkv_gradient, bias_gradient = torch.empty_like(qkv), torch.zeros_like(bias[0])
        length, num_heads = qkv.shape[1], qkv.shape[3]
        heads_at_once = min(max(SCORES_AT_ONCE // length**2, 1), num_heads)
        step = max(SCORES_AT_ONCE // (num_heads * length**2), 1)
        size = min(step, qkv.shape[0]) * heads_at_once * length**2
        # Fresh memory costs more than what is worked out in it, so every part uses the same.
        buffers = [qkv.new_empty(size) for _ in range(3)]
        for start, end, mask in spans(ctx.groups):
            added = (bias if mask is None else bias + mask.to(bias.dtype)).to(qkv.dtype)
            for first, head in itertools.product(range(start, end, step), range(0, num_heads, heads_at_once)):
                windows, heads = slice(first, min(first + step, end)), slice(head, head + heads_at_once)
                to_qkv, to_bias = qkv_gradient[windows, :, :, heads], bias_gradient[heads]
                parts = (qkv[windows, :, :, heads], added[:, heads], gradient[windows, :, heads])
                attention_gradient(*parts, ctx.scaling, to_qkv, to_bias, buffers)
        return qkv_gradient, bias_gradient[None], None, None


def attention_gradient(
    qkv: torch.Tensor,
    added: torch.Tensor,
    received: torch.Tensor,
    scaling: float,
    to_qkv: torch.Tensor,
    to_bias: torch.Tensor,
    buffers: list[torch.Tensor],
) -> None:
    """
    Gradients of some windows and heads, from the scores worked out once more.

    Args:
        qkv (`torch.Tensor` of shape `(num_windows, window_length, 3, num_heads, head_dim)`):
            Queries, keys and values.
        added (`torch.Tensor` of shape `(1, num_heads, window_length, window_length)`):
            Bias and mask of the scores.
        received (`torch.Tensor` of shape `(num_windows, window_length, num_heads, head_dim)`):
            Gradient of the outputs.
        scaling (`float`):
            Factor of the queries.
        to_qkv (`torch.Tensor`):
            Receives the gradient of `qkv`.
        to_bias (`torch.Tensor` of shape `(num_heads, window_length, window_length)`):
            The gradient of the bias is added to it.
        buffers (`list[torch.Tensor]`):
            Three for the scores.
    """
    windows, length, _, heads, _ = qkv.shape
    shape = (windows * heads, length, length)
    first, second, third = (buffer[: math.prod(shape)].view(shape) for buffer in buffers)
    query, key, value = qkv.permute(2, 0, 3, 1, 4).contiguous().flatten(1, 2).unbind(0)
    received = received.transpose(1, 2).flatten(0, 1)
    added = added.expand(windows, -1, -1, -1).flatten(0, 1)
    scores = torch.baddbmm(added, query, key.transpose(1, 2), alpha=scaling, out=first)
    probabilities = torch.softmax(scores, dim=-1, out=second)
    value_gradient = torch.bmm(probabilities.transpose(1, 2), received)
    weighted = torch.bmm(received, value.transpose(1, 2), out=first)
    backward = torch.ops.aten._softmax_backward_data.out
    scores = backward(weighted, probabilities, -1, weighted.dtype, grad_input=third)
    to_query, to_key, to_value = to_qkv.permute(2, 0, 3, 1, 4).unbind(0)
    to_value.copy_(value_gradient.view_as(to_value))
    to_query.copy_(torch.bmm(scores, key).mul_(scaling).view_as(to_query))
    to_key.copy_(torch.bmm(scores.transpose(1, 2), query).mul_(scaling).view_as(to_key))
    for window in scores.unflatten(0, (windows, heads)):
        to_bias += window


def spans(groups: tuple[tuple[int, torch.Tensor | None], ...]) -> Iterator[tuple[int, int, torch.Tensor | None]]:
    """First window, one past the last, and mask of each group."""
    start = 0
    for count, mask in groups:
        yield start, start + count, mask
        start += count


class VideoSwinPatchEmbeddings(nn.Module):
    """A convolution whose stride is its kernel, and a norm; clips are zero-padded at the end to whole patches."""

    def __init__(self, config: Any):
        super().__init__()
        self.kernel_size = (config.tubelet_size, config.patch_size, config.patch_size)
        self.projection = nn.Conv3d(config.num_channels, config.embed_dim, self.kernel_size, stride=self.kernel_size)
        self.norm = nn.LayerNorm(config.embed_dim, eps=config.layer_norm_eps)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        pixels = pixel_values.to(self.projection.weight.dtype).transpose(1, 2)  # (batch, channels, frames, h, w)
        missing = [-size % length for size, length in zip(pixels.shape[2:], self.kernel_size)]
        if any(missing):
            pixels = F.pad(pixels, (0, missing[2], 0, missing[1], 0, missing[0]))
        return self.norm(self.projection(pixels).permute(0, 2, 3, 4, 1))


class VideoSwinAttention(nn.Module):
    """Self-attention inside windows with a learnt bias for each relative position and head."""

    def __init__(self, config: Any, dim: int, num_heads: int):
        super().__init__()
        self.config = config
        self.window = full_window(config)
        self.num_heads, self.scaling = num_heads, (dim // num_heads) ** -0.5
        self.is_causal = False
        self.attention_dropout = config.attention_probs_dropout_prob
        table_length = math.prod(2 * size - 1 for size in self.window)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(table_length, num_heads))
        self.qkv = nn.Linear(dim, 3 * dim, bias=config.qkv_bias)
        self.o_proj = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, rows: torch.Tensor, plan: BatchPlan, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Args:
            rows (`torch.Tensor` of shape `(num_windows * window_length, dim)`):
                Tokens in the order of the windows.
            plan ([`BatchPlan`]):
                The windows.

        Returns:
            `tuple`: rows of the same shape; and, where the implementation gives them, probabilities of shape
            `(num_windows, num_heads, window_length, window_length)`, windows in the order of the plan.
        """
        qkv = self.qkv(rows).view(-1, plan.length, 3, self.num_heads, rows.shape[-1] // self.num_heads)
        bias = self.bias(plan.length).to(rows.dtype)
        if self.recomputes(rows):
            context, weights = WindowedAttention.apply(qkv, bias, plan.groups, self.scaling), None
        else:
            context, weights = self.attend(qkv, bias, plan, **kwargs)
        return self.dropout(self.o_proj(context.reshape(rows.shape))), weights

    def recomputes(self, rows: torch.Tensor) -> bool:
        """Whether [`WindowedAttention`] stands in for torch's attention."""
        trains = torch.is_grad_enabled() and self.relative_position_bias_table.requires_grad
        drops = self.training and self.attention_dropout > 0
        asked = self.config._attn_implementation == "sdpa" and rows.device.type == "cpu"
        return asked and trains and not drops and not torch.compiler.is_compiling()

    def attend(
        self, qkv: torch.Tensor, bias: torch.Tensor, plan: BatchPlan, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attention of the windows of each kind by the implementation that the configuration names."""
        attention = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (windows, heads, window_length, head_dim)
        outcomes = [
            attention(
                self,
                query[start:end],
                key[start:end],
                value[start:end],
                bias if mask is None else bias + mask.to(bias.dtype),
                dropout=self.attention_dropout if self.training else 0.0,
                scaling=self.scaling,
                is_causal=self.is_causal,
                **kwargs,
            )
            for start, end, mask in spans(plan.groups)
        ]
        if len(outcomes) == 1:  # the very tensors, so that what is returned stands in the graph
            return outcomes[0]
        contexts, weights = zip(*outcomes)
        return torch.cat(contexts), None if weights[0] is None else torch.cat(weights)

    @torch.no_grad()
    def resize_window(self, window: Size3) -> None:
        """Make the table that of another window, as the official loader of fine-tuning does."""
        table = resize_table(self.relative_position_bias_table, self.window, window)
        self.relative_position_bias_table, self.window = nn.Parameter(table.clone()), window

    def bias(self, length: int) -> torch.Tensor:
        """Bias of the scores between the first `length` places of the window, `(1, num_heads, length, length)`."""
        table = self.relative_position_bias_table
        index = cached(relative_position_index, self.window, length, table.device)
        return F.embedding(index, table).permute(2, 0, 1).contiguous()[None]


class VideoSwinMLP(nn.Module):
    def __init__(self, config: Any, dim: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, int(dim * config.mlp_ratio))
        self.activation = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(int(dim * config.mlp_ratio), dim)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = self.dropout(self.activation(self.fc1(hidden_states)))
        return self.dropout(self.fc2(hidden_states))


class VideoSwinLayer(GradientCheckpointingLayer):
    """Pre-norm block. Padding enters after the norm: it is zero there, and its keys are the projection's bias."""

    def __init__(self, config: Any, dim: int, num_heads: int, drop_path_rate: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.attention = VideoSwinAttention(config, dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.mlp = VideoSwinMLP(config, dim)
        self.drop_path = StochasticDepth(drop_path_rate, "row")

    def forward(self, hidden_states: torch.Tensor, plan: BatchPlan, **kwargs: Any) -> torch.Tensor:
        rows = self.norm1(hidden_states).flatten(0, 3)  # (samples * tokens, dim)
        rows = TakeRows.apply(rows, plan.order, plan.inverse, "order" if plan.padded else "")
        rows, _ = self.attention(rows, plan, **kwargs)
        rows = TakeRows.apply(rows, plan.inverse, plan.order, "inverse" if plan.padded else "")
        hidden_states = add_branch(hidden_states, self.drop_path(rows.view_as(hidden_states)))
        return add_branch(hidden_states, self.drop_path(self.mlp(self.norm2(hidden_states))))


def add_branch(hidden_states: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
    """
    Residual sum in the branch's memory: nobody else reads it, and fresh memory costs a CPU more than the sum. Under
    autocast the two differ in precision, and the sum has the finer one.
    """
    return branch.add_(hidden_states) if branch.dtype == hidden_states.dtype else hidden_states + branch


class VideoSwinPatchMerging(nn.Module):
    """Four neighbours of a frame into one token of twice the width; odd sides are zero-padded at the end."""

    def __init__(self, config: Any, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim, eps=config.layer_norm_eps)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        height, width = hidden_states.shape[2:4]
        if height % 2 or width % 2:
            hidden_states = F.pad(hidden_states, (0, 0, 0, width % 2, 0, height % 2))
        batch_size, frames, height, width, dim = hidden_states.shape
        quads = hidden_states.view(batch_size, frames, height // 2, 2, width // 2, 2, dim)
        quads = quads.permute(0, 1, 2, 4, 5, 3, 6).flatten(4)  # rows run fastest within a quad: 00, 10, 01, 11
        return self.reduction(self.norm(quads))


class VideoSwinStage(nn.Module):
    """Blocks of one width, every second one with shifted windows, and the merging behind them."""

    layer_class: type[VideoSwinLayer] = VideoSwinLayer

    def __init__(self, config: Any, index: int, drop_path_rates: Sequence[float]):
        super().__init__()
        dim = config.embed_dim * 2**index
        self.window = full_window(config)
        self.layers = nn.ModuleList(
            self.layer_class(config, dim, config.num_heads[index], rate) for rate in drop_path_rates
        )
        last = index == len(config.depths) - 1
        self.merging = None if last else VideoSwinPatchMerging(config, dim)

    def forward(
        self, hidden_states: torch.Tensor, still: bool = False, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The stage's output before and after merging."""
        plans = self.plans(hidden_states, still)
        for index, layer in enumerate(self.layers):
            hidden_states = layer(hidden_states, plans[index % 2], **kwargs)
        return hidden_states, hidden_states if self.merging is None else self.merging(hidden_states)

    def plans(self, hidden_states: torch.Tensor, still: bool) -> list[BatchPlan]:
        """
        The windows of even and odd blocks.

        Images (`still`) keep what the official image stream does: windows are never clipped, the mask of the shift
        stands in every block, and only the roll belongs to the odd ones.
        """
        batch_size, *grid = hidden_states.shape[:4]
        if still:
            window, length = [1, *self.window[1:]], self.window
            cut = [0, length[1] // 2, length[2] // 2]
            kinds = [(cut, [0, 0, 0]), (cut, cut)]
        else:
            window = [min(size, length) for size, length in zip(grid, self.window)]
            cut = [0 if size <= length else length // 2 for size, length in zip(grid, self.window)]
            kinds = [([0, 0, 0], [0, 0, 0]), (cut, cut)]
        plans = [cached(make_plan, *map(tuple, (grid, window, *kind)), hidden_states.device) for kind in kinds]
        return [BatchPlan.of(plan, batch_size) for plan in plans]


class VideoSwinEncoder(nn.Module):
    """All stages."""

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
        Args:
            hidden_states (`torch.Tensor` of shape `(batch_size, frames, height, width, embed_dim)`):
                Embedded patches.
            still (`bool`, *optional*, defaults to `False`):
                The image stream of BEVT, for grids of one frame.

        Returns:
            `list[torch.Tensor]`: each stage's output before merging, `(batch_size, frames, height / 2 ** i, width / 2
            ** i, embed_dim * 2 ** i)`, sides rounded up.
        """
        outputs = []
        for stage in self.stages:
            output, hidden_states = stage(hidden_states, still, **kwargs)
            outputs.append(output)
        return outputs


def full_window(config: Any) -> Size3:
    frames, height, width = config.window_size
    return frames, height, width


def init_video_swin(module: nn.Module, initializer_range: float) -> None:
    """Start values of the modules here; for the `_init_weights` of a family."""
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
