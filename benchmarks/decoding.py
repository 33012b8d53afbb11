"""
Clips per second through our loader beside the bare decoder, both in one run:

    python -m benchmarks.decoding
    python -m benchmarks.decoding CLIP.mp4 FOLDER_OF_CLIPS

Both sides open the file, decode the same 16 frames and give them as one array. The bare decoder is PyAV in as few
lines as it takes, with one converter for all frames: once from the start of the file and once with a seek. It is told
the frames and trusts the file; our loader counts the frames, plans, and checks what comes out. "known" is our loader
on a file that it has seen before. One thread, rounds alternate between the sides, the median counts. Without a file, a
clip of the kind of Kinetics is made: 340x256, 10 s at 30 frames/s, H.264.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from benchmarks._machine import write_csv
from hf_videovit.modeling import video_decoding_pyav
from hf_videovit.modeling.video_decoding import decode_video, probe_video


NUM_FRAMES = 16
STRIDE = 4
SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov")
Sides = dict[str, Callable[[Path, np.ndarray], np.ndarray]]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path, nargs="*", help="files, or folders whose clips are read in turn")
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--clips-per-round", type=int, default=8)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "decoding.csv")
    return parser.parse_args()


def make_clip(path: Path, fps: int = 30, num_frames: int = 300, crf: int = 23) -> Path:
    """Smooth noise that pans, so that motion and texture cost what they cost in real video."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (40, 50, 3)).astype(np.float32)
    ground = np.kron(coarse, np.ones((16, 16, 1), np.float32)) + generator.normal(0, 6, (640, 800, 3))
    ground = ground.clip(0, 255).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps))
        stream.height, stream.width, stream.pix_fmt = 256, 340, "yuv420p"
        stream.options = {"crf": str(crf), "preset": "medium"}
        for number in range(num_frames):
            index = number % 300
            frame = ground[index : index + 256, (3 * index) // 2 : (3 * index) // 2 + 340]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    return path


def dense(num_frames: int) -> np.ndarray:
    """16 frames, 4 apart, in the middle; the last one again where the clip is too short."""
    start = max(0, (num_frames - NUM_FRAMES * STRIDE) // 2)
    return np.minimum(start + STRIDE * np.arange(NUM_FRAMES), num_frames - 1)


def uniform(num_frames: int) -> np.ndarray:
    """16 frames spread over the whole clip."""
    return np.linspace(0, num_frames - 1, NUM_FRAMES).astype(int)


def bare(path: Path, indices: np.ndarray, seek: bool) -> np.ndarray:
    """What a user would write who knows the file: constant rate, times from 0, no rotation, no damage."""
    wanted = set(indices.tolist())
    frames: dict[int, np.ndarray] = {}
    converter = VideoReformatter()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        step = 1 / (stream.average_rate * stream.time_base)
        if seek:
            container.seek(int(indices[0] * step), stream=stream)
        for frame in container.decode(stream):
            index = round(frame.pts / step)
            if index in wanted:
                frames[index] = converter.reformat(frame, format="rgb24", threads=1).to_ndarray()
                if len(frames) == len(wanted):
                    break
    return np.stack([frames[index] for index in indices])


def ours(path: Path, plan: Callable[[int], np.ndarray], known: bool) -> np.ndarray:
    if not known:
        video_decoding_pyav._indices.clear()
    return decode_video(path, lambda metadata: plan(metadata.total_num_frames)).frames


def sides_of(plan: Callable[[int], np.ndarray]) -> Sides:
    return {
        "bare, from the start": lambda path, indices: bare(path, indices, seek=False),
        "bare, with a seek": lambda path, indices: bare(path, indices, seek=True),
        "hf_videovit": lambda path, indices: ours(path, plan, known=False),
        "hf_videovit, known": lambda path, indices: ours(path, plan, known=True),
    }


def measure(name: str, paths: list[Path], plan: Callable[[int], np.ndarray], arguments: argparse.Namespace) -> list:
    """One row a side: median clips per second, and the share of the faster bare decoder."""
    indices = {path: plan(probe_video(path).num_frames) for path in paths}
    sides = sides_of(plan)
    for path in paths[:8]:  # both sides must give the same frames, or the race means nothing
        results = [side(path, indices[path]) for side in sides.values()]
        if not all(np.array_equal(results[0], result) for result in results):
            raise SystemExit(f"{path}: the sides give different frames")
    turns = cycle(paths)
    times: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(arguments.repeats):
        round_paths = list(islice(turns, arguments.clips_per_round))
        order = list(sides) if number % 2 == 0 else list(sides)[::-1]
        for side in order:
            start = time.process_time()
            for path in round_paths:
                sides[side](path, indices[path])
            times[side].append((time.process_time() - start) / len(round_paths))
    medians = {side: statistics.median(values) for side, values in times.items()}
    best_bare = min(value for side, value in medians.items() if side.startswith("bare"))
    return [
        {
            "clips": name,
            "plan": plan.__name__,
            "side": side,
            "clips_per_second": round(1 / seconds, 2),
            "median_ms": round(1000 * seconds, 3),
            "share_of_faster_bare": round(best_bare / seconds, 3),
            "rounds": arguments.repeats,
        }
        for side, seconds in medians.items()
    ]


def main() -> None:
    arguments = parse_arguments()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        sources = arguments.sources or [make_clip(Path(folder) / "made_340x256_30fps_10s.mp4")]
        for source in sources:
            paths = [source]
            if source.is_dir():
                paths = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES)
            for plan in (dense, uniform):
                rows += measure(source.name, paths, plan, arguments)
    write_csv(arguments.output, rows)
    for row in rows:
        print(*(f"{name}={value}" for name, value in row.items()))


if __name__ == "__main__":
    main()
