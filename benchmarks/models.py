"""
The six families against the structure of the official implementations and against other libraries, each with both
sides in one run: time, share of the bare matrix-product rate, peak memory.

    python -m benchmarks.models --threads 1 --clock processor          # on a shared machine
    python -m benchmarks.models --tasks "UniFormerV2-B, 8 x 224"       # some rows; the others stay in the file
    python -m benchmarks.models --page                                 # write docs/speed.md from the file

`benchmarks/reference` holds the official structure. Where weights map, all sides have the same and must give the same
answers. A forward pass is without gradients; a training step is forward, backward and AdamW, whose state stands
already. Nothing is dropped at random, so that sides do equal work. Rounds alternate between the sides and the best of
each counts. Memory is what a call needs above weights, gradients and optimiser, each side in a process of its own.

The bare rate is that of the two products of a ViT-B's MLP on 1,568 tokens, in the same rounds. The work of a task is
the multiply-accumulates of the official structure, also for a side that does fewer; a training step counts as three
forward passes.
"""

import argparse
import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks._comparison import SETTING, best_of, macs, make_parser, peak_bytes, training_step
from benchmarks._machine import write_csv
from benchmarks._model_page import page
from benchmarks._model_sides import OFFICIAL, TASKS, Side, Task


RESULTS = Path(__file__).parent / "results" / "models.csv"
CHOICES = RESULTS.with_name("alternatives.csv")
PAGE = Path(__file__).parents[1] / "docs" / "speed.md"
TOLERANCE = 1e-3  # of answers about 1 in size: sums in another order
PASSES = {"forward": 1, "training step": 3}  # a backward pass counts as two forward passes
PRODUCT = (1568, 768, 3072)


def bare_products(device: str, dtype: torch.dtype) -> tuple[Callable[[], torch.Tensor], int]:
    """Both products of an MLP, and their multiply-accumulates."""
    tokens, narrow, wide = PRODUCT
    states = torch.randn(tokens, narrow, device=device, dtype=dtype)
    up, down = (torch.randn(shape, device=device, dtype=dtype) for shape in ((narrow, wide), (wide, narrow)))
    return lambda: states @ up @ down, 2 * tokens * narrow * wide


def make_call(side: Side, phase: str) -> Callable[[], object]:
    """A forward pass without gradients, or a training step."""
    if phase == "training step":
        return training_step(side.model, side.loss)

    @torch.no_grad()
    def forward() -> torch.Tensor:
        side.model.eval()
        return side.answers()

    return forward


def make_side(arguments: argparse.Namespace, task: str, name: str, phase: str) -> Callable[[], object]:
    """What memory is measured of."""
    return make_call(TASKS[task].sides(arguments)[name], phase)


def largest_difference(sides: Mapping[str, Side]) -> float:
    """Of the answers of the sides with the same weights; stops if they differ."""
    first, *others = [make_call(side, "forward")() for side in sides.values() if side.same_weights]
    assert isinstance(first, torch.Tensor)
    for other in others:
        torch.testing.assert_close(other, first, rtol=TOLERANCE, atol=TOLERANCE)
    return max((float((other - first).abs().max()) for other in others), default=0.0)


def measure(arguments: argparse.Namespace, task: Task) -> list[dict[str, Any]]:
    """Rows of all phases and sides of a task; ours is the first side, the official structure the second."""
    sides = task.sides(arguments)
    difference = largest_difference(sides)
    product, product_macs = bare_products(arguments.device, getattr(torch, arguments.dtype))
    work = {name: macs(make_call(side, "forward")) for name, side in sides.items()}
    work |= {name: work[OFFICIAL] for name, side in sides.items() if side.same_weights}
    rows = []
    for phase in task.phases:
        calls = {name: make_call(side, phase) for name, side in sides.items() if phase in side.phases}
        times = best_of({**calls, "product": product}, arguments, arguments.rounds * task.repeats)
        peaks = {name: peak_bytes(make_side, arguments, task.name, name, phase) for name in calls}
        ours, rate = next(iter(calls)), product_macs / times["product"]
        for name in calls:
            rows.append(
                {
                    "task": task.name,
                    "phase": phase,
                    "side": name,
                    "seconds": round(times[name], 4),
                    "speed_of_ours": round(times[name] / times[ours], 3),
                    "gmacs": round(work[name] * PASSES[phase] / 1e9, 2),
                    "share_of_matrix_product_rate": round(work[name] * PASSES[phase] / times[name] / rate, 3),
                    "peak_megabytes": round(peaks[name] / 1e6, 1),
                    "memory_of_ours": round(peaks[ours] / peaks[name], 3),
                    "largest_difference": f"{difference:.1e}" if sides[name].same_weights else "",
                    **{name: getattr(arguments, name) for name in SETTING},
                }
            )
    return rows


def read_rows(path: Path = RESULTS) -> list[dict[str, str]]:
    """Rows of the file of results; none without a file."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def main(names: Sequence[str] | None = None) -> None:
    """Measure the tasks that were asked for; rows of others stay in the file."""
    parser = make_parser(__doc__, __file__, rounds=3)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS), metavar="TASK")
    parser.add_argument("--page", action="store_true", help=f"only write {PAGE.name}")
    arguments = parser.parse_args(names)
    if not arguments.page:
        torch.set_num_threads(arguments.threads)
        for name in arguments.tasks:
            torch.manual_seed(0)
            rows: list[dict[str, Any]] = measure(arguments, TASKS[name])
            for row in rows:
                print(*(f"{column}={value}" for column, value in row.items() if column not in SETTING), flush=True)
            kept = [row for row in read_rows(arguments.output) if row["task"] != name]
            order = list(TASKS)
            write_csv(arguments.output, sorted([*kept, *rows], key=lambda row: order.index(row["task"])))
    PAGE.write_text(page(read_rows(arguments.output), read_rows(CHOICES)), encoding="utf-8")


if __name__ == "__main__":
    main()
