"""TimeSformer with divided space-time attention (facebookresearch/TimeSformer), an encoder of LSTCL."""

from typing import Any

import torch
from torch import nn

from .parts import Attention, DropPath, Mlp, rates


class _Block(nn.Module):
    """Attention over time at every place, then over space in every frame; regrouped in memory in between."""

    def __init__(self, dim: int, num_heads: int, hidden: int, drop_path: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, num_heads)
        self.temporal_norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.temporal_attn = Attention(dim, num_heads)
        self.temporal_fc = nn.Linear(dim, dim)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, hidden)

    def forward(self, x: torch.Tensor, frames: int) -> torch.Tensor:
        batch, _, dim = x.shape
        first, patches = x[:, :1], x[:, 1:]
        places = patches.shape[1] // frames
        series = patches.reshape(batch * places, frames, dim)
        residual = self.drop_path(self.temporal_attn(self.temporal_norm1(series)))
        residual = self.temporal_fc(residual.reshape(batch, places * frames, dim))
        patches = patches + residual

        copies = first.repeat(1, frames, 1).reshape(batch * frames, 1, dim)
        images = patches.reshape(batch, places, frames, dim).permute(0, 2, 1, 3).reshape(batch * frames, places, dim)
        images = torch.cat((copies, images), 1)
        residual = self.drop_path(self.attn(self.norm1(images)))
        of_first = residual[:, 0].reshape(batch, frames, dim).mean(1, keepdim=True)
        of_patches = residual[:, 1:].reshape(batch, frames, places, dim).permute(0, 2, 1, 3)
        of_patches = of_patches.reshape(batch, places * frames, dim)
        x = torch.cat((first, patches), 1) + torch.cat((of_first, of_patches), 1)
        return x + self.drop_path(self.mlp(self.norm2(x)))


class _PatchEmbed(nn.Module):
    def __init__(self, config: Any):
        super().__init__()
        size = config.patch_size
        self.proj = nn.Conv2d(config.num_channels, config.hidden_size, kernel_size=size, stride=size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.permute(0, 2, 1, 3, 4).reshape(-1, x.shape[1], *x.shape[3:])
        return self.proj(x).flatten(2).transpose(1, 2)


class TimeSformer(nn.Module):
    """
    The classifier.

    Args:
        config ([`LstclConfig`]):
            Sizes.
    """

    def __init__(self, config: Any):
        super().__init__()
        dim, places = config.hidden_size, config.position_grid[0] * config.position_grid[1]
        self.patch_embed = _PatchEmbed(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, places + 1, dim))
        self.time_embed = nn.Parameter(torch.zeros(1, config.num_frames, dim))
        drawn = rates(config.drop_path_rate, config.num_hidden_layers)
        sizes = (dim, config.num_attention_heads, config.intermediate_size)
        self.blocks = nn.ModuleList(_Block(*sizes, rate) for rate in drawn)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, config.num_labels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, _, frames = x.shape[:3]
        x = self.patch_embed(x)
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1) + self.pos_embed
        first, places, dim = x[:batch, :1], x.shape[1] - 1, x.shape[2]
        x = x[:, 1:].reshape(batch, frames, places, dim).permute(0, 2, 1, 3).reshape(batch * places, frames, dim)
        x = x + self.time_embed
        x = torch.cat((first, x.reshape(batch, places * frames, dim)), dim=1)
        for block in self.blocks:
            x = block(x, frames)
        return self.head(self.norm(x)[:, 0])
