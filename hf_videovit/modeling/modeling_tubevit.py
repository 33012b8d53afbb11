"""
TubeViT ([Piergiovanni et al., 2022](https://huggingface.co/papers/2212.03229)): one plain ViT over the tokens of
several sparse three-dimensional convolutions ("tubes") of different shapes, for images and for videos.

No official code or weights exist. The model follows the paper; choices that the paper leaves open are fields of
[`TubeViTConfig`].
"""

import copy
import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling, ImageClassifierOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .configuration_base import frame_size
from .configuration_tubevit import Tube, TubeViTConfig
from .layers import (
    apply_mlp,
    as_single_views,
    check_pixels,
    classification_loss,
    drop_path_rates,
    eager_attention_forward,
    interpolate_positions,
    merge_single_views,
    scale_to_step,
)
from .modeling_action_detection import ActionDetectionMixin


class TubeViTTube(nn.Module):
    """
    One tube: a strided convolution without padding over the input cropped at its start, then space-to-depth.

    With interpolated kernels it has only a bias of its own.

    Args:
        config ([`TubeViTConfig`]):
            Configuration.
        tube ([`Tube`]):
            Kernel, stride and offset.
    """

    def __init__(self, config: TubeViTConfig, tube: Tube):
        super().__init__()
        self.tube, self.hidden_size = tube, config.hidden_size
        self.window_channels = tube.window_channels(config.hidden_size)
        shape = (self.window_channels, config.num_channels, *tube.kernel)
        self.weight = nn.Parameter(torch.empty(shape)) if config.tube_kernels == "independent" else None
        self.bias = nn.Parameter(torch.zeros(self.window_channels))

    def forward(self, pixel_values: torch.Tensor, kernel: torch.Tensor | None = None) -> torch.Tensor:
        """
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, num_frames, height, width)`):
                A clip that at least one token fits into.
            kernel (`torch.Tensor` of shape `(hidden_size, num_channels, frames, height, width)`, *optional*):
                The shared kernel, for a tube without its own.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_tokens, hidden_size)`, in frame, row, column order.
        """
        weight = self.weight if self.weight is not None else self.resized(kernel)
        frame, row, column = self.tube.offset
        windows = F.conv3d(
            pixel_values[:, :, frame:, row:, column:], weight, self.bias, stride=self.tube.window_stride
        )
        return self._join(windows)

    def resized(self, kernel: torch.Tensor | None) -> torch.Tensor:
        """
        Resize the shared kernel to this tube's size.

        Args:
            kernel (`torch.Tensor` of shape `(hidden_size, num_channels, frames, height, width)`, or `None`):
                The shared kernel.

        Returns:
            `torch.Tensor` of shape `(window_channels, num_channels, *tube.kernel)`, in the kernel's dtype.

        Raises:
            ValueError: `kernel` is `None`.
        """
        if kernel is None:
            raise ValueError("`kernel` must be given for a tube without its own kernel, got None.")
        resized = F.interpolate(
            kernel[: self.window_channels].float(), size=self.tube.kernel, mode="trilinear", align_corners=False
        )
        return resized.to(kernel.dtype)

    def _join(self, windows: torch.Tensor) -> torch.Tensor:
        """Windows `(batch, channels, frames, height, width)` to tokens `(batch, tokens, hidden_size)`."""
        if self.tube.joined > 1:
            counts = [count // factor for count, factor in zip(windows.shape[2:], self.tube.space_to_depth)]
            frames, height, width = (c * f for c, f in zip(counts, self.tube.space_to_depth))
            split = [one for pair in zip(counts, self.tube.space_to_depth) for one in pair]
            windows = windows[:, :, :frames, :height, :width]
            windows = windows.reshape(*windows.shape[:2], *split)  # (batch, channels, t, ft, h, fh, w, fw)
            windows = windows.permute(0, 3, 5, 7, 1, 2, 4, 6)  # (batch, ft, fh, fw, channels, t, h, w)
            windows = windows.flatten(1, 4)[:, : self.hidden_size]  # (batch, hidden, t, h, w)
        return windows.flatten(2).transpose(1, 2)


class _TubeViTSharedKernel(nn.Module):
    """The one learnt kernel of `tube_kernels="interpolated"`."""

    def __init__(self, config: TubeViTConfig):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.hidden_size, config.num_channels, *config.base_kernel_size))

    def forward(self) -> torch.Tensor:
        return self.weight  # read by a call, so that hooks can bring an offloaded weight to the device


