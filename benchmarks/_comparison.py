"""
What comparisons of models share: their arguments, times of several sides from one run, work and memory.
"""

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


# glibc's settings for a process whose freed blocks of 64 kB and more leave it at once
RETURN_FREED_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
SETTING = ("device", "dtype", "attention", "batch_size", "threads", "clock")
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "processor": time.process_time}


def make_parser(doc: str | None, script: str, rounds: int = 5) -> argparse.ArgumentParser:
    """
    The command line of a comparison.

    Args:
        doc (`str`):
            Its module's docstring.
        script (`str`):
            Its file, which the results are named after.
        rounds (`int`, *optional*, defaults to 5):
            Default of `--rounds`.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--attention", default="sdpa", choices=["sdpa", "eager", "flash_attention_2"])
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    clock_help = "wall time, or on a shared machine the processor time of all threads"
    parser.add_argument("--clock", default="wall", choices=[*CLOCKS], help=clock_help)
    results = Path(__file__).parent / "results" / Path(script).with_suffix(".csv").name
    parser.add_argument("--output", type=Path, default=results)
    return parser


def seconds(function: Callable[[], object], arguments: argparse.Namespace) -> float:
    """Time of one call by the clock that was asked for, waiting for the device."""
    clock = CLOCKS[arguments.clock]
    start = clock()
    function()
    if arguments.device.startswith("cuda"):
        torch.cuda.synchronize()
    return clock() - start


def best_of(
    functions: Mapping[str, Callable[[], object]], arguments: argparse.Namespace, rounds: int | None = None
) -> dict[str, float]:
    """Best time of each function over alternating rounds (the command line's), after one round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for number in range((rounds or arguments.rounds) + 1):
        for name, function in functions.items():
            elapsed = seconds(function, arguments)
            if number:
                times[name].append(elapsed)
    return {name: min(values) for name, values in times.items()}


def macs(function: Callable[[], object]) -> int:
    """Multiply-accumulates of one call, those of attention included: of fused kernels the counter knows only some."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        function()
    return counter.get_total_flops() // 2


def training_step(model: torch.nn.Module, loss: Callable[[], torch.Tensor]) -> Callable[[], None]:
    """
    A closure that does one step of AdamW on what `loss` returns. Gradients stay, as zeros, from step to step; the
    optimiser, which costs all sides the same, is the quick one.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

    def step() -> None:
        model.train()
        loss().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)

    return step


def peak_bytes(
    make: Callable[..., Callable[[], object]], arguments: argparse.Namespace, *details: Any, warm: bool = True
) -> int:
    """
    Bytes that a call needs above what stands before it, in a process of its own.

    Args:
        make (`Callable`):
            Makes what is called from `arguments` and `details`; a function of a module.
        arguments (`argparse.Namespace`):
            The command line.
        details:
            What else it takes.
        warm (`bool`, *optional*, defaults to `True`):
            Call once before, so that gradients and the optimiser's state stand already. What it frees goes back to
            the kernel: kept by the C library, it would pass for what stood before the call that is measured.
    """
    with (
        patch.dict(os.environ, RETURN_FREED_MEMORY),
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool,
    ):
        return pool.submit(_peak_bytes, make, arguments, details, warm).result()


def _peak_bytes(
    make: Callable[..., Callable[[], object]], arguments: argparse.Namespace, details: Sequence[Any], warm: bool
) -> int:
    torch.set_num_threads(arguments.threads)
    call = make(arguments, *details)
    if warm:
        call()
    if arguments.device.startswith("cuda"):
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        return torch.cuda.max_memory_allocated() - before
    before = memory_kilobytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the kernel's peak starts anew
    call()
    return 1024 * (memory_kilobytes("VmHWM") - before)


def memory_kilobytes(field: str) -> int:
    """Of this process, from the kernel; `getrusage`'s peak would start from the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))
