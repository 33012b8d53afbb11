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
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import ViTConfig, ViTModel

from benchmarks._machine import write_csv
from benchmarks.throughput import best_of, macs, memory_kilobytes
from hf_videovit import TubeViTConfig, TubeViTModel, VideoMAEV2Config, VideoMAEV2Model


FRAMES, SIZE = 32, 224
IMAGE = (112, 1232)  # 7 x 77 patches of 16 x 16: as many as TubeViT has tokens
TUBEVIT = "hf_videovit TubeViT-B"
TOKENISER = "its tokeniser alone"
DENSE = "hf_videovit VideoMAE V2-B"
PLAIN = "transformers ViT-B/16, 112 x 1232 pixels"
TOKENS = {TUBEVIT: 539, TOKENISER: 539, DENSE: 3136, PLAIN: 540}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--attention", default="sdpa", choices=["sdpa", "eager", "flash_attention_2"])
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    name = Path(__file__).with_suffix(".csv").name
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / name)
    return parser.parse_args()


def make_side(name: str, arguments: argparse.Namespace) -> Callable[[], object]:
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
    pixel_values = torch.randn(arguments.batch_size, *shape, device=device, dtype=dtype)

    @torch.no_grad()
    def forward() -> object:
        if name == TOKENISER:
            return model.embeddings(pixel_values)
        return model(pixel_values)

    return forward


def peak_bytes(name: str, arguments: argparse.Namespace, queue: multiprocessing.Queue) -> None:
    """In a process of its own: bytes that a forward pass needs above what stands before it."""
    torch.set_num_threads(arguments.threads)
    forward = make_side(name, arguments)
    if arguments.device.startswith("cuda"):
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        forward()
        queue.put(torch.cuda.max_memory_allocated() - before)
        return
    before = memory_kilobytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the kernel's peak starts anew
    forward()
    queue.put(1024 * (memory_kilobytes("VmHWM") - before))


def measure_peak(name: str, arguments: argparse.Namespace) -> int:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=peak_bytes, args=(name, arguments, queue))
    process.start()
    peak = queue.get()
    process.join()
    return peak


def compare(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """Every side's tokens, multiply-accumulates, time and memory."""
    sides = {name: make_side(name, arguments) for name in TOKENS}
    times = best_of(sides, arguments.rounds, arguments.device)
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
            "peak_megabytes": round(measure_peak(name, arguments) / 1e6, 1),
            "time_of_tubevit": round(seconds / ours, 4),
            "time_per_token_of_tubevit": round(seconds / TOKENS[name] / (ours / TOKENS[TUBEVIT]), 4),
        }
        for name, seconds in times.items()
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
