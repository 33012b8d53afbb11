"""
Temporal localisation of spoken words on features of own encoders, beside the components of pixels of
`grid_words_localization`, on the same videos by the same recipe:

    python -m benchmarks.grid_words_encoders --plan PLAN_FOLDER --clips grid_words8 --work WORK --encoder uniformer

An encoder is trained from random weights on windows of the training videos: nine classes, the word in which the middle
of the window lies, or none. Then it makes features of all videos as `hf-videovit embed` does,
and localisers of several seeds are trained on them. Nothing is chosen by the validation videos. The encoder's own
accuracy is measured on the last 15 training videos, which it does not see.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._machine import write_csv
from benchmarks.grid_words_localization import MOUTH, RESULTS, train
from hf_videovit.cli.common import load_encoder
from hf_videovit.inference.feature_sets import FeatureSettings, plan_features
from hf_videovit.inference.feature_sets import make_features as write_features
from hf_videovit.modeling.video_decoding import decode_video
from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.methods.choosing import finetune
from hf_videovit.training.preparing.digit_motion import write_clip


FPS = 25
WINDOW, STRIDE = 16, 2
HELD_OUT = 15
BACKGROUND = "none"
STEPS_BETWEEN = {True: 2, False: 5}  # frames between the training windows of words, and of the background
COMMON: dict[str, Any] = {
    "method": "classification",
    "crop_scale": [0.7, 1.0],
    "crop_ratio": [0.9, 1.1],
    "label_smoothing": 0.1,
    "warmup_epochs": 0.5,
    "weight_decay": 0.05,
    "clip_grad": 1.0,
    "min_learning_rate": 0.0,
    "drop_last": True,
    "num_workers": 1,
    "batch_size": 32,
    "eval_every": 0,
    "save_every": 0,
    "log_every": 50,
    "curves": False,
    "progress": False,
    "cpu": True,
}
PIXELS = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}, "frame_sampling": "uniform"}
ENCODERS: dict[str, dict[str, Any]] = {
    "uniformer": {
        "model_type": "uniformer",
        "config": {
            "depths": [1, 2, 2, 1],
            "hidden_sizes": [32, 64, 128, 192],
            "intermediate_sizes": [64, 128, 256, 384],
            "head_dim": 32,
            "num_frames": WINDOW,
            "image_size": 32,
            "initializer_range": 0.12,
        },
        "processor": PIXELS,
        "learning_rate": 2e-3,
        "epochs": 8,
    },
    "videomae_v2": {
        "model_type": "videomae_v2",
        "config": {
            "hidden_size": 128,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "intermediate_size": 256,
            "patch_size": 8,
            "tubelet_size": 4,
            "num_frames": WINDOW,
            "image_size": 32,
            "initializer_range": 0.12,
            "classifier_init_scale": 1.0,
        },
        "processor": {**PIXELS, "antialias": True},
        "learning_rate": 1.5e-3,
        "epochs": 10,
    },
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, required=True, help="folder with plan.json and truth.json")
    parser.add_argument("--clips", type=Path, required=True, help="folder with the clips that the plan names")
    parser.add_argument("--work", type=Path, required=True, help="folder for films, encoders, features and runs")
    parser.add_argument("--encoder", choices=ENCODERS, default="uniformer")
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2], help="of the localisers")
    return parser.parse_args()


def make_films(plan: dict[str, Any], clip_folder: Path, folder: Path) -> None:
    """Write `VIDEO.mp4` of every video: the mouth, 64 x 64 pixels."""
    folder.mkdir(parents=True)
    names = {piece["clip"] for pieces in plan.values() for piece in pieces}
    clips = {name: decode_video(clip_folder / name).frames[:, MOUTH[0], MOUTH[1]] for name in names}
    for video, pieces in plan.items():
        frames = [
            clips[piece["clip"]][index] for piece in pieces for index, times in piece["frames"] for _ in range(times)
        ]
        write_clip(folder / f"{video}.mp4", np.stack(frames), FPS)


def label_at(time_in_video: float, annotations: list[dict[str, Any]]) -> str:
    """The word spoken at a time, or none."""
    for row in annotations:
        start, end = row["segment"]
        if start <= time_in_video < end:
            return row["label"]
    return BACKGROUND


def make_windows(films: Path, truth: dict[str, Any], folder: Path) -> None:
    """Write windows of the training videos as clips in folders of classes, `train` and `val`."""
    videos = sorted(video for video, row in truth.items() if row["subset"] == "training")
    for number, video in enumerate(videos):
        split = "val" if number >= len(videos) - HELD_OUT else "train"
        frames = decode_video(films / f"{video}.mp4").frames
        for start in range(len(frames) - WINDOW + 1):
            label = label_at((start + WINDOW / 2) / FPS, truth[video]["annotations"])
            if start % STEPS_BETWEEN[label != BACKGROUND] == 0:
                place = folder / split / label
                place.mkdir(parents=True, exist_ok=True)
                write_clip(place / f"{video}_{start:03d}.mp4", frames[start : start + WINDOW], FPS)


def train_encoder(name: str, windows: Path, output: Path) -> dict[str, float]:
    """Train an encoder as a classifier of windows; its accuracy on held-out training videos, and its cost."""
    started = time.process_time()
    fields = {**COMMON, **ENCODERS[name], "data": str(windows), "output_dir": str(output), "seed": 0}
    result = finetune(RunConfig.from_fields(**fields))
    metrics = dict(result.evaluation.metrics) if result.evaluation is not None else {}
    facts = {"encoder_top1": round(metrics["top1"], 4), "encoder_steps": result.facts["steps"]}
    return facts | {"encoder_cpu_seconds": round(time.process_time() - started, 1)}


def make_features(encoder: Path, films: Path, folder: Path) -> int:
    """Write the features of all films; their number of channels."""
    model, processor = load_encoder(str(encoder), "cpu")
    settings = FeatureSettings(WINDOW, STRIDE)
    files = sorted(str(film) for film in films.glob("*.mp4"))
    plan = plan_features(model, processor, files, folder, settings, measure=False)
    rows = list(write_features(model, processor, plan, folder, settings, name=encoder.name, batch_size=32))
    failed = [row["file"] for row in rows if "error" in row]
    if failed:
        raise ValueError(f"`films` has files that cannot be read: {', '.join(failed)}")
    return plan.feature_size


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(1)
    plan = json.loads((arguments.plan / "plan.json").read_text())
    truth_file = arguments.plan / "truth.json"
    films, windows = arguments.work / "films", arguments.work / "windows"
    if not films.is_dir():
        make_films(plan, arguments.clips, films)
    if not windows.is_dir():
        make_windows(films, json.loads(truth_file.read_text())["database"], windows)
    place = arguments.work / arguments.encoder
    facts = train_encoder(arguments.encoder, windows, place / "encoder")
    print(facts, flush=True)
    size = make_features(place / "encoder", films, place / "features")
    features = {"config": {"feature_size": size}, "processor": {"feature_window": WINDOW, "feature_stride": STRIDE}}
    rows = []
    for seed in arguments.seed:
        metrics = train(truth_file, place / "features", place / f"seed_{seed}", seed, **features)
        scores = {name: round(value, 4) for name, value in metrics.items()}
        rows.append({"encoder": arguments.encoder, **facts, "seed": seed, **scores})
        print(rows[-1], flush=True)
    mean = statistics.mean(row["mAP"] for row in rows)
    print(f"mean average mAP of {len(rows)} seeds: {100 * mean:.1f} %")
    write_csv(RESULTS / f"grid_words_{arguments.encoder}.csv", rows)


if __name__ == "__main__":
    main()
