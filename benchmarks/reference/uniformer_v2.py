"""
UniFormerV2 (OpenGVLab/UniFormerV2): CLIP's tower on tokens `(length, clips * frames, dim)`, local modules, and global
blocks with an attention of their own.
"""

import math
from collections import OrderedDict
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from .parts import DropPath, rates


class _LayerNorm(nn.LayerNorm):
    """CLIP's: computed in float32."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.type(torch.float32)).type(x.dtype)


class _QuickGELU(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(1.702 * x)


def _mlp(dim: int, hidden: int, dropout: float | None = None) -> nn.Sequential:
    layers: dict[str, nn.Module] = {"c_fc": nn.Linear(dim, hidden), "gelu": _QuickGELU()}
    if dropout is not None:
        layers["dropout"] = nn.Dropout(dropout)
    layers["c_proj"] = nn.Linear(hidden, dim)
    return nn.Sequential(OrderedDict(layers))


class _Local(nn.Module):
    """Local module on patches `(clips, dim, frames, height, width)`."""

    def __init__(self, config: Any):
        super().__init__()
        dim, reduced = config.hidden_size, config.local_size
        self.pos_embed = nn.Sequential(
            nn.BatchNorm3d(dim),
            nn.Conv3d(dim, reduced, 1),
            nn.Conv3d(reduced, reduced, (3, 1, 1), padding=(1, 0, 0), groups=reduced),
            nn.Conv3d(reduced, dim, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pos_embed(x)


class _ResidualBlock(nn.Module):
    def __init__(self, config: Any, drop_path: float):
        super().__init__()
        dim = config.hidden_size
        self.drop_path = DropPath(drop_path)
        self.lmhra1 = _Local(config) if config.num_local_modules > 0 else None
        self.lmhra2 = _Local(config) if config.num_local_modules > 1 else None
        self.attn = nn.MultiheadAttention(dim, config.num_attention_heads)
        self.ln_1 = _LayerNorm(dim)
        self.mlp = _mlp(dim, config.intermediate_size)
        self.ln_2 = _LayerNorm(dim)

    def forward(self, x: torch.Tensor, frames: int) -> torch.Tensor:
        x = self.mix(self.lmhra1, x, frames)
        normed = self.ln_1(x)
        x = x + self.drop_path(self.attn(normed, normed, normed, need_weights=False)[0])
        x = self.mix(self.lmhra2, x, frames)
        return x + self.drop_path(self.mlp(self.ln_2(x)))

    def mix(self, local: nn.Module | None, x: torch.Tensor, frames: int) -> torch.Tensor:
        if local is None:
            return x
        length, images, dim = x.shape
        side = math.isqrt(length - 1)
        patches = x[1:].view(side, side, images // frames, frames, dim).permute(2, 4, 3, 0, 1).contiguous()
        patches = patches + self.drop_path(local(patches))
        patches = patches.permute(3, 4, 0, 2, 1).reshape(length - 1, images, dim)
        return torch.cat([x[:1], patches], dim=0)


class _Extractor(nn.Module):
    """Global block: attention of one query over all tokens of the clip."""

    def __init__(self, config: Any, dropout: float, drop_path: float):
        super().__init__()
        dim = config.hidden_size
        self.num_heads = config.global_num_attention_heads or config.num_attention_heads
        self.drop_path = DropPath(drop_path)
        self.attn = nn.MultiheadAttention(dim, self.num_heads)
        self.ln_1 = nn.LayerNorm(dim)
        self.mlp = _mlp(dim, config.global_intermediate_size or 4 * dim, dropout)
        self.ln_2 = nn.LayerNorm(dim)
        self.ln_3 = nn.LayerNorm(dim)

    def attention(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        dim, heads = x.shape[-1], self.num_heads
        weight, bias = self.attn.in_proj_weight, self.attn.in_proj_bias
        q = F.linear(x, weight[:dim], bias[:dim])
        k = F.linear(y, weight[dim : 2 * dim], bias[dim : 2 * dim])
        v = F.linear(y, weight[2 * dim :], bias[2 * dim :])
        (queries, batch, _), keys = q.shape, k.shape[0]
        q = q.view(queries, batch, heads, -1).permute(1, 2, 0, 3)
        k = k.view(keys, batch, heads, -1).permute(1, 2, 0, 3)
        v = v.view(keys, batch, heads, -1).permute(1, 2, 0, 3)
        probabilities = (q @ k.transpose(-1, -2) / (dim // heads) ** 0.5).softmax(-1)
        out = (probabilities @ v).permute(2, 0, 1, 3).flatten(2)
        return self.attn.out_proj(out)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x = x + self.drop_path(self.attention(self.ln_1(x), self.ln_3(y)))
        return x + self.drop_path(self.mlp(self.ln_2(x)))


class _Transformer(nn.Module):
    def __init__(self, config: Any):
        super().__init__()
        dim, count = config.hidden_size, len(config.global_layers)
        self.return_list = list(config.global_layers)
        drawn = rates(config.drop_path_rate, config.num_hidden_layers)
        self.resblocks = nn.ModuleList(_ResidualBlock(config, rate) for rate in drawn)
        self.temporal_cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.dpe = nn.ModuleList(nn.Conv3d(dim, dim, 3, 1, 1, groups=dim) for _ in range(count))
        drawn = rates(config.global_drop_path_rate, count)
        pairs = zip(config.global_dropouts, drawn)
        self.dec = nn.ModuleList(_Extractor(config, dropout, rate) for dropout, rate in pairs)
        self.balance = nn.Parameter(torch.zeros(dim))
        self.proj = nn.Sequential(
            nn.LayerNorm(dim), nn.Dropout(config.classifier_dropout), nn.Linear(dim, config.num_labels)
        )

    def forward(self, x: torch.Tensor, frames: int) -> torch.Tensor:
        length, images, dim = x.shape
        batch, side = images // frames, math.isqrt(length - 1)
        query = self.temporal_cls_token.repeat(1, batch, 1)
        step = 0
        for index, block in enumerate(self.resblocks):
            x = block(x, frames)
            if index in self.return_list:
                features = x.view(length, batch, frames, dim).clone()
                patches = features[1:].permute(1, 3, 2, 0).reshape(batch, dim, frames, side, side)
                added = self.dpe[step](patches.clone()).view(batch, dim, frames, length - 1).permute(3, 0, 2, 1)
                features[1:] = features[1:] + added
                features = features.permute(2, 0, 1, 3).flatten(0, 1)
                query = self.dec[step](query, features)
                step += 1
        share = self.balance.sigmoid()
        mean = x.view(length, batch, frames, dim)[0].mean(1)
        return self.proj((1 - share) * query[0] + share * mean)


class UniFormerV2(nn.Module):
    """
    The classifier.

    Args:
        config ([`UniFormerV2Config`]):
            Sizes.
    """

    def __init__(self, config: Any):
        super().__init__()
        dim, patch = config.hidden_size, config.patch_size
        downsamples = config.temporal_downsample
        frames = config.temporal_kernel_size if downsamples else 1
        self.conv1 = nn.Conv3d(
            config.num_channels,
            dim,
            (frames, patch, patch),
            (2 if downsamples else 1, patch, patch),
            (frames // 2, 0, 0),
            bias=False,
        )
        height, width = config.patch_grid()
        self.class_embedding = nn.Parameter(torch.randn(dim) * dim**-0.5)
        self.positional_embedding = nn.Parameter(torch.randn(height * width + 1, dim) * dim**-0.5)
        self.ln_pre = _LayerNorm(dim)
        self.transformer = _Transformer(config)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv1(x)
        batch, dim, frames, height, width = x.shape
        x = x.permute(0, 2, 3, 4, 1).reshape(batch * frames, height * width, dim)
        first = self.class_embedding + torch.zeros(x.shape[0], 1, dim, dtype=x.dtype, device=x.device)
        x = torch.cat([first, x], dim=1) + self.positional_embedding
        x = self.ln_pre(x).permute(1, 0, 2)
        return self.transformer(x, frames)
