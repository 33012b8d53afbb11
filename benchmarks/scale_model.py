"""
A model of training on many GPUs: how many clips a second, and what binds.

    python -m benchmarks.scale_model            # the table for 8 to 1,024 GPUs
    python -m benchmarks.scale_model --check    # predictions beside runs of 1, 2 and 4 processes on this machine

A step reads, decodes, computes and gathers gradients. Reading and decoding go on beside the step, so the slowest of
storage, decoders, and computing with gathering gives the rate. The source of each constant stands beside it, published
or measured here, or that it is an assumption. `--check` measures its own on this machine.
"""

import argparse
import itertools
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from benchmarks._machine import write_csv
from benchmarks.decoding import dense, make_clip
from hf_videovit.modeling.video_decoding import decode_video


RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Hardware:
    """A node, and the storage that all nodes share."""

    gpus: int = 8
    cores: int = 112  # two Xeon 8480C with 56 each: NVIDIA DGX H100 user guide
    flops: float = 989e12  # a GPU, bf16 without sparsity: NVIDIA H100 SXM data sheet
    gpu_bytes: float = 450e9  # a second and direction between GPUs of a node: NVLink 4, 900 GB/s both ways, same sheet
    node_bytes: float = 400e9  # a second and direction: eight ports of 400 Gb/s (ConnectX-7), DGX H100 user guide
    latency: float = 5e-6  # seconds of a hop between nodes: an assumption; InfiniBand's own share is about 1e-6
    node_storage: float = 4e9  # bytes a second that a node reads: an assumption for a parallel file system
    total_storage: float = 60e9  # bytes a second that all nodes read together: an assumption
    name: str = "DGX H100"


# The same GPUs behind Ethernet of 100 Gb/s a node, and a shared disk: an assumption about a modest cluster.
CLUSTERS = (
    Hardware(),
    Hardware(node_bytes=12.5e9, latency=3e-5, node_storage=0.5e9, total_storage=5e9, name="100 Gb/s Ethernet"),
)


@dataclass(frozen=True)
class Training:
    """A recipe on such hardware."""

    name: str
    clips_per_gpu: int
    flops_per_clip: float  # forward and backward: three forward passes, two operations a multiply-add
    parameters: float
    bytes_per_clip: float
    decode_seconds: float  # of one core
    utilisation: float = 0.4  # share of the peak that the GPU reaches: an assumption, not measured here
    overlap: float = 2 / 3  # share of the step beside which gradients are gathered: the backward pass
    gradient_bytes: float = 4.0  # of a parameter: float32 gradients


# Multiply-adds of a 16 x 224 x 224 clip and parameters: the tables of VideoMAE (arXiv 2203.12602). Decoding: a core
# does 30.2 dense clips a second of H.264, 340 x 256, 10 s (`benchmarks/results/decoding.csv`); such a file has 0.3 MB.
FILES: dict[str, Any] = {"bytes_per_clip": 0.3e6, "decode_seconds": 1 / 30.2}
TRAININGS = (
    Training("ViT-B, fine-tuning", 16, 6 * 180e9, 87e6, **FILES),
    Training("ViT-L, fine-tuning", 8, 6 * 597e9, 305e6, **FILES),
    Training("ViT-H, fine-tuning", 4, 6 * 1192e9, 633e6, **FILES),
    # A tenth of the tokens is encoded, and a decoder of 4 layers reads all: about a fifth of a whole forward pass.
    Training("ViT-B, pretraining", 64, 6 * 36e9, 94e6, **FILES),
)


