"""
`hf-videovit serve` under load, on this machine only:

    python -m benchmarks.serving
    python -m benchmarks.serving --seconds 20 --load 1 2 4

A tiny VideoMAE V2 is served, so that the figures are those of the server, not of a model. The requests are distinct
clips, whose answers the pipeline gave beforehand; no two are alike. First as many clients as the server holds requests
ask again and again, which gives its capacity. Then requests are sent at even distances, at a multiple of this rate,
whether or not the earlier ones are answered. A request is answered rightly, answered wrongly, refused (status 503), or
lost. Memory (private, of all processes), open files, processes and temporary files are counted before and after each
load. Client and server share the processor: the client's share is in the figures.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import pipeline

from benchmarks._machine import write_csv
from hf_videovit import VideoMAEV2Config, VideoMAEV2ForVideoClassification, VideoMAEV2VideoProcessor
from hf_videovit.training.preparing.digit_motion import write_clip


TOLERANCE = 1e-4
CLIPS = 32
LABELS = 8


@dataclass(frozen=True)
class Clip:
    """A request and its answer: scores by label."""

    content: bytes
    scores: dict[str, float]

    def is_answered(self, answer: dict[str, Any]) -> bool:
        found = {one["label"]: one["score"] for one in answer["predictions"]}
        return found.keys() == self.scores.keys() and self.distance(found) < TOLERANCE

    def distance(self, scores: dict[str, float]) -> float:
        return max(abs(score - scores[label]) for label, score in self.scores.items())


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15.0, help="length of each load")
    parser.add_argument("--load", type=float, nargs="+", default=[1.0, 4.0], help="multiples of the capacity")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--max-requests", type=int, default=32)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "serving.csv")
    return parser.parse_args()


def make_model(folder: Path) -> Path:
    """A tiny classifier whose scores differ from clip to clip."""
    torch.manual_seed(0)
    config = VideoMAEV2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        patch_size=8,
        image_size=32,
        num_frames=4,
        num_labels=LABELS,
    )
    model = VideoMAEV2ForVideoClassification(config)
    torch.nn.init.normal_(model.classifier.weight, std=0.3)
    model.save_pretrained(folder)
    side = {"height": 32, "width": 32}
    VideoMAEV2VideoProcessor(num_frames=4, size={"shortest_edge": 32}, crop_size=side).save_pretrained(folder)
    return folder


def make_clips(folder: Path, model: Path) -> list[Clip]:
    """Clips of 1 s, 64 x 64 pixels, with the answers of the pipeline; any two differ by far more than is tolerated."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    paths = [folder / f"{number}.mp4" for number in range(CLIPS)]
    for path in paths:
        coarse = generator.integers(0, 256, (25, 4, 4, 3), dtype=np.uint8)
        write_clip(path, coarse.repeat(16, axis=1).repeat(16, axis=2))
    answers = pipeline("video-classification", model=str(model), device="cpu")(
        [str(one) for one in paths], top_k=LABELS
    )
    clips = [
        Clip(path.read_bytes(), {one["label"]: one["score"] for one in answer}) for path, answer in zip(paths, answers)
    ]
    nearest = min(one.distance(other.scores) for number, one in enumerate(clips) for other in clips[:number])
    if nearest < 10 * TOLERANCE:
        raise SystemExit(f"Two clips have answers that differ by {nearest:.2g} only")
    return clips


@contextmanager
def served(model: Path, scratch: Path, arguments: argparse.Namespace) -> Iterator[tuple[subprocess.Popen, int]]:
    """A running server and its port."""
    command = [sys.executable, "-m", "hf_videovit.cli", "serve", str(model), "--port", "0", "--device", "cpu"]
    command += ["--batch-size", str(arguments.batch_size), "--max-requests", str(arguments.max_requests)]
    command += ["--top-k", str(LABELS)]
    environment = {**os.environ, "TMPDIR": str(scratch), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline().rpartition(":")[2].partition("/")[0])
        try:
            yield server, port
        finally:
            server.send_signal(signal.SIGTERM)


# ---------------------------------------------------------------------- what a server holds


