"""
Models that the comparison of runtimes is judged on: small ones of three families, trained from random weights on
generated digits and on spoken words.

    python -m benchmarks.deploy_models --work WORK                         # digits: generated
    python -m benchmarks.deploy_models --work WORK --words grid_words8     # and the words, from a folder of clips

Digits are `examples/quickstart.py`'s: six motions, 6,000 clips to train on and 600 to test on. Words are eight
classes, 1,300 clips to train on and 300 to test on, of which the mouth is used; their models start from those of the
digits. `WORK` receives the clips, `WORK/DATA/FAMILY` the models. What is there is kept.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.grid_words_encoders import COMMON, FPS
from benchmarks.grid_words_localization import MOUTH
from hf_videovit.modeling.video_decoding import decode_video
from hf_videovit.training.arguments import RunConfig, parse_arguments
from hf_videovit.training.methods.choosing import finetune
from hf_videovit.training.preparing.digit_motion import build_digit_motion, write_clip, write_once


RECIPES = Path(__file__).parents[1] / "hf_videovit" / "training" / "recipes"
FAMILIES = ("videomae_v2", "uniformer", "uniformer_v2")
DATA = {"digits": "test", "words": "val"}  # with the split that is not trained on
DIGITS = {"num_train": 6000, "num_test": 600, "size": 32}
WORDS: dict[str, Any] = {  # beside COMMON; starts from the model of the digits
    "learning_rate": 1e-3,
    "epochs": 24,
    "seed": 0,
}


def clip_folder(name: str, work: Path, words: Path | None) -> Path:
    """
    The clips of a data set, in folders of classes.

    Args:
        name (`str`):
            A key of `DATA`.
        work (`Path`):
            Folder for clips and models.
        words (`Path`, *optional*):
            Folder of the clips of words; needed where their mouths have not been cut out yet.

    Raises:
        ValueError: the clips of words are needed.
    """
    if name == "digits":
        return build_digit_motion(work / "clips", **DIGITS)
    folder = work / "clips" / "words"
    if words is None and not folder.is_dir():
        raise ValueError("`words` must be the folder of the clips of words, got none.")

    def write(draft: Path) -> None:
        assert words is not None
        for clip in sorted(words.glob("*/*/*.mp4")):
            target = draft / clip.relative_to(words)
            target.parent.mkdir(parents=True, exist_ok=True)
            write_clip(target, decode_video(clip).frames[:, MOUTH[0], MOUTH[1]], FPS)

    return write_once(folder, write)


def run_config(name: str, family: str, work: Path, words: Path | None) -> RunConfig:
    """How a model is trained: by the recipe of the digits, or from the model of the digits on the words."""
    clips, output = str(clip_folder(name, work, words)), str(work / name / family)
    if name == "digits":
        recipe = str(RECIPES / family / "digit_motion.yaml")
        return parse_arguments(["--recipe", recipe, "--data", clips, "--output_dir", output])
    start = str(trained_model("digits", family, work))
    return RunConfig.from_fields(**{**COMMON, **WORDS}, checkpoint=start, data=clips, output_dir=output)


def trained_model(name: str, family: str, work: Path, words: Path | None = None) -> Path:
    """
    Train a model, unless it is there.

    Args:
        name (`str`):
            A key of `DATA`.
        family (`str`):
            One of `FAMILIES`.
        work (`Path`):
            Folder for clips and models.
        words (`Path`, *optional*):
            Folder of the clips of words.

    Returns:
        `Path`: its folder.
    """
    output = work / name / family
    if not (output / "model.safetensors").is_file():
        config = run_config(name, family, work, words)
        started = time.process_time()
        result = finetune(config)
        assert result.evaluation is not None
        seconds = time.process_time() - started
        print(f"{name} {family}: top-1 {result.evaluation.metrics['top1']:.4f}, {seconds:.0f} s", flush=True)
    return output


def data_names(words: Path | None, work: Path) -> Sequence[str]:
    """Digits, and the words where they can be had."""
    return [name for name in DATA if name == "digits" or words or (work / "clips" / name).is_dir()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for clips and models")
    parser.add_argument("--words", type=Path, help="folder of the clips of words, {train,val}/WORD/*.mp4")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for name in data_names(arguments.words, arguments.work):
        for family in FAMILIES:
            trained_model(name, family, arguments.work, arguments.words)


if __name__ == "__main__":
    main()
