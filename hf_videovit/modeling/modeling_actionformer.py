"""
ActionFormer ([Zhang et al., 2022](https://huggingface.co/papers/2202.07925)): when actions happen in long videos.

The input is a sequence of features, one for each window of a video. A pyramid of attention blocks halves it level by
level; each step of each level is a point that scores every class and says how far before and after it the action
starts and ends. Behaviour follows the official code (happyharrycn/actionformer_release, commit 61ea7eb); a
configuration can also describe OpenTAD's variant and TriDet.

Axes: `steps` is the length of a sequence, `points` the steps of all levels one after the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, can_return_tuple, logging
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .configuration_actionformer import ActionFormerConfig
from .layers import LayerScale, init_as_torch, sinusoid_table
from .modeling_actionformer_blocks import (
    BLOCKS,
    ActionFormerAttention,
    ActionFormerConv1d,
    PyramidBlock,
    RelativePositions,
    SGPConv1d,
    recomputed,
)
from .modeling_actionformer_losses import Labels, localization_losses, make_points, make_targets


logger = logging.get_logger(__name__)

LONGEST_STRETCH = 4  # sequences of more than this many times `max_sequence_length` are warned of
EMPTY_PRIOR = 1e-6  # probability that a fresh classifier gives to a class without training examples


@dataclass
class ActionFormerModelOutput(ModelOutput):
    """
    Output of [`ActionFormerModel`].

    Args:
        last_hidden_state (`torch.Tensor` of shape `(batch_size, steps, neck_hidden_size)`):
            The finest of `feature_maps`.
        feature_maps (`tuple[torch.Tensor]`, each of shape `(batch_size, steps / stride, neck_hidden_size)`):
            The levels that the heads see, finest first.
        feature_masks (`tuple[torch.LongTensor]`, each of shape `(batch_size, steps / stride)`):
            1 where a sequence has a step.
        hidden_states (`tuple[torch.Tensor]`, *optional*):
            Embeddings and output of each block, of shapes `(batch_size, steps / stride, hidden_size)`.
        attentions (`tuple[torch.Tensor]`, *optional*):
            Probabilities of each block, of shape `(batch_size, num_attention_heads, steps / stride, window)`: of the
            offsets in an odd window, or of all steps.
    """

    last_hidden_state: torch.Tensor | None = None
    feature_maps: tuple[torch.Tensor, ...] | None = None
    feature_masks: tuple[torch.Tensor, ...] | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class TemporalActionLocalizationOutput(ModelOutput):
    """
    Output of a model for temporal action localisation.

    Args:
        loss (`torch.Tensor` of shape `()`, *optional*):
            Sum of the losses.
        loss_dict (`dict[str, torch.Tensor]`, *optional*):
            `classification`, and `regression` before its weight.
        logits (`torch.Tensor` of shape `(batch_size, points, num_labels)`):
            Scores before the sigmoid; 0 beyond the end of a sequence.
        pred_offsets (`torch.Tensor` of shape `(batch_size, points, 2)`):
            Distances from a point to start and end, at least 0, in strides of its level. With a trident head they have
            shape `(batch_size, points, num_labels, 2)`.
        points (`torch.Tensor` of shape `(points, 4)`):
            Position in steps, lower and upper end of the level's range, stride.
        point_mask (`torch.LongTensor` of shape `(batch_size, points)`):
            1 where a sequence has a step.
        hidden_states (`tuple[torch.Tensor]`, *optional*):
            See [`ActionFormerModelOutput`].
        attentions (`tuple[torch.Tensor]`, *optional*):
            See [`ActionFormerModelOutput`].
    """

    loss: torch.Tensor | None = None
    loss_dict: dict[str, torch.Tensor] | None = None
    logits: torch.Tensor | None = None
    pred_offsets: torch.Tensor | None = None
    points: torch.Tensor | None = None
    point_mask: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class _ConvTower(nn.Module):
    """Masked convolutions, each with its norm (or a bias) and ReLU."""

    def __init__(self, config: ActionFormerConfig, sizes: Sequence[int], kernel_size: int, use_norm: bool):
        super().__init__()
        self.masks_again = config.padding_mode != "actionformer"
        self.convs = nn.ModuleList(
            ActionFormerConv1d(narrow, wide, kernel_size, bias=not use_norm) for narrow, wide in zip(sizes, sizes[1:])
        )
        self.norms = nn.ModuleList(
            nn.LayerNorm(size, eps=config.conv_norm_eps) if use_norm else nn.Identity() for size in sizes[1:]
        )

    def forward(self, hidden_states: torch.Tensor, mask: torch.Tensor, last: nn.Module | None = None) -> torch.Tensor:
        """`last` is a layer that follows, if there is one."""
        if not len(self.convs):
            return hidden_states if last is None else last(hidden_states)
        hidden_states = self.convs[0](hidden_states)
        for norm, following in zip(self.norms, [*self.convs[1:], last]):
            step = partial(self._activate, norm, following)
            hidden_states = recomputed(step, hidden_states * mask, mask, training=self.training)
        return hidden_states

    def _activate(
        self, norm: nn.Module, following: nn.Module | None, hidden_states: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """Norm, ReLU and the layer after them."""
        hidden_states = F.relu(norm(hidden_states))
        if self.masks_again:
            hidden_states = hidden_states * mask
        return hidden_states if following is None else following(hidden_states)


class _Positions(nn.Module):
    """Table of sines and cosines, stretched to sequences that are longer."""

    table: torch.Tensor

    def __init__(self, config: ActionFormerConfig):
        super().__init__()
        self.shape = (config.max_sequence_length, config.hidden_size)
        self.of_each_sequence = config.padding_mode == "zeros"
        self.register_buffer("table", self.make_table(), persistent=False)

    def make_table(self) -> torch.Tensor:
        return sinusoid_table(*self.shape) / self.shape[1] ** 0.5

    def forward(self, hidden_states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        steps, longest = hidden_states.shape[1], self.shape[0]
        if steps <= longest:
            return hidden_states + (self.table[:steps] * mask).to(hidden_states.dtype)
        if self.training:
            raise ValueError(
                f"`features` must have at most {longest} steps (`max_sequence_length`) to train with "
                f"`use_absolute_positions`, got {steps}."
            )
        if steps > LONGEST_STRETCH * longest and not torch.compiler.is_compiling():
            logger.warning_once(
                f"A sequence of {steps} steps is more than {LONGEST_STRETCH} times as long as those of the training "
                f"({longest}); its absolute positions are stretched."
            )
        # linear interpolation without aligned corners; padding must not change it unless the official code's does
        length = mask.sum(dim=1) if self.of_each_sequence else mask.new_full((1, 1), steps, dtype=torch.long)
        scale = longest / length.clamp(min=longest)  # (batch, 1)
        places = (torch.arange(steps, device=mask.device) + 0.5) * scale - 0.5
        places = places.clamp(0, longest - 1)
        before = places.floor().long()
        share = (places - before)[..., None]
        positions = torch.lerp(self.table[before], self.table[(before + 1).clamp(max=longest - 1)], share)
        return hidden_states + (positions * mask).to(hidden_states.dtype)


class _Embeddings(nn.Module):
    """Projection of each stream of features, convolutions, and positions."""

    def __init__(self, config: ActionFormerConfig):
        super().__init__()
        self.feature_sizes = config.feature_sizes
        projected = config.feature_projection_sizes or ()
        self.projections = nn.ModuleList(nn.Linear(*sizes) for sizes in zip(self.feature_sizes, projected))
        sizes = [sum(projected or self.feature_sizes), *[config.hidden_size] * config.num_embedding_layers]
        self.tower = _ConvTower(config, sizes, config.embedding_kernel_size, config.use_embedding_norm)
        self.positions = _Positions(config) if config.use_absolute_positions else None

    def forward(self, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self.projections:
            streams = features.split(self.feature_sizes, dim=-1)
            features = torch.cat([project(one) for project, one in zip(self.projections, streams)], dim=-1)
        hidden_states = self.tower(features * mask, mask)
        return hidden_states if self.positions is None else self.positions(hidden_states, mask)


class _Neck(nn.Module):
    """From the pyramid to what the heads see: a norm a level, after a top-down path in a feature pyramid network."""

    def __init__(self, config: ActionFormerConfig):
        super().__init__()
        size, levels = config.neck_hidden_size or config.hidden_size, config.num_head_levels
        self.start, self.zero_padding = config.neck_start_level, config.padding_mode == "zeros"
        bias, fpn = not config.use_neck_norm, config.neck_type == "fpn"
        self.lateral_convs = nn.ModuleList(
            nn.Linear(config.hidden_size, size, bias=bias) for _ in range(levels if fpn else 0)
        )
        self.fpn_convs = nn.ModuleList(
            ActionFormerConv1d(size, size, 3, groups=size, bias=bias) for _ in range(levels if fpn else 0)
        )
        self.norms = nn.ModuleList(
            nn.LayerNorm(size, eps=config.conv_norm_eps) if config.use_neck_norm else nn.Identity()
            for _ in range(levels)
        )

    def forward(self, levels: Sequence[torch.Tensor], masks: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        levels = levels[self.start :]
        if self.lateral_convs:
            levels = self._fused(levels, masks)
        normed = [norm(one) for norm, one in zip(self.norms, levels)]
        return [one * mask for one, mask in zip(normed, masks)] if self.zero_padding else normed

    def _fused(self, levels: Sequence[torch.Tensor], masks: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        lateral = [conv(one) * mask for conv, one, mask in zip(self.lateral_convs, levels, masks)]
        for fine in range(len(lateral) - 2, -1, -1):
            coarse = lateral[fine + 1].repeat_interleave(2, dim=1)[:, : lateral[fine].shape[1]]
            lateral[fine] = lateral[fine] + coarse
        if self.zero_padding:  # the last coarse step may reach beyond the end
            lateral = [one * mask for one, mask in zip(lateral, masks)]
        return [conv(one) * mask for conv, one, mask in zip(self.fpn_convs, lateral, masks)]


class _OutputConv(ActionFormerConv1d):
    """Last convolution of a head."""


class _ClassifierConv(_OutputConv):
    """Last convolution of a classifier: it starts with the prior probability of each class."""


class _ClassificationHead(nn.Module):
    """A score of each class for each point."""

    def __init__(self, config: ActionFormerConfig, kernel_size: int):
        super().__init__()
        sizes = [
            config.neck_hidden_size or config.hidden_size,
            *[config.head_hidden_size] * (config.num_head_layers - 1),
        ]
        self.tower = _ConvTower(config, sizes, kernel_size, config.use_head_norm)
        self.classifier = _ClassifierConv(sizes[-1], config.num_labels, kernel_size)

    def forward(self, levels: Sequence[torch.Tensor], masks: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [self.tower(one, mask, self.classifier) * mask for one, mask in zip(levels, masks)]


class _LevelScale(nn.Module):
    """A learnt factor of the offsets of a level."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, offsets: torch.Tensor) -> torch.Tensor:
        return offsets * self.scale


