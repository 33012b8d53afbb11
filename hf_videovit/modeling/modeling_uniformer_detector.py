"""
Object detection and instance segmentation with UniFormer ([Li et al., 2022](https://huggingface.co/papers/2201.09450)).
Behaviour follows `object_detection/` of the official code (Sense-X/UniFormer, commit 52a0415), which uses
MMDetection 2.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from transformers import AutoBackbone, PreTrainedModel
from transformers import initialization as init
from transformers.image_transforms import center_to_corners_format
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .configuration_uniformer import UniFormerConfig
from .configuration_uniformer_dense import UniFormerDetectorConfig
from .layers import start_of, starting
from .modeling_region_heads import Detections, RegionHeads
from .modeling_region_proposals import INIT_DEVIATIONS, KAIMING, XAVIER, RegionProposalNetwork, relative_boxes
from .modeling_uniformer import UniFormerBackbone


@dataclass
class UniFormerDetectorOutput(ModelOutput):
    """
    Output of [`UniFormerForObjectDetection`]. Images with fewer objects than others are filled up with scores of 0.

    Args:
        loss (`torch.Tensor` of shape `()`, *optional*):
            Sum of `loss_dict`.
        loss_dict (`dict[str, torch.Tensor]`, *optional*):
            The weighted losses by name.
        scores (`torch.Tensor` of shape `(batch_size, max_detections)`, *optional*):
            The best first.
        pred_labels (`torch.LongTensor` of shape `(batch_size, max_detections)`, *optional*):
            Their labels.
        pred_boxes (`torch.Tensor` of shape `(batch_size, max_detections, 4)`, *optional*):
            Left, top, right and bottom as shares of the image without padding.
        pred_masks (`torch.Tensor` of shape `(batch_size, max_detections, 28, 28)`, *optional*):
            Probabilities on a grid over each box.
        hidden_states, attentions (`tuple(torch.Tensor)`, *optional*):
            Of the backbone.
    """

    loss: torch.Tensor | None = None
    loss_dict: dict[str, torch.Tensor] | None = None
    scores: torch.Tensor | None = None
    pred_labels: torch.Tensor | None = None
    pred_boxes: torch.Tensor | None = None
    pred_masks: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


def backbone_from(config: Any) -> PreTrainedModel:
    """
    The backbone of a dense model.

    Args:
        config (`PreTrainedConfig`):
            Its configuration.

    Returns:
        `PreTrainedModel`
    """
    # by name: code from the Hub may have loaded the class of the configuration a second time
    own = config.model_type == UniFormerConfig.model_type
    return UniFormerBackbone(config) if own else AutoBackbone.from_config(config)


class FeaturePyramid(nn.Module):
    """
    Five maps of equal width ([Lin et al., 2017](https://huggingface.co/papers/1612.03144)): torchvision's, as the
    official one computes them.

    Args:
        channels (`Sequence[int]`):
            Channels of the backbone's maps, the finest first.
        out_channels (`int`):
            Channels of every level.
        add_pooled_level (`bool`, *optional*, defaults to `True`):
            Whether every second place of the coarsest map makes a further level.
    """

    def __init__(self, channels: Sequence[int], out_channels: int, *, add_pooled_level: bool = True):
        super().__init__()
        extra = LastLevelMaxPool() if add_pooled_level else None
        self.layers = FeaturePyramidNetwork(list(channels), out_channels, extra)
        for layer in self.layers.modules():
            if isinstance(layer, nn.Conv2d):
                starting(XAVIER, layer)

    def forward(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """
        Compute the levels.

        Args:
            maps (`Sequence[torch.Tensor]` of shapes `(batch_size, channels, height, width)`):
                Maps of the backbone.

        Returns:
            `list[torch.Tensor]` of shapes `(batch_size, out_channels, height, width)`.
        """
        return list(self.layers(OrderedDict((str(level), one) for level, one in enumerate(maps))).values())


class UniFormerDetectorPreTrainedModel(PreTrainedModel):
    """Weight initialisation of the official code, and what transformers must know of the models."""

    config_class = UniFormerDetectorConfig
    base_model_prefix = "detector"
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["UniFormerBackbone", "BoxHead"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """As MMDetection: Xavier's in the pyramid and box heads, Kaiming's in mask heads, small in what predicts."""
        super()._init_weights(module)
        start = start_of(module)
        if start == XAVIER:
            init.xavier_uniform_(module.weight)
        elif start == KAIMING:
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif start in INIT_DEVIATIONS:
            init.normal_(module.weight, std=INIT_DEVIATIONS[start])


class UniFormerForObjectDetection(UniFormerDetectorPreTrainedModel):
    """
    Objects in images, with a mask of each: a backbone, a feature pyramid, proposals, and box and mask heads.

    Args:
        config ([`UniFormerDetectorConfig`]):
            Configuration.
    """

    def __init__(self, config: UniFormerDetectorConfig):
        super().__init__(config)
        self.backbone = backbone_from(config.backbone_config)
        self.pyramid = FeaturePyramid(self.backbone.channels, config.pyramid_size)
        self.proposals = RegionProposalNetwork(config)
        self.heads = RegionHeads(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        pixel_mask: torch.Tensor | None = None,
        labels: list[dict[str, torch.Tensor]] | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> UniFormerDetectorOutput:
        r"""
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
                Normalised images, padded at the bottom and on the right.
            pixel_mask (`torch.Tensor` of shape `(batch_size, height, width)`, *optional*):
                1 for pixels of the image, 0 for padding. Without it nothing is padding.
            labels (`list[dict[str, torch.Tensor]]`, *optional*):
                For each image `class_labels` of shape `(objects,)`, `boxes` of shape `(objects, 4)` (centre x and y,
                width, height as shares of `pixel_values` with its padding, as transformers' processors make them) and,
                with masks, `masks` of shape `(objects, height, width)`. In training mode there are losses only; in
                evaluation mode detections too.

        Returns:
            [`UniFormerDetectorOutput`]

        Raises:
            ValueError: `labels` do not fit.

        Example:

        ```python
        >>> import torch

        >>> from hf_videovit import UniFormerDetectorConfig, UniFormerForObjectDetection

        >>> config = UniFormerDetectorConfig.from_size("small", num_labels=80)
        >>> model = UniFormerForObjectDetection(config).eval()
        >>> list(model(torch.rand(1, 3, 128, 160)).pred_boxes.shape)
        [1, 100, 4]
        ```"""
        sizes = _image_sizes(pixel_values, pixel_mask)
        objects = None if labels is None else self._objects(labels, pixel_values)
        outputs = self.backbone(pixel_values, **kwargs)
        maps = self.pyramid(outputs.feature_maps)
        logits, deltas = self.proposals(maps)
        anchors = self.proposals.anchors(maps)
        proposals = self.proposals.propose(logits, deltas, anchors, sizes)
        fields: dict[str, Any] = {}
        if objects is not None:
            boxes = [image["boxes"] for image in objects]
            losses = {
                **self.proposals.loss(logits, deltas, anchors, boxes),
                **self.heads.losses(maps, proposals, sizes, objects),
            }
            fields = {"loss": torch.stack(list(losses.values())).sum(), "loss_dict": losses}
        if objects is None or not self.training:
            found = self.heads.detect(maps, proposals, sizes)
            masks = self.heads.masks(maps, found) if self.config.use_masks else None
            fields |= self._of_one_length(found, masks, sizes)
        return UniFormerDetectorOutput(**fields, hidden_states=outputs.hidden_states, attentions=outputs.attentions)

    def _objects(
        self, labels: list[dict[str, torch.Tensor]], pixel_values: torch.Tensor
    ) -> list[dict[str, torch.Tensor]]:
        """Objects with corners in pixels."""
        if len(labels) != len(pixel_values):
            raise ValueError(
                f"`labels` must have one entry for each of {len(pixel_values)} images, got {len(labels)}."
            )
        names = ("class_labels", "boxes", "masks")[: 3 if self.config.use_masks else 2]
        height, width = pixel_values.shape[-2:]
        scale = torch.tensor([width, height, width, height], dtype=torch.float32)
        scale = scale.to(pixel_values.device, non_blocking=True)
        objects = []
        for image in labels:
            missing = [name for name in names if name not in image]
            if missing:
                raise ValueError(f"`labels` must have {', '.join(names)} of each image, got {sorted(image)}.")
            one = {name: image[name].to(pixel_values.device) for name in names}
            one["boxes"] = center_to_corners_format(one["boxes"].float().reshape(-1, 4)) * scale
            counts = {name: len(value) for name, value in one.items()}
            if len(set(counts.values())) > 1:
                raise ValueError(f"`labels` must have as many of each kind for an image, got {counts}.")
            objects.append(one)
        return objects

    def _of_one_length(
        self,
        found: Sequence[Detections],
        masks: Sequence[torch.Tensor] | None,
        sizes: Sequence[tuple[int, int]],
    ) -> dict[str, torch.Tensor]:
        """The detections of all images as tensors of one length."""
        most = self.config.max_detections

        def filled(parts: Sequence[torch.Tensor]) -> torch.Tensor:
            spare = [(0, 0) * (one.ndim - 1) + (0, most - len(one)) for one in parts]
            return torch.stack([F.pad(one, pad) for one, pad in zip(parts, spare)])

        return {
            "scores": filled([one.scores for one in found]),
            "pred_labels": filled([one.labels for one in found]),
            "pred_boxes": filled([relative_boxes(one.boxes, size) for one, size in zip(found, sizes)]),
            **({} if masks is None else {"pred_masks": filled(masks)}),
        }


def _image_sizes(pixel_values: torch.Tensor, pixel_mask: torch.Tensor | None) -> list[tuple[int, int]]:
    """Height and width of each image without padding."""
    if pixel_values.ndim != 4:
        shape = "(batch_size, num_channels, height, width)"
        raise ValueError(f"`pixel_values` must have shape {shape}, got {tuple(pixel_values.shape)}.")
    height, width = pixel_values.shape[-2:]
    if pixel_mask is None:
        return [(height, width)] * len(pixel_values)
    if pixel_mask.shape != (len(pixel_values), height, width):
        wanted = (len(pixel_values), height, width)
        raise ValueError(f"`pixel_mask` must have shape {wanted}, got {tuple(pixel_mask.shape)}.")
    sides = torch.stack((pixel_mask.amax(2).sum(1), pixel_mask.amax(1).sum(1)), dim=1)
    return [(int(rows), int(columns)) for rows, columns in sides.tolist()]


__all__ = [
    "FeaturePyramid",
    "UniFormerDetectorOutput",
    "UniFormerDetectorPreTrainedModel",
    "UniFormerForObjectDetection",
    "backbone_from",
]
