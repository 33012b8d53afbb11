"""
UniFormerV2 ([Li et al., 2022](https://huggingface.co/papers/2211.09552)): an image ViT extended to video.

CLIP's ViT encodes each frame separately. Optional local modules mix neighbouring frames inside its blocks. After some
blocks a global block lets one learnt query attend to all tokens of the clip. Global blocks are a side branch: the
image tower does not get their output. Behaviour follows the official code (OpenGVLab/UniFormerV2, commit 722a434),
which made the released weights, also where the paper's equations differ: the query has a residual connection around
its attention.

Axes: `frames` are those after the patch embedding, `tokens` are the class token and the patches of one frame.
"""

import itertools
import math
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
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .configuration_uniformer_v2 import UniFormerV2Config
from .layers import (
    KeepsStatistics,
    TracedAsTuple,
    VideoClassificationMixin,
    apply_attention,
    apply_mlp,
    apply_to_tokens,
    check_clips,
    classification_loss,
    drop_path_rates,
    eager_attention_forward,
    init_as_torch,
    interpolate_positions,
    known_equal,
    start_of,
    starting,
    token_grid,
)
from .modeling_action_detection import ActionDetectionMixin
from .modeling_uniformer_v2_image_tower import Source, read_image_tower


Grid = tuple[int, int, int]


@dataclass
class UniFormerV2ModelOutput(ModelOutput):
    """
    Output of [`UniFormerV2Model`].

    Args:
        last_hidden_state (`torch.Tensor` of shape `(batch_size, sequence_length, hidden_size)`):
            Tokens of the image tower's last block, `frames * (1 + patches)`: frame by frame, the class token of each
            frame first. They are not normalised.
        pooler_output (`torch.Tensor` of shape `(batch_size, hidden_size)`):
            LayerNorm of `fused_state`, the input of the classifier.
        fused_state (`torch.Tensor` of shape `(batch_size, hidden_size)`):
            Query and mean class token after the gate; the query alone without gate.
        query_states (`tuple[torch.Tensor]`, each of shape `(batch_size, hidden_size)`):
            The query after each global block.
        hidden_states (`tuple[torch.Tensor]`, *optional*):
            Embeddings and output of each block, of the shape of `last_hidden_state`.
        attentions (`tuple[torch.Tensor]`, *optional*):
            Probabilities of each block, of shape `(batch_size * frames, num_attention_heads, tokens, tokens)`.
        cross_attentions (`tuple[torch.Tensor]`, *optional*):
            Those of each global block, of shape `(batch_size, global_num_attention_heads, 1, frames * tokens)`.
    """

    last_hidden_state: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    fused_state: torch.Tensor | None = None
    query_states: tuple[torch.Tensor, ...] | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    cross_attentions: tuple[torch.Tensor, ...] | None = None


