"""UniFormer for images and videos (Sense-X/UniFormer): channels first throughout, convolutions with kernels of one."""

from typing import Any

import torch
from torch import nn

from .parts import Attention, DropPath, Mlp, rates


def _conv(video: bool, *sizes: int, time: tuple[int, int, int] | None = None, **kwargs: Any) -> nn.Module:
    """A 2-D or 3-D convolution; `time` holds its kernel, stride and padding in time."""
    channels_in, channels_out, kernel, stride, padding = sizes
    if not video:
        return nn.Conv2d(channels_in, channels_out, kernel, stride, padding, **kwargs)
    kernels, strides, paddings = time or (kernel, stride, padding)
    return nn.Conv3d(
        channels_in,
        channels_out,
        (kernels, kernel, kernel),
        (strides, stride, stride),
        (paddings, padding, padding),
        **kwargs,
    )


class _ConvMlp(nn.Module):
    def __init__(self, video: bool, dim: int, hidden: int):
        super().__init__()
        self.fc1 = _conv(video, dim, hidden, 1, 1, 0)
        self.act = nn.GELU()
        self.fc2 = _conv(video, hidden, dim, 1, 1, 0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.act(self.fc1(x)))


class _ConvBlock(nn.Module):
    def __init__(self, video: bool, dim: int, hidden: int, drop_path: float):
        super().__init__()
        norm = nn.BatchNorm3d if video else nn.BatchNorm2d
        self.pos_embed = _conv(video, dim, dim, 3, 1, 1, groups=dim)
        self.norm1 = norm(dim)
        self.conv1 = _conv(video, dim, dim, 1, 1, 0)
        self.conv2 = _conv(video, dim, dim, 1, 1, 0)
        self.attn = _conv(video, dim, dim, 5, 1, 2, groups=dim)
        self.drop_path = DropPath(drop_path)
        self.norm2 = norm(dim)
        self.mlp = _ConvMlp(video, dim, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.pos_embed(x)
        x = x + self.drop_path(self.conv2(self.attn(self.conv1(self.norm1(x)))))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class _AttentionBlock(nn.Module):
    def __init__(self, video: bool, dim: int, hidden: int, num_heads: int, drop_path: float):
        super().__init__()
        self.pos_embed = _conv(video, dim, dim, 3, 1, 1, groups=dim)
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, num_heads)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.pos_embed(x)
        shape = x.shape
        x = x.flatten(2).transpose(1, 2)
        x = x + self.drop_path(self.attn(self.norm1(x)))
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        return x.transpose(1, 2).reshape(shape)


class _PatchEmbed(nn.Module):
    def __init__(self, video: bool, channels_in: int, channels_out: int, first: bool):
        super().__init__()
        size = 4 if first else 2
        self.proj = _conv(video, channels_in, channels_out, size, size, 0, time=(3, 2, 1) if first else (1, 1, 0))
        self.norm = nn.LayerNorm(channels_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.proj(x)
        shape = x.shape
        x = self.norm(x.flatten(2).transpose(1, 2))
        return x.reshape(shape[0], *shape[2:], -1).movedim(-1, 1).contiguous()


class UniFormer(nn.Module):
    """
    The classifier of images or of clips.

    Args:
        config ([`UniFormerConfig`]):
            Sizes, with patch embeddings as stem and without layer scale and pruning.
    """

    def __init__(self, config: Any):
        super().__init__()
        video, widths = config.modality == "video", config.hidden_sizes
        drawn = rates(config.drop_path_rate, sum(config.depths))
        for stage, (dim, depth) in enumerate(zip(widths, config.depths)):
            before = widths[stage - 1] if stage else config.num_channels
            setattr(self, f"patch_embed{stage + 1}", _PatchEmbed(video, before, dim, not stage))
            stage_rates, drawn = drawn[:depth], drawn[depth:]
            hidden = config.mlp_size(stage)
            blocks = [
                _ConvBlock(video, dim, hidden, rate)
                if stage < 2
                else _AttentionBlock(video, dim, hidden, config.num_heads(stage), rate)
                for rate in stage_rates
            ]
            setattr(self, f"blocks{stage + 1}", nn.ModuleList(blocks))
        self.norm = (nn.BatchNorm3d if video else nn.BatchNorm2d)(widths[-1])
        self.head = nn.Linear(widths[-1], config.num_labels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for stage in range(1, 5):
            x = getattr(self, f"patch_embed{stage}")(x)
            for block in getattr(self, f"blocks{stage}"):
                x = block(x)
        return self.head(self.norm(x).flatten(2).mean(-1))
