"""
Action detection: what each person does, from a clip and a box around each person on its key-frame.

The head is the same for every family: RoIAlign on the encoder's feature map, pooling over time and space, a
classifier. Behaviour follows MCG-NJU/VideoMAE-Action-Detection (commit 15615db), with the options of mmaction2 (commit
4d6c934) and AlphAction (commit 4ea202d).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import roi_align
from transformers import initialization as init
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .configuration_action_detection import ActionDetectionConfig, action_detection_config
from .layers import filled, shares_of_step, start_of, starting


Boxes = torch.Tensor | Sequence[torch.Tensor]


@dataclass
class ActionDetectionOutput(ModelOutput):
    """
    Output of the models for action detection.

    Args:
        loss (`torch.Tensor` of shape `()`, *optional*):
            See [`action_detection_loss`].
        logits (`torch.Tensor` of shape `(batch_size, num_boxes, num_labels)`):
            Scores before the sigmoid or softmax; 0 where there is no box.
        probabilities (`torch.Tensor` of shape `(batch_size, num_boxes, num_labels)`):
            Scores between 0 and 1 in float32, see [`action_probabilities`].
        pooled_features (`torch.Tensor` of shape `(batch_size, num_boxes, feature_size)`):
            Features of each box, before the head.
        feature_map (`torch.Tensor` of shape `(batch_size, channels, frames, height, width)`):
            The encoder's map that boxes are read from.
        hidden_states, attentions (`tuple(torch.Tensor)`, *optional*):
            Of the encoder.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    probabilities: torch.Tensor | None = None
    pooled_features: torch.Tensor | None = None
    feature_map: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class ActionDetectionHead(nn.Module):
    """
    Scores of actions for boxes on a feature map.

    Args:
        config ([`ActionDetectionConfig`]):
            Configuration of the head.
        hidden_size (`int`):
            Channels of the map.
        num_labels (`int`):
            Labels.
        pooled_size (`int`, *optional*, defaults to 0):
            Width of the encoder's pooled features, for `global_feature="pooled"`.
    """

    def __init__(self, config: ActionDetectionConfig, hidden_size: int, num_labels: int, pooled_size: int = 0):
        super().__init__()
        self.config = config
        width = hidden_size + {"map": hidden_size, "pooled": pooled_size, None: 0}[config.global_feature]
        self.roi_dropout = nn.Dropout(config.roi_dropout)
        sizes = [width, *config.head_hidden_sizes]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in zip(sizes[:-1], sizes[1:]))
        self.dropout = nn.Dropout(config.head_dropout)
        self.classifier = starting("near zero", nn.Linear(sizes[-1], num_labels))

    def forward(
        self, feature_map: torch.Tensor, boxes: torch.Tensor, scale: float, pooled: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            feature_map (`torch.Tensor` of shape `(batch_size, channels, frames, height, width)`):
                The map.
            boxes (`torch.Tensor` of shape `(batch_size, num_boxes, 4)`):
                Corners x1, y1, x2, y2 in pixels.
            scale (`float`):
                Tokens of the map per pixel.
            pooled (`torch.Tensor` of shape `(batch_size, pooled_size)`, *optional*):
                Features of the whole clip, for `global_feature="pooled"`.

        Returns:
            `tuple`: logits `(batch_size, num_boxes, num_labels)` and the features of each box
            `(batch_size, num_boxes, feature_size)`.
        """
        regions = self.roi_dropout(self.sample(feature_map, boxes, scale))  # (batch, boxes, channels, size, size)
        features = regions.amax((-2, -1)) if self.config.spatial_pooling == "max" else regions.mean((-2, -1))
        if self.config.global_feature == "pooled":
            assert pooled is not None
            features = torch.cat((features, pooled[:, None].expand(-1, features.shape[1], -1)), dim=-1)
        hidden_states = features
        for layer in self.layers:
            hidden_states = layer(hidden_states).relu()
        return self.classifier(self.dropout(hidden_states)), features

    def sample(self, feature_map: torch.Tensor, boxes: torch.Tensor, scale: float) -> torch.Tensor:
        """
        The map at each box, pooled over time.

        Args:
            feature_map (`torch.Tensor` of shape `(batch_size, channels, frames, height, width)`):
                The map.
            boxes (`torch.Tensor` of shape `(batch_size, num_boxes, 4)`):
                Corners in pixels.
            scale (`float`):
                Tokens of the map per pixel.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_boxes, channels, roi_size, roi_size)`.
        """
        config = self.config
        frames = feature_map.transpose(1, 2)  # (batch, frames, channels, height, width)
        if not config.pool_time_after_roi:
            frames = self._pool_time(frames).unsqueeze(1)
        return self._pool_time(self._regions(frames, boxes, scale))

    def _regions(self, frames: torch.Tensor, boxes: torch.Tensor, scale: float) -> torch.Tensor:
        """Every frame at the boxes, the whole frame beside it: `(batch, frames, boxes, channels, size, size)`."""
        regions = self._align(frames, boxes, scale)
        if self.config.global_feature != "map":
            return regions
        # adaptive pooling of every frame to the grid of a box
        whole = F.adaptive_avg_pool2d(frames.flatten(0, 1), self.config.roi_size).unflatten(0, frames.shape[:2])
        return torch.cat((regions, whole[:, :, None].expand_as(regions)), dim=3)

    def _align(self, frames: torch.Tensor, boxes: torch.Tensor, scale: float) -> torch.Tensor:
        """RoIAlign of the boxes on every frame: `(batch, frames, boxes, channels, size, size)`."""
        batch_size, num_frames = frames.shape[:2]
        num_boxes, size = boxes.shape[1], self.config.roi_size
        rows = torch.arange(batch_size * num_frames, device=frames.device).view(batch_size, num_frames, 1, 1)
        rows = rows.expand(-1, -1, num_boxes, -1).to(torch.float32)
        corners = boxes.float()[:, None].expand(-1, num_frames, -1, -1)
        rois = torch.cat((rows, corners), dim=-1).flatten(0, 2)
        # in float32: the operator has no bfloat16 kernel on CPU, and boxes need the precision
        regions = roi_align(
            frames.flatten(0, 1).float(),
            rois,
            size,
            spatial_scale=scale,
            sampling_ratio=self.config.roi_sampling_ratio,
            aligned=self.config.roi_aligned,
        )
        return regions.to(frames.dtype).unflatten(0, (batch_size, num_frames, num_boxes))

    def _pool_time(self, frames: torch.Tensor) -> torch.Tensor:
        """Mean or maximum of `(batch, frames, ...)` over frames."""
        return frames.mean(dim=1) if self.config.temporal_pooling == "mean" else frames.amax(dim=1)


class ActionDetectionMixin:
    """
    Scores of actions for each box, from the feature map of an encoder (`base_model`). List it before the family's
    `PreTrainedModel` among the bases, and give it the family's `_feature_map` and `feature_stride`.
    """

    config: Any
    base_model: Any
    training: bool
    action_head: ActionDetectionHead
    default_head: dict[str, Any] = {}  # fields of the head where the configuration has none

    def add_action_head(self, hidden_size: int, pooled_size: int = 0) -> None:
        """
        Build the head.

        Args:
            hidden_size (`int`):
                Channels of the feature map.
            pooled_size (`int`, *optional*, defaults to 0):
                Width of the encoder's `pooler_output`; 0 where it has none.

        Raises:
            ValueError: the head asks for pooled features and the encoder has none.
        """
        # `from_pretrained(detection_config={...})` sets a dictionary on the configuration of a model without a head
        head = action_detection_config(self.config.detection_config) or ActionDetectionConfig(**self.default_head)
        self.config.detection_config = head
        if head.global_feature == "pooled" and not pooled_size:
            raise ValueError(f"`global_feature` must be None or 'map' for {type(self).__name__}, got 'pooled'.")
        self.num_labels = self.config.num_labels
        self.action_head = ActionDetectionHead(head, hidden_size, self.config.num_labels, pooled_size)

    def _feature_map(self, pixel_values: torch.Tensor, outputs: Any) -> torch.Tensor:
        """
        The encoder's output as a map.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_frames, num_channels, height, width)`):
                The clips.
            outputs (`ModelOutput`):
                Of the encoder.

        Returns:
            `torch.Tensor` of shape `(batch_size, channels, frames, height, width)`.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `_feature_map`.")

    @property
    def feature_stride(self) -> int:
        """Pixels between neighbouring places of the feature map."""
        return self.config.patch_size

    def _encode(self, pixel_values: torch.Tensor, **kwargs: Any) -> tuple[torch.Tensor, Any]:
        """
        Run the encoder.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_frames, num_channels, height, width)`):
                Normalised clips.

        Returns:
            `tuple`: the feature map `(batch_size, channels, frames, height, width)` and the encoder's output.
        """
        if self.config.detection_config.fused_stages not in (None, 1):
            raise ValueError(f"`fused_stages` must be 1: {type(self).__name__} has no stages.")
        outputs = self.base_model(pixel_values, return_dict=True, **kwargs)
        return self._feature_map(pixel_values, outputs), outputs

    def proposals(self, boxes: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
        """
        The boxes that the map is read at: moved at random in training, enlarged in evaluation.

        Args:
            boxes (`torch.Tensor` of shape `(batch_size, num_boxes, 4)`):
                Corners in pixels.
            sizes (`torch.Tensor` of shape `(batch_size, 2)`):
                Height and width of each clip without padding, in pixels.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_boxes, 4)`.
        """
        config = self.config.detection_config
        if self.training:
            draws = torch.rand(boxes.shape, device=boxes.device)
            return jitter_boxes(boxes, sizes, config.box_jitter, draws, config.box_convention)
        return enlarge_boxes(boxes, sizes, config.box_enlargement, config.box_convention)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        boxes: Boxes,
        box_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        sizes: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Any,
    ) -> ActionDetectionOutput:
        r"""
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_frames, num_channels, height, width)`):
                Normalised clips. Clips of other sizes are padded at the right and at the bottom.
            boxes (`torch.Tensor` of shape `(batch_size, num_boxes, 4)`, or a list of `(num_boxes_i, 4)`):
                Corners x1, y1, x2, y2 of each person on the key-frame, in pixels of the clip and in the convention of
                `config.detection_config.box_convention`. There may be none.
            box_mask (`torch.BoolTensor` of shape `(batch_size, num_boxes)`, *optional*):
                `True` where there is a box; everywhere by default. Not with a list.
            labels (`torch.Tensor` of shape `(batch_size, num_boxes, num_labels)`, *optional*):
                0/1 for each label. With `config.problem_type="single_label_classification"` class indices
                `(batch_size, num_boxes)`, -100 where there is none.
            sizes (`torch.LongTensor` of shape `(batch_size, 2)`, *optional*):
                Height and width of each clip without padding, in pixels. Defaults to the size of `pixel_values`.
            num_items_in_batch (`torch.Tensor` or `int`, *optional*):
                Labels of the whole optimiser step; see [`action_detection_loss`].

        Returns:
            [`ActionDetectionOutput`]

        Raises:
            ValueError: a shape does not fit.
        """
        feature_map, outputs = self._encode(pixel_values, **kwargs)
        padded, box_mask = pad_boxes(boxes, box_mask, pixel_values)
        if sizes is None:
            sizes = filled(pixel_values.shape[-2:], padded).expand(padded.shape[0], 2)
        scale = self.config.detection_config.roi_scale or 1 / self.feature_stride
        logits, features = self.action_head(
            feature_map, self.proposals(padded, sizes), scale, getattr(outputs, "pooler_output", None)
        )
        logits = logits.masked_fill(~box_mask[..., None], 0.0)
        loss = None
        if labels is not None:
            loss = action_detection_loss(logits, labels, box_mask, self.config, num_items_in_batch)
        return ActionDetectionOutput(
            loss=loss,
            logits=logits,
            probabilities=action_probabilities(logits.detach(), self.config),
            pooled_features=features,
            feature_map=feature_map,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)  # type: ignore[misc]  # of the family's `PreTrainedModel`
        if start_of(module) == "near zero" and isinstance(module, nn.Linear):
            std = self.config.detection_config.head_init_std
            init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
            init.zeros_(module.bias)


