"""
BEVT's encoder against torchvision's Video Swin with the same weights and answers, and its tokenizer beside the model.

    python -m benchmarks.throughput_bevt
    python -m benchmarks.throughput_bevt --batch-size 8 --dtype bfloat16 --device cuda
    python -m benchmarks.throughput_bevt --threads 1 --clock processor  # on a shared machine

Swin-B with its classifier, 32 frames of 224 x 224 pixels, forward and training step (AdamW), against `swin3d_b`.
Rounds alternate between two sides and the best of each counts. `gmacs` is the work of the task. `peak_megabytes` is
the memory that a call needs above weights, gradients and optimiser, each side in a process of its own.

Then the pre-training model's forward pass on a clip of 16 frames stands beside DALL-E's words for it.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torchvision.models.video import swin3d_b
from transformers import FlavaImageCodebook, FlavaImageCodebookConfig

from benchmarks._comparison import (
    compare_speed,
    macs,
    parse_arguments,
    peak_bytes,
    random_clips,
    run,
    training_step,
)
from hf_videovit import BevtConfig, BevtForPreTraining, convert_checkpoint
from hf_videovit.training.words.streams import RandomMasks
from hf_videovit.training.words.tokenizers import CodebookTokenizer


FRAMES, SIZE = 32, 224
PRETRAINING_FRAMES = 16
OURS, THEIRS = "hf_videovit BevtForVideoClassification", "torchvision swin3d_b"
MODEL, TOKENIZER = "hf_videovit BevtForPreTraining", "its tokenizer (FlavaImageCodebook)"
PHASES = ("forward", "training step")
# Of logits about 1 in size: sums in another order, in the half types rounded after each of 24 blocks.
TOLERANCES = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}


def make_models(arguments: argparse.Namespace) -> dict[str, torch.nn.Module]:
    """Both sides with the same weights."""
    torch.manual_seed(0)
    theirs = swin3d_b()
    fields = {"drop_path_rate": 0.1, "classifier_dropout": 0.0}  # as torchvision's
    ours = convert_checkpoint("bevt", theirs.state_dict(), task="video-classification", **fields)
    ours.set_attn_implementation(arguments.attention)
    dtype = getattr(torch, arguments.dtype)
    return {OURS: ours.to(arguments.device, dtype), THEIRS: theirs.to(arguments.device, dtype)}


def logits_of(model: torch.nn.Module, clips: torch.Tensor) -> torch.Tensor:
    return model(clips.transpose(1, 2)) if type(model).__module__.startswith("torchvision") else model(clips).logits


def make_call(model: torch.nn.Module, clips: torch.Tensor, phase: str) -> Callable[[], object]:
    """A forward pass or a training step."""
    labels = torch.zeros(len(clips), dtype=torch.long, device=clips.device)

    @torch.no_grad()
    def forward() -> torch.Tensor:
        return logits_of(model.eval(), clips)

    if phase == "forward":
        return forward
    return training_step(model, lambda: torch.nn.functional.cross_entropy(logits_of(model, clips), labels))


def make_side(arguments: argparse.Namespace, name: str, phase: str) -> Callable[[], object]:
    """What memory is measured of."""
    model = make_models(arguments)[name]
    return make_call(model, random_clips(arguments, FRAMES, 3, SIZE, SIZE), phase)


def compare_classifiers(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Forward and training step of both."""
    models, clips = make_models(arguments), random_clips(arguments, FRAMES, 3, SIZE, SIZE)
    answers = [make_call(model, clips, "forward")() for model in models.values()]
    tolerance = TOLERANCES[arguments.dtype]
    torch.testing.assert_close(*answers, rtol=tolerance, atol=tolerance)
    rows = []
    for phase in PHASES:
        calls = {name: make_call(model, clips, phase) for name, model in models.items()}
        work = dict.fromkeys(calls, min(macs(call) for call in calls.values()))
        peaks = {name: peak_bytes(make_side, arguments, name, phase) for name in calls}
        for row in compare_speed(calls, work, arguments):
            name = row["side"]
            memory = {
                "peak_megabytes": round(peaks[name] / 1e6, 1),
                "peak_memory_ratio": round(peaks[OURS] / peaks[THEIRS], 3),
                "gmacs": round(work[name] / arguments.batch_size / 1e9, 1),
            }
            rows.append({"benchmark": f"Swin-B {FRAMES} x {SIZE}, {phase}", **row, **memory})
    return rows


def compare_words(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """One forward pass of pre-training on clips, and the words that it predicts, which a cache saves."""
    config = BevtConfig.from_size("base", num_frames=PRETRAINING_FRAMES, attn_implementation=arguments.attention)
    device, dtype = arguments.device, getattr(torch, arguments.dtype)
    model = BevtForPreTraining(config).to(device, dtype).eval()
    tokenizer = CodebookTokenizer(FlavaImageCodebook(FlavaImageCodebookConfig()).to(device, dtype))
    clips = random_clips(arguments, PRETRAINING_FRAMES, 3, SIZE, SIZE)
    small = random_clips(arguments, PRETRAINING_FRAMES, 3, SIZE // 2, SIZE // 2)
    masks = RandomMasks(config, images=False)
    mask = torch.stack([masks(seed) for seed in range(len(clips))]).to(device)

    @torch.no_grad()
    def forward() -> object:
        return model(clips, mask=mask, masked_only=True).logits

    calls: dict[str, Callable[[], object]] = {MODEL: forward, TOKENIZER: lambda: tokenizer(small.flatten(0, 1))}
    work = {name: macs(call) for name, call in calls.items()}
    return [
        {
            "benchmark": f"pre-training {PRETRAINING_FRAMES} x {SIZE}, forward",
            **row,
            "gmacs": round(work[row["side"]] / arguments.batch_size / 1e9, 1),
        }
        for row in compare_speed(calls, work, arguments)
    ]


if __name__ == "__main__":
    run(parse_arguments(__doc__, __file__), compare_classifiers, compare_words)
