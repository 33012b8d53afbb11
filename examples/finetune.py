"""
Fine-tune a video classifier on a folder of clips, a list, tars, parquet files or a data set repo. The output folder is
ready for the Hub: weights, config, processor, results and card.

    accelerate launch examples/finetune.py --checkpoint DIR --data CLIPS --output_dir OUT --epochs 20
    accelerate launch examples/finetune.py --recipe RECIPE --data CLIPS --learning_rate 5e-4
    accelerate launch examples/finetune.py --size small --data CLIPS          # from scratch
    python examples/finetune.py --recipe RECIPE --data CLIPS --plan       # steps, memory and time; runs nothing
    python examples/finetune.py --help                                         # every field

Two processes on a machine without an accelerator (`--cpu --num_processes 2` would silently start only one):

    ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes 2 examples/finetune.py ...

To use the result:

    pipeline("video-classification", model="OUT")("clip.mp4")
"""

import sys

import hf_videovit  # noqa: F401  (registers the families)
from hf_videovit.cli.running import run_script


if __name__ == "__main__":
    run_script(sys.argv[1:], "classifier", __doc__)
