"""
What the training loop costs beside the model: steps of the engine beside a bare loop (forward, backward, clipping,
AdamW), both on the same batches in memory, with the same model and optimiser, by processor time:

    python -m benchmarks.engine --rounds 20

Models of three sizes: a step of the smallest takes about 5 ms on one thread, so that what the engine costs shows in
full. Rounds of the two sides alternate; a side's figure is its median round. The engine logs every 10 steps.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path

import torch

from benchmarks._machine import write_csv
from benchmarks.training import Bench, open_clips, race, ratios, row


STEPS = {"nano": 200, "micro": 60, "tiny": 10}  # of a round


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=[*STEPS], action="append", help="all by default")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "engine.csv")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for model in arguments.model or STEPS:
            own = argparse.Namespace(**vars(arguments) | {"steps": STEPS[model], "data": None})
            source = open_clips(own, Path(name), 2 * own.batch_size * own.steps)
            bench = Bench(model, source, own, Path(name) / "out")
            kept = bench.kept(4)
            sides = {"bare loop": partial(bench.bare_seconds, kept), "engine": partial(bench.engine_seconds, kept)}
            seconds = race(sides, arguments.rounds)
            for side, value in seconds.items():
                rows.append(row("engine", bench, side, value, **ratios("share_of_bare", seconds["bare loop"], value)))
                print(*(f"{key}={value}" for key, value in rows[-1].items()))
            write_csv(arguments.output, rows)


if __name__ == "__main__":
    main()
