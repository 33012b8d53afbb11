"""
Pretrain BEVT: predict the visual words of hidden patches in clips and images, without labels. The output folder is a
checkpoint for fine-tuning, with a picture of what the model sees and predicts.

    accelerate launch examples/pretrain_bevt.py --recipe RECIPE --data CLIPS --image_data IMAGES \
        --tokenizer facebook/flava-image-codebook --output_dir OUT
    python examples/pretrain_bevt.py --recipe RECIPE --plan        # steps, memory, time; runs nothing
    python examples/pretrain_bevt.py --help                             # every field

RECIPE: `bevt/pretrain_base` (stage 2: clips and images) or `bevt/pretrain_base_images` (stage 1). Then:

    accelerate launch examples/finetune.py --checkpoint OUT --data LABELLED_CLIPS --output_dir CLASSIFIER

The tokenizer costs more than the model. --word_cache FOLDER caches its words for later epochs and runs. This command
fills the cache in advance, with any number of processes:

    accelerate launch examples/pretrain_bevt.py --cache_words --word_cache FOLDER ...

Small data sets need neither DALL-E nor a folder of images. This command makes 64 words from typical patches and one
image from each clip, in FOLDER/words and FOLDER/images, for the recipe `bevt/small_clips`:

    python examples/pretrain_bevt.py --prepare 64 --recipe RECIPE --data CLIPS --output_dir FOLDER

With --moving, the words describe the difference from the mean frame of a clip, which is the motion if the camera is
static.
"""

import sys
from pathlib import Path

from PIL import Image

import hf_videovit  # noqa: F401  (registers the families)
from hf_videovit.cli.running import run_script
from hf_videovit.modeling.video_decoding import decode_video
from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.building import describe_inputs
from hf_videovit.training.data.opening import load_sources
from hf_videovit.training.defaults import read_run
from hf_videovit.training.methods.masked_words import cache_words
from hf_videovit.training.methods.running import make_accelerator
from hf_videovit.training.words.tokenizers import MovingPatchTokenizer, PatchTokenizer, fit_patch_tokenizer


FAMILY = {"model_type": "bevt"}


def prepare(config: RunConfig, num_words: int, moving: bool) -> None:
    """Make words and images for data that has neither."""
    folder, sources = Path(config.run.output_dir), load_sources(config.data, config.run.seed)
    model_config, processor = describe_inputs(config.model)
    tokenizer_class = MovingPatchTokenizer if moving else PatchTokenizer
    tokenizer = fit_patch_tokenizer(sources[0], processor, model_config, num_words, tokenizer_class=tokenizer_class)
    tokenizer.save_pretrained(folder / "words")
    for split, source in zip(("train", "val"), sources):
        (folder / "images" / split).mkdir(parents=True, exist_ok=True)
        for number, sample in enumerate(source or ()):
            middle = decode_video(sample.video, lambda metadata: [metadata.total_num_frames // 2]).frames[0]
            Image.fromarray(middle).save(folder / "images" / split / f"{number:06d}.png")
    print(f"saved in {folder / 'words'} and {folder / 'images'}")


def keep_words(config: RunConfig) -> None:
    """Find the words of every copy that a run will see."""
    accelerator = make_accelerator(config.run)
    done = cache_words(config, accelerator=accelerator)
    print(f"words of {done['found']} clips and images computed, {done['known']} already cached")
    accelerator.end_training()


def main():
    words = sys.argv[1:]
    if "--prepare" in words:
        at = words.index("--prepare")
        number = words[at + 1] if at + 1 < len(words) else ""
        if not number.isdecimal():
            raise SystemExit(f"--prepare needs the number of words, such as --prepare 64, got {number!r}")
        others = [word for word in words[:at] + words[at + 2 :] if word != "--moving"]
        prepare(read_run(others, "encoder", FAMILY), int(number), moving="--moving" in words)
    elif "--cache_words" in words:
        keep_words(read_run([word for word in words if word != "--cache_words"], "encoder", FAMILY))
    else:
        run_script(words, "encoder", __doc__, FAMILY)


if __name__ == "__main__":
    main()
