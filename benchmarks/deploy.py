"""
Classifiers in the runtimes that people deploy with, beside float32 in torch: speed, size and agreement.

    python -m benchmarks.deploy                                                  # speed at full size
    python -m benchmarks.deploy --train WORK --words grid_words8                 # and agreement
    python -m benchmarks.deploy --models "UniFormer-S" --sides "OpenVINO int8"   # some rows

Speed is that of one clip in models of full size with random weights. Rounds alternate between all sides and the best
of each counts, so that a busy machine hurts all alike. Agreement is the share of clips of which a side's first label
is that of float32 in torch. It is measured with the small models of `deploy_models` on all clips that they were not
trained on; int8 takes its ranges from clips of the training. Needs
`pip install 'hf_videovit[export,openvino]' torchao` and a C++ compiler.
"""

import argparse
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForVideoClassification, AutoVideoProcessor, PreTrainedModel

from benchmarks._comparison import CLOCKS, best_of
from benchmarks._machine import write_csv
from benchmarks._runtimes import BASELINE, SIDES, Side, make_side
from benchmarks.deploy_models import DATA, FAMILIES, clip_folder, data_names, trained_model
from hf_videovit import UniFormerConfig, UniFormerV2Config, VideoMAEV2Config


SIZE, BATCH = 224, 50
MODELS: dict[str, Callable[[], Any]] = {
    "VideoMAE V2-S": lambda: VideoMAEV2Config.from_size("small", num_labels=400),
    "VideoMAE V2-B": lambda: VideoMAEV2Config.from_size("base", num_labels=400),
    "UniFormer-S": lambda: UniFormerConfig(num_labels=400),
    "UniFormerV2-B": lambda: UniFormerV2Config(num_labels=400),
}
RESULTS = Path(__file__).parent / "results"
CALIBRATION = 300


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", choices=MODELS, default=list(MODELS), help="measured at full size")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    clock_help = "wall time, or on a shared machine the processor time of all threads, which suits one thread"
    parser.add_argument("--clock", default="wall", choices=[*CLOCKS], help=clock_help)
    parser.add_argument("--train", type=Path, metavar="WORK", help="measure agreement; folder for clips and models")
    parser.add_argument("--words", type=Path, help="folder of the clips of words, see deploy_models")
    parser.add_argument("--calibration", type=int, default=CALIBRATION, help="clips that int8 is calibrated with")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of deploy.csv and deploy_agreement.csv")
    return parser.parse_args()


def make_sides(
    names: Sequence[str], model: PreTrainedModel, clips: torch.Tensor, calibration: Sequence[torch.Tensor]
) -> dict[str, Side]:
    """The baseline and all sides that can be made here; what cannot is said."""
    sides = {}
    for name in dict.fromkeys([BASELINE, *names]):
        try:
            sides[name] = make_side(name, model, clips, calibration)
        except Exception as error:  # a runtime that is not installed, or refuses the graph
            print(f"{name}: {type(error).__name__}: {str(error).strip().splitlines()[:1]}", flush=True)
    return sides


@torch.no_grad()
def measure_speed(name: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds a clip of every side at every number of threads."""
    torch.manual_seed(0)
    config = MODELS[name]()
    model = AutoModelForVideoClassification.from_config(config).eval()
    clips = torch.randn(2, config.num_frames, 3, SIZE, SIZE)
    clip = clips[:1].contiguous()
    sides = make_sides(arguments.sides, model, clips, [clip])
    rows = []
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        calls = {side: made.open(threads) for side, made in sides.items()}
        times = best_of({side: lambda call=call: call(clip) for side, call in calls.items()}, arguments)
        for side, seconds in times.items():
            row = {"model": name, "frames": config.num_frames, "size": SIZE, "threads": threads, "side": side}
            row |= {"seconds": round(seconds, 4), "clips_per_second": round(1 / seconds, 3)}
            row |= {"ratio_of_speed": round(times[BASELINE] / seconds, 2)}
            row |= {"megabytes": round(sides[side].megabytes, 1), "clock": arguments.clock}
            rows.append({**row, "rounds": arguments.rounds})
            print(*rows[-1].values(), sep="  ", flush=True)
    return rows


def load_batches(processor: Any, files: Sequence[Path]) -> list[torch.Tensor]:
    """Clips as the model takes them, in batches."""
    parts = [[str(file) for file in files[start : start + BATCH]] for start in range(0, len(files), BATCH)]
    return [processor(part, return_tensors="pt")["pixel_values"] for part in parts]


def calibration_files(folder: Path, count: int) -> list[Path]:
    """Clips of the training, spread over all classes."""
    files = sorted(folder.glob("train/*/*.mp4"))
    return files[:: max(1, len(files) // count)][:count]


@torch.no_grad()
def measure_agreement(data: str, family: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """How often each side's first label is that of the baseline, and the label of the clip."""
    with torch.enable_grad():
        folder = trained_model(data, family, arguments.train, arguments.words)
    model = AutoModelForVideoClassification.from_pretrained(folder).eval()
    processor = AutoVideoProcessor.from_pretrained(folder)
    clips = clip_folder(data, arguments.train, arguments.words)
    files = sorted(clips.glob(f"{DATA[data]}/*/*.mp4"))
    labels = torch.tensor([model.config.label2id[file.parent.name] for file in files])
    batches = load_batches(processor, files)
    calibration = load_batches(processor, calibration_files(clips, arguments.calibration))
    singles = [clip for batch in calibration for clip in batch.split(1)]
    threads = arguments.threads[0]
    torch.set_num_threads(threads)
    sides = make_sides(arguments.sides, model, batches[0][:2], singles)
    logits = {}
    for side, made in sides.items():
        call = made.open(threads)
        logits[side] = torch.cat([call(batch).float() for batch in batches])
    expected = logits[BASELINE]
    rows = []
    for side, found in logits.items():
        agreement = (found.argmax(-1) == expected.argmax(-1)).float().mean().item()
        top1 = (found.argmax(-1) == labels).float().mean().item()
        row = {"data": data, "family": family, "side": side, "clips": len(files), "agreement": round(agreement, 4)}
        row |= {"top1": round(top1, 4), "mean_difference": round((found - expected).abs().mean().item(), 5)}
        rows.append({**row, "calibration_clips": len(singles) if side.endswith("int8") else ""})
        print(*rows[-1].values(), sep="  ", flush=True)
    return rows


def main() -> None:
    arguments = parse_arguments()
    arguments.device = "cpu"
    logging.getLogger("nncf").setLevel(logging.ERROR)
    if arguments.train is not None:
        names = data_names(arguments.words, arguments.train)
        agreement = [
            row for data in names for family in FAMILIES for row in measure_agreement(data, family, arguments)
        ]
        write_csv(arguments.output / "deploy_agreement.csv", agreement)
    if arguments.models:
        speed: list[dict[str, Any]] = []
        for name in arguments.models:
            speed += measure_speed(name, arguments)
            write_csv(arguments.output / "deploy.csv", speed)


if __name__ == "__main__":
    main()
