"""
What the video parts of UniFormerV2 cost beside the image model they are built on, both sides in one run.

    python -m benchmarks.throughput_uniformer_v2
    python -m benchmarks.throughput_uniformer_v2 --batch-size 8 --dtype bfloat16 --device cuda

UniFormerV2-B/16 on 8 frames of 224 x 224 pixels stands against transformers' CLIP image tower of the same size on the
same frames. Rounds alternate between the two and the best of each counts. `ratio_of_time` is to be read beside
`ratio_of_macs`: what is above it is time that the additional products do not explain.
"""

import argparse
from typing import Any

import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

from benchmarks._comparison import best_of, macs, parse_arguments, random_clips, run
from hf_videovit import UniFormerV2ForVideoClassification


FRAMES, SIZE = 8, 224
CLIP_BASE = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "patch_size": 16,
    "image_size": SIZE,
}


@torch.no_grad()
def compare(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Forward passes over the same frames: as a clip, and as images of a batch."""
    device, dtype = arguments.device, getattr(torch, arguments.dtype)
    image = CLIPVisionModel(CLIPVisionConfig(**CLIP_BASE, attn_implementation=arguments.attention)).eval()
    video = UniFormerV2ForVideoClassification.from_image_vit(image, num_labels=400)
    video.set_attn_implementation(arguments.attention)
    image, video = image.to(device, dtype), video.to(device, dtype)
    clips = random_clips(arguments, FRAMES, 3, SIZE, SIZE)
    sides = {
        "hf_videovit UniFormerV2-B/16": lambda: video(clips),
        "transformers CLIPVisionModel-B/16": lambda: image(clips.flatten(0, 1)),
    }
    times = best_of(sides, arguments)
    work = {name: macs(side) for name, side in sides.items()}
    ours, theirs = sides
    return [
        {
            "benchmark": f"B/16, {FRAMES} frames of {SIZE} x {SIZE}, forward",
            "side": name,
            "seconds": round(times[name], 4),
            "gmacs": round(work[name] / 1e9, 2),
            "ratio_of_time": round(times[ours] / times[theirs], 3),
            "ratio_of_macs": round(work[ours] / work[theirs], 3),
        }
        for name in sides
    ]


if __name__ == "__main__":
    run(parse_arguments(__doc__, __file__, rounds=15), compare)