class PyramidActionDetectionMixin(ActionDetectionMixin):
    """
    The same for encoders with stages, each of half the resolution of the one before: the maps of the last stages
    (`config.detection_config.fused_stages`, 2 by default) become one. All but the last are normalised, all
    are resampled to the finest (linearly) and concatenated. A family defines `_stage_maps`.
    """

    stage_norms: nn.ModuleList
    fused_stages: int
    maps_on_request = True  # the encoder returns its stages' maps with `output_feature_maps=True` only

    @property
    def last_stride(self) -> int:
        """Pixels between neighbouring places of the last stage's map."""
        return 32

    def add_pyramid_head(self, hidden_sizes: Sequence[int], pooled_size: int = 0) -> None:
        """
        Build the norms and the head.

        Args:
            hidden_sizes (`Sequence[int]`):
                Channels of all stages.
            pooled_size (`int`, *optional*, defaults to 0):
                Width of the encoder's `pooler_output`.

        Raises:
            ValueError: more stages are fused than there are.
        """
        fused = self.config.detection_config.fused_stages if self.config.detection_config else None
        fused = min(2, len(hidden_sizes)) if fused is None else fused
        if fused > len(hidden_sizes):
            raise ValueError(f"`fused_stages` must be at most {len(hidden_sizes)}, the number of stages, got {fused}.")
        self.fused_stages = fused
        sizes = list(hidden_sizes)[-fused:]
        self.stage_norms = nn.ModuleList(nn.LayerNorm(size, eps=self.config.layer_norm_eps) for size in sizes[:-1])
        self.add_action_head(sum(sizes), pooled_size)

    @property
    def feature_stride(self) -> int:
        """Pixels between neighbouring places of the feature map."""
        return self.last_stride // 2 ** (self.fused_stages - 1)

    def _stage_maps(self, pixel_values: torch.Tensor, outputs: Any, count: int) -> list[torch.Tensor]:
        """
        Maps of the last stages, finest first.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_frames, num_channels, height, width)`):
                The clips.
            outputs (`ModelOutput`):
                Of the encoder, with its `feature_maps` where more than one stage is asked for.
            count (`int`):
                Number of stages.

        Returns:
            `list[torch.Tensor]` of shapes `(batch_size, frames, height, width, channels)`.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `_stage_maps`.")

    def _feature_map(self, pixel_values: torch.Tensor, outputs: Any) -> torch.Tensor:
        """See [`ActionDetectionMixin`]."""
        maps = self._stage_maps(pixel_values, outputs, self.fused_stages)
        finest = tuple(maps[0].shape[1:4])
        normed = [norm(one) for norm, one in zip(self.stage_norms, maps)] + maps[-1:]
        fused = []
        for one in normed:
            channels_first = one.movedim(-1, 1)
            if tuple(channels_first.shape[2:]) != finest:
                channels_first = F.interpolate(channels_first, size=finest, mode="trilinear", align_corners=False)
            fused.append(channels_first)
        return torch.cat(fused, dim=1)

    def _encode(self, pixel_values: torch.Tensor, **kwargs: Any) -> tuple[torch.Tensor, Any]:
        """See [`ActionDetectionMixin`]."""
        if self.fused_stages > 1 and self.maps_on_request:
            kwargs["output_feature_maps"] = True
        outputs = self.base_model(pixel_values, return_dict=True, **kwargs)
        return self._feature_map(pixel_values, outputs), outputs


def pad_boxes(
    boxes: Boxes, box_mask: torch.Tensor | None, pixel_values: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Boxes and their mask as tensors.

    Args:
        boxes (`torch.Tensor` of shape `(batch_size, num_boxes, 4)`, or a list of `(num_boxes_i, 4)`):
            Boxes of each clip.
        box_mask (`torch.BoolTensor` of shape `(batch_size, num_boxes)`, or `None`):
            `True` where there is a box.
        pixel_values (`torch.Tensor` of shape `(batch_size, ...)`):
            The clips, for their number and their device.

    Returns:
        `tuple`: boxes `(batch_size, num_boxes, 4)` in float32, and the mask.

    Raises:
        ValueError: a shape does not fit, or a list comes with a mask.
    """
    batch_size, device = pixel_values.shape[0], pixel_values.device
    if not isinstance(boxes, torch.Tensor):
        if box_mask is not None:
            raise ValueError("`box_mask` must be None with a list of `boxes`.")
        rows = [torch.as_tensor(one, dtype=torch.float32, device=device).reshape(-1, 4) for one in boxes]
        longest = max(map(len, rows), default=0)
        counts = torch.tensor([len(one) for one in rows], device=device)
        boxes = torch.stack([F.pad(one, (0, 0, 0, longest - len(one))) for one in rows])
        box_mask = torch.arange(longest, device=device) < counts[:, None]
    if boxes.ndim != 3 or boxes.shape[0] != batch_size or boxes.shape[2] != 4:
        raise ValueError(f"`boxes` must have shape ({batch_size}, num_boxes, 4), got {tuple(boxes.shape)}.")
    if box_mask is None:
        box_mask = torch.ones(boxes.shape[:2], dtype=torch.bool, device=device)
    if box_mask.shape != boxes.shape[:2]:
        raise ValueError(f"`box_mask` must have shape {tuple(boxes.shape[:2])}, got {tuple(box_mask.shape)}.")
    return boxes.to(device, torch.float32), box_mask.to(device, torch.bool)


