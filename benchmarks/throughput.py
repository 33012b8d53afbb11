"""
Speed and memory of the models beside a known one, both sides in one run.

    python -m benchmarks.throughput
    python -m benchmarks.throughput --batch-size 8 --dtype bfloat16 --device cuda

VideoMAE V2-B stands against transformers' VideoMAE-B, and dual masking against reconstructing every hidden token.
Rounds alternate between the two sides and the best of each counts, so that a busy machine hurts both alike. Beside the
times stands the share of the bare matrix-product rate that each side reaches: its multiply-accumulates a second over
those of one large matrix product of the same machine, threads and dtype.
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

from benchmarks._machine import write_csv
from hf_videovit import VideoMAEV2Config, VideoMAEV2ForPreTraining, VideoMAEV2ForVideoClassification
from hf_videovit.training.masking import running_cell_mask, tube_mask


SIDES = {
    "hf_videovit VideoMAE V2-B": lambda **kwargs: VideoMAEV2ForVideoClassification(
        VideoMAEV2Config.from_size("base", num_labels=400, **kwargs)
    ),
    "transformers VideoMAE-B": lambda **kwargs: VideoMAEForVideoClassification(
        VideoMAEConfig(num_labels=400, layer_norm_eps=1e-6, **kwargs)
    ),
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--attention", default="sdpa", choices=["sdpa", "eager", "flash_attention_2"])
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "throughput.csv")
    return parser.parse_args()


def seconds(function: Callable[[], object], device: str) -> float:
    """Wall time of one call, waiting for the device."""
    start = time.perf_counter()
    function()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start


def best_of(functions: dict[str, Callable[[], object]], rounds: int, device: str) -> dict[str, float]:
    """Best time of each function over alternating rounds, after one round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(rounds + 1):
        for name, function in functions.items():
            elapsed = seconds(function, device)
            if number:
                times[name].append(elapsed)
    return {name: min(values) for name, values in times.items()}


def product_rate(device: str, dtype: torch.dtype, size: int = 2048) -> tuple[Callable[[], torch.Tensor], int]:
    """One bare matrix product and its multiply-accumulates."""
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return lambda: left @ right, size**3


def macs(function: Callable[[], object]) -> int:
    """Multiply-accumulates of one call."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops() // 2


def compare_classifiers(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """Forward and training step of the classifiers of equal size."""
    device, dtype = arguments.device, getattr(torch, arguments.dtype)
    pixel_values = torch.randn(arguments.batch_size, 16, 3, 224, 224, device=device, dtype=dtype)
    labels = torch.zeros(arguments.batch_size, dtype=torch.long, device=device)
    models = {name: make(attn_implementation=arguments.attention).to(device, dtype) for name, make in SIDES.items()}

    def forward(model: torch.nn.Module) -> None:
        with torch.no_grad():
            model.eval()(pixel_values)

    def train(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        model.train()(pixel_values, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    rows = []
    product, product_macs = product_rate(device, dtype)
    optimizers = {name: torch.optim.AdamW(model.parameters(), lr=1e-6) for name, model in models.items()}
    for phase in ("forward", "training step"):
        if phase == "forward":
            calls = {name: lambda model=model: forward(model) for name, model in models.items()}
        else:
            calls = {name: lambda name=name: train(models[name], optimizers[name]) for name in models}
        work = {name: macs(call) for name, call in calls.items()}
        times = best_of({**calls, "product": product}, arguments.rounds, device)
        rate = product_macs / times["product"]
        ours, theirs = (times[name] for name in SIDES)
        rows += [
            {
                "benchmark": f"VideoMAE-B 16 x 224, {phase}",
                "side": name,
                "seconds": round(times[name], 4),
                "clips_per_second": round(arguments.batch_size / times[name], 3),
                "share_of_matrix_product_rate": round(work[name] / times[name] / rate, 3),
                "ratio_of_speed": round(theirs / ours, 3),
                "peak_memory_ratio": "",
            }
            for name in SIDES
        ]
    return rows


def pretraining_step(arguments: argparse.Namespace, decoder_ratio: float | None) -> Callable[[], None]:
    """A closure that does one pre-training step of VideoMAE V2-B; no decoder ratio reconstructs every hidden token."""
    device, dtype = arguments.device, getattr(torch, arguments.dtype)
    config = VideoMAEV2Config.from_size("base", attn_implementation=arguments.attention)
    model = VideoMAEV2ForPreTraining(config).to(device, dtype).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    pixel_values = torch.randn(arguments.batch_size, 16, 3, 224, 224, device=device, dtype=dtype)
    encoder_mask = torch.from_numpy(tube_mask(config.token_grid(), 0.9)).flatten().to(device)
    masks = {"encoder_mask": encoder_mask.expand(arguments.batch_size, -1)}
    if decoder_ratio is not None:
        decoder_mask = torch.from_numpy(running_cell_mask(config.token_grid(), decoder_ratio)).flatten().to(device)
        masks["decoder_mask"] = decoder_mask.expand(arguments.batch_size, -1)

    def step() -> None:
        model(pixel_values, **masks).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)

    return step


def peak_bytes(arguments: argparse.Namespace, decoder_ratio: float | None, queue: multiprocessing.Queue) -> None:
    """In a process of its own: bytes that a step needs above weights, gradients and optimiser, which a first made."""
    torch.set_num_threads(arguments.threads)
    step = pretraining_step(arguments, decoder_ratio)
    step()
    if arguments.device.startswith("cuda"):
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        queue.put(torch.cuda.max_memory_allocated() - before)
    else:
        before = memory_kilobytes("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the kernel's peak starts anew
        step()
        queue.put(1024 * (memory_kilobytes("VmHWM") - before))


def memory_kilobytes(field: str) -> int:
    """Of this process, from the kernel; `getrusage`'s peak would start from the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def compare_masking(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """The dual-masked pre-training step against reconstructing every token hidden from the encoder."""
    ratios = {"dual masking (decoder ratio 0.5)": 0.5, "every hidden token": None}
    times = best_of(
        {name: pretraining_step(arguments, ratio) for name, ratio in ratios.items()},
        arguments.rounds,
        arguments.device,
    )
    peaks = {}
    for name, ratio in ratios.items():
        context = multiprocessing.get_context("spawn")
        queue = context.Queue()
        process = context.Process(target=peak_bytes, args=(arguments, ratio, queue))
        process.start()
        peaks[name] = queue.get()
        process.join()
    dual, full = ratios
    return [
        {
            "benchmark": "VideoMAE V2-B pre-training step",
            "side": name,
            "seconds": round(times[name], 4),
            "clips_per_second": round(arguments.batch_size / times[name], 3),
            "share_of_matrix_product_rate": "",
            "ratio_of_speed": round(times[full] / times[dual], 3),
            "peak_memory_ratio": round(peaks[dual] / peaks[full], 3),
        }
        for name in ratios
    ]


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    rows = compare_classifiers(arguments) + compare_masking(arguments)
    setting = {name: getattr(arguments, name) for name in ("device", "dtype", "attention", "batch_size", "threads")}
    write_csv(arguments.output, [{**row, **setting} for row in rows])
    for row in rows:
        print(*(f"{name}={value}" for name, value in row.items() if value != ""))


if __name__ == "__main__":
    main()
