"""
Points, training targets and losses of ActionFormer and its relatives.

A point is a step of a level of the pyramid. All levels are concatenated: `points` is the number of steps of all
levels. Everything is computed for all points at once and masked, so that no shape depends on the data.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from .configuration_actionformer import ActionFormerConfig


NO_SEGMENT = -100  # class of a row of padding
SAME_LENGTH = 1e-3  # segments whose lengths differ by less share a point


def make_points(
    lengths: Sequence[int], config: ActionFormerConfig, device: torch.device | None = None
) -> torch.Tensor:
    """
    Points of the levels that the heads see.

    Args:
        lengths (`Sequence[int]`):
            Steps of each of these levels.
        config ([`ActionFormerConfig`]):
            Configuration, for the strides and the ranges.
        device (`torch.device`, *optional*):
            Device of the result.

    Returns:
        `torch.Tensor` of shape `(points, 4)` in float32: position in steps of the finest level, lower and upper end of
        the level's range, stride.
    """
    levels = []
    for level, (length, (low, high)) in enumerate(zip(lengths, config.regression_ranges or ())):
        stride = float(2 ** (level + config.neck_start_level))
        positions = torch.arange(length, dtype=torch.float32, device=device) * stride
        rest = [torch.full_like(positions, value) for value in (low, high, stride)]
        levels.append(torch.stack((positions, *rest), dim=1))
    return torch.cat(levels)


@dataclass
class Segments:
    """
    True segments of a batch, padded to the same number.

    Args:
        bounds (`torch.Tensor` of shape `(batch_size, segments, 2)`):
            Start and end in steps.
        classes (`torch.LongTensor` of shape `(batch_size, segments)`):
            Class of each; -100 in padding.
    """

    bounds: torch.Tensor
    classes: torch.Tensor

    def __len__(self) -> int:
        return len(self.classes)


Labels = Sequence[Mapping[str, Any]] | Segments


def pad_segments(labels: Sequence[Mapping[str, Any]], num_labels: int, device: torch.device) -> Segments:
    """
    True segments as tensors.

    Args:
        labels (`Sequence[Mapping]`):
            For each video `segments` of shape `(segments, 2)` and `class_labels` of shape `(segments,)`.
        num_labels (`int`):
            Number of classes.
        device (`torch.device`):
            Device of the result.

    Returns:
        [`Segments`]: of at least one row; a video without segments has only padding.

    Raises:
        ValueError: a shape does not fit, a number is not finite, a segment ends before it starts, or a class does not
            exist.
    """
    bounds = [torch.as_tensor(one["segments"], dtype=torch.float32, device=device).reshape(-1, 2) for one in labels]
    classes = [torch.as_tensor(one["class_labels"], dtype=torch.long, device=device).reshape(-1) for one in labels]
    for number, (segments, kinds) in enumerate(zip(bounds, classes)):
        if len(segments) != len(kinds):
            raise ValueError(f"`labels` {number} has {len(segments)} segments and {len(kinds)} classes.")
        if not torch.compiler.is_compiling():  # values are not known there
            _check_segments(number, segments, kinds, num_labels)
    longest = max(1, *(len(one) for one in bounds))
    return Segments(
        torch.stack([F.pad(one, (0, 0, 0, longest - len(one))) for one in bounds]),
        torch.stack([F.pad(one, (0, longest - len(one)), value=NO_SEGMENT) for one in classes]),
    )


def _check_segments(number: int, segments: torch.Tensor, kinds: torch.Tensor, num_labels: int) -> None:
    if not segments.isfinite().all() or (segments[:, 1] <= segments[:, 0]).any():
        raise ValueError(
            f"`labels` {number}: segments must be finite and end after they start, got {segments.tolist()}."
        )
    if len(kinds) and (kinds.min() < 0 or kinds.max() >= num_labels):
        raise ValueError(f"`labels` {number}: classes must be from 0 to {num_labels - 1}, got {kinds.tolist()}.")


def assign_points(
    points: torch.Tensor, segments: Segments, num_labels: int, radius: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Training targets: for each point

    ```
    candidates = segments that contain the point (within `radius` strides from their centre) and whose larger offset
                 lies in the range of the point's level
    the shortest candidate gives the offsets; all candidates of its length give their classes
    ```

    Args:
        points (`torch.Tensor` of shape `(points, 4)`):
            See [`make_points`].
        segments ([`Segments`]):
            True segments.
        num_labels (`int`):
            Number of classes.
        radius (`float`):
            Strides from the centre; `None` for all points inside.

    Returns:
        `tuple`: classes `(batch_size, points, num_labels)` of zeros and ones, and offsets `(batch_size, points, 2)` to
        start and end in strides, 0 where a point has no class.
    """
    position, low, high, stride = (column[None, :, None] for column in points.unbind(1))
    start, end = (bound[:, None] for bound in segments.bounds.unbind(2))  # (batch, 1, segments)
    left, right = position - start, end - position  # (batch, points, segments)
    if radius is None:
        inside = torch.minimum(left, right) > 0
    else:
        centre = (start + end) / 2
        first, last = torch.maximum(centre - radius * stride, start), torch.minimum(centre + radius * stride, end)
        inside = torch.minimum(position - first, last - position) > 0
    larger = torch.maximum(left, right)
    exists = (segments.classes != NO_SEGMENT)[:, None]
    candidates = inside & (larger >= low) & (larger <= high) & exists
    lengths = torch.where(candidates, end - start, torch.inf)
    shortest, index = lengths.min(dim=2, keepdim=True)
    chosen = candidates & (lengths <= shortest + SAME_LENGTH)
    kinds = F.one_hot(segments.classes.clamp(min=0), num_labels).to(points.dtype)
    classes = (chosen.to(points.dtype) @ kinds).clamp(max=1)
    offsets = torch.cat((left.gather(2, index), right.gather(2, index)), dim=2) / stride
    return classes, torch.where(candidates.any(dim=2, keepdim=True), offsets, 0)


