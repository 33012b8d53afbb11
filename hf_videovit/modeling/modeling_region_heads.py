"""
Heads of two-stage detectors on regions of a pyramid: Mask R-CNN ([He et al.,
2017](https://huggingface.co/papers/1703.06870)), and in stages Cascade Mask R-CNN ([Cai and Vasconcelos,
2019](https://huggingface.co/papers/1906.09756)). Boxes are corners `(left, top, right, bottom)` in pixels of the
images as the model sees them.

Behaviour follows MMDetection 2, which the official code uses: the label after the last one is the background, there is
a box for each label, and the stages of a cascade share the scores and masks of an image by their mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import batched_nms, clip_boxes_to_image, generalized_box_iou_loss, roi_align

from .layers import starting
from .modeling_region_proposals import (
    BOXES,
    CLASSES,
    KAIMING,
    SAMPLED_REGIONS,
    XAVIER,
    BoxDeltas,
    match_and_sample,
    pool_regions,
)


BOX_SIDE, MASK_SIDE = 7, 14  # of the grids that regions are read on; masks have twice the side


@dataclass
class Detections:
    """
    Objects in an image.

    Args:
        scores (`torch.Tensor` of shape `(objects,)`):
            The best first.
        labels (`torch.LongTensor` of shape `(objects,)`):
            Their labels.
        boxes (`torch.Tensor` of shape `(objects, 4)`):
            Corners in pixels.
    """

    scores: torch.Tensor
    labels: torch.Tensor
    boxes: torch.Tensor


@dataclass
class Samples:
    """
    Regions of an image that a stage learns from.

    Args:
        boxes (`torch.Tensor` of shape `(regions, 4)`):
            Corners; those of objects first.
        labels (`torch.LongTensor` of shape `(regions,)`):
            Their labels; `num_labels` for the background.
        matches (`torch.LongTensor` of shape `(objects,)`):
            The object of each of the first regions.
        own (`torch.BoolTensor` of shape `(regions,)`):
            Whether a region is the box of an object itself.
    """

    boxes: torch.Tensor
    labels: torch.Tensor
    matches: torch.Tensor
    own: torch.Tensor


class _ConvolutionWithNorm(nn.Sequential):
    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(
            starting(KAIMING, nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
        )


class BoxHead(nn.Module):
    """
    Scores and boxes of regions.

    Args:
        config ([`UniFormerDetectorConfig`]):
            Configuration.
    """

    def __init__(self, config: Any):
        super().__init__()
        channels, width = config.pyramid_size, config.box_hidden_size
        self.convolutions = nn.Sequential(
            *(_ConvolutionWithNorm(channels, channels) for _ in range(config.box_convolutions))
        )
        widths = [channels * BOX_SIDE**2, *[width] * config.box_layers]
        self.layers = nn.ModuleList(starting(XAVIER, nn.Linear(*pair)) for pair in zip(widths, widths[1:]))
        self.classifier = starting(CLASSES, nn.Linear(width, config.num_labels + 1))
        self.box = starting(BOXES, nn.Linear(width, 4 * config.num_labels))

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Score regions.

        Args:
            features (`torch.Tensor` of shape `(regions, pyramid_size, 7, 7)`):
                Features of the regions.

        Returns:
            `tuple`: logits `(regions, num_labels + 1)`, the background last, and changes of boxes `(regions, 4 *
            num_labels)`.
        """
        hidden = self.convolutions(features).flatten(1)
        for layer in self.layers:
            hidden = F.relu(layer(hidden))
        return self.classifier(hidden), self.box(hidden)


class MaskHead(nn.Module):
    """
    A mask of each label in a region.

    Args:
        config ([`UniFormerDetectorConfig`]):
            Configuration.
    """

    def __init__(self, config: Any):
        super().__init__()
        channels = config.pyramid_size
        layers = [
            starting(KAIMING, nn.Conv2d(channels, channels, 3, padding=1)) for _ in range(config.mask_convolutions)
        ]
        self.convolutions = nn.ModuleList(layers)
        self.upsample = starting(KAIMING, nn.ConvTranspose2d(channels, channels, 2, stride=2))
        self.classifier = starting(KAIMING, nn.Conv2d(channels, config.num_labels, 1))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """
        Logits of masks.

        Args:
            features (`torch.Tensor` of shape `(regions, pyramid_size, 14, 14)`):
                Features of the regions.

        Returns:
            `torch.Tensor` of shape `(regions, num_labels, 28, 28)`.
        """
        for layer in self.convolutions:
            features = F.relu(layer(features))
        return self.classifier(F.relu(self.upsample(features)))