def enlarge_boxes(
    boxes: torch.Tensor, sizes: torch.Tensor, share: Sequence[float], convention: str = "exclusive"
) -> torch.Tensor:
    """
    Grow boxes within their clips.

    Args:
        boxes (`torch.Tensor` of shape `(batch_size, num_boxes, 4)`):
            Corners in pixels.
        sizes (`torch.Tensor` of shape `(batch_size, 2)`):
            Height and width of each clip in pixels.
        share (`Sequence[float]`):
            Growth along width and height as a share of the box, half of it on each side.
        convention (`str`, *optional*, defaults to `"exclusive"`):
            See [`ActionDetectionConfig`].

    Returns:
        `torch.Tensor` of shape `(batch_size, num_boxes, 4)`.
    """
    limits = _limits(sizes, convention)
    growth = _extents(boxes, convention) * filled(share, boxes) / 2
    low, high = boxes[..., :2] - growth, boxes[..., 2:] + growth
    return torch.cat((low, high), dim=-1).clamp(min=0).minimum(limits.repeat(1, 1, 2))


def jitter_boxes(
    boxes: torch.Tensor,
    sizes: torch.Tensor,
    shares: Sequence[float],
    draws: torch.Tensor,
    convention: str = "exclusive",
) -> torch.Tensor:
    """
    Move the corners of boxes at random, each by itself.

    Args:
        boxes (`torch.Tensor` of shape `(batch_size, num_boxes, 4)`):
            Corners in pixels.
        sizes (`torch.Tensor` of shape `(batch_size, 2)`):
            Height and width of each clip in pixels.
        shares (`Sequence[float]`):
            Largest movement as shares of the box: outwards and inwards along the width, the same along the height.
        draws (`torch.Tensor` of shape `(batch_size, num_boxes, 4)`):
            Uniform numbers in [0, 1), one a coordinate.
        convention (`str`, *optional*, defaults to `"exclusive"`):
            See [`ActionDetectionConfig`].

    Returns:
        `torch.Tensor` of shape `(batch_size, num_boxes, 4)`: at least one pixel wide and high, inside the clip.
    """
    x_out, x_in, y_out, y_in = shares
    lowest, highest = filled((-x_out, -y_out, -x_in, -y_in), boxes), filled((x_in, y_in, x_out, y_out), boxes)
    moved = boxes + _extents(boxes, convention).repeat(1, 1, 2) * (lowest + draws * (highest - lowest))
    limits = _limits(sizes, convention)
    low = moved[..., :2].clamp(min=0).minimum(limits - 1)
    return torch.cat((low, moved[..., 2:].minimum(limits).maximum(low + 1)), dim=-1)


