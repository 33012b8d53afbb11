"""
Pretrain a video encoder without labels by matching a short clip with a long clip of the same video.

    accelerate launch examples/pretrain_lstcl.py --recipe RECIPE --data VIDEOS --output_dir OUT
    accelerate launch examples/pretrain_lstcl.py --recipe RECIPE --data VIDEOS --config.framework byol
    python examples/pretrain_lstcl.py --recipe RECIPE --data VIDEOS --probe knn   # if VIDEOS has labels
    python examples/pretrain_lstcl.py --recipe RECIPE --data VIDEOS --plan        # steps, memory; runs nothing
    python examples/pretrain_lstcl.py --help                                           # every field

`hf-videovit recipes lstcl` lists the recipes. Then:

    accelerate launch examples/finetune.py --checkpoint OUT --data LABELLED_CLIPS --output_dir CLASSIFIER
"""

import sys

import hf_videovit  # noqa: F401  (registers the families)
from hf_videovit.cli.running import run_script


if __name__ == "__main__":
    run_script(sys.argv[1:], "encoder", __doc__, {"model_type": "lstcl", "drop_last": True})
