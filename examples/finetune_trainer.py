"""
Fine-tune a video classifier with `transformers.Trainer` on a `Video` column of `datasets`.

    python examples/finetune_trainer.py --checkpoint DIR --data clips --output_dir OUT --num_train_epochs 10 \
        --per_device_train_batch_size 2 --gradient_accumulation_steps 8 --learning_rate 1e-4
    accelerate launch examples/finetune_trainer.py --checkpoint owner/model --data owner/dataset --output_dir OUT

`--data` is a folder with `train/<class>/*.mp4` and `test/<class>/*.mp4`, or a data set repo with the columns `video`
and `label`. All other options are those of `TrainingArguments`. Two clips in eight passes are a step of 16 clips: the
loss is that of the whole step. `examples/finetune.py` has augmentation, layer-wise learning rates and exact resuming.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset, Video, load_dataset
from transformers import (
    AutoModelForVideoClassification,
    AutoVideoProcessor,
    EvalPrediction,
    HfArgumentParser,
    Trainer,
    TrainingArguments,
)

import hf_videovit  # noqa: F401  (registers the families)


@dataclass
class Arguments:
    checkpoint: str
    data: str
    train_split: str = "train"
    eval_split: str = "validation"


def load(data: str, split: str) -> Dataset:
    """The videos as files: the processor decodes them, not the data set."""
    if Path(data).is_dir():
        dataset = load_dataset("videofolder", data_dir=data, split=split)
    else:
        dataset = load_dataset(data, split=split)
    return dataset.cast_column("video", Video(decode=False))


def processed(rows: dict[str, list], processor: Any, mode: str) -> dict[str, list]:
    """A random clip of each video for training, the middle one for validation."""
    clips = processor(rows["video"], sampling_mode=mode, return_tensors="pt")["pixel_values"]
    return {"pixel_values": list(clips), "labels": rows["label"]}


def collate(samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return {
        "pixel_values": torch.stack([sample["pixel_values"] for sample in samples]),
        "labels": torch.tensor([sample["labels"] for sample in samples]),
    }


def accuracy(results: EvalPrediction) -> dict[str, float]:
    return {"accuracy": float(np.mean(results.predictions.argmax(-1) == results.label_ids))}


def main() -> None:
    arguments, options = HfArgumentParser((Arguments, TrainingArguments)).parse_args_into_dataclasses()
    options.remove_unused_columns = False  # `video` becomes `pixel_values` when a row is read
    train, evaluation = (load(arguments.data, split) for split in (arguments.train_split, arguments.eval_split))
    labels = train.features["label"]
    if not isinstance(labels, ClassLabel):
        raise ValueError(f"`data` {arguments.data!r} needs a column `label` of class labels, got {labels}")
    processor = AutoVideoProcessor.from_pretrained(arguments.checkpoint)
    model = AutoModelForVideoClassification.from_pretrained(
        arguments.checkpoint,
        id2label=dict(enumerate(labels.names)),
        label2id={name: index for index, name in enumerate(labels.names)},
        ignore_mismatched_sizes=True,  # a new head for other classes
    )
    trainer = Trainer(
        model,
        options,
        data_collator=collate,
        train_dataset=train.with_transform(partial(processed, processor=processor, mode="train")),
        eval_dataset=evaluation.with_transform(partial(processed, processor=processor, mode="validation")),
        processing_class=processor,
        compute_metrics=accuracy,
    )
    trainer.train(resume_from_checkpoint=options.resume_from_checkpoint)
    trainer.save_model()
    trainer.save_metrics("eval", trainer.evaluate())


if __name__ == "__main__":
    main()
