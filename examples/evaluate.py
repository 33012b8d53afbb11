"""
Score a video classifier through its own protocol (frames, clips, crops and merging as saved with the checkpoint) and
write `results.json`. Label names of data and model are matched by name; videos that cannot be read are reported.

    accelerate launch examples/evaluate.py --model DIR --data CLIPS --split val --output results.json
    accelerate launch examples/evaluate.py --model DIR --data videos.csv --batch_size 8 --num_workers 4

The logits of a file are those of the pipeline to the last bit with `--batch_size 1` (the default).
"""

import argparse

from accelerate import Accelerator
from transformers import AutoModelForVideoClassification, AutoVideoProcessor

import hf_videovit  # noqa: F401  (registers the families)
from hf_videovit.training.evaluation import evaluate_model
from hf_videovit.training.opening import open_source


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder or Hub id")
    parser.add_argument("--data", required=True, help="folder, list, shards or data set repo id")
    parser.add_argument("--split", help="split of the data, where it has any")
    parser.add_argument("--video_column")
    parser.add_argument("--label_column")
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--num_workers", type=int, default=2)
    parser.add_argument("--output", default="results.json")
    parser.add_argument("--predictions", help="write a row a video to this .jsonl file")
    parser.add_argument("--confusion", help="write how often which label is taken for which to this .csv file")
    arguments = parser.parse_args()

    accelerator = Accelerator()
    result = evaluate_model(
        AutoModelForVideoClassification.from_pretrained(arguments.model).to(accelerator.device),
        AutoVideoProcessor.from_pretrained(arguments.model),
        open_source(
            arguments.data,
            arguments.split,
            video_column=arguments.video_column,
            label_column=arguments.label_column,
        ),
        batch_size=arguments.batch_size,
        num_workers=arguments.num_workers,
        accelerator=accelerator,
        progress=True,
    )
    if accelerator.is_main_process:
        result.save(arguments.output, model=arguments.model, data=arguments.data, split=arguments.split)
        if arguments.predictions:
            result.save_predictions(arguments.predictions)
        if arguments.confusion:
            result.save_confusion_matrix(arguments.confusion)
        print({**result.metrics, "videos": len(result.ids), "unreadable": len(result.failed)})
    accelerator.end_training()


if __name__ == "__main__":
    main()