class UniFormerV2LayerNorm(nn.LayerNorm):
    """LayerNorm computed in float32 for weights of any dtype; the large model needs it in half precision."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """
        Normalise the last axis.

        Args:
            hidden_states (`torch.Tensor` of shape `(..., hidden_size)`):
                Tokens.

        Returns:
            `torch.Tensor` of the shape and dtype of `hidden_states`.
        """
        weight, bias = self.weight.float(), self.bias.float()
        normalised = F.layer_norm(hidden_states.float(), self.normalized_shape, weight, bias, self.eps)
        return normalised.to(hidden_states.dtype)


# Marks of layers with an initialisation of their own; see `_init_weights`.
PART_OF_QKV = "part of qkv"  # query, key or value projection: a third of the fused projection of the official code
BIAS_AT_ZERO = "bias at zero"
ZERO = "zero"  # last layer of a local module or of a global branch, so that training starts from CLIP
XAVIER = "xavier"


class _UniFormerV2PatchEmbeddings(nn.Module):
    """Patches to tokens, frame by frame or, with temporal downsampling, over `temporal_kernel_size` frames."""

    def __init__(self, config: UniFormerV2Config):
        super().__init__()
        downsamples = config.temporal_downsample
        frames = config.temporal_kernel_size if downsamples else 1
        self.projection = nn.Conv3d(
            config.num_channels,
            config.hidden_size,
            kernel_size=(frames, config.patch_size, config.patch_size),
            stride=(2 if downsamples else 1, config.patch_size, config.patch_size),
            padding=(frames // 2, 0, 0),
            bias=False,
        )

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        pixel_values = pixel_values.to(self.projection.weight.dtype)
        embedded = self.projection(pixel_values.transpose(1, 2))  # (batch, hidden, frames, height, width)
        return embedded.flatten(3).permute(0, 2, 3, 1)  # (batch, frames, patches, hidden)


class _UniFormerV2Embeddings(nn.Module):
    """Patches, a class token in front of those of each frame, and one position table for all frames."""

    def __init__(self, config: UniFormerV2Config):
        super().__init__()
        height, width = config.position_grid or config.patch_grid()
        self.position_grid = (1, height, width)
        self.patch_embeddings = _UniFormerV2PatchEmbeddings(config)
        self.class_embedding = nn.Parameter(torch.zeros(config.hidden_size))
        self.position_embedding = nn.Parameter(torch.zeros(1 + height * width, config.hidden_size))
        self.layernorm = (
            UniFormerV2LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if config.use_pre_layernorm else None
        )

    def positions(self, grid: Grid) -> torch.Tensor:
        """Position table `(tokens, hidden)` for frames of any size; the class token's row is kept."""
        of_class, of_patches = self.position_embedding[:1], self.position_embedding[1:]
        target = (1, *grid[1:])
        if known_equal(target, self.position_grid):
            return self.position_embedding
        resampled = interpolate_positions(of_patches, self.position_grid, target)
        return torch.cat((of_class, resampled.to(of_class.dtype)))

    def forward(self, pixel_values: torch.Tensor, grid: Grid) -> torch.Tensor:
        patches = self.patch_embeddings(pixel_values)  # (batch, frames, patches, hidden)
        class_tokens = self.class_embedding.expand(*patches.shape[:2], 1, -1)
        hidden_states = torch.cat((class_tokens, patches), dim=2) + self.positions(grid)
        if self.layernorm is not None:
            hidden_states = self.layernorm(hidden_states)
        return hidden_states.flatten(1, 2)  # (batch, frames * tokens, hidden)


