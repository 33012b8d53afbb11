"""LSTCL configuration."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

from .configuration_action_detection import ActionDetectionConfig, action_detection_config
from .configuration_base import VIEW_MERGINGS, frame_size, refuse_misspelt_fields, validate_swin_stages


FRAMEWORKS = ("moco_v3", "byol", "simsiam")
BACKBONES = ("timesformer", "video_swin")
TEMPORAL_ATTENTIONS = ("joint", "divided")
ATTENTION_TYPES = ("divided_space_time", "joint_space_time", "space_only")
POSITION_INTERPOLATIONS = ("nearest", "bilinear", "bicubic")
TIME_INTERPOLATIONS = ("nearest", "linear")
FEATURE_POOLINGS = ("first_token", "mean", "pooler")
# Feature of a clip for transformers' own encoders; the encoders of this package pool themselves.
POOLING_OF_OTHERS = {"timesformer": "first_token", "videomae": "mean", "vivit": "first_token", "vjepa2": "mean"}

# Heads and target momentum of each framework, as in its own official code (MoCo v3 for ViT, BYOL for video in
# SlowFast, SimSiam). The numbers that LSTCL's authors used are not known to us. `None` is the backbone's width.
FRAMEWORK_DEFAULTS: dict[str, dict[str, Any]] = {
    "moco_v3": {
        "projection_size": 256,
        "projection_hidden_size": 4096,
        "num_projection_layers": 3,
        "prediction_hidden_size": 4096,
        "target_momentum": 0.99,
        "freeze_patch_embeddings": True,
    },
    "byol": {
        "projection_size": 256,
        "projection_hidden_size": 4096,
        "num_projection_layers": 2,
        "prediction_hidden_size": 4096,
        "target_momentum": 0.996,
        "freeze_patch_embeddings": False,
    },
    "simsiam": {
        "projection_size": 2048,
        "projection_hidden_size": None,
        "num_projection_layers": 3,
        "prediction_hidden_size": 512,
        "target_momentum": 1.0,
        "freeze_patch_embeddings": False,
    },
}
SWIN_DEFAULTS: dict[str, Any] = {
    "hidden_sizes": [128, 256, 512, 1024],
    "num_attention_heads": [4, 8, 16, 32],
    "patch_size": 4,
    "layer_norm_eps": 1e-5,
}
# Where a backbone's own design leaves a field to its default.
BACKBONE_DEFAULTS: dict[tuple[str, str], dict[str, Any]] = {
    ("timesformer", "joint"): {
        "num_attention_heads": 12,
        "patch_size": 16,
        "tubelet_size": 1,
        "layer_norm_eps": 1e-6,
        "window_size": [8, 7, 7],
    },
    ("video_swin", "joint"): {**SWIN_DEFAULTS, "tubelet_size": 2, "window_size": [8, 7, 7]},
    ("video_swin", "divided"): {**SWIN_DEFAULTS, "tubelet_size": 1, "window_size": [1, 7, 7]},
}

LSTCL_SIZES: dict[str, dict[str, Any]] = {
    "timesformer": {},
    "timesformer-hr": {"num_frames": 16, "image_size": 448},
    "timesformer-l": {"num_frames": 96},
    "swin-tiny": {
        "backbone": "video_swin",
        "hidden_sizes": [96, 192, 384, 768],
        "depths": [2, 2, 6, 2],
        "num_attention_heads": [3, 6, 12, 24],
        "num_frames": 32,
    },
    "swin-base": {
        "backbone": "video_swin",
        "hidden_sizes": [128, 256, 512, 1024],
        "depths": [2, 2, 18, 2],
        "num_attention_heads": [4, 8, 16, 32],
        "num_frames": 32,
    },
    "swin-tiny-divided": {
        "backbone": "video_swin",
        "temporal_attention": "divided",
        "hidden_sizes": [96, 192, 384, 768],
        "depths": [2, 2, 6, 2],
        "num_attention_heads": [3, 6, 12, 24],
    },
    "swin-base-divided": {
        "backbone": "video_swin",
        "temporal_attention": "divided",
        "hidden_sizes": [128, 256, 512, 1024],
        "depths": [2, 2, 18, 2],
        "num_attention_heads": [4, 8, 16, 32],
    },
}


@strict
class LstclConfig(PreTrainedConfig):
    r"""
    Configuration of the LSTCL models ([Wang et al., 2021](https://huggingface.co/papers/2106.09212)): contrastive
    pretraining that matches a short clip with a long one of the same video, around any video encoder. The defaults are
    TimeSformer-B on 8 frames of 224 x 224 pixels with MoCo v3.

    The authors published no code, and parts of the paper were not available to us. Where an argument's text says "our
    choice", it makes no statement about the paper.

    Args:
        backbone (`str`, *optional*, defaults to `"timesformer"`):
            `"timesformer"` or `"video_swin"`. With `backbone_config` it is that configuration's model type.
        backbone_config (`PreTrainedConfig` or `dict`, *optional*):
            Configuration of another encoder: any of this package, or transformers' TimeSformer and VideoMAE. Its sizes
            then replace those below.
        feature_pooling (`str`, *optional*):
            Feature that the heads get: `"first_token"` (default of TimeSformer), `"mean"` of all tokens (default of
            Video Swin, our choice) or `"pooler"`, the encoder's own `pooler_output` (default of other encoders).
        hidden_size (`int`, *optional*, defaults to 768):
            Width of TimeSformer. For other encoders it is the width of the last block and follows from their own
            fields.
        num_hidden_layers (`int`, *optional*, defaults to 12):
            Blocks of TimeSformer. For other encoders it follows from their own fields.
        num_attention_heads (`int` or `list[int]`, *optional*):
            Attention heads: 12 for TimeSformer, `[4, 8, 16, 32]` (one number a stage) for Video Swin. Must divide the
            width. For other encoders it follows from their own fields.
        intermediate_size (`int`, *optional*, defaults to 3072):
            Width of TimeSformer's MLPs.
        patch_size (`int`, *optional*):
            Height and width of a patch in pixels: 16 for TimeSformer, 4 for Video Swin.
        num_frames (`int`, *optional*, defaults to 8):
            Frames of a clip. Other counts work at run time.
        image_size (`int` or `list[int]`, *optional*, defaults to 224):
            Height and width of a frame in pixels. Other sizes work at run time.
        num_channels (`int`, *optional*, defaults to 3):
            Channels of a frame.
        attention_type (`str`, *optional*, defaults to `"divided_space_time"`):
            TimeSformer's: `"divided_space_time"`, `"joint_space_time"` or `"space_only"`.
        position_grid (`list[int]`, *optional*):
            Rows and columns of TimeSformer's position table. Defaults to those of `image_size`, and is saved.
        position_interpolation (`str`, *optional*, defaults to `"nearest"`):
            How that table is resized to other sizes: `"nearest"` (official), `"bilinear"` or `"bicubic"`.
        time_interpolation (`str`, *optional*, defaults to `"nearest"`):
            How the table of times is resized to other frame counts: `"nearest"` (official) or `"linear"`.
        temporal_attention (`str`, *optional*, defaults to `"joint"`):
            Video Swin's: `"joint"`, windows over space and time, or `"divided"`, attention over time at every place
            before windows within frames. Which of the two the paper means by "space-time attention" is not known.
        hidden_sizes (`list[int]`, *optional*):
            Width of each of Video Swin's stages, `[128, 256, 512, 1024]`; it doubles from stage to stage.
        depths (`list[int]`, *optional*, defaults to `[2, 2, 18, 2]`):
            Blocks of each stage.
        intermediate_sizes (`list[int]`, *optional*):
            Width of the MLPs of each of Video Swin's stages. Defaults to four times `hidden_sizes`.
        window_size (`list[int]`, *optional*):
            Frames, height and width of a window in tokens: `[8, 7, 7]`, or `[1, 7, 7]` for `"divided"`.
        tubelet_size (`int`, *optional*):
            Frames of a token: 2 for Video Swin, 1 with `"divided"`, always 1 for TimeSformer.
        hidden_act (`str`, *optional*, defaults to `"gelu"`):
            Activation of the MLPs.
        qkv_bias (`bool`, *optional*, defaults to `True`):
            Whether queries, keys and values have a bias.
        hidden_dropout_prob (`float`, *optional*, defaults to 0.0):
            Dropout after embeddings, projections and MLPs.
        attention_probs_dropout_prob (`float`, *optional*, defaults to 0.0):
            Dropout of the attention probabilities.
        drop_path_rate (`float`, *optional*, defaults to 0.1):
            Stochastic depth of the last block; the rate grows linearly from 0 at the first. In pretraining only the
            online branch has it.
        layer_norm_eps (`float`, *optional*):
            Epsilon of every LayerNorm: 1e-6 for TimeSformer, 1e-5 for Video Swin.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of the normal distribution of fresh weights.
        classifier_dropout (`float`, *optional*, defaults to 0.0):
            Dropout before the classifier.
        view_merging (`str`, *optional*, defaults to `"logits_mean"`):
            How several views of one video become one prediction: `"logits_mean"` (TimeSformer adds up raw logits) or
            `"softmax_mean"`.
        framework (`str`, *optional*, defaults to `"moco_v3"`):
            `"moco_v3"`, `"byol"` or `"simsiam"`.
        symmetric (`bool`, *optional*, defaults to `False`):
            Whether the long clip is also matched with the short one, as in the frameworks as published. `False` is our
            choice: the method's idea is that the short clip predicts the long one.
        temperature (`float`, *optional*, defaults to 0.2):
            Temperature of MoCo v3's logits.
        target_momentum (`float`, *optional*):
            Share of the target branch that an update keeps, at the start of a run: 0.99 for MoCo v3, 0.996 for BYOL.
            SimSiam has no target branch.
        freeze_patch_embeddings (`bool`, *optional*):
            Whether the patch projection keeps its random start in pretraining, which makes MoCo v3 stable for ViTs.
            Defaults to `True` with MoCo v3.
        projection_size (`int`, *optional*):
            Size of the vectors that are compared: 256, or 2048 for SimSiam.
        projection_hidden_size (`int`, *optional*):
            Width inside the projector: 4096, or the backbone's width for SimSiam.
        num_projection_layers (`int`, *optional*):
            Linear layers of the projector: 3, or 2 for BYOL.
        prediction_hidden_size (`int`, *optional*):
            Width inside the predictor: 4096, or 512 for SimSiam.
        num_prediction_layers (`int`, *optional*, defaults to 2):
            Linear layers of the predictor.
        batch_norm_eps (`float`, *optional*, defaults to 1e-05):
            Epsilon of the heads' batch norms.
        batch_norm_momentum (`float`, *optional*, defaults to 0.1):
            Share of a batch in the running statistics of the heads' batch norms.
        detection_config ([`ActionDetectionConfig`] or `dict`, *optional*):
            Head of the model for action detection; see [`ActionDetectionConfig`].

    Raises:
        ValueError: a size does not divide another, or an option is not among those allowed.

    Example:

    ```python
    >>> from hf_videovit import LstclConfig, LstclForPreTraining, VideoMAEV2Config

    >>> model = LstclForPreTraining(LstclConfig(framework="byol"))
    >>> model = LstclForPreTraining(LstclConfig(backbone_config=VideoMAEV2Config.from_size("small")))
    ```"""

    model_type = "lstcl"
    sub_configs = {"backbone_config": AutoConfig}

    backbone: str = "timesformer"
    backbone_config: dict[str, Any] | PreTrainedConfig | None = None
    feature_pooling: str | None = None

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int | list[int] | tuple[int, ...] | None = None
    intermediate_size: int = 3072
    patch_size: int | None = None
    num_frames: int = 8
    image_size: int | list[int] | tuple[int, ...] = 224
    num_channels: int = 3
    attention_type: str = "divided_space_time"
    position_grid: list[int] | tuple[int, ...] | None = None
    position_interpolation: str = "nearest"
    time_interpolation: str = "nearest"

    temporal_attention: str = "joint"
    hidden_sizes: list[int] | tuple[int, ...] | None = None
    depths: list[int] | tuple[int, ...] = (2, 2, 18, 2)
    intermediate_sizes: list[int] | tuple[int, ...] | None = None
    window_size: list[int] | tuple[int, ...] | None = None
    tubelet_size: int | None = None

    hidden_act: str = "gelu"
    qkv_bias: bool = True
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    drop_path_rate: float | int = 0.1
    layer_norm_eps: float | None = None
    initializer_range: float | int = 0.02
    classifier_dropout: float | int = 0.0
    view_merging: str = "logits_mean"

    framework: str = "moco_v3"
    symmetric: bool = False
    temperature: float | int = 0.2
    target_momentum: float | int | None = None
    freeze_patch_embeddings: bool | None = None
    projection_size: int | None = None
    projection_hidden_size: int | None = None
    num_projection_layers: int | None = None
    prediction_hidden_size: int | None = None
    num_prediction_layers: int = 2
    batch_norm_eps: float = 1e-5
    batch_norm_momentum: float = 0.1
    detection_config: dict[str, Any] | ActionDetectionConfig | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        refuse_misspelt_fields(self, kwargs)
        self.detection_config = action_detection_config(self.detection_config)
        if isinstance(self.backbone_config, dict):
            self.backbone_config = _config_of(self.backbone_config)
        self.validate_options()
        if self.backbone_config is None:
            self._fill_native()
        else:
            self._fill_from(self.backbone_config)
        for name, value in FRAMEWORK_DEFAULTS[self.framework].items():
            if getattr(self, name) is None:
                setattr(self, name, self.hidden_size if value is None else value)
        self.validate_architecture()
        super().__post_init__(**kwargs)

    def _fill_native(self) -> None:
        """Fields of TimeSformer and Video Swin that follow from others."""
        temporal = self.temporal_attention if self.backbone == "video_swin" else "joint"
        for name, value in BACKBONE_DEFAULTS[self.backbone, temporal].items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        if self.backbone == "video_swin":
            hidden_sizes = self.hidden_sizes or ()
            self.intermediate_sizes = self.intermediate_sizes or [4 * size for size in hidden_sizes]
            validate_swin_stages(self)
            self.hidden_size = hidden_sizes[-1]
            self.num_hidden_layers = sum(self.depths)
        if self.feature_pooling is None:
            self.feature_pooling = "first_token" if self.backbone == "timesformer" else "mean"
        if self.position_grid is None and self.patch_size:
            height, width = frame_size(self.image_size)
            self.position_grid = [height // self.patch_size, width // self.patch_size]

    def _fill_from(self, config: PreTrainedConfig) -> None:
        """Fields that follow from another encoder's configuration."""
        self.backbone = config.model_type
        fields = config.to_dict()
        for name in ("num_frames", "image_size", "num_channels", "patch_size", "num_hidden_layers"):
            if isinstance(fields.get(name), int | list | tuple):
                setattr(self, name, fields[name])
        self.hidden_size = _feature_size(config)
        if isinstance(fields.get("num_attention_heads"), int | list | tuple):
            self.num_attention_heads = fields["num_attention_heads"]
        if self.feature_pooling is None:
            self.feature_pooling = POOLING_OF_OTHERS.get(config.model_type, "pooler")

    def validate_options(self) -> None:
        """
        Checks of the fields that take one of several words.

        Raises:
            ValueError: a field has another value.
        """
        options: dict[str, tuple[str, ...]] = {
            "framework": FRAMEWORKS,
            "attention_type": ATTENTION_TYPES,
            "position_interpolation": POSITION_INTERPOLATIONS,
            "time_interpolation": TIME_INTERPOLATIONS,
            "temporal_attention": TEMPORAL_ATTENTIONS,
            "view_merging": VIEW_MERGINGS,
        }
        if self.feature_pooling is not None:
            options["feature_pooling"] = FEATURE_POOLINGS
        if self.backbone_config is None:
            options["backbone"] = BACKBONES
        for name, allowed in options.items():
            if getattr(self, name) not in allowed:
                more = "; pass other encoders as `backbone_config`" if name == "backbone" else ""
                raise ValueError(f"`{name}` must be one of {allowed}, got {getattr(self, name)!r}{more}.")

    def validate_architecture(self) -> None:
        """
        Cross-field checks. They are part of `@strict`'s class validation.

        Raises:
            ValueError: a field or a combination of fields is not allowed.
        """
        if self.backbone == "timesformer" and self.backbone_config is None:
            heads = self.num_attention_heads
            if not isinstance(heads, int) or heads < 1 or self.hidden_size % heads:
                raise ValueError(
                    f"`num_attention_heads` of a TimeSformer must be an int that divides `hidden_size`, got {heads} "
                    f"and {self.hidden_size}."
                )
            if self.tubelet_size not in (None, 1):
                raise ValueError(f"`tubelet_size` of a TimeSformer must be 1, got {self.tubelet_size}.")
            if self.position_grid is not None and (len(self.position_grid) != 2 or min(self.position_grid) < 1):
                raise ValueError(
                    f"`position_grid` must be two positive ints (height, width), got {self.position_grid}; "
                    f"`image_size` is {self.image_size}, `patch_size` {self.patch_size}."
                )
        if self.backbone == "video_swin" and self.backbone_config is None:
            self._validate_video_swin()
        if not self.temperature > 0:
            raise ValueError(f"`temperature` must be above 0, got {self.temperature}.")
        if self.target_momentum is not None and not 0 <= self.target_momentum <= 1:
            raise ValueError(f"`target_momentum` must be between 0 and 1, got {self.target_momentum}.")
        for name in ("num_projection_layers", "num_prediction_layers"):
            if getattr(self, name) is not None and getattr(self, name) < 2:
                raise ValueError(f"`{name}` must be at least 2, got {getattr(self, name)}.")

    def _validate_video_swin(self) -> None:
        validate_swin_stages(self)
        if self.window_size is not None and (len(self.window_size) != 3 or min(self.window_size) < 1):
            raise ValueError(
                f"`window_size` must be three positive ints (frames, height, width), got {self.window_size}."
            )
        if self.temporal_attention == "divided" and self.window_size is not None and self.window_size[0] != 1:
            raise ValueError(
                "`window_size` must have one frame with `temporal_attention='divided'`, which attends over time "
                f"outside of windows, got {self.window_size}."
            )

    @classmethod
    def from_size(cls, size: str, **kwargs: Any) -> "LstclConfig":
        """
        Configuration of a size.

        Args:
            size (`str`):
                `"timesformer"`, `"timesformer-hr"` or `"timesformer-l"` (official), `"swin-tiny"` or `"swin-base"`, or
                one of these two with `-divided`.
            kwargs:
                Fields that replace those of the size.

        Returns:
            [`LstclConfig`]

        Raises:
            ValueError: no such size.
        """
        if size not in LSTCL_SIZES:
            raise ValueError(f"`size` must be one of {list(LSTCL_SIZES)}, got {size!r}.")
        return cls(**{**LSTCL_SIZES[size], **kwargs})


def _config_of(fields: dict[str, Any]) -> PreTrainedConfig:
    """Build the configuration that a dictionary describes."""
    model_type = fields.get("model_type")
    if model_type not in CONFIG_MAPPING:
        raise ValueError(f"`backbone_config` needs a known `model_type`, got {model_type!r}.")
    return CONFIG_MAPPING[model_type](**{name: value for name, value in fields.items() if name != "model_type"})


def _feature_size(config: PreTrainedConfig) -> int:
    """Width of an encoder's features."""
    fields = config.to_dict()
    if isinstance(fields.get("hidden_size"), int):
        return fields["hidden_size"]
    if isinstance(fields.get("hidden_sizes"), list | tuple):
        return fields["hidden_sizes"][-1]
    raise ValueError(
        f"`backbone_config` must have `hidden_size` or `hidden_sizes`, got a {config.model_type} without either."
    )


__all__ = ["LSTCL_SIZES", "LstclConfig"]
