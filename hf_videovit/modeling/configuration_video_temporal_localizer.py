"""Configuration of an encoder of videos and a localiser in one model."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

from .configuration_actionformer import ActionFormerConfig
from .configuration_base import refuse_misspelt_fields
from .configuration_bevt import BevtConfig
from .configuration_lstcl import LstclConfig
from .configuration_tubevit import TubeViTConfig
from .configuration_uniformer import UniFormerConfig
from .configuration_uniformer_v2 import UniFormerV2Config
from .configuration_videomae_v2 import VideoMAEV2Config


FAMILIES = (
    *(ActionFormerConfig, BevtConfig, LstclConfig, TubeViTConfig, UniFormerConfig, UniFormerV2Config),
    VideoMAEV2Config,
)
CONFIG_CLASSES: dict[str, Any] = {family.model_type: family for family in FAMILIES}
FEATURE_SOURCES = ("windows", "moments")
POOLINGS = ("default", "mean", "first")
ENCODER_TRAININGS = ("frozen", "adapters", "full")


@strict
class VideoTemporalLocalizerConfig(PreTrainedConfig):
    r"""
    Configuration of a [`VideoTemporalLocalizer`]: an encoder of videos, a localiser, and how frames become the
    localiser's features. The classes are those of the localiser.

    Args:
        encoder_config (`PreTrainedConfig` or `dict`, *optional*):
            Configuration of the encoder, of any family. It must be given.
        localizer_config ([`ActionFormerConfig`] or `dict`, *optional*):
            Configuration of the localiser, whose `feature_size` is the encoder's width. It must be given.
        feature_source (`str`, *optional*, defaults to `"windows"`):
            `"windows"`: a feature is the pooled output of the encoder for a window of frames. `"moments"`: the encoder
            reads a whole video, and a feature is the mean of its tokens of a moment, interpolated linearly in time
            (AdaTAD). Only encoders with adapters do.
        feature_window (`int`, *optional*):
            Frames of a window. Defaults to the encoder's `num_frames`, and with `"moments"` to `feature_stride`.
        feature_stride (`int`, *optional*):
            Frames from one feature to the next. Defaults to `feature_window`, and with `"moments"` to 1.
        frame_step (`int`, *optional*, defaults to 1):
            Every so many frames of a video are read. Windows and strides count the frames that are read.
        pooling (`str`, *optional*, defaults to `"default"`):
            With `"windows"`: `"default"`, the encoder's own pooled output, `"mean"` of all tokens, or the `"first"`.
        squash_frames (`bool`, *optional*, defaults to `False`):
            Whether frames are resized without keeping their form and not normalised, as in the features that VideoMAE
            V2's authors published; else they are prepared as the encoder's own processor does.
        encoder_training (`str`, *optional*, defaults to `"frozen"`):
            What is trained of the encoder: nothing (`"frozen"`; the encoder is then always in evaluation mode), its
            `"adapters"`, or all of it (`"full"`).
        windows_at_once (`int`, *optional*, defaults to 8):
            Windows in a forward pass of the encoder.

    Raises:
        ValueError: a field or a combination of fields is not allowed.

    Example:

    ```python
    >>> from hf_videovit import ActionFormerConfig, VideoMAEV2Config, VideoTemporalLocalizerConfig

    >>> encoder = VideoMAEV2Config.from_size("small")
    >>> localizer = ActionFormerConfig(feature_size=encoder.hidden_size, num_labels=20)
    >>> config = VideoTemporalLocalizerConfig(encoder_config=encoder, localizer_config=localizer, feature_stride=4)
    >>> config.feature_window, config.num_labels
    (16, 20)
    ```"""

    model_type = "video_temporal_localizer"
    sub_configs = {"encoder_config": AutoConfig, "localizer_config": AutoConfig}
    has_no_defaults_at_init = True

    encoder_config: dict[str, Any] | PreTrainedConfig | None = None
    localizer_config: dict[str, Any] | PreTrainedConfig | None = None
    feature_source: str = "windows"
    feature_window: int | None = None
    feature_stride: int | None = None
    frame_step: int = 1
    pooling: str = "default"
    squash_frames: bool = False
    encoder_training: str = "frozen"
    windows_at_once: int = 8

    @classmethod
    def from_size(cls, size: str, **kwargs: Any) -> "VideoTemporalLocalizerConfig":
        """
        Configuration of AdaTAD: an encoder of VideoMAE V2 whose blocks end in adapters, and an ActionFormer.

        Args:
            size (`str`):
                Size of the encoder, see [`VideoMAEV2Config.from_size`].
            kwargs:
                Other fields. `encoder_config` and `localizer_config` hold fields of the parts, as dictionaries.

        Returns:
            [`VideoTemporalLocalizerConfig`]

        Raises:
            ValueError: no such size.
        """
        encoder = VideoMAEV2Config.from_size(size, **kwargs.pop("encoder_config", {}))
        if encoder.adapter_layers is None:
            encoder.adapter_layers = list(range(encoder.num_hidden_layers))
        fields = {"feature_size": encoder.hidden_size, **kwargs.pop("localizer_config", {})}
        whole = {"feature_source": "moments", "encoder_training": "adapters", **kwargs}
        return cls(encoder_config=encoder, localizer_config=ActionFormerConfig(**fields), **whole)

    def __post_init__(self, **kwargs: Any) -> None:
        refuse_misspelt_fields(self, kwargs)
        self.encoder_config = _config_of("encoder_config", self.encoder_config)
        self.localizer_config = _config_of("localizer_config", self.localizer_config)
        encoder: Any = self.encoder_config
        if self.feature_source == "moments":
            self.feature_stride = self.feature_stride or 1
            self.feature_window = self.feature_window or self.feature_stride
        else:
            self.feature_window = self.feature_window or encoder.num_frames
            self.feature_stride = self.feature_stride or self.feature_window
        self._share_labels(kwargs)
        self.validate_architecture()
        parts: Any = (self.encoder_config, self.localizer_config)
        chosen = [part._attn_implementation for part in parts]
        super().__post_init__(**kwargs)
        for part, implementation in zip(parts, chosen):  # the base class clears what built models have chosen
            part._attn_implementation = part._attn_implementation or implementation

    def _share_labels(self, kwargs: dict[str, Any]) -> None:
        """Classes that the caller gives are the localiser's; otherwise the localiser's are this configuration's."""
        localizer: Any = self.localizer_config
        num_labels = kwargs.pop("num_labels", None)
        if num_labels is not None and num_labels != localizer.num_labels:
            localizer.num_labels = num_labels
        own: Any = getattr(self, "id2label", None)
        if own:
            localizer.id2label = {int(index): name for index, name in own.items()}
            localizer.label2id = {name: index for index, name in localizer.id2label.items()}
        self.id2label, self.label2id = dict(localizer.id2label), dict(localizer.label2id)

    def validate_architecture(self) -> None:
        """
        Cross-field checks. They are part of `@strict`'s class validation.

        Raises:
            ValueError: a field or a combination of fields is not allowed.
        """
        encoder: Any = self.encoder_config
        localizer: Any = self.localizer_config
        for name, allowed in (
            ("feature_source", FEATURE_SOURCES),
            ("pooling", POOLINGS),
            ("encoder_training", ENCODER_TRAININGS),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"`{name}` must be one of {allowed}, got {getattr(self, name)!r}.")
        for name in ("feature_window", "feature_stride", "frame_step", "windows_at_once"):
            if (getattr(self, name) or 0) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if not isinstance(localizer, ActionFormerConfig):
            raise ValueError(f"`localizer_config` must be that of an ActionFormer, got {localizer.model_type!r}.")
        if sum(localizer.feature_sizes) != encoder.hidden_size:
            raise ValueError(
                f"`localizer_config` must take features of the encoder's size ({encoder.hidden_size}), got "
                f"`feature_size` {localizer.feature_size}."
            )
        adapted = bool(getattr(encoder, "adapter_layers", None))
        for name, value in (("feature_source", "moments"), ("encoder_training", "adapters")):
            if getattr(self, name) == value and not adapted:
                raise ValueError(f"`{name}` {value!r} needs an encoder with adapters (`adapter_layers`).")


def _config_of(name: str, value: Any) -> PreTrainedConfig:
    """A sub-configuration; ValueError if it is missing or of an unknown type."""
    if isinstance(value, PreTrainedConfig):
        return value
    fields = dict(value or {})
    model_type = fields.pop("model_type", None)
    if model_type in CONFIG_CLASSES:
        return CONFIG_CLASSES[model_type](**fields)
    if model_type not in CONFIG_MAPPING:
        raise ValueError(f"`{name}` needs a known `model_type`, got {model_type!r}.")
    return CONFIG_MAPPING[model_type](**fields)


__all__ = ["VideoTemporalLocalizerConfig"]
