"""
VideoMAE V2 ([Wang et al., 2023](https://huggingface.co/papers/2303.16727)): masked autoencoders with dual masking.

A plain ViT over tubelets: joint space-time attention, no class token, a fixed one-dimensional sine-cosine position
table over the flattened token index. Behaviour follows the official code (OpenGVLab/VideoMAEv2, commit 29eab1e).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, logging
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .configuration_videomae_v2 import VideoMAEV2Config
from .layers import (
    LayerScale,
    VideoClassificationMixin,
    apply_mlp,
    check_clips,
    classification_loss,
    drop_path_rates,
    eager_attention_forward,
    filled,
    gather_tokens,
    init_as_torch,
    interpolate_positions,
    kept_indices,
    sinusoid_table,
    start_of,
    starting,
    token_grid,
)
from .modeling_action_detection import ActionDetectionMixin


logger = logging.get_logger(__name__)

Grid = tuple[int, int, int]
MAX_LOG_TEMPERATURE = 4.6052  # the official cap on the cosine attention's scale: log(100)


@dataclass
class VideoMAEV2ForPreTrainingOutput(ModelOutput):
    """
    Output of [`VideoMAEV2ForPreTraining`].

    Args:
        loss (`torch.Tensor` of shape `()`, *optional*):
            Mean over the clips of the mean squared error of the decoded tokens that the encoder did not see.
        logits (`torch.Tensor` of shape `(batch_size, num_decoded, tubelet_size * patch_size ** 2 * num_channels)`):
            Predicted pixels of the decoded tokens in token order, channel fastest.
        decoded_indices (`torch.Tensor` of shape `(batch_size, num_decoded)`):
            Position of each decoded token.
        encoder_last_hidden_state (`torch.Tensor` of shape `(batch_size, num_visible, hidden_size)`):
            The encoder's normalised output for the visible tokens.
        hidden_states (`tuple(torch.Tensor)`, *optional*):
            Input of the first encoder block and output of each.
        attentions (`tuple(torch.Tensor)`, *optional*):
            Attention probabilities of each encoder block.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    decoded_indices: torch.Tensor | None = None
    encoder_last_hidden_state: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class _VideoMAEV2PatchEmbeddings(nn.Module):
    """Tubelets to tokens: a 3-D convolution whose stride is its kernel, tokens in frame, row, column order."""

    def __init__(self, config: VideoMAEV2Config):
        super().__init__()
        self.num_channels = config.num_channels
        self.tubelet_size, self.patch_size = config.tubelet_size, config.patch_size
        kernel_size = (config.tubelet_size, config.patch_size, config.patch_size)
        self.projection = nn.Conv3d(config.num_channels, config.hidden_size, kernel_size, stride=kernel_size)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        pixel_values = pixel_values.to(self.projection.weight.dtype).transpose(1, 2)  # (batch, channels, frames, h, w)
        return self.projection(pixel_values).flatten(2).transpose(1, 2)  # (batch, sequence, hidden)


class _VideoMAEV2PositionEmbeddings(nn.Module):
    """
    The fixed position table of one width. Official checkpoints do not contain it. It is a buffer that is not saved;
    the weight initialisation computes it again after loading.
    """

    table: torch.Tensor

    def __init__(self, grid: Sequence[int], dim: int):
        super().__init__()
        frames, height, width = grid
        self.grid = (frames, height, width)
        self.register_buffer("table", self.make_table(dim), persistent=False)

    def make_table(self, dim: int) -> torch.Tensor:
        return sinusoid_table(math.prod(self.grid), dim)

    def forward(self, grid: tuple[int, int, int]) -> torch.Tensor:
        if not torch.compiler.is_compiling() and grid[1:] != self.grid[1:]:
            logger.warning_once(
                f"The position table of {self.grid} tokens (frames, height, width) is interpolated to {grid}. For a "
                "checkpoint that was trained at this size with the official code, which makes a new table for each "
                f"size, pass `position_grid={list(grid)}` to `from_pretrained`, or `image_size` to the conversion."
            )
        return interpolate_positions(self.table, self.grid, grid)  # (sequence, dim)


