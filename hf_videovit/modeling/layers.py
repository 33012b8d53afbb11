"""
Small parts that several families share: stochastic depth, eager attention, position tables, view merging, losses.
"""

import math
from collections.abc import Iterator
from typing import Any, TypeGuard

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.modules import module as torch_module
from transformers import PreTrainedConfig
from transformers import initialization as init
from transformers.activations import GELUActivation
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.utils import can_return_tuple


# torch's registries of hooks on the calls of all modules, as counters of operations use them
EVERY_MODULES_HOOKS = (
    torch_module._global_forward_hooks,
    torch_module._global_forward_pre_hooks,
    torch_module._global_backward_hooks,
    torch_module._global_backward_pre_hooks,
)


class DropPath(nn.Module):
    """
    Stochastic depth a sample (Huang et al., 2016): a residual branch is dropped with probability `drop_prob` and
    scaled by `1 / (1 - drop_prob)` where it is kept.
    """

    def __init__(self, drop_prob: float = 0.0):
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if self.drop_prob == 0.0 or not self.training:
            return hidden_states
        keep_prob = 1.0 - self.drop_prob
        keep = hidden_states.new_empty((hidden_states.shape[0],) + (1,) * (hidden_states.ndim - 1))
        return hidden_states * keep.bernoulli_(keep_prob).div_(keep_prob)

    def extra_repr(self) -> str:
        return f"p={self.drop_prob}"


def drop_path_rates(rate: float, depth: int) -> list[float]:
    """Rates growing linearly from 0 to `rate` over `depth` blocks, as plain floats (safe on the meta device)."""
    return [rate * index / max(depth - 1, 1) for index in range(depth)]


class LayerScale(nn.Module):
    """A learnt factor a channel on a residual branch (Touvron et al., 2021)."""

    def __init__(self, dim: int, init_value: float):
        super().__init__()
        self.init_value = init_value
        self.gamma = nn.Parameter(torch.full((dim,), float(init_value)))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return hidden_states * self.gamma


def init_as_torch(
    module: nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d,
) -> None:
    """The initialisation that torch's own constructors use."""
    init.kaiming_uniform_(module.weight, a=math.sqrt(5))
    if module.bias is not None:
        bound = 1 / math.sqrt(module.weight[0].numel())
        init.uniform_(module.bias, -bound, bound)


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Attention in plain matrix products, for modules that look their implementation up in transformers'
    `ALL_ATTENTION_FUNCTIONS`. That look-up must stand in the modeling file itself: transformers reads the file's text
    to decide whether `set_attn_implementation` may switch a model.

    Args:
        module (`nn.Module`):
            The attention module.
        query, key, value (`torch.Tensor` of shape `(batch_size, num_heads, sequence_length, head_dim)`):
            Projected states.
        attention_mask (`torch.Tensor`, *optional*):
            Added to the scores; broadcast to `(batch_size, num_heads, query_length, key_length)`.
        scaling (`float`):
            Factor of the queries.
        dropout (`float`, *optional*, defaults to 0.0):
            Dropout of the probabilities in training mode.

    Returns:
        `tuple`: context of shape `(batch_size, query_length, num_heads, head_dim)` and the probabilities.
    """
    scores = torch.matmul(query * scaling, key.transpose(-2, -1))
    if attention_mask is not None:
        scores = scores + attention_mask
    probabilities = F.dropout(scores.softmax(dim=-1), p=dropout, training=module.training)
    context = torch.matmul(probabilities, value)
    return context.transpose(1, 2).contiguous(), probabilities


def sinusoid_table(num_positions: int, dim: int) -> torch.Tensor:
    """
    One-dimensional sine-cosine table of shape `(num_positions, dim)` in float32: even channels hold the sine and odd
    ones the cosine of `position / 10000 ** (2 * (channel // 2) / dim)`.

    Worked out in float64: in float32 the angles of late positions are off by up to 1e-3.
    """
    positions = torch.arange(num_positions, dtype=torch.float64, device="cpu")
    channels = torch.arange(dim, dtype=torch.float64, device="cpu")
    angles = positions[:, None] / 10000 ** (2 * (channels // 2) / dim)
    table = torch.empty(num_positions, dim, dtype=torch.float64, device="cpu")
    table[:, 0::2] = angles[:, 0::2].sin()
    table[:, 1::2] = angles[:, 1::2].cos()
    return table.float()


def interpolate_positions(
    table: torch.Tensor, source_grid: tuple[int, int, int], target_grid: tuple[int, int, int]
) -> torch.Tensor:
    """
    Resample a position table of shape `(frames * height * width, dim)` from one token grid to another: bicubic in
    space, linear in time, the table itself where the grids agree.
    """
    if tuple(source_grid) == tuple(target_grid):
        return table
    frames, height, width = source_grid
    dim = table.shape[-1]
    grid = table.view(frames, height, width, dim).permute(0, 3, 1, 2)  # (frames, dim, height, width)
    if (height, width) != tuple(target_grid[1:]):
        grid = F.interpolate(grid.float(), size=tuple(target_grid[1:]), mode="bicubic", align_corners=False)
    if frames != target_grid[0]:
        series = grid.permute(2, 3, 1, 0).reshape(1, -1, frames)  # (1, height * width * dim, frames)
        series = F.interpolate(series.float(), size=target_grid[0], mode="linear", align_corners=False)
        grid = series.view(*target_grid[1:], dim, target_grid[0]).permute(3, 2, 0, 1)
    return grid.permute(0, 2, 3, 1).reshape(-1, dim)


def token_grid(pixel_values: torch.Tensor, tubelet_size: int, patch_size: int) -> tuple[int, int, int]:
    """
    Token grid `(frames, height, width)` of `pixel_values`, whose last four axes are frames, channels, height, width.

    Raises:
        ValueError: the clip is not a whole number of tubelets.
    """
    frames, _, height, width = pixel_values.shape[-4:]
    if frames % tubelet_size or height % patch_size or width % patch_size:
        raise ValueError(
            f"`pixel_values` has {frames} frames of {height} x {width} pixels; frames must be a multiple of "
            f"`tubelet_size` ({tubelet_size}), height and width of `patch_size` ({patch_size})."
        )
    return frames // tubelet_size, height // patch_size, width // patch_size


def gather_tokens(tokens: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Tokens `(batch, length, ...)` at `indices` `(batch, num_kept)` -> `(batch, num_kept, ...)`."""
    shape = indices.shape + (1,) * (tokens.ndim - 2)
    return tokens.gather(1, indices.view(shape).expand(*indices.shape, *tokens.shape[2:]))


