"""Configurations of detectors and segmenters on a UniFormer backbone."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers.models.auto import AutoConfig

from .configuration_base import refuse_misspelt_fields
from .configuration_uniformer import UniFormerConfig


BOX_LOSSES = ("l1", "giou")
BOX_DEVIATIONS = ((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))
# Fields of the two published detectors that differ from the defaults.
DETECTORS: dict[str, dict[str, Any]] = {
    "mask_rcnn": {},
    "cascade_mask_rcnn": {
        "num_box_stages": 3,
        "box_convolutions": 4,
        "box_layers": 1,
        "box_loss": "giou",
        "box_loss_weight": 10.0,
        "proposal_box_loss_beta": 1 / 9,
    },
}


@strict
class UniFormerDetectorConfig(PreTrainedConfig):
    r"""
    Configuration of [`UniFormerForObjectDetection`]: Mask R-CNN ([He et al.,
    2017](https://huggingface.co/papers/1703.06870)) or Cascade Mask R-CNN ([Cai and Vasconcelos,
    2019](https://huggingface.co/papers/1906.09756)) on a backbone with four maps at strides 4 to 32. The defaults are
    the published Mask R-CNN with UniFormer-S.

    Args:
        backbone_config ([`UniFormerConfig`] or `dict`, *optional*):
            Configuration of the backbone, which must return the maps of its four stages. Defaults to UniFormer-S with
            hybrid attention.
        pyramid_size (`int`, *optional*, defaults to 256):
            Channels of the feature pyramid, of the convolutions of the heads and of the proposal network.
        anchor_scale (`float`, *optional*, defaults to 8.0):
            Side of a square anchor in strides of its level.
        anchor_ratios (`list[float]`, *optional*, defaults to `[0.5, 1.0, 2.0]`):
            Height of an anchor over its width.
        proposals_before_nms (`list[int]`, *optional*, defaults to `[2000, 1000]`):
            Proposals of each level that go into non-maximum suppression, in training and in evaluation.
        num_proposals (`int`, *optional*, defaults to 1000):
            Proposals of an image that go to the heads.
        proposal_nms_threshold (`float`, *optional*, defaults to 0.7):
            Overlap above which the weaker of two proposals is dropped.
        num_box_stages (`int`, *optional*, defaults to 1):
            Box heads in a row: 1 is Mask R-CNN, 3 Cascade Mask R-CNN. Each stage has a mask head.
        box_thresholds (`list[float]`, *optional*, defaults to `[0.5, 0.6, 0.7]`):
            Training: overlap from which a proposal is an object, one a stage.
        box_deviations (`list[list[float]]`, *optional*):
            What the predicted changes of x, y, width and height are multiplied by, one list a stage. Defaults to
            `[0.1, 0.1, 0.2, 0.2]`, half and a third of that.
        stage_loss_weights (`list[float]`, *optional*, defaults to `[1.0, 0.5, 0.25]`):
            Weight of the losses of each stage.
        box_convolutions (`int`, *optional*, defaults to 0):
            Convolutions with BatchNorm in a box head; 4 in the published Cascade Mask R-CNN.
        box_layers (`int`, *optional*, defaults to 2):
            Linear layers of a box head before the classifier; 1 in the published Cascade Mask R-CNN.
        box_hidden_size (`int`, *optional*, defaults to 1024):
            Width of these layers.
        box_loss (`str`, *optional*, defaults to `"l1"`):
            `"l1"` of the predicted changes, or `"giou"` of the boxes.
        box_loss_weight (`float`, *optional*, defaults to 1.0):
            Weight of this loss.
        proposal_box_loss_beta (`float`, *optional*, defaults to 0.0):
            Where the loss of the proposals' boxes turns from squares to absolute values; 0 is the L1 loss.
        use_masks (`bool`, *optional*, defaults to `True`):
            Whether there are mask heads. Without them the model is Faster R-CNN or Cascade R-CNN.
        mask_convolutions (`int`, *optional*, defaults to 4):
            Convolutions of a mask head.
        score_threshold (`float`, *optional*, defaults to 0.05):
            Lowest score of a detection.
        nms_threshold (`float`, *optional*, defaults to 0.5):
            Overlap above which the weaker of two detections of one label is dropped.
        max_detections (`int`, *optional*, defaults to 100):
            Detections of an image.

    Raises:
        ValueError: a value is not among those allowed, or the backbone does not return four maps.

    Example:

    ```python
    >>> from hf_videovit import UniFormerDetectorConfig, UniFormerForObjectDetection

    >>> config = UniFormerDetectorConfig.from_size("small", "cascade_mask_rcnn", num_labels=80)
    >>> model = UniFormerForObjectDetection(config)
    ```"""

    model_type = "uniformer_detector"
    sub_configs = {"backbone_config": AutoConfig}

    backbone_config: dict[str, Any] | PreTrainedConfig | None = None
    pyramid_size: int = 256
    anchor_scale: float | int = 8.0
    anchor_ratios: list[float | int] | tuple[float | int, ...] = (0.5, 1.0, 2.0)
    proposals_before_nms: list[int] | tuple[int, ...] = (2000, 1000)
    num_proposals: int = 1000
    proposal_nms_threshold: float | int = 0.7
    num_box_stages: int = 1
    box_thresholds: list[float | int] | tuple[float | int, ...] = (0.5, 0.6, 0.7)
    box_deviations: list[list[float | int]] | tuple[tuple[float | int, ...], ...] = BOX_DEVIATIONS
    stage_loss_weights: list[float | int] | tuple[float | int, ...] = (1.0, 0.5, 0.25)
    box_convolutions: int = 0
    box_layers: int = 2
    box_hidden_size: int = 1024
    box_loss: str = "l1"
    box_loss_weight: float | int = 1.0
    proposal_box_loss_beta: float | int = 0.0
    use_masks: bool = True
    mask_convolutions: int = 4
    score_threshold: float | int = 0.05
    nms_threshold: float | int = 0.5
    max_detections: int = 100

    def __post_init__(self, **kwargs: Any) -> None:
        refuse_misspelt_fields(self, kwargs)
        self.backbone_config = backbone_of(self.backbone_config, attention_type="hybrid")
        for name in ("anchor_ratios", "proposals_before_nms", "box_thresholds", "stage_loss_weights"):
            setattr(self, name, list(getattr(self, name)))
        self.box_deviations = [list(one) for one in self.box_deviations]
        self.validate_options()
        super().__post_init__(**kwargs)

    def validate_options(self) -> None:
        """
        Check the values. It is part of `@strict`'s class validation.

        Raises:
            ValueError: a value is not among those allowed.
        """
        if self.box_loss not in BOX_LOSSES:
            raise ValueError(f"`box_loss` must be one of {BOX_LOSSES}, got {self.box_loss!r}.")
        least = {"num_box_stages": 1, "num_proposals": 1, "max_detections": 1, "pyramid_size": 1, "box_layers": 1}
        for name, bound in {**least, "box_convolutions": 0, "mask_convolutions": 0}.items():
            if getattr(self, name) < bound:
                raise ValueError(f"`{name}` must be at least {bound}, got {getattr(self, name)}.")
        for name in ("proposal_nms_threshold", "score_threshold", "nms_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must be from 0 to 1, got {getattr(self, name)}.")
        for name in ("box_thresholds", "box_deviations", "stage_loss_weights"):
            if len(getattr(self, name)) < self.num_box_stages:
                raise ValueError(
                    f"`{name}` must have a value for each of {self.num_box_stages} stages, got {getattr(self, name)}."
                )
        if len(self.proposals_before_nms) != 2 or min(self.proposals_before_nms) < 1:
            raise ValueError(f"`proposals_before_nms` must be two positive ints, got {self.proposals_before_nms}.")
        if not self.anchor_ratios or min(self.anchor_ratios) <= 0 or not self.anchor_scale > 0:
            raise ValueError(
                f"`anchor_ratios` and `anchor_scale` must be positive, got {self.anchor_ratios}, {self.anchor_scale}."
            )

    @classmethod
    def from_size(cls, size: str, detector: str = "mask_rcnn", **kwargs: Any) -> "UniFormerDetectorConfig":
        """
        Configuration of a published detector.

        Args:
            size (`str`):
                Size of the backbone, such as `"small"`, `"base"`, `"xs"` or `"xxs"`.
            detector (`str`, *optional*, defaults to `"mask_rcnn"`):
                `"mask_rcnn"` or `"cascade_mask_rcnn"`.
            kwargs:
                Fields that replace those of the detector.

        Returns:
            [`UniFormerDetectorConfig`]

        Raises:
            ValueError: no such size or detector.
        """
        if detector not in DETECTORS:
            raise ValueError(f"`detector` must be one of {list(DETECTORS)}, got {detector!r}.")
        return cls(**{"backbone_config": dense_backbone(size, "hybrid"), **DETECTORS[detector], **kwargs})


def dense_backbone(size: str, attention_type: str) -> UniFormerConfig:
    """
    Configuration of a backbone of a published size that returns the maps of its four stages.

    Args:
        size (`str`):
            See [`~UniFormerConfig.from_size`].
        attention_type (`str`):
            Attention of stage 3, for the sizes that have windows.

    Returns:
        [`UniFormerConfig`]
    """
    config = UniFormerConfig.from_size(size, modality="image", out_indices=[1, 2, 3, 4])
    if not config.use_token_pruning:
        config.attention_type = attention_type
    return config


def backbone_of(value: Any, attention_type: str = "global") -> PreTrainedConfig:
    """
    The field `backbone_config` of a dense model as an object.

    Args:
        value (`PreTrainedConfig` or `dict`, or `None`):
            The field as it is given or read from a file; `None` for UniFormer-S.
        attention_type (`str`, *optional*, defaults to `"global"`):
            Attention of stage 3 of that UniFormer-S.

    Returns:
        `PreTrainedConfig`

    Raises:
        ValueError: a dictionary without `model_type`, or a backbone that does not return four maps.
    """
    if value is None:
        return dense_backbone("small", attention_type)
    if isinstance(value, dict):
        model_type = value.get("model_type")
        if model_type is None:
            raise ValueError("`backbone_config` as a dictionary must have 'model_type', such as 'uniformer'.")
        known = UniFormerConfig if model_type == UniFormerConfig.model_type else CONFIG_MAPPING[model_type]
        value = known.from_dict(value)
    features = list(getattr(value, "out_features", None) or ())
    if len(features) != 4 or "stem" in features:
        raise ValueError(
            "`backbone_config` must return the maps of four stages (`out_indices=[1, 2, 3, 4]`), got "
            f"`out_features` {features}."
        )
    return value


DECODE_HEADS = ("upernet", "fpn")
# Fields of the two published segmenters that differ from the defaults.
SEGMENTERS: dict[str, dict[str, Any]] = {
    "upernet": {},
    "fpn": {"decode_head": "fpn", "hidden_size": 128, "use_auxiliary_head": False},
}


@strict
class UniFormerSegmenterConfig(PreTrainedConfig):
    r"""
    Configuration of [`UniFormerForSemanticSegmentation`]: UperNet ([Xiao et al.,
    2018](https://huggingface.co/papers/1807.10221)) or Semantic FPN ([Kirillov et al.,
    2019](https://huggingface.co/papers/1901.02446)) on a backbone with four maps at strides 4 to 32. The defaults are
    the published UperNet with UniFormer-S.

    Args:
        backbone_config ([`UniFormerConfig`] or `dict`, *optional*):
            Configuration of the backbone, which must return the maps of its four stages. Defaults to UniFormer-S.
        decode_head (`str`, *optional*, defaults to `"upernet"`):
            `"upernet"` or `"fpn"`.
        hidden_size (`int`, *optional*, defaults to 512):
            Channels of the decode head; 128 in the published Semantic FPN.
        pyramid_size (`int`, *optional*, defaults to 256):
            Semantic FPN: channels of the feature pyramid.
        pool_scales (`list[int]`, *optional*, defaults to `[1, 2, 3, 6]`):
            UperNet: sides of the grids that the last map is pooled to.
        use_auxiliary_head (`bool`, *optional*, defaults to `True`):
            Whether a second head on the map of stage 3 takes part in training.
        auxiliary_hidden_size (`int`, *optional*, defaults to 256):
            Channels of this head.
        auxiliary_loss_weight (`float`, *optional*, defaults to 0.4):
            Weight of its loss.
        classifier_dropout (`float`, *optional*, defaults to 0.1):
            Share of the channels that are dropped before each classifier in training.
        initializer_range (`float`, *optional*, defaults to 0.01):
            Standard deviation of a fresh classifier's weights.
        semantic_loss_ignore_index (`int`, *optional*, defaults to 255):
            Label of pixels that the loss and the metric leave out.

    Raises:
        ValueError: a value is not among those allowed, or the backbone does not return four maps.

    Example:

    ```python
    >>> from hf_videovit import UniFormerForSemanticSegmentation, UniFormerSegmenterConfig

    >>> config = UniFormerSegmenterConfig.from_size("small", "fpn", num_labels=150)
    >>> model = UniFormerForSemanticSegmentation(config)
    ```"""

    model_type = "uniformer_segmenter"
    sub_configs = {"backbone_config": AutoConfig}

    backbone_config: dict[str, Any] | PreTrainedConfig | None = None
    decode_head: str = "upernet"
    hidden_size: int = 512
    pyramid_size: int = 256
    pool_scales: list[int] | tuple[int, ...] = (1, 2, 3, 6)
    use_auxiliary_head: bool = True
    auxiliary_hidden_size: int = 256
    auxiliary_loss_weight: float | int = 0.4
    classifier_dropout: float | int = 0.1
    initializer_range: float | int = 0.01
    semantic_loss_ignore_index: int = 255

    def __post_init__(self, **kwargs: Any) -> None:
        refuse_misspelt_fields(self, kwargs)
        self.backbone_config = backbone_of(self.backbone_config)
        self.pool_scales = list(self.pool_scales)
        self.validate_options()
        super().__post_init__(**kwargs)

    def validate_options(self) -> None:
        """
        Check the values. It is part of `@strict`'s class validation.

        Raises:
            ValueError: a value is not among those allowed.
        """
        if self.decode_head not in DECODE_HEADS:
            raise ValueError(f"`decode_head` must be one of {DECODE_HEADS}, got {self.decode_head!r}.")
        for name in ("hidden_size", "pyramid_size", "auxiliary_hidden_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if not self.pool_scales or min(self.pool_scales) < 1:
            raise ValueError(f"`pool_scales` must be positive ints, got {self.pool_scales}.")
        if not 0 <= self.classifier_dropout < 1:
            raise ValueError(f"`classifier_dropout` must be from 0 to below 1, got {self.classifier_dropout}.")

    @classmethod
    def from_size(cls, size: str, segmenter: str = "upernet", **kwargs: Any) -> "UniFormerSegmenterConfig":
        """
        Configuration of a published segmenter.

        Args:
            size (`str`):
                Size of the backbone, such as `"small"`, `"base"`, `"xs"` or `"xxs"`.
            segmenter (`str`, *optional*, defaults to `"upernet"`):
                `"upernet"` or `"fpn"`.
            kwargs:
                Fields that replace those of the segmenter.

        Returns:
            [`UniFormerSegmenterConfig`]

        Raises:
            ValueError: no such size or segmenter.
        """
        if segmenter not in SEGMENTERS:
            raise ValueError(f"`segmenter` must be one of {list(SEGMENTERS)}, got {segmenter!r}.")
        return cls(**{"backbone_config": dense_backbone(size, "global"), **SEGMENTERS[segmenter], **kwargs})


__all__ = [
    "DETECTORS",
    "SEGMENTERS",
    "UniFormerDetectorConfig",
    "UniFormerSegmenterConfig",
    "backbone_of",
    "dense_backbone",
]
