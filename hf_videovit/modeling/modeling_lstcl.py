"""
LSTCL ([Wang et al., 2021](https://huggingface.co/papers/2106.09212)): long-short temporal contrastive learning of
video transformers.

A short and a long clip of the same video go through an online and a target branch. The short clip's prediction is
trained to match the long clip's key, so that features describe more than the clip. The authors published no code: the
frameworks follow MoCo v3, BYOL and SimSiam. The encoder is TimeSformer, Video Swin or any other.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .backbone_space_time_swin import SpaceTimeSwinBackbone
from .backbone_timesformer import TimesformerAttention, TimesformerBackbone, TimesformerLayer, init_timesformer
from .backbone_video_swin import VideoSwinAttention, VideoSwinLayer, init_video_swin
from .configuration_base import frame_size
from .configuration_lstcl import LstclConfig
from .layers import (
    KeepsStatistics,
    VideoClassificationMixin,
    check_clips,
    classification_loss,
    init_as_torch,
    start_of,
)
from .modeling_action_detection import PyramidActionDetectionMixin
from .modeling_lstcl_heads import HEAD_LAYER, LstclHead, contrastive_loss, cosine_loss, follow_parameters


@dataclass
class LstclModelOutput(BaseModelOutputWithPooling):
    """
    Output of [`LstclModel`].

    Args:
        last_hidden_state, pooler_output, hidden_states, attentions (`torch.Tensor` or `tuple(torch.Tensor)`):
            See the class.
        feature_maps (`tuple(torch.Tensor)`, *optional*):
            Output of all stages of Swin but the last, with `output_feature_maps=True`: maps of shape `(batch_size,
            frames, height, width, channels)`.
    """

    feature_maps: tuple[torch.Tensor, ...] | None = None


@dataclass
class LstclForPreTrainingOutput(ModelOutput):
    """
    Output of [`LstclForPreTraining`].

    Args:
        loss (`torch.Tensor` of shape `()`):
            Loss of the framework, over both directions with `config.symmetric`.
        short_query (`torch.Tensor` of shape `(batch_size, projection_size)`):
            Output of the predictor for the short clip.
        long_key (`torch.Tensor` of shape `(batch_size, projection_size)`):
            Output of the target branch (SimSiam: the projector) for the long clip, without gradient.
        long_query, short_key (`torch.Tensor` of shape `(batch_size, projection_size)`, *optional*):
            The same for the other direction, with `config.symmetric`.
        features (`torch.Tensor` of shape `(batch_size, hidden_size)`):
            The online encoder's features of the short clip.
        hidden_states, attentions (`tuple(torch.Tensor)`, *optional*):
            States of the online encoder for the short clip; see [`LstclModel`].
    """

    loss: torch.Tensor | None = None
    short_query: torch.Tensor | None = None
    long_key: torch.Tensor | None = None
    long_query: torch.Tensor | None = None
    short_key: torch.Tensor | None = None
    features: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class LstclPreTrainedModel(KeepsStatistics, PreTrainedModel):
    """Weight initialisation of the official codes, and what transformers and a trainer must know of the models."""

    config: LstclConfig
    base_model_prefix = "lstcl"
    main_input_name = "pixel_values"
    input_modalities = ("video",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["TimesformerEmbeddings", "TimesformerLayer", "VideoSwinLayer", "DividedSwinLayer"]
    _supports_sdpa = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {
        "hidden_states": [OutputRecorder(TimesformerLayer), OutputRecorder(VideoSwinLayer)],
        "attentions": [
            OutputRecorder(TimesformerAttention, index=1, layer_name="attention"),
            OutputRecorder(VideoSwinAttention, index=1),
        ],
    }

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        spread = self.config.initializer_range
        if start_of(module) == HEAD_LAYER and isinstance(module, nn.Linear):
            init_as_torch(module)
        elif isinstance(module, SpaceTimeSwinBackbone) and module.time_embeddings is not None:
            init.zeros_(module.time_embeddings)
        elif isinstance(module, VideoSwinAttention | nn.Conv3d):
            init_video_swin(module, spread)
        else:
            init_timesformer(module, spread)

    def get_input_embeddings(self) -> nn.Module:
        """The patch embedding of the encoder."""
        backbone = (self if isinstance(self, LstclModel) else self.lstcl).backbone
        if isinstance(backbone, TimesformerBackbone):
            return backbone.embeddings.patch_embeddings
        return backbone.patch_embeddings if isinstance(backbone, SpaceTimeSwinBackbone) else _input_of(backbone)

    def layer_groups(self) -> list[tuple[str, ...]]:
        """
        Prefixes of parameter names a depth, for layer-wise learning-rate decay: embeddings, each block, and last
        everything above. A merging of Video Swin counts with the block before it; an encoder without such a table
        counts as one depth.
        """
        encoder = self if isinstance(self, LstclModel) else self.lstcl
        base = "backbone." if isinstance(self, LstclModel) else f"{self.base_model_prefix}.backbone."
        backbone = encoder.backbone
        if isinstance(backbone, TimesformerBackbone):
            blocks = [(f"{base}encoder.layers.{index}.",) for index in range(self.config.num_hidden_layers)]
            return [(f"{base}embeddings.",), *blocks, ("",)]
        if isinstance(backbone, SpaceTimeSwinBackbone):
            return [(f"{base}patch_embeddings.", f"{base}time_embeddings"), *_swin_depths(self.config, base), ("",)]
        if isinstance(backbone, PreTrainedModel) and "layer_groups" in dir(backbone):
            *depths, last = backbone.layer_groups()
            return [*(tuple(base + prefix for prefix in depth) for depth in depths), ("",)]
        return [(base,), ("",)]

    def no_weight_decay(self) -> set[str]:
        """Names of parameters with more than one axis that do not decay in fine-tuning: tokens and tables."""
        tables = ("cls_token", "position_embeddings", "time_embeddings", "relative_position_bias_table")
        names = {name for name, _ in self.named_parameters() if name.endswith(tables)}
        for prefix, module in self.named_modules():
            other = isinstance(module, PreTrainedModel) and not isinstance(module, LstclPreTrainedModel)
            if other and "no_weight_decay" in dir(module):
                names |= {f"{prefix}.{name}" for name in module.no_weight_decay()}
        return names


class LstclModel(LstclPreTrainedModel):
    """
    The encoder: TimeSformer, Swin with space-time attention, or another by `config.backbone_config`.

    `last_hidden_state` holds the tokens after the last norm: TimeSformer's class token and patches, `(batch_size, 1 +
    height * width * frames, hidden_size)` with the frame running fastest; Swin's `(batch_size, frames * height *
    width, hidden_size)`. `pooler_output` holds the features, pooled as set by `config.feature_pooling`.

    Hidden states of a Swin have the shape of its stages, `(batch_size, frames, height, width, channels)`. Attentions
    are TimeSformer's within frames, `(batch_size * frames, num_attention_heads, 1 + height * width, 1 + height *
    width)`, or Swin's within windows. Those over time are not included.

    Args:
        config ([`LstclConfig`]):
            Configuration.
    """

    def __init__(self, config: LstclConfig):
        super().__init__(config)
        self.backbone: nn.Module
        if config.backbone_config is not None:
            self.backbone = AutoModel.from_config(config.backbone_config)
        elif config.backbone == "timesformer":
            self.backbone = TimesformerBackbone(config)
        else:
            self.backbone = SpaceTimeSwinBackbone(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self, pixel_values: torch.Tensor, output_feature_maps: bool = False, **kwargs: Unpack[TransformersKwargs]
    ) -> LstclModelOutput:
        r"""
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_frames, num_channels, height, width)`):
                Normalised clips.
            output_feature_maps (`bool`, *optional*, defaults to `False`):
                Whether to return the maps of Swin's stages. Unlike hidden states they are part of a compiled graph.

        Returns:
            [`LstclModelOutput`]

        Raises:
            ValueError: a shape does not fit the configuration.
        """
        _check_clips(pixel_values, self.config)
        if self.config.backbone_config is None:
            return self._encode(pixel_values, output_feature_maps, return_dict=True, **kwargs)
        outputs = self.backbone(pixel_values=pixel_values, return_dict=True, **kwargs)
        tokens = outputs.last_hidden_state
        if self.config.feature_pooling == "pooler":
            pooled = outputs.pooler_output
        else:
            pooled = self._pool(tokens)
        return LstclModelOutput(
            last_hidden_state=tokens,
            pooler_output=pooled,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    @capture_outputs(tie_last_hidden_states=False)
    def _encode(
        self, pixel_values: torch.Tensor, output_feature_maps: bool, **kwargs: Unpack[TransformersKwargs]
    ) -> LstclModelOutput:
        """Output of TimeSformer or Swin; arguments as of `forward`."""
        if self.config.backbone == "timesformer":
            tokens, maps = self.backbone(pixel_values, **kwargs), []
        else:
            tokens, maps = self.backbone(pixel_values, **kwargs)
        feature_maps = tuple(maps) if output_feature_maps else None
        return LstclModelOutput(last_hidden_state=tokens, pooler_output=self._pool(tokens), feature_maps=feature_maps)

    def _pool(self, tokens: torch.Tensor) -> torch.Tensor:
        """First or mean of tokens `(batch_size, ..., hidden_size)`."""
        tokens = tokens.flatten(1, -2)
        return tokens[:, 0] if self.config.feature_pooling == "first_token" else tokens.mean(dim=1)


class LstclForVideoClassification(VideoClassificationMixin, LstclPreTrainedModel):
    """
    Encoder, pooled features, dropout and a linear classifier.

    Args:
        config ([`LstclConfig`]):
            Configuration.
    """

    def __init__(self, config: LstclConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.loss_function = classification_loss
        self.lstcl = LstclModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()


class LstclForActionDetection(PyramidActionDetectionMixin, LstclPreTrainedModel):
    """
    Scores of actions for each person in a clip: encoder and an action detection head on the map of its tokens.

    Args:
        config ([`LstclConfig`]):
            Configuration; `detection_config` describes the head. The tokens of a `backbone_config` must be a grid of
            patches in frame, row, column order, with or without a class token in front.
    """

    def __init__(self, config: LstclConfig):
        super().__init__(config)
        self.lstcl = LstclModel(config)
        self.add_pyramid_head(config.hidden_sizes or [config.hidden_size], config.hidden_size)
        self.post_init()

    @property
    def last_stride(self) -> int:
        """Pixels between neighbouring places of the last map."""
        if self.config.backbone == "video_swin":
            return self.config.patch_size * 2 ** (len(self.config.depths) - 1)
        return (self.config.backbone_config or self.config).patch_size

    def _feature_map(self, pixel_values: torch.Tensor, outputs: Any) -> torch.Tensor:
        """See [`PyramidActionDetectionMixin`]."""
        if self.config.backbone == "video_swin":
            return super()._feature_map(pixel_values, outputs)
        height, width = (side // self.last_stride for side in pixel_values.shape[-2:])
        tokens = outputs.last_hidden_state.transpose(1, 2)  # (batch, hidden, sequence)
        tokens = tokens[..., tokens.shape[2] % (height * width) :]  # without a class token
        if self.config.backbone_config is not None:
            return tokens.unflatten(2, (-1, height, width))
        return tokens.unflatten(2, (height, width, -1)).movedim(-1, 2)  # TimeSformer's frames run fastest

    def _stage_maps(self, pixel_values: torch.Tensor, outputs: Any, count: int) -> list[torch.Tensor]:
        """See [`PyramidActionDetectionMixin`]."""
        config = self.config
        sides = [-(-side // config.patch_size) for side in pixel_values.shape[-2:]]
        for _ in config.depths[1:]:
            sides = [-(-side // 2) for side in sides]
        last = outputs.last_hidden_state.unflatten(1, (-1, *sides))
        return [*(outputs.feature_maps[1 - count :] if count > 1 else ()), last]


class _LstclTarget(nn.Module):
    """Branch that makes keys: a moving average of encoder and projector, without gradient."""

    def __init__(self, lstcl: LstclModel, projector: LstclHead):
        super().__init__()
        self.lstcl, self.projector = lstcl, projector
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Keys `(batch_size, projection_size)` of clips."""
        return self.projector(self.lstcl(pixel_values, return_dict=True).pooler_output)