def sigmoid_focal_loss(logits: torch.Tensor, targets: torch.Tensor, alpha: float, gamma: float) -> torch.Tensor:
    """
    Focal loss of independent classes ([Lin et al., 2017](https://huggingface.co/papers/1708.02002)):
    `weight * (1 - p) ** gamma * cross_entropy`, where `p` is the probability of the target.

    Args:
        logits (`torch.Tensor`):
            Predictions.
        targets (`torch.Tensor` of the shape of `logits`):
            Probabilities.
        alpha (`float`):
            Weight of positives, `1 - alpha` that of negatives; negative for no weights.
        gamma (`float`):
            Exponent.

    Returns:
        `torch.Tensor` of the shape of `logits`.
    """
    probabilities = logits.sigmoid()
    right = probabilities * targets + (1 - probabilities) * (1 - targets)
    losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none") * (1 - right) ** gamma
    return losses * (alpha * targets + (1 - alpha) * (1 - targets)) if alpha >= 0 else losses


def segment_overlaps(offsets: torch.Tensor, targets: torch.Tensor, eps: float = 1e-8) -> torch.Tensor:
    """
    Overlap (intersection over union) of two segments around the same point.

    Args:
        offsets (`torch.Tensor` of shape `(..., 2)`):
            Distances from the point to start and end, at least 0.
        targets (`torch.Tensor` of shape `(..., 2)`):
            Those of the other segment.
        eps (`float`, *optional*, defaults to 1e-8):
            Smallest divisor.

    Returns:
        `torch.Tensor` of shape `(...)`.
    """
    # the gradient of equal offsets is that of the target, as measured on the official code
    shared = torch.where(offsets < targets, offsets, targets).sum(dim=-1)
    return shared / (offsets.sum(dim=-1) + targets.sum(dim=-1) - shared).clamp(min=eps)


def distance_iou_loss(offsets: torch.Tensor, targets: torch.Tensor, eps: float = 1e-8) -> torch.Tensor:
    """
    Distance-IoU loss ([Zheng et al., 2019](https://huggingface.co/papers/1911.08287)) of two segments around the same
    point: 1 - overlap + (distance of the centres / length of both together) ** 2.

    Args:
        offsets (`torch.Tensor` of shape `(..., 2)`):
            Predicted distances from the point to start and end, at least 0.
        targets (`torch.Tensor` of shape `(..., 2)`):
            True distances.
        eps (`float`, *optional*, defaults to 1e-8):
            Smallest divisor.

    Returns:
        `torch.Tensor` of shape `(...)`.
    """
    together = torch.maximum(offsets, targets).sum(dim=-1).clamp(min=eps)
    shift = (offsets[..., 1] - offsets[..., 0] - targets[..., 1] + targets[..., 0]) / 2
    return 1 - segment_overlaps(offsets, targets, eps) + (shift / together) ** 2


