"""
Labelled scenes of four for action detection: four people or digits, each in its own quarter of the frame, do the four
different actions at once. A model that does not look at a box cannot know whose action is asked: it is right in one of
four cases, however well it is trained.

- Digits: four handwritten digits over a photograph move right, left, down and up. Place, digit and colour at the
  key-frame are independent of the direction, so a single frame does not tell it either.
- People: four clips of the user's, one of each of four actions, are pasted over a photograph and drift slowly.

Needs scikit-learn, which contains the digits (UCI optical digits, CC BY 4.0) and the two photographs (CC BY).
"""

import csv
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...modeling.video_decoding import decode_video
from ...modeling.video_decoding_types import VIDEO_SUFFIXES
from ..data.key_frames import KeyFrame, write_key_frames
from .digit_motion import (
    BACKDROP_CONTRAST,
    FRAMES_PER_SECOND,
    NOISE_SIGMA,
    TRAIN_COLUMNS,
    TRAIN_DIGITS,
    handwritten_digits,
    photographs,
    random_colour,
    resample,
    write_clip,
    write_once,
)


SPLITS = ("train", "val")
HEIGHT, WIDTH = 96, 128
CELL_HEIGHT, CELL_WIDTH = HEIGHT // 2, WIDTH // 2
NUM_FRAMES, KEY_FRAME = 24, 12
# Unit vectors x, y; y points down.
DIRECTIONS = {"right": (1, 0), "left": (-1, 0), "down": (0, 1), "up": (0, -1)}
DIGIT_SIDE = (18.0, 26.0)  # pixels
DIGIT_SPEED = (0.3, 0.45)  # pixels per frame
PERSON_SIDE = (36.0, 48.0)
PERSON_DRIFT = 0.35  # largest, in pixels per frame along each axis
PERSON_CONTRAST, PERSON_BRIGHTNESS = (0.8, 1.2), (-20.0, 20.0)


