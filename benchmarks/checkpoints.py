"""
Seconds for which a checkpoint holds a run: until it goes on (`begin`), and until all is written (`begin and finish`).

    python -m benchmarks.checkpoints --size small --repeats 5
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from hf_videovit import VideoMAEV2Config, VideoMAEV2ForVideoClassification
from hf_videovit.training.engine.checkpointing import CheckpointWriter, TrainingCheckpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="small")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", help="where to write; a temporary folder by default")
    arguments = parser.parse_args()
    model = VideoMAEV2ForVideoClassification(VideoMAEV2Config.from_size(arguments.size))
    weights = {name: value.detach() for name, value in model.state_dict().items()}
    moments = {
        f"{index}.{name}": torch.zeros_like(value)
        for index, value in enumerate(weights.values())
        for name in ("exp_avg", "exp_avg_sq")
    }
    parts = {"task": weights, "optimizer": moments, "ema": weights}
    held: dict[str, list[float]] = {"begin": [], "begin and finish": []}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        writer = CheckpointWriter(Path(folder), keep=1)
        for step in range(1, arguments.repeats + 1):
            started = time.perf_counter()
            writer.begin(TrainingCheckpoint(step, parts, {}, {}))
            held["begin"].append(time.perf_counter() - started)
            writer.finish()
            held["begin and finish"].append(time.perf_counter() - started)
    megabytes = sum(value.nbytes for values in parts.values() for value in values.values()) / 1e6
    for name, seconds in held.items():
        print(f"{name}: {statistics.median(seconds):.3f} s (median of {len(seconds)}) for {megabytes:.0f} MB")


if __name__ == "__main__":
    main()