@dataclass
class LocalizationTargets:
    """
    Training targets of a batch.

    Args:
        classes (`torch.Tensor` of shape `(batch_size, points, num_labels)`):
            Zeros and ones; zeros beyond the end of a sequence.
        offsets (`torch.Tensor` of shape `(batch_size, points, 2)`):
            Distances to start and end in strides.
        num_positives (`torch.Tensor` of shape `()`):
            Points with a class.
    """

    classes: torch.Tensor
    offsets: torch.Tensor
    num_positives: torch.Tensor


def make_targets(
    points: torch.Tensor, point_mask: torch.Tensor, labels: Labels, config: ActionFormerConfig
) -> LocalizationTargets:
    """
    Training targets of a batch.

    Args:
        points (`torch.Tensor` of shape `(points, 4)`):
            See [`make_points`].
        point_mask (`torch.BoolTensor` of shape `(batch_size, points)`):
            `True` where a sequence has a step.
        labels (`Sequence[Mapping]` or [`Segments`]):
            See [`pad_segments`]. The numbers of [`Segments`] are not checked, so that nothing waits for the device.
        config ([`ActionFormerConfig`]):
            Configuration.

    Returns:
        [`LocalizationTargets`]

    Raises:
        ValueError: `labels` does not fit.
    """
    if len(labels) != len(point_mask):
        raise ValueError(f"`labels` must have an entry for each of the {len(point_mask)} videos, got {len(labels)}.")
    segments = labels if isinstance(labels, Segments) else pad_segments(labels, config.num_labels, points.device)
    classes, offsets = assign_points(points, segments, config.num_labels, config.center_sampling_radius)
    classes = classes * point_mask[..., None]
    return LocalizationTargets(classes, offsets, (classes.sum(dim=-1) > 0).sum())


def localization_losses(
    logits: torch.Tensor,
    offsets: torch.Tensor,
    targets: LocalizationTargets,
    point_mask: torch.Tensor,
    normalizer: torch.Tensor,
    config: ActionFormerConfig,
) -> dict[str, torch.Tensor]:
    """
    Losses of classes and offsets, both in float32 and divided by the running number of positives.

    Args:
        logits (`torch.Tensor` of shape `(batch_size, points, num_labels)`):
            Predictions.
        offsets (`torch.Tensor` of shape `(batch_size, points, 2)`, or `(batch_size, points, num_labels, 2)`):
            Predicted distances in strides; one pair for each class with a trident head.
        targets ([`LocalizationTargets`]):
            See [`make_targets`].
        point_mask (`torch.BoolTensor` of shape `(batch_size, points)`):
            `True` where a sequence has a step.
        normalizer (`torch.Tensor` of shape `()`):
            Running number of positives.
        config ([`ActionFormerConfig`]):
            Configuration.

    Returns:
        `dict[str, torch.Tensor]`: `classification`, and `regression` before its weight.
    """
    smoothing = config.label_smoothing
    smooth = targets.classes * (1 - smoothing) + smoothing / (config.num_labels + 1)
    losses = sigmoid_focal_loss(logits.float(), smooth, config.focal_alpha, config.focal_gamma)
    if offsets.ndim == 4:  # each class of a positive has its own offsets
        positives, goal = targets.classes > 0, targets.offsets[:, :, None]
    else:
        positives, goal = targets.classes.sum(dim=-1) > 0, targets.offsets
    # points without a segment get harmless numbers, whose gradient is masked
    goal = torch.where(positives[..., None], goal, 1.0)
    predicted = torch.where(positives[..., None], offsets.float(), 1.0)
    distances = torch.where(positives, distance_iou_loss(predicted, goal), 0)
    if config.iou_weight_power:
        overlaps = torch.where(positives, segment_overlaps(predicted, goal), 1.0)
        weights = overlaps**config.iou_weight_power
        losses = losses * (weights if offsets.ndim == 4 else weights[..., None].where(targets.classes > 0, 1.0))
    losses = losses * point_mask[..., None]
    return {"classification": losses.sum() / normalizer, "regression": distances.sum() / normalizer}


__all__ = [
    "LocalizationTargets",
    "Segments",
    "assign_points",
    "distance_iou_loss",
    "localization_losses",
    "make_points",
    "make_targets",
    "pad_segments",
    "segment_overlaps",
    "sigmoid_focal_loss",
]