class _UniFormerV2Attention(nn.Module):
    """Multi-head attention of one sequence over another, or over itself. All projections have a bias."""

    def __init__(self, config: UniFormerV2Config, num_heads: int, output_start: str):
        super().__init__()
        self.config = config
        self.num_heads, self.head_dim = num_heads, config.hidden_size // num_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = False
        self.q_proj = starting(PART_OF_QKV, nn.Linear(config.hidden_size, config.hidden_size))
        self.k_proj = starting(PART_OF_QKV, nn.Linear(config.hidden_size, config.hidden_size))
        self.v_proj = starting(PART_OF_QKV, nn.Linear(config.hidden_size, config.hidden_size))
        self.o_proj = starting(output_start, nn.Linear(config.hidden_size, config.hidden_size))

    def attend(
        self, queries: torch.Tensor, keys_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        heads = (self.num_heads, self.head_dim)
        query = self.q_proj(queries).unflatten(-1, heads).transpose(1, 2)  # (batch, heads, length, head_dim)
        key = self.k_proj(keys_values).unflatten(-1, heads).transpose(1, 2)
        value = self.v_proj(keys_values).unflatten(-1, heads).transpose(1, 2)
        attention = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        context, probabilities = attention(
            self, query, key, value, None, scaling=self.scaling, is_causal=self.is_causal, **kwargs
        )
        return self.o_proj(context.flatten(2)), probabilities


class _UniFormerV2SelfAttention(_UniFormerV2Attention):
    """Attention among the tokens of a frame, class token included."""

    def __init__(self, config: UniFormerV2Config):
        super().__init__(config, config.num_attention_heads, BIAS_AT_ZERO)

    def forward(  # type: ignore[override]  # queries are the keys
        self, sequences: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        return apply_attention(lambda part: self.attend(part, part, **kwargs), sequences)


class _UniFormerV2CrossAttention(_UniFormerV2Attention):
    """Attention of the query over all tokens of the clip, every frame's class token included."""

    def __init__(self, config: UniFormerV2Config):
        super().__init__(config, config.global_num_attention_heads or 1, ZERO)

    def forward(
        self, query: torch.Tensor, tokens: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self.attend(query, tokens, **kwargs)


class UniFormerV2QuickGELU(nn.Module):
    """
    `x * sigmoid(1.702 * x)`, CLIP's approximation of GELU. The same values as transformers' own, with one large
    temporary tensor less, which is most of its time on a CPU.
    """

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """
        Apply the activation.

        Args:
            hidden_states (`torch.Tensor`):
                Tensor of any shape.
        """
        gate = (1.702 * hidden_states).sigmoid_()
        plain = torch.is_grad_enabled() or torch.jit.is_tracing()  # whose check has no gradients
        return hidden_states * gate if plain else gate.mul_(hidden_states)


class _UniFormerV2MLP(nn.Module):
    def __init__(self, config: UniFormerV2Config):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        quick = config.hidden_act == "quick_gelu"
        self.activation = UniFormerV2QuickGELU() if quick else ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation(self.fc1(hidden_states)))


class _UniFormerV2GlobalMLP(nn.Module):
    """MLP on the query: dropout in the middle, and an output that starts at zero."""

    def __init__(self, config: UniFormerV2Config, dropout: float):
        super().__init__()
        width = config.global_intermediate_size or 4 * config.hidden_size
        self.fc1 = starting(XAVIER, nn.Linear(config.hidden_size, width))
        self.activation = UniFormerV2QuickGELU()
        self.dropout = nn.Dropout(dropout)
        self.fc2 = starting(ZERO, nn.Linear(width, config.hidden_size))

    def forward(self, query: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.dropout(self.activation(self.fc1(query))))


class _UniFormerV2LocalModule(nn.Module):
    """
    Local temporal aggregation (paper, section 3.1): BatchNorm, then a bottleneck around a depth-wise convolution over
    three frames. No activation. Its output starts at zero.
    """

    def __init__(self, config: UniFormerV2Config):
        super().__init__()
        self.norm = nn.BatchNorm1d(config.hidden_size, eps=config.batch_norm_eps)
        self.down = nn.Linear(config.hidden_size, config.local_size)
        self.temporal = nn.Conv3d(
            config.local_size, config.local_size, (3, 1, 1), padding=(1, 0, 0), groups=config.local_size
        )
        self.up = starting(ZERO, nn.Linear(config.local_size, config.hidden_size))

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        normalised = self.norm(patches.flatten(0, 2)).view(patches.shape)  # (batch, frames, patches, hidden)
        reduced = (
            apply_to_tokens(self.down, normalised).unsqueeze(3).permute(0, 4, 1, 2, 3)
        )  # (batch, local, frames, patches, 1)
        return apply_to_tokens(self.up, self.temporal(reduced).permute(0, 2, 3, 4, 1).squeeze(3))


class _UniFormerV2Layer(GradientCheckpointingLayer):
    """CLIP's pre-norm block over the tokens of each frame, with local modules before its attention and its MLP."""

    def __init__(self, config: UniFormerV2Config, drop_path_rate: float):
        super().__init__()
        self.local1 = _UniFormerV2LocalModule(config) if config.num_local_modules > 0 else None
        self.norm1 = UniFormerV2LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = _UniFormerV2SelfAttention(config)
        self.local2 = _UniFormerV2LocalModule(config) if config.num_local_modules > 1 else None
        self.norm2 = UniFormerV2LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = _UniFormerV2MLP(config)
        self.drop_path = StochasticDepth(drop_path_rate, "row")

    def forward(self, hidden_states: torch.Tensor, grid: Grid, **kwargs: Unpack[TransformersKwargs]) -> torch.Tensor:
        hidden_states = self._mix_frames(self.local1, hidden_states, grid)
        hidden_states = hidden_states + self.drop_path(self._attend(hidden_states, grid, **kwargs))
        hidden_states = self._mix_frames(self.local2, hidden_states, grid)
        return hidden_states + self.drop_path(apply_mlp(self._transform, hidden_states))

    def _transform(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.mlp(self.norm2(tokens))

    def _attend(self, hidden_states: torch.Tensor, grid: Grid, **kwargs: Any) -> torch.Tensor:
        """Attention within each frame. What it works on ends with this method and not with the block."""
        by_frame = self.norm1(hidden_states).unflatten(1, (grid[0], -1)).flatten(0, 1)  # (batch * frames, tokens, h)
        return self.attention(by_frame, **kwargs)[0].reshape(hidden_states.shape)

    def _mix_frames(self, local: nn.Module | None, hidden_states: torch.Tensor, grid: Grid) -> torch.Tensor:
        """Residual local module on the patches; class tokens are unchanged."""
        if local is None:
            return hidden_states
        tokens = hidden_states.unflatten(1, (grid[0], -1))
        class_tokens, patches = tokens[:, :, :1], tokens[:, :, 1:]
        patches = patches + self.drop_path(local(patches))
        return torch.cat((class_tokens, patches), dim=2).flatten(1, 2)


class _UniFormerV2GlobalBlock(GradientCheckpointingLayer):
    """One step of the query: attention over the clip's tokens, with positions from a convolution, then an MLP."""

    def __init__(self, config: UniFormerV2Config, dropout: float, drop_path_rate: float):
        super().__init__()
        width = config.hidden_size
        self.dynamic_position = starting(BIAS_AT_ZERO, nn.Conv3d(width, width, 3, padding=1, groups=width))
        self.norm_query = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.norm_tokens = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = _UniFormerV2CrossAttention(config)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = _UniFormerV2GlobalMLP(config, dropout)
        self.drop_path = StochasticDepth(drop_path_rate, "row")

    def forward(
        self, query: torch.Tensor, hidden_states: torch.Tensor, grid: Grid, **kwargs: Unpack[TransformersKwargs]
    ) -> torch.Tensor:
        tokens = self.norm_tokens(self._with_positions(hidden_states, grid))
        context, _ = self.attention(self.norm_query(query), tokens, **kwargs)
        query = query + self.drop_path(context)
        return query + self.drop_path(self.mlp(self.norm2(query)))

    def _with_positions(self, hidden_states: torch.Tensor, grid: Grid) -> torch.Tensor:
        """Tokens of the clip, `(batch, frames * tokens, hidden)`, with positions added to the patches."""
        tokens = hidden_states.unflatten(1, (grid[0], -1))
        class_tokens, patches = tokens[:, :, :1], tokens[:, :, 1:]
        patches = patches + self._positions(patches.unflatten(2, grid[1:])).flatten(2, 3)
        return torch.cat((class_tokens, patches), dim=2).flatten(1, 2)

    def _positions(self, patches: torch.Tensor) -> torch.Tensor:
        """
        Depth-wise 3 x 3 x 3 convolution over the patches of a clip, `(batch, frames, height, width, hidden)`. It takes
        tokens with channels last: measured four times as fast on a CPU as with channels first, and faster than three
        2-D convolutions.
        """
        return self.dynamic_position(patches.contiguous().permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)


class _UniFormerV2Query(nn.Module):
    """The learnt query that enters the first global block."""

    def __init__(self, hidden_size: int):
        super().__init__()
        self.embedding = nn.Parameter(torch.zeros(1, 1, hidden_size))

    def forward(self, batch_size: int) -> torch.Tensor:
        return self.embedding.repeat(batch_size, 1, 1)


class _UniFormerV2Gate(nn.Module):
    """
    Mix of query and mean class token, `(1 - sigmoid(weight)) * query + sigmoid(weight) * class_token`, each channel
    with its own weight. It starts at one half each. The paper's alpha is one minus this sigmoid.
    """

    def __init__(self, hidden_size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(hidden_size))

    def forward(self, query: torch.Tensor, class_token: torch.Tensor) -> torch.Tensor:
        share = self.weight.sigmoid()
        return (1 - share) * query + share * class_token


class _UniFormerV2Encoder(nn.Module):
    """The image tower and, beside it, the global blocks."""

    def __init__(self, config: UniFormerV2Config):
        super().__init__()
        rates = drop_path_rates(config.drop_path_rate, config.num_hidden_layers)
        self.layers = nn.ModuleList(_UniFormerV2Layer(config, rate) for rate in rates)
        self.followed_by_global = {layer: index for index, layer in enumerate(config.global_layers or ())}
        rates = drop_path_rates(config.global_drop_path_rate, len(self.followed_by_global))
        self.global_blocks = nn.ModuleList(
            _UniFormerV2GlobalBlock(config, dropout, rate) for dropout, rate in zip(config.global_dropouts, rates)
        )
        self.query = _UniFormerV2Query(config.hidden_size)

    def forward(
        self, hidden_states: torch.Tensor, grid: Grid, **kwargs: Unpack[TransformersKwargs]
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        query, queries = self.query(hidden_states.shape[0]), []
        for index, layer in enumerate(self.layers):
            hidden_states = layer(hidden_states, grid, **kwargs)
            if index in self.followed_by_global:
                block = self.global_blocks[self.followed_by_global[index]]
                query = block(query, hidden_states, grid, **kwargs)
                queries.append(query.squeeze(1))
        return hidden_states, tuple(queries)


class UniFormerV2PreTrainedModel(KeepsStatistics, PreTrainedModel):
    """Weight initialisation of the official code, freezing, and what transformers and a trainer must know."""

    config: UniFormerV2Config
    base_model_prefix = "uniformer_v2"
    main_input_name = "pixel_values"
    input_modalities = ("video",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["_UniFormerV2Embeddings", "_UniFormerV2Layer", "_UniFormerV2GlobalBlock"]
    _input_embed_layer = "patch_embeddings"
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {
        "hidden_states": _UniFormerV2Layer,
        "attentions": OutputRecorder(_UniFormerV2SelfAttention, index=1),
        "cross_attentions": OutputRecorder(_UniFormerV2CrossAttention, index=1),
    }

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        start = start_of(module)
        if start == ZERO and isinstance(module, nn.Linear):
            init.zeros_(module.weight)
            init.zeros_(module.bias)
        elif start == PART_OF_QKV and isinstance(module, nn.Linear):
            bound = math.sqrt(6.0 / (module.in_features + 3 * module.out_features))  # Xavier on the fused matrix
            init.uniform_(module.weight, -bound, bound)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Linear | nn.Conv3d):
            init_as_torch(module)
            if start == XAVIER:
                init.xavier_uniform_(module.weight)
            elif start == BIAS_AT_ZERO and module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, _UniFormerV2Embeddings):
            std = self.config.hidden_size**-0.5
            init.normal_(module.class_embedding, std=std)
            init.normal_(module.position_embedding, std=std)
        elif isinstance(module, _UniFormerV2Query):
            init.zeros_(module.embedding)
        elif isinstance(module, _UniFormerV2Gate):
            init.zeros_(module.weight)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As in transformers. Loading makes new parameters, so `config.freeze_image_tower` is applied afterwards."""
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.set_image_tower_trainable(not model.config.freeze_image_tower)
        return loaded

    @classmethod
    def from_image_vit(
        cls,
        image_model: Source,
        config: UniFormerV2Config | None = None,
        *,
        num_attention_heads: int | None = None,
        **fields: Any,
    ) -> Any:
        """
        Make a model that starts from an image ViT, as all official ones start from CLIP. Embeddings and blocks are the
        tower's; its patch kernel is the middle frame of the temporal one. Local modules, global blocks and classifier
        are newly initialised; the outputs of the modules and blocks start at zero.

        Args:
            image_model (`str`, `os.PathLike`, `Mapping[str, Any]` or `nn.Module`):
                A transformers model (`CLIPVisionModel`, `CLIPModel`, `ViTModel`, ...), its folder or Hub id, or a
                state dict or a file of one in the layout of OpenAI's CLIP, of transformers or of timm. Of a whole CLIP
                only the image tower is read.
            config ([`UniFormerV2Config`], *optional*):
                Configuration; the tower must fit it. By default the tower's sizes, changed by `fields`. Positions are
                interpolated if `position_grid` differs from the tower's.
            num_attention_heads (`int`, *optional*):
                Heads of the tower, for a state dict whose heads are not 64 wide.
            fields:
                Fields of the configuration, such as `num_labels`, `num_local_modules` or `temporal_downsample`. For a
                tower that differs from CLIP they must give the difference: `hidden_act="gelu"`,
                `use_pre_layernorm=False`, `layer_norm_eps=...`. A file in OpenAI's layout does not contain the
                activation: for a tower trained by OpenCLIP with GELU, pass `hidden_act="gelu"`.

        Returns:
            The model in float32 and evaluation mode.

        Raises:
            ValueError: `image_model` is not such a tower, or does not fit the configuration.

        Example:

        ```python
        >>> from hf_videovit import UniFormerV2ForVideoClassification

        >>> model = UniFormerV2ForVideoClassification.from_image_vit("openai/clip-vit-base-patch16", num_labels=400)
        ```"""
        heads = config.num_attention_heads if config is not None else num_attention_heads
        tower = read_image_tower(image_model, heads)
        config = tower.config(config, fields)
        model = cls(config)
        tower.load_into(model.base_model, config)
        return model.eval()

    def set_image_tower_trainable(self, trainable: bool) -> None:
        """
        Freeze or unfreeze embeddings and blocks. Local modules are not changed: they are not part of the image model.
        Nor are quantised weights, which have no gradient.

        Args:
            trainable (`bool`):
                Whether the image tower is trained.
        """
        base: UniFormerV2Model = self.base_model  # type: ignore[assignment]
        parts: list[Any] = [base.embeddings]
        for layer in base.encoder.layers:
            parts += [layer.norm1, layer.attention, layer.norm2, layer.mlp]
        for parameter in itertools.chain.from_iterable(part.parameters() for part in parts):
            if parameter.is_floating_point():
                parameter.requires_grad_(trainable)

    def layer_groups(self) -> list[tuple[str, ...]]:
        """
        Prefixes of parameter names a depth, for layer-wise learning-rate decay: embeddings, each block of the image
        tower, the modules beside and above it, and last the classifier (an empty prefix matches every name that no
        earlier depth matches).
        """
        base = "" if isinstance(self, UniFormerV2Model) else f"{self.base_model_prefix}."
        blocks = [(f"{base}encoder.layers.{index}.",) for index in range(self.config.num_hidden_layers)]
        above = ("encoder.global_blocks.", "encoder.query.", "gate.", "layernorm.")
        return [(f"{base}embeddings.",), *blocks, tuple(base + name for name in above), ("",)]

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that do not decay: none; the official recipes also decay position table and query."""
        return set()


class UniFormerV2Model(TracedAsTuple, UniFormerV2PreTrainedModel):
    """
    Image tower, global blocks and their fusion.

    Args:
        config ([`UniFormerV2Config`]):
            Configuration.
    """

    def __init__(self, config: UniFormerV2Config):
        super().__init__(config)
        self.embeddings = _UniFormerV2Embeddings(config)
        self.encoder = _UniFormerV2Encoder(config)
        self.gate = _UniFormerV2Gate(config.hidden_size) if config.use_gate else None
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.set_image_tower_trainable(not config.freeze_image_tower)
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> UniFormerV2ModelOutput:
        r"""
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_frames, num_channels, height, width)`):
                Normalised clips; an even number of frames with `config.temporal_downsample`.

        Returns:
            [`UniFormerV2ModelOutput`]

        Raises:
            ValueError: the shape does not fit the configuration.
        """
        grid = _clip_grid(pixel_values, self.config)
        hidden_states = self.embeddings(pixel_values, grid)  # (batch, frames * tokens, hidden)
        hidden_states, queries = self.encoder(hidden_states, grid, **kwargs)
        fused = queries[-1]
        if self.gate is not None:
            class_tokens = hidden_states.unflatten(1, (grid[0], -1))[:, :, 0]  # (batch, frames, hidden)
            fused = self.gate(fused, class_tokens.mean(dim=1))
        return UniFormerV2ModelOutput(
            last_hidden_state=hidden_states,
            pooler_output=self.layernorm(fused),
            fused_state=fused,
            query_states=queries,
        )


class UniFormerV2ForVideoClassification(VideoClassificationMixin, UniFormerV2PreTrainedModel):
    """
    Fused features, dropout and a linear classifier.

    Args:
        config ([`UniFormerV2Config`]):
            Configuration.
    """

    def __init__(self, config: UniFormerV2Config):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.loss_function = classification_loss
        self.uniformer_v2 = UniFormerV2Model(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()


class UniFormerV2ForActionDetection(ActionDetectionMixin, UniFormerV2PreTrainedModel):
    """
    Scores of actions for each person in a clip: image tower and an action detection head on the patches of its frames.
    By default (`global_feature="pooled"`) the head also sees the fused features of the clip; without them the global
    blocks are idle.

    Args:
        config ([`UniFormerV2Config`]):
            Configuration; `detection_config` describes the head.
    """

    default_head = {"global_feature": "pooled"}

    def __init__(self, config: UniFormerV2Config):
        super().__init__(config)
        self.uniformer_v2 = UniFormerV2Model(config)
        self.add_action_head(config.hidden_size, config.hidden_size)
        self.post_init()

    def has_idle_parameters(self) -> bool:
        """Whether nothing reads the fused features."""
        return self.config.detection_config.global_feature != "pooled"

    def _feature_map(self, pixel_values: torch.Tensor, outputs: Any) -> torch.Tensor:
        """See [`ActionDetectionMixin`]."""
        frames, height, width = _clip_grid(pixel_values, self.config)
        tokens = outputs.last_hidden_state.unflatten(1, (frames, -1))[:, :, 1:]  # without the class tokens
        return tokens.unflatten(2, (height, width)).movedim(-1, 1)


def _clip_grid(pixel_values: torch.Tensor, config: UniFormerV2Config) -> Grid:
    """Frames, height and width of a clip in tokens; ValueError for a shape that does not fit."""
    check_clips(pixel_values, config.num_channels)
    frames, height, width = token_grid(pixel_values, 1, config.patch_size)
    if config.temporal_downsample and frames % 2:
        raise ValueError(
            f"`pixel_values` must have an even number of frames with `temporal_downsample`, got {frames}. Sample or "
            "repeat one more frame."
        )
    return frames // 2 if config.temporal_downsample else frames, height, width


__all__ = [
    "UniFormerV2ForActionDetection",
    "UniFormerV2ForVideoClassification",
    "UniFormerV2Model",
    "UniFormerV2ModelOutput",
    "UniFormerV2PreTrainedModel",
]
