"""
TubeViT as the paper describes it; the authors released no code. A convolution a tube, space-to-depth, positions
computed from the size of the input, a plain ViT, attention pooling.
"""

import re
from typing import Any

import torch
from torch import nn

from .parts import Block, rates


class _Tube(nn.Module):
    """One tube: the input cropped at its offset, a strided convolution, neighbours joined along the channels."""

    def __init__(self, config: Any, tube: Any):
        super().__init__()
        self.tube = tube
        channels = tube.window_channels(config.hidden_size)
        self.proj = nn.Conv3d(config.num_channels, channels, tube.kernel, stride=tube.window_stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        frame, row, column = self.tube.offset
        x = self.proj(x[:, :, frame:, row:, column:])
        time, high, wide = self.tube.space_to_depth
        counts = [size // factor for size, factor in zip(x.shape[2:], self.tube.space_to_depth)]
        x = x[:, :, : counts[0] * time, : counts[1] * high, : counts[2] * wide]
        x = x.reshape(*x.shape[:2], counts[0], time, counts[1], high, counts[2], wide)
        return x.permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(x.shape[0], counts[0] * counts[1] * counts[2], -1)


class PlainTubeViT(nn.Module):
    """
    The classifier.

    Args:
        config ([`TubeViTConfig`]):
            Sizes and tubes.
    """

    def __init__(self, config: Any):
        super().__init__()
        self.config, dim = config, config.hidden_size
        self.tubes = nn.ModuleList(_Tube(config, tube) for tube in config.tube_list)
        drawn = rates(config.drop_path_rate, config.num_hidden_layers)
        sizes = (dim, config.num_attention_heads, config.intermediate_size, config.layer_norm_eps)
        self.blocks = nn.ModuleList(Block(*sizes, rate) for rate in drawn)
        self.norm = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.query = nn.Parameter(torch.empty(1, 1, dim))
        self.pool = nn.MultiheadAttention(dim, config.num_attention_heads, batch_first=True)
        self.head = nn.Linear(dim, config.num_labels)
        nn.init.xavier_uniform_(self.query)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = x.shape[2:]
        tubes = [tube for tube in self.tubes if min(tube.tube.grid(size)) > 0]
        positions = torch.cat([self.positions(tube.tube, tube.tube.grid(size)) for tube in tubes])
        x = torch.cat([tube(x) for tube in tubes], dim=1) + positions.type_as(x)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        pooled, _ = self.pool(self.query.repeat(x.shape[0], 1, 1), x, x, need_weights=False)
        return self.head(pooled[:, 0])

    def positions(self, tube: Any, grid: tuple[int, int, int]) -> torch.Tensor:
        """Sines and cosines of the centre of every token, `(tokens, dim)`."""
        dim, pairs = self.config.hidden_size, self.config.hidden_size // 6
        frequencies = self.config.position_temperature ** (-torch.arange(pairs, dtype=torch.float64) / pairs)
        centres = []
        for axis, count in enumerate(grid):
            joined = (tube.space_to_depth[axis] - 1) / 2 * tube.window_stride[axis]
            start = tube.offset[axis] + tube.kernel[axis] // 2 + joined
            centres.append(start + torch.arange(count, dtype=torch.float64) * tube.stride[axis])
        places = torch.cartesian_prod(*centres).reshape(-1, 3, 1) * frequencies
        table = torch.stack((places.sin(), places.cos()), dim=-1).permute(0, 2, 1, 3).reshape(len(places), -1)
        return torch.cat((table, table.new_zeros(len(places), dim - table.shape[1])), dim=1).float()

    def our_state(self) -> dict[str, torch.Tensor]:
        """Weights by the names of [`TubeViTForVideoClassification`], for there is no official layout to convert."""
        state: dict[str, torch.Tensor] = {}
        for name, tensor in self.state_dict().items():
            fused = re.fullmatch(r"(?:blocks\.(\d+)\.attn\.qkv\.|pool\.in_proj_)(weight|bias)", name)
            if fused is not None:
                start = "pooler" if fused[1] is None else f"encoder.layers.{fused[1]}.attention"
                state |= {f"tubevit.{start}.{q}_proj.{fused[2]}": part for q, part in zip("qkv", tensor.chunk(3))}
                continue
            for pattern, ours in NAMES:
                name = re.sub(pattern, ours, name)
            state[name] = tensor
        return state


NAMES = (
    (r"^blocks\.(\d+)\.attn\.proj\.", r"tubevit.encoder.layers.\1.attention.o_proj."),
    (r"^blocks\.(\d+)\.", r"tubevit.encoder.layers.\1."),
    (r"^tubes\.(\d+)\.proj\.", r"tubevit.embeddings.tubes.\1."),
    (r"^norm\.", "tubevit.layernorm."),
    (r"^query$", "tubevit.pooler.query"),
    (r"^pool\.out_proj\.", "tubevit.pooler.o_proj."),
    (r"^head\.", "classifier."),
)
