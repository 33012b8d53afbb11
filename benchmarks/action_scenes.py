"""
What a detector trained on generated scenes reads: its mAP and accuracy with the right boxes and with wrong ones.

    hf-videovit generate digit-scenes data
    hf-videovit train --recipe uniformer/digit_scenes \
        --data data/digit-scenes-400+100-seed0 --output_dir OUT
    python -m benchmarks.action_scenes OUT data/digit-scenes-400+100-seed0/val.jsonl

With the boxes of the neighbour a model that reads boxes names the neighbour's action: accuracy must fall below 12 %.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from transformers import AutoVideoProcessor

from benchmarks._machine import write_csv
from hf_videovit import AutoModelForActionDetection
from hf_videovit.training.data.key_frame_source import KeyFrameSource, open_key_frames
from hf_videovit.training.data.key_frames import KeyFrame
from hf_videovit.training.evaluation.action_detection import evaluate_action_detection


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a detector with one label a person")
    parser.add_argument("data", help="JSON lines of key-frames, such as val.jsonl")
    parser.add_argument("--output", type=Path, help="csv for the figures")
    return parser.parse_args()


def of_the_neighbour(row: KeyFrame) -> KeyFrame:
    return replace(row, boxes=np.roll(row.boxes, 1, axis=0))


def of_the_whole_frame(row: KeyFrame) -> KeyFrame:
    return replace(row, boxes=np.tile(np.array([0, 0, row.width, row.height], row.boxes.dtype), (len(row.boxes), 1)))


def of_swapped_axes(row: KeyFrame) -> KeyFrame:
    size = np.array([row.width, row.height] * 2, row.boxes.dtype)
    return replace(row, boxes=(row.boxes / size)[:, [1, 0, 3, 2]] * size)


def cases(truth: KeyFrameSource) -> Iterator[tuple[str, KeyFrameSource, float]]:
    """Name, key-frames, and the factor of the RoI's scale."""
    yield "right boxes", truth, 1.0
    for name, change in (
        ("boxes of the neighbour", of_the_neighbour),
        ("boxes of the whole frame", of_the_whole_frame),
        ("axes swapped", of_swapped_axes),
    ):
        yield name, truth.of_rows([change(row) for row in truth.rows]), 1.0
    yield "scale halved", truth, 0.5
    yield "scale doubled", truth, 2.0


def main() -> None:
    arguments = parse_arguments()
    model = AutoModelForActionDetection.from_pretrained(arguments.model)
    processor = AutoVideoProcessor.from_pretrained(arguments.model)
    truth = open_key_frames(arguments.data)
    settings = model.config.detection_config
    scale = settings.roi_scale or 1 / model.feature_stride
    rows = []
    for name, people, factor in cases(truth):
        settings.roi_scale = factor * scale
        result = evaluate_action_detection(model, processor, people, batch_size=8)
        wanted = [names for row in result.rows for names in row.labels]
        guesses = [result.label_names[index] for scores in result.scores for index in scores.argmax(1)]
        mean, accuracy = result.metrics["mAP"], np.mean([guess in names for guess, names in zip(guesses, wanted)])
        rows.append({"boxes": name, "mAP": mean, "accuracy": accuracy})
        print(f"{name:25} mAP {100 * mean:5.1f} %   accuracy {100 * accuracy:5.1f} %", flush=True)
    if arguments.output:
        write_csv(arguments.output, rows)


if __name__ == "__main__":
    main()