def gather_seconds(training: Training, hardware: Hardware, gpus: int) -> float:
    """
    Sum of the gradients over all GPUs by rings: inside the nodes, then between equal parts of the nodes.

    A ring of n moves 2 (n - 1) / n of the bytes over each link, in 2 (n - 1) hops.
    """
    content = training.parameters * training.gradient_bytes
    inside = min(gpus, hardware.gpus)
    nodes = -(-gpus // hardware.gpus)
    seconds = 2 * (inside - 1) / inside * content / hardware.gpu_bytes
    return seconds + 2 * (nodes - 1) * hardware.latency + 2 * (nodes - 1) / nodes * content / hardware.node_bytes


def predict(training: Training, hardware: Hardware, gpus: int) -> dict[str, Any]:
    """Clips a second of each part, of the whole, and the part that binds."""
    nodes = -(-gpus // hardware.gpus)
    compute = training.clips_per_gpu * training.flops_per_clip / (hardware.flops * training.utilisation)
    exposed = max(0.0, gather_seconds(training, hardware, gpus) - training.overlap * compute)
    rates = {
        "gpus": gpus * training.clips_per_gpu / compute,
        "network": gpus * training.clips_per_gpu / (compute + exposed),
        "decoders": nodes * hardware.cores / training.decode_seconds,
        "storage": min(nodes * hardware.node_storage, hardware.total_storage) / training.bytes_per_clip,
    }
    binding = min(rates, key=lambda name: rates[name])  # `gpus` where the network is hidden
    row = {
        "part": "prediction",
        "cluster": hardware.name,
        "training": training.name,
        "gpus": gpus,
        "clips_per_second": round(rates[binding]),
    }
    return row | {"binds": binding} | {f"{name}_clips_per_second": round(rate) for name, rate in rates.items()}


def markdown() -> str:
    """The predictions as they stand in `docs/scale.md`: files as they are."""
    counts = (8, 64, 256, 1024)
    lines = ["| cluster | training | " + " | ".join(f"{gpus:,} GPUs" for gpus in counts) + " |"]
    lines.append("|---" * (2 + len(counts)) + "|")
    for hardware, training in itertools.product(CLUSTERS, TRAININGS):
        rows = [predict(training, hardware, gpus) for gpus in counts]
        cells = [f"{row['clips_per_second']:,} {row['binds']}" for row in rows]
        lines.append(f"| {hardware.name} | {training.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def table() -> list[dict[str, Any]]:
    """Predictions for 8 to 1,024 GPUs, from files as they are and from files that decode four times as fast."""
    rows = []
    for hardware, training, factor in itertools.product(CLUSTERS, TRAININGS, (1, 4)):
        faster = replace(training, decode_seconds=training.decode_seconds / factor)
        for gpus in (8, 16, 32, 64, 128, 256, 512, 1024):
            rows.append({**predict(faster, hardware, gpus), "decoding_speed": factor})
    return rows


# ---------------------------------------------------------------------- check on this machine


@dataclass(frozen=True)
class Measured:
    """Seconds of the parts of a step of one process."""

    decode: float
    compute: float
    gather: float


class Worker:
    """One process of the check: decodes clips, computes, and sums gradients by gloo."""

    def __init__(self, clip: str, clips: int, width: int):
        torch.set_num_threads(1)
        torch.manual_seed(0)
        self.clip, self.clips, self.indices = clip, clips, dense(300)
        layers = [module for _ in range(8) for module in (torch.nn.Linear(width, width), torch.nn.GELU())]
        self.model = torch.nn.Sequential(*layers)
        self.inputs = torch.randn(clips * 64, width)

    def decode(self) -> None:
        for _ in range(self.clips):
            decode_video(self.clip, self.indices)

    def compute(self) -> None:
        self.model.zero_grad()
        self.model(self.inputs).square().mean().backward()

    def gather(self) -> None:
        if dist.get_world_size() > 1:
            gradients = [
                parameter.grad.flatten() for parameter in self.model.parameters() if parameter.grad is not None
            ]
            dist.all_reduce(torch.cat(gradients))


def run_process(rank: int, world: int, folder: str, arguments: argparse.Namespace, results: Any) -> None:
    """Time the parts one after the other, then whole steps."""
    store = dist.FileStore(f"{folder}/store-{world}", world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    worker = Worker(f"{folder}/clip.mp4", arguments.clips, arguments.width)

    def steps() -> None:
        worker.decode()
        worker.compute()
        worker.gather()

    steps()
    parts = [timed(part, arguments.steps) for part in (worker.decode, worker.compute, worker.gather)]
    whole = timed(steps, arguments.steps)
    if rank == 0:
        results.put((Measured(*parts), whole))
    dist.barrier()
    dist.destroy_process_group()


def timed(call: Callable[[], None], count: int) -> float:
    """Median seconds of a call that all processes make at the same time."""
    seconds = []
    for _ in range(count):
        dist.barrier()
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def measure(world: int, folder: str, arguments: argparse.Namespace) -> tuple[Measured, float]:
    """Seconds of the parts, and of a step, with so many processes."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [
        context.Process(target=run_process, args=(rank, world, folder, arguments, results)) for rank in range(world)
    ]
    for process in processes:
        process.start()
    found = results.get(timeout=300)
    for process in processes:
        process.join()
    return found


def check(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """
    Predict runs of several processes from the parts that one process measures, and the gathering that two measure.

    Processes share the cores: with more processes than cores, everything takes `processes / cores` times as long.
    Nothing overlaps, since each process does all its work itself.
    """
    rows, cores = [], len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        make_clip(Path(folder) / "clip.mp4")
        for turn in range(arguments.rounds):
            runs = {world: measure(world, folder, arguments) for world in (1, 2, 4)}
            alone, pair = runs[1][0], runs[2][0]
            for world, (_, whole) in runs.items():
                Path(f"{folder}/store-{world}").unlink(missing_ok=True)
                crowd = max(1.0, world / cores)
                # A ring moves 2 (n - 1) / n of the bytes: those of two processes are one measure of them.
                moved = 2 * (world - 1) / world
                predicted = crowd * (alone.decode + alone.compute + moved * pair.gather)
                row = {"part": "check", "round": turn, "processes": world, "cores": cores}
                row |= {"predicted_clips_per_second": round(world * arguments.clips / predicted, 2)}
                row |= {"measured_clips_per_second": round(world * arguments.clips / whole, 2)}
                rows.append(row | {"measured_to_predicted": round(predicted / whole, 3)})
                print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Print and write the table, or the check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="runs of 1, 2 and 4 processes beside their predictions")
    parser.add_argument("--clips", type=int, default=4, help="of a process in a step of the check")
    parser.add_argument("--width", type=int, default=768, help="of the layers of the check")
    parser.add_argument("--steps", type=int, default=9, help="of the check")
    parser.add_argument("--rounds", type=int, default=3, help="of the check")
    parser.add_argument("--output", type=Path, help="the CSV file")
    arguments = parser.parse_args()
    rows = check(arguments) if arguments.check else table()
    if not arguments.check:
        for row in rows:
            print(
                f"{row['cluster']:18} {row['training']:20} {row['gpus']:5} GPUs, decoding x {row['decoding_speed']}: ",
                end="",
            )
            print(f"{row['clips_per_second']:8,} clips/s, {row['binds']}")
    write_csv(arguments.output or RESULTS / f"scale_model{'_check' if arguments.check else ''}.csv", rows)


if __name__ == "__main__":
    main()
