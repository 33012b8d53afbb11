"""
TimeSformer-B against transformers' port of it, with the same weights and the same answers, both sides in one run.

    python -m benchmarks.throughput_lstcl
    python -m benchmarks.throughput_lstcl --batch-size 8 --dtype bfloat16 --device cuda
    python -m benchmarks.throughput_lstcl --batch-size 1 --threads 1 --clock processor  # on a shared machine

8 frames of 224 x 224 pixels, forward (logits) and training step (AdamW), one clip and four. Rounds alternate between
the two and the best of each counts. transformers' side has its one way of attention (eager). Memory is what a training
step needs above weights, gradients and optimiser, measured for each side in a process of its own.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from transformers import TimesformerConfig, TimesformerForVideoClassification

from benchmarks._comparison import (
    compare_speed,
    macs,
    parse_arguments,
    peak_bytes,
    random_clips,
    run,
    training_step,
)
from hf_videovit import convert_checkpoint


FRAMES, SIZE = 8, 224
OURS, THEIRS = "hf_videovit LstclForVideoClassification", "transformers TimesformerForVideoClassification"


def make_models(arguments: argparse.Namespace) -> dict[str, torch.nn.Module]:
    """Both sides with the same weights."""
    torch.manual_seed(0)
    theirs = TimesformerForVideoClassification(TimesformerConfig(num_frames=FRAMES, num_labels=400))
    rate = theirs.config.drop_path_rate
    ours = convert_checkpoint("lstcl", theirs.state_dict(), task="video-classification", drop_path_rate=rate)
    ours.set_attn_implementation(arguments.attention)
    dtype = getattr(torch, arguments.dtype)
    return {OURS: ours.to(arguments.device, dtype), THEIRS: theirs.to(arguments.device, dtype)}


def make_step(arguments: argparse.Namespace, name: str) -> Callable[[], None]:
    """One side's training step."""
    return step_of(make_models(arguments)[name], random_clips(arguments, FRAMES, 3, SIZE, SIZE))


def step_of(model: torch.nn.Module, clips: torch.Tensor) -> Callable[[], None]:
    labels = torch.zeros(len(clips), dtype=torch.long, device=clips.device)
    return training_step(model, lambda: model(clips, labels=labels).loss)


def compare(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Forward and training step."""
    models, clips = make_models(arguments), random_clips(arguments, FRAMES, 3, SIZE, SIZE)

    @torch.no_grad()
    def forward(model: torch.nn.Module) -> torch.Tensor:
        return model.eval()(clips).logits

    gap = (forward(models[OURS]) - forward(models[THEIRS])).abs().max().item()
    phases: dict[str, dict[str, Callable[[], object]]] = {
        "forward": {name: lambda model=model: forward(model) for name, model in models.items()},
        "training step": {name: step_of(model, clips) for name, model in models.items()},
    }
    peaks = {name: peak_bytes(make_step, arguments, name) for name in (OURS, THEIRS)}
    memory = {"forward": "", "training step": round(peaks[OURS] / peaks[THEIRS], 3)}
    return [
        {
            "benchmark": f"TimeSformer-B {FRAMES} x {SIZE}, {phase}",
            **row,
            "peak_memory_ratio": memory[phase],
            "largest_difference_of_logits": f"{gap:.1e}",
        }
        for phase, calls in phases.items()
        for row in compare_speed(calls, {name: macs(call) for name, call in calls.items()}, arguments)
    ]


if __name__ == "__main__":
    run(parse_arguments(__doc__, __file__, batch_sizes=(1, 4)), compare)