@dataclass(frozen=True, eq=False)
class ActionScene:
    """
    One scene.

    Args:
        frames (`np.ndarray` of shape `(24, 96, 128, 3)`):
            uint8 RGB frames.
        labels (`tuple[str, ...]`):
            Action of each of the four.
        tracks (`np.ndarray` of shape `(4, 24, 4)`):
            Corners x1, y1, x2, y2 of each of the four on every frame, in pixels, the second one exclusive.
    """

    frames: np.ndarray
    labels: tuple[str, ...]
    tracks: np.ndarray

    @property
    def boxes(self) -> np.ndarray:
        """Corners on the key-frame: `(4, 4)`."""
        return self.tracks[:, KEY_FRAME]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the raw frames, which unlike the encoded file do not depend on the version of the encoder."""
        return hashlib.sha256(np.ascontiguousarray(self.frames).tobytes()).hexdigest()


def generate_digit_scene(split: str, index: int, seed: int = 0) -> ActionScene:
    """
    Generate one scene of digits. It depends on the arguments only.

    Args:
        split (`str`):
            `"train"` or `"val"`. They differ in writers and in the parts of the photographs.
        index (`int`):
            Number of the scene in its split.
        seed (`int`, *optional*, defaults to 0):
            Seed of the data set.

    Returns:
        [`ActionScene`]: labels are the keys of `DIRECTIONS`.

    Raises:
        ValueError: the split does not exist.
    """
    rng = _random(split, index, seed)
    frames = np.repeat(pale_photograph(rng, split == "train", HEIGHT, WIDTH)[None], NUM_FRAMES, axis=0)
    mean_colour = frames[0].mean(axis=(0, 1))
    mattes, _ = handwritten_digits()
    mattes = mattes[:TRAIN_DIGITS] if split == "train" else mattes[TRAIN_DIGITS:]
    labels = tuple(str(name) for name in rng.permutation(list(DIRECTIONS)))
    tracks = np.empty((len(labels), NUM_FRAMES, 4))
    times = np.arange(NUM_FRAMES)[:, None] - KEY_FRAME
    # what the fastest digit covers before the key-frame: the same room whatever its direction and speed
    margin = DIGIT_SPEED[1] * max(KEY_FRAME, NUM_FRAMES - 1 - KEY_FRAME)
    for cell, label in enumerate(labels):
        side, speed = rng.uniform(*DIGIT_SIDE), rng.uniform(*DIGIT_SPEED)
        room = np.array([CELL_WIDTH, CELL_HEIGHT]) - side - 2 * margin
        corners = margin + rng.uniform(0, 1, size=2) * room + times * speed * np.array(DIRECTIONS[label])
        opacity = _digit_opacity(mattes[rng.integers(len(mattes))], corners, side)
        colour = random_colour(rng, mean_colour)
        _paste(frames, cell, np.broadcast_to(colour, (*opacity.shape, 3)), opacity)
        tracks[cell] = _boxes(cell, corners, side)
    return ActionScene(_finish(rng, frames), labels, tracks)


def generate_people_scene(
    clips: Mapping[str, Sequence[np.ndarray]], split: str, index: int, seed: int = 0
) -> ActionScene:
    """
    Generate one scene of people. It depends on the arguments only.

    Args:
        clips (`Mapping[str, Sequence[np.ndarray]]`):
            Clips of each of four actions: uint8 RGB frames of shape `(num_frames, height, width, 3)`, with at least 24
            frames. See [`load_people`].
        split (`str`):
            `"train"` or `"val"`, for the parts of the photographs; `clips` must be of that split.
        index (`int`):
            Number of the scene in its split.
        seed (`int`, *optional*, defaults to 0):
            Seed of the data set.

    Returns:
        [`ActionScene`]: labels are the keys of `clips`.

    Raises:
        ValueError: the split does not exist, or there are not four actions.
    """
    if len(clips) != 4:
        raise ValueError(f"`clips` must have four actions, got {len(clips)}: {', '.join(clips)}")
    rng = _random(split, index, seed)
    frames = np.repeat(pale_photograph(rng, split == "train", HEIGHT, WIDTH)[None], NUM_FRAMES, axis=0)
    labels = tuple(str(name) for name in rng.permutation(sorted(clips)))
    tracks = np.empty((len(labels), NUM_FRAMES, 4))
    for cell, label in enumerate(labels):
        clip = clips[label][int(rng.integers(len(clips[label])))][:NUM_FRAMES].astype(np.float32)
        side = rng.uniform(*PERSON_SIDE)
        room = np.array([CELL_WIDTH, CELL_HEIGHT]) - side
        drift = np.minimum(PERSON_DRIFT, room / (NUM_FRAMES - 1))
        travel = rng.uniform(-drift, drift) * (NUM_FRAMES - 1)
        start = rng.uniform(np.maximum(0, -travel), room - np.maximum(0, travel))
        corners = start + travel * np.linspace(0, 1, NUM_FRAMES)[:, None]
        mean = clip.mean()
        clip = (clip - mean) * rng.uniform(*PERSON_CONTRAST) + mean + rng.uniform(*PERSON_BRIGHTNESS)
        pixels, opacity = _scaled_clip(clip, corners, side)
        _paste(frames, cell, pixels, opacity)
        tracks[cell] = _boxes(cell, corners, side)
    return ActionScene(_finish(rng, frames), labels, tracks)


def load_people(root: str | Path, split: str) -> dict[str, list[np.ndarray]]:
    """
    Read the clips that scenes of people are made of.

    Args:
        root (`str` or `Path`):
            A folder `train/<action>/` and `val/<action>/` with four actions. Its people should differ between splits.
        split (`str`):
            `"train"` or `"val"`.

    Returns:
        `dict[str, list[np.ndarray]]`: the first 24 frames of each clip, by action.

    Raises:
        ValueError: the folder is not as above, or a clip is too short.
    """
    folder = Path(root) / split
    actions = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if len(actions) != 4:
        raise ValueError(
            f"`root` must have four actions in {split}/, {str(root)!r} has {', '.join(actions) or 'none'}"
        )
    clips: dict[str, list[np.ndarray]] = {}
    for action in actions:
        files = sorted(path for path in (folder / action).iterdir() if path.suffix.lower() in VIDEO_SUFFIXES)
        clips[action] = [decode_video(path).frames[:NUM_FRAMES] for path in files]
        short = [path.name for path, clip in zip(files, clips[action]) if len(clip) < NUM_FRAMES]
        if short or not files:
            raise ValueError(f"{split}/{action} needs clips of {NUM_FRAMES} frames; too short: {', '.join(short[:3])}")
    return clips


def build_digit_scenes(root: str | Path, num_train: int = 400, num_val: int = 100, seed: int = 0) -> Path:
    """
    Write scenes of digits, unless they exist, and return their folder: `train/*.mp4`, `val/*.mp4`, `train.jsonl` and
    `val.jsonl` (see [`read_key_frames`]), `labels.json`, and `scenes.csv` with a hash of the raw frames.

    Args:
        root (`str` or `Path`):
            Cache folder. Every combination of the other arguments has its own folder in it.
        num_train (`int`, *optional*, defaults to 400):
            Scenes of the train split.
        num_val (`int`, *optional*, defaults to 100):
            Scenes of the val split.
        seed (`int`, *optional*, defaults to 0):
            Seed of the data set.

    Returns:
        `Path`: the folder of the data set.

    Raises:
        ValueError: a number is less than 1.
    """
    _check_counts(num_train, num_val)
    folder = Path(root) / f"digit-scenes-{num_train}+{num_val}-seed{seed}"
    counts = {"train": num_train, "val": num_val}
    return write_once(
        folder,
        lambda draft: _write(draft, counts, list(DIRECTIONS), lambda split, i: generate_digit_scene(split, i, seed)),
    )


def build_people_scenes(
    root: str | Path, clips: str | Path, num_train: int = 400, num_val: int = 120, seed: int = 0
) -> Path:
    """
    Write scenes of people, unless they exist, and return their folder; files as in [`build_digit_scenes`]. They show
    the people of `clips`: mind the licence of those before you pass scenes on.

    Args:
        root (`str` or `Path`):
            Cache folder. Every combination of the other arguments has its own folder in it.
        clips (`str` or `Path`):
            The clips to paste, see [`load_people`].
        num_train (`int`, *optional*, defaults to 400):
            Scenes of the train split.
        num_val (`int`, *optional*, defaults to 120):
            Scenes of the val split.
        seed (`int`, *optional*, defaults to 0):
            Seed of the data set.

    Returns:
        `Path`: the folder of the data set.

    Raises:
        ValueError: a number is less than 1, or `clips` are not as in [`load_people`].
    """
    _check_counts(num_train, num_val)
    folder = Path(root) / f"people-scenes-{Path(clips).resolve().name}-{num_train}+{num_val}-seed{seed}"
    counts = {"train": num_train, "val": num_val}

    def write(draft: Path) -> None:
        loaded = {split: load_people(clips, split) for split in counts}
        if set(loaded["train"]) != set(loaded["val"]):
            raise ValueError(f"`clips` {str(clips)!r} has other actions in val/ than in train/")
        make = {split: loaded[split] for split in counts}
        labels = sorted(loaded["train"])
        _write(draft, counts, labels, lambda split, i: generate_people_scene(make[split], split, i, seed))

    return write_once(folder, write)


def _check_counts(num_train: int, num_val: int) -> None:
    for name, count in (("num_train", num_train), ("num_val", num_val)):
        if count < 1:
            raise ValueError(f"`{name}` must be at least 1, got {count}")


def _write(
    folder: Path, counts: Mapping[str, int], labels: Sequence[str], generate: Callable[[str, int], ActionScene]
) -> None:
    def write(split: str, index: int) -> tuple[KeyFrame, str]:
        scene = generate(split, index)
        name = f"{split}/{index:06d}.mp4"
        write_clip(folder / name, scene.frames)
        names = tuple((label,) for label in scene.labels)
        time = KEY_FRAME / FRAMES_PER_SECOND
        row = KeyFrame(name, time, WIDTH, HEIGHT, scene.boxes, names, tuple(range(len(names))), KEY_FRAME)
        return row, scene.fingerprint

    with (folder / "scenes.csv").open("w", newline="", encoding="utf-8") as file, ThreadPoolExecutor() as pool:
        table = csv.writer(file)
        table.writerow(["file", "split", "frames_sha256"])
        for split, count in counts.items():
            (folder / split).mkdir()
            # numpy and the encoder release the global interpreter lock most of the time
            made = list(pool.map(write, [split] * count, range(count)))
            write_key_frames(folder / f"{split}.jsonl", (row for row, _ in made))
            table.writerows([row.video, split, fingerprint] for row, fingerprint in made)
    (folder / "labels.json").write_text(json.dumps(list(labels), indent=1) + "\n", encoding="utf-8")


def _random(split: str, index: int, seed: int) -> np.random.Generator:
    """Random numbers of one scene."""
    if split not in SPLITS:
        raise ValueError(f"`split` must be one of {', '.join(SPLITS)}, got {split!r}")
    return np.random.default_rng(np.random.SeedSequence([seed, SPLITS.index(split)], spawn_key=(index,)))


def pale_photograph(rng: np.random.Generator, training: bool, height: int, width: int) -> np.ndarray:
    """
    A part of a photograph with low contrast.

    Args:
        rng (`np.random.Generator`):
            Random numbers.
        training (`bool`):
            Whether it is for training: those columns differ from the others.
        height (`int`):
            Height in pixels.
        width (`int`):
            Width in pixels.

    Returns:
        `np.ndarray` of shape `(height, width, 3)`: float32 RGB, 0 to 255.
    """
    choices = photographs()
    photograph = choices[rng.integers(len(choices))]
    border = int(TRAIN_COLUMNS * photograph.shape[1])
    photograph = photograph[:, :border] if training else photograph[:, border:]
    rows, columns = photograph.shape[:2]
    zoom = min(rng.uniform(0.9, 1.9), rows / height, columns / width)
    top, left = rng.uniform(0, rows - zoom * height), rng.uniform(0, columns - zoom * width)
    down, right = ((np.arange(count) + 0.5) * zoom - 0.5 for count in (height, width))
    ground = resample(photograph, top + down, left + right)
    if rng.random() < 0.5:
        ground = ground[:, ::-1]
    ground = ground[:, :, rng.permutation(3)]
    mean = ground.mean()
    return ((ground - mean) * BACKDROP_CONTRAST + np.clip(mean + rng.uniform(-30, 30), 50, 205)).astype(np.float32)


def _digit_opacity(matte: np.ndarray, corners: np.ndarray, side: float) -> np.ndarray:
    """
    Opacity of a digit at the pixels of its cell: `(24, 48, 64)`. Bilinear interpolation is separable: a weight of each
    row of the matte at each row of pixels, and the same for columns.
    """
    cells = len(matte)
    weights = []
    for axis, length in ((1, CELL_HEIGHT), (0, CELL_WIDTH)):
        position = (np.arange(length) + 0.5 - corners[:, axis, None]) / side * cells - 0.5  # in cells of the matte
        weights.append(np.maximum(1 - np.abs(position[:, :, None] - np.arange(cells)), 0).astype(np.float32))
    rows, columns = weights
    return np.minimum(rows @ matte @ columns.transpose(0, 2, 1) * 1.3, 1.0)


def _scaled_clip(clip: np.ndarray, corners: np.ndarray, side: float) -> tuple[np.ndarray, np.ndarray]:
    """A clip at the pixels of its cell, `(24, 48, 64, 3)`, and how much of each pixel it covers, `(24, 48, 64)`."""
    weights, covered = [], []
    for axis, (length, source) in enumerate(((CELL_WIDTH, clip.shape[2]), (CELL_HEIGHT, clip.shape[1]))):
        start, pixels = corners[:, axis, None], np.arange(length)
        scale = source / side
        position = (pixels + 0.5 - start) * scale - 0.5  # in pixels of the clip
        position = np.clip(position, -0.5, source - 0.5)
        # a triangle as wide as a pixel here or there, whichever is larger (antialias)
        distance = np.abs(position[:, :, None] - np.arange(source)) / max(scale, 1.0)
        weight = np.maximum(1 - distance, 0)
        weights.append((weight / weight.sum(axis=2, keepdims=True)).astype(np.float32))
        covered.append(np.clip(np.minimum(pixels + 1, start + side) - np.maximum(pixels, start), 0, 1))
    columns, rows = weights
    flat = rows @ clip.reshape(*clip.shape[:2], -1)  # (frames, 48, width * 3)
    pixels = columns[:, None] @ flat.reshape(len(clip), CELL_HEIGHT, -1, 3)
    return pixels, (covered[1][:, :, None] * covered[0][:, None, :]).astype(np.float32)


def _paste(frames: np.ndarray, cell: int, pixels: np.ndarray, opacity: np.ndarray) -> None:
    """Blend `pixels` into one quarter of `frames`."""
    top, left = CELL_HEIGHT * (cell // 2), CELL_WIDTH * (cell % 2)
    part = frames[:, top : top + CELL_HEIGHT, left : left + CELL_WIDTH]
    part += (pixels - part) * opacity[..., None]


def _boxes(cell: int, corners: np.ndarray, side: float) -> np.ndarray:
    """Corners `(24, 4)` on the canvas of a square that moves in its cell."""
    first = corners + np.array([CELL_WIDTH * (cell % 2), CELL_HEIGHT * (cell // 2)])
    return np.concatenate([first, first + side], axis=1)


def _finish(rng: np.random.Generator, frames: np.ndarray) -> np.ndarray:
    frames += NOISE_SIGMA * rng.standard_normal(frames.shape, dtype=np.float32)
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8)


__all__ = [
    "DIRECTIONS",
    "ActionScene",
    "build_digit_scenes",
    "build_people_scenes",
    "generate_digit_scene",
    "generate_people_scene",
    "load_people",
    "pale_photograph",
]
