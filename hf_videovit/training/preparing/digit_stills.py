"""
Labelled stills for the clips of the label set `identity`: first frames of other clips of that set, with the digit that
they show. Stills and clips for training share no drawing of a digit with stills and clips for testing.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from PIL import Image

from .digit_motion import LABEL_SETS, SPLITS, DigitClip, generate_clip, table_row, write_once, write_table


SEED_OF_STILLS = 2**32  # added to the seed, so that stills are not frames of the clips of the same seed


def generate_still(split: str, index: int, *, size: int = 64, seed: int = 0) -> DigitClip:
    """
    Generate one still as a clip of one frame. It depends on the arguments only.

    Args:
        split (`str`):
            `"train"` or `"test"`, see [`generate_clip`].
        index (`int`):
            Number of the still in its split.
        size (`int`, *optional*, defaults to 64):
            Side of the square frame, in pixels. Even and at least 16.
        seed (`int`, *optional*, defaults to 0):
            Seed of the data set.

    Returns:
        [`DigitClip`]: the frame, `(1, size, size, 3)`, and its properties.

    Raises:
        ValueError: an argument is not allowed.
    """
    clip = generate_clip("identity", split, index, size=size, num_frames=2, seed=seed + SEED_OF_STILLS)
    return replace(clip, frames=clip.frames[:1])


def build_digit_stills(
    root: str | Path, num_train: int = 4000, num_test: int = 500, size: int = 64, seed: int = 0
) -> Path:
    """
    Write the data set, unless it exists, and return its folder: `train/<digit>/*.png`, `test/<digit>/*.png` and
    `labels.csv` with the drawing of each still.

    Args:
        root (`str` or `Path`):
            Cache folder. Every combination of the other arguments has its own folder in it.
        num_train (`int`, *optional*, defaults to 4000):
            Stills in the train split.
        num_test (`int`, *optional*, defaults to 500):
            Stills in the test split.
        size (`int`, *optional*, defaults to 64):
            Side of the stills, in pixels.
        seed (`int`, *optional*, defaults to 0):
            See [`generate_still`].

    Returns:
        `Path`: the folder of the data set.

    Raises:
        ValueError: an argument is not allowed.
    """
    counts = dict(zip(SPLITS, (num_train, num_test)))
    for split, count in counts.items():
        if count < 1:
            raise ValueError(f"`num_{split}` must be at least 1, got {count}")
    generate_still("train", 0, size=size, seed=seed)  # refuses what is not allowed before anything is written

    def write(folder: Path) -> None:
        for split in SPLITS:
            for label in LABEL_SETS["identity"]:
                (folder / split / label).mkdir(parents=True)
        with ThreadPoolExecutor() as pool:
            jobs = [
                pool.submit(_write_still, folder, split, i, size, seed)
                for split in SPLITS
                for i in range(counts[split])
            ]
            rows = [job.result() for job in jobs]
        write_table(folder, rows)

    return write_once(Path(root) / f"stills-{num_train}+{num_test}-{size}px-seed{seed}", write)


def _write_still(folder: Path, split: str, index: int, size: int, seed: int) -> dict[str, object]:
    still = generate_still(split, index, size=size, seed=seed)
    name = f"{split}/{still.label}/{index:06d}.png"
    Image.fromarray(still.frames[0]).save(folder / name)
    return table_row(name, split, still)


__all__ = ["SEED_OF_STILLS", "build_digit_stills", "generate_still"]
