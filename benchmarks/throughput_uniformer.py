"""
How fast UniFormer's products are done: UniFormer-B on 16 frames beside a plain ViT-B of about as many.

    python -m benchmarks.throughput_uniformer
    python -m benchmarks.throughput_uniformer --batch-size 8 --dtype bfloat16 --device cuda

A plain encoder is matrix products alone; a UniFormer has depth-wise 3-D convolutions, which libraries are slow at.
`gmacs_per_second` says how much of the plain encoder's speed is left. The model is measured three times: as it is
(channels last in memory), with depth-wise convolutions on contiguous maps, and with each as a sum of 2-D convolutions,
one a temporal tap. Rounds alternate between all sides and the best of each counts.
"""

import argparse
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks._comparison import best_of, macs, parse_arguments, random_clips, run
from hf_videovit import (
    UniFormerConfig,
    UniFormerForVideoClassification,
    VideoMAEV2Config,
    VideoMAEV2Model,
)
from hf_videovit.modeling import modeling_uniformer


FRAMES, SIZE = 16, 224
# Only the order of the sums differs, and in the half types the rounding of each temporal tap's own sum.
TOLERANCES = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
PLAIN_FRAMES = 10  # five tubelets: 980 tokens, about as many products as UniFormer-B does


def contiguous(layer: nn.Module, hidden_states: torch.Tensor) -> torch.Tensor:
    """Channels first in memory and back."""
    return layer(hidden_states.movedim(-1, 1).contiguous()).movedim(1, -1).contiguous()


def temporal_taps(layer: nn.Module, hidden_states: torch.Tensor) -> torch.Tensor:
    """A depth-wise 3-D convolution of stride 1 as a sum of 2-D ones over the frames."""
    assert isinstance(layer, nn.Conv3d)
    kernel, frames, side = layer.weight, hidden_states.shape[1], layer.weight.shape[-1] // 2
    padded = F.pad(hidden_states, (0, 0, 0, 0, 0, 0, side, side)).movedim(-1, 2)  # (batch, frames, channels, ...)
    total = None
    for tap in range(kernel.shape[2]):
        maps = padded[:, tap : tap + frames].flatten(0, 1)
        bias = layer.bias if tap == 0 else None
        part = F.conv2d(maps, kernel[:, :, tap], bias, padding=side, groups=layer.groups)
        total = part if total is None else total.add_(part)
    return total.unflatten(0, (-1, frames)).movedim(2, -1)


VARIANTS: dict[str, Callable] = {
    "hf_videovit UniFormer-B": modeling_uniformer.apply_convolution,
    "its depth-wise convolutions on contiguous maps": contiguous,
    "its depth-wise convolutions by temporal taps": temporal_taps,
}


@contextmanager
def depthwise_by(function: Callable):
    """The models' depth-wise convolutions done by another function."""
    usual = modeling_uniformer.apply_convolution
    modeling_uniformer.apply_convolution = function
    try:
        yield
    finally:
        modeling_uniformer.apply_convolution = usual


@torch.no_grad()
def compare(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Forward passes; every side answers the same within rounding."""
    device, dtype = arguments.device, getattr(torch, arguments.dtype)
    fields = {"attn_implementation": arguments.attention}
    config = UniFormerConfig.from_size("base", num_frames=FRAMES, num_labels=400, **fields)
    model = UniFormerForVideoClassification(config).eval().to(device, dtype)
    plain = VideoMAEV2Model(VideoMAEV2Config.from_size("base", num_frames=PLAIN_FRAMES, **fields))
    plain = plain.eval().to(device, dtype)
    clips = random_clips(arguments, FRAMES, 3, SIZE, SIZE)

    def variant(function: Callable) -> Callable[[], torch.Tensor]:
        def forward() -> torch.Tensor:
            with depthwise_by(function):
                return model(clips).logits

        return forward

    sides = {name: variant(function) for name, function in VARIANTS.items()}
    ours, *others = sides
    tolerance = TOLERANCES[arguments.dtype]
    for name in others:
        torch.testing.assert_close(sides[name](), sides[ours](), rtol=tolerance, atol=tolerance)
    work = macs(sides[ours])
    counts = dict.fromkeys(sides, work)
    plain_name = f"plain ViT-B, {PLAIN_FRAMES} frames"
    sides[plain_name] = lambda: plain(clips[:, :PLAIN_FRAMES]).last_hidden_state
    counts[plain_name] = macs(sides[plain_name])
    times = best_of(sides, arguments)
    speed = {name: counts[name] / times[name] for name in sides}
    return [
        {
            "benchmark": f"B, {FRAMES} frames of {SIZE} x {SIZE}, forward",
            "side": name,
            "seconds": round(times[name], 4),
            "gmacs": round(counts[name] / 1e9, 2),
            "gmacs_per_second": round(speed[name] / 1e9, 2),
            "share_of_plain": round(speed[name] / speed[plain_name], 3),
        }
        for name in sides
    ]


if __name__ == "__main__":
    run(parse_arguments(__doc__, __file__), compare)
