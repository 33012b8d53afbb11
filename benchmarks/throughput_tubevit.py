"""
What sparse tubes save, and what making their tokens costs, all sides in one run.

    python -m benchmarks.throughput_tubevit
    python -m benchmarks.throughput_tubevit --batch-size 8 --dtype bfloat16 --device cuda

TubeViT-B's encoder stands against that of VideoMAE V2-B on the same clip of 32 frames of 224 x 224 pixels; against a
plain ViT of equal size (transformers' ViT-B/16) on an image of 112 x 1232 pixels, which makes the same 539 tokens and
one class token; and beside its own tokeniser. Rounds alternate between the sides and the best of each counts.
`time_of_tubevit` is how many times as long as TubeViT-B a side takes, `time_per_token_of_tubevit` that for a token.
`peak_megabytes` is what a forward pass needs above weights and input, each side in a process of its own.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from transformers import ViTConfig, ViTModel

from benchmarks._comparison import best_of, macs, parse_arguments, peak_bytes, random_clips, run
from hf_videovit import TubeViTConfig, TubeViTModel, VideoMAEV2Config, VideoMAEV2Model


FRAMES, SIZE = 32, 224
IMAGE = (112, 1232)  # 7 x 77 patches of 16 x 16: as many as TubeViT has tokens
TUBEVIT = "hf_videovit TubeViT-B"
TOKENISER = "its tokeniser alone"
DENSE = "hf_videovit VideoMAE V2-B"
PLAIN = "transformers ViT-B/16, 112 x 1232 pixels"
TOKENS = {TUBEVIT: 539, TOKENISER: 539, DENSE: 3136, PLAIN: 540}


def make_side(arguments: argparse.Namespace, name: str) -> Callable[[], object]:
    """One forward pass of a side."""
    device, dtype, attention = arguments.device, getattr(torch, arguments.dtype), arguments.attention
    shape: tuple[int, ...] = (FRAMES, 3, SIZE, SIZE)
    if name == PLAIN:
        config = ViTConfig(image_size=IMAGE, layer_norm_eps=1e-6, attn_implementation=attention)
        model: torch.nn.Module = ViTModel(config, add_pooling_layer=False)
        shape = (3, *IMAGE)
    elif name == DENSE:
        config = VideoMAEV2Config.from_size("base", num_frames=FRAMES, attn_implementation=attention)
        model = VideoMAEV2Model(config)
    else:
        model = TubeViTModel(TubeViTConfig.from_size("base", attn_implementation=attention))
    model = model.eval().to(device, dtype)
    pixel_values = random_clips(arguments, *shape)

    @torch.no_grad()
    def forward() -> object:
        if name == TOKENISER:
            return model.embeddings(pixel_values)
        return model(pixel_values)

    return forward


def compare(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Every side's tokens, multiply-accumulates, time and memory."""
    sides = {name: make_side(arguments, name) for name in TOKENS}
    times = best_of(sides, arguments)
    work = {name: macs(side) for name, side in sides.items()}
    sides.clear()
    ours = times[TUBEVIT]
    return [
        {
            "benchmark": f"ViT-B encoders, {FRAMES} frames of {SIZE} x {SIZE}, forward",
            "side": name,
            "tokens": TOKENS[name],
            "gmacs": round(work[name] / arguments.batch_size / 1e9, 2),
            "seconds": round(seconds, 4),
            "peak_megabytes": round(peak_bytes(make_side, arguments, name, warm=False) / 1e6, 1),
            "time_of_tubevit": round(seconds / ours, 4),
            "time_per_token_of_tubevit": round(seconds / TOKENS[name] / (ours / TOKENS[TUBEVIT]), 4),
        }
        for name, seconds in times.items()
    ]


if __name__ == "__main__":
    run(parse_arguments(__doc__, __file__, rounds=7), compare)
