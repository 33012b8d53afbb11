"""
What the loader and the loop cost beside the model, both sides of each comparison in one run:

    python -m benchmarks.training                       # everything, some ten minutes
    python -m benchmarks.training --part loader         # one part; the others' figures stay in the file

`loader`: training steps a second with clips that are decoded and augmented on the way, by 0, 1 and 2 workers, beside
the same steps on batches kept in memory; and what the loader gives with nothing behind it.
`copies`: clips a second with 1, 2 and 4 augmented copies of each decoded clip.
What the engine costs beside a bare loop: `benchmarks.engine`.

The training process computes with one thread, so that a worker has a core of its own on a machine with two. Beside the
time of a step stands the processor time that the training process itself spent on it: what a step takes where workers
decode on cores that nobody else needs. Rounds alternate between the sides; a side's figure is its median round.
Without `--data`, clips of the kind of Kinetics are made: 340x256, 10 s at 30 frames/s, H.264.
"""

import argparse
import csv
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

import hf_videovit  # noqa: F401  (registers the families)
from benchmarks._machine import write_csv
from benchmarks.decoding import make_clip
from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.building import build_model
from hf_videovit.training.data.sources import VideoList, VideoSource
from hf_videovit.training.data.streaming import Batch, ClipStream
from hf_videovit.training.engine.loop import fit
from hf_videovit.training.methods.classification import Classification
from hf_videovit.training.optimization import build_optimizer


