"""
TubeViT trained on few labelled clips alone, and together with many labelled stills of the same ten digits:

    python -m benchmarks.joint_images --work WORK

Three settings see the same clips: `videos`; `videos, longer`, with as many optimiser steps as the joint run has for
clips and stills together; `videos and stills`. The figures are those of the last weights: nothing is chosen by the
test clips. Before training, the tables of the data must show that no drawing of a digit is in training and in test
data. A run that WORK has is not repeated.
"""

import argparse
import csv
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks._machine import write_csv
from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.methods.choosing import finetune
from hf_videovit.training.preparing.digit_motion import build_digit_motion, handwritten_digits
from hf_videovit.training.preparing.digit_stills import build_digit_stills


ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "joint_images.csv"
CURVES = ROOT / "docs" / "pictures" / "joint_images.png"
RECIPE = ROOT / "hf_videovit" / "training" / "recipes" / "tubevit" / "digit_identity_joint.yaml"
NUM_CLIPS, NUM_STILLS, NUM_TEST = 150, 4000, 600
SIZE = 32  # pixels
SETTINGS: dict[str, dict[str, Any]] = {
    "videos and stills": {},
    "videos": {"method": "classification"},
    "videos, longer": {"method": "classification", "epochs": 66, "warmup_epochs": 4, "eval_every": 11},
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for data and runs")
    parser.add_argument("--seed", type=int, nargs="+", default=[0], help="of weights and order")
    return parser.parse_args()


def drawings(folder: Path, split: str) -> set[bytes]:
    """Pixels of the drawings of a split, so that a drawing that occurs twice among the digits counts as one."""
    with open(folder / "labels.csv", newline="") as table:
        numbers = {
            int(one) for row in csv.DictReader(table) if row["split"] == split for one in row["drawings"].split()
        }
    mattes = handwritten_digits()[0]
    return {mattes[number].tobytes() for number in numbers}


def check_drawings(clips: Path, stills: Path) -> dict[str, int]:
    """Numbers of different drawings; an error if a test drawing is in the training clips or stills."""
    tested = drawings(clips, "test") | drawings(stills, "test")
    trained = {"clip_drawings": drawings(clips, "train"), "still_drawings": drawings(stills, "train")}
    if shared := sum(len(found & tested) for found in trained.values()):
        raise ValueError(f"`work` has data of which {shared} drawings are for training and for testing")
    return {name: len(found) for name, found in trained.items()} | {"test_drawings": len(tested)}


def train(setting: str, seed: int, clips: Path, stills: Path, output: Path) -> tuple[dict[str, Any], list[list]]:
    """Train one setting, unless that was done; its row, and the accuracy on test clips by step."""
    done = output / "row_and_curve.json"
    if done.is_file():
        row, curve = json.loads(done.read_text())
        return row, curve
    fields: dict[str, Any] = {"data": str(clips), "output_dir": str(output), "seed": seed, "overwrite": True}
    fields |= {"cpu": True, "progress": False, "curves": False}
    if "method" not in SETTINGS[setting]:
        fields["image_data"] = str(stills)
    started = time.process_time()
    result = finetune(RunConfig.from_yaml(RECIPE, fields | SETTINGS[setting]))
    assert result.evaluation is not None
    lines = [line for line in result.history if "top1" in line.get("validation", {})]
    curve = [[line["step"], line["validation"]["top1"]] for line in lines]
    row = {"setting": setting, "seed": seed, "top1": round(result.evaluation.metrics["top1"], 4)}
    if "image_metrics" in result.facts:
        row["image_top1"] = round(result.facts["image_metrics"]["image_top1"], 4)
    row |= {"steps": result.facts["steps"], "cpu_seconds": round(time.process_time() - started, 1)}
    done.write_text(json.dumps([row, curve]))
    return row, curve


def draw(curves: dict[str, list[list[list]]], path: Path) -> None:
    """One line for each run, one colour for each setting."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axis = figure.subplots()
    for number, (setting, runs) in enumerate(curves.items()):
        for index, run in enumerate(runs):
            steps, values = zip(*run)
            label = setting if index == 0 else None
            axis.plot(steps, [100 * one for one in values], color=f"C{number}", marker="o", markersize=3, label=label)
    axis.axhline(10, color="grey", linewidth=1, linestyle=":", label="chance")
    axis.set(xlabel="optimiser step", ylabel="test clips, top-1 (%)", ylim=(0, None))
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=100)


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(1)
    data = arguments.work / "data"
    clips = build_digit_motion(data, "identity", num_train=NUM_CLIPS, num_test=NUM_TEST, size=SIZE)
    stills = build_digit_stills(data, num_train=NUM_STILLS, size=SIZE)
    facts = check_drawings(clips, stills)
    print(facts, flush=True)
    rows: list[dict[str, Any]] = []
    curves: dict[str, list[list[list]]] = {setting: [] for setting in SETTINGS}
    for seed in arguments.seed:
        for setting in SETTINGS:
            row, curve = train(setting, seed, clips, stills, arguments.work / f"{setting.replace(', ', '_')}_{seed}")
            rows.append({**row, **facts})
            curves[setting].append(curve)
            print(row, curve, flush=True)
    write_csv(RESULTS, rows)
    draw(curves, CURVES)
    for setting in SETTINGS:
        mean = statistics.mean(row["top1"] for row in rows if row["setting"] == setting)
        print(f"{setting}: {100 * mean:.1f} % of {NUM_TEST} test clips, mean of {len(arguments.seed)} seeds")


if __name__ == "__main__":
    main()
