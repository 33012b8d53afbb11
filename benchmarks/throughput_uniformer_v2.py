"""
What the video parts of UniFormerV2 cost beside the image model they are built on, both sides in one run.

    python -m benchmarks.throughput_uniformer_v2
    python -m benchmarks.throughput_uniformer_v2 --batch-size 8 --dtype bfloat16 --device cuda

UniFormerV2-B/16 on 8 frames of 224 x 224 pixels stands against transformers' CLIP image tower of the same size on the
same frames. Rounds alternate between the two and the best of each counts. `ratio_of_time` is to be read beside
`ratio_of_macs`: what is above it is time that the additional products do not explain.
"""

import argparse
from pathlib import Path

import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

from benchmarks._machine import write_csv
from benchmarks.throughput import best_of, macs
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


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--attention", default="sdpa", choices=["sdpa", "eager", "flash_attention_2"])
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    name = Path(__file__).with_suffix(".csv").name
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / name)
    return parser.parse_args()


@torch.no_grad()
def compare(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """Forward passes over the same frames: as a clip, and as images of a batch."""
    device, dtype = arguments.device, getattr(torch, arguments.dtype)
    image = CLIPVisionModel(CLIPVisionConfig(**CLIP_BASE, attn_implementation=arguments.attention)).eval()
    video = UniFormerV2ForVideoClassification.from_image_vit(image, num_labels=400)
    video.set_attn_implementation(arguments.attention)
    image, video = image.to(device, dtype), video.to(device, dtype)
    clips = torch.randn(arguments.batch_size, FRAMES, 3, SIZE, SIZE, device=device, dtype=dtype)
    sides = {
        "hf_videovit UniFormerV2-B/16": lambda: video(clips),
        "transformers CLIPVisionModel-B/16": lambda: image(clips.flatten(0, 1)),
    }
    times = best_of(sides, arguments.rounds, device)
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


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    rows = compare(arguments)
    setting = {name: getattr(arguments, name) for name in ("device", "dtype", "attention", "batch_size", "threads")}
    write_csv(arguments.output, [{**row, **setting} for row in rows])
    for row in rows:
        print(*(f"{name}={value}" for name, value in row.items()))


if __name__ == "__main__":
    main()
