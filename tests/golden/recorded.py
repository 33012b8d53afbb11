"""
Twenty steps of each task, through the same functions as any run: loss and gradient norm of every step are stored in
`NAME.json` beside this file, so that no change of the arithmetic goes unnoticed. After a change that is meant:

    python -m tests.golden.recorded            # all
    python -m tests.golden.recorded NAME ...   # some
"""

import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from hf_videovit.training.arguments import ModelArguments, RunConfig
from hf_videovit.training.building import build_model
from hf_videovit.training.data.sources import Sample, SampleList
from hf_videovit.training.methods.choosing import finetune, pretrain
from tests.clips import STEPS, moving_square_clip


FOLDER = Path(__file__).parent
NUM_STEPS = 20
NAMES = sorted(STEPS)
ENCODER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
CLIP = {"image_size": 32, "patch_size": 8, "num_frames": 4}
DECODER = {"decoder_hidden_size": 16, "decoder_num_attention_heads": 2, "decoder_intermediate_size": 32}
COMMON = {
    "cpu": True,
    "num_workers": 0,
    "progress": False,
    "max_steps": NUM_STEPS,
    "batch_size": 4,
    "log_every": 1,
    "save_every": 0,
    "learning_rate": 2e-3,
    "warmup_steps": 4,
    "crop_scale": [0.5, 1.0],
    "processor": {"frame_stride": 2},
}


@dataclass(frozen=True)
class Case:
    """
    A recorded run.

    Args:
        run (`Callable`):
            `finetune`, `pretrain` or their like.
        fields (`dict`):
            What is set over `COMMON`.
        labels (`Callable[[int], Any]`):
            Label of a clip by its direction's index.
        teacher (`dict`, *optional*):
            Configuration of a teacher with random weights.
    """

    run: Callable[..., Any]
    fields: dict[str, Any]
    labels: Callable[[int], Any] = field(default=lambda index: index)
    teacher: dict[str, Any] | None = None


CASES = {
    "classification": Case(
        finetune,
        {
            "config": ENCODER | CLIP | {"drop_path_rate": 0.1, "classifier_init_scale": 100.0},
            "layer_decay": 0.75,
            "label_smoothing": 0.1,
            "mixup": 0.8,
            "cutmix": 1.0,
            "mix_probability": 0.5,
            "rand_augment_ops": 2,
            "random_erasing": 0.25,
            "num_sample": 2,
            "ema_decay": 0.9,
            "clip_grad": 5.0,
        },
    ),
    "masked_pixels": Case(
        pretrain,
        {
            "config": ENCODER | CLIP | DECODER | {"encoder_mask_ratio": 0.75},
            "crop": "multi_scale",
            "num_sample": 2,
            "betas": [0.9, 0.95],
            "clip_grad": 0.02,
        },
    ),
    "distillation": Case(
        finetune,
        {"config": ENCODER | CLIP, "temperature": 2.0, "flip": 0.5, "flip_labels": "any", "accumulation": 2},
        teacher=ENCODER | CLIP | {"classifier_init_scale": 100.0},
    ),
}


def clips(labels: Callable[[int], Any]) -> SampleList:
    """Three clips of each direction."""
    return SampleList(
        [
            Sample(f"{name}_{number}", moving_square_clip(name, num_frames=12, height=40, width=48, seed=seed), label)
            for number in range(3)
            for index, name in enumerate(NAMES)
            for seed, label in [(10 * number + index, labels(index))]
        ],
        NAMES,
    )


def write_teacher(folder: Path, config: dict[str, Any]) -> None:
    """A classifier of the directions that has learnt nothing, but has opinions."""
    torch.manual_seed(1)
    model, processor = build_model(ModelArguments(config=config, processor=COMMON["processor"]), NAMES)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def run_case(name: str, **more: Any) -> list[dict[str, float]]:
    """Loss and gradient norm of each step; `more` are further fields of the run."""
    case = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        fields = COMMON | case.fields | {"output_dir": f"{folder}/out"} | more
        if case.teacher is not None:
            write_teacher(Path(folder, "teacher"), case.teacher)
            fields["teacher"] = f"{folder}/teacher"
        history = case.run(RunConfig.from_fields(**fields), train_source=clips(case.labels)).history
    return [{key: line[key] for key in ("loss", "grad_norm")} for line in history if "loss" in line]


def recorded(name: str) -> list[dict[str, float]]:
    """What was stored."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def main() -> None:
    for name in sys.argv[1:] or CASES:
        steps = [{key: float(f"{value:.7g}") for key, value in step.items()} for step in run_case(name)]
        lines = ",\n".join(f"  {json.dumps(step)}" for step in steps)
        (FOLDER / f"{name}.json").write_text(f"[\n{lines}\n]\n")
        print(f"{name}: loss {steps[0]['loss']:.4f} to {steps[-1]['loss']:.4f}")


if __name__ == "__main__":
    main()