def kept_indices(mask: torch.Tensor, num_kept: int) -> torch.Tensor:
    """
    Positions of the `num_kept` entries of each row of `mask` `(batch, length)` that are `False`, in ascending order.

    A stable sort instead of boolean selection: the shape does not depend on the data, so the graph can be compiled and
    exported.
    """
    return mask.to(torch.uint8).argsort(dim=1, stable=True)[:, :num_kept]


# glibc gives freed blocks of 32 MiB and more back to the kernel, which hands out the next ones page by page.
LARGEST_PIECE = 3 * 2**23


def _pieces(width: int, *matrices: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """
    Matrices of as many rows in pieces that, `width` wide, a processor's memory takes again and again; whole on an
    accelerator, whose allocator keeps what is freed.
    """
    first, number = matrices[0], 1
    if first.device.type == "cpu":
        number = max(1, math.ceil(len(first) * width * first.element_size() / LARGEST_PIECE))
    return zip(*(matrix.chunk(number) for matrix in matrices), strict=True)


def _project(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, out: torch.Tensor) -> None:
    """`F.linear` into a matrix that stands already."""
    if bias is None:
        torch.mm(rows, weight.mT, out=out)
    else:
        torch.addmm(bias, rows, weight.mT, out=out)


class _GeluProjection(torch.autograd.Function):
    """`F.linear(F.gelu(rows), weight, bias)` that keeps `rows` alone for the backward pass."""

    @staticmethod
    def forward(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        projected = rows.new_empty(len(rows), len(weight))
        for part, place in _pieces(rows.shape[1], rows, projected):
            _project(F.gelu(part), weight, bias, out=place)
        return projected

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        rows, weight, _ = inputs
        ctx.save_for_backward(rows, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        for_rows, for_weight, for_bias = ctx.needs_input_grad
        grad_rows = torch.empty_like(rows) if for_rows else None
        grad_weight = torch.empty_like(weight) if for_weight else None
        if grad_weight is not None:
            for number, (part, grad_part) in enumerate(_pieces(rows.shape[1], rows, gradient)):
                grad_weight.addmm_(grad_part.mT, F.gelu(part), beta=min(number, 1))
        if grad_rows is not None:
            for part, grad_part, place in _pieces(rows.shape[1], rows, gradient, grad_rows):
                torch.mm(grad_part, weight, out=place)
                torch.ops.aten.gelu_backward.grad_input(place, part, grad_input=place)
        return grad_rows, grad_weight, gradient.sum(dim=0) if for_bias else None


def is_hooked(module: nn.Module) -> bool:
    """Whether somebody sees or changes a module's calls: hooks of its own or of all modules, another `forward`."""
    own = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(own) or any(EVERY_MODULES_HOOKS) or "forward" in vars(module)


def is_plain(projection: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether calling a layer is the matrix product with its weights, and nothing else."""
    return (
        type(projection).forward is nn.Linear.forward
        and type(projection.weight) in (nn.Parameter, torch.Tensor)
        and not is_hooked(projection)
    )


def feed_forward(
    hidden_states: torch.Tensor, first: nn.Module, activation: nn.Module, second: nn.Module, training: bool
) -> torch.Tensor:
    """
    `second(activation(first(hidden_states)))`, whose middle is the widest tensor of a block. Between plain layers GELU
    leaves no copy of it: in training it is computed again in the backward pass, for a pointwise function is cheap, and
    where no gradient is wanted it works in place, on a processor piece by piece. Layers that are more than plain
    (adapted, quantised, sharded, hooked) and other activations are called as they are; compilers see to it themselves.
    """
    gelu = type(activation) is GELUActivation and activation.act is F.gelu and not is_hooked(activation)
    as_they_are = torch.compiler.is_compiling() or torch.is_grad_enabled() and not training
    if as_they_are or not (gelu and is_plain(first) and is_plain(second)):
        return second(activation(first(hidden_states)))
    dtype = computing_dtype(hidden_states)
    weight, bias = second.weight.to(dtype), None if second.bias is None else second.bias.to(dtype)
    if training and torch.is_grad_enabled():
        middle = first(hidden_states)
        return _GeluProjection.apply(middle.flatten(0, -2), weight, bias).unflatten(0, middle.shape[:-1])
    projected = hidden_states.new_empty(*hidden_states.shape[:-1], len(weight), dtype=dtype)
    for part, place in _pieces(len(first.weight), hidden_states.flatten(0, -2), projected.flatten(0, -2)):
        _project(torch.ops.aten.gelu_(first(part)), weight, bias, out=place)
    return projected


def computing_dtype(hidden_states: torch.Tensor) -> torch.dtype:
    """What a linear layer computes in: autocast's choice, else its input's."""
    device = hidden_states.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return hidden_states.dtype


def product_of_projections(
    first: nn.Module, second: nn.Module, num_rows: int
) -> tuple[torch.Tensor, torch.Tensor | None] | None:
    """
    Two linear layers, one behind the other, as one product: `second(first(x))` is `F.linear(x, weight, bias) +
    second.bias`.

    Args:
        first, second (`nn.Module`):
            The layers.
        num_rows (`int`):
            How many vectors are to go through them.

    Returns:
        `tuple`: weight and bias, differentiable. `None` where multiplying the layers is more work than it saves, where
        one of them is more than a plain layer, and for compilers, whose graphs are to serve every number of vectors.
    """
    if torch.compiler.is_compiling() or not (is_plain(first) and is_plain(second)):
        return None
    (middle, before), after = first.weight.shape, second.weight.shape[0]
    if num_rows * (before + after) * middle <= (num_rows + middle) * before * after:
        return None
    bias = None if first.bias is None else F.linear(first.bias, second.weight)
    return second.weight @ first.weight, bias


def merge_views(logits: torch.Tensor, view_merging: str, problem_type: str | None) -> torch.Tensor:
    """
    Merge the predictions for several views of each video.

    Args:
        logits (`torch.Tensor` of shape `(batch_size, num_views, num_labels)`):
            One prediction a view.
        view_merging (`str`):
            `"softmax_mean"`: average the views' probabilities, and return logits whose softmax (sigmoid for
            multi-label problems) is that average. `"logits_mean"`: average the logits.
        problem_type (`str`, *optional*):
            The configuration's; regression always averages the values.

    Returns:
        `torch.Tensor` of shape `(batch_size, num_labels)`.
    """
    if logits.shape[1] == 1:
        return logits[:, 0]
    if view_merging == "logits_mean" or problem_type == "regression":
        return logits.mean(dim=1)
    dtype, logits = logits.dtype, logits.float()
    if problem_type == "multi_label_classification":
        # logit of the mean of sigmoids; the count of views cancels
        return (F.logsigmoid(logits).logsumexp(dim=1) - F.logsigmoid(-logits).logsumexp(dim=1)).to(dtype)
    return (logits.log_softmax(dim=-1).logsumexp(dim=1) - math.log(logits.shape[1])).to(dtype)


def as_single_views(pixel_values: torch.Tensor) -> torch.Tensor:
    """Several views of each video as so many clips; images and clips as they are."""
    return pixel_values.flatten(0, 1) if pixel_values.ndim == 6 else pixel_values


def merge_single_views(
    logits: torch.Tensor, pixel_values: torch.Tensor, view_merging: str, problem_type: str | None
) -> torch.Tensor:
    """Undo [`as_single_views`]: logits `(batch_size * num_views, num_labels)` to one row a video."""
    if pixel_values.ndim != 6:
        return logits
    return merge_views(logits.view(*pixel_values.shape[:2], -1), view_merging, problem_type)


class VideoClassificationMixin:
    """
    What a classifier does whose encoder (`base_model`) gives pooled features: dropout and a linear `classifier` for
    every view, views merged. Stands before the family's `PreTrainedModel` among the bases.
    """

    config: Any
    base_model: Any
    dropout: nn.Module
    classifier: nn.Module
    loss_function: Any

    @can_return_tuple
    def forward(
        self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None, **kwargs: Any
    ) -> ImageClassifierOutput:
        r"""
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_frames, num_channels, height, width)`):
                Normalised clips, or `(batch_size, num_views, num_frames, num_channels, height, width)` for several
                views of each video, merged as `config.view_merging` says.
            labels (`torch.Tensor` of shape `(batch_size,)` or `(batch_size, num_labels)`, *optional*):
                Class indices, or soft labels.

        Returns:
            [`ImageClassifierOutput`]: loss, logits of shape `(batch_size, num_labels)`; hidden states and attentions,
            if asked for, are those of the encoder with all views of a video as samples.

        Raises:
            ValueError: a shape does not fit the configuration.
        """
        outputs = self.encode(as_single_views(pixel_values), **kwargs)
        logits = self.classifier(self.dropout(outputs.pooler_output))  # (batch * views, labels)
        logits = merge_single_views(logits, pixel_values, self.config.view_merging, self.config.problem_type)
        loss = self.loss_function(labels, logits, self.config) if labels is not None else None
        return ImageClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )

    def encode(self, pixel_values: torch.Tensor, **kwargs: Any) -> Any:
        """What the encoder answers, of which `pooler_output`, `hidden_states` and `attentions` are used."""
        return self.base_model(pixel_values, **kwargs)


def classification_loss(
    labels: torch.Tensor, logits: torch.Tensor, config: PreTrainedConfig, **kwargs: Any
) -> torch.Tensor:
    """
    Loss of a classification head. transformers' own function takes soft labels for a multi-label problem and writes
    its guess into the configuration; this one does neither.

    Args:
        labels (`torch.Tensor` of shape `(batch_size,)` or `(batch_size, num_labels)`):
            Class indices, or probabilities (mixup, label smoothing, distillation) for a cross-entropy with soft
            targets. With `config.problem_type` `"multi_label_classification"` a 0/1 matrix, with `"regression"`
            values.
        logits (`torch.Tensor` of shape `(batch_size, num_labels)`):
            Predictions.

    Raises:
        ValueError: `labels` does not fit `logits` or the problem type.
    """
    logits, labels = logits.float(), labels.to(logits.device)
    if config.problem_type == "regression":
        return F.mse_loss(logits.squeeze(-1), labels.float().squeeze(-1))
    if config.problem_type == "multi_label_classification":
        if labels.shape != logits.shape:
            raise ValueError(
                f"`labels` of a multi-label problem must have shape {tuple(logits.shape)}, got {tuple(labels.shape)}."
            )
        return F.binary_cross_entropy_with_logits(logits, labels.float())
    if labels.is_floating_point():
        if labels.shape != logits.shape:
            raise ValueError(f"Soft `labels` must have shape {tuple(logits.shape)}, got {tuple(labels.shape)}.")
        return F.cross_entropy(logits, labels.float())
    if labels.ndim != 1 or labels.shape[0] != logits.shape[0]:
        raise ValueError(f"`labels` must have shape ({logits.shape[0]},), got {tuple(labels.shape)}.")
    return F.cross_entropy(logits, labels.long())
