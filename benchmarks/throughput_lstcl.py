"""
TimeSformer-B against transformers' port of it, with the same weights and the same answers, both sides in one run.

    python -m benchmarks.throughput_lstcl
    python -m benchmarks.throughput_lstcl --batch-size 8 --dtype bfloat16 --device cuda

8 frames of 224 x 224 pixels, forward and training step (AdamW). Rounds alternate between the two and the best of each
counts. transformers' side has its one way of attention (eager). Memory is what a training step needs above weights,
gradients and optimiser, measured for each side in a process of its own.
"""

import argparse
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import TimesformerConfig, TimesformerForVideoClassification

from benchmarks._machine import write_csv
from benchmarks.throughput import best_of, macs, memory_kilobytes, product_rate
from hf_videovit import convert_checkpoint


FRAMES, SIZE = 8, 224
OURS, THEIRS = "hf_videovit LstclForVideoClassification", "transformers TimesformerForVideoClassification"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--attention", default="sdpa", choices=["sdpa", "eager", "flash_attention_2"])
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    name = Path(__file__).with_suffix(".csv").name
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / name)
    return parser.parse_args()


def make_models(arguments: argparse.Namespace) -> dict[str, torch.nn.Module]:
    """Both sides with the same weights."""
    torch.manual_seed(0)
    theirs = TimesformerForVideoClassification(TimesformerConfig(num_frames=FRAMES, num_labels=400))
    rate = theirs.config.drop_path_rate
    ours = convert_checkpoint("lstcl", theirs.state_dict(), task="video-classification", drop_path_rate=rate)
    ours.set_attn_implementation(arguments.attention)
    dtype = getattr(torch, arguments.dtype)
    return {OURS: ours.to(arguments.device, dtype), THEIRS: theirs.to(arguments.device, dtype)}


def make_clips(arguments: argparse.Namespace) -> torch.Tensor:
    dtype = getattr(torch, arguments.dtype)
    return torch.randn(arguments.batch_size, FRAMES, 3, SIZE, SIZE, device=arguments.device, dtype=dtype)


def training_step(model: torch.nn.Module, clips: torch.Tensor) -> Callable[[], None]:
    """A closure that does one step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    labels = torch.zeros(len(clips), dtype=torch.long, device=clips.device)

    def step() -> None:
        model.train()(clips, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def peak_bytes(arguments: argparse.Namespace, name: str, queue: multiprocessing.Queue) -> None:
    """In a process of its own: bytes that a step needs above what a first one left."""
    torch.set_num_threads(arguments.threads)
    step = training_step(make_models(arguments)[name], make_clips(arguments))
    step()
    if arguments.device.startswith("cuda"):
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        queue.put(torch.cuda.max_memory_allocated() - before)
        return
    before = memory_kilobytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the kernel's peak starts anew
    step()
    queue.put(1024 * (memory_kilobytes("VmHWM") - before))


def measure_peaks(arguments: argparse.Namespace) -> dict[str, int]:
    context, peaks = multiprocessing.get_context("spawn"), {}
    for name in (OURS, THEIRS):
        queue = context.Queue()
        process = context.Process(target=peak_bytes, args=(arguments, name, queue))
        process.start()
        peaks[name] = queue.get()
        process.join()
    return peaks


def compare(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """Forward and training step."""
    models, clips = make_models(arguments), make_clips(arguments)

    def forward(model: torch.nn.Module) -> torch.Tensor:
        with torch.no_grad():
            return model.eval()(clips).logits

    gap = (forward(models[OURS]) - forward(models[THEIRS])).abs().max().item()
    product, product_macs = product_rate(arguments.device, getattr(torch, arguments.dtype))
    phases: dict[str, dict[str, Callable[[], object]]] = {
        "forward": {name: lambda model=model: forward(model) for name, model in models.items()},
        "training step": {name: training_step(model, clips) for name, model in models.items()},
    }
    peaks, rows = measure_peaks(arguments), []
    for phase, calls in phases.items():
        work = {name: macs(call) for name, call in calls.items()}
        times = best_of({**calls, "product": product}, arguments.rounds, arguments.device)
        rate = product_macs / times["product"]
        memory = round(peaks[OURS] / peaks[THEIRS], 3) if phase == "training step" else ""
        rows += [
            {
                "benchmark": f"TimeSformer-B {FRAMES} x {SIZE}, {phase}",
                "side": name,
                "seconds": round(times[name], 4),
                "clips_per_second": round(arguments.batch_size / times[name], 3),
                "share_of_matrix_product_rate": round(work[name] / times[name] / rate, 3),
                "ratio_of_speed": round(times[THEIRS] / times[OURS], 3),
                "peak_memory_ratio": memory,
                "largest_difference_of_logits": f"{gap:.1e}",
            }
            for name in calls
        ]
    return rows


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    rows = compare(arguments)
    setting = {name: getattr(arguments, name) for name in ("device", "dtype", "attention", "batch_size", "threads")}
    write_csv(arguments.output, [{**row, **setting} for row in rows])
    for row in rows:
        print(*(f"{name}={value}" for name, value in row.items()))


if __name__ == "__main__":
    main()
