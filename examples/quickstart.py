"""
Train a video classifier and apply it to videos it has not seen:

    python examples/quickstart.py                       # generated clips of moving digits; six classes
    python examples/quickstart.py --data CLIPS          # own clips: CLIPS/{train,val}/CLASS/*.mp4 or CLIPS/CLASS/*.mp4
    python examples/quickstart.py --data CLIPS --recipe RECIPE --epochs 20     # any field of the recipe

Training runs `accelerate launch examples/finetune.py`. The output folder is then loaded by its path.
"""

import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForVideoClassification, AutoVideoProcessor, pipeline

from hf_videovit.pictures.drawing import ClassifiedClip, draw_classified_clips
from hf_videovit.training.arguments import parse_arguments
from hf_videovit.training.data.opening import load_sources
from hf_videovit.training.data.sources import VideoSource
from hf_videovit.training.evaluation.evaluation import evaluate_model
from hf_videovit.training.evaluation.still_frames import StillFrameVideoMAEV2VideoProcessor
from hf_videovit.training.methods.choosing import finetune
from hf_videovit.training.preparing.digit_motion import build_digit_motion, write_example_clips


EXAMPLES = Path(__file__).resolve().parent
DIGITS = {"num_train": 6000, "num_test": 600, "size": 32}
OUTPUT = ("--output", "--output-dir", "--output_dir")  # not passed on: training writes to a subfolder
console = Console()


def train(flags: list[str]) -> None:
    """Run the training script with `accelerate launch` in a separate process, as a user would."""
    plain = "--num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no --num_cpu_threads_per_process"
    words = [*plain.split(), str(torch.get_num_threads()), str(EXAMPLES / "finetune.py"), *flags]
    console.print(f"[bold]accelerate launch {shlex.join(words)}", highlight=False, soft_wrap=True)
    subprocess.run([sys.executable, "-m", "accelerate.commands.launch", *words], check=True)


def still_frame_accuracy(flags: list[str], model_dir: Path, output_dir: Path) -> float:
    """Accuracy of the same model, data and steps when every clip is a single repeated frame."""
    config = parse_arguments([*flags, "--output_dir", str(output_dir)])
    processor = StillFrameVideoMAEV2VideoProcessor.from_pretrained(model_dir)
    return finetune(config, processor=processor).evaluation.metrics["top1"]


def unseen_samples(source: VideoSource) -> dict[str, str]:
    """One file of each label, at most six, from the split that was not trained on."""
    files = {source.label_names[sample.label]: sample.video for sample in source}
    return dict(list(files.items())[:6])


def main(
    context: typer.Context,
    data: Annotated[Path | None, typer.Option(help="Folder of clips. Default: generated digits.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Recipe of the training. Default: the one for the data.")] = None,
    output: Annotated[Path, typer.Option(*OUTPUT, help="Folder for all output.")] = Path("outputs/quickstart"),
    baseline: Annotated[bool, typer.Option(help="Also train on single frames, as a baseline.")] = True,
):
    """Train a small VideoMAE V2 and ask it about files it has never seen. Other flags go to the training."""
    started = time.perf_counter()
    torch.set_num_threads(max(1, torch.get_num_threads() - 1))  # one core decodes
    digits, model_dir = data is None, output / "model"
    if digits:
        console.rule("Generate clips")
        data = build_digit_motion(output / "data", **DIGITS)
        console.print(f"{DIGITS['num_train'] + DIGITS['num_test']} clips in {data}", soft_wrap=True)
    recipe = recipe or ("videomae_v2/digit_motion" if digits else "videomae_v2/own_clips")
    flags = ["--recipe", recipe, "--data", str(data), "--overwrite", *context.args]
    config = parse_arguments(flags)
    _, unseen_source = load_sources(config.data, config.run.seed)
    if unseen_source is None:
        raise typer.BadParameter("nothing to evaluate on: give the data a val split, or a --holdout above 0")

    console.rule("Train")
    train([*flags, "--output_dir", str(model_dir)])

    console.rule("Load it back by the auto classes, and evaluate")
    model = AutoModelForVideoClassification.from_pretrained(model_dir)
    processor = AutoVideoProcessor.from_pretrained(model_dir)
    result = evaluate_model(model, processor, unseen_source, batch_size=32, progress=True)
    rows = [("chance", 1 / model.config.num_labels)]
    if baseline:
        console.rule("Train on single frames, for comparison")
        rows.append(("the same model on single frames", still_frame_accuracy(flags, model_dir, output / "still")))
    rows.append(("VideoMAE V2, all frames", result.metrics["top1"]))

    console.rule("Ask it about files it has never seen")
    classify = pipeline("video-classification", model=str(model_dir))
    files = write_example_clips(output / "unseen", size=32) if digits else unseen_samples(unseen_source)
    clips = []
    for (truth, file), answer in zip(files.items(), classify([str(file) for file in files.values()], top_k=4)):
        best = answer[0]
        console.print(f"{file}: [bold]{best['label']}[/bold] {best['score']:.0%}  (correct: {truth})", soft_wrap=True)
        frames = processor.load_clips(file)[0][0].permute(0, 2, 3, 1).numpy()
        clips.append(ClassifiedClip(frames, {guess["label"]: guess["score"] for guess in answer}, truth))
    picture = draw_classified_clips(clips, output / "predictions.png")

    table = Table("", "accuracy", title=f"{len(result.ids)} clips that it was not trained on")
    for name, accuracy in rows:
        table.add_row(name, f"{accuracy:.1%}")
    console.print(table)
    console.print(f"Model ({model.num_parameters():,} parameters), ready for the Hub: {model_dir}", soft_wrap=True)
    console.print(f"Picture: {picture}\n{time.perf_counter() - started:.0f} s in total", soft_wrap=True)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(main)
    app()
