"""
Video Swin (xyzforever/BEVT on mmaction2) as classifier and as BEVT's pretraining model of clips, and the divided
design for LSTCL, which has no official code: windows within frames after attention over time.
"""

import re
from functools import reduce
from operator import mul
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from .parts import Attention, DropPath, Mlp, rates


Size3 = tuple[int, int, int]


def partition(x: torch.Tensor, window: Size3) -> torch.Tensor:
    """Map `(batch, frames, height, width, dim)` to windows `(windows, places, dim)`."""
    batch, frames, height, width, dim = x.shape
    x = x.view(
        *(batch, frames // window[0], window[0], height // window[1], window[1], width // window[2], window[2], dim)
    )
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).contiguous().view(-1, reduce(mul, window), dim)


def merge(windows: torch.Tensor, window: Size3, shape: tuple[int, ...]) -> torch.Tensor:
    """The inverse of `partition`."""
    batch, frames, height, width = shape
    x = windows.view(batch, frames // window[0], height // window[1], width // window[2], *window, -1)
    return x.permute(0, 1, 4, 2, 5, 3, 6, 7).contiguous().view(batch, frames, height, width, -1)


def clipped(grid: tuple[int, ...], window: Size3, shift: Size3) -> tuple[Size3, Size3]:
    """A window no larger than the grid, and no shift where it fills the grid."""
    pairs = [(size, 0) if size <= side else (side, one) for size, side, one in zip(grid, window, shift)]
    (a, d), (b, e), (c, f) = pairs
    return (a, b, c), (d, e, f)


def shift_mask(grid: tuple[int, ...], window: Size3, shift: Size3, device: torch.device) -> torch.Tensor:
    """Mask of every window of a padded grid, `(windows, places, places)`: -100 between regions."""
    regions = torch.zeros((1, *grid, 1), device=device)
    count = 0
    cuts = [(slice(-size), slice(-size, -one), slice(-one, None)) for size, one in zip(window, shift)]
    for frames in cuts[0]:
        for rows in cuts[1]:
            for columns in cuts[2]:
                regions[:, frames, rows, columns, :] = count
                count += 1
    places = partition(regions, window).squeeze(-1)
    mask = places.unsqueeze(1) - places.unsqueeze(2)
    return mask.masked_fill(mask != 0, -100.0).masked_fill(mask == 0, 0.0)


class _WindowAttention(nn.Module):
    def __init__(self, dim: int, window: Size3, num_heads: int):
        super().__init__()
        self.num_heads, self.scale = num_heads, (dim // num_heads) ** -0.5
        rows = reduce(mul, (2 * size - 1 for size in window))
        self.relative_position_bias_table = nn.Parameter(torch.zeros(rows, num_heads))
        coordinates = torch.stack(torch.meshgrid(*(torch.arange(size) for size in window), indexing="ij")).flatten(1)
        relative = (coordinates[:, :, None] - coordinates[:, None, :]).permute(1, 2, 0).contiguous()
        for axis, size in enumerate(window):
            relative[:, :, axis] += size - 1
        relative[:, :, 0] *= (2 * window[1] - 1) * (2 * window[2] - 1)
        relative[:, :, 1] *= 2 * window[2] - 1
        self.register_buffer("relative_position_index", relative.sum(-1), persistent=False)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        windows, places, dim = x.shape
        qkv = self.qkv(x).reshape(windows, places, 3, self.num_heads, dim // self.num_heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        scores = q * self.scale @ k.transpose(-2, -1)
        index = self.relative_position_index[:places, :places].reshape(-1)
        bias = self.relative_position_bias_table[index].reshape(places, places, -1).permute(2, 0, 1).contiguous()
        scores = scores + bias.unsqueeze(0)
        if mask is not None:
            count = mask.shape[0]
            scores = scores.view(windows // count, count, self.num_heads, places, places) + mask[None, :, None]
            scores = scores.view(-1, self.num_heads, places, places)
        x = (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(windows, places, dim)
        return self.proj(x)


class _Block(nn.Module):
    def __init__(self, dim: int, num_heads: int, hidden: int, window: Size3, shift: Size3, drop_path: float):
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1 = nn.LayerNorm(dim)
        self.attn = _WindowAttention(dim, window, num_heads)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, hidden)

    def attend(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        batch, *grid, _ = x.shape
        window, shift = clipped(tuple(grid), self.window, self.shift)
        x = self.norm1(x)
        padding = [-side % size for side, size in zip(grid, window)]
        x = F.pad(x, (0, 0, 0, padding[2], 0, padding[1], 0, padding[0]))
        padded = x.shape[1:4]
        shifted = any(shift)
        if shifted:
            x = torch.roll(x, shifts=tuple(-one for one in shift), dims=(1, 2, 3))
        windows = self.attn(partition(x, window), mask if shifted else None)
        x = merge(windows, window, (batch, *padded))
        if shifted:
            x = torch.roll(x, shifts=shift, dims=(1, 2, 3))
        return x[:, : grid[0], : grid[1], : grid[2]].contiguous()

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        x = x + self.drop_path(self.attend(x, mask))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class _DividedBlock(_Block):
    """Attention over time at every place comes first."""

    def __init__(self, dim: int, num_heads: int, *sizes: Any):
        super().__init__(dim, num_heads, *sizes)
        self.temporal_norm1 = nn.LayerNorm(dim)
        self.temporal_attn = Attention(dim, num_heads)
        self.temporal_fc = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        batch, frames, height, width, dim = x.shape
        series = x.permute(0, 2, 3, 1, 4).reshape(-1, frames, dim)
        series = self.temporal_fc(self.drop_path(self.temporal_attn(self.temporal_norm1(series))))
        series = series.reshape(batch, height, width, frames, dim).permute(0, 3, 1, 2, 4)
        return super().forward(x + series, mask)


class _PatchMerging(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(4 * dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.pad(x, (0, 0, 0, x.shape[3] % 2, 0, x.shape[2] % 2))
        parts = [x[:, :, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(parts, -1)))


class _Stage(nn.Module):
    block: type[_Block] = _Block

    def __init__(self, config: Any, stage: int, drawn: list[float]):
        super().__init__()
        dim = config.hidden_sizes[stage]
        self.window = tuple(config.window_size)
        self.shift = tuple(size // 2 for size in self.window)
        sizes = (dim, config.num_attention_heads[stage], config.intermediate_sizes[stage], self.window)
        shifts = [(0, 0, 0), self.shift]
        self.blocks = nn.ModuleList(self.block(*sizes, shifts[i % 2], rate) for i, rate in enumerate(drawn))
        self.downsample = _PatchMerging(dim) if stage < len(config.depths) - 1 else None

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        grid = tuple(x.shape[1:4])
        window, shift = clipped(grid, self.window, self.shift)
        padded = tuple(-(-side // size) * size for side, size in zip(grid, window))
        mask = shift_mask(padded, window, shift, x.device)
        for block in self.blocks:
            x = block(x, mask)
        return x, x if self.downsample is None else self.downsample(x)


class _DividedStage(_Stage):
    block = _DividedBlock


class _PatchEmbed(nn.Module):
    def __init__(self, config: Any):
        super().__init__()
        self.kernel = (config.tubelet_size, config.patch_size, config.patch_size)
        dim = config.hidden_sizes[0]
        self.proj = nn.Conv3d(config.num_channels, dim, kernel_size=self.kernel, stride=self.kernel)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        missing = [-side % size for side, size in zip(x.shape[2:], self.kernel)]
        x = self.proj(F.pad(x, (0, missing[2], 0, missing[1], 0, missing[0])))
        shape = x.shape
        x = self.norm(x.flatten(2).transpose(1, 2))
        return x.view(shape[0], *shape[2:], shape[1])


class _Backbone(nn.Module):
    stage: type[_Stage] = _Stage

    def __init__(self, config: Any):
        super().__init__()
        self.patch_embed = _PatchEmbed(config)
        drawn = rates(config.drop_path_rate, sum(config.depths))
        stages = []
        for index, depth in enumerate(config.depths):
            stages.append(self.stage(config, index, drawn[:depth]))
            drawn = drawn[depth:]
        self.layers = nn.ModuleList(stages)
        self.norm = nn.LayerNorm(config.hidden_sizes[-1])

    def stages(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Output of every stage before merging."""
        outputs = []
        for layer in self.layers:
            output, x = layer(x)
            outputs.append(output)
        return outputs


class VideoSwin(nn.Module):
    """
    The classifier.

    Args:
        config ([`BevtConfig`]):
            Sizes.
    """

    backbone_class: type[_Backbone] = _Backbone

    def __init__(self, config: Any):
        super().__init__()
        self.backbone = self.backbone_class(config)
        self.cls_head = nn.ModuleDict({"fc_cls": nn.Linear(config.hidden_sizes[-1], config.num_labels)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        last = self.backbone.stages(self.backbone.patch_embed(x))[-1]
        maps = self.backbone.norm(last).permute(0, 4, 1, 2, 3)
        return self.cls_head["fc_cls"](F.adaptive_avg_pool3d(maps, 1).flatten(1))


class _DividedBackbone(_Backbone):
    stage = _DividedStage

    def __init__(self, config: Any):
        super().__init__(config)
        frames = -(-config.num_frames // config.tubelet_size)
        self.time_embed = nn.Parameter(torch.zeros(1, frames, config.hidden_sizes[0]))

    def stages(self, x: torch.Tensor) -> list[torch.Tensor]:
        return super().stages(x + self.time_embed[:, :, None, None])


class DividedSwin(VideoSwin):
    """
    The classifier with divided attention.

    Args:
        config ([`LstclConfig`]):
            Sizes.
    """

    backbone_class = _DividedBackbone

    def our_state(self) -> dict[str, torch.Tensor]:
        """Weights by the names of [`LstclForVideoClassification`], for there is no official layout to convert."""
        state = {}
        for name, tensor in self.state_dict().items():
            for pattern, ours in NAMES:
                name = re.sub(pattern, ours, name)
            state[name] = tensor
        return state


NAMES = (
    (r"^cls_head\.fc_cls\.", "classifier."),
    (r"^backbone\.", "lstcl.backbone."),
    (r"patch_embed\.proj\.", "patch_embeddings.projection."),
    (r"patch_embed\.norm\.", "patch_embeddings.norm."),
    (r"time_embed$", "time_embeddings"),
    (r"backbone\.norm\.", "backbone.layernorm."),
    (r"layers\.(\d+)\.blocks\.(\d+)\.", r"encoder.stages.\1.layers.\2."),
    (r"layers\.(\d+)\.downsample\.", r"encoder.stages.\1.merging."),
    (r"temporal_norm1\.", "temporal_norm."),
    (r"temporal_attn\.proj\.", "temporal_attention.o_proj."),
    (r"temporal_attn\.", "temporal_attention."),
    (r"\.attn\.proj\.", ".attention.o_proj."),
    (r"\.attn\.", ".attention."),
)


class VideoSwinPretraining(nn.Module):
    """
    BEVT's video stream: masked patches, decoder over the last two stages, scores of the visual words of every place,
    cross-entropy at the masked ones.

    Args:
        config ([`BevtConfig`]):
            Sizes.
    """

    def __init__(self, config: Any):
        super().__init__()
        self.backbone = _PretrainingBackbone(config)
        self.cls_head = nn.ModuleDict({"lm_head": nn.Linear(config.hidden_sizes[-1], config.vocab_size)})

    def forward(self, x: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        scores = self.cls_head["lm_head"](self.backbone(x, mask))
        frames = labels.shape[1] // mask.shape[1]
        masked = mask.repeat_interleave(frames, dim=1).flatten(1).bool()
        return F.cross_entropy(scores[masked], labels.flatten(1)[masked])


class _PretrainingBackbone(_Backbone):
    def __init__(self, config: Any):
        super().__init__(config)
        size, finer = config.hidden_sizes[-1], config.hidden_sizes[-2]
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.hidden_sizes[0]))
        self.fpn_s = nn.Sequential(nn.ConvTranspose3d(size, size, (1, 2, 2), stride=(1, 2, 2)))
        self.lm_down_st = nn.Sequential(nn.Linear(size + finer, size))
        self.fpn_t = nn.Sequential(nn.ConvTranspose3d(size, size, (2, 1, 1), stride=(2, 1, 1)))

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.patch_embed(x)
        hidden = F.interpolate(mask.float().unsqueeze(1), size=x.shape[1:4], mode="nearest").squeeze(1).unsqueeze(-1)
        x = x * (1 - hidden) + self.mask_token * hidden
        *_, third, last = self.stages(x)
        up = self.fpn_s(last.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)
        joined = self.lm_down_st(torch.cat((third, up), dim=-1))
        joined = self.fpn_t(joined.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)
        return self.norm(joined.flatten(1, 3))