class _TubeViTClassToken(nn.Module):
    """A learnt first token."""

    def __init__(self, config: TubeViTConfig):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        token = self.token.to(hidden_states.dtype).expand(hidden_states.shape[0], -1, -1)
        return torch.cat((token, hidden_states), dim=1)


class _TubeViTImagePositions(nn.Module):
    """A learnt position table of an image ViT, for tubes of one frame."""

    def __init__(self, config: TubeViTConfig):
        super().__init__()
        height, width = config.image_position_grid or (1, 1)
        self.grid = (height, width)
        self.table = nn.Parameter(torch.zeros(height * width, config.hidden_size))

    def forward(self, grid: tuple[int, int]) -> torch.Tensor:
        """The table for another grid, of shape `(height * width, hidden_size)`."""
        return interpolate_positions(self.table, (1, *self.grid), (1, *grid))


class TubeViTPositions(nn.Module):
    """
    Fixed positions, computed for the size of each input (equations 2 to 4). For a token with centre `(t, x, y)` in
    frames and pixels, `x` down and `y` to the right,

    ```
    for j in range(hidden_size // 6):
        z[6 j : 6 j + 6] += sin(t w[j]), cos(t w[j]), sin(x w[j]), cos(x w[j]), sin(y w[j]), cos(y w[j])
    ```
    Remaining channels are zero. Angles are computed in float64, because positions reach hundreds. Each axis of a tube
    has its own short table, so that few sines are computed.

    Args:
        config ([`TubeViTConfig`]):
            Configuration.
    """

    def __init__(self, config: TubeViTConfig):
        super().__init__()
        self.hidden_size = config.hidden_size
        self.temperature = float(config.position_temperature)
        self.literal = config.position_frequencies == "literal"
        self.middle = config.position_centre == "middle"

    def forward(self, tube: Tube, grid: Sequence[int], device: torch.device) -> torch.Tensor:
        """
        The positions of one tube.

        Args:
            tube ([`Tube`]):
                The tube.
            grid (`tuple[int, int, int]`):
                Its tokens along frames, height and width.
            device (`torch.device`):
                Device of the result.

        Returns:
            `torch.Tensor` of shape `(num_tokens, hidden_size)`, in float32.
        """
        pairs = self.hidden_size // 6
        axes = []
        for axis, table in enumerate(self._axes(tube, grid, device)):  # (count, frequencies, 2)
            shape = [1, 1, 1, pairs, 2]
            shape[axis] = grid[axis]
            axes.append(table.view(shape).expand(*grid, pairs, 2))
        positions = torch.stack(axes, dim=-2)  # (frames, height, width, frequencies, axes, 2)
        positions = positions.reshape(-1, 6 * pairs)
        return F.pad(positions, (0, self.hidden_size - 6 * pairs))

    def _axes(self, tube: Tube, grid: Sequence[int], device: torch.device) -> list[torch.Tensor]:
        """Sines and cosines of the centres of each axis, of shape `(count, hidden_size // 6, 2)`, in float32."""
        # Apple's devices do not support float64.
        maker = torch.device("cpu") if device.type == "mps" else device
        pairs = self.hidden_size // 6
        exponents = torch.arange(pairs, dtype=torch.float64, device=maker) / (1 if self.literal else max(pairs, 1))
        frequencies = self.temperature**-exponents
        tables = []
        for axis, count in enumerate(grid):
            angles = self.centres(tube, axis, count, maker)[:, None] * frequencies
            tables.append(torch.stack((angles.sin(), angles.cos()), dim=-1).float().to(device))
        return tables

    def centres(self, tube: Tube, axis: int, count: int, device: torch.device) -> torch.Tensor:
        """
        Centres of the first tokens along an axis.

        Args:
            tube ([`Tube`]):
                The tube.
            axis (`int`):
                0 for frames, 1 for height, 2 for width.
            count (`int`):
                Number of tokens.
            device (`torch.device`):
                Device of the result; it must support float64.

        Returns:
            `torch.Tensor` of shape `(count,)` in frames or pixels, in float64.
        """
        kernel, stride = tube.kernel[axis], tube.window_stride[axis]
        within = (kernel - 1) / 2 if self.middle else kernel // 2
        joined = (tube.space_to_depth[axis] - 1) / 2 * stride  # from the first of the joined windows to their mean
        steps = torch.arange(count, dtype=torch.float64, device=device)
        return steps * tube.stride[axis] + (tube.offset[axis] + within + joined)


