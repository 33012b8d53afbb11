"""
What the training loop costs beside the model: steps of the engine beside a bare loop (forward, backward, clipping,
AdamW), both on the same batches in memory, with the same model and optimiser:

    python -m benchmarks.engine --rounds 25

A step of the smallest model, `nano`, takes about 5 ms on one thread of an idle machine. Rounds of the two sides take
turns and their order is reversed every time. `share_of_bare` is the median over pairs of rounds of the bare loop's
processor time over the engine's, `ms_per_step` a side's median round. The engine logs every 10 steps.
"""

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks._machine import write_csv
from benchmarks.training import Bench, Tick, open_clips


STEPS = {"nano": 100, "micro": 60, "tiny": 6}  # of a round; the first two are not timed


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=[*STEPS], action="append", help="all by default")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "engine.csv")
    return parser.parse_args()


def pairs(sides: dict[str, Callable[[], Tick]], rounds: int) -> dict[str, list[Tick]]:
    """Seconds of each side in each pair of rounds."""
    times: dict[str, list[Tick]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
            times[name].append(sides[name]())
    return times


def compare(model: str, arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Rows of both sides of one model."""
    own = argparse.Namespace(**vars(arguments) | {"steps": STEPS[model], "data": None})
    bench = Bench(model, open_clips(own, folder, 2 * own.batch_size * own.steps), own, folder / "out")
    kept = bench.kept(4)
    engine = partial(bench.engine_seconds, kept, curves=False)
    times = pairs({"bare loop": partial(bench.bare_seconds, kept), "engine": engine}, arguments.rounds)
    rows = []
    for side, ticks in times.items():
        share = median(bare[1] / this[1] for bare, this in zip(times["bare loop"], ticks))
        row = {"model": model, "side": side, "batch": own.batch_size, "steps": own.steps, "rounds": arguments.rounds}
        row |= {"ms_per_step": round(1000 * median(wall for wall, _ in ticks), 3)}
        row |= {"processor_ms_per_step": round(1000 * median(processor for _, processor in ticks), 3)}
        rows.append(row | {"share_of_bare": round(share, 4)})
        print(*(f"{key}={value}" for key, value in rows[-1].items()), flush=True)
    return rows


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for model in arguments.model or STEPS:
            rows += compare(model, arguments, Path(folder))
            write_csv(arguments.output, rows)


if __name__ == "__main__":
    main()
