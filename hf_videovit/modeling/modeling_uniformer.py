"""
UniFormer, version 1 ([Li et al., 2022, video](https://huggingface.co/papers/2201.04676); [image and dense
tasks](https://huggingface.co/papers/2201.09450)): convolution blocks in the first two of four stages, attention blocks
in the last two.

One set of classes serves images (2-D) and video (3-D, joint space-time attention). Behaviour follows the official code
(Sense-X/UniFormer, commit 52a0415) where it and the papers differ.

Between modules a feature map is `(batch_size, channels, [frames,] height, width)`. Inside a stage channels are last,
contiguous in memory: point-wise convolutions and norms are then plain matrix operations, the tokens of attention a
view, and depth-wise 3-D convolutions faster on a CPU (benchmarks/models.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.backbone_utils import BackboneMixin, filter_output_hidden_states
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BackboneOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .configuration_uniformer import UniFormerConfig
from .layers import (
    KeepsStatistics,
    LayerScale,
    apply_mlp,
    apply_to_tokens,
    as_single_views,
    check_pixels,
    classification_loss,
    drop_path_rates,
    eager_attention_forward,
    gather_tokens,
    init_as_torch,
    merge_single_views,
    scale_to_step,
    stable_order,
    start_of,
    starting,
)
from .modeling_uniformer_inflation import StartsFromImageUniFormer
from .modeling_uniformer_maps import (
    MixBox,
    apply_batch_norm,
    apply_convolution,
    last_map_side,
    merge_windows,
    mix_tokens,
    partition_windows,
    pool_scores,
)
from .modeling_uniformer_outputs import UniFormerClassifierOutput, UniFormerModelOutput


PATCH_NORM_EPS = 1e-5  # of patch embeddings and of the class token, unlike all other LayerNorms
HYBRID_PERIOD = 4  # with `attention_type="hybrid"`, every fourth block is global
AUXILIARY_WEIGHT = 0.5  # of the auxiliary logits in evaluation
MIX_BOX_STRIDE = 8  # of stage 4 over stage 1
CLASS_TOKEN_LOSS_WEIGHT = 0.5


# Marks of layers with an initialisation of their own; see `_init_weights`.
TORCH = "torch"  # a convolution with a kernel of one: a linear layer that starts as torch's convolutions do
ZERO = "zero"  # projection of the attention over time
ONE = "one"  # output projection of the attention over time (official code)


TimeAndSpace = tuple[int, int]


def _convolution(
    config: UniFormerConfig,
    in_channels: int,
    out_channels: int,
    kernel: TimeAndSpace,
    stride: TimeAndSpace = (1, 1),
    padding: TimeAndSpace = (0, 0),
    groups: int = 1,
) -> nn.Conv2d | nn.Conv3d:
    """Convolution with sizes in time and in space; an image model has no time."""
    if config.modality == "image":
        return nn.Conv2d(in_channels, out_channels, kernel[1], stride[1], padding[1], groups=groups)
    kernel_3d, stride_3d, padding_3d = ((time, space, space) for time, space in (kernel, stride, padding))
    return nn.Conv3d(in_channels, out_channels, kernel_3d, stride_3d, padding_3d, groups=groups)


class _UniFormerPatchEmbeddings(nn.Module):
    """Non-overlapping patches to channels, then LayerNorm: `(batch, channels, [frames,] height, width)`, halved."""

    def __init__(self, config: UniFormerConfig, stage: int):
        super().__init__()
        in_channels = config.num_channels if stage == 0 else config.hidden_sizes[stage - 1]
        out_channels = config.hidden_sizes[stage]
        if stage == 0:
            kernel, stride, padding = (3, 4), (2, 4), (1, 0)  # half of the frames, rounded up
        elif config.use_temporal_overlap:
            kernel, stride, padding = (3, 2), (1, 2), (1, 0)
        else:
            kernel, stride, padding = (1, 2), (1, 2), (0, 0)
        self.projection = _convolution(config, in_channels, out_channels, kernel, stride=stride, padding=padding)
        self.norm = nn.LayerNorm(out_channels, eps=PATCH_NORM_EPS)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.norm(self.projection(hidden_states).movedim(1, -1)).movedim(-1, 1)


class _UniFormerConvStem(nn.Module):
    """Overlapping convolutions and BatchNorm: two with GELU between them before stage 1, one before the others."""

    def __init__(self, config: UniFormerConfig, stage: int):
        super().__init__()
        norm = nn.BatchNorm3d if config.modality == "video" else nn.BatchNorm2d
        out_channels = config.hidden_sizes[stage]

        def layer(in_channels: int, out_channels: int, temporal_stride: int) -> list[nn.Module]:
            stride = (temporal_stride, 2)
            conv = _convolution(config, in_channels, out_channels, (3, 3), stride=stride, padding=(1, 1))
            return [conv, norm(out_channels)]

        if stage == 0:
            middle = out_channels // 2
            self.layers = nn.Sequential(
                *layer(config.num_channels, middle, 1), nn.GELU(), *layer(middle, out_channels, 2)
            )
        else:
            self.layers = nn.Sequential(*layer(config.hidden_sizes[stage - 1], out_channels, 1))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.layers(hidden_states)


def _depthwise(config: UniFormerConfig, stage: int, kernel: int) -> nn.Conv2d | nn.Conv3d:
    channels, padding = config.hidden_sizes[stage], kernel // 2
    return _convolution(config, channels, channels, (kernel, kernel), padding=(padding, padding), groups=channels)


class _UniFormerMLP(nn.Module):
    def __init__(self, config: UniFormerConfig, stage: int):
        super().__init__()
        width = config.mlp_size(stage)
        self.fc1 = nn.Linear(config.hidden_sizes[stage], width)
        self.activation = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(width, config.hidden_sizes[stage])
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = self.dropout(self.activation(self.fc1(hidden_states)))
        return self.dropout(self.fc2(hidden_states))


# In convolution blocks gradient checkpointing goes around the branches, not the block: computing a BatchNorm twice
# would update its running statistics twice.
class _UniFormerConvMLP(GradientCheckpointingLayer, _UniFormerMLP):
    """The MLP of a convolution block."""

    def __init__(self, config: UniFormerConfig, stage: int):
        super().__init__(config, stage)
        starting(TORCH, self.fc1)
        starting(TORCH, self.fc2)


class _UniFormerConvMixer(GradientCheckpointingLayer):
    """Replaces attention in a convolution block: point-wise, depth-wise, point-wise convolution; no activation."""

    def __init__(self, config: UniFormerConfig, stage: int):
        super().__init__()
        channels = config.hidden_sizes[stage]
        self.conv1 = starting(TORCH, nn.Linear(channels, channels))
        self.depthwise = _depthwise(config, stage, 5)
        self.conv2 = starting(TORCH, nn.Linear(channels, channels))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        mixed = apply_convolution(self.depthwise, apply_to_tokens(self.conv1, hidden_states))
        return apply_to_tokens(self.conv2, mixed)


def _layer_scales(config: UniFormerConfig, stage: int) -> tuple[nn.Module, nn.Module]:
    """One for each branch of a block."""
    if config.layer_scale_init_value <= 0 or (stage < 2 and not config.layer_scale_in_conv_blocks):
        return nn.Identity(), nn.Identity()
    channels, value = config.hidden_sizes[stage], config.layer_scale_init_value
    return LayerScale(channels, value), LayerScale(channels, value)


class _UniFormerConvBlock(nn.Module):
    """Block of stages 1 and 2, on channels-last maps."""

    def __init__(self, config: UniFormerConfig, stage: int, drop_path_rate: float):
        super().__init__()
        channels = config.hidden_sizes[stage]
        self.position = _depthwise(config, stage, 3)
        self.norm1 = nn.BatchNorm1d(channels)
        self.mixer = _UniFormerConvMixer(config, stage)
        self.norm2 = nn.BatchNorm1d(channels)
        self.mlp = _UniFormerConvMLP(config, stage)
        self.layer_scale1, self.layer_scale2 = _layer_scales(config, stage)
        self.drop_path = StochasticDepth(drop_path_rate, "row")

    def forward(self, hidden_states: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> torch.Tensor:
        hidden_states = hidden_states + apply_convolution(self.position, hidden_states)
        hidden_states = hidden_states + self._mix(hidden_states)
        update = apply_mlp(self.mlp, apply_batch_norm(self.norm2, hidden_states))
        return hidden_states + self.drop_path(self.layer_scale2(update))

    def _mix(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """First branch. What it works on ends with this method and not with the block."""
        mixed = self.mixer(apply_batch_norm(self.norm1, hidden_states))
        return self.drop_path(self.layer_scale1(mixed))


class _UniFormerAttention(nn.Module):
    """Self-attention over the second axis of `(batch, tokens, channels)`."""

    def __init__(self, config: UniFormerConfig, stage: int, over_time: bool = False):
        super().__init__()
        self.config = config
        channels = config.hidden_sizes[stage]
        self.num_heads = config.num_heads(stage)
        self.scaling = (channels // self.num_heads) ** -0.5
        self.is_causal = False
        self.attention_dropout = config.attention_probs_dropout_prob
        self.qkv = nn.Linear(channels, 3 * channels, bias=config.qkv_bias)
        self.o_proj = nn.Linear(channels, channels)
        if over_time:
            starting(ZERO, self.qkv)
            starting(ONE, self.o_proj)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def project(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Queries, keys and values `(batch, heads, tokens, head_dim)`."""
        qkv = self.qkv(hidden_states).unflatten(-1, (3, self.num_heads, -1))  # (batch, tokens, 3, heads, head_dim)
        return qkv.permute(2, 0, 3, 1, 4).unbind(0)

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        attention = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
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

    def forward(
        self, hidden_states: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self.attend(*self.project(hidden_states), **kwargs)


class _UniFormerPruningAttention(_UniFormerAttention):
    """
    Attention with a class token in front. It also returns how much the class token attends to each other token.

    That is one row of the probabilities. It is computed separately, so any implementation of attention can be used.
    """

    def forward(  # type: ignore[override]  # one output more
        self, hidden_states: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        query, key, value = self.project(hidden_states)
        context, probabilities = self.attend(query, key, value, **kwargs)
        row = torch.matmul(query[:, :, :1] * self.scaling, key.transpose(-2, -1)).float().softmax(dim=-1)
        return context, probabilities, row[:, :, 0, 1:].mean(dim=1)  # mean over heads: (batch, tokens - 1)


class _UniFormerAttentionBlock(GradientCheckpointingLayer):
    """
    Block of stages 3 and 4, on channels-last maps: attention over all tokens, or within windows.

    Windows do not shift. The map is padded with zeros at the bottom and on the right after the norm, and the padded
    tokens take part as keys, as in the official code.
    """

    def __init__(self, config: UniFormerConfig, stage: int, drop_path_rate: float, windowed: bool = False):
        super().__init__()
        channels = config.hidden_sizes[stage]
        self.window_size = config.window_size if windowed else None
        self.position = _depthwise(config, stage, 3)
        self.norm1 = nn.LayerNorm(channels, eps=config.layer_norm_eps)
        self.attention = _UniFormerAttention(config, stage)
        self.norm2 = nn.LayerNorm(channels, eps=config.layer_norm_eps)
        self.mlp = _UniFormerMLP(config, stage)
        self.layer_scale1, self.layer_scale2 = _layer_scales(config, stage)
        self.drop_path = StochasticDepth(drop_path_rate, "row")

    def forward(self, hidden_states: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> torch.Tensor:
        hidden_states = hidden_states + apply_convolution(self.position, hidden_states)
        hidden_states = hidden_states + self.drop_path(self.layer_scale1(self._attend(hidden_states, **kwargs)))
        return hidden_states + self.drop_path(self.layer_scale2(apply_mlp(self._transform, hidden_states)))

    def _transform(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.mlp(self.norm2(tokens))

    def _attend(self, hidden_states: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> torch.Tensor:
        """Norm and attention of the map. What they work on ends with this method and not with the block."""
        normed = self.norm1(hidden_states)
        if self.window_size is None:
            return self.attention(normed.flatten(1, -2), **kwargs)[0].view(normed.shape)
        context, _ = self.attention(partition_windows(normed, self.window_size), **kwargs)
        return merge_windows(context, self.window_size, normed.shape)


class _UniFormerSplitBlock(_UniFormerAttentionBlock):
    """
    Attention over time at each place, then over space in each frame. The second residual starts from the block's
    input, not from the result of the first (official code).
    """

    def __init__(self, config: UniFormerConfig, stage: int, drop_path_rate: float):
        super().__init__(config, stage, drop_path_rate)
        self.temporal_norm = nn.LayerNorm(config.hidden_sizes[stage], eps=config.layer_norm_eps)
        self.temporal_attention = _UniFormerAttention(config, stage, over_time=True)

    def forward(self, hidden_states: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> torch.Tensor:
        hidden_states = hidden_states + apply_convolution(self.position, hidden_states)
        shape = hidden_states.shape  # (batch, frames, height, width, channels)
        series = self.temporal_norm(hidden_states).permute(0, 2, 3, 1, 4)  # (batch, height, width, frames, channels)
        context, _ = self.temporal_attention(series.flatten(0, 2), **kwargs)
        context = context.view(series.shape).permute(0, 3, 1, 2, 4)
        mixed = hidden_states + self.drop_path(context)
        frames = self.norm1(mixed).flatten(2, 3).flatten(0, 1)  # (batch * frames, height * width, channels)
        context, _ = self.attention(frames, **kwargs)
        hidden_states = hidden_states + self.drop_path(self.layer_scale1(context.view(shape)))
        return hidden_states + self.drop_path(self.layer_scale2(apply_mlp(self._transform, hidden_states)))


class _UniFormerPruningBlock(GradientCheckpointingLayer):
    """
    Block of a light model. Tokens have a running score: how much the class token attended to them so far.

    ```
    order = scores, largest first
    kept, dropped = order[:n], order[n:]                      # n = int(prune_ratio * tokens)
    rep = sum(dropped * score) / sum(score of dropped)        # one token that stands for the dropped ones
    class_token, kept, rep = block([class_token, kept, rep])
    dropped += what the two branches added to rep             # the same for all of them
    score of kept = (1 - trade_off) * score + trade_off * attention of the class token
    ```
    """

    def __init__(
        self, config: UniFormerConfig, stage: int, drop_path_rate: float, prune_ratio: float, trade_off: float
    ):
        super().__init__()
        channels = config.hidden_sizes[stage]
        self.prune_ratio, self.trade_off = prune_ratio, trade_off
        self.position = _depthwise(config, stage, 3)
        self.norm1 = nn.LayerNorm(channels, eps=config.layer_norm_eps)
        self.attention = _UniFormerPruningAttention(config, stage)
        self.norm2 = nn.LayerNorm(channels, eps=config.layer_norm_eps)
        self.mlp = _UniFormerMLP(config, stage)
        self.layer_scale1, self.layer_scale2 = _layer_scales(config, stage)
        self.drop_path = StochasticDepth(drop_path_rate, "row")

    def forward(
        self,
        hidden_states: torch.Tensor,
        class_token: torch.Tensor,
        scores: torch.Tensor | None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Args:
            hidden_states (`torch.Tensor` of shape `(batch_size, [frames,] height, width, channels)`):
                Map.
            class_token (`torch.Tensor` of shape `(batch_size, 1, channels)`):
                Class token.
            scores (`torch.Tensor` of shape `(batch_size, tokens)`, or `None`):
                Scores of the tokens in float32; `None` before the first block.

        Returns:
            `tuple`: map, class token and scores, updated, in the order of the map.
        """
        hidden_states = hidden_states + apply_convolution(self.position, hidden_states)
        tokens = hidden_states.flatten(1, -2)
        if self.prune_ratio == 1 or scores is None:
            sequence, attended, _ = self._update(torch.cat((class_token, tokens), dim=1), **kwargs)
            class_token, tokens = sequence[:, :1], sequence[:, 1:]
            scores = attended if scores is None else torch.lerp(scores, attended, self.trade_off)
        else:
            class_token, tokens, scores = self._update_kept(class_token, tokens, scores, **kwargs)
        return tokens.reshape(hidden_states.shape), class_token, scores

    def _update(
        self, sequence: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Both branches on `(batch, tokens, channels)`; also the class token's attention, and what was added last."""
        context, _, attended = self.attention(self.norm1(sequence), **kwargs)
        context = self.layer_scale1(context)
        sequence = sequence + self.drop_path(context)
        update = self.layer_scale2(self.mlp(self.norm2(sequence)))
        added = context[:, -1:] + update[:, -1:]  # without stochastic depth (official code)
        return sequence + self.drop_path(update), attended, added

    def _update_kept(
        self,
        class_token: torch.Tensor,
        tokens: torch.Tensor,
        scores: torch.Tensor,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        num_kept = int(tokens.shape[1] * self.prune_ratio)
        order = stable_order(scores)
        tokens, scores = gather_tokens(tokens, order), scores.gather(1, order)
        kept, dropped = tokens[:, :num_kept], tokens[:, num_kept:]
        weights = scores[:, num_kept:, None]
        summary = (dropped * weights).sum(dim=1, keepdim=True) / weights.sum(dim=1, keepdim=True)
        sequence = torch.cat((class_token, kept, summary.to(tokens.dtype)), dim=1)
        sequence, attended, added = self._update(sequence, **kwargs)
        tokens = torch.cat((sequence[:, 1:-1], dropped + added), dim=1)
        kept_scores = torch.lerp(scores[:, :num_kept], attended[:, :-1], self.trade_off)
        scores = torch.cat((kept_scores, scores[:, num_kept:]), dim=1)
        back = order.argsort(dim=1)
        return sequence[:, :1], gather_tokens(tokens, back), scores.gather(1, back)


class _UniFormerStage(nn.Module):
    """The blocks of a stage: `(batch, channels, [frames,] height, width)` in and out."""

    def __init__(self, blocks: Sequence[nn.Module]):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, hidden_states: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> torch.Tensor:
        hidden_states = hidden_states.movedim(1, -1).contiguous()
        for block in self.blocks:
            hidden_states = block(hidden_states, **kwargs)
        return hidden_states.movedim(-1, 1)


class _UniFormerPruningStage(_UniFormerStage):
    """Stage 3 or 4 of a light model; the class token and the scores go along with the map."""

    def forward(  # type: ignore[override]  # a state besides the map
        self,
        hidden_states: torch.Tensor,
        class_token: torch.Tensor,
        scores: torch.Tensor | None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        hidden_states = hidden_states.movedim(1, -1).contiguous()
        for block in self.blocks:
            hidden_states, class_token, scores = block(hidden_states, class_token, scores, **kwargs)
        return hidden_states.movedim(-1, 1), class_token, scores


def _build_stage(config: UniFormerConfig, stage: int) -> _UniFormerStage:
    first = sum(config.depths[:stage])
    rates = drop_path_rates(config.drop_path_rate, sum(config.depths))[first : first + config.depths[stage]]
    if stage < 2:
        return _UniFormerStage([_UniFormerConvBlock(config, stage, rate) for rate in rates])
    if config.use_token_pruning:
        return _UniFormerPruningStage(
            [
                _UniFormerPruningBlock(config, stage, rate, *numbers)
                for rate, numbers in zip(rates, config.pruning(stage), strict=True)
            ]
        )
    if config.use_split_attention:
        return _UniFormerStage([_UniFormerSplitBlock(config, stage, rate) for rate in rates])
    return _UniFormerStage(
        [
            _UniFormerAttentionBlock(config, stage, rate, stage == 2 and is_windowed(config.attention_type, index))
            for index, rate in enumerate(rates)
        ]
    )


def is_windowed(attention_type: str, index: int) -> bool:
    """
    Whether a block of stage 3 attends within windows.

    Args:
        attention_type (`str`):
            `config.attention_type`: `"global"`, `"window"` or `"hybrid"`.
        index (`int`):
            Index of the block in the stage, from 0.
    """
    return attention_type == "window" or (attention_type == "hybrid" and (index + 1) % HYBRID_PERIOD != 0)


@dataclass
class _UniFormerStageRecorder(OutputRecorder):
    """
    Records a hidden state a stage.

    Args:
        num_hidden_layers_key (`str`, *optional*, defaults to `"num_stages"`):
            Attribute of the configuration that says how many there are, for negative indices. A field of
            `OutputRecorder` itself from transformers 5.23 on; releases before select no hidden states and ignore it.
    """

    num_hidden_layers_key: str = "num_stages"


class UniFormerPreTrainedModel(KeepsStatistics, PreTrainedModel):
    """Weight initialisation of the official code, and what transformers and a trainer must know of the models."""

    config: UniFormerConfig
    base_model_prefix = "uniformer"
    main_input_name = "pixel_values"
    input_modalities = ("image", "video")
    supports_gradient_checkpointing = True
    _no_split_modules = ["_UniFormerConvBlock", "_UniFormerAttentionBlock", "_UniFormerPruningBlock"]
    _input_embed_layer = "patch_embeddings"
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {
        "hidden_states": _UniFormerStageRecorder(_UniFormerStage, index=0),
        "attentions": OutputRecorder(_UniFormerAttention, index=1),
    }

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        start = start_of(module)
        if isinstance(module, nn.Conv2d | nn.Conv3d) or (start == TORCH and isinstance(module, nn.Linear)):
            init_as_torch(module)
        elif start == ZERO:
            init.zeros_(module.weight)
        elif start == ONE:
            init.ones_(module.weight)
        elif isinstance(module, nn.Linear):
            init.trunc_normal_(module.weight, std=self.config.initializer_range)
        elif isinstance(module, LayerScale):
            init.constant_(module.gamma, module.init_value)
        elif isinstance(module, UniFormerModel) and module.class_token is not None:
            init.zeros_(module.class_token)

    def layer_groups(self) -> list[tuple[str, ...]]:
        """
        Prefixes of parameter names a depth, for layer-wise learning-rate decay: the first patch embedding, each block
        (with the patch embedding before it), and last everything above them.
        """
        base = "" if isinstance(self, UniFormerModel) else f"{self.base_model_prefix}."
        groups: list[tuple[str, ...]] = [(f"{base}patch_embeddings.0.", f"{base}class_token")]
        for stage, depth in enumerate(self.config.depths):
            for index in range(depth):
                before = (f"{base}patch_embeddings.{stage}.",) if stage and not index else ()
                groups.append((f"{base}stages.{stage}.blocks.{index}.", *before))
        return [*groups, ("",)]

    def no_weight_decay(self) -> set[str]:
        """Parameters with more than one axis that the official recipes do not decay: none, kernels included."""
        return set()


class UniFormerModel(StartsFromImageUniFormer, UniFormerPreTrainedModel):
    """
    The four stages.

    Args:
        config ([`UniFormerConfig`]):
            Configuration.
        add_pooling_layer (`bool`, *optional*, defaults to `True`):
            `False` leaves out the final norm and the mean, as dense prediction does.
    """

    def __init__(self, config: UniFormerConfig, add_pooling_layer: bool = True):
        super().__init__(config)
        convolutional = [config.stem == "conv" or (config.stem == "conv_first" and not stage) for stage in range(4)]
        self.patch_embeddings = nn.ModuleList(
            (_UniFormerConvStem if convolutional[stage] else _UniFormerPatchEmbeddings)(config, stage)
            for stage in range(4)
        )
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.stages = nn.ModuleList(_build_stage(config, stage) for stage in range(4))
        self.norm: Any = nn.BatchNorm1d(config.hidden_size) if add_pooling_layer else None
        pruned, width = config.use_token_pruning, config.hidden_sizes[2]
        self.class_token = nn.Parameter(torch.zeros(1, 1, width)) if pruned else None
        self.class_upsample: Any = nn.Linear(width, config.hidden_size) if pruned else None
        normed = pruned and add_pooling_layer
        self.class_norm: Any = nn.LayerNorm(config.hidden_size, eps=PATCH_NORM_EPS) if normed else None
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        pixel_values: torch.Tensor,
        mix_box: MixBox | None = None,
        output_feature_maps: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> UniFormerModelOutput:
        r"""
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, [num_frames,] num_channels, height, width)`):
                Normalised images, or clips in a video model.
            mix_box (`tuple[int, int, int, int]`, *optional*):
                MixToken: top, left, bottom and right of a box on the map of stage 1 in which each sample takes the
                embeddings of its mirror image in the batch (the last's, for the first).
            output_feature_maps (`bool`, *optional*, defaults to `False`):
                Whether to return the maps of stages 1 to 3. Unlike hidden states they are part of a compiled graph.

        Returns:
            [`UniFormerModelOutput`]

        Raises:
            ValueError: a shape does not fit the configuration, or is too small for four stages.
        """
        self._check_pixels(pixel_values)
        hidden_states = pixel_values.to(self.dtype)
        if pixel_values.ndim == 5:
            hidden_states = hidden_states.transpose(1, 2)  # (batch, channels, frames, height, width)
        hidden_states = mix_tokens(self.dropout(self.patch_embeddings[0](hidden_states)), mix_box)
        hidden_states = self.stages[0](hidden_states, **kwargs)
        maps, class_token = [], None
        unpruned = len(self.stages) if self.class_token is None else 2
        for embed, stage in zip(self.patch_embeddings[1:unpruned], self.stages[1:unpruned], strict=True):
            if output_feature_maps:
                maps.append(hidden_states)
            hidden_states = stage(embed(hidden_states), **kwargs)
        if self.class_token is not None:
            second = hidden_states
            third, hidden_states, class_token = self._run_pruned_stages(second, self.class_token, **kwargs)
            if output_feature_maps:
                maps += [second, third]
        hidden_states = hidden_states.flatten(2).transpose(1, 2)  # (batch, tokens, channels)
        feature_maps = tuple(maps) if output_feature_maps else None
        if self.norm is None:
            return UniFormerModelOutput(last_hidden_state=hidden_states, feature_maps=feature_maps)
        hidden_states = apply_batch_norm(self.norm, hidden_states)
        return UniFormerModelOutput(
            last_hidden_state=hidden_states,
            pooler_output=hidden_states.mean(dim=1),
            class_token=None if class_token is None else self.class_norm(class_token[:, 0]),
            feature_maps=feature_maps,
        )

    def _run_pruned_stages(
        self, hidden_states: torch.Tensor, class_token: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Stages 3 and 4 of a light model: their maps and the class token `(batch, 1, channels)`."""
        hidden_states = self.patch_embeddings[2](hidden_states)
        grid, class_token = hidden_states.shape[2:], class_token.expand(hidden_states.shape[0], -1, -1)
        third, class_token, scores = self.stages[2](hidden_states, class_token, None, **kwargs)
        hidden_states, scores = self.patch_embeddings[3](third), pool_scores(scores, grid)
        hidden_states, class_token, _ = self.stages[3](
            hidden_states, self.class_upsample(class_token), scores, **kwargs
        )
        return third, hidden_states, class_token

    def _check_pixels(self, pixel_values: torch.Tensor) -> None:
        """ValueError for the wrong number of axes or channels, and for a map that would have no tokens left."""
        video = self.config.modality == "video"
        axes = ["batch_size", *(["num_frames"] if video else []), "num_channels", "height", "width"]
        if pixel_values.ndim != len(axes) or pixel_values.shape[-3] != self.config.num_channels:
            raise ValueError(
                f"`pixel_values` must have shape ({', '.join(axes)}) with {self.config.num_channels} channels in a "
                f"model with `modality={self.config.modality!r}`, got {tuple(pixel_values.shape)}."
            )
        check_pixels(pixel_values)
        if min(last_map_side(side, self.config.stem) for side in pixel_values.shape[-2:]) < 1:
            raise ValueError(
                "`pixel_values` must be at least 32 pixels high and wide to leave a token in stage 4, got "
                f"{tuple(pixel_values.shape)}."
            )


class UniFormerForImageClassification(UniFormerPreTrainedModel):
    """
    Image classifier on the mean of all tokens; with `config.use_auxiliary_head` also one on every token (token
    labelling, [Jiang et al., 2021](https://huggingface.co/papers/2104.10858)).

    ```
    evaluation: logits = classifier(mean of tokens) + 0.5 * max over tokens of auxiliary(token)
    training:   loss = CE(classifier(mean), mixed labels) + mean over tokens of CE(auxiliary(token), its label)
    ```
    The labels of a sample are mixed with those of its mirror image in the batch by the share of the box. The logits in
    the box are moved back before they are compared with the labels of the tokens. A light model
    (`config.use_token_pruning`) is trained on the mean of two losses: of the tokens' mean and of the class token.
    Evaluation ignores the class token.

    Args:
        config ([`UniFormerConfig`]):
            Configuration with `modality="image"`.

    Raises:
        ValueError: `config.modality` is not `"image"`.
    """

    def __init__(self, config: UniFormerConfig):
        super().__init__(config)
        if config.modality != "image":
            raise ValueError(f"`modality` must be 'image' for {type(self).__name__}, got {config.modality!r}.")
        self.num_labels = config.num_labels
        self.loss_function = classification_loss
        self.uniformer = UniFormerModel(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        auxiliary = config.use_auxiliary_head
        self.auxiliary_classifier: Any = nn.Linear(config.hidden_size, config.num_labels) if auxiliary else None
        pruned = config.use_token_pruning
        self.class_classifier: Any = nn.Linear(config.hidden_size, config.num_labels) if pruned else None
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        token_labels: torch.Tensor | None = None,
        mix_box: MixBox | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> UniFormerClassifierOutput:
        r"""
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
                Normalised images of any size from 32 pixels; also clips of one frame,
                `(batch_size, 1, num_channels, height, width)`, as the training loop reads them.
            labels (`torch.Tensor` of shape `(batch_size,)` or `(batch_size, num_labels)`, *optional*):
                Class indices, or soft labels.
            token_labels (`torch.Tensor` of shape `(batch_size, sequence_length, num_labels)`, *optional*):
                Soft labels of the tokens of stage 4 in row, column order; `labels` for all of them by default.
            mix_box (`tuple[int, int, int, int]`, *optional*):
                MixToken's box, in training mode with an auxiliary head: see [`UniFormerModel`].
            num_items_in_batch (`torch.Tensor` or `int`, *optional*):
                Labels of the whole optimiser step; see [`scale_to_step`].

        Returns:
            [`UniFormerClassifierOutput`]

        Raises:
            ValueError: a shape does not fit the configuration, or the model cannot use an argument.
        """
        if self.auxiliary_classifier is None and not (token_labels is None and mix_box is None):
            given = "token_labels" if mix_box is None else "mix_box"
            raise ValueError(f"`{given}` needs a model with `use_auxiliary_head=True`.")
        if mix_box is not None and not self.training:
            raise ValueError(f"`mix_box` is for training mode, got {mix_box} in evaluation.")
        if pixel_values.ndim == 5 and pixel_values.shape[1] == 1:
            pixel_values = pixel_values.squeeze(1)
        outputs = self.uniformer(pixel_values, mix_box=mix_box, return_dict=True, **kwargs)
        result = UniFormerClassifierOutput(
            logits=self.classifier(outputs.pooler_output),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        box = None if mix_box is None else _stage_4_box(mix_box)
        if self.auxiliary_classifier is not None:
            grid = [last_map_side(side, self.config.stem) for side in pixel_values.shape[-2:]]
            self._add_token_logits(result, outputs.last_hidden_state, box, grid)
        if self.class_classifier is not None and self.training:
            result.class_token_logits = self.class_classifier(outputs.class_token)
        if labels is not None:
            loss = self._loss(result, labels, token_labels, box)
            result.loss = scale_to_step(loss, labels, num_items_in_batch)
        return result

    def _add_token_logits(
        self, result: UniFormerClassifierOutput, tokens: torch.Tensor, box: MixBox | None, grid: list[int]
    ) -> None:
        """Add the auxiliary head's logits: moved back in training, added to the classifier's in evaluation."""
        token_logits = self.auxiliary_classifier(tokens)
        if not self.training:
            result.logits = result.logits + AUXILIARY_WEIGHT * token_logits.amax(dim=1)
        elif box is not None:
            token_logits = mix_tokens(token_logits.unflatten(1, grid), box, axes=(1, 2)).flatten(1, 2)
        result.token_logits = token_logits

    def _loss(
        self,
        result: UniFormerClassifierOutput,
        labels: torch.Tensor,
        token_labels: torch.Tensor | None,
        box: MixBox | None,
    ) -> torch.Tensor:
        """See the class; `box` is on the map of stage 4."""
        if not self.training:
            return self.loss_function(labels, result.logits, self.config)
        if result.class_token_logits is not None:
            return _class_token_loss(self.loss_function, labels, result, self.config)
        if result.token_logits is None:
            return self.loss_function(labels, result.logits, self.config)
        if not labels.is_floating_point():
            labels = F.one_hot(labels, self.num_labels).to(result.logits.dtype)
        num_tokens = result.token_logits.shape[1]
        if token_labels is None:
            token_labels = labels[:, None].expand(-1, num_tokens, -1)
        if box is not None:
            share = (box[2] - box[0]) * (box[3] - box[1]) / num_tokens
            labels = (1 - share) * labels + share * labels.flip(0)
        if token_labels.shape != result.token_logits.shape:
            raise ValueError(
                f"`token_labels` must have shape {tuple(result.token_logits.shape)}, got {tuple(token_labels.shape)}."
            )
        dense = self.loss_function(token_labels.flatten(0, 1), result.token_logits.flatten(0, 1), self.config)
        return self.loss_function(labels, result.logits, self.config) + dense


def _stage_4_box(mix_box: MixBox) -> MixBox:
    """A box on the map of stage 1 on that of stage 4, edges rounded down (official code)."""
    top, left, bottom, right = (side // MIX_BOX_STRIDE for side in mix_box)
    return top, left, bottom, right


def _class_token_loss(
    loss_function: Callable[..., torch.Tensor],
    labels: torch.Tensor,
    result: UniFormerClassifierOutput,
    config: UniFormerConfig,
) -> torch.Tensor:
    """The loss of a light model in training: half from the class token."""
    of_class_token = loss_function(labels, result.class_token_logits, config)
    of_tokens = loss_function(labels, result.logits, config)
    return torch.lerp(of_tokens, of_class_token, CLASS_TOKEN_LOSS_WEIGHT)


class UniFormerForVideoClassification(StartsFromImageUniFormer, UniFormerPreTrainedModel):
    """
    Video classifier on the mean of all tokens. A light model (`config.use_token_pruning`) is trained on the mean of
    two losses: of the tokens' mean and of the class token. Evaluation ignores the class token.

    Args:
        config ([`UniFormerConfig`]):
            Configuration with `modality="video"`.

    Raises:
        ValueError: `config.modality` is not `"video"`.
    """

    def __init__(self, config: UniFormerConfig):
        super().__init__(config)
        if config.modality != "video":
            raise ValueError(f"`modality` must be 'video' for {type(self).__name__}, got {config.modality!r}.")
        self.num_labels = config.num_labels
        self.loss_function = classification_loss
        self.uniformer = UniFormerModel(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        pruned = config.use_token_pruning
        self.class_classifier: Any = nn.Linear(config.hidden_size, config.num_labels) if pruned else None
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> UniFormerClassifierOutput:
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
            [`UniFormerClassifierOutput`]: hidden states and attentions, if asked for, have a first axis of
            `batch_size * num_views`.

        Raises:
            ValueError: a shape does not fit the configuration.
        """
        views = as_single_views(pixel_values)
        outputs = self.uniformer(views, return_dict=True, **kwargs)
        result = UniFormerClassifierOutput(
            logits=self._merge(self.classifier(outputs.pooler_output), pixel_values),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        if self.class_classifier is not None and self.training:
            result.class_token_logits = self._merge(self.class_classifier(outputs.class_token), pixel_values)
        if labels is not None:
            if result.class_token_logits is not None:
                loss = _class_token_loss(self.loss_function, labels, result, self.config)
            else:
                loss = self.loss_function(labels, result.logits, self.config)
            result.loss = scale_to_step(loss, labels, num_items_in_batch)
        return result

    def _merge(self, logits: torch.Tensor, pixel_values: torch.Tensor) -> torch.Tensor:
        """Views of a video to one prediction, where there are several."""
        return merge_single_views(logits, pixel_values, self.config.view_merging, self.config.problem_type)


class UniFormerBackbone(BackboneMixin, UniFormerPreTrainedModel):
    """
    Feature maps of an image model for dense prediction, at strides 4, 8, 16 and 32 for images of any size.

    Each output map is normalised by a LayerNorm of its own; the next stage gets the map without it. The map of
    `"stem"`, the input of stage 1, is not normalised.

    Args:
        config ([`UniFormerConfig`]):
            Configuration with `modality="image"`.

    Raises:
        ValueError: `config.modality` is not `"image"`.
    """

    def __init__(self, config: UniFormerConfig):
        super().__init__(config)
        if config.modality != "image":
            raise ValueError(f"`modality` must be 'image' for {type(self).__name__}, got {config.modality!r}.")
        self.num_features = [config.hidden_sizes[0], *config.hidden_sizes]
        self.uniformer = UniFormerModel(config, add_pooling_layer=False)
        self.norms = nn.ModuleDict(
            {
                name: nn.LayerNorm(channels, eps=config.layer_norm_eps)
                for name, channels in zip(self.out_features, self.channels)
                if name != "stem"
            }
        )
        self.post_init()

    @can_return_tuple
    @filter_output_hidden_states
    def forward(self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> BackboneOutput:
        r"""
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
                Normalised images of any size from 32 pixels. Sides that are not a multiple of 32 are cropped by the
                patch embeddings.

        Returns:
            [`BackboneOutput`]: maps of shape `(batch_size, channels, height, width)` of `config.out_features`.

        Raises:
            ValueError: a shape does not fit the configuration.

        Example:

        ```python
        >>> import torch
        >>> from transformers import AutoBackbone

        >>> from hf_videovit import UniFormerConfig

        >>> config = UniFormerConfig.from_size("small", modality="image", out_indices=[1, 2, 3, 4])
        >>> maps = AutoBackbone.from_config(config)(torch.rand(1, 3, 64, 96)).feature_maps
        >>> [list(one.shape) for one in maps]
        [[1, 64, 16, 24], [1, 128, 8, 12], [1, 320, 4, 6], [1, 512, 2, 3]]
        ```"""
        outputs = self.uniformer(pixel_values, return_dict=True, **kwargs)
        maps = {name: one for name, one in zip(self.stage_names, outputs.hidden_states) if name in self.out_features}
        for name in maps:
            if name != "stem":
                maps[name] = self.norms[name](maps[name].movedim(1, -1)).movedim(-1, 1)
        return BackboneOutput(
            feature_maps=tuple(maps.values()), hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


__all__ = [
    "UniFormerBackbone",
    "UniFormerForImageClassification",
    "UniFormerForVideoClassification",
    "UniFormerModel",
    "UniFormerPreTrainedModel",
]
