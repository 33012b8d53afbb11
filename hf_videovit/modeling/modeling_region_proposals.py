"""
Region proposals of two-stage detectors ([Ren et al., 2015](https://huggingface.co/papers/1506.01497)): anchors, the
proposal network, matching of boxes, and features of regions. Boxes are corners `(left, top, right, bottom)` in pixels
of the images as the model sees them.

Behaviour follows MMDetection 2, which the official code uses. It differs from torchvision's detectors: anchors are not
rounded, their strides do not depend on the size of an image, and regions are read with aligned corners.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.detection import _utils as detection_utils
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image, roi_align

from .layers import starting


STRIDES = (4, 8, 16, 32, 64)  # of the five levels of the pyramid
REGION_LEVELS = 4  # levels that regions are read from
FINEST_REGION = 56  # side in pixels below which a region is read from the finest level
MATCHED = (0.7, 0.3)  # overlaps from which an anchor is an object and below which it is background
SAMPLED_ANCHORS, SAMPLED_REGIONS = (256, 0.5), (512, 0.25)  # of an image, and the share of objects
LEVEL_EPS = 1e-6
# How layers of dense models start, see `starting`.
XAVIER, KAIMING, CLASSES, BOXES = "xavier", "kaiming", "classes", "boxes"
INIT_DEVIATIONS = {CLASSES: 0.01, BOXES: 0.001}


def anchor_grid(
    shape: Sequence[int], stride: int, scale: float, ratios: Sequence[float], like: torch.Tensor
) -> torch.Tensor:
    """
    Anchors of one level.

    Args:
        shape (`Sequence[int]`):
            Height and width of the level's map.
        stride (`int`):
            Pixels between its places.
        scale (`float`):
            Side of a square anchor in strides.
        ratios (`Sequence[float]`):
            Height over width.
        like (`torch.Tensor`):
            A float32 tensor on the device.

    Returns:
        `torch.Tensor` of shape `(height * width * number of ratios, 4)`: their centres are the places times `stride`.
    """
    roots = torch.tensor(ratios, dtype=torch.float32).to(like.device, non_blocking=True).sqrt()
    half = 0.5 * stride * scale * torch.stack((1 / roots, roots), dim=-1)  # (ratios, 2)
    rows, columns = (torch.arange(length, dtype=torch.float32, device=like.device) * stride for length in shape)
    centres = torch.cartesian_prod(rows, columns).flip(-1)[:, None]
    return torch.cat((centres - half, centres + half), dim=-1).flatten(0, 1)


class BoxDeltas:
    """
    Boxes as changes of other boxes, by torchvision's coder.

    Args:
        deviations (`Sequence[float]`):
            What changes of x, y, width and height are multiplied by.
    """

    def __init__(self, deviations: Sequence[float]):
        self.coder = detection_utils.BoxCoder(tuple(1 / one for one in deviations))

    def encode(self, boxes: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
        """
        Changes that make boxes of their references.

        Args:
            boxes (`torch.Tensor` of shape `(number, 4)`):
                Boxes.
            references (`torch.Tensor` of shape `(number, 4)`):
                Their references.

        Returns:
            `torch.Tensor` of shape `(number, 4)`.
        """
        return self.coder.encode_single(boxes, references)

    def decode(self, deltas: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
        """
        Boxes from changes.

        Args:
            deltas (`torch.Tensor` of shape `(number, 4 * labels)`):
                Changes, of each label.
            references (`torch.Tensor` of shape `(number, 4)`):
                The references.

        Returns:
            `torch.Tensor` of shape `(number, labels, 4)`.
        """
        return self.coder.decode_single(deltas.float(), references).unflatten(1, (-1, 4))


def match_and_sample(
    boxes: torch.Tensor,
    targets: torch.Tensor,
    thresholds: tuple[float, float],
    sampled: tuple[int, float],
    *,
    keep_best: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    Match boxes of an image with its objects, and choose some at random.

    Args:
        boxes (`torch.Tensor` of shape `(number, 4)`):
            Anchors or proposals.
        targets (`torch.Tensor` of shape `(objects, 4)`):
            Boxes of the objects.
        thresholds (`tuple[float, float]`):
            Overlaps from which a box is an object and below which it is background. Between them it is not chosen.
        sampled (`tuple[int, float]`):
            How many are chosen, and the largest share of objects.
        keep_best (`bool`, *optional*, defaults to `False`):
            Whether the best box of each object is an object too, down to the lower threshold.

    Returns:
        `tuple`: `objects` of shape `(number of chosen objects,)` and `background` of shape `(number of the others,)`,
        indices of `boxes`, and the object of each of `objects`.
    """
    if not len(targets):
        matches = boxes.new_full((len(boxes),), -1, dtype=torch.long)
    else:
        overlaps = box_iou(targets, boxes)
        matches = detection_utils.Matcher(*thresholds, allow_low_quality_matches=keep_best)(overlaps)
        if keep_best:
            matches = torch.where((matches >= 0) & (overlaps.amax(0) < thresholds[1]), -1, matches)
    # the sampler's labels: 1 for objects, 0 for background, -1 for boxes in between
    kinds = torch.where(matches >= 0, 1, torch.where(matches == -1, 0, -1))
    positive, negative = detection_utils.BalancedPositiveNegativeSampler(*sampled)([kinds])
    objects, background = positive[0].nonzero()[:, 0], negative[0].nonzero()[:, 0]
    return objects, background, matches[objects]


