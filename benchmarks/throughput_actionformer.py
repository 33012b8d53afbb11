"""
ActionFormer beside a plain implementation with a mask over all pairs of steps, and on long videos:

    python -m benchmarks.throughput_actionformer

The model is that of THUMOS14 on features of VideoMAE V2-g (28.3 M parameters). Both sides have the same weights, and
their outputs are compared first. A side's time is the processor time of its fastest round; rounds alternate. Memory is
the growth of a process's peak during one forward pass, or one forward and backward pass, after the model was built.
Each large block of memory has a mapping of its own there, so the peak is that of what is held.
"""

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks._actionformer_reference import DenseActionFormer
from benchmarks._machine import write_csv
from hf_videovit import ActionFormerConfig, convert_checkpoint
from hf_videovit.modeling.modeling_actionformer_losses import localization_losses, make_points, make_targets


RESULTS = Path(__file__).parent / "results" / "throughput_actionformer.csv"
STEPS, LONG = 2304, (2304, 6250, 12500, 25000, 50000)
SIDES = ("hf_videovit", "dense mask")
LABELS = [{"segments": torch.tensor([[100.0, 130.0], [700.0, 705.0]]), "class_labels": torch.tensor([3, 7])}]
Pass = Callable[[], Any]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peak", nargs=3, metavar=("SIDE", "KIND", "STEPS"), help="print the memory of one pass")
    return parser.parse_args()


def build(side: str) -> Any:
    """The model of a side; both have the weights of one seed."""
    torch.manual_seed(0)
    dense = DenseActionFormer()
    if side == "dense mask":
        return dense
    return convert_checkpoint("actionformer", dense.state_dict(), task="temporal-action-localization")


def make_pass(side: str, model: Any, kind: str, steps: int) -> Pass:
    """A forward pass, or a training step without the optimiser's, which is the same for both."""
    torch.manual_seed(1)
    features, mask = torch.randn(1, steps, 1408), torch.ones(1, steps, dtype=torch.bool)
    config = ActionFormerConfig(num_labels=20)

    def outputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        if side == "dense mask":
            return model(features, mask)
        found = model(features=features, attention_mask=mask)
        return found.logits, found.pred_offsets, found.point_mask

    def forward() -> Any:
        model.eval()
        with torch.inference_mode():
            return outputs()

    def train() -> None:
        model.train()
        logits, offsets, point_mask = outputs()
        lengths = [-(-steps // 2**level) for level in range(6)]
        points = make_points(lengths, config)
        targets = make_targets(points, point_mask.bool(), LABELS, config)
        losses = localization_losses(logits, offsets, targets, point_mask.bool(), torch.tensor(100.0), config)
        (losses["classification"] + losses["regression"]).backward()
        model.zero_grad()

    return forward if kind == "forward" else train


def timed(one: Pass) -> float:
    """Processor time, which other programs on the machine do not change."""
    started = time.process_time()
    one()
    return time.process_time() - started


def peak(side: str, kind: str, steps: int, threads: int) -> tuple[float, float]:
    """Memory of a pass in MiB and its time, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.throughput_actionformer", "--threads", str(threads)]
    # each large block gets a mapping of its own: the peak is that of what is held, not of what the allocator keeps
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    words = [*command, "--peak", side, kind, str(steps)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    memory, seconds = json.loads(done.stdout.splitlines()[-1])
    return memory, seconds


def measure_peak(side: str, kind: str, steps: int) -> tuple[float, float]:
    model = build(side)
    make_pass(side, model, "forward", 64)()  # libraries are loaded
    one = make_pass(side, model, kind, steps)
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = resident("VmRSS")
    seconds = timed(one)
    return (resident("VmHWM") - before) / 1024, seconds


def resident(name: str) -> int:
    """A figure of this process's memory in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def compare(rounds: int, threads: int) -> list[dict[str, Any]]:
    """Both sides at the length of training."""
    models = {side: build(side) for side in SIDES}
    logits = [make_pass(side, models[side], "forward", STEPS)()[0] for side in SIDES]
    difference = float((logits[0] - logits[1]).abs().max())
    print(f"largest difference of the logits: {difference:.1e}", flush=True)
    rows = []
    for kind in ("forward", "training step"):
        passes = {side: make_pass(side, models[side], kind, STEPS) for side in SIDES}
        times: dict[str, list[float]] = {side: [] for side in SIDES}
        for _ in range(rounds):
            for side in SIDES:
                times[side].append(timed(passes[side]))
        memory = {side: peak(side, kind, STEPS, threads)[0] for side in SIDES}
        for side in SIDES:
            rows.append(
                {
                    "pass": kind,
                    "side": side,
                    "steps": STEPS,
                    "processor_seconds": round(min(times[side]), 3),
                    "speed_ratio": round(min(times["dense mask"]) / min(times[side]), 2),
                    "peak_mib": round(memory[side]),
                    "memory_ratio": round(memory[side] / memory["dense mask"], 2),
                    "logit_difference": f"{difference:.1e}",
                    "threads": threads,
                }
            )
            print(rows[-1], flush=True)
    return rows


def scale_up(threads: int) -> list[dict[str, Any]]:
    """Our forward pass on longer and longer videos."""
    rows = []
    for steps in LONG:
        memory, seconds = peak(SIDES[0], "forward", steps, threads)
        rows.append(
            {
                "pass": "forward",
                "side": SIDES[0],
                "steps": steps,
                "processor_seconds": round(seconds, 3),
                "peak_mib": round(memory),
                "ms_per_step": round(1000 * seconds / steps, 3),
                "kib_per_step": round(1024 * memory / steps, 1),
                "threads": threads,
            }
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    if arguments.peak:
        side, kind, steps = arguments.peak
        print(json.dumps(measure_peak(side, kind, int(steps))))
        return
    write_csv(RESULTS, [*compare(arguments.rounds, arguments.threads), *scale_up(arguments.threads)])


if __name__ == "__main__":
    main()
