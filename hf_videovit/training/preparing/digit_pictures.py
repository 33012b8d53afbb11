"""
Labelled pictures for detection, segmentation and pose: handwritten digits lie on a photograph, turned by up to 30
degrees, and do not overlap. Boxes, masks and keypoints are computed from the place of each digit, not drawn by hand.

Needs scikit-learn, which contains the digits (UCI optical digits, CC BY 4.0) and the photographs (CC BY).
"""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .action_scenes import pale_photograph
from .digit_motion import NOISE_SIGMA, TRAIN_DIGITS, handwritten_digits, random_colour, write_once


SPLITS = ("training", "validation")
HEIGHT, WIDTH = 96, 128
DIGITS = (0, 1, 2, 3)
KEYPOINTS = ("center", "top_left", "top_right", "bottom_left", "bottom_right")
SKELETON = ((1, 2), (2, 4), (4, 3), (3, 1))  # indices into `KEYPOINTS`
MOST_DIGITS = 4  # in a picture
DIGIT_SIDE = (24.0, 40.0)  # pixels
MOST_DEGREES = 30.0
ATTEMPTS = 40  # to find a free place for a digit
UNLABELLED, BACKGROUND = 0, 1  # values of semantic masks
EDGE = (0.25, 0.75)  # opacities of pixels that are neither digit nor background
INK = 0.5  # opacity of a digit's pixels


@dataclass(frozen=True, eq=False)
class PlacedDigit:
    """
    One digit of a picture.

    Args:
        digit (`int`):
            0 to 9.
        mask (`np.ndarray` of shape `(height, width)`):
            `True` where the digit covers at least half of the pixel's colour.
        box (`tuple[int, int, int, int]`):
            Left, top, right and bottom of the mask in pixels; the last two are exclusive.
        keypoints (`np.ndarray` of shape `(5, 2)`):
            x and y of `KEYPOINTS` in pixels, from the upper left corner of the picture: the corners and the centre of
            the rectangle around the upright digit, turned with the digit.
    """

    digit: int
    mask: np.ndarray
    box: tuple[int, int, int, int]
    keypoints: np.ndarray


@dataclass(frozen=True, eq=False)
class DigitPicture:
    """
    One picture.

    Args:
        pixels (`np.ndarray` of shape `(96, 128, 3)`):
            uint8 RGB.
        semantic (`np.ndarray` of shape `(96, 128)`):
            uint8: 0 for the edges of digits, 1 for the background, 2 and more for the digits in their order.
        objects (`tuple[PlacedDigit, ...]`):
            The digits.
    """

    pixels: np.ndarray
    semantic: np.ndarray
    objects: tuple[PlacedDigit, ...]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the pixels."""
        return hashlib.sha256(np.ascontiguousarray(self.pixels).tobytes()).hexdigest()


def generate_digit_picture(
    split: str, index: int, digits: Sequence[int] = DIGITS, seed: int = 0, exactly: int | None = None
) -> DigitPicture:
    """
    Generate one picture. It depends on the arguments only.

    Args:
        split (`str`):
            `"training"` or `"validation"`. They differ in writers and in the parts of the photographs.
        index (`int`):
            Number of the picture in its split.
        digits (`Sequence[int]`, *optional*, defaults to `(0, 1, 2, 3)`):
            The classes.
        seed (`int`, *optional*, defaults to 0):
            Seed of the data set.
        exactly (`int`, *optional*):
            Number of digits. By default 1 to 4 at random.

    Returns:
        [`DigitPicture`]

    Raises:
        ValueError: the split does not exist, or a digit is not from 0 to 9.
    """
    if split not in SPLITS:
        raise ValueError(f"`split` must be one of {', '.join(SPLITS)}, got {split!r}")
    _check_digits(digits)
    rng = np.random.default_rng(np.random.SeedSequence([seed, SPLITS.index(split)], spawn_key=(index,)))
    mattes, kinds = handwritten_digits()
    writers = slice(None, TRAIN_DIGITS) if split == "training" else slice(TRAIN_DIGITS, None)
    mattes, kinds = mattes[writers], kinds[writers]
    pixels = pale_photograph(rng, split == "training", HEIGHT, WIDTH)
    mean_colour = pixels.mean(axis=(0, 1))
    semantic = np.full((HEIGHT, WIDTH), BACKGROUND, dtype=np.uint8)
    taken: list[tuple[np.ndarray, float]] = []
    objects: list[PlacedDigit] = []
    for _ in range(exactly or int(rng.integers(1, MOST_DIGITS + 1))):
        place = _free_place(rng, taken)
        if place is None:
            continue
        number = int(rng.integers(len(digits)))
        matte = mattes[rng.choice(np.flatnonzero(kinds == digits[number]))]
        opacity, keypoints = _turned(matte, *place)
        pixels += (random_colour(rng, mean_colour) - pixels) * opacity[..., None]
        semantic[opacity > EDGE[0]] = UNLABELLED
        semantic[opacity > EDGE[1]] = number + BACKGROUND + 1
        objects.append(_placed(digits[number], opacity >= INK, keypoints))
    pixels += NOISE_SIGMA * rng.standard_normal(pixels.shape, dtype=np.float32)
    return DigitPicture(np.clip(np.rint(pixels), 0, 255).astype(np.uint8), semantic, tuple(objects))


def _check_digits(digits: Sequence[int]) -> None:
    if not digits or len(set(digits)) < len(digits) or not all(digit in range(10) for digit in digits):
        raise ValueError(f"`digits` must be different numbers from 0 to 9, got {list(digits)}")


def _free_place(
    rng: np.random.Generator, taken: list[tuple[np.ndarray, float]]
) -> tuple[np.ndarray, float, float] | None:
    """Centre, side and angle of a digit whose turned square meets no other's, or none."""
    for _ in range(ATTEMPTS):
        side, angle = rng.uniform(*DIGIT_SIDE), np.radians(rng.uniform(-MOST_DEGREES, MOST_DEGREES))
        # half of the turned square; a cell more, over which the opacity fades out
        reach = (0.5 + 1 / 8) * side * (np.cos(angle) + abs(np.sin(angle)))
        centre = rng.uniform(reach, np.array([WIDTH, HEIGHT]) - reach)
        if all(np.abs(centre - other).max() > reach + far for other, far in taken):
            taken.append((centre, reach))
            return centre, side, angle
    return None


