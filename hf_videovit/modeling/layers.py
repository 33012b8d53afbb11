"""
Small parts that several families share: rates of stochastic depth, eager attention, tables of positions, merged views,
losses.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig
from transformers import initialization as init
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.utils import can_return_tuple


TOKENS_AT_ONCE = 512  # see `apply_mlp`
IGNORED_LABEL = -100  # torch's cross-entropy and transformers' `Trainer` do not count it


def drop_path_rates(rate: float, depth: int) -> list[float]:
    """
    Rates of stochastic depth that grow linearly from 0, as plain floats (safe on the meta device).

    Args:
        rate (`float`):
            Rate of the last block.
        depth (`int`):
            Number of blocks.

    Returns:
        `list[float]`: one rate for each block.
    """
    return [rate * index / max(depth - 1, 1) for index in range(depth)]


class LayerScale(nn.Module):
    """
    Learnt factor for each channel of a residual branch
    ([Touvron et al., 2021](https://huggingface.co/papers/2103.17239)).

    Args:
        dim (`int`):
            Number of channels.
        init_value (`float`):
            Initial value of the factors.
    """

    def __init__(self, dim: int, init_value: float):
        super().__init__()
        self.init_value = init_value
        self.gamma = nn.Parameter(torch.full((dim,), float(init_value)))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """
        Scale the channels.

        Args:
            hidden_states (`torch.Tensor` of shape `(..., dim)`):
                Output of the branch.
        """
        return hidden_states * self.gamma


LayerT = TypeVar("LayerT", bound=nn.Module)


def starting(start: str, layer: LayerT) -> LayerT:
    """
    Mark a layer that `_init_weights` initialises unlike others of its type. The layer keeps its exact type: tools that
    quantise or adapt a model pass over subclasses of `nn.Linear` and cannot build subclasses of convolutions.

    Args:
        start (`str`):
            How it starts: a name that the family's `_init_weights` knows.
        layer (`nn.Module`):
            The layer, marked in place.

    Returns:
        `nn.Module`: the layer.
    """
    layer.start = start  # type: ignore[assignment]
    return layer


def start_of(module: nn.Module) -> str | None:
    """
    How a layer starts that was marked by [`starting`].

    Args:
        module (`nn.Module`):
            Any module.

    Returns:
        `str`, or `None` for a module without a mark.
    """
    return vars(module).get("start")


def init_as_torch(
    module: nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d,
) -> None:
    """
    Initialise a layer as its torch constructor does.

    Args:
        module (`nn.Linear`, `nn.Conv1d`, `nn.Conv2d`, `nn.Conv3d`, `nn.ConvTranspose2d` or `nn.ConvTranspose3d`):
            The layer, changed in place.
    """
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
    Attention in plain matrix products, for modules that look up their implementation in transformers'
    `ALL_ATTENTION_FUNCTIONS`. The look-up must be in the modeling file itself: transformers reads the file's text to
    decide whether `set_attn_implementation` can switch a model.

    Args:
        module (`nn.Module`):
            The attention module.
        query, key, value (`torch.Tensor` of shape `(batch_size, num_heads, sequence_length, head_dim)`):
            Projected states.
        attention_mask (`torch.Tensor`, or `None`):
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
    One-dimensional sine-cosine table: even channels hold the sine and odd ones the cosine of
    `position / 10000 ** (2 * (channel // 2) / dim)`.

    It is computed in float64: in float32 the angles of late positions are wrong by up to 1e-3.

    Args:
        num_positions (`int`):
            Number of positions.
        dim (`int`):
            Number of channels.

    Returns:
        `torch.Tensor` of shape `(num_positions, dim)`, in float32.
    """
    positions = torch.arange(num_positions, dtype=torch.float64, device="cpu")
    channels = torch.arange(dim, dtype=torch.float64, device="cpu")
    angles = positions[:, None] / 10000 ** (2 * (channels // 2) / dim)
    table = torch.empty(num_positions, dim, dtype=torch.float64, device="cpu")
    table[:, 0::2] = angles[:, 0::2].sin()
    table[:, 1::2] = angles[:, 1::2].cos()
    return table.float()


def known_equal(left: Sequence[int], right: Sequence[int]) -> bool:
    """
    Whether sizes are equal for every input. Sizes that an exported graph leaves open are not: asking for their values
    would fix them. Interpolation to the size that a table has gives the same table.

    Args:
        left (`Sequence[int]`):
            Sizes.
        right (`Sequence[int]`):
            As many sizes.
    """
    return all(type(size) is int for size in (*left, *right)) and tuple(left) == tuple(right)


def interpolate_positions(
    table: torch.Tensor, source_grid: tuple[int, int, int], target_grid: tuple[int, int, int]
) -> torch.Tensor:
    """
    Resample a position table from one token grid to another: bicubic in space, linear in time.

    Args:
        table (`torch.Tensor` of shape `(frames * height * width, dim)`):
            Table of the source grid.
        source_grid (`tuple[int, int, int]`):
            Its frames, height and width in tokens.
        target_grid (`tuple[int, int, int]`):
            Frames, height and width of the result in tokens.

    Returns:
        `torch.Tensor` of shape `(frames * height * width, dim)` of the target grid: `table` itself if both are equal.
    """
    if known_equal(source_grid, target_grid):
        return table
    frames, height, width = source_grid
    dim = table.shape[-1]
    grid = table.view(frames, height, width, dim).permute(0, 3, 1, 2)  # (frames, dim, height, width)
    if not known_equal((height, width), target_grid[1:]):
        grid = F.interpolate(grid.float(), size=tuple(target_grid[1:]), mode="bicubic", align_corners=False)
    if not known_equal((frames,), target_grid[:1]):
        series = grid.permute(2, 3, 1, 0).reshape(1, -1, frames)  # (1, height * width * dim, frames)
        series = resize_series(series.float(), target_grid[0])
        grid = series.view(*target_grid[1:], dim, target_grid[0]).permute(3, 2, 0, 1)
    return grid.permute(0, 2, 3, 1).reshape(-1, dim)


def resize_series(series: torch.Tensor, length: int) -> torch.Tensor:
    """
    Interpolate linearly along the last axis.

    Args:
        series (`torch.Tensor` of shape `(batch_size, channels, steps)`):
            The series.
        length (`int`):
            Steps of the result.

    Returns:
        `torch.Tensor` of shape `(batch_size, channels, length)`.
    """
    if torch.compiler.is_exporting():  # the OpenVINO exporter of transformers resizes planes only
        return F.interpolate(series[..., None], size=(length, 1), mode="bilinear", align_corners=False)[..., 0]
    return F.interpolate(series, size=length, mode="linear", align_corners=False)


def features_over_time(tokens: torch.Tensor, num_steps: int, length: int) -> torch.Tensor:
    """
    A feature for each moment of a video: the mean of the tokens of a time step, interpolated linearly in time.

    Args:
        tokens (`torch.Tensor` of shape `(batch_size, num_steps * places, dim)`):
            Tokens in the order of time.
        num_steps (`int`):
            Time steps of the tokens.
        length (`int`):
            Number of features.

    Returns:
        `torch.Tensor` of shape `(batch_size, length, dim)`.
    """
    features = tokens.unflatten(1, (num_steps, -1)).mean(dim=2)
    if length == num_steps:
        return features
    channels = F.interpolate(features.transpose(1, 2), size=length, mode="linear", align_corners=False)
    return channels.transpose(1, 2)


def check_pixels(pixel_values: torch.Tensor, name: str = "pixel_values") -> None:
    """
    Refuse pixels that are not normalised.

    Args:
        pixel_values (`torch.Tensor`):
            Images or clips.
        name (`str`, *optional*, defaults to `"pixel_values"`):
            Name of the argument in messages.

    Raises:
        ValueError: the values are integers.
    """
    if not pixel_values.is_floating_point():
        raise ValueError(
            f"`{name}` must be normalised floating-point pixels, got {pixel_values.dtype}. The checkpoint's processor "
            "makes them from raw frames."
        )


def check_clips(pixel_values: torch.Tensor, num_channels: int, name: str = "pixel_values") -> None:
    """
    Refuse clips with another number of axes or channels, or that are not normalised.

    Args:
        pixel_values (`torch.Tensor`):
            Clips.
        num_channels (`int`):
            Channels of a frame.
        name (`str`, *optional*, defaults to `"pixel_values"`):
            Name of the argument in messages.

    Raises:
        ValueError: the shape is not `(batch_size, num_frames, num_channels, height, width)`, or the values are
        integers.
    """
    if pixel_values.ndim != 5 or pixel_values.shape[2] != num_channels:
        raise ValueError(
            f"`{name}` must have shape (batch_size, num_frames, num_channels, height, width) with {num_channels} "
            f"channels, got {tuple(pixel_values.shape)}."
        )
    check_pixels(pixel_values, name)


def token_grid(pixel_values: torch.Tensor, tubelet_size: int, patch_size: int) -> tuple[int, int, int]:
    """
    Token grid of clips.

    Args:
        pixel_values (`torch.Tensor` of shape `(..., num_frames, num_channels, height, width)`):
            Clips.
        tubelet_size (`int`):
            Frames of a token.
        patch_size (`int`):
            Side of a token in pixels.

    Returns:
        `tuple[int, int, int]`: frames, height and width in tokens.

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
    """
    Select tokens of each sample.

    Args:
        tokens (`torch.Tensor` of shape `(batch_size, length, ...)`):
            Tokens.
        indices (`torch.Tensor` of shape `(batch_size, num_kept)`):
            Positions of the selected tokens.

    Returns:
        `torch.Tensor` of shape `(batch_size, num_kept, ...)`.
    """
    shape = indices.shape + (1,) * (tokens.ndim - 2)
    return tokens.gather(1, indices.view(shape).expand(*indices.shape, *tokens.shape[2:]))


def kept_indices(mask: torch.Tensor, num_kept: int) -> torch.Tensor:
    """
    Positions of the entries of each row of a mask that are `False`, in ascending order.

    The places are sorted instead of selected by the mask: the shape does not depend on the data, so the graph can be
    compiled and exported. Each has a key of its own, since a stable sort has no counterpart in ONNX.

    Args:
        mask (`torch.Tensor` of shape `(batch_size, length)`):
            Mask with `num_kept` entries in each row that are `False`.
        num_kept (`int`):
            Their number.

    Returns:
        `torch.LongTensor` of shape `(batch_size, num_kept)`.
    """
    places = torch.arange(mask.shape[1], device=mask.device)
    return (mask.long() * mask.shape[1] + places).topk(num_kept, dim=1, largest=False).values


def filled(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    """
    Numbers as a tensor, made on the device of another one: copying them there would wait for it.

    Args:
        values (`Sequence[float]`):
            The numbers.
        like (`torch.Tensor`):
            A tensor of the device and dtype of the result.

    Returns:
        `torch.Tensor` of shape `(len(values),)`.
    """
    return torch.stack([like.new_full((), value) for value in values])


def stable_order(scores: torch.Tensor) -> torch.Tensor:
    """
    Positions of the scores of each row, largest first and equal ones in ascending order: a stable sort in operators
    that can be exported. Among equal scores an order by keys of their own decides.

    Args:
        scores (`torch.Tensor` of shape `(batch_size, length)`):
            Scores.

    Returns:
        `torch.LongTensor` of shape `(batch_size, length)`.
    """
    length = scores.shape[1]
    ranked, order = scores.topk(length, dim=1)
    groups = F.pad((ranked[:, 1:] < ranked[:, :-1]).long().cumsum(dim=1), (1, 0))  # equal scores are one group
    return (groups * length + order).topk(length, dim=1, largest=False).values % length


class KeepsStatistics:
    """
    Running statistics of batch norms stay as they are in a model with adapters of PEFT: an adapter holds no buffers,
    so what it learnt with other statistics would be lost when it is loaded. Norms that the adapter saves
    (`modules_to_save`) go on. List it before `PreTrainedModel` among the bases.
    """

    def train(self, mode: bool = True) -> Any:
        """
        As in torch, except for batch norms under adapters.

        Args:
            mode (`bool`, *optional*, defaults to `True`):
                Training mode or evaluation mode.
        """
        model: Any = super().train(mode)  # type: ignore[misc]
        if mode and "peft_config" in vars(model):
            for name, module in model.named_modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm) and ".modules_to_save." not in f".{name}.":
                    module.eval()
        return model


class TracedAsTuple:
    """
    `torch.jit.trace` gets a tuple from a model whose output has tuples among its entries: it takes no dictionary of
    them. List it before `PreTrainedModel` among the bases.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if torch.jit.is_tracing():
            kwargs.setdefault("return_dict", False)
        return super().__call__(*args, **kwargs)  # type: ignore[misc]


def apply_to_tokens(layer: nn.Module, hidden_states: torch.Tensor) -> torch.Tensor:
    """
    Apply a layer for channels to a map as to a sequence of tokens: kernels for 8-bit weights take no more than three
    axes.

    Args:
        layer (`nn.Module`):
            A layer that changes the last axis only.
        hidden_states (`torch.Tensor` of shape `(batch_size, ..., channels)`):
            Map.

    Returns:
        `torch.Tensor` of shape `(batch_size, ..., out_channels)`.
    """
    return layer(hidden_states.flatten(1, -2)).unflatten(1, hidden_states.shape[1:-1])


def apply_mlp(mlp: Callable[[torch.Tensor], torch.Tensor], hidden_states: torch.Tensor) -> torch.Tensor:
    """
    Apply an MLP, with its norm or without, to a map or a sequence, as to a sequence of tokens: kernels for 8-bit
    weights take no more than three axes. Without gradients on a CPU it takes the tokens in parts: what is wide between
    its layers then stays in the cache and never exists as a whole. `benchmarks/models.py` measures both ways.

    Args:
        mlp (`Callable`):
            Layers that change the last axis only, each token for itself.
        hidden_states (`torch.Tensor` of shape `(batch_size, ..., channels)`):
            Map or tokens.

    Returns:
        `torch.Tensor` of the shape of `hidden_states`.
    """
    if not _pays_in_parts(hidden_states):
        return mlp(hidden_states.flatten(1, -2)).view(hidden_states.shape)
    tokens = hidden_states.flatten(0, -2)[None]
    return _by_parts(lambda part: (mlp(part), None), tokens, 1, TOKENS_AT_ONCE)[0].view(hidden_states.shape)


def apply_attention(
    attend: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor | None]], sequences: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """
    Self-attention of many short sequences, in parts under the conditions of [`apply_mlp`].

    Args:
        attend (`Callable`):
            Attention from `(batch_size, length, channels)` to states of the same shape and to probabilities of shape
            `(batch_size, ...)`, or `None`.
        sequences (`torch.Tensor` of shape `(batch_size, length, channels)`):
            The sequences.

    Returns:
        `tuple`: what `attend` returns for all sequences.
    """
    if not _pays_in_parts(sequences) or sequences.shape[1] > TOKENS_AT_ONCE:
        return attend(sequences)
    return _by_parts(attend, sequences, 0, TOKENS_AT_ONCE // sequences.shape[1])


def _pays_in_parts(states: torch.Tensor) -> bool:
    """Whether to work in parts: without gradients on a CPU, in no graph, with enough tokens."""
    if torch.is_grad_enabled() or states.device.type != "cpu":
        return False
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return math.prod(states.shape[:-1]) > TOKENS_AT_ONCE


def _by_parts(
    function: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor | None]],
    states: torch.Tensor,
    axis: int,
    size: int,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Apply a function to parts of up to `size` along an axis: states of the same shape, and what else it returns."""
    parts = states.tensor_split(-(-states.shape[axis] // size), dim=axis)
    first, other = function(parts[0])
    result, others = first.new_empty(states.shape), [other]
    result.narrow(axis, 0, parts[0].shape[axis]).copy_(first)
    start = parts[0].shape[axis]
    for part in parts[1:]:
        filled, other = function(part)
        result.narrow(axis, start, part.shape[axis]).copy_(filled)
        start += part.shape[axis]
        others.append(other)
    return result, None if other is None else torch.cat([one for one in others if one is not None], dim=axis)


def merge_views(logits: torch.Tensor, view_merging: str, problem_type: str | None) -> torch.Tensor:
    """
    Merge the predictions for several views of each video.

    Args:
        logits (`torch.Tensor` of shape `(batch_size, num_views, num_labels)`):
            One prediction a view.
        view_merging (`str`):
            `"softmax_mean"`: average the views' probabilities, and return logits whose softmax (sigmoid for
            multi-label problems) is that average. `"logits_mean"`: average the logits.
        problem_type (`str`, or `None`):
            `config.problem_type`; with `"regression"` the values are always averaged.

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
    """
    Treat each view of a video as a clip. Images and clips stay as they are.

    Args:
        pixel_values (`torch.Tensor` with 4, 5 or 6 axes):
            Images, clips, or `(batch_size, num_views, num_frames, num_channels, height, width)`.

    Returns:
        `torch.Tensor`: views as `(batch_size * num_views, num_frames, num_channels, height, width)`.
    """
    return pixel_values.flatten(0, 1) if pixel_values.ndim == 6 else pixel_values


def merge_single_views(
    logits: torch.Tensor, pixel_values: torch.Tensor, view_merging: str, problem_type: str | None
) -> torch.Tensor:
    """
    Undo [`as_single_views`] for logits: one row for each video.

    Args:
        logits (`torch.Tensor` of shape `(batch_size * num_views, num_labels)`):
            Predictions for single views.
        pixel_values (`torch.Tensor`):
            Input of [`as_single_views`].
        view_merging (`str`):
            See [`merge_views`].
        problem_type (`str`, or `None`):
            See [`merge_views`].

    Returns:
        `torch.Tensor` of shape `(batch_size, num_labels)`.
    """
    if pixel_values.ndim != 6:
        return logits
    return merge_views(logits.view(*pixel_values.shape[:2], -1), view_merging, problem_type)


class VideoClassificationMixin:
    """
    Classifier on the pooled features of an encoder (`base_model`): dropout and a linear `classifier` for every view,
    then the views are merged. List it before the family's `PreTrainedModel` among the bases.
    """

    config: Any
    base_model: Any
    dropout: nn.Module
    classifier: nn.Module
    loss_function: Any

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Any,
    ) -> ImageClassifierOutput:
        r"""
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_frames, num_channels, height, width)`):
                Normalised clips, or `(batch_size, num_views, num_frames, num_channels, height, width)` for several
                views of each video, merged as `config.view_merging` says.
            labels (`torch.Tensor` of shape `(batch_size,)` or `(batch_size, num_labels)`, *optional*):
                Class indices, or soft labels.
            num_items_in_batch (`torch.Tensor` or `int`, *optional*):
                Labels of the whole optimiser step; see [`scale_to_step`].

        Returns:
            [`ImageClassifierOutput`]: loss, logits of shape `(batch_size, num_labels)`; hidden states and attentions,
            if asked for, are those of the encoder with all views of a video as samples.

        Raises:
            ValueError: a shape does not fit the configuration.
        """
        outputs = self.encode(as_single_views(pixel_values), **kwargs)
        logits = self.classifier(self.dropout(outputs.pooler_output))  # (batch * views, labels)
        logits = merge_single_views(logits, pixel_values, self.config.view_merging, self.config.problem_type)
        loss = None
        if labels is not None:
            loss = self.loss_function(labels, logits, self.config)
            loss = scale_to_step(loss, labels, num_items_in_batch)
        return ImageClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )

    def encode(self, pixel_values: torch.Tensor, **kwargs: Any) -> Any:
        """
        Output of the encoder, of which `pooler_output`, `hidden_states` and `attentions` are used.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_frames, num_channels, height, width)`):
                Normalised clips.
        """
        return self.base_model(pixel_values, return_dict=True, **kwargs)