def _extents(boxes: torch.Tensor, convention: str) -> torch.Tensor:
    """Widths and heights `(..., 2)`."""
    return boxes[..., 2:] - boxes[..., :2] + (1 if convention == "inclusive" else 0)


def _limits(sizes: torch.Tensor, convention: str) -> torch.Tensor:
    """Largest x and y of a lower right corner, `(batch, 1, 2)`."""
    return sizes.flip(-1)[:, None].float() - (1 if convention == "inclusive" else 0)


def action_detection_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    box_mask: torch.Tensor,
    config: Any,
    num_items_in_batch: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """
    Cross-entropy or focal loss of the boxes that exist. Without any box it is 0, and still gives gradients of 0.

    Args:
        logits (`torch.Tensor` of shape `(batch_size, num_boxes, num_labels)`):
            Predictions.
        labels (`torch.Tensor` of shape `(batch_size, num_boxes, num_labels)` or `(batch_size, num_boxes)`):
            See [`ActionDetectionMixin.forward`].
        box_mask (`torch.BoolTensor` of shape `(batch_size, num_boxes)`):
            `True` where there is a box.
        config (`PreTrainedConfig`):
            Of the family; `problem_type` and `detection_config` are read.
        num_items_in_batch (`torch.Tensor` of shape `()` or `int`, *optional*):
            Number of elements of `labels` other than -100 in all passes of an optimiser step, as the `Trainer` of
            transformers counts them. Losses that are means are then shares of the step's: each clip's mean over its
            boxes counts by its labels. They add up to the mean over all boxes if labels are -100 where no box is or
            every clip has the same number of boxes, otherwise to the mean over the clips.

    Returns:
        `torch.Tensor` of shape `()`.

    Raises:
        ValueError: `labels` does not fit `logits` or the problem type.
    """
    head = config.detection_config
    logits, labels = logits.float(), labels.to(logits.device)
    if config.problem_type == "single_label_classification":
        losses, counted = _single_label_losses(logits, labels, head)
    else:
        if labels.shape != logits.shape:
            raise ValueError(
                f"`labels` of a multi-label problem must have shape {tuple(logits.shape)}, got {tuple(labels.shape)}."
            )
        labels = labels.float()
        losses, counted = _multi_label_losses(logits, labels, head), torch.ones_like(box_mask)
        if head.ignore_unlabelled_boxes:
            counted = labels.sum(dim=-1) > 0
    weights = (box_mask & counted).float()
    over_labels = losses.sum(dim=-1) if head.loss_reduction == "mean_over_boxes" else losses.mean(dim=-1)
    total = (over_labels * weights).sum()
    if head.loss_reduction == "sum_over_boxes":
        return total
    if num_items_in_batch is None:
        return total / weights.sum().clamp(min=1)
    means = (over_labels * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)  # (batch,)
    return (means * shares_of_step(labels, num_items_in_batch)).sum()


