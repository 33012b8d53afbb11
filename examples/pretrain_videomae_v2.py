"""
Pretrain a masked autoencoder on videos without labels. The output folder is a checkpoint for fine-tuning, with a
picture of a reconstruction.

    accelerate launch examples/pretrain_videomae_v2.py --size small --data CLIPS --output_dir OUT --epochs 100
    accelerate launch examples/pretrain_videomae_v2.py --recipe RECIPE --data CLIPS --learning_rate 1e-3
    python examples/pretrain_videomae_v2.py --size small --data CLIPS --plan   # steps, memory, time; runs nothing
    python examples/pretrain_videomae_v2.py --help                             # every field

`hf-videovit recipes videomae_v2` lists the recipes. Then:

    accelerate launch examples/finetune.py --checkpoint OUT --data LABELLED_CLIPS --output_dir CLASSIFIER
"""

import sys

import hf_videovit  # noqa: F401  (registers the families)
from hf_videovit.cli.running import run_script


if __name__ == "__main__":
    run_script(sys.argv[1:], "encoder", __doc__)
