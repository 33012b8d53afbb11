"""
Pretrain a video encoder without labels by matching a short clip with a long clip of the same video.

    accelerate launch examples/pretrain_lstcl.py --recipe RECIPE.yaml --data VIDEOS --output_dir OUT
    accelerate launch examples/pretrain_lstcl.py --recipe RECIPE.yaml --data VIDEOS --config.framework byol
    python examples/pretrain_lstcl.py --recipe RECIPE.yaml --data VIDEOS --probe knn   # VIDEOS has labels: watch them
    python examples/pretrain_lstcl.py --recipe RECIPE.yaml --data VIDEOS --plan        # steps, memory; nothing runs
    python examples/pretrain_lstcl.py --help                                           # every field

RECIPE.yaml: the files `pretrain_*.yaml` in hf_videovit/training/recipes/lstcl. Then:

    accelerate launch examples/finetune.py --checkpoint OUT --data LABELLED_CLIPS --output_dir CLASSIFIER
"""

import sys

import rich

import hf_videovit  # noqa: F401  (registers the families)
from hf_videovit.hub.publishing import check_access, finish_run
from hf_videovit.training.arguments import describe_arguments, parse_arguments
from hf_videovit.training.methods.common import make_accelerator
from hf_videovit.training.methods.contrastive import pretrain_contrastive
from hf_videovit.training.planning import plan_run


def main():
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__, describe_arguments(), sep="\n")
        return
    defaults = {"model_type": "lstcl", "drop_last": True}
    config = parse_arguments([word for word in sys.argv[1:] if word != "--plan"], defaults)
    if "--plan" in sys.argv[1:]:
        rich.print(plan_run(config, task="contrastive"))
        return
    if config.run.push_to_hub:
        check_access(config.run.push_to_hub)
    accelerator = make_accelerator(config.run)
    result = pretrain_contrastive(config, accelerator=accelerator)
    if accelerator.is_main_process:
        published = finish_run(result.output_dir, config.run, result.facts)
        for name, value in result.facts["outcomes"].items():
            print(f"{name}: {value}")
        print(f"saved in {result.output_dir}{f', published as {published.url}' if published else ''}")
    accelerator.end_training()


if __name__ == "__main__":
    main()