def classification_loss(
    labels: torch.Tensor, logits: torch.Tensor, config: PreTrainedConfig, **kwargs: Any
) -> torch.Tensor:
    """
    Loss of a classification head. Unlike transformers' own function it does not take soft labels for a multi-label
    problem, and does not change the configuration.

    Args:
        labels (`torch.Tensor` of shape `(batch_size,)` or `(batch_size, num_labels)`):
            Class indices, of which -100 does not count; or probabilities (mixup, label smoothing, distillation) for a
            cross-entropy with soft targets. With `config.problem_type` `"multi_label_classification"` a 0/1 matrix,
            with `"regression"` values.
        logits (`torch.Tensor` of shape `(batch_size, num_labels)`):
            Predictions.
        config ([`~transformers.PreTrainedConfig`]):
            Configuration; only `problem_type` is read.

    Returns:
        `torch.Tensor` of shape `()`: the mean over the batch.

    Raises:
        ValueError: `labels` does not fit `logits` or the problem type, or there is only one class to choose from.
    """
    logits, labels = logits.float(), labels.to(logits.device)
    if config.problem_type == "regression":
        if labels.shape[:1] != logits.shape[:1] or labels.numel() != logits.numel():
            raise ValueError(
                f"`labels` of a regression must have shape {tuple(logits.shape)}, got {tuple(labels.shape)}."
            )
        return F.mse_loss(logits, labels.float().view_as(logits))
    if config.problem_type == "multi_label_classification":
        if labels.shape != logits.shape:
            raise ValueError(
                f"`labels` of a multi-label problem must have shape {tuple(logits.shape)}, got {tuple(labels.shape)}."
            )
        return F.binary_cross_entropy_with_logits(logits, labels.float())
    # transformers' own tests train a single class where the configuration says so explicitly
    if logits.shape[-1] == 1 and config.problem_type != "single_label_classification":
        raise ValueError(
            "`num_labels` must be at least 2 for classification, got 1: the loss of a single class is always 0. Set "
            f"`problem_type` to 'regression' or 'multi_label_classification', got {config.problem_type!r}."
        )
    if labels.is_floating_point():
        if labels.shape != logits.shape:
            raise ValueError(f"Soft `labels` must have shape {tuple(logits.shape)}, got {tuple(labels.shape)}.")
        return F.cross_entropy(logits, labels.float())
    if labels.ndim != 1 or labels.shape[0] != logits.shape[0]:
        raise ValueError(f"`labels` must have shape ({logits.shape[0]},), got {tuple(labels.shape)}.")
    counted = (labels != IGNORED_LABEL).sum().clamp(min=1)
    return F.cross_entropy(logits, labels.long(), reduction="sum", ignore_index=IGNORED_LABEL) / counted


