"""
A small benchmark of temporal localisation on two CPU cores: spoken words in long videos.

    python -m benchmarks.grid_words_localization --plan PLAN_FOLDER --clips grid_words8 --work WORK --seed 0 1 2

The videos are concatenations of clips of the GRID corpus: words, words played backwards, and frozen frames, listed
frame by frame in `plan.json` beside their segments in `truth.json`. Features are 64 principal components of four
frames of 16 x 16 grey pixels: nothing about words is learnt in them. `--quick` trains 148 steps instead of 592.
`--mouth` takes the pixels of the mouth alone, as `grid_words_encoders` does.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._machine import write_csv
from hf_videovit.feature_files import DESCRIPTION_FILE
from hf_videovit.modeling.video_decoding import decode_video
from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.methods.choosing import finetune


RESULTS = Path(__file__).parent / "results"
RECIPE = Path(__file__).parents[1] / "hf_videovit" / "training" / "recipes" / "actionformer" / "grid_words.yaml"
WINDOW, STRIDE, SIDE, COMPONENTS = 4, 2, 16, 64
MOUTH = (slice(46, 110), slice(36, 100))  # rows and columns
GREY = np.array([0.299, 0.587, 0.114])
QUICK_STEPS = 148


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, required=True, help="folder with plan.json and truth.json")
    parser.add_argument("--clips", type=Path, required=True, help="folder with the clips that the plan names")
    parser.add_argument("--work", type=Path, required=True, help="folder for features and runs")
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true", help=f"train {QUICK_STEPS} steps only")
    parser.add_argument("--mouth", action="store_true", help="the mouth alone instead of the whole face")
    return parser.parse_args()


def small_frames(clip: Path, mouth: bool) -> np.ndarray:
    """Grey frames of 16 x 16 pixels as rows `(num_frames, 256)` in [0, 1]."""
    pixels = decode_video(clip).frames
    pixels = pixels[:, MOUTH[0], MOUTH[1]] if mouth else pixels
    frames = pixels.astype(np.float64) @ GREY  # (frames, height, width)
    count, height, width = frames.shape
    cells = frames.reshape(count, SIDE, height // SIDE, SIDE, width // SIDE).mean(axis=(2, 4))
    return cells.reshape(count, -1) / 255


def windows_of(pieces: list[dict[str, Any]], clips: dict[str, np.ndarray]) -> np.ndarray:
    """Windows of a video `(num_windows, 4 * 256)`."""
    frames = [
        clips[piece["clip"]][index] for piece in pieces for index, times in piece["frames"] for _ in range(times)
    ]
    starts = range(0, len(frames) - WINDOW + 1, STRIDE)
    return np.stack([np.concatenate(frames[start : start + WINDOW]) for start in starts])


def make_features(plan: dict[str, Any], clip_folder: Path, folder: Path, mouth: bool = False) -> None:
    """Write `VIDEO.npy` of every video: whitened components, fitted on the training videos."""
    names = sorted({piece["clip"] for pieces in plan.values() for piece in pieces})
    clips = {name: small_frames(clip_folder / name, mouth) for name in names}
    training = np.concatenate([windows_of(plan[name], clips) for name in sorted(plan) if name.startswith("train")])
    mean = training.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(training - mean, rowvar=False))
    chosen = np.argsort(values)[::-1][:COMPONENTS]
    axes = vectors[:, chosen]
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(COMPONENTS)])
    scale = axes / np.sqrt(values[chosen])
    folder.mkdir(parents=True)
    for name, pieces in plan.items():
        np.save(folder / f"{name}.npy", ((windows_of(pieces, clips) - mean) @ scale).astype(np.float32))
    description = {"encoder": "principal components", "feature_size": COMPONENTS, "window": WINDOW, "stride": STRIDE}
    (folder / DESCRIPTION_FILE).write_text(json.dumps(description) + "\n", encoding="utf-8")


def train(
    truth: Path, features: Path, output: Path, seed: int, quick: bool = False, **changes: Any
) -> dict[str, float]:
    """Train by the recipe, with changes of its fields, and return the metrics of the last weights."""
    fields: dict[str, Any] = {
        "data": str(truth),
        "features": str(features),
        "output_dir": str(output),
        "seed": seed,
        "cpu": True,
        "progress": False,
        "curves": False,
        "eval_every": 0,
        "save_every": 0,
    }
    if quick:
        fields |= {"max_steps": QUICK_STEPS, "ema_decay": None}
    fields |= changes
    started = time.process_time()
    result = finetune(RunConfig.from_yaml(RECIPE, fields))
    metrics = dict(result.evaluation.metrics) if result.evaluation is not None else {}
    return metrics | {"steps": result.facts["steps"], "cpu_seconds": round(time.process_time() - started, 1)}


def main() -> None:
    arguments = parse_arguments()
    plan = json.loads((arguments.plan / "plan.json").read_text())
    features = arguments.work / "features"
    if not features.is_dir():
        make_features(plan, arguments.clips, features, arguments.mouth)
    rows = []
    for seed in arguments.seed:
        output = arguments.work / f"seed_{seed}"
        metrics = train(arguments.plan / "truth.json", features, output, seed, arguments.quick)
        rows.append({"seed": seed, **{name: round(value, 4) for name, value in metrics.items()}})
        print(rows[-1], flush=True)
    mean = statistics.mean(row["mAP"] for row in rows)
    print(f"mean average mAP of {len(rows)} seeds: {100 * mean:.1f} %")
    if not arguments.quick:
        name = "grid_words_mouth" if arguments.mouth else "grid_words_localization"
        write_csv(RESULTS / f"{name}.csv", rows)


if __name__ == "__main__":
    main()