def _focal(losses: torch.Tensor, head: ActionDetectionConfig) -> torch.Tensor:
    """Cross-entropies weighted by `alpha * (1 - p) ** gamma`, where p is the probability of the right answer."""
    if head.focal_gamma == 0:
        return head.focal_alpha * losses
    return head.focal_alpha * (1 - torch.exp(-losses)) ** head.focal_gamma * losses


def _multi_label_losses(logits: torch.Tensor, labels: torch.Tensor, head: ActionDetectionConfig) -> torch.Tensor:
    """One loss for each box and label; the first `softmax_labels` labels share a softmax."""
    count = head.softmax_labels
    losses = _focal(F.binary_cross_entropy_with_logits(logits, labels, reduction="none"), head)
    if count:
        exclusive = labels[..., :count] * _focal(-logits[..., :count].log_softmax(dim=-1), head)
        losses = torch.cat((head.softmax_loss_weight * exclusive, losses[..., count:]), dim=-1)
    return losses


def _single_label_losses(
    logits: torch.Tensor, labels: torch.Tensor, head: ActionDetectionConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses `(batch, boxes, 1)`, and which boxes have a label."""
    soft = labels.is_floating_point()
    if labels.shape != (logits.shape if soft else logits.shape[:2]):
        raise ValueError(
            f"`labels` of a single-label problem must be class indices of shape {tuple(logits.shape[:2])} or "
            f"probabilities of shape {tuple(logits.shape)}, got {labels.dtype} of shape {tuple(labels.shape)}."
        )
    background = head.background_label
    if background is not None:
        logits = torch.cat((logits[..., :background], logits[..., background + 1 :]), dim=-1)
        if soft:
            labels = torch.cat((labels[..., :background], labels[..., background + 1 :]), dim=-1)
        else:
            labels = labels - (labels > background).to(labels.dtype)
    if soft:
        counted = labels.sum(dim=-1) > 0
        labels = labels / labels.sum(dim=-1, keepdim=True).clamp(min=1e-12)
        losses = -(labels * logits.log_softmax(dim=-1)).sum(dim=-1)
    else:
        counted = labels != -100
        losses = F.cross_entropy(logits.flatten(0, 1), labels.long().flatten(), reduction="none", ignore_index=-100)
    return _focal(losses.view(counted.shape), head)[..., None], counted


def action_probabilities(logits: torch.Tensor, config: Any) -> torch.Tensor:
    """
    Probability of each label.

    Args:
        logits (`torch.Tensor` of shape `(..., num_labels)`):
            Predictions.
        config (`PreTrainedConfig`):
            Of the family; `problem_type` and `detection_config` are read.

    Returns:
        `torch.Tensor` of shape `(..., num_labels)` in float32.
    """
    logits, head = logits.float(), config.detection_config
    if config.problem_type == "single_label_classification":
        return logits.softmax(dim=-1)
    if not head.softmax_labels:
        return logits.sigmoid()
    exclusive, others = logits.split((head.softmax_labels, logits.shape[-1] - head.softmax_labels), dim=-1)
    return torch.cat((exclusive.softmax(dim=-1), others.sigmoid()), dim=-1)


__all__ = [
    "ActionDetectionHead",
    "ActionDetectionMixin",
    "ActionDetectionOutput",
    "PyramidActionDetectionMixin",
    "action_detection_loss",
    "action_probabilities",
    "enlarge_boxes",
    "jitter_boxes",
    "pad_boxes",
]