def _turned(matte: np.ndarray, centre: np.ndarray, side: float, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Opacity of a digit `(height, width)`, bilinear in its matte, and its keypoints `(5, 2)`."""
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    columns, rows = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    cells = len(matte)
    upright = (np.stack([columns, rows], axis=-1) - centre) @ turn  # by the inverse of `turn`
    position = (upright / side + 0.5) * cells - 0.5  # (height, width, 2): column and row of the matte
    hats = np.maximum(1 - np.abs(position[..., None] - np.arange(cells)), 0).astype(np.float32)
    opacity = np.minimum(np.einsum("hwr,rc,hwc->hw", hats[:, :, 1], matte, hats[:, :, 0]) * 1.3, 1.0)
    inked = matte >= INK
    (left, right), (top, bottom) = (np.flatnonzero(inked.any(axis))[[0, -1]] + [0, 1] for axis in (0, 1))
    corners = [(left, top), (right, top), (left, bottom), (right, bottom)]
    points = np.array([((left + right) / 2, (top + bottom) / 2), *corners])
    return opacity, (points / cells - 0.5) * side @ turn.T + centre


def _placed(digit: int, mask: np.ndarray, keypoints: np.ndarray) -> PlacedDigit:
    (left, right), (top, bottom) = (np.flatnonzero(mask.any(axis))[[0, -1]] + [0, 1] for axis in (0, 1))
    return PlacedDigit(digit, mask, (int(left), int(top), int(right), int(bottom)), keypoints)


def build_digit_pictures(
    root: str | Path,
    num_train: int = 600,
    num_val: int = 150,
    digits: Sequence[int] = DIGITS,
    seed: int = 0,
    exactly: int | None = None,
) -> Path:
    """
    Write pictures with their annotations, unless they exist, and return their folder:

    - `images/training/*.png`, `images/validation/*.png`;
    - `annotations/training/*.png`, `annotations/validation/*.png`: semantic masks as in ADE20K, 0 for pixels without a
      label and class `n` of `labels.json` as `n + 1`;
    - `annotations/instances_training.json` and `..._validation.json`: boxes and masks (run lengths) in COCO's format;
    - `annotations/keypoints_training.json` and `..._validation.json`: keypoints, one category `digit`;
    - `pictures.json`: a hash of each picture.

    Args:
        root (`str` or `Path`):
            Cache folder. Every combination of the other arguments has its own folder in it.
        num_train (`int`, *optional*, defaults to 600):
            Pictures for training.
        num_val (`int`, *optional*, defaults to 150):
            Pictures for validation.
        digits (`Sequence[int]`, *optional*, defaults to `(0, 1, 2, 3)`):
            The classes.
        seed (`int`, *optional*, defaults to 0):
            Seed of the data set.
        exactly (`int`, *optional*):
            Digits of each picture. By default 1 to 4 at random.

    Returns:
        `Path`: the folder of the data set.

    Raises:
        ValueError: a number is less than 1, or a digit is not from 0 to 9.
    """
    for name, count in (
        ("num_train", num_train),
        ("num_val", num_val),
        ("exactly", 1 if exactly is None else exactly),
    ):
        if count < 1:
            raise ValueError(f"`{name}` must be at least 1, got {count}")
    _check_digits(digits)
    name = f"digit-pictures-{num_train}+{num_val}-{''.join(map(str, digits))}-seed{seed}"
    name += f"-exactly{exactly}" if exactly else ""
    counts = dict(zip(SPLITS, (num_train, num_val)))

    def write(folder: Path) -> None:
        hashes: dict[str, str] = {}
        for split, count in counts.items():
            with ThreadPoolExecutor() as pool:  # numpy releases the global interpreter lock most of the time
                jobs = [
                    pool.submit(generate_digit_picture, split, index, digits, seed, exactly) for index in range(count)
                ]
                pictures = [job.result() for job in jobs]
            _write_split(folder, split, pictures, digits)
            hashes |= {f"{split}/{index:06d}.png": one.fingerprint for index, one in enumerate(pictures)}
        names = ["background", *map(str, digits)]
        for file, content in (("labels.json", names), ("pictures.json", hashes)):
            (folder / file).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    return write_once(Path(root) / name, write)


def _write_split(folder: Path, split: str, pictures: Sequence[DigitPicture], digits: Sequence[int]) -> None:
    """Pictures and annotations of one split."""
    for kind in ("images", "annotations"):
        (folder / kind / split).mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    for index, picture in enumerate(pictures):
        name = f"{index:06d}.png"
        Image.fromarray(picture.pixels).save(folder / "images" / split / name)
        Image.fromarray(picture.semantic).save(folder / "annotations" / split / name)
        images.append({"id": index + 1, "file_name": name, "height": HEIGHT, "width": WIDTH})
        for one in picture.objects:
            entry = {"id": len(instances) + 1, "image_id": index + 1, **_annotation(one)}
            instances.append(entry | {"category_id": list(digits).index(one.digit) + 1})
    classes = [{"id": number, "name": str(digit)} for number, digit in enumerate(digits, start=1)]
    posed = {"id": 1, "name": "digit", "keypoints": KEYPOINTS, "skeleton": [(a + 1, b + 1) for a, b in SKELETON]}
    boxes = [{name: value for name, value in one.items() if "keypoints" not in name} for one in instances]
    poses = [one | {"category_id": 1} for one in instances]
    for kind, categories, annotations in (("instances", classes, boxes), ("keypoints", [posed], poses)):
        content = {"images": images, "annotations": annotations, "categories": categories}
        path = folder / "annotations" / f"{kind}_{split}.json"
        path.write_text(json.dumps(content), encoding="utf-8")


def _annotation(one: PlacedDigit) -> dict[str, Any]:
    """Box, mask and keypoints as COCO writes them."""
    left, top, right, bottom = one.box
    points = [value for x, y in one.keypoints.round(3).tolist() for value in (x, y, 2)]
    return {
        "bbox": [left, top, right - left, bottom - top],
        "area": int(one.mask.sum()),
        "iscrowd": 0,
        "segmentation": {"size": list(one.mask.shape), "counts": run_lengths(one.mask)},
        "keypoints": points,
        "num_keypoints": len(KEYPOINTS),
    }


def run_lengths(mask: np.ndarray) -> list[int]:
    """
    A mask as COCO's uncompressed run lengths.

    Args:
        mask (`np.ndarray` of shape `(height, width)`):
            The mask.

    Returns:
        `list[int]`: numbers of pixels, down the columns, that are outside, inside, outside and so on.
    """
    flat = np.concatenate([[0], mask.ravel(order="F").astype(np.int8)])
    edges = np.flatnonzero(np.diff(flat))
    return np.diff(np.concatenate([[0], edges, [mask.size]])).tolist()


__all__ = [
    "DIGITS",
    "KEYPOINTS",
    "DigitPicture",
    "PlacedDigit",
    "build_digit_pictures",
    "generate_digit_picture",
    "run_lengths",
]
