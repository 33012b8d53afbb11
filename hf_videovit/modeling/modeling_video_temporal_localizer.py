"""An encoder of videos and a localiser in one model: from frames to segments of actions."""

import os
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .configuration_video_temporal_localizer import VideoTemporalLocalizerConfig
from .layers import check_pixels, features_over_time
from .modeling_actionformer import ActionFormerForTemporalActionLocalization, TemporalActionLocalizationOutput
from .modeling_actionformer_losses import Labels
from .modeling_bevt import BevtModel
from .modeling_lstcl import LstclModel
from .modeling_tubevit import TubeViTModel
from .modeling_uniformer import UniFormerModel
from .modeling_uniformer_v2 import UniFormerV2Model
from .modeling_videomae_v2 import VideoMAEV2Model


FAMILIES = (BevtModel, LstclModel, TubeViTModel, UniFormerModel, UniFormerV2Model, VideoMAEV2Model)
MODEL_CLASSES: dict[str, Any] = {family.config_class.model_type: family for family in FAMILIES}


class VideoTemporalLocalizer(PreTrainedModel):
    """
    An encoder, and a localiser on its features. `encode` gives the features of frames; `forward` scores and boundaries
    of segments at all their steps.

    A short video fits into one call. `pipeline("temporal-action-localization")` reads videos of any length.

    Args:
        config ([`VideoTemporalLocalizerConfig`]):
            Configuration.
        encoder ([`PreTrainedModel`], *optional*):
            The encoder. By default a new one.
        localizer ([`ActionFormerForTemporalActionLocalization`], *optional*):
            The localiser. By default a new one.

    Example:

    ```python
    >>> import torch
    >>> from hf_videovit import ActionFormerConfig, VideoMAEV2Config
    >>> from hf_videovit import VideoTemporalLocalizer, VideoTemporalLocalizerConfig

    >>> encoder = VideoMAEV2Config.from_size("small", num_hidden_layers=1, image_size=32)
    >>> localizer = ActionFormerConfig(feature_size=384, num_labels=3)
    >>> config = VideoTemporalLocalizerConfig(encoder_config=encoder, localizer_config=localizer, feature_stride=4)
    >>> model = VideoTemporalLocalizer(config).eval()
    >>> model.encode(torch.randn(1, 40, 3, 32, 32)).shape  # windows of 16 frames at 0, 4, ..., 24
    torch.Size([1, 7, 384])
    ```"""

    config: VideoTemporalLocalizerConfig
    config_class = VideoTemporalLocalizerConfig
    base_model_prefix = "video_temporal_localizer"
    main_input_name = "pixel_values"
    input_modalities = ("video",)
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # the loss is normalised by a running count of positives
    _supports_sdpa = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    def __init__(
        self,
        config: VideoTemporalLocalizerConfig,
        encoder: PreTrainedModel | None = None,
        localizer: ActionFormerForTemporalActionLocalization | None = None,
    ):
        super().__init__(config)
        parts: Any = (config.encoder_config, config.localizer_config)
        self.num_labels = config.num_labels
        if encoder is None:
            known = MODEL_CLASSES.get(parts[0].model_type)
            encoder = AutoModel.from_config(parts[0]) if known is None else known._from_config(parts[0])
        if localizer is None:
            localizer = ActionFormerForTemporalActionLocalization._from_config(parts[1])
        self.encoder: Any = encoder
        self.localizer: Any = localizer
        # one configuration each, also for `set_attn_implementation`
        self.encoder.config, self.localizer.config = parts
        for part in parts:
            if part._attn_implementation is None:  # the joint configuration forgot that of a part that was given
                part._attn_implementation = config._attn_implementation
        self._freeze()
        self.post_init()

    @classmethod
    def from_encoder_localizer_pretrained(
        cls,
        encoder: str | os.PathLike | PreTrainedModel,
        localizer: str | os.PathLike | PreTrainedModel,
        **fields: Any,
    ) -> "VideoTemporalLocalizer":
        """
        Join a trained encoder and a trained localiser.

        Args:
            encoder (`str`, `os.PathLike` or [`PreTrainedModel`]):
                Folder or Hub id of a model of any family, or a model, of which the encoder is taken.
            localizer (`str`, `os.PathLike` or [`ActionFormerForTemporalActionLocalization`]):
                Folder or Hub id of a localiser, or a localiser.
            fields (`Any`):
                Fields of [`VideoTemporalLocalizerConfig`], such as `feature_stride`.

        Returns:
            [`VideoTemporalLocalizer`]: in evaluation mode.

        Raises:
            ValueError: the localiser does not take features of the encoder's size, or a field is not allowed.
        """
        if not isinstance(encoder, PreTrainedModel):
            encoder_config = AutoConfig.from_pretrained(encoder)
            encoder_class = MODEL_CLASSES.get(encoder_config.model_type, AutoModel)
            encoder = encoder_class.from_pretrained(encoder)
        if not isinstance(localizer, PreTrainedModel):
            localizer = ActionFormerForTemporalActionLocalization.from_pretrained(localizer)
        base: Any = encoder.base_model
        config = VideoTemporalLocalizerConfig(encoder_config=base.config, localizer_config=localizer.config, **fields)
        return cls(config, base, localizer).eval()

    def _freeze(self) -> None:
        """Turn off the gradients of what is not trained of the encoder."""
        trained = self.config.encoder_training
        for name, parameter in self.encoder.named_parameters():
            if trained == "frozen" or trained == "adapters" and ".adapter." not in name:
                parameter.requires_grad_(False)

    def train(self, mode: bool = True) -> "VideoTemporalLocalizer":
        """
        Set the training mode. A frozen encoder stays in evaluation mode, and without gradients.

        Args:
            mode (`bool`, *optional*, defaults to `True`):
                Training, or evaluation.

        Returns:
            [`VideoTemporalLocalizer`]: itself.
        """
        super().train(mode)
        self._freeze()  # loading makes new parameters
        if self.config.encoder_training == "frozen":
            self.encoder.eval()
        return self

    def get_input_embeddings(self) -> nn.Module:
        """The encoder's, as of every model."""
        return self.encoder.get_input_embeddings()

    def encode(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """
        Features of frames.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_frames, num_channels, height, width)`):
                Normalised frames of videos, in order. With `config.feature_source` `"moments"` a whole number of the
                encoder's clips and of `config.feature_stride`.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_features, hidden_size)`.

        Raises:
            ValueError: there are fewer frames than a window has, or no whole number of clips.
        """
        check_pixels(pixel_values)
        if pixel_values.ndim != 5:
            raise ValueError(
                "`pixel_values` must have shape (batch_size, num_frames, num_channels, height, width), got "
                f"{tuple(pixel_values.shape)}."
            )
        if self.config.feature_source == "moments":
            return self._encode_moments(pixel_values)
        return self._encode_windows(pixel_values)

    def _encode_windows(self, pixel_values: torch.Tensor) -> torch.Tensor:
        window: Any = self.config.feature_window
        stride: Any = self.config.feature_stride
        if pixel_values.shape[1] < window:
            raise ValueError(
                f"`pixel_values` must have at least the {window} frames of a window, got {pixel_values.shape[1]}."
            )
        windows = pixel_values.unfold(1, window, stride).movedim(-1, 2)  # a view: (batch, windows, window, ...)
        features = []
        for some in windows.split(self.config.windows_at_once, dim=1):
            outputs = self.encoder(pixel_values=some.flatten(0, 1))
            features.append(self._pooled(outputs).unflatten(0, (-1, some.shape[1])))
        return torch.cat(features, dim=1)

    def _pooled(self, outputs: Any) -> torch.Tensor:
        if self.config.pooling == "mean":
            return outputs.last_hidden_state.mean(dim=1)
        if self.config.pooling == "first":
            return outputs.last_hidden_state[:, 0]
        if outputs.get("pooler_output") is None:
            raise ValueError(f"`pooling` 'default' needs a pooled output, which {type(self.encoder).__name__} lacks.")
        return outputs.pooler_output

    def _encode_moments(self, pixel_values: torch.Tensor) -> torch.Tensor:
        stride: Any = self.config.feature_stride
        frames = pixel_values.shape[1]
        if frames % stride:
            raise ValueError(
                f"`pixel_values` must have a multiple of {stride} frames (`feature_stride`), got {frames}."
            )
        tokens = self.encoder(pixel_values=pixel_values).last_hidden_state
        steps = frames // self.encoder.config.tubelet_size
        return features_over_time(tokens, steps, frames // stride)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: Labels | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> TemporalActionLocalizationOutput:
        r"""
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_frames, num_channels, height, width)`):
                Normalised frames of videos, see [`~VideoTemporalLocalizer.encode`].
            attention_mask (`torch.Tensor` of shape `(batch_size, steps)`, *optional*):
                1 where a video has a feature, 0 in padding at the end. It may have more steps than there are features:
                those that a localiser with another `padding_mode` than `"zeros"` is padded with.
            labels (`list[dict]`, *optional*):
                For each video `segments` in steps and `class_labels`, see
                [`ActionFormerForTemporalActionLocalization`].

        Returns:
            [`TemporalActionLocalizationOutput`]: hidden states and attentions are the localiser's.

        Raises:
            ValueError: a shape does not fit the configuration, or `labels` are wrong.
        """
        for name in ("output_attentions", "output_hidden_states"):
            kwargs.setdefault(name, getattr(self.config, name))  # type: ignore[misc]
        features = self.encode(pixel_values)
        if attention_mask is not None:
            if attention_mask.shape[1] < features.shape[1]:
                raise ValueError(
                    f"`attention_mask` must have a column for each of the {features.shape[1]} features, got "
                    f"{attention_mask.shape[1]}."
                )
            features = nn.functional.pad(features, (0, 0, 0, attention_mask.shape[1] - features.shape[1]))
        return self.localizer(features, attention_mask, labels, **kwargs)

    def layer_groups(self) -> list[tuple[str, ...]]:
        """
        Prefixes of parameter names a depth, for layer-wise learning-rate decay: those of the encoder, and last the
        localiser (an empty prefix matches every name that no earlier depth matches).
        """
        depths = self.encoder.layer_groups()[:-1]
        return [*(tuple(f"encoder.{prefix}" for prefix in depth) for depth in depths), ("",)]

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that neither part decays."""
        parts = (("encoder", self.encoder), ("localizer", self.localizer))
        return {f"{name}.{inner}" for name, part in parts for inner in part.no_weight_decay()}


__all__ = ["VideoTemporalLocalizer"]
