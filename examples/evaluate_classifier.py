"""
Evaluate a video classifier with its own protocol (frames, clips, crops and merging of views as saved with the
checkpoint) and write `results.json`: scores, a table of classes, and the environment. Label names of data and model
are matched by name. Unreadable videos are reported. With one label per video, a picture of the confusion matrix is
saved beside it.

    accelerate launch examples/evaluate_classifier.py --model DIR --data CLIPS --split val --output results.json
    accelerate launch examples/evaluate_classifier.py --model DIR --data videos.csv --batch_size 8 --num_workers 4
    accelerate launch examples/evaluate_classifier.py --model owner/model --data hf://datasets/owner/name@revision

Data with several labels per video (lists in JSON, or `--label_separator`) are evaluated by mean average precision.
With `--batch_size 1`, the default, the logits equal those of the pipeline to the last bit.
"""

import argparse

from accelerate import Accelerator
from rich.console import Console
from transformers import AutoModelForVideoClassification, AutoVideoProcessor

import hf_videovit  # noqa: F401  (registers the families)
from hf_videovit.training.arguments import DataArguments
from hf_videovit.training.data.opening import load_evaluation_source
from hf_videovit.training.evaluation.evaluation import evaluate_model


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="Folder or Hub id of the model.")
    parser.add_argument("--data", required=True, help="Folder, list, shards, data set repo id or hf:// address.")
    parser.add_argument("--split", help="Split of the data. Default: the first of val, validation, test.")
    parser.add_argument("--video_column")
    parser.add_argument("--label_column")
    parser.add_argument("--label_separator", help="Separator between the labels of a video with several labels.")
    parser.add_argument("--max_samples", type=int, help="Evaluate only this number of videos, chosen by the seed.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--num_workers", type=int, default=2)
    parser.add_argument("--output", default="results.json")
    parser.add_argument("--predictions", help="Write one row per video to this .jsonl file.")
    parser.add_argument("--confusion", help="Write the confusion matrix to this .csv file.")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    accelerator = Accelerator()
    data = DataArguments(
        eval_data=arguments.data,
        eval_split=arguments.split,
        video_column=arguments.video_column,
        label_column=arguments.label_column,
        label_separator=arguments.label_separator,
        max_eval_samples=arguments.max_samples,
    )
    result = evaluate_model(
        AutoModelForVideoClassification.from_pretrained(arguments.model).to(accelerator.device),
        AutoVideoProcessor.from_pretrained(arguments.model),
        load_evaluation_source(data, arguments.seed),
        batch_size=arguments.batch_size,
        num_workers=arguments.num_workers,
        accelerator=accelerator,
        progress=True,
    )
    if accelerator.is_main_process:
        named = {"model": arguments.model, "data": arguments.data, "split": arguments.split, "seed": arguments.seed}
        named |= {"max_samples": arguments.max_samples}
        result.save(arguments.output, **named)
        if arguments.predictions:
            result.save_predictions(arguments.predictions)
        if arguments.confusion:
            result.save_confusion_matrix(arguments.confusion)
        if result.labels is not None:
            Console().print(result.table())
        print({**result.metrics, "videos": len(result.ids), "unreadable": len(result.failed)})
    accelerator.end_training()


if __name__ == "__main__":
    main()
