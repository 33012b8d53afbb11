"""
A plain ActionFormer for THUMOS14 in the form of the official code: channels before steps, convolutions and norms
written out, attention over all pairs of steps with a mask of the window. Names of weights are the official ones.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F


class MaskedConv1D(nn.Module):
    def __init__(self, narrow: int, wide: int, kernel: int, stride: int = 1, groups: int = 1, bias: bool = True):
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv1d(narrow, wide, kernel, stride, kernel // 2, groups=groups, bias=bias)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.conv(x)
        if self.stride > 1:
            mask = F.interpolate(mask.to(x.dtype), size=x.shape[-1], mode="nearest").bool()
        return x * mask.to(x.dtype), mask


class LayerNorm(nn.Module):
    """Over channels `(batch, channels, steps)`."""

    def __init__(self, size: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(1, size, 1)), nn.Parameter(torch.zeros(1, size, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(dim=1, keepdim=True)
        scaled = centred / torch.sqrt(centred.square().mean(dim=1, keepdim=True) + 1e-5)
        return scaled * self.weight + self.bias


class Attention(nn.Module):
    def __init__(self, size: int, heads: int, window: int, stride: int):
        super().__init__()
        self.heads, self.window = heads, window
        for name in ("query", "key", "value"):
            setattr(self, f"{name}_conv", MaskedConv1D(size, size, 3, stride, groups=size, bias=False))
            setattr(self, f"{name}_norm", LayerNorm(size))
            setattr(self, name, nn.Conv1d(size, size, 1))
        self.proj = nn.Conv1d(size, size, 1)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        parts = []
        for name in ("query", "key", "value"):
            one, new_mask = getattr(self, f"{name}_conv")(x, mask)
            one = getattr(self, name)(getattr(self, f"{name}_norm")(one))
            parts.append(one.unflatten(1, (self.heads, -1)).transpose(2, 3))  # (batch, heads, steps, channels)
        query, key, value = parts
        steps = query.shape[2]
        scores = (query * (1 / math.sqrt(query.shape[-1]))) @ key.transpose(2, 3)
        places = torch.arange(steps, device=x.device)
        near = (places[:, None] - places).abs() <= self.window // 2
        allowed = near & new_mask[:, :, None]  # (batch, 1, steps, steps)
        weights = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min).softmax(dim=-1)
        out = (weights @ value).transpose(2, 3).flatten(1, 2)
        return self.proj(out) * new_mask.to(x.dtype), new_mask


class Scale(nn.Module):
    def __init__(self, shape: tuple[int, ...], value: float):
        super().__init__()
        self.scale = nn.Parameter(torch.full(shape, value))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


class Block(nn.Module):
    def __init__(self, size: int, heads: int, window: int, stride: int):
        super().__init__()
        self.ln1, self.ln2 = LayerNorm(size), LayerNorm(size)
        self.attn = Attention(size, heads, window, stride)
        self.pool = nn.MaxPool1d(3, stride, 1) if stride > 1 else nn.Identity()
        self.mlp = nn.Sequential(
            nn.Conv1d(size, 4 * size, 1), nn.GELU(), nn.Dropout(0.0), nn.Conv1d(4 * size, size, 1), nn.Dropout(0.0)
        )
        self.drop_path_attn, self.drop_path_mlp = Scale((1, size, 1), 1e-4), Scale((1, size, 1), 1e-4)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out, new_mask = self.attn(self.ln1(x), mask)
        kept = new_mask.to(x.dtype)
        x = self.pool(x) * kept + self.drop_path_attn(out)
        return x + self.drop_path_mlp(self.mlp(self.ln2(x)) * kept), new_mask


class Backbone(nn.Module):
    def __init__(self, feature_size: int, size: int, heads: int, window: int, branch: int):
        super().__init__()
        self.embd = nn.ModuleList(MaskedConv1D(n, size, 3, bias=False) for n in (feature_size, size))
        self.embd_norm = nn.ModuleList(LayerNorm(size) for _ in range(2))
        self.stem = nn.ModuleList(Block(size, heads, window, 1) for _ in range(2))
        self.branch = nn.ModuleList(Block(size, heads, window, 2) for _ in range(branch))

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        for conv, norm in zip(self.embd, self.embd_norm):
            x = F.relu(norm(conv(x, mask)[0]))
        for block in self.stem:
            x, mask = block(x, mask)
        levels = [(x, mask)]
        for block in self.branch:
            levels.append(block(*levels[-1]))
        return levels


class Neck(nn.Module):
    def __init__(self, size: int, levels: int):
        super().__init__()
        self.fpn_norms = nn.ModuleList(LayerNorm(size) for _ in range(levels))


class Head(nn.Module):
    """A tower with its last convolution under the official name."""

    def __init__(self, size: int, outputs: int, last: str, levels: int):
        super().__init__()
        self.head = nn.ModuleList(MaskedConv1D(size, size, 3, bias=False) for _ in range(2))
        self.norm = nn.ModuleList(LayerNorm(size) for _ in range(2))
        self.last = last
        setattr(self, last, MaskedConv1D(size, outputs, 3))
        if last == "offset_head":
            self.scale = nn.ModuleList(Scale((), 1.0) for _ in range(levels))

    def forward(self, levels: list[tuple[torch.Tensor, torch.Tensor]]) -> list[torch.Tensor]:
        outputs = []
        for number, (x, mask) in enumerate(levels):
            for conv, norm in zip(self.head, self.norm):
                x = F.relu(norm(conv(x, mask)[0]))
            x = getattr(self, self.last)(x, mask)[0]
            outputs.append(F.relu(self.scale[number](x)) if self.last == "offset_head" else x)
        return outputs


class DenseActionFormer(nn.Module):
    """
    The whole network.

    Args:
        feature_size, size, heads, window, branch, num_labels (`int`):
            Sizes.
    """

    def __init__(
        self,
        feature_size: int = 1408,
        size: int = 512,
        heads: int = 4,
        window: int = 19,
        branch: int = 5,
        num_labels: int = 20,
    ):
        super().__init__()
        self.backbone = Backbone(feature_size, size, heads, window, branch)
        self.neck = Neck(size, branch + 1)
        self.cls_head = Head(size, num_labels, "cls_head", branch + 1)
        self.reg_head = Head(size, 2, "offset_head", branch + 1)

    def forward(self, features: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Logits `(batch, points, labels)`, offsets `(batch, points, 2)` and mask `(batch, points)`."""
        levels = self.backbone(features.transpose(1, 2), mask[:, None])
        levels = [(norm(x), kept) for norm, (x, kept) in zip(self.neck.fpn_norms, levels)]
        logits, offsets = (torch.cat(head(levels), dim=2).transpose(1, 2) for head in (self.cls_head, self.reg_head))
        return logits, offsets, torch.cat([kept[:, 0] for _, kept in levels], dim=1)
