"""VideoMAE V2 (OpenGVLab/VideoMAEv2): the fine-tuning model, and the pretraining model with its targets and loss."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from .parts import DropPath, Mlp, rates


class _Attention(nn.Module):
    """Fused projection with biases of queries and values only, joined with zeros in every call."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads, self.scale = num_heads, (dim // num_heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(dim))
        self.v_bias = nn.Parameter(torch.zeros(dim))
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        bias = torch.cat((self.q_bias, torch.zeros_like(self.v_bias, requires_grad=False), self.v_bias))
        qkv = F.linear(x, self.qkv.weight, bias)
        qkv = qkv.reshape(batch, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        probabilities = (q * self.scale @ k.transpose(-2, -1)).softmax(dim=-1)
        return self.proj((probabilities @ v).transpose(1, 2).reshape(batch, length, -1))


class _Block(nn.Module):
    def __init__(self, dim: int, num_heads: int, hidden: int, drop_path: float = 0.0):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = _Attention(dim, num_heads)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class _PatchEmbed(nn.Module):
    def __init__(self, config: Any):
        super().__init__()
        kernel = (config.tubelet_size, config.patch_size, config.patch_size)
        self.proj = nn.Conv3d(config.num_channels, config.hidden_size, kernel_size=kernel, stride=kernel)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


def position_table(length: int, dim: int) -> torch.Tensor:
    """Sines and cosines of the place in the flattened sequence."""
    places = torch.arange(length, dtype=torch.float64)[:, None]
    channels = torch.arange(dim)
    angles = places / 10000 ** (2 * (channels // 2) / dim).double()
    table = torch.where(channels % 2 == 0, angles.sin(), angles.cos())
    return table.float()[None]


class VideoMAEV2(nn.Module):
    """
    The fine-tuning model: mean of the tokens, norm, classifier.

    Args:
        config ([`VideoMAEV2Config`]):
            Sizes.
    """

    def __init__(self, config: Any):
        super().__init__()
        self.patch_embed = _PatchEmbed(config)
        frames, height, width = config.token_grid()
        self.pos_embed = position_table(frames * height * width, config.hidden_size)
        sizes = (config.hidden_size, config.num_attention_heads, config.intermediate_size)
        drawn = rates(config.drop_path_rate, config.num_hidden_layers)
        self.blocks = nn.ModuleList(_Block(*sizes, rate) for rate in drawn)
        self.fc_norm = nn.LayerNorm(config.hidden_size, eps=1e-6)
        self.head = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch_embed(x)
        x = x + self.pos_embed.expand(x.shape[0], -1, -1).type_as(x).to(x.device).clone().detach()
        for block in self.blocks:
            x = block(x)
        return self.head(self.fc_norm(x.mean(1)))


class _Encoder(nn.Module):
    def __init__(self, config: Any):
        super().__init__()
        self.patch_embed = _PatchEmbed(config)
        frames, height, width = config.token_grid()
        self.pos_embed = position_table(frames * height * width, config.hidden_size)
        sizes = (config.hidden_size, config.num_attention_heads, config.intermediate_size)
        self.blocks = nn.ModuleList(_Block(*sizes) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=1e-6)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.patch_embed(x)
        x = x + self.pos_embed.type_as(x).to(x.device).clone().detach()
        x = x[~mask].reshape(x.shape[0], -1, x.shape[-1])
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class _Decoder(nn.Module):
    def __init__(self, config: Any):
        super().__init__()
        dim = config.decoder_hidden_size
        sizes = (dim, config.decoder_num_attention_heads, config.decoder_intermediate_size)
        self.blocks = nn.ModuleList(_Block(*sizes) for _ in range(config.decoder_num_hidden_layers))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, config.num_channels * config.tubelet_size * config.patch_size**2)

    def forward(self, x: torch.Tensor, kept: int) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, -kept:]))


class VideoMAEV2Pretraining(nn.Module):
    """
    The pretraining model with dual masking. The official engine makes the targets; here `forward` does, and returns
    the loss.

    Args:
        config ([`VideoMAEV2Config`]):
            Sizes.
    """

    def __init__(self, config: Any):
        super().__init__()
        self.config = config
        self.encoder = _Encoder(config)
        self.decoder = _Decoder(config)
        self.encoder_to_decoder = nn.Linear(config.hidden_size, config.decoder_hidden_size, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.decoder_hidden_size))
        frames, height, width = config.token_grid()
        self.pos_embed = position_table(frames * height * width, config.decoder_hidden_size)

    def forward(self, x: torch.Tensor, mask: torch.Tensor, decode_mask: torch.Tensor) -> torch.Tensor:
        labels = self.targets(x, decode_mask)
        visible = self.encoder_to_decoder(self.encoder(x, mask))
        batch, _, dim = visible.shape
        positions = self.pos_embed.expand(batch, -1, -1).type_as(visible).to(visible.device).clone().detach()
        seen = positions[~mask].reshape(batch, -1, dim)
        hidden = positions[~decode_mask].reshape(batch, -1, dim)
        full = torch.cat([visible + seen, self.mask_token + hidden], dim=1)
        outputs = self.decoder(full, hidden.shape[1])
        error = ((outputs - labels) ** 2).mean(dim=-1)
        counted = mask[~decode_mask].reshape(batch, -1)
        return (error * counted).sum() / counted.sum()

    @torch.no_grad()
    def targets(self, x: torch.Tensor, decode_mask: torch.Tensor) -> torch.Tensor:
        """Normalised pixels of all tokens, of which the decoded ones are selected at the end."""
        config = self.config
        mean, std = (
            torch.tensor(values, device=x.device)[None, :, None, None, None]
            for values in (config.image_mean, config.image_std)
        )
        pixels = x * std + mean
        batch, channels, frames, height, width = pixels.shape
        size, patch = config.tubelet_size, config.patch_size
        cells = (frames // size, size, height // patch, patch, width // patch, patch)
        pixels = pixels.reshape(batch, channels, *cells).permute(0, 2, 4, 6, 3, 5, 7, 1)
        pixels = pixels.reshape(batch, -1, size * patch * patch, channels)
        deviation = pixels.var(dim=-2, unbiased=True, keepdim=True).sqrt() + 1e-6
        normed = (pixels - pixels.mean(dim=-2, keepdim=True)) / deviation
        patches = normed.flatten(2)
        return patches[~decode_mask].reshape(batch, -1, patches.shape[-1])