class _VideoMAEV2Embeddings(nn.Module):
    """Tubelets and their positions."""

    def __init__(self, config: VideoMAEV2Config):
        super().__init__()
        self.patch_embeddings = _VideoMAEV2PatchEmbeddings(config)
        self.position_embeddings = _VideoMAEV2PositionEmbeddings(
            config.position_grid or config.token_grid(), config.hidden_size
        )

    def forward(self, pixel_values: torch.Tensor, grid: tuple[int, int, int]) -> torch.Tensor:
        tokens = self.patch_embeddings(pixel_values)
        return tokens + self.position_embeddings(grid).to(tokens.dtype)


def _part_of_qkv(hidden_size: int, bias: bool) -> nn.Linear:
    """Query, key or value projection: a third of the fused projection of the official code."""
    return starting("part of qkv", nn.Linear(hidden_size, hidden_size, bias=bias))


class _VideoMAEV2Attention(nn.Module):
    """Joint space-time self-attention. Keys have no bias; queries and values do with `config.qkv_bias`."""

    def __init__(self, config: VideoMAEV2Config, hidden_size: int, num_heads: int):
        super().__init__()
        self.config = config
        self.num_heads, self.head_dim = num_heads, hidden_size // num_heads
        self.is_causal = False
        self.attention_dropout = config.attention_probs_dropout_prob
        self.q_proj = _part_of_qkv(hidden_size, config.qkv_bias)
        self.k_proj = _part_of_qkv(hidden_size, False)
        self.v_proj = _part_of_qkv(hidden_size, config.qkv_bias)
        self.o_proj = nn.Linear(hidden_size, hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        cosine = config.use_cosine_attention
        self.scaling = 1.0 if cosine else self.head_dim**-0.5
        self.scale = nn.Parameter(torch.full((num_heads, 1, 1), math.log(10.0))) if cosine else None

    def forward(
        self, hidden_states: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        batch_size, length, _ = hidden_states.shape
        heads = (batch_size, length, self.num_heads, self.head_dim)
        query = self.q_proj(hidden_states).view(heads).transpose(1, 2)  # (batch, heads, sequence, head_dim)
        key = self.k_proj(hidden_states).view(heads).transpose(1, 2)
        value = self.v_proj(hidden_states).view(heads).transpose(1, 2)
        if self.scale is not None:
            temperature = self.scale.clamp(max=MAX_LOG_TEMPERATURE).exp()
            query = F.normalize(query, dim=-1) * temperature
            key = F.normalize(key, dim=-1)
        attention = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        context, probabilities = attention(
            self,
            query,
            key,
            value,
            None,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            is_causal=self.is_causal,
            **kwargs,
        )
        context = context.reshape(batch_size, length, -1)
        return self.dropout(self.o_proj(context)), probabilities


class _VideoMAEV2MLP(nn.Module):
    """One dropout only, after the second layer."""

    def __init__(self, config: VideoMAEV2Config, hidden_size: int, intermediate_size: int):
        super().__init__()
        self.fc1 = nn.Linear(hidden_size, intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(intermediate_size, hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.fc2(self.activation(self.fc1(hidden_states))))


class _VideoMAEV2Adapter(nn.Module):
    """
    Adapter of AdaTAD: a narrow branch with a depth-wise convolution over the time of the whole video, across the
    chunks that attention is confined to.
    """

    def __init__(self, config: VideoMAEV2Config):
        super().__init__()
        width = config.adapter_hidden_size or config.hidden_size // 4
        self.down_proj = nn.Linear(config.hidden_size, width)
        self.time_conv = nn.Conv1d(width, width, 3, padding=1, groups=width)
        self.channel_conv = nn.Conv1d(width, width, 1)
        self.up_proj = starting("zero", nn.Linear(width, config.hidden_size))
        self.gamma = nn.Parameter(torch.ones(1))

    def forward(self, hidden_states: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """`grid`: time steps of the whole video, and places of a step."""
        narrow = F.gelu(self.down_proj(hidden_states))  # (batch * chunks, sequence of a chunk, width)
        videos = narrow.reshape(-1, *grid, narrow.shape[-1])  # (batch, steps, places, width)
        series = videos.permute(0, 2, 3, 1).flatten(0, 1)  # (batch * places, width, steps)
        series = self.channel_conv(self.time_conv(series))
        mixed = series.unflatten(0, (-1, grid[1])).permute(0, 3, 1, 2)  # (batch, steps, places, width)
        return hidden_states + self.gamma * self.up_proj(narrow + mixed.reshape(narrow.shape))


class _VideoMAEV2Layer(GradientCheckpointingLayer):
    """Pre-norm block of encoder and decoder. Those of the encoder may end in an adapter."""

    def __init__(
        self,
        config: VideoMAEV2Config,
        hidden_size: int,
        num_heads: int,
        intermediate_size: int,
        drop_path_rate: float = 0.0,
        has_adapter: bool = False,
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)
        self.attention = _VideoMAEV2Attention(config, hidden_size, num_heads)
        self.norm2 = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)
        self.mlp = _VideoMAEV2MLP(config, hidden_size, intermediate_size)
        self.drop_path = StochasticDepth(drop_path_rate, "row")
        scaled = config.layer_scale_init_value > 0
        self.layer_scale1 = LayerScale(hidden_size, config.layer_scale_init_value) if scaled else nn.Identity()
        self.layer_scale2 = LayerScale(hidden_size, config.layer_scale_init_value) if scaled else nn.Identity()
        self.adapter = _VideoMAEV2Adapter(config) if has_adapter else None

    def forward(
        self, hidden_states: torch.Tensor, grid: tuple[int, int] = (1, 1), **kwargs: Unpack[TransformersKwargs]
    ) -> torch.Tensor:
        context, _ = self.attention(self.norm1(hidden_states), **kwargs)
        hidden_states = hidden_states + self.drop_path(self.layer_scale1(context))
        hidden_states = hidden_states + self.drop_path(self.layer_scale2(apply_mlp(self._transform, hidden_states)))
        return hidden_states if self.adapter is None else self.adapter(hidden_states, grid)

    def _transform(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.mlp(self.norm2(tokens))


class _VideoMAEV2Encoder(nn.Module):
    def __init__(self, config: VideoMAEV2Config):
        super().__init__()
        sizes = (config.hidden_size, config.num_attention_heads, config.intermediate_size)
        self.layers = nn.ModuleList(
            _VideoMAEV2Layer(config, *sizes, rate, has_adapter=index in (config.adapter_layers or ()))
            for index, rate in enumerate(drop_path_rates(config.drop_path_rate, config.num_hidden_layers))
        )

    def forward(
        self, hidden_states: torch.Tensor, grid: tuple[int, int], **kwargs: Unpack[TransformersKwargs]
    ) -> torch.Tensor:
        for layer in self.layers:
            hidden_states = layer(hidden_states, grid, **kwargs)
        return hidden_states


class _VideoMAEV2Decoder(nn.Module):
    """Narrow decoder: visible tokens first, then one mask token for each position to reconstruct."""

    def __init__(self, config: VideoMAEV2Config):
        super().__init__()
        width = config.decoder_hidden_size
        self.position_embeddings = _VideoMAEV2PositionEmbeddings(config.position_grid or config.token_grid(), width)
        self.layers = nn.ModuleList(
            _VideoMAEV2Layer(config, width, config.decoder_num_attention_heads, config.decoder_intermediate_size)
            for _ in range(config.decoder_num_hidden_layers)
        )
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.head = nn.Linear(width, config.num_channels * config.tubelet_size * config.patch_size**2)

    def forward(
        self, hidden_states: torch.Tensor, num_decoded: int, **kwargs: Unpack[TransformersKwargs]
    ) -> torch.Tensor:
        for layer in self.layers:
            hidden_states = layer(hidden_states, **kwargs)
        return self.head(self.norm(hidden_states[:, -num_decoded:]))


class VideoMAEV2PreTrainedModel(PreTrainedModel):
    """Weight initialisation of the official code, and what transformers and a trainer must know of the models."""

    config: VideoMAEV2Config
    base_model_prefix = "videomae_v2"
    main_input_name = "pixel_values"
    input_modalities = ("video",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["_VideoMAEV2Embeddings", "_VideoMAEV2Layer"]
    _input_embed_layer = "patch_embeddings"
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {
        "hidden_states": _VideoMAEV2Layer,
        "attentions": OutputRecorder(_VideoMAEV2Attention, index=1),
    }
    # Pre-training starts from Xavier-uniform linear layers, everything else from a normal distribution.
    _xavier_init = False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        start = start_of(module)
        if start == "classifier":
            std = self.config.initializer_range * self.config.classifier_init_scale
            init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
        elif isinstance(module, nn.Conv3d) or (start == "torch" and isinstance(module, nn.Linear)):
            init_as_torch(module)  # the official code never re-initialises these
        elif start == "zero":
            init.zeros_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Conv1d):
            init.normal_(module.weight, std=math.sqrt(2 / module.weight[0].numel()))
            init.zeros_(module.bias)
        elif isinstance(module, _VideoMAEV2Adapter):
            init.ones_(module.gamma)
        elif start == "part of qkv" and isinstance(module, nn.Linear) and self._xavier_init:
            bound = math.sqrt(6.0 / (module.in_features + 3 * module.out_features))
            init.uniform_(module.weight, -bound, bound)
        elif isinstance(module, nn.Linear):
            if self._xavier_init:
                init.xavier_uniform_(module.weight)
            else:
                init.trunc_normal_(module.weight, std=self.config.initializer_range)
        elif isinstance(module, _VideoMAEV2Attention) and module.scale is not None:
            init.constant_(module.scale, math.log(10.0))
        elif isinstance(module, LayerScale):
            init.constant_(module.gamma, module.init_value)
        elif isinstance(module, _VideoMAEV2PositionEmbeddings):
            init.copy_(module.table, module.make_table(module.table.shape[-1]))
        elif isinstance(module, VideoMAEV2ForPreTraining):
            init.trunc_normal_(module.mask_token, std=0.02, a=-0.02, b=0.02)

    def layer_groups(self) -> list[tuple[str, ...]]:
        """
        Prefixes of parameter names a depth, for layer-wise learning-rate decay: embeddings, each encoder block, and
        last everything above the encoder (an empty prefix matches every name that no earlier depth matches).
        """
        base = "" if isinstance(self, VideoMAEV2Model) else f"{self.base_model_prefix}."
        blocks = [(f"{base}encoder.layers.{index}.",) for index in range(self.config.num_hidden_layers)]
        return [(f"{base}embeddings.",), *blocks, ("",)]

    def no_weight_decay(self) -> set[str]:
        """Names of parameters with more than one axis that the official recipes do not decay."""
        return {name for name, _ in self.named_parameters() if name.endswith((".scale", "mask_token"))}


class VideoMAEV2Model(VideoMAEV2PreTrainedModel):
    """
    The encoder.

    `last_hidden_state` holds the tokens. With `config.use_mean_pooling`, `pooler_output` is `fc_norm` of their mean
    (the features of the official code); otherwise it is the first token after a token-wise norm.

    Args:
        config ([`VideoMAEV2Config`]):
            Configuration.
        add_pooling_layer (`bool`, *optional*, defaults to `True`):
            `False` gives the pre-training encoder: a norm on every token and no pooling.
    """

    def __init__(self, config: VideoMAEV2Config, add_pooling_layer: bool = True):
        super().__init__(config)
        self._xavier_init = not add_pooling_layer
        self.embeddings = _VideoMAEV2Embeddings(config)
        self.encoder = _VideoMAEV2Encoder(config)
        self.pools = add_pooling_layer
        norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        mean_pooling = add_pooling_layer and config.use_mean_pooling
        self.layernorm = None if mean_pooling else norm
        self.fc_norm = norm if mean_pooling else None
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        pixel_values: torch.Tensor,
        encoder_mask: torch.Tensor | None = None,
        visible_indices: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        r"""
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_frames, num_channels, height, width)`):
                Normalised clips. With adapters, also videos of a multiple of `config.num_frames` frames.
            encoder_mask (`torch.BoolTensor` of shape `(batch_size, sequence_length)`, *optional*):
                `True` = hidden from the encoder; the same number of tokens in every sample. In a compiled or exported
                model, it must be the number of `config.encoder_mask_ratio`.
            visible_indices (`torch.LongTensor` of shape `(batch_size, num_visible)`, *optional*):
                Positions of the tokens that the encoder sees, instead of `encoder_mask`.

        Returns:
            [`BaseModelOutputWithPooling`]: tokens of shape `(batch_size, num_visible, hidden_size)` and the pooled
            features of shape `(batch_size, hidden_size)`.

        Raises:
            ValueError: a shape does not fit the configuration or the mask, both `encoder_mask` and
                `visible_indices` are given, or one of them to an encoder with adapters.
        """
        check_clips(pixel_values, self.config.num_channels)
        batch_size, chunks = pixel_values.shape[0], _num_chunks(pixel_values.shape[1], self.config)
        if chunks > 1:
            pixel_values = pixel_values.unflatten(1, (chunks, -1)).flatten(0, 1)
        grid = _clip_grid(pixel_values, self.config)
        if self.config.adapter_layers and (encoder_mask is not None or visible_indices is not None):
            raise ValueError("`encoder_mask` and `visible_indices` must be None in an encoder with adapters.")
        hidden_states = self.embeddings(pixel_values, grid)  # (batch, sequence, hidden)
        if encoder_mask is not None:
            if visible_indices is not None:
                raise ValueError("Give `encoder_mask` or `visible_indices`, got both.")
            visible_indices = _visible_indices(encoder_mask, pixel_values.shape[0], grid, self.config)
        if visible_indices is not None:
            hidden_states = gather_tokens(hidden_states, visible_indices)  # (batch, visible, hidden)
        hidden_states = self.encoder(hidden_states, (chunks * grid[0], grid[1] * grid[2]), **kwargs)
        if chunks > 1:
            hidden_states = hidden_states.unflatten(0, (batch_size, chunks)).flatten(1, 2)
        if self.layernorm is not None:
            hidden_states = self.layernorm(hidden_states)
        pooled = None
        if self.pools:
            pooled = hidden_states[:, 0] if self.fc_norm is None else self.fc_norm(hidden_states.mean(dim=1))
        return BaseModelOutputWithPooling(last_hidden_state=hidden_states, pooler_output=pooled)


class VideoMAEV2ForVideoClassification(VideoClassificationMixin, VideoMAEV2PreTrainedModel):
    """
    Encoder, pooled features, dropout and a linear classifier.

    Args:
        config ([`VideoMAEV2Config`]):
            Configuration.
    """

    def __init__(self, config: VideoMAEV2Config):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.loss_function = classification_loss
        self.videomae_v2 = VideoMAEV2Model(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = starting("classifier", nn.Linear(config.hidden_size, config.num_labels))
        self.post_init()


class VideoMAEV2ForPreTraining(VideoMAEV2PreTrainedModel):
    """
    Masked autoencoder with dual masking (paper, section 3.2): the encoder sees few tokens, the decoder reconstructs a
    subset of all tokens, and only tokens that the encoder did not see count in the loss.

    ```
    for token in decoded:                                   # decoder_mask == False
        error[token] = mean((prediction[token] - target[token]) ** 2)
    loss[clip] = sum(error[hidden]) / len(hidden)           # decoded tokens with encoder_mask == True
    loss = mean(loss[clip])
    ```
    With the official masks every clip has the same number of such tokens, and the loss is their mean over the batch,
    as in the official code. With any masks, the mean of the losses of equal batches is the loss of all their clips.
    Counting all decoded tokens instead costs 3.4 points on Something-Something V2 (paper, table 2).

    Args:
        config ([`VideoMAEV2Config`]):
            Configuration.
    """

    accepts_loss_kwargs = False  # the `Trainer` of transformers averages the losses of accumulated batches

    def __init__(self, config: VideoMAEV2Config):
        super().__init__(config)
        self._xavier_init = True
        self.videomae_v2 = VideoMAEV2Model(config, add_pooling_layer=False)
        self.encoder_to_decoder = starting(
            "torch", nn.Linear(config.hidden_size, config.decoder_hidden_size, bias=False)
        )
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.decoder_hidden_size))
        self.decoder = _VideoMAEV2Decoder(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        encoder_mask: torch.Tensor,
        decoder_mask: torch.Tensor | None = None,
        visible_indices: torch.Tensor | None = None,
        decoded_indices: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> VideoMAEV2ForPreTrainingOutput:
        r"""
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_frames, num_channels, height, width)`):
                Clips normalised by `config.image_mean` and `config.image_std`.
            encoder_mask (`torch.BoolTensor` of shape `(batch_size, sequence_length)`):
                `True` = hidden from the encoder; equal counts in every sample.
            decoder_mask (`torch.BoolTensor` of shape `(batch_size, sequence_length)`, *optional*):
                `True` = not reconstructed; equal counts in every sample. By default exactly the tokens hidden from the
                encoder are reconstructed, as in VideoMAE V1. In a compiled or exported model, the counts must be those
                of `config.encoder_mask_ratio` and `config.decoder_mask_ratio`.
            visible_indices (`torch.LongTensor` of shape `(batch_size, num_visible)`, *optional*):
                Positions at which `encoder_mask` is `False`, ascending, together with `decoded_indices`. By default
                they are found in the masks, for which the host waits for the device.
            decoded_indices (`torch.LongTensor` of shape `(batch_size, num_decoded)`, *optional*):
                Positions to reconstruct, ascending. With both, the masks are not checked.

        Returns:
            [`VideoMAEV2ForPreTrainingOutput`]

        Raises:
            ValueError: a shape does not fit the configuration, the samples' counts differ, or a sample has no token
                that counts in the loss.
        """
        grid = _clip_grid(pixel_values, self.config)
        if (visible_indices is None) != (decoded_indices is None):
            raise ValueError("`visible_indices` and `decoded_indices` must be given together, got one of them.")
        if visible_indices is None or decoded_indices is None:
            visible, decoded = _visible_and_decoded_indices(
                encoder_mask, decoder_mask, pixel_values.shape[0], grid, self.config
            )
        else:
            visible, decoded = visible_indices, decoded_indices
        outputs = self.videomae_v2(pixel_values, visible_indices=visible, return_dict=True, **kwargs)
        logits = self._decode(outputs.last_hidden_state, visible, decoded, grid, **kwargs)
        error = (logits.float() - self.targets(pixel_values, decoded)).square().mean(dim=-1)  # (batch, decoded)
        weight = encoder_mask.bool().gather(1, decoded).to(error.dtype)
        return VideoMAEV2ForPreTrainingOutput(
            loss=((error * weight).sum(dim=1) / weight.sum(dim=1)).mean(),
            logits=logits,
            decoded_indices=decoded,
            encoder_last_hidden_state=outputs.last_hidden_state,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _decode(
        self,
        encoded: torch.Tensor,
        visible: torch.Tensor,
        decoded: torch.Tensor,
        grid: tuple[int, int, int],
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        """
        Predict the pixels of the tokens at `decoded` from the encoder's output at `visible` (both `(batch, count)`).
        Every position to reconstruct gets a mask token, also where the encoder saw the token.
        """
        positions = self.decoder.position_embeddings(grid).to(encoded.dtype)  # (sequence, decoder_hidden)
        seen = self.encoder_to_decoder(encoded) + F.embedding(visible, positions)
        masked = self.mask_token.to(encoded.dtype) + F.embedding(decoded, positions)
        return self.decoder(torch.cat((seen, masked), dim=1), decoded.shape[1], **kwargs)

    def targets(
        self, pixel_values: torch.Tensor, indices: torch.Tensor | None = None, normalize: bool | None = None
    ) -> torch.Tensor:
        """
        Pixels to predict, in [0, 1] after the processor's normalisation is undone.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_frames, num_channels, height, width)`):
                Normalised clips.
            indices (`torch.Tensor` of shape `(batch_size, num_decoded)`, *optional*):
                Tokens to make targets for; all by default.
            normalize (`bool`, *optional*, defaults to `config.normalize_targets`):
                Whether to normalise each channel of each tubelet by its own mean and (unbiased) deviation.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_decoded, tubelet_size * patch_size ** 2 * num_channels)` in
            float32, in frame, row, column, channel order.
        """
        config = self.config
        frames, height, width = _clip_grid(pixel_values, config)
        tubelets = pixel_values.view(
            *(-1, frames, config.tubelet_size, config.num_channels),
            *(height, config.patch_size, width, config.patch_size),
        )
        tubelets = tubelets.permute(0, 1, 4, 6, 2, 5, 7, 3)  # (batch, frames, rows, columns, tubelet, patch, patch, c)
        tubelets = tubelets.reshape(pixel_values.shape[0], frames * height * width, -1, config.num_channels)
        if indices is not None:
            tubelets = gather_tokens(tubelets, indices)
        tubelets = tubelets.float()
        mean, std = (filled(values or (), tubelets) for values in (config.image_mean, config.image_std))
        tubelets = tubelets * std + mean
        if config.normalize_targets if normalize is None else normalize:
            deviation = tubelets.var(dim=-2, unbiased=True, keepdim=True).sqrt() + 1e-6
            tubelets = (tubelets - tubelets.mean(dim=-2, keepdim=True)) / deviation
        return tubelets.flatten(2)


class VideoMAEV2ForActionDetection(ActionDetectionMixin, VideoMAEV2PreTrainedModel):
    """
    Scores of actions for each person in a clip: encoder, token-wise norm, and an action detection head on the map of
    tokens. Heights and widths that are not a multiple of the patch size are cut at the right and at the bottom.

    Args:
        config ([`VideoMAEV2Config`]):
            Configuration; `detection_config` describes the head.
    """

    def __init__(self, config: VideoMAEV2Config):
        super().__init__(config)
        self.videomae_v2 = VideoMAEV2Model(config, add_pooling_layer=False)
        self.add_action_head(config.hidden_size)
        self.post_init()

    def _encode(self, pixel_values: torch.Tensor, **kwargs: Any) -> tuple[torch.Tensor, Any]:
        """See [`ActionDetectionMixin`]."""
        height, width = (side // self.config.patch_size * self.config.patch_size for side in pixel_values.shape[-2:])
        return super()._encode(pixel_values[..., :height, :width], **kwargs)

    def _feature_map(self, pixel_values: torch.Tensor, outputs: Any) -> torch.Tensor:
        """See [`ActionDetectionMixin`]."""
        return outputs.last_hidden_state.transpose(1, 2).unflatten(2, _clip_grid(pixel_values, self.config))


def _num_chunks(num_frames: int, config: VideoMAEV2Config) -> int:
    """Chunks of `config.num_frames` frames, each a clip of its own but for the adapters. 1 without adapters."""
    if not config.adapter_layers or num_frames <= config.num_frames:
        return 1
    if num_frames % config.num_frames:
        raise ValueError(
            f"`pixel_values` must have a multiple of `config.num_frames` ({config.num_frames}) frames in an encoder "
            f"with adapters, got {num_frames}."
        )
    return num_frames // config.num_frames


def _clip_grid(pixel_values: torch.Tensor, config: VideoMAEV2Config) -> tuple[int, int, int]:
    """Token grid of a batch of clips; ValueError for the wrong number of axes or channels."""
    check_clips(pixel_values, config.num_channels)
    return token_grid(pixel_values, config.tubelet_size, config.patch_size)


def _visible_indices(
    encoder_mask: torch.Tensor, batch_size: int, grid: Grid, config: VideoMAEV2Config
) -> torch.Tensor:
    """Positions `(batch, num_visible)` that an encoder mask `(batch, sequence)` leaves visible."""
    mask = _checked_mask("encoder_mask", encoder_mask, batch_size, grid)
    if _counts_are_fixed(mask):
        return kept_indices(mask, _expected_visible(grid, config))
    [[fewest], [most]] = _extremes(~mask)
    _check_counts("encoder_mask", fewest, most)
    return kept_indices(mask, fewest)


def _visible_and_decoded_indices(
    encoder_mask: torch.Tensor,
    decoder_mask: torch.Tensor | None,
    batch_size: int,
    grid: Grid,
    config: VideoMAEV2Config,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Positions that the encoder sees, `(batch, num_visible)`, and positions to reconstruct, `(batch, num_decoded)`:
    where the decoder mask is `False`, else where the encoder's is `True`. Counts of both masks leave the device in one
    transfer.
    """
    length = math.prod(grid)
    hidden = _checked_mask("encoder_mask", encoder_mask, batch_size, grid)
    skipped = ~hidden if decoder_mask is None else _checked_mask("decoder_mask", decoder_mask, batch_size, grid)
    if _counts_are_fixed(hidden):
        num_visible = _expected_visible(grid, config)
        decoded_of_four = 4 - int(4 * config.decoder_mask_ratio)
        num_decoded = length - num_visible if decoder_mask is None else length * decoded_of_four // 4
        return kept_indices(hidden, num_visible), kept_indices(skipped, num_decoded)
    fewest, most = _extremes(~hidden, ~skipped, hidden & ~skipped)
    _check_counts("encoder_mask", fewest[0], most[0])
    if fewest[0] == length:
        raise ValueError(f"`encoder_mask` must hide at least 1 of {length} tokens of every sample, got 0.")
    _check_counts("decoder_mask", fewest[1], most[1])
    if fewest[2] == 0:
        raise ValueError(
            "`decoder_mask` must leave at least 1 token that `encoder_mask` hides in every sample, got 0: only those "
            "count in the loss."
        )
    return kept_indices(hidden, fewest[0]), kept_indices(skipped, fewest[1])


def _checked_mask(name: str, mask: torch.Tensor, batch_size: int, grid: Grid) -> torch.Tensor:
    """A mask as booleans; ValueError unless it has one value for each token of each sample."""
    length = math.prod(grid)
    if tuple(mask.shape) != (batch_size, length):
        raise ValueError(
            f"`{name}` must have shape (batch_size, {length}) for {batch_size} clips of the grid {grid}, got "
            f"{tuple(mask.shape)}."
        )
    return mask.bool()


def _extremes(*selections: torch.Tensor) -> list[list[int]]:
    """Smallest count of `True` in a row of each selection `(batch, sequence)`, and largest; one transfer for all."""
    counts = torch.stack([selection.sum(dim=1) for selection in selections])  # (selections, batch)
    return torch.stack(counts.aminmax(dim=1)).tolist()


def _check_counts(name: str, fewest: int, most: int) -> None:
    """ValueError unless a mask leaves the same number of tokens of every sample, and at least one."""
    if fewest != most or fewest == 0:
        raise ValueError(
            f"`{name}` must leave the same number of tokens (at least 1) in every sample, got {fewest} to {most}."
        )


def _counts_are_fixed(mask: torch.Tensor) -> bool:
    """Whether the counts must be those of the configured ratios: a compiled graph cannot depend on data."""
    return torch.compiler.is_compiling() or mask.is_meta


def _expected_visible(grid: Grid, config: VideoMAEV2Config) -> int:
    """Tokens that a mask of `config.encoder_mask_ratio` leaves visible."""
    per_frame = grid[1] * grid[2]
    return grid[0] * (per_frame - int(config.encoder_mask_ratio * per_frame))


__all__ = [
    "VideoMAEV2ForActionDetection",
    "VideoMAEV2ForPreTraining",
    "VideoMAEV2ForPreTrainingOutput",
    "VideoMAEV2ForVideoClassification",
    "VideoMAEV2Model",
    "VideoMAEV2PreTrainedModel",
]