def scale_to_step(
    loss: torch.Tensor, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None
) -> torch.Tensor:
    """
    Scale the mean loss of a pass so that all passes of an optimiser step add up to the mean over the step. The
    `Trainer` of transformers passes `num_items_in_batch` and adds the losses when it accumulates gradients.

    Args:
        loss (`torch.Tensor` of shape `()`):
            Mean over the batch of this pass.
        labels (`torch.Tensor` of shape `(batch_size, ...)`):
            Labels of this pass.
        num_items_in_batch (`torch.Tensor` of shape `()`, `int` or `None`):
            Number of elements of `labels` other than -100 in all passes of the step, as the `Trainer` counts them.
            `None` leaves the loss as it is.

    Returns:
        `torch.Tensor` of the shape of `loss`.
    """
    if num_items_in_batch is None:
        return loss
    return loss * shares_of_step(labels, num_items_in_batch).sum().to(loss.device)


def shares_of_step(labels: torch.Tensor, num_items_in_batch: torch.Tensor | int) -> torch.Tensor:
    """
    Share of each sample in the labels of an optimiser step.

    Args:
        labels (`torch.Tensor` of shape `(batch_size, ...)`):
            Labels of one pass.
        num_items_in_batch (`torch.Tensor` of shape `()` or `int`):
            See [`scale_to_step`].

    Returns:
        `torch.Tensor` of shape `(batch_size,)`: labels of the sample other than -100, divided by those of the step.
    """
    return (labels.view(len(labels), -1) != IGNORED_LABEL).sum(dim=1) / num_items_in_batch
