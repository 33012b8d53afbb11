"""Configuration of the action detection head that all families share."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .configuration_base import refuse_misspelt_fields


BOX_CONVENTIONS = ("exclusive", "inclusive")
GLOBAL_FEATURES = ("map", "pooled")
LOSS_REDUCTIONS = ("sum_over_boxes", "mean_over_boxes", "mean")
SPATIAL_POOLINGS = ("max", "mean")
TEMPORAL_POOLINGS = ("mean", "max")


@strict
class ActionDetectionConfig(PreTrainedConfig):
    r"""
    Configuration of an [`ActionDetectionHead`]: how the features of a person are read at a box, and how they are
    scored. It is the field `detection_config` of a family's configuration. `num_labels`, `id2label` and `problem_type`
    stay on the family's configuration: `"multi_label_classification"` (the default of these heads) scores each label
    by itself, `"single_label_classification"` exactly one for each person.

    The defaults are those of the official VideoMAE code
    ([MCG-NJU/VideoMAE-Action-Detection](https://github.com/MCG-NJU/VideoMAE-Action-Detection), commit 15615db) with
    two differences: boxes are read without the shift of half a token (`roi_aligned`), and corners are exclusive.

    Args:
        roi_size (`int`, *optional*, defaults to 7):
            Side of the grid that a box is sampled on.
        roi_scale (`float`, *optional*):
            Tokens of the feature map per pixel. Defaults to 1 / stride of the map. The published ViT-g is read at 1/16
            on patches of 14 pixels.
        roi_sampling_ratio (`int`, *optional*, defaults to 0):
            Samples along each side of a cell of the grid; 0 takes as many as the cell is wide in tokens.
        roi_aligned (`bool`, *optional*, defaults to `True`):
            Whether the centre of token 0 lies half a token from the edge, where it is. `False` in the official
            VideoMAE models.
        temporal_pooling (`str`, *optional*, defaults to `"mean"`):
            `"mean"` or `"max"` over the frames of the map.
        pool_time_after_roi (`bool`, *optional*, defaults to `False`):
            Whether each frame is sampled before frames are pooled.
        spatial_pooling (`str`, *optional*, defaults to `"max"`):
            `"max"` or `"mean"` over the grid of a box.
        global_feature (`str`, *optional*):
            A feature of the whole clip, concatenated to that of each box: `"map"` (the map averaged to the grid) or
            `"pooled"` (the pooled features of the encoder, where it has them).
        fused_stages (`int`, *optional*):
            For encoders with stages: the maps of the last stages are resampled to the finest of them and concatenated.
            2, their default, halves the stride of the map. Other encoders have 1.
        head_hidden_sizes (`list[int]`, *optional*, defaults to `[]`):
            Widths of hidden layers with ReLU before the classifier.
        roi_dropout (`float`, *optional*, defaults to 0.0):
            Dropout of a box's grid before it is pooled.
        head_dropout (`float`, *optional*, defaults to 0.0):
            Dropout before the classifier.
        head_init_std (`float`, *optional*, defaults to 2e-05):
            Standard deviation of a fresh classifier's weights.
        box_enlargement (`list[float]`, *optional*, defaults to `[0.1, 0.05]`):
            Share of its width and of its height by which a box grows in evaluation, half of it on each side.
        box_jitter (`list[float]`, *optional*, defaults to `[0.2, 0.1, 0.1, 0.05]`):
            Movement of corners in training, as shares of the box: outwards and inwards along the width, outwards and
            inwards along the height are `[0.2, 0.1, 0.1, 0.05]`.
        box_convention (`str`, *optional*, defaults to `"exclusive"`):
            `"exclusive"`: the lower right corner lies just outside the box, as in torchvision and COCO. `"inclusive"`:
            it is the last pixel inside, as in the official VideoMAE models. The processor converts.
        max_boxes (`int`, *optional*, defaults to 100):
            Largest number of people in a training clip; more are sampled.
        softmax_labels (`int`, *optional*, defaults to 0):
            The first labels that exclude each other (14 poses in AlphAction's head for AVA): they share a softmax.
        background_label (`int`, *optional*):
            A label that stands for "none of the others": it takes part in a softmax over all labels, not in the loss.
        ignore_unlabelled_boxes (`bool`, *optional*, defaults to `False`):
            Whether people without any label stay out of the loss. By default they are negatives of every label.
        loss_reduction (`str`, *optional*, defaults to `"sum_over_boxes"`):
            `"sum_over_boxes"` of the mean over labels (official VideoMAE code), `"mean_over_boxes"` of the sum over
            labels (AlphAction), or the `"mean"` over both (mmaction2).
        focal_gamma (`float`, *optional*, defaults to 0.0):
            Exponent of the focal loss; 0 is the cross-entropy.
        focal_alpha (`float`, *optional*, defaults to 1.0):
            Factor of the focal loss.
        softmax_loss_weight (`float`, *optional*, defaults to 1.0):
            Weight of the labels in the softmax; 1.2 in AlphAction.
        evaluated_labels (`list[int]`, *optional*):
            Labels that the metric scores; all by default. 60 of 80 in AVA.

    Raises:
        ValueError: a value is not among those allowed.

    Example:

    ```python
    >>> from hf_videovit import VideoMAEV2Config, VideoMAEV2ForActionDetection

    >>> config = VideoMAEV2Config.from_size("small", num_labels=80, detection_config={"roi_size": 7})
    >>> model = VideoMAEV2ForActionDetection(config)
    ```"""

    model_type = "action_detection"
    base_config_key = "detection_config"

    roi_size: int = 7
    roi_scale: float | int | None = None
    roi_sampling_ratio: int = 0
    roi_aligned: bool = True
    temporal_pooling: str = "mean"
    pool_time_after_roi: bool = False
    spatial_pooling: str = "max"
    global_feature: str | None = None
    fused_stages: int | None = None
    head_hidden_sizes: list[int] | tuple[int, ...] = ()
    roi_dropout: float | int = 0.0
    head_dropout: float | int = 0.0
    head_init_std: float | int = 2e-5
    box_enlargement: list[float | int] | tuple[float | int, ...] = (0.1, 0.05)
    box_jitter: list[float | int] | tuple[float | int, ...] = (0.2, 0.1, 0.1, 0.05)
    box_convention: str = "exclusive"
    max_boxes: int = 100
    softmax_labels: int = 0
    background_label: int | None = None
    ignore_unlabelled_boxes: bool = False
    loss_reduction: str = "sum_over_boxes"
    focal_gamma: float | int = 0.0
    focal_alpha: float | int = 1.0
    softmax_loss_weight: float | int = 1.0
    evaluated_labels: list[int] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        refuse_misspelt_fields(self, kwargs)
        self.head_hidden_sizes = list(self.head_hidden_sizes)
        self.box_enlargement = list(self.box_enlargement)
        self.box_jitter = list(self.box_jitter)
        self.validate_options()
        super().__post_init__(**kwargs)

    def validate_options(self) -> None:
        """
        Check the values. It is part of `@strict`'s class validation.

        Raises:
            ValueError: a value is not among those allowed.
        """
        for name, allowed in (
            ("temporal_pooling", TEMPORAL_POOLINGS),
            ("spatial_pooling", SPATIAL_POOLINGS),
            ("global_feature", (None, *GLOBAL_FEATURES)),
            ("box_convention", BOX_CONVENTIONS),
            ("loss_reduction", LOSS_REDUCTIONS),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"`{name}` must be one of {allowed}, got {getattr(self, name)!r}.")
        for name, least in (("roi_size", 1), ("roi_sampling_ratio", 0), ("fused_stages", 1), ("softmax_labels", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"`{name}` must be at least {least}, got {value}.")
        if self.roi_scale is not None and not self.roi_scale > 0:
            raise ValueError(f"`roi_scale` must be positive, got {self.roi_scale}.")
        for name, length in (("box_enlargement", 2), ("box_jitter", 4)):
            if len(getattr(self, name)) != length or min(getattr(self, name)) < 0:
                raise ValueError(f"`{name}` must be {length} numbers of at least 0, got {getattr(self, name)}.")


def action_detection_config(value: Any) -> ActionDetectionConfig | None:
    """
    The field `detection_config` of a family's configuration as an object.

    Args:
        value ([`ActionDetectionConfig`] or `dict`, or `None`):
            The field as it is given or read from a file.

    Returns:
        [`ActionDetectionConfig`], or `None` where there is none.
    """
    return ActionDetectionConfig(**value) if isinstance(value, dict) else value


__all__ = ["BOX_CONVENTIONS", "ActionDetectionConfig", "action_detection_config"]
