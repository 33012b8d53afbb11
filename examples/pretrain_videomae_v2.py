"""
Pretrain a masked autoencoder on videos without labels, and leave a folder that fine-tuning starts from, with a picture
of what the model reconstructs.

    accelerate launch examples/pretrain_videomae_v2.py --size small --data CLIPS --output_dir OUT --epochs 100
    accelerate launch examples/pretrain_videomae_v2.py --recipe RECIPE.yaml --data CLIPS --learning_rate 1e-3
    python examples/pretrain_videomae_v2.py --size small --data CLIPS --plan   # steps, memory, time; nothing runs
    python examples/pretrain_videomae_v2.py --help                             # every field

RECIPE.yaml: the files `pretrain_*.yaml` in hf_videovit/training/recipes/videomae_v2. Then:

    accelerate launch examples/finetune.py --checkpoint OUT --data LABELLED_CLIPS --output_dir CLASSIFIER
"""

import sys

import rich

import hf_videovit  # noqa: F401  (registers the families)
from hf_videovit.hub.publishing import check_access, finish_run
from hf_videovit.training.arguments import describe_arguments, parse_arguments
from hf_videovit.training.methods.common import make_accelerator
from hf_videovit.training.methods.masked_pixels import pretrain
from hf_videovit.training.planning import plan_run


def main():
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__, describe_arguments(), sep="\n")
        return
    config = parse_arguments([word for word in sys.argv[1:] if word != "--plan"])
    if "--plan" in sys.argv[1:]:
        rich.print(plan_run(config, task="masked_modeling"))
        return
    if config.run.push_to_hub:
        check_access(config.run.push_to_hub)
    accelerator = make_accelerator(config.run)
    result = pretrain(config, accelerator=accelerator)
    if accelerator.is_main_process:
        published = finish_run(result.output_dir, config.run, result.facts)
        for name, value in result.facts["outcomes"].items():
            print(f"{name}: {value}")
        print(f"saved in {result.output_dir}{f', published as {published.url}' if published else ''}")
    accelerator.end_training()


if __name__ == "__main__":
    main()