class RegionProposalNetwork(nn.Module):
    """
    Proposals of a pyramid: for each anchor a score and changes of its box.

    Args:
        config ([`UniFormerDetectorConfig`]):
            Configuration.
    """

    def __init__(self, config: Any):
        super().__init__()
        self.config = config
        self.deltas = BoxDeltas((1.0, 1.0, 1.0, 1.0))
        number = len(config.anchor_ratios)
        width = config.pyramid_size
        self.convolution = starting(CLASSES, nn.Conv2d(width, width, 3, padding=1))
        self.objectness = starting(CLASSES, nn.Conv2d(width, number, 1))
        self.box = starting(CLASSES, nn.Conv2d(width, 4 * number, 1))

    def forward(self, maps: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """
        Score anchors.

        Args:
            maps (`Sequence[torch.Tensor]` of shapes `(batch_size, pyramid_size, height, width)`):
                Levels of the pyramid.

        Returns:
            `tuple`: for each level the logits `(batch_size, anchors)` and the changes `(batch_size, anchors, 4)`.
        """
        logits, deltas = [], []
        for one in maps:
            hidden = F.relu(self.convolution(one))
            logits.append(self.objectness(hidden).movedim(1, -1).flatten(1))
            deltas.append(self.box(hidden).movedim(1, -1).flatten(1).unflatten(1, (-1, 4)))
        return logits, deltas

    def anchors(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """
        Anchors of each level.

        Args:
            maps (`Sequence[torch.Tensor]` of shapes `(batch_size, pyramid_size, height, width)`):
                Levels of the pyramid.

        Returns:
            `list[torch.Tensor]` of shapes `(anchors, 4)`.
        """
        scale, ratios = self.config.anchor_scale, self.config.anchor_ratios
        return [
            anchor_grid(one.shape[-2:], stride, scale, ratios, one) for one, stride in zip(maps, STRIDES, strict=True)
        ]

    @torch.no_grad()
    def propose(
        self,
        logits: Sequence[torch.Tensor],
        deltas: Sequence[torch.Tensor],
        anchors: Sequence[torch.Tensor],
        sizes: Sequence[tuple[int, int]],
    ) -> list[torch.Tensor]:
        """
        The best proposals of each image.

        Args:
            logits (`Sequence[torch.Tensor]` of shapes `(batch_size, anchors)`):
                See `forward`.
            deltas (`Sequence[torch.Tensor]` of shapes `(batch_size, anchors, 4)`):
                See `forward`.
            anchors (`Sequence[torch.Tensor]` of shapes `(anchors, 4)`):
                See `anchors`.
            sizes (`Sequence[tuple[int, int]]`):
                Height and width of each image without padding.

        Returns:
            `list[torch.Tensor]`: one an image, `(at most num_proposals, 4)`, the best first.
        """
        most = self.config.proposals_before_nms[0 if self.training else 1]
        scores, boxes, levels = [], [], []
        for level, (logit, delta, anchor) in enumerate(zip(logits, deltas, anchors, strict=True)):
            score, chosen = logit.float().sigmoid().topk(min(most, logit.shape[1]), dim=1)
            chosen_deltas = delta.gather(1, chosen[..., None].expand(-1, -1, 4))
            decoded = self.deltas.decode(chosen_deltas.flatten(0, 1), anchor[chosen.flatten()])
            scores.append(score)
            boxes.append(decoded.view(*chosen.shape, 4))
            levels.append(torch.full_like(chosen, level))
        images = zip(*(torch.cat(one, dim=1) for one in (scores, boxes, levels)), sizes, strict=True)
        return [self._best(score, box, level, size) for score, box, level, size in images]

    def _best(
        self, scores: torch.Tensor, boxes: torch.Tensor, levels: torch.Tensor, size: tuple[int, int]
    ) -> torch.Tensor:
        boxes = clip_boxes_to_image(boxes, size)
        whole = ((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])).nonzero()[:, 0]
        boxes, scores, levels = boxes[whole], scores[whole], levels[whole]
        kept = batched_nms(boxes, scores, levels, self.config.proposal_nms_threshold)
        return boxes[kept[: self.config.num_proposals]]

    def loss(
        self,
        logits: Sequence[torch.Tensor],
        deltas: Sequence[torch.Tensor],
        anchors: Sequence[torch.Tensor],
        targets: Sequence[torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        """
        Losses of the proposals, over the sampled anchors of all images.

        Args:
            logits (`Sequence[torch.Tensor]` of shapes `(batch_size, anchors)`):
                See `forward`.
            deltas (`Sequence[torch.Tensor]` of shapes `(batch_size, anchors, 4)`):
                See `forward`.
            anchors (`Sequence[torch.Tensor]` of shapes `(anchors, 4)`):
                See `anchors`.
            targets (`Sequence[torch.Tensor]` of shapes `(objects, 4)`):
                Boxes of the objects of each image.

        Returns:
            `dict[str, torch.Tensor]`: `loss_objectness` and `loss_proposals`.
        """
        all_logits, all_deltas = torch.cat(list(logits), dim=1).float(), torch.cat(list(deltas), dim=1).float()
        references = torch.cat(list(anchors))
        chosen_logits, kinds, differences = [], [], []
        for logit, delta, boxes in zip(all_logits, all_deltas, targets, strict=True):
            objects, background, matches = match_and_sample(
                references, boxes, MATCHED, SAMPLED_ANCHORS, keep_best=True
            )
            chosen_logits.append(logit[torch.cat((objects, background))])
            kinds.append(torch.cat((torch.ones_like(logit[objects]), torch.zeros_like(logit[background]))))
            wanted = self.deltas.encode(boxes[matches], references[objects])
            beta = self.config.proposal_box_loss_beta
            differences.append(F.smooth_l1_loss(delta[objects], wanted, reduction="sum", beta=beta))
        kind = torch.cat(kinds)
        return {
            "loss_objectness": F.binary_cross_entropy_with_logits(torch.cat(chosen_logits), kind),
            "loss_proposals": torch.stack(differences).sum() / max(len(kind), 1),
        }


def pool_regions(maps: Sequence[torch.Tensor], regions: Sequence[torch.Tensor], side: int) -> torch.Tensor:
    """
    Features of regions on a grid, each read from the level that fits its size.

    Args:
        maps (`Sequence[torch.Tensor]` of shapes `(batch_size, channels, height, width)`):
            Levels of the pyramid, the finest first.
        regions (`Sequence[torch.Tensor]` of shapes `(regions, 4)`):
            Boxes of each image.
        side (`int`):
            Side of the grid.

    Returns:
        `torch.Tensor` of shape `(regions of all images, channels, side, side)`.
    """
    boxes = torch.cat(list(regions)).float()
    images = torch.cat([boxes.new_full((len(one), 1), index) for index, one in enumerate(regions)])
    sides = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clamp(min=0).sqrt()
    levels = (sides / FINEST_REGION + LEVEL_EPS).log2().floor().clamp(0, REGION_LEVELS - 1)
    rows = torch.cat((images, boxes), dim=1)
    pooled = maps[0].new_zeros(len(rows), maps[0].shape[1], side, side)
    for level, (one, stride) in enumerate(zip(maps[:REGION_LEVELS], STRIDES)):
        chosen = (levels == level).nonzero()[:, 0]
        # in float32: places of boxes need its precision, and torchvision has no other on every device
        read = roi_align(one.float(), rows[chosen], side, 1 / stride, sampling_ratio=0, aligned=True)
        pooled[chosen] = read.to(pooled.dtype)
    return pooled


def relative_boxes(boxes: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """
    Corners as shares of an image.

    Args:
        boxes (`torch.Tensor` of shape `(..., 4)`):
            Corners in pixels.
        size (`tuple[int, int]`):
            Height and width of the image in pixels.

    Returns:
        `torch.Tensor` of shape `(..., 4)`.
    """
    height, width = size
    left, top, right, bottom = boxes.unbind(-1)
    return torch.stack((left / width, top / height, right / width, bottom / height), dim=-1)


__all__ = [
    "REGION_LEVELS",
    "SAMPLED_REGIONS",
    "STRIDES",
    "BoxDeltas",
    "RegionProposalNetwork",
    "anchor_grid",
    "match_and_sample",
    "pool_regions",
    "relative_boxes",
]
