"""
Features of overlapping windows beside the bare encoder, both in one run:

    python -m benchmarks.window_features

Videos of 10 s (340 x 256 pixels, 30 frames a second) are decoded, resized and cut into windows of 16 frames, 4 apart;
the encoder is VideoMAE V2-S. The bare encoder gets as many windows that are in memory. Rounds alternate; a side's time
is its fastest round. A share of 1 means that decoding and windows cost nothing beside the encoder.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks._machine import write_csv
from benchmarks.decoding import make_clip
from hf_videovit import VideoMAEV2Config, VideoMAEV2Model, VideoMAEV2VideoProcessor
from hf_videovit.inference.features import iter_video_features


RESULTS = Path(__file__).parent / "results" / "window_features.csv"
FRAMES, WINDOW, STRIDE = 300, 16, 4


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image-size", type=int, default=112)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--videos", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of the encoder")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def timed(one: Callable[[], Any]) -> tuple[float, float]:
    """Wall clock and processor time of this process."""
    wall, own = time.perf_counter(), time.process_time()
    one()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - own


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    config = VideoMAEV2Config.from_size("small", image_size=arguments.image_size)
    model = VideoMAEV2Model(config).eval().to(arguments.device)
    side = {"height": arguments.image_size, "width": arguments.image_size}
    processor = VideoMAEV2VideoProcessor(size={"shortest_edge": arguments.image_size}, crop_size=side)
    with tempfile.TemporaryDirectory() as folder:
        clips = [Path(folder) / f"{number}.mp4" for number in range(arguments.videos)]
        for clip in clips:
            make_clip(clip)
        count = arguments.videos * ((FRAMES - WINDOW) // STRIDE + 1)
        shape = (arguments.batch_size, WINDOW, 3, arguments.image_size, arguments.image_size)
        batch = torch.zeros(shape, device=arguments.device)

        @torch.no_grad()
        def bare() -> None:
            for start in range(0, count, arguments.batch_size):
                model(pixel_values=batch[: min(arguments.batch_size, count - start)])

        def features() -> None:
            settings = {"window": WINDOW, "stride": STRIDE, "squash": True, "batch_size": arguments.batch_size}
            found = list(iter_video_features(model, processor, clips, **settings))
            assert sum(map(len, found)) == count

        sides = {"bare encoder": bare, "features of windows": features}
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
        for _ in range(arguments.rounds):
            for name, one in sides.items():
                times[name].append(timed(one))
    best = {name: [min(column) for column in zip(*found)] for name, found in times.items()}
    rows = [
        {
            "side": name,
            "windows": count,
            "windows_per_second": round(count / wall, 3),
            "share_of_bare": round(best["bare encoder"][0] / wall, 3),
            "share_of_bare_by_processor_time": round(best["bare encoder"][1] / own, 3),
            "image_size": arguments.image_size,
            "batch_size": arguments.batch_size,
            "threads": arguments.threads,
            "device": arguments.device,
        }
        for name, (wall, own) in best.items()
    ]
    for row in rows:
        print(row)
    write_csv(RESULTS, rows)


if __name__ == "__main__":
    main()
