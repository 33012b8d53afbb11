"""
Explanations proved by deletion: how much of a label's score is left when the most important blocks of a clip are
hidden, and when random ones are.

    python -m benchmarks.explaining --work WORK

The models are those of the digits (`benchmarks.deploy_models`) and more; they are trained in `WORK` where they are
missing, a few minutes each. Clips are of the test split, and only those that the model classifies correctly.
"""

import argparse
import time
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from transformers import pipeline

from benchmarks._machine import write_csv
from benchmarks.deploy_models import DATA, clip_folder
from hf_videovit.inference.explaining import check_by_deletion, explain_video
from hf_videovit.training.arguments import parse_arguments
from hf_videovit.training.methods.choosing import finetune


SCRATCH = {  # settings of families whose recipes are for pretraining
    "bevt": ["--method", "classification", "--config.initializer_range", "0.1", "--epochs", "6"],
    "lstcl": ["--method", "classification", "--epochs", "6", "--learning_rate", "2e-3"],
}
FAMILIES = ("videomae_v2", "uniformer", "uniformer_v2", "tubevit", "bevt", "lstcl")
RESULTS = Path(__file__).parent / "results" / "explaining.csv"


def trained_model(family: str, work: Path) -> Path:
    """Train a model on the digits, unless it is there."""
    output = work / "digits" / family
    if not (output / "model.safetensors").is_file():
        words = ["--recipe", f"{family}/digit_motion", "--data", str(clip_folder("digits", work, None))]
        finetune(parse_arguments([*words, "--output_dir", str(output), *SCRATCH.get(family, [])]))
    return output


def recognised_clips(classifier: Any, folder: Path, count: int) -> list[str]:
    """Clips of all classes that the model classifies correctly."""
    found: list[str] = []
    files = sorted(folder.glob("*/*.mp4"), key=lambda file: (file.name, file.parent.name))
    for file in files:
        if len(found) < count and classifier(str(file), top_k=1)[0]["label"] == file.parent.name:
            found.append(str(file))
    return found


def measure(family: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """A row of the table: mean scores, and what is left of them."""
    work = arguments.work
    classifier: Any = pipeline("video-classification", model=str(trained_model(family, work)), device="cpu")
    clips = recognised_clips(classifier, clip_folder("digits", work, None) / DATA["digits"], arguments.clips)
    started = time.process_time()
    checks = []
    for clip in clips:
        explanation = explain_video(classifier, clip, steps=arguments.steps, places=arguments.places)
        checks.append(check_by_deletion(classifier, explanation, share=arguments.share))
    return {
        "family": family,
        "clips": len(clips),
        "hidden": arguments.share,
        "steps": arguments.steps,
        "places": arguments.places,
        "left_important": round(mean(one.important / one.whole for one in checks), 3),
        "left_random": round(mean(one.random / one.whole for one in checks), 3),
        "clips_where_important_costs_more": sum(one.important < one.random for one in checks),
        "seconds_a_clip": round((time.process_time() - started) / len(clips), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for clips and models")
    parser.add_argument("--families", nargs="+", default=FAMILIES, choices=FAMILIES)
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--share", type=float, default=0.1, help="share of the blocks to hide")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--places", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for family in arguments.families:
        rows.append(measure(family, arguments))
        print(rows[-1], flush=True)
        write_csv(arguments.output, rows)


if __name__ == "__main__":
    main()
