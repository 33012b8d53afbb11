"""
Speed and memory of the models beside a known one, both sides in one run.

    python -m benchmarks.throughput
    python -m benchmarks.throughput --batch-size 8 --dtype bfloat16 --device cuda

VideoMAE V2-B stands against transformers' VideoMAE-B, and dual masking against reconstructing every hidden token.
Rounds alternate between the two sides and the best of each counts, so that a busy machine hurts both alike. Beside the
times stands the share of the bare matrix-product rate that each side reaches: its multiply-accumulates a second over
those of one large matrix product of the same machine, threads and dtype.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

from benchmarks._comparison import (
    best_of,
    compare_speed,
    macs,
    parse_arguments,
    peak_bytes,
    random_clips,
    run,
    training_step,
)
from hf_videovit import VideoMAEV2Config, VideoMAEV2ForPreTraining, VideoMAEV2ForVideoClassification
from hf_videovit.training.data.masking import running_cell_mask, tube_mask


SIDES = {
    "hf_videovit VideoMAE V2-B": lambda **kwargs: VideoMAEV2ForVideoClassification(
        VideoMAEV2Config.from_size("base", num_labels=400, **kwargs)
    ),
    "transformers VideoMAE-B": lambda **kwargs: VideoMAEForVideoClassification(
        VideoMAEConfig(num_labels=400, layer_norm_eps=1e-6, **kwargs)
    ),
}
DUAL, FULL = "dual masking (decoder ratio 0.5)", "every hidden token"
DECODER_RATIOS = {DUAL: 0.5, FULL: None}


def compare_classifiers(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Forward and training step of the classifiers of equal size."""
    device, dtype = arguments.device, getattr(torch, arguments.dtype)
    pixel_values = random_clips(arguments, 16, 3, 224, 224)
    labels = torch.zeros(arguments.batch_size, dtype=torch.long, device=device)
    models = {name: make(attn_implementation=arguments.attention).to(device, dtype) for name, make in SIDES.items()}

    @torch.no_grad()
    def forward(model: torch.nn.Module) -> None:
        model.eval()(pixel_values)

    def loss(model: torch.nn.Module) -> torch.Tensor:
        return model(pixel_values, labels=labels).loss

    phases: dict[str, dict[str, Callable[[], object]]] = {
        "forward": {name: lambda model=model: forward(model) for name, model in models.items()},
        "training step": {
            name: training_step(model, lambda model=model: loss(model)) for name, model in models.items()
        },
    }
    return [
        {"benchmark": f"VideoMAE-B 16 x 224, {phase}", **row, "peak_memory_ratio": ""}
        for phase, calls in phases.items()
        for row in compare_speed(calls, {name: macs(call) for name, call in calls.items()}, arguments)
    ]


def pretraining_step(arguments: argparse.Namespace, decoder_ratio: float | None) -> Callable[[], None]:
    """A closure that does one pre-training step of VideoMAE V2-B; no decoder ratio reconstructs every hidden token."""
    device, dtype = arguments.device, getattr(torch, arguments.dtype)
    config = VideoMAEV2Config.from_size("base", attn_implementation=arguments.attention)
    model = VideoMAEV2ForPreTraining(config).to(device, dtype).train()
    pixel_values = random_clips(arguments, 16, 3, 224, 224)
    encoder_mask = torch.from_numpy(tube_mask(config.token_grid(), 0.9)).flatten().to(device)
    masks = {"encoder_mask": encoder_mask.expand(arguments.batch_size, -1)}
    if decoder_ratio is not None:
        decoder_mask = torch.from_numpy(running_cell_mask(config.token_grid(), decoder_ratio)).flatten().to(device)
        masks["decoder_mask"] = decoder_mask.expand(arguments.batch_size, -1)
    return training_step(model, lambda: model(pixel_values, **masks).loss)


def compare_masking(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The dual-masked pre-training step against reconstructing every token hidden from the encoder."""
    steps = {name: pretraining_step(arguments, ratio) for name, ratio in DECODER_RATIOS.items()}
    times = best_of(steps, arguments)
    steps.clear()
    peaks = {name: peak_bytes(pretraining_step, arguments, ratio) for name, ratio in DECODER_RATIOS.items()}
    return [
        {
            "benchmark": "VideoMAE V2-B pre-training step",
            "side": name,
            "seconds": round(times[name], 4),
            "clips_per_second": round(arguments.batch_size / times[name], 3),
            "ratio_of_speed": round(times[FULL] / times[DUAL], 3),
            "peak_memory_ratio": round(peaks[DUAL] / peaks[FULL], 3),
        }
        for name in DECODER_RATIOS
    ]


if __name__ == "__main__":
    run(parse_arguments(__doc__, __file__), compare_classifiers, compare_masking)