PARTS = ("loader", "copies")
Tick = tuple[float, float]  # wall clock, processor time of this process
Side = Callable[[], Tick]
NAMES = ["one", "other"]
MODELS = {
    "tiny": {"hidden_size": 192, "num_hidden_layers": 12, "num_attention_heads": 3, "intermediate_size": 768},
    "micro": {"hidden_size": 96, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 384},
    "nano": {"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 384},
}
SIZES = {
    "tiny": {"image_size": 112, "num_frames": 16},
    "micro": {"image_size": 64, "num_frames": 8},
    "nano": {"image_size": 32, "num_frames": 4},
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, action="append", help="all by default")
    parser.add_argument("--data", type=Path, help="folder of clips")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=12, help="of a round; the first two are not timed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "training.csv")
    return parser.parse_args()


class Bench:
    """A run of one model over one set of clips, put together as `finetune` does it."""

    def __init__(self, model: str, source: VideoSource, arguments: argparse.Namespace, folder: Path):
        self.model_name, self.source, self.arguments, self.folder = model, source, arguments, folder
        self.accelerator = Accelerator(cpu=True)

    def config(self, **fields: Any) -> RunConfig:
        shutil.rmtree(self.folder, ignore_errors=True)
        own = {"batch_size": self.arguments.batch_size, "max_steps": self.arguments.steps, "clip_grad": 1.0}
        own |= {"save_every": 0, "progress": False, "cpu": True, "output_dir": str(self.folder)}
        model = {"config": MODELS[self.model_name] | SIZES[self.model_name], "processor": {"frame_stride": 4}}
        return RunConfig.from_fields(**own | model | fields)

    def method(self, config: RunConfig) -> Classification:
        torch.manual_seed(0)
        model, processor = build_model(config.model, NAMES)
        method = Classification(config, model=model, processor=processor, train_source=self.source)
        method.begin(self.accelerator)
        return method

    def kept(self, count: int) -> list[Batch]:
        """Batches of the real loader, to be used again and again."""
        config = self.config(num_workers=0)
        return list(islice(self.method(config).stream().epoch(0), count))

    def engine_seconds(self, kept: list[Batch] | None = None, **fields: Any) -> Tick:
        """Seconds a step of the engine, with the real loader or with batches that are kept."""
        config = self.config(**fields)
        method = self.method(config)
        stream = method.stream()
        if kept is not None:
            stream.__class__, stream.kept = KeptStream, kept
        ticks: list[Tick] = []

        def timed(rows: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
            ticks.append(tick())
            return method.prepare_batch(rows, device)

        fit(
            method.task(),
            stream,
            method.config,
            accelerator=self.accelerator,
            prepare_batch=timed,
            ledger=method.ledger,
        )
        return seconds_a_step(ticks)

    def bare_seconds(self, kept: list[Batch]) -> Tick:
        """Seconds a step of the least that trains the model alike."""
        config = self.config()
        method = self.method(config)
        task = method.task()
        groups = task.parameter_groups(config.optimization.weight_decay, 1.0)
        optimizer = build_optimizer(groups, config.optimization)
        parameters = list(task.parameters())
        task.train()
        ticks = []
        for batch in islice(cycle(kept), self.arguments.steps):
            ticks.append(tick())
            loss = task(method.prepare_batch(batch.rows, torch.device("cpu")))["loss"]
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
        return seconds_a_step(ticks)

    def loader_seconds(self, **fields: Any) -> Tick:
        """Seconds a batch of the loader alone."""
        config = self.config(**fields)
        batches = islice(self.method(config).stream().epoch(0), 3 * self.arguments.steps)
        ticks = [tick() for _ in batches]
        return seconds_a_step(ticks)


class KeptStream(ClipStream):
    """Batches from memory instead of files."""

    kept: list[Batch]

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        return islice(cycle(self.kept), self.num_batches())


def tick() -> Tick:
    return time.perf_counter(), time.process_time()


def seconds_a_step(ticks: list[Tick]) -> Tick:
    """Of all but the first two steps."""
    wall, processor = ((end - start) / (len(ticks) - 3) for start, end in zip(ticks[2], ticks[-1]))
    return wall, processor


def race(sides: dict[str, Side], rounds: int) -> dict[str, Tick]:
    """Median seconds of each side; every other round in reverse order."""
    times: dict[str, list[Tick]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
            times[name].append(sides[name]())
    return {
        name: (statistics.median(wall for wall, _ in values), statistics.median(own for _, own in values))
        for name, values in times.items()
    }


def row(part: str, bench: Bench, side: str, seconds: Tick, **more: Any) -> dict[str, Any]:
    wall, processor = seconds
    return {
        "part": part,
        "model": bench.model_name,
        "side": side,
        "batch": bench.arguments.batch_size,
        "steps_per_second": round(1 / wall, 3),
        "clips_per_second": round(bench.arguments.batch_size / wall, 2),
        "ms_per_step": round(1000 * wall, 2),
        "own_processor_ms_per_step": round(1000 * processor, 2),
        **more,
        "rounds": bench.arguments.rounds,
    }


def ratios(name: str, best: Tick, other: Tick) -> dict[str, float]:
    """How much of the best pace another side reaches, by the clock and by the training process's own time."""
    return {name: round(best[0] / other[0], 4), f"{name}_by_processor_time": round(best[1] / other[1], 4)}


def loader_part(source: VideoSource, arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    bench = Bench("tiny", source, arguments, folder)
    kept = bench.kept(4)
    sides: dict[str, Side] = {"cached tensors": partial(bench.engine_seconds, kept)}
    for workers in (0, 1, 2):
        sides[f"{workers} workers"] = partial(bench.engine_seconds, num_workers=workers)
    seconds = race(sides, arguments.rounds)
    alone = {f"{workers} workers": bench.loader_seconds(num_workers=workers) for workers in (0, 1, 2)}
    cached = seconds["cached tensors"]
    rows = [
        row("loader", bench, name, value, **ratios("share_of_cached", cached, value))
        for name, value in seconds.items()
    ]
    return rows + [row("loader alone", bench, name, value) for name, value in alone.items()]


def copies_part(source: VideoSource, arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """As many clips a batch whatever the copies: fewer videos are decoded for them."""
    bench = Bench("tiny", source, arguments, folder)
    sides: dict[str, Side] = {}
    for copies in (1, 2, 4):
        fields = {"num_sample": copies, "batch_size": max(1, arguments.batch_size // copies), "num_workers": 1}
        sides[f"{copies} copies, training"] = partial(bench.engine_seconds, **fields)
        sides[f"{copies} copies, loader alone"] = partial(bench.loader_seconds, **fields)
    seconds = race(sides, arguments.rounds)
    return [row("copies", bench, name, value) for name, value in seconds.items()]


def open_clips(arguments: argparse.Namespace, folder: Path, count: int) -> VideoSource:
    if arguments.data is None:
        first = make_clip(folder / "clip_0.mp4")
        paths = [first] + [Path(shutil.copy(first, folder / f"clip_{index}.mp4")) for index in range(1, 16)]
    else:
        paths = sorted(path for path in arguments.data.rglob("*") if path.suffix in (".mp4", ".avi", ".webm", ".mkv"))
    chosen = list(islice(cycle(paths), count))
    ids = [f"{index}" for index in range(count)]
    return VideoList(ids, [str(path) for path in chosen], [index % 2 for index in range(count)], NAMES)


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(1)
    parts = {"loader": loader_part, "copies": copies_part}
    rows: list[dict[str, Any]] = []
    if arguments.output.exists():
        with arguments.output.open(encoding="utf-8", newline="") as file:
            rows = [{key: value for key, value in old.items() if key != "machine"} for old in csv.DictReader(file)]
    with tempfile.TemporaryDirectory() as name:
        source = open_clips(arguments, Path(name), 10 * arguments.batch_size * arguments.steps)
        for part in arguments.part or PARTS:
            new = parts[part](source, arguments, Path(name) / "out")
            for line in new:
                print(*(f"{key}={value}" for key, value in line.items()))
            done = {line["part"] for line in new}
            rows = [old for old in rows if old["part"] not in done] + new
            write_csv(arguments.output, rows)


if __name__ == "__main__":
    main()