class _TubeViTEmbeddings(nn.Module):
    """Tokens of all tubes one after the other, their positions, and the class token if there is one."""

    def __init__(self, config: TubeViTConfig):
        super().__init__()
        self.tubes = nn.ModuleList(TubeViTTube(config, tube) for tube in config.tube_list)
        self.shared_kernel = _TubeViTSharedKernel(config) if config.tube_kernels == "interpolated" else None
        self.fixed_positions = TubeViTPositions(config)
        self.image_positions = _TubeViTImagePositions(config) if config.image_position_grid else None
        self.class_token = _TubeViTClassToken(config) if config.use_class_token else None
        self.gate_positions = config.gate_positions
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_frames, num_channels, height, width)`):
                Clips; an image is a clip of one frame.

        Returns:
            `tuple`: the encoder's input, and the tokens that a gate adds to a later block's output; both of shape
            `(batch_size, num_tokens, hidden_size)`.
        """
        tokens = self.tokens(pixel_values)
        size = (pixel_values.shape[1], *pixel_values.shape[-2:])
        hidden_states = tokens + self.positions(size, tokens.device).to(tokens.dtype)
        if self.class_token is not None:
            tokens, hidden_states = self.class_token(tokens), self.class_token(hidden_states)
        hidden_states = self.dropout(hidden_states)
        return hidden_states, hidden_states if self.gate_positions else tokens

    def split_shared_kernel(self) -> None:
        """Give each tube its kernel, resized from the shared one, for graphs whose weights do not change."""
        if self.shared_kernel is None:
            return
        for tube in self.tubes:
            if isinstance(tube, TubeViTTube):
                tube.weight = nn.Parameter(tube.resized(self.shared_kernel.weight.detach()), requires_grad=False)
        self.shared_kernel = None

    def fitting(self, size: Sequence[int]) -> list[tuple[TubeViTTube, tuple[int, int, int]]]:
        """
        Tubes that fit into an input.

        Args:
            size (`Sequence[int]`):
                `(frames, height, width)` of the input.

        Returns:
            `list[tuple]`: each tube with the grid of its tokens.
        """
        tubes = [tube for tube in self.tubes if isinstance(tube, TubeViTTube)]
        grids = [(tube, tube.tube.grid(size)) for tube in tubes]
        return [(tube, grid) for tube, grid in grids if min(grid) > 0]

    def tokens(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """
        Tokens before positions are added.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_frames, num_channels, height, width)`):
                Clips.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_tokens, hidden_size)`.

        Raises:
            ValueError: no tube fits into the input.
        """
        kernel = None if self.shared_kernel is None else self.shared_kernel()
        frames, _, height, width = pixel_values.shape[1:]
        fitting = self.fitting((frames, height, width))
        if not fitting:
            kernels = [module.tube.kernel for module in self.tubes if isinstance(module, TubeViTTube)]
            raise ValueError(
                f"`pixel_values` of {frames} frames of {height} x {width} pixels gives no token: no tube fits. The "
                f"kernels are {kernels} (frames, height, width)."
            )
        pixel_values = pixel_values.to(fitting[0][0].bias.dtype).transpose(1, 2)  # (batch, channels, frames, h, w)
        return torch.cat([tube(pixel_values, kernel) for tube, _ in fitting], dim=1)

    def positions(self, size: Sequence[int], device: torch.device) -> torch.Tensor:
        """
        Positions of all tokens.

        Args:
            size (`Sequence[int]`):
                `(frames, height, width)` of the input.
            device (`torch.device`):
                Device of the result.

        Returns:
            `torch.Tensor` of shape `(num_tokens, hidden_size)`.
        """
        parts = []
        for module, grid in self.fitting(size):
            positions = self.fixed_positions(module.tube, grid, device)
            if self.image_positions is not None and module.tube.kernel[0] == 1:
                positions = _with_image_positions(positions, self.image_positions(grid[1:]), grid[0])
            parts.append(positions)
        return torch.cat(parts)


def _with_image_positions(fixed: torch.Tensor, learnt: torch.Tensor, frames: int) -> torch.Tensor:
    """
    Learnt positions `(height * width, hidden)` in space and fixed ones `(frames * height * width, hidden)` in time,
    the latter relative to the first frame: its positions are exactly those of the image ViT.
    """
    fixed = fixed.view(frames, *learnt.shape)
    return (learnt + (fixed - fixed[:1])).flatten(0, 1)


class _TubeViTMultiHeadAttention(nn.Module):
    """Multi-head attention of some tokens to others."""

    def __init__(self, config: TubeViTConfig):
        super().__init__()
        self.config = config
        self.num_heads, self.head_dim = config.num_attention_heads, config.hidden_size // config.num_attention_heads
        self.is_causal = False
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.attention_probs_dropout_prob
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self, queries: torch.Tensor, hidden_states: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        query, key = self.heads(self.q_proj(queries)), self.heads(self.k_proj(hidden_states))
        value = self.heads(self.v_proj(hidden_states))
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
        context = context.reshape(*queries.shape[:2], -1)
        return self.dropout(self.o_proj(context)), probabilities

    def heads(self, states: torch.Tensor) -> torch.Tensor:
        """`(batch, length, hidden)` -> `(batch, heads, length, head_dim)`."""
        return states.view(*states.shape[:2], self.num_heads, self.head_dim).transpose(1, 2)


class _TubeViTAttention(_TubeViTMultiHeadAttention):
    """Self-attention over the tokens of all tubes."""


class _TubeViTMLP(nn.Module):
    def __init__(self, config: TubeViTConfig):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = self.dropout(self.activation(self.fc1(hidden_states)))
        return self.dropout(self.fc2(hidden_states))


class _TubeViTLayer(GradientCheckpointingLayer):
    """Pre-norm block: `y = MSA(LN(z)) + z`, then `MLP(LN(y)) + y`."""

    def __init__(self, config: TubeViTConfig, drop_path_rate: float = 0.0):
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = _TubeViTAttention(config)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = _TubeViTMLP(config)
        self.drop_path = StochasticDepth(drop_path_rate, "row")

    def forward(self, hidden_states: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> torch.Tensor:
        normed = self.norm1(hidden_states)
        context, _ = self.attention(normed, normed, **kwargs)
        hidden_states = hidden_states + self.drop_path(context)
        return hidden_states + self.drop_path(apply_mlp(self._transform, hidden_states))

    def _transform(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.mlp(self.norm2(tokens))


class _TubeViTGate(nn.Module):
    """Adds `tanh(alpha)` times the encoder's input; `alpha` starts at 0, where the output is exactly unchanged."""

    def __init__(self):
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(()))

    def forward(self, hidden_states: torch.Tensor, encoder_input: torch.Tensor) -> torch.Tensor:
        return hidden_states + self.alpha.tanh() * encoder_input.to(hidden_states.device)


class _TubeViTEncoder(nn.Module):
    def __init__(self, config: TubeViTConfig):
        super().__init__()
        self.layers = nn.ModuleList(
            _TubeViTLayer(config, rate) for rate in drop_path_rates(config.drop_path_rate, config.num_hidden_layers)
        )
        self.gate_layer = config.gate_layer
        self.gate = _TubeViTGate() if config.gate_layer else None

    def forward(
        self, hidden_states: torch.Tensor, gated: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> torch.Tensor:
        for number, layer in enumerate(self.layers, start=1):
            hidden_states = layer(hidden_states, **kwargs)
            if self.gate is not None and number == self.gate_layer:
                hidden_states = self.gate(hidden_states, gated)
        return hidden_states


class _TubeViTAttentionPooling(_TubeViTMultiHeadAttention):
    """One learnt query attends to all tokens; with `"attention_mlp"` a residual MLP follows."""

    def __init__(self, config: TubeViTConfig):
        super().__init__(config)
        self.query = nn.Parameter(torch.empty(1, 1, config.hidden_size))
        with_mlp = config.pooling_type == "attention_mlp"
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if with_mlp else None
        self.mlp = _TubeViTMLP(config) if with_mlp else None

    def forward(self, hidden_states: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> torch.Tensor:  # type: ignore[override]
        query = self.query.to(hidden_states.dtype).repeat(hidden_states.shape[0], 1, 1)
        pooled, _ = super().forward(query, hidden_states, **kwargs)
        if self.norm is not None and self.mlp is not None:
            pooled = pooled + self.mlp(self.norm(pooled))
        return pooled[:, 0]

    def weights(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Weight of each token, of shape `(batch, heads, tokens)`; sums to 1 for each head."""
        query, key = (
            self.heads(self.q_proj(self.query.to(hidden_states.dtype))),
            self.heads(self.k_proj(hidden_states)),
        )
        return torch.matmul(query * self.scaling, key.transpose(-2, -1)).softmax(dim=-1)[:, :, 0]


class _TubeViTScorePooling(nn.Module):
    """Sum of the tokens weighted by the softmax of one linear score each; a bias would have no effect."""

    def __init__(self, config: TubeViTConfig):
        super().__init__()
        self.score = nn.Linear(config.hidden_size, 1, bias=False)

    def forward(self, hidden_states: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> torch.Tensor:
        return (self.score(hidden_states).softmax(dim=1) * hidden_states).sum(dim=1)

    def weights(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Weight of each token, of shape `(batch, 1, tokens)`; sums to 1."""
        return self.score(hidden_states).softmax(dim=1).transpose(1, 2)


class TubeViTPreTrainedModel(PreTrainedModel):
    """Weight initialisation, and what transformers and a trainer must know of the models."""

    config: TubeViTConfig
    base_model_prefix = "tubevit"
    main_input_name = "pixel_values"
    input_modalities: tuple[str, ...] = ("video", "image")
    supports_gradient_checkpointing = True
    _no_split_modules = ["_TubeViTEmbeddings", "_TubeViTLayer"]
    _input_embed_layer = "tubes"
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {
        "hidden_states": _TubeViTLayer,
        "attentions": OutputRecorder(_TubeViTAttention, index=1),
    }

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Linear):
            init.trunc_normal_(module.weight, std=self.config.initializer_range)
        elif isinstance(module, TubeViTTube | _TubeViTSharedKernel):
            if module.weight is not None:
                init.trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5)  # by fan-in
            if isinstance(module, TubeViTTube):
                init.zeros_(module.bias)
        elif isinstance(module, _TubeViTAttentionPooling):
            init.xavier_uniform_(module.query)
        elif isinstance(module, _TubeViTClassToken):
            init.trunc_normal_(module.token, std=self.config.initializer_range)
        elif isinstance(module, _TubeViTImagePositions):
            init.trunc_normal_(module.table, std=self.config.initializer_range)
        elif isinstance(module, _TubeViTGate):
            init.zeros_(module.alpha)

    def layer_groups(self) -> list[tuple[str, ...]]:
        """
        Prefixes of parameter names a depth, for layer-wise learning-rate decay and for freezing: embeddings, each
        encoder block, and last everything above the encoder, the gate included.
        """
        base = "" if isinstance(self, TubeViTModel) else f"{self.base_model_prefix}."
        blocks = [(f"{base}encoder.layers.{index}.",) for index in range(self.config.num_hidden_layers)]
        return [(f"{base}embeddings.",), *blocks, ("",)]

    def has_idle_parameters(self) -> bool:
        """Whether some tubes do not fit into clips of the configured length and size; they get no gradient."""
        config = self.config
        height, width = frame_size(config.image_size)
        return min(config.token_counts((config.num_frames, height, width))) == 0

    def no_weight_decay(self) -> set[str]:
        """Names of parameters with more than one axis that do not decay: tokens, positions, the pooling's query."""
        ends = ("class_token.token", "image_positions.table", "pooler.query")
        return {name for name, _ in self.named_parameters() if name.endswith(ends)}


class TubeViTModel(TubeViTPreTrainedModel):
    """
    The encoder with its attention pooling. `last_hidden_state` holds the normalised tokens of all tubes, tube after
    tube; `pooler_output` holds the pooled features.

    Args:
        config ([`TubeViTConfig`]):
            Configuration.
    """

    def __init__(self, config: TubeViTConfig):
        super().__init__(config)
        self.embeddings = _TubeViTEmbeddings(config)
        self.encoder = _TubeViTEncoder(config)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.pooler = (
            _TubeViTScorePooling(config) if config.pooling_type == "score" else _TubeViTAttentionPooling(config)
        )
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> BaseModelOutputWithPooling:
        r"""
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_frames, num_channels, height, width)`):
                Normalised clips of any length and size; or images, `(batch_size, num_channels, height, width)`, which
                are clips of one frame.

        Returns:
            [`BaseModelOutputWithPooling`]: tokens of shape `(batch_size, num_tokens, hidden_size)` and the pooled
            features of shape `(batch_size, hidden_size)`. The hidden state of the gated block is taken before the
            gate.

        Raises:
            ValueError: a wrong number of axes or channels, or no tube fits into the input.
        """
        hidden_states, gated = self.embeddings(_as_clips(pixel_values, self.config))
        hidden_states = self.encoder(hidden_states, gated, **kwargs)
        hidden_states = self.layernorm(hidden_states)
        return BaseModelOutputWithPooling(
            last_hidden_state=hidden_states, pooler_output=self.pooler(hidden_states, **kwargs)
        )


class _TubeViTClassificationModel(TubeViTPreTrainedModel):
    """Encoder, attention pooling, dropout and a linear classifier: the shared part of both classifiers."""

    def __init__(self, config: TubeViTConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.loss_function = classification_loss
        self.tubevit = TubeViTModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def classify(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ImageClassifierOutput:
        """Loss and logits of images (4 axes), clips (5) or several views of each video (6)."""
        outputs = self.tubevit(as_single_views(pixel_values), return_dict=True, **kwargs)
        logits = self.classifier(self.dropout(outputs.pooler_output))  # (batch * views, labels)
        logits = merge_single_views(logits, pixel_values, self.config.view_merging, self.config.problem_type)
        loss = None
        if labels is not None:
            loss = self.loss_function(labels, logits, self.config)
            loss = scale_to_step(loss, labels, num_items_in_batch)
        return ImageClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class TubeViTForVideoClassification(_TubeViTClassificationModel):
    """Classifier of videos."""

    input_modalities = ("video",)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ImageClassifierOutput:
        r"""
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_frames, num_channels, height, width)`):
                Normalised clips, or `(batch_size, num_views, num_frames, num_channels, height, width)` for several
                views of each video, merged as `config.view_merging` says.
            labels (`torch.Tensor` of shape `(batch_size,)` or `(batch_size, num_labels)`, *optional*):
                Class indices or soft labels; with `config.problem_type="multi_label_classification"` a 0/1 matrix.
            num_items_in_batch (`torch.Tensor` or `int`, *optional*):
                Labels of the whole optimiser step; see [`scale_to_step`].

        Returns:
            [`ImageClassifierOutput`]: loss, logits of shape `(batch_size, num_labels)`; hidden states and attentions,
            if asked for, have a first axis of `batch_size * num_views`.

        Raises:
            ValueError: a shape does not fit the configuration.
        """
        if pixel_values.ndim not in (5, 6):
            raise ValueError(
                f"`pixel_values` must have 5 axes, or 6 with several views, got {tuple(pixel_values.shape)}. Use "
                "TubeViTForImageClassification for images."
            )
        return self.classify(pixel_values, labels, num_items_in_batch, **kwargs)


class TubeViTForActionDetection(ActionDetectionMixin, TubeViTPreTrainedModel):
    """
    Scores of actions for each person in a clip: encoder, norm, and an action detection head on one map. It has the
    grid of the tube with most tokens a frame, and is the mean of all tubes' tokens resampled to that grid. By default
    (`global_feature="pooled"`) the head also sees the pooled features of the clip; without them the pooler is idle.

    Args:
        config ([`TubeViTConfig`]):
            Configuration; `detection_config` describes the head.
    """

    default_head = {"global_feature": "pooled"}

    def __init__(self, config: TubeViTConfig):
        super().__init__(config)
        self.tubevit = TubeViTModel(config)
        self.add_action_head(config.hidden_size, config.hidden_size)
        self.post_init()

    def has_idle_parameters(self) -> bool:
        """Whether some tubes do not fit into clips, or nothing reads the pooled features."""
        return super().has_idle_parameters() or self.config.detection_config.global_feature != "pooled"

    @property
    def feature_stride(self) -> int:
        """Pixels between neighbouring places of the densest tube."""
        return min(tube.stride[1] for tube in self.config.tube_list)

    def _feature_map(self, pixel_values: torch.Tensor, outputs: Any) -> torch.Tensor:
        """See [`ActionDetectionMixin`]."""
        grids = [
            grid for _, grid in self.tubevit.embeddings.fitting((pixel_values.shape[1], *pixel_values.shape[-2:]))
        ]
        tokens = outputs.last_hidden_state[:, -sum(math.prod(grid) for grid in grids) :]  # without a class token
        parts = tokens.transpose(1, 2).split([math.prod(grid) for grid in grids], dim=2)
        maps = [part.unflatten(2, grid) for part, grid in zip(parts, grids)]
        _, densest = max([((grid[1] * grid[2], grid[0]), grid) for grid in grids])
        resampled = [
            one if grid == densest else F.interpolate(one, size=densest, mode="trilinear", align_corners=False)
            for one, grid in zip(maps, grids)
        ]
        return torch.stack(resampled).mean(dim=0)


class TubeViTForImageClassification(_TubeViTClassificationModel):
    """
    Classifier of images. Only tubes of one frame are used, and only they are trained: distributed training stops at
    parameters that wait for a gradient. Its weights fit the video classifier.

    Args:
        config ([`TubeViTConfig`]):
            Configuration.
    """

    input_modalities = ("image",)

    def __init__(self, config: TubeViTConfig):
        super().__init__(config)
        self._freeze_long_tubes()

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As in transformers. Loading makes new parameters, so the tubes without use are frozen afterwards."""
        loaded = super().from_pretrained(*args, **kwargs)
        (loaded[0] if isinstance(loaded, tuple) else loaded)._freeze_long_tubes()
        return loaded

    def _freeze_long_tubes(self) -> None:
        """Freeze the tubes that need more than the one frame of an image."""
        for module in tubes_in(self.tubevit):
            if module.tube.grid((1, 1, 1))[0] == 0:
                for parameter in module.parameters():
                    if parameter.is_floating_point():
                        parameter.requires_grad_(False)

    def has_idle_parameters(self) -> bool:
        """Whether some tubes of one frame do not fit into images of the configured size."""
        height, width = frame_size(self.config.image_size)
        grids = [module.tube.grid((1, height, width)) for module in tubes_in(self.tubevit)]
        return any(grid[0] > 0 and min(grid) == 0 for grid in grids)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ImageClassifierOutput:
        r"""
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
                Normalised images.
            labels (`torch.Tensor` of shape `(batch_size,)` or `(batch_size, num_labels)`, *optional*):
                As for [`TubeViTForVideoClassification`].
            num_items_in_batch (`torch.Tensor` or `int`, *optional*):
                Labels of the whole optimiser step; see [`scale_to_step`].

        Returns:
            [`ImageClassifierOutput`]: loss and logits of shape `(batch_size, num_labels)`.

        Raises:
            ValueError: a shape does not fit the configuration, or no tube has one frame.
        """
        if pixel_values.ndim != 4:
            raise ValueError(
                "`pixel_values` must be images of shape (batch_size, num_channels, height, width), "
                f"got {tuple(pixel_values.shape)}."
            )
        return self.classify(pixel_values, labels, num_items_in_batch, **kwargs)


class TubeViTForJointClassification(TubeViTPreTrainedModel):
    """
    One encoder for several data sets of images and videos, with one linear classifier each (`config.datasets`). A
    batch belongs to one data set; the other classifiers are not used and get no gradient.

    Args:
        config ([`TubeViTConfig`]):
            Configuration with `datasets`.

    Raises:
        ValueError: `config.datasets` is empty.

    Example:

    ```python
    >>> import torch
    >>> from hf_videovit import TubeViTConfig, TubeViTForJointClassification

    >>> datasets = {"kinetics-600": {"num_labels": 600}, "imagenet-1k": {"num_labels": 1000}}
    >>> model = TubeViTForJointClassification(TubeViTConfig.from_size("tiny", datasets=datasets))
    >>> model(torch.randn(1, 3, 224, 224), "imagenet-1k").logits.shape
    torch.Size([1, 1000])
    ```"""

    def __init__(self, config: TubeViTConfig):
        super().__init__(config)
        if not config.datasets:
            raise ValueError(
                f"`datasets` of the configuration must name at least one data set, got {config.datasets}."
            )
        self.loss_function = classification_loss
        self.tubevit = TubeViTModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifiers = nn.ModuleDict(
            {name: nn.Linear(config.hidden_size, fields["num_labels"]) for name, fields in config.datasets.items()}
        )
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        dataset: str,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ImageClassifierOutput:
        r"""
        Args:
            pixel_values (`torch.Tensor`):
                Normalised images, clips, or several views of each video: 4, 5 or 6 axes as for the other heads.
            dataset (`str`):
                Data set that the whole batch belongs to, one of `config.datasets`.
            labels (`torch.Tensor` of shape `(batch_size,)` or `(batch_size, num_labels)`, *optional*):
                Labels of that data set.
            num_items_in_batch (`torch.Tensor` or `int`, *optional*):
                Labels of the whole optimiser step; see [`scale_to_step`].

        Returns:
            [`ImageClassifierOutput`]: loss and logits of shape `(batch_size, num_labels)`.

        Raises:
            ValueError: an unknown data set, or a shape does not fit the configuration.
        """
        problem_type = self._fields(dataset)["problem_type"]
        outputs = self.tubevit(as_single_views(pixel_values), return_dict=True, **kwargs)
        logits = self.classifiers[dataset](self.dropout(outputs.pooler_output))  # (batch * views, labels)
        logits = merge_single_views(logits, pixel_values, self.config.view_merging, problem_type)
        loss = None
        if labels is not None:
            loss = self.loss_function(labels, logits, SimpleNamespace(problem_type=problem_type))
            loss = scale_to_step(loss, labels, num_items_in_batch)
        return ImageClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )

    def _fields(self, dataset: str) -> dict[str, Any]:
        """Entry of a data set in the configuration; ValueError for an unknown data set."""
        datasets = self.config.datasets or {}
        if dataset not in datasets:
            raise ValueError(f"`dataset` must be one of {list(datasets)}, got {dataset!r}.")
        return datasets[dataset]

    def single(
        self, dataset: str, images: bool = False
    ) -> TubeViTForVideoClassification | TubeViTForImageClassification:
        """
        The model of one data set, for pipelines, evaluation and fine-tuning. It shares its weights with this model.

        Args:
            dataset (`str`):
                One of `config.datasets`.
            images (`bool`, *optional*, defaults to `False`):
                Whether its inputs are images.

        Returns:
            [`TubeViTForImageClassification`] with `images`, else [`TubeViTForVideoClassification`].

        Raises:
            ValueError: an unknown data set.
        """
        fields = self._fields(dataset)
        config = copy.deepcopy(self.config)
        config.datasets = None
        config.problem_type = fields["problem_type"]
        names = fields.get("labels") or [f"LABEL_{index}" for index in range(fields["num_labels"])]
        config.id2label = dict(enumerate(names))
        config.label2id = {name: index for index, name in enumerate(names)}
        with torch.device("meta"):
            model = (TubeViTForImageClassification if images else TubeViTForVideoClassification)(config)
        model.tubevit = self.tubevit
        model.add_module("classifier", self.classifiers[dataset])
        return model.train(self.training)


def _as_clips(pixel_values: torch.Tensor, config: TubeViTConfig) -> torch.Tensor:
    """Images or clips as clips; ValueError for the wrong number of axes or channels."""
    clips = pixel_values.unsqueeze(1) if pixel_values.ndim == 4 else pixel_values
    if clips.ndim != 5 or clips.shape[2] != config.num_channels:
        raise ValueError(
            "`pixel_values` must have shape (batch_size, num_frames, num_channels, height, width) or (batch_size, "
            f"num_channels, height, width) with {config.num_channels} channels, got {tuple(pixel_values.shape)}."
        )
    check_pixels(pixel_values)
    return clips


def tubes_in(model: TubeViTModel) -> list[TubeViTTube]:
    """
    Tube modules of a model.

    Args:
        model ([`TubeViTModel`]):
            The model.
    """
    return [module for module in model.embeddings.tubes if isinstance(module, TubeViTTube)]


def own_kernel(model: TubeViTModel, module: TubeViTTube) -> torch.Tensor:
    """
    Kernel that a tube uses: its own, or the shared one at its size.

    Args:
        model ([`TubeViTModel`]):
            The model.
        module ([`TubeViTTube`]):
            One of its tubes.

    Returns:
        `torch.Tensor` of shape `(window_channels, num_channels, *tube.kernel)`.
    """
    shared = model.embeddings.shared_kernel
    return module.weight if module.weight is not None else module.resized(None if shared is None else shared.weight)


__all__ = [
    "TubeViTForActionDetection",
    "TubeViTForImageClassification",
    "TubeViTForJointClassification",
    "TubeViTForVideoClassification",
    "TubeViTModel",
    "TubeViTPreTrainedModel",
]