class _OffsetHead(nn.Module):
    """Distances to start and end of each point, or with bins the scores of TriDet's distances."""

    def __init__(self, config: ActionFormerConfig):
        super().__init__()
        kernel_size, outputs = config.head_kernel_size, 2 * ((config.num_bins or 0) + 1)
        sizes = [
            config.neck_hidden_size or config.hidden_size,
            *[config.head_hidden_size] * (config.num_head_layers - 1),
        ]
        self.tower = _ConvTower(config, sizes, kernel_size, config.use_head_norm)
        self.offsets = _OutputConv(sizes[-1], outputs, kernel_size)
        self.scales = nn.ModuleList(_LevelScale() for _ in range(config.num_head_levels))

    def forward(self, levels: Sequence[torch.Tensor], masks: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [
            F.relu(scale(self.tower(one, mask, self.offsets) * mask))
            for scale, one, mask in zip(self.scales, levels, masks)
        ]


class _BoundaryHeads(nn.Module):
    """
    TriDet's classifiers of starts and ends. They do not train the pyramid.

    The distance from a point to the start is the mean over bins of a softmax over the scores of the steps before it,
    each the sum of the start score there and the point's own score for that distance; in the same way to the end.
    """

    def __init__(self, config: ActionFormerConfig):
        super().__init__()
        self.num_bins = config.num_bins or 0
        self.start = _ClassificationHead(config, config.boundary_kernel_size)
        self.end = _ClassificationHead(config, config.boundary_kernel_size)

    def forward(
        self, levels: Sequence[torch.Tensor], masks: Sequence[torch.Tensor], scores: Sequence[torch.Tensor]
    ) -> list[torch.Tensor]:
        """Distances `(batch, steps, labels, 2)` of each level in its strides."""
        detached = [one.detach() for one in levels]
        pairs = zip(self.start(detached, masks), self.end(detached, masks))
        return [self.distances(start, end, own) for (start, end), own in zip(pairs, scores)]

    def distances(self, start: torch.Tensor, end: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        bins = self.num_bins
        to_start, to_end = scores.unflatten(2, (2, bins + 1))[:, :, :, None].unbind(2)  # (batch, steps, 1, bins + 1)
        starts = F.pad(start, (0, 0, bins, 0)).unfold(1, bins + 1, 1)  # (batch, steps, labels, bins + 1)
        ends = F.pad(end, (0, 0, 0, bins)).unfold(1, bins + 1, 1)
        numbers = torch.arange(bins + 1, device=scores.device, dtype=scores.dtype)
        left = (starts + to_start).softmax(dim=-1) @ numbers.flip(0)
        right = (ends + to_end).softmax(dim=-1) @ numbers
        return torch.stack((left, right), dim=-1)


class ActionFormerPreTrainedModel(PreTrainedModel):
    """Weight initialisation of the official code, and what transformers and a trainer must know."""

    config: ActionFormerConfig
    base_model_prefix = "actionformer"
    main_input_name = "features"
    input_modalities = ("time",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["_Embeddings", "ActionFormerBlock", "ActionFormerConvBlock", "SGPBlock"]
    _input_embed_layer = "tower"
    _supports_sdpa = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {
        "hidden_states": PyramidBlock,
        "attentions": OutputRecorder(ActionFormerAttention, index=1),
    }

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Linear | nn.Conv1d):
            if isinstance(module, SGPConv1d):
                init.normal_(module.weight, std=self.config.sgp_init_std)
            else:
                init_as_torch(module)
            if module.bias is not None:
                init.zeros_(module.bias)
        if isinstance(module, _ClassifierConv) and module.bias is not None:
            prior = torch.full_like(module.bias, self.config.classifier_prior)
            prior[list(self.config.empty_labels)] = EMPTY_PRIOR
            init.copy_(module.bias, torch.logit(prior))
        elif isinstance(module, LayerScale):
            init.constant_(module.gamma, module.init_value)
        elif isinstance(module, _LevelScale):
            init.ones_(module.scale)
        elif isinstance(module, RelativePositions):
            init.trunc_normal_(module.bias, std=(2 / self.config.hidden_size) ** 0.5)
        elif isinstance(module, _Positions):
            init.copy_(module.table, module.make_table())
        elif isinstance(module, ActionFormerForTemporalActionLocalization):
            init.constant_(module.loss_normalizer, float(self.config.loss_normalizer))

    def layer_groups(self) -> list[tuple[str, ...]]:
        """
        Prefixes of parameter names a depth, for layer-wise learning-rate decay: embeddings, each block, and last neck
        and heads (an empty prefix matches every name that no earlier depth matches).
        """
        base = "" if isinstance(self, ActionFormerModel) else f"{self.base_model_prefix}."
        blocks = [(f"{base}layers.{index}.",) for index in range(self.config.num_hidden_layers)]
        return [(f"{base}embeddings.",), *blocks, ("",)]

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that do not decay: biases of relative positions, as in the official recipes."""
        return {name for name, _ in self.named_parameters() if name.endswith("relative_positions.bias")}


class ActionFormerModel(ActionFormerPreTrainedModel):
    """
    Pyramid of a sequence of features.

    Args:
        config ([`ActionFormerConfig`]):
            Configuration.
    """

    def __init__(self, config: ActionFormerConfig):
        super().__init__(config)
        self.embeddings = _Embeddings(config)
        block = BLOCKS[config.block_type]
        levels = [0] * config.num_stem_layers + list(range(1, config.num_levels))
        self.layers = nn.ModuleList(block(config, level, 2 if level else 1) for level in levels)
        self.neck = _Neck(config)
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        features: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ActionFormerModelOutput:
        r"""
        Args:
            features (`torch.Tensor` of shape `(batch_size, steps, feature_size)`):
                Features of the windows of each video, in order; several streams concatenated.
            attention_mask (`torch.Tensor` of shape `(batch_size, steps)`, *optional*):
                1 where a video has a feature, 0 in padding at the end. All ones by default.

        Returns:
            [`ActionFormerModelOutput`]

        Raises:
            ValueError: a shape does not fit the configuration.
        """
        mask = _checked_mask(features, attention_mask, self.config)
        features = features.to(self.embeddings.tower.convs[0].weight.dtype)  # type: ignore[union-attr, arg-type]
        if self.training and self.config.input_noise:
            features = features + self.config.input_noise * torch.randn_like(features)
        hidden_states = self.embeddings(features, mask)
        levels, masks = [], []
        for index, layer in enumerate(self.layers):
            if index >= self.config.num_stem_layers:
                levels.append(hidden_states)
                masks.append(mask)
            hidden_states = layer(hidden_states, mask, **kwargs)
            mask = mask[:, :: layer.stride]  # type: ignore[misc]
        levels, masks = [*levels, hidden_states], [*masks, mask][self.config.neck_start_level :]
        maps = self.neck(levels, masks)
        return ActionFormerModelOutput(
            last_hidden_state=maps[0],
            feature_maps=tuple(maps),
            feature_masks=tuple(one.squeeze(-1).long() for one in masks),
        )


class ActionFormerForTemporalActionLocalization(ActionFormerPreTrainedModel):
    """
    Pyramid and heads: scores and boundaries of actions at the steps of all levels.

    Args:
        config ([`ActionFormerConfig`]):
            Configuration.

    Raises:
        ValueError: the configuration has no classes.

    Example:

    ```python
    >>> import torch
    >>> from hf_videovit import ActionFormerConfig, ActionFormerForTemporalActionLocalization

    >>> model = ActionFormerForTemporalActionLocalization(ActionFormerConfig(num_labels=20)).eval()
    >>> outputs = model(torch.randn(1, 500, 1408))
    >>> outputs.logits.shape[1:], outputs.pred_offsets.shape[1:]
    (torch.Size([986, 20]), torch.Size([986, 2]))
    ```"""

    accepts_loss_kwargs = False  # the loss is normalised by a running count of positives
    loss_normalizer: torch.Tensor

    def __init__(self, config: ActionFormerConfig):
        super().__init__(config)
        if config.num_labels < 1:
            raise ValueError(f"`num_labels` must be at least 1, got {config.num_labels}.")
        self.num_labels = config.num_labels
        self.actionformer = ActionFormerModel(config)
        self.classification_head = _ClassificationHead(config, config.head_kernel_size)
        self.offset_head = _OffsetHead(config)
        self.boundary_heads = _BoundaryHeads(config) if config.num_bins else None
        self.register_buffer("loss_normalizer", torch.tensor(float(config.loss_normalizer)))
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        features: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: Labels | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> TemporalActionLocalizationOutput:
        r"""
        Args:
            features (`torch.Tensor` of shape `(batch_size, steps, feature_size)`):
                Features of the windows of each video, in order; several streams concatenated.
            attention_mask (`torch.Tensor` of shape `(batch_size, steps)`, *optional*):
                1 where a video has a feature, 0 in padding at the end. All ones by default.
            labels (`list[dict]` or [`Segments`], *optional*):
                For each video `segments`, a tensor of shape `(segments, 2)` of starts and ends in steps, and
                `class_labels` of shape `(segments,)`. A video without segments is a negative example. In training
                mode the running count of positives (`loss_normalizer`) is updated. [`Segments`] on the model's device
                are taken unchecked, without waiting for it.

        Returns:
            [`TemporalActionLocalizationOutput`]

        Raises:
            ValueError: a shape does not fit the configuration, or `labels` are wrong.
        """
        outputs = self.actionformer(features, attention_mask, return_dict=True, **kwargs)
        levels, masks = outputs.feature_maps, [mask[..., None].bool() for mask in outputs.feature_masks]
        logits = torch.cat(self.classification_head(levels, masks), dim=1)
        offsets = self.offset_head(levels, masks)
        if self.boundary_heads is not None:
            offsets = self.boundary_heads(levels, masks, offsets)
        pred_offsets = torch.cat(offsets, dim=1)
        points = make_points([one.shape[1] for one in levels], self.config, logits.device)
        point_mask = torch.cat(outputs.feature_masks, dim=1)
        loss, losses = None, None
        if labels is not None:
            loss, losses = self._loss(logits, pred_offsets, points, point_mask.bool(), labels)
        return TemporalActionLocalizationOutput(
            loss=loss,
            loss_dict=losses,
            logits=logits,
            pred_offsets=pred_offsets,
            points=points,
            point_mask=point_mask,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _loss(
        self,
        logits: torch.Tensor,
        offsets: torch.Tensor,
        points: torch.Tensor,
        point_mask: torch.Tensor,
        labels: Labels,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        targets = make_targets(points, point_mask, labels, self.config)
        if self.training:
            self._count_positives(targets.num_positives)
        # a copy, because a later pass changes the buffer before this one's backward pass
        losses = localization_losses(logits, offsets, targets, point_mask, self.loss_normalizer.clone(), self.config)
        weight: Any = self.config.regression_loss_weight
        if weight == 0:
            weight = losses["classification"].detach() / losses["regression"].detach().clamp(min=0.01)
        return losses["classification"] + weight * losses["regression"], losses

    @torch.no_grad()
    def _count_positives(self, num_positives: torch.Tensor) -> None:
        """Update the running mean; of several processes with the mean of their batches, so that all have the same."""
        count = num_positives.to(self.loss_normalizer.dtype)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(count)
            count = count / torch.distributed.get_world_size()
        self.loss_normalizer.lerp_(count.clamp(min=1), 1 - self.config.loss_normalizer_momentum)


def _checked_mask(
    features: torch.Tensor, attention_mask: torch.Tensor | None, config: ActionFormerConfig
) -> torch.Tensor:
    """Mask `(batch, steps, 1)`; ValueError for features or a mask that do not fit."""
    size = sum(config.feature_sizes)
    if features.ndim != 3 or features.shape[2] != size or features.shape[1] < 1:
        raise ValueError(
            f"`features` must have shape (batch_size, steps, {size}) with at least one step, got "
            f"{tuple(features.shape)}. Features come from the encoder that the model was trained with."
        )
    if not features.is_floating_point():
        raise ValueError(f"`features` must be floating-point numbers, got {features.dtype}.")
    if attention_mask is None:
        return torch.ones(*features.shape[:2], 1, dtype=torch.bool, device=features.device)
    if attention_mask.shape != features.shape[:2]:
        raise ValueError(
            f"`attention_mask` must have shape {tuple(features.shape[:2])}, got {tuple(attention_mask.shape)}."
        )
    return attention_mask.to(features.device, torch.bool)[..., None]


__all__ = [
    "ActionFormerForTemporalActionLocalization",
    "ActionFormerModel",
    "ActionFormerModelOutput",
    "ActionFormerPreTrainedModel",
    "TemporalActionLocalizationOutput",
]