class LstclForPreTraining(LstclPreTrainedModel):
    """
    Contrastive pretraining. One `forward` runs both branches, updates the target and computes the loss.

    ```
    query = predictor(projector(encoder(short)))              # online branch, trained
    target = m * target + (1 - m) * (encoder, projector)      # parameters only, before the keys
    key = target(long)                                        # no gradient; batch statistics in training
    loss = compare(query, key)                                # MoCo v3: among all keys; BYOL: 2 - 2 cos
    if symmetric: loss += compare(query of long, key of short)
    ```
    SimSiam has no target. Its key is the projection itself, and its loss is minus the cosine; with `config.symmetric`,
    the mean of both directions.

    In training mode every forward updates the target. A loop that accumulates gradients over several passes must pass
    `update_target=False` in all but the first pass of a step. Only the online branch gets gradients.

    The clips of a pass are compared with each other, and its batch norms use its own statistics. Gradients accumulated
    over passes are therefore those of the mean of the passes' losses, and not of one larger batch. The `Trainer` of
    transformers accumulates this way, but cannot pass `update_target`: with `n` passes a step, set the configuration's
    `target_momentum` to its `n`-th root.

    Args:
        config ([`LstclConfig`]):
            Configuration.
    """

    accepts_loss_kwargs = False  # the `Trainer` of transformers averages the losses of accumulated batches

    def __init__(self, config: LstclConfig):
        super().__init__(config)
        self.lstcl = LstclModel(config)
        self.projector = _projection_head(config)
        self.predictor = _prediction_head(config)
        self.target: _LstclTarget | None = None
        if config.framework != "simsiam":
            self.target = _LstclTarget(LstclModel(_without_drop_path(config)), _projection_head(config))
        if config.freeze_patch_embeddings:
            self.get_input_embeddings().requires_grad_(False)
        self.post_init()
        self.reset_target()

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """
        As in transformers. If the checkpoint has no target branch, because it holds only an encoder, the target starts
        as a copy of the online branch.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        model, info = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        if any(name.startswith("target.") for name in info["missing_keys"]):
            model.reset_target()
        return (model, info) if wants_info else model

    @torch.no_grad()
    def reset_target(self) -> None:
        """Make the target branch a copy of the online one."""
        if self.target is not None:
            self.target.lstcl.load_state_dict(self.lstcl.state_dict())
            self.target.projector.load_state_dict(self.projector.state_dict())

    @torch.no_grad()
    def update_target(self, momentum: torch.Tensor | float | None = None) -> None:
        """
        Move the target's parameters towards the online branch's. Its running statistics are its own.

        Args:
            momentum (`torch.Tensor` of shape `()` or `float`, *optional*):
                Share of the target that is kept; `config.target_momentum` by default.
        """
        momentum = self.config.target_momentum if momentum is None else momentum
        if self.target is None or momentum is None:
            return
        follow_parameters(self.target.lstcl, self.lstcl, momentum)
        follow_parameters(self.target.projector, self.projector, momentum)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        long_pixel_values: torch.Tensor,
        target_momentum: torch.Tensor | float | None = None,
        update_target: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> LstclForPreTrainingOutput:
        r"""
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_frames, num_channels, height, width)`):
                Normalised short clips.
            long_pixel_values (`torch.Tensor` of shape `(batch_size, num_frames, num_channels, height, width)`):
                Long clips of the same videos; frames and size may differ where the encoder allows it.
            target_momentum (`torch.Tensor` of shape `()` or `float`, *optional*):
                Share of the target branch that is kept; `config.target_momentum` by default. Pass a tensor to avoid
                compiling a model again for each value.
            update_target (`bool`, *optional*):
                Whether to update the target branch; by default in training mode only.

        Returns:
            [`LstclForPreTrainingOutput`]

        Raises:
            ValueError: a shape does not fit the configuration, the numbers of short and long clips differ, or
                processes have different numbers of clips.
        """
        check_clips(long_pixel_values, self.config.num_channels, "long_pixel_values")
        # an exported graph has a batch size of its own for each input
        if not torch.compiler.is_compiling() and len(pixel_values) != len(long_pixel_values):
            raise ValueError(
                "`long_pixel_values` must have as many clips as `pixel_values`, got "
                f"{len(long_pixel_values)} and {len(pixel_values)}."
            )
        outputs = self.lstcl(pixel_values, return_dict=True, **kwargs)
        short_projection = self.projector(outputs.pooler_output)
        short_query, long_query, short_key = self.predictor(short_projection), None, None
        if self.target is None:
            with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.symmetric):
                long_key = self.projector(self.lstcl(long_pixel_values, return_dict=True).pooler_output)
            if self.config.symmetric:
                long_query, short_key = self.predictor(long_key), short_projection.detach()
            long_key = long_key.detach()
        else:
            if self.config.symmetric:
                long_query = self.predictor(
                    self.projector(self.lstcl(long_pixel_values, return_dict=True).pooler_output)
                )
            if self.training if update_target is None else update_target:
                self.update_target(target_momentum)
            if self.config.symmetric:
                short_key = self.target(pixel_values)
            long_key = self.target(long_pixel_values)
        loss = self.compare(short_query, long_key)
        if long_query is not None and short_key is not None:
            loss = (loss + self.compare(long_query, short_key)) * (0.5 if self.target is None else 1.0)
        return LstclForPreTrainingOutput(
            loss=loss,
            short_query=short_query,
            long_key=long_key,
            long_query=long_query,
            short_key=short_key,
            features=outputs.pooler_output,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def compare(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        """
        Loss of one direction between queries and keys.

        Args:
            query (`torch.Tensor` of shape `(batch_size, projection_size)`):
                Predictions from one clip of each video.
            key (`torch.Tensor` of shape `(batch_size, projection_size)`):
                Targets from the other clip, in the same order; they get no gradient.

        Returns:
            `torch.Tensor` of shape `()`: the loss of the configuration's `framework`.
        """
        if self.config.framework == "moco_v3":
            return contrastive_loss(query, key, self.config.temperature)
        loss = cosine_loss(query, key)
        return 2 + 2 * loss if self.config.framework == "byol" else loss


def _projection_head(config: LstclConfig) -> LstclHead:
    """The projector of a framework."""
    sizes = _layer_sizes(config, config.hidden_size, config.projection_hidden_size, config.num_projection_layers)
    byol = config.framework == "byol"
    return LstclHead(sizes, byol, not byol, config.batch_norm_eps, config.batch_norm_momentum)


def _prediction_head(config: LstclConfig) -> LstclHead:
    """The predictor of a framework."""
    size = config.projection_size
    sizes = _layer_sizes(config, size, config.prediction_hidden_size, config.num_prediction_layers)
    moco = config.framework == "moco_v3"
    return LstclHead(sizes, not moco, moco, config.batch_norm_eps, config.batch_norm_momentum)


def _layer_sizes(config: LstclConfig, first: int | None, hidden: int | None, layers: int | None) -> list[int]:
    """Widths of a head from its input to its output; the configuration fills in all of them."""
    sizes = [first, *[hidden] * ((layers or 2) - 1), config.projection_size]
    return [size for size in sizes if size is not None]


def _without_drop_path(config: LstclConfig) -> LstclConfig:
    """A configuration whose encoder keeps all its branches."""
    config = copy.deepcopy(config)
    config.drop_path_rate = 0.0
    other: Any = config.backbone_config
    if other is not None and "drop_path_rate" in other.to_dict():
        other.drop_path_rate = type(other.drop_path_rate)(0)
    return config


def _swin_depths(config: LstclConfig, base: str) -> list[tuple[str, ...]]:
    """Prefixes of each block of a Swin, the merging of a stage with its last block."""
    depths: list[tuple[str, ...]] = []
    for stage, number in enumerate(config.depths):
        prefix = f"{base}encoder.stages.{stage}."
        depths += [(f"{prefix}layers.{index}.",) for index in range(number)]
        depths[-1] = (*depths[-1], f"{prefix}merging.")
    return depths


def _input_of(backbone: nn.Module) -> nn.Module:
    """The patch embedding of another model's encoder."""
    if not isinstance(backbone, PreTrainedModel):
        raise TypeError(f"{type(backbone).__name__} is not a transformers model")
    return backbone.get_input_embeddings()


def _check_clips(pixel_values: torch.Tensor, config: LstclConfig) -> None:
    """ValueError for clips with a wrong number of axes or channels, or a size that the encoder does not support."""
    check_clips(pixel_values, config.num_channels)
    if config.backbone_config is not None and config.backbone == "timesformer":
        # transformers' own TimeSformer reads both from its configuration; its output is wrong for others
        size = (pixel_values.shape[1], *pixel_values.shape[-2:])
        if size != (config.num_frames, *frame_size(config.image_size)):
            raise ValueError(
                f"`pixel_values` must have {config.num_frames} frames of {frame_size(config.image_size)} pixels for "
                f"transformers' TimeSformer, got {size[0]} of {size[1:]}."
            )


__all__ = [
    "LstclForActionDetection",
    "LstclForPreTraining",
    "LstclForPreTrainingOutput",
    "LstclForVideoClassification",
    "LstclModel",
    "LstclModelOutput",
    "LstclPreTrainedModel",
]
