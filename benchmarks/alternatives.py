"""
Other ways to compute what the models compute, measured to decide whether they are worth their lines:

    python -m benchmarks.alternatives --threads 1 --clock processor

- Patch embedding as one matrix product on cut patches instead of a convolution whose stride is its kernel; for masked
  pretraining also on the visible patches only.
- Attention in shifted windows by `flex_attention`, compiled, with bias and mask computed in its kernel, instead
  of adding tensors of both in `scaled_dot_product_attention`. On CPUs it has no backward pass.
- Images and videos of one step packed into one sequence for all products of a transformer's layers, attention within
  each, instead of one pass for each.

The first side of a row is what the models do. All sides must give the same answers.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention.flex_attention import flex_attention

from benchmarks._comparison import SETTING, best_of, make_parser
from benchmarks._machine import write_csv


Sides = dict[str, Callable[[], torch.Tensor]]


def cut(pixels: torch.Tensor, kernel: tuple[int, int, int]) -> torch.Tensor:
    """Patches of clips of shape (batch, channels, frames, height, width) as (batch, tokens, pixels of a patch)."""
    frames, height, width = kernel
    grid = pixels.unflatten(4, (-1, width)).unflatten(3, (-1, height)).unflatten(2, (-1, frames))
    return grid.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(1, 3)


def patch_embedding(frames: int, tubelet: int, dim: int, patch: int = 16) -> Sides:
    kernel = (tubelet, patch, patch)
    layer, pixels = nn.Conv3d(3, dim, kernel, stride=kernel), torch.randn(1, 3, frames, 224, 224)
    matrix = layer.weight.flatten(1)
    return {
        "convolution": lambda: layer(pixels).flatten(2).transpose(1, 2),
        "matrix product": lambda: F.linear(cut(pixels, kernel), matrix, layer.bias),
    }


def visible_patches() -> Sides:
    """A tenth of the tokens of VideoMAE V2-B in pretraining."""
    kernel, pixels = (2, 16, 16), torch.randn(1, 3, 16, 224, 224)
    layer = nn.Conv3d(3, 768, kernel, stride=kernel)
    seen, matrix = torch.randperm(1568)[:160].sort().values, layer.weight.flatten(1)
    return {
        "convolution": lambda: layer(pixels).flatten(2).transpose(1, 2)[:, seen],
        "matrix product": lambda: F.linear(cut(pixels, kernel)[:, seen], matrix, layer.bias),
    }


def shifted_windows(heads: int = 4, dim: int = 32, windows: int = 16) -> Sides:
    """Windows of 8 x 7 x 7 tokens of Video Swin-B's first stage that a shift cuts into halves."""
    length = 392
    query, key, value = torch.randn(3, windows, heads, length, dim)
    bias, region = torch.randn(heads, length, length), torch.arange(length) >= length // 2
    mask = torch.where(region[:, None] == region[None], 0.0, -100.0)

    def score(scores: torch.Tensor, _: Any, head: Any, row: Any, column: Any) -> torch.Tensor:
        return scores + bias[head, row, column] + torch.where(region[row] == region[column], 0.0, -100.0)

    compiled = torch.compile(flex_attention)
    return {
        "scaled_dot_product_attention": lambda: F.scaled_dot_product_attention(query, key, value, bias + mask),
        "flex_attention": lambda: compiled(query, key, value, score_mod=score),
    }


def packed(videos: int = 4, images: int = 4, depth: int = 2, dim: int = 768, heads: int = 12) -> Sides:
    """TubeViT-B: 559 tokens of a video and 197 of an image."""
    layers = nn.ModuleList(
        nn.ModuleDict(
            {
                "norm": nn.LayerNorm(dim),
                "qkv": nn.Linear(dim, 3 * dim),
                "out": nn.Linear(dim, dim),
                "mlp": nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)),
            }
        )
        for _ in range(depth)
    )
    shapes = [(videos, 559), (images, 197)]
    tokens = [torch.randn(*shape, dim) for shape in shapes]

    def attend(qkv: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
        query, key, value = qkv.reshape(*shape, 3, heads, dim // heads).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2).flatten(0, 1)

    def run(states: torch.Tensor, parts: list[tuple[int, int]]) -> torch.Tensor:
        lengths = [count * length for count, length in parts]
        for layer in layers:
            qkv = layer["qkv"](layer["norm"](states)).split(lengths)
            states = states + layer["out"](torch.cat([attend(part, shape) for part, shape in zip(qkv, parts)]))
            states = states + layer["mlp"](states)
        return states

    return {
        "a pass for each": lambda: torch.cat([run(part.flatten(0, 1), [part.shape[:2]]) for part in tokens]),
        "packed": lambda: run(torch.cat([part.flatten(0, 1) for part in tokens]), shapes),
    }


CHOICES: dict[str, Callable[[], Sides]] = {
    "patch embedding of VideoMAE V2-B, 16 x 224": lambda: patch_embedding(16, 2, 768),
    "patch embedding of UniFormerV2-B, 8 x 224": lambda: patch_embedding(8, 1, 768),
    "patch embedding of Video Swin-B, 32 x 224": lambda: patch_embedding(32, 2, 128, patch=4),
    "visible patches of VideoMAE V2-B, 160 of 1568": visible_patches,
    "shifted windows of Video Swin-B": shifted_windows,
    "4 images and 4 videos in TubeViT-B, 2 layers": packed,
}


def backward(side: Callable[[], torch.Tensor]) -> Callable[[], None]:
    return lambda: side().sum().backward()


def measure(name: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    sides = CHOICES[name]()
    rows = []
    for phase in ("forward", "forward and backward"):
        with torch.set_grad_enabled(phase != "forward"):
            first, *others = [side() for side in sides.values()]
            if phase != "forward" and not first.requires_grad:
                break
            for other in others:
                torch.testing.assert_close(other, first, rtol=1e-4, atol=1e-4)
            times = best_of(
                sides if phase == "forward" else {key: backward(one) for key, one in sides.items()}, arguments
            )
        for side, seconds in times.items():
            row = {"choice": name, "phase": phase, "side": side, "milliseconds": round(1000 * seconds, 2)}
            row["speed_of_ours"] = round(seconds / next(iter(times.values())), 3)
            rows.append(
                row | {key: getattr(arguments, key) for key in SETTING if key not in ("attention", "batch_size")}
            )
            print(*(f"{key}={value}" for key, value in rows[-1].items()), flush=True)
    return rows


def main() -> None:
    arguments = make_parser(__doc__, __file__, rounds=15).parse_args()
    torch.set_num_threads(arguments.threads)
    write_csv(arguments.output, [row for name in CHOICES for row in measure(name, arguments)])


if __name__ == "__main__":
    main()
