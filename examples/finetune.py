"""
Fine-tune a video classifier on a folder of clips, a list, tars, parquet files or a data set repo, and leave a folder
that is ready for the Hub: weights, config, processor, results and card.

    accelerate launch examples/finetune.py --checkpoint DIR --data CLIPS --output_dir OUT --epochs 20
    accelerate launch examples/finetune.py --recipe RECIPE.yaml --data CLIPS --learning_rate 5e-4
    accelerate launch examples/finetune.py --size small --data CLIPS          # from scratch
    python examples/finetune.py --recipe RECIPE.yaml --data CLIPS --plan       # steps, memory and time, nothing runs
    python examples/finetune.py --help                                         # every field

Two processes on a machine without an accelerator (`--cpu --num_processes 2` would quietly start only one):

    ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes 2 examples/finetune.py ...

The result then answers for itself:

    pipeline("video-classification", model="OUT")("clip.mp4")
"""

import sys

import rich

import hf_videovit  # noqa: F401  (registers the families)
from hf_videovit.hub.publishing import check_access, finish_run
from hf_videovit.training.arguments import describe_arguments, parse_arguments
from hf_videovit.training.methods.classification import finetune
from hf_videovit.training.methods.common import make_accelerator
from hf_videovit.training.planning import plan_run


def main():
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__, describe_arguments(), sep="\n")
        return
    config = parse_arguments([word for word in sys.argv[1:] if word != "--plan"])
    if "--plan" in sys.argv[1:]:
        rich.print(plan_run(config))
        return
    if config.run.push_to_hub:
        check_access(config.run.push_to_hub)
    accelerator = make_accelerator(config.run)
    result = finetune(config, accelerator=accelerator)
    if accelerator.is_main_process:
        published = finish_run(result.output_dir, config.run, result.facts)
        if result.evaluation is not None:
            for name, value in result.evaluation.metrics.items():
                print(f"{name}: {value:.4f}")
        print(f"saved in {result.output_dir}{f', published as {published.url}' if published else ''}")
    accelerator.end_training()


if __name__ == "__main__":
    main()