class RegionHeads(nn.Module):
    """
    Box and mask heads of all stages.

    Args:
        config ([`UniFormerDetectorConfig`]):
            Configuration.
    """

    def __init__(self, config: Any):
        super().__init__()
        self.config = config
        stages = range(config.num_box_stages)
        self.box_heads = nn.ModuleList(BoxHead(config) for _ in stages)
        self.mask_heads = nn.ModuleList(MaskHead(config) for _ in stages if config.use_masks)
        self.deltas = [BoxDeltas(config.box_deviations[stage]) for stage in stages]

    def detect(
        self,
        maps: Sequence[torch.Tensor],
        proposals: Sequence[torch.Tensor],
        sizes: Sequence[tuple[int, int]],
    ) -> list[Detections]:
        """
        Find objects.

        Args:
            maps (`Sequence[torch.Tensor]` of shapes `(batch_size, pyramid_size, height, width)`):
                Levels of the pyramid.
            proposals (`Sequence[torch.Tensor]` of shapes `(regions, 4)`):
                Proposals of each image.
            sizes (`Sequence[tuple[int, int]]`):
                Height and width of each image without padding.

        Returns:
            `list[Detections]`: one an image.
        """
        regions, scores = list(proposals), []
        for stage, head in enumerate(self.box_heads):
            logits, deltas = head(pool_regions(maps, regions, BOX_SIDE))
            scores.append(logits.float().softmax(-1))
            if stage + 1 < len(self.box_heads):
                labels = logits[:, :-1].argmax(-1)
                regions = self._moved(stage, regions, deltas, labels, sizes)
        boxes = self.deltas[-1].decode(deltas, torch.cat(regions))
        counts = [len(one) for one in regions]
        mean = torch.stack(scores).mean(0)
        return [
            self._strongest(score, clip_boxes_to_image(box, size))
            for score, box, size in zip(mean.split(counts), boxes.split(counts), sizes, strict=True)
        ]

    def _strongest(self, scores: torch.Tensor, boxes: torch.Tensor) -> Detections:
        """Detections from scores `(regions, num_labels + 1)` and boxes `(regions, num_labels, 4)` of one image."""
        regions, labels = (scores[:, :-1] > self.config.score_threshold).nonzero(as_tuple=True)
        scores, boxes = scores[regions, labels], boxes[regions, labels]
        kept = batched_nms(boxes, scores, labels, self.config.nms_threshold)[: self.config.max_detections]
        return Detections(scores[kept], labels[kept], boxes[kept])

    def _moved(
        self,
        stage: int,
        regions: Sequence[torch.Tensor],
        deltas: torch.Tensor,
        labels: torch.Tensor,
        sizes: Sequence[tuple[int, int]],
    ) -> list[torch.Tensor]:
        """Regions moved as a stage says for the labels `(regions of all images,)`."""
        boxes = self.deltas[stage].decode(deltas, torch.cat(list(regions)))
        boxes = boxes.gather(1, labels[:, None, None].expand(-1, 1, 4))[:, 0]
        parts = boxes.split([len(one) for one in regions])
        return [clip_boxes_to_image(one, size) for one, size in zip(parts, sizes, strict=True)]

    def masks(self, maps: Sequence[torch.Tensor], detections: Sequence[Detections]) -> list[torch.Tensor]:
        """
        Masks of detections.

        Args:
            maps (`Sequence[torch.Tensor]` of shapes `(batch_size, pyramid_size, height, width)`):
                Levels of the pyramid.
            detections (`Sequence[Detections]`):
                The objects of each image.

        Returns:
            `list[torch.Tensor]` of shapes `(objects, 28, 28)`: probabilities.
        """
        features = pool_regions(maps, [one.boxes for one in detections], MASK_SIDE)
        labels = torch.cat([one.labels for one in detections])
        found = torch.stack([_of_labels(head(features), labels).float().sigmoid() for head in self.mask_heads])
        return list(found.mean(0).split([len(one.labels) for one in detections]))

    def losses(
        self,
        maps: Sequence[torch.Tensor],
        proposals: Sequence[torch.Tensor],
        sizes: Sequence[tuple[int, int]],
        objects: Sequence[dict[str, torch.Tensor]],
    ) -> dict[str, torch.Tensor]:
        """
        Losses of all stages, weighted.

        Args:
            maps (`Sequence[torch.Tensor]` of shapes `(batch_size, pyramid_size, height, width)`):
                Levels of the pyramid.
            proposals (`Sequence[torch.Tensor]` of shapes `(regions, 4)`):
                Proposals of each image.
            sizes (`Sequence[tuple[int, int]]`):
                Height and width of each image without padding.
            objects (`Sequence[dict[str, torch.Tensor]]`):
                For each image `boxes` of shape `(objects, 4)` in pixels, `class_labels` and, with masks, `masks` of
                shape `(objects, height, width)`.

        Returns:
            `dict[str, torch.Tensor]`: `loss_classes`, `loss_boxes` and `loss_masks`.
        """
        totals: dict[str, list[torch.Tensor]] = {}
        regions = list(proposals)
        for stage in range(len(self.box_heads)):
            samples = [self._sampled(stage, *pair) for pair in zip(regions, objects, strict=True)]
            parts, regions = self._stage_losses(stage, maps, samples, objects, sizes)
            for name, part in parts.items():
                totals.setdefault(name, []).append(self.config.stage_loss_weights[stage] * part)
        return {name: torch.stack(parts).sum() for name, parts in totals.items()}

    def _sampled(self, stage: int, proposals: torch.Tensor, objects: dict[str, torch.Tensor]) -> Samples:
        """Regions of an image, the boxes of its objects among them."""
        boxes = torch.cat((objects["boxes"], proposals))
        threshold = self.config.box_thresholds[stage]
        chosen, background, matches = match_and_sample(
            boxes, objects["boxes"], (threshold, threshold), SAMPLED_REGIONS
        )
        labels = torch.cat((objects["class_labels"][matches], torch.full_like(background, self.config.num_labels)))
        order = torch.cat((chosen, background))
        return Samples(boxes[order], labels, matches, order < len(objects["boxes"]))

    def _stage_losses(
        self,
        stage: int,
        maps: Sequence[torch.Tensor],
        samples: Sequence[Samples],
        objects: Sequence[dict[str, torch.Tensor]],
        sizes: Sequence[tuple[int, int]],
    ) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
        """Losses of a stage, and the regions of the next one."""
        regions = [one.boxes for one in samples]
        logits, deltas = self.box_heads[stage](pool_regions(maps, regions, BOX_SIDE))
        labels = torch.cat([one.labels for one in samples])
        losses = {
            "loss_classes": F.cross_entropy(logits.float(), labels),
            "loss_boxes": self._box_loss(stage, deltas, labels, samples, objects),
        }
        if self.config.use_masks:
            losses["loss_masks"] = self._mask_loss(stage, maps, samples, objects)
        if stage + 1 == len(self.box_heads):
            return losses, []
        guesses = logits.detach()[:, :-1].argmax(-1)
        towards = torch.where(labels == self.config.num_labels, guesses, labels)
        moved = self._moved(stage, regions, deltas.detach(), towards, sizes)
        return losses, [one[~sample.own] for one, sample in zip(moved, samples, strict=True)]

    def _box_loss(
        self,
        stage: int,
        deltas: torch.Tensor,
        labels: torch.Tensor,
        samples: Sequence[Samples],
        objects: Sequence[dict[str, torch.Tensor]],
    ) -> torch.Tensor:
        """Loss of the boxes of objects for their own labels, over the number of all regions."""
        chosen = (labels < self.config.num_labels).nonzero()[:, 0]
        own = deltas.unflatten(1, (-1, 4))[chosen, labels[chosen]].float()
        references = torch.cat([one.boxes for one in samples])[chosen]
        targets = torch.cat([image["boxes"][one.matches] for one, image in zip(samples, objects, strict=True)])
        if self.config.box_loss == "giou":
            decoded = self.deltas[stage].decode(own, references)[:, 0]
            loss = generalized_box_iou_loss(decoded, targets, reduction="sum")
        else:
            loss = F.l1_loss(own, self.deltas[stage].encode(targets, references), reduction="sum")
        return self.config.box_loss_weight * loss / max(len(labels), 1)

    def _mask_loss(
        self,
        stage: int,
        maps: Sequence[torch.Tensor],
        samples: Sequence[Samples],
        objects: Sequence[dict[str, torch.Tensor]],
    ) -> torch.Tensor:
        """Binary cross-entropy of the masks of objects for their own labels."""
        regions = [one.boxes[: len(one.matches)] for one in samples]
        labels = torch.cat([one.labels[: len(one.matches)] for one in samples])
        logits = self.mask_heads[stage](pool_regions(maps, regions, MASK_SIDE))
        if not len(labels):
            return logits.sum()  # 0, with a gradient for every process
        targets = torch.cat(
            [
                mask_targets(image["masks"], one.matches, boxes)
                for one, image, boxes in zip(samples, objects, regions, strict=True)
            ]
        )
        return F.binary_cross_entropy_with_logits(_of_labels(logits, labels).float(), targets)


def mask_targets(masks: torch.Tensor, matches: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """
    Masks of objects inside boxes, on the grid of a mask head.

    Args:
        masks (`torch.Tensor` of shape `(objects, height, width)`):
            Masks in pixels of the image, 0 or 1.
        matches (`torch.LongTensor` of shape `(boxes,)`):
            The object of each box.
        boxes (`torch.Tensor` of shape `(boxes, 4)`):
            Corners in pixels.

    Returns:
        `torch.Tensor` of shape `(boxes, 28, 28)`: 1 where at least half of a cell belongs to the object.
    """
    rows = torch.cat((matches[:, None].to(boxes.dtype), boxes), dim=1)
    cells = roi_align(masks[:, None].to(boxes.dtype), rows, 2 * MASK_SIDE, 1.0, sampling_ratio=0, aligned=True)
    return (cells[:, 0] >= 0.5).to(boxes.dtype)


def _of_labels(masks: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Of masks `(regions, num_labels, height, width)` those of the regions' own labels."""
    return masks[torch.arange(len(labels), device=labels.device), labels]


__all__ = ["BoxHead", "Detections", "MaskHead", "RegionHeads", "mask_targets"]
