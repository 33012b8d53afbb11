"""
Features of many clips by the engines `local` and `ray` on this machine: clips a second, and memory over very many.

    python -m benchmarks.data_engine                          # speed, both engines alternating
    python -m benchmarks.data_engine --memory --engine ray    # memory over 50,000 clips

Speed is that between the first and the last file of results, which leaves out the start of processes: a model of S
size in one process, a decoder in another, a thread each. Memory is that of this process and all that it started (each
shared page counted once), after every tenth of the clips: a few hundred tiny clips under 50,000 names, a tiny model.
"""

import argparse
import itertools
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pyarrow.parquet as pq
import torch

from benchmarks._machine import write_csv
from hf_videovit import VideoMAEV2Config, VideoMAEV2Model, VideoMAEV2VideoProcessor
from hf_videovit.bulk.engines import Engine, run_work
from hf_videovit.bulk.ray_engine import ray_cluster
from hf_videovit.inference.bulk import embedding_work
from hf_videovit.training.data.sources import VideoList


RESULTS = Path(__file__).parent / "results"
SMALL = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "intermediate_size": 1536}
TINY = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
TINY |= {"image_size": 32, "patch_size": 16, "num_frames": 4}
MEGABYTE = 2**20


class Loader:
    """Makes the model, with the same numbers in every process."""

    def __init__(self, fields: dict[str, int]):
        self.fields = fields

    def processor(self) -> VideoMAEV2VideoProcessor:
        side, frames = self.fields.get("image_size", 224), self.fields.get("num_frames", 16)
        size = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
        return VideoMAEV2VideoProcessor(num_frames=frames, frame_stride=2, **size)

    def __call__(self) -> tuple[Any, Any]:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        return VideoMAEV2Model(VideoMAEV2Config(**self.fields)).eval(), self.processor()


def write_clips(folder: Path, count: int, num_frames: int, height: int, width: int) -> list[Path]:
    """Clips of noise that moves, in H.264."""
    paths = []
    for number in range(count):
        picture = np.random.default_rng(number).integers(0, 255, (height // 8, width // 8, 3), np.uint8)
        picture = picture.repeat(8, axis=0).repeat(8, axis=1)
        paths.append(folder / f"{number:04d}.mp4")
        with av.open(paths[-1], "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            for shift in range(num_frames):
                frame = av.VideoFrame.from_ndarray(np.roll(picture, shift, axis=1), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    return paths


def link_clips(folder: Path, clips: list[Path], count: int) -> list[str]:
    """`count` names of a few files."""
    names = []
    for number, clip in zip(range(count), itertools.cycle(clips)):
        part = folder / f"{number // 1000:03d}"
        part.mkdir(exist_ok=True)
        os.link(clip, part / f"{number:06d}.mp4")
        names.append(str(part / f"{number:06d}.mp4"))
    return names


def embed(names: list[str], fields: dict[str, int], output: Path, engine: str, rows_per_file: int, batch: int) -> None:
    """Run one engine over all clips."""
    load = Loader(fields)
    work = embedding_work(load, load.processor(), pooling="mean", batch_size=batch, rows_per_file=rows_per_file)
    source = VideoList(names, names, [None] * len(names), [])
    done = run_work(work, source, output, description={}, engine=Engine(engine, num_workers=1))  # type: ignore[arg-type]
    assert done.num_rows == len(names), done.failed[:1]


def steady_rate(output: Path) -> float:
    """Clips a second between the first and the last file."""
    files = sorted(output.glob("*.parquet"), key=lambda path: path.stat().st_mtime_ns)
    rows = sum(pq.read_metadata(path).num_rows for path in files[1:])
    return rows / (files[-1].stat().st_mtime - files[0].stat().st_mtime)


def measure_speed(arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Both engines in turns."""
    clips = write_clips(folder, 8, 64, 256, 344)
    names = link_clips(folder, clips, arguments.clips or 64)
    rates: dict[str, list[float]] = {"local": [], "ray": []}
    with ray_cluster(None, num_cpus=2):
        for turn in range(arguments.rounds):
            for engine, found in rates.items():
                output = folder / f"{engine}-{turn}"
                embed(names, SMALL, output, engine, rows_per_file=4, batch=2)
                found.append(steady_rate(output))
                print(engine, f"{found[-1]:.3f} clips/s", flush=True)
    ratios = [ray / local for local, ray in zip(rates["local"], rates["ray"])]
    return [
        {
            "measure": "speed",
            "engine": engine,
            "clips": len(names),
            "clips_per_second": round(statistics.median(found), 3),
            "ratio_to_local": round(statistics.median(ratios), 3) if engine == "ray" else 1.0,
            "rounds": arguments.rounds,
        }
        for engine, found in rates.items()
    ]


def memory_megabytes() -> tuple[float, float]:
    """Of this process, and of it with all that it started."""
    own = psutil.Process()
    total = 0
    for process in [own, *own.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:  # it has ended
            continue
    return own.memory_info().rss / MEGABYTE, total / MEGABYTE


@contextmanager
def sampled(output: Path, steps: list[int], take: Callable[[int], None]) -> Iterator[None]:
    """Calls `take` with the number of finished clips as they pass `steps`."""
    ended = threading.Event()

    def watch() -> None:
        left, counted = list(steps), dict[Path, int]()
        while left and not ended.wait(1):
            for path in set(output.glob("*.parquet")) - counted.keys():
                counted[path] = pq.read_metadata(path).num_rows
            while left and sum(counted.values()) >= left[0]:
                take(left.pop(0))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def measure_memory(arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Memory of one engine as clips pass."""
    count = arguments.clips or 50_000
    names = link_clips(folder, write_clips(folder, 200, 8, 32, 48), count)
    rows: list[dict[str, Any]] = []
    started = time.monotonic()

    def take(done: int) -> None:
        own, total = memory_megabytes()
        row = {"measure": "memory", "engine": arguments.engine, "clips": count, "clips_done": done}
        row |= {"own_megabytes": round(own), "all_megabytes": round(total)}
        rows.append(row | {"seconds": round(time.monotonic() - started)})
        print(rows[-1], flush=True)

    output = folder / "results"
    with sampled(output, [count * step // 10 for step in range(1, 10)], take):
        embed(names, TINY, output, arguments.engine, rows_per_file=500, batch=16)
    return rows


def main() -> None:
    """Measure, and write a row for each figure."""
    os.environ.update(RAY_worker_niceness="0")  # as the processes of the other engine; Ray's are polite by default
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", action="store_true", help="memory over many clips instead of speed")
    parser.add_argument("--engine", choices=("local", "ray"), default="ray", help="of --memory")
    parser.add_argument("--clips", type=int, help="number of clips; 64, or 50,000 with --memory")
    parser.add_argument("--rounds", type=int, default=3, help="turns of the two engines")
    parser.add_argument("--output", type=Path, help="the CSV file")
    arguments = parser.parse_args()
    name = f"data_engine_memory_{arguments.engine}.csv" if arguments.memory else "data_engine.csv"
    with tempfile.TemporaryDirectory() as folder:
        rows = (measure_memory if arguments.memory else measure_speed)(arguments, Path(folder))
    write_csv(arguments.output or RESULTS / name, rows)


if __name__ == "__main__":
    main()