def family(pid: int) -> list[int]:
    """A process and all below it, those left out that have ended."""
    parents = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = file.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it ended meanwhile
            continue
        if state != "Z":
            parents[int(file.parent.name)] = int(parent)
    found = [pid] if pid in parents else []
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def private_memory(pid: int) -> int:
    """Bytes that a process shares with no other one."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def holdings(pid: int, scratch: Path) -> dict[str, int]:
    """What the processes of a server hold; nothing where there is no /proc."""
    if not Path("/proc/self/smaps_rollup").is_file():
        return {}
    pids = family(pid)
    return {
        "megabytes": round(sum(map(private_memory, pids)) / 1e6),
        "files": sum(len(list(Path(f"/proc/{one}/fd").iterdir())) for one in pids),
        "processes": len(pids),
        "temporary_files": sum(1 for path in scratch.rglob("*") if path.is_file()),
    }


# ---------------------------------------------------------------------- loads


async def ask(port: int, clip: Clip) -> tuple[str, float]:
    """How a request ended, and after how many seconds."""
    start = time.perf_counter()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(clip.content)}"
        writer.write(head.encode() + b"\r\n\r\n" + clip.content)
        status, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        code = int(status.split()[1])
    except (OSError, IndexError):
        return "lost", time.perf_counter() - start
    if code == 200:
        outcome = "right" if clip.is_answered(json.loads(body)) else "wrong"
    else:
        outcome = "refused" if code == 503 else f"status {code}"
    return outcome, time.perf_counter() - start


async def saturate(port: int, clips: list[Clip], clients: int, seconds: float) -> float:
    """Requests a second that are answered while as many are open as the server holds."""
    end, answered = time.perf_counter() + seconds, 0

    async def client(number: int) -> None:
        nonlocal answered
        while time.perf_counter() < end:
            outcome, _ = await ask(port, clips[(answered + number) % CLIPS])
            if outcome != "right":
                raise SystemExit(f"A request of {clients} at once was {outcome}")
            answered += 1

    start = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(clients)))
    return answered / (time.perf_counter() - start)


async def send(port: int, clips: list[Clip], rate: float, seconds: float) -> tuple[list[tuple[str, float]], float]:
    """Send requests at a rate; how each ended, and the rate that the client kept."""
    start, jobs = time.perf_counter(), []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, start + number / rate - time.perf_counter()))
        jobs.append(asyncio.create_task(ask(port, clips[number % CLIPS])))
    kept = len(jobs) / (time.perf_counter() - start)
    return list(await asyncio.gather(*jobs)), kept


def measure(
    load: float, capacity: float, server: int, port: int, clips: list[Clip], scratch: Path, length: float
) -> dict:
    """One row: a load, how its requests ended, and what the server held before and after it."""
    before = holdings(server, scratch)
    start = time.perf_counter()
    outcomes, kept = asyncio.run(send(port, clips, load * capacity, length))
    elapsed = time.perf_counter() - start
    time.sleep(1)
    after = holdings(server, scratch)
    counts = Counter(outcome for outcome, _ in outcomes)
    times = sorted(1000 * seconds for outcome, seconds in outcomes if outcome == "right")
    quantiles = statistics.quantiles(times, n=20)
    row: dict[str, Any] = {
        "load": load,
        "sent_per_second": round(kept, 1),
        "answered_per_second": round(counts["right"] / elapsed, 1),
        "p50_ms": round(quantiles[9], 1),
        "p95_ms": round(quantiles[18], 1),
        "sent": len(outcomes),
        "right": counts.pop("right"),
        "refused": counts.pop("refused", 0),
        "wrong": counts.pop("wrong", 0),
        "lost_or_failed": sum(counts.values()),
    }
    for name in before:
        row |= {f"{name}_before": before[name], f"{name}_after": after[name]}
    return row


def main() -> None:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        model, scratch = make_model(Path(folder) / "model"), Path(folder) / "scratch"
        clips = make_clips(Path(folder) / "clips", model)
        scratch.mkdir()
        with served(model, scratch, arguments) as (server, port):
            clients = arguments.max_requests
            asyncio.run(saturate(port, clips, clients, arguments.seconds / 3))  # warm
            capacity = asyncio.run(saturate(port, clips, clients, arguments.seconds))
            print(f"capacity: {capacity:.1f} requests/s with {clients} clients")
            rows = [
                measure(load, capacity, server.pid, port, clips, scratch, arguments.seconds) for load in arguments.load
            ]
            processes = family(server.pid)
        left = [pid for pid in processes if family(pid)]
        print(f"after SIGTERM: exit code {server.returncode}, {len(left)} of {len(processes)} processes are left")
        settings = {"batch_size": arguments.batch_size, "max_requests": clients, "capacity": round(capacity, 1)}
        rows = [{**row, **settings, "processes_left": len(left)} for row in rows]
    write_csv(arguments.output, rows)
    for row in rows:
        print(*(f"{name}={value}" for name, value in row.items()))


if __name__ == "__main__":
    main()
