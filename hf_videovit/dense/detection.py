"""
Detection and segmentation on [`UniFormerBackbone`]: torchvision's feature pyramid and Mask R-CNN, and options of the
official dense recipes. For semantic segmentation, use the backbone with transformers' own
`UperNetForSemanticSegmentation` (docs/uniformer.md).
"""

import inspect
from collections import OrderedDict
from typing import Any

import torch
from torch import nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from transformers import PreTrainedModel
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from ..modeling.configuration_uniformer import ATTENTION_TYPES
from ..modeling.modeling_uniformer import UniFormerModel, is_windowed


NUM_LEVELS = 4  # maps at strides 4, 8, 16 and 32; a fifth level comes by max pooling
SIZE_DIVISIBLE = 32  # of padded images, so that no stage drops pixels
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class FeaturePyramid(nn.Module):
    """
    A backbone with a feature pyramid ([Lin et al., 2017](https://huggingface.co/papers/1612.03144)) for torchvision's
    detectors.

    Args:
        backbone (`PreTrainedModel`):
            [`UniFormerBackbone`], or another backbone of transformers, with four maps at strides 4, 8, 16 and 32.
        out_channels (`int`, *optional*, defaults to 256):
            Channels of every level.

    Raises:
        ValueError: the backbone does not return four maps.
    """

    def __init__(self, backbone: PreTrainedModel, out_channels: int = 256):
        super().__init__()
        if len(backbone.channels) != NUM_LEVELS or "stem" in backbone.out_features:
            raise ValueError(
                "`backbone` must return the maps of four stages (`out_indices=[1, 2, 3, 4]` of its configuration), "
                f"got {list(backbone.out_features)}."
            )
        self.backbone = backbone
        self.out_channels = out_channels  # torchvision's detectors ask for it
        self.pyramid = FeaturePyramidNetwork(list(backbone.channels), out_channels, LastLevelMaxPool())

    def forward(self, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        """
        Compute the levels of the pyramid.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
                Normalised images.

        Returns:
            `dict[str, torch.Tensor]`: maps `"0"` to `"3"` and `"pool"`, at strides 4 to 64, all with `out_channels`
            channels.
        """
        maps = self.backbone(pixel_values).feature_maps
        return self.pyramid(OrderedDict((str(level), one) for level, one in enumerate(maps)))


def mask_rcnn(backbone: PreTrainedModel, num_classes: int, *, out_channels: int = 256, **options: Any) -> MaskRCNN:
    """
    torchvision's Mask R-CNN on a backbone. It takes a list of images of any size in `[0, 1]`, resizes them, normalises
    them with ImageNet's mean and deviation, and pads them to multiples of 32 pixels.

    Args:
        backbone (`PreTrainedModel`):
            See [`FeaturePyramid`].
        num_classes (`int`):
            Classes, the background (index 0) included: 81 for the 80 of COCO.
        out_channels (`int`, *optional*, defaults to 256):
            Channels of the pyramid.
        options:
            Further arguments of `torchvision.models.detection.MaskRCNN`, such as `min_size`, `max_size` and
            `box_detections_per_img`, and `size_divisible` and `fixed_size` of its transform.

    Returns:
        `MaskRCNN`

    Raises:
        ValueError: an unknown option, fewer than two classes, or a backbone without four maps.

    Example:

    ```python
    >>> import torch

    >>> from hf_videovit import UniFormerBackbone, UniFormerConfig
    >>> from hf_videovit.dense import mask_rcnn

    >>> config = UniFormerConfig.from_size(
    ...     "small", modality="image", out_indices=[1, 2, 3, 4], attention_type="hybrid"
    ... )
    >>> detector = mask_rcnn(UniFormerBackbone(config), num_classes=81).eval()
    >>> sorted(detector([torch.rand(3, 120, 200)])[0])
    ['boxes', 'labels', 'masks', 'scores']
    ```"""
    if num_classes < 2:
        raise ValueError(f"`num_classes` includes the background and must be at least 2, got {num_classes}.")
    allowed = {
        name
        for callable_ in (MaskRCNN.__init__, GeneralizedRCNNTransform.__init__)
        for name, parameter in inspect.signature(callable_).parameters.items()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    } - {"self", "backbone", "num_classes"}
    unknown = sorted(set(options) - allowed)
    if unknown:  # torchvision accepts any name silently
        raise ValueError(
            f"`{unknown[0]}` is not an option of Mask R-CNN, must be one of {', '.join(sorted(allowed))}."
        )
    defaults = {
        "image_mean": list(IMAGENET_DEFAULT_MEAN),
        "image_std": list(IMAGENET_DEFAULT_STD),
        "size_divisible": SIZE_DIVISIBLE,
    }
    return MaskRCNN(FeaturePyramid(backbone, out_channels), num_classes, **{**defaults, **options})


def set_attention_type(model: nn.Module, attention_type: str, window_size: int | None = None) -> None:
    """
    Change the attention of stage 3, at any time: all modes share their weights. The published segmentation models
    "w32", "h32" and "global" share one set of weights, tested in three modes.

    Args:
        model (`nn.Module`):
            A UniFormer, or any model with one inside.
        attention_type (`str`):
            `"global"`, `"window"` or `"hybrid"`.
        window_size (`int`, *optional*):
            Side of a window in tokens of 16 pixels. Unchanged by default.

    Raises:
        ValueError: the type or size is not allowed, or `model` has no UniFormer with windows.
    """
    if attention_type not in ATTENTION_TYPES:
        raise ValueError(f"`attention_type` must be one of {ATTENTION_TYPES}, got {attention_type!r}.")
    if window_size is not None and window_size < 1:
        raise ValueError(f"`window_size` must be at least 1, got {window_size}.")
    found = [module for module in model.modules() if isinstance(module, UniFormerModel)]
    if not found or any(one.config.modality != "image" or one.config.use_token_pruning for one in found):
        raise ValueError("`model` must contain a UniFormer for images without token pruning; no other has windows.")
    for one in found:
        size = window_size or one.config.window_size
        blocks: Any = one.stages[2].blocks
        for index, block in enumerate(blocks):
            block.window_size = size if is_windowed(attention_type, index) else None
    for config in _configurations(model):
        config.attention_type, config.window_size = attention_type, window_size or config.window_size


def _configurations(model: nn.Module) -> list[Any]:
    """Every UniFormer configuration in a model, including the copy that an outer model saves."""
    owned = [module.config for module in model.modules() if isinstance(module, PreTrainedModel)]
    nested = [vars(config)["backbone_config"] for config in owned if vars(config).get("backbone_config") is not None]
    return [config for config in (*owned, *nested) if config.model_type == UniFormerModel.config_class.model_type]


def freeze_batch_norms(model: nn.Module) -> int:
    """
    Fix the running statistics and the scale of every BatchNorm, also in training mode. The authors recommend this for
    dense tasks, whose batches are small.

    Args:
        model (`nn.Module`):
            Usually a backbone. The heads of UperNet have new BatchNorms that must be trained.

    Returns:
        `int`: number of frozen BatchNorms.
    """
    norms = [module for module in model.modules() if isinstance(module, BATCH_NORMS)]
    for norm in norms:
        norm.requires_grad_(False).eval()
        norm.register_forward_pre_hook(_stay_in_evaluation)
    return len(norms)


def _stay_in_evaluation(module: nn.Module, inputs: Any) -> None:
    """Hook that undoes `train()` of an outer model."""
    module.eval()


__all__ = ["FeaturePyramid", "freeze_batch_norms", "mask_rcnn", "set_attention_type"]
