"""
Labelled video without a download: real handwritten digits that move over photographs, encoded as H.264.

The space is a torus: a digit that leaves on one side enters on the other. Speed, size, colour, digit and background
are sampled independently of the motion class. A single frame therefore contains no information about the motion, and
frames without their order only tell its axis. A model with an accuracy above 1/2 on `motion` uses the order of the
frames.

Needs scikit-learn, which contains the digits (UCI optical digits, CC BY 4.0) and the two photographs (CC BY).
"""

import contextlib
import csv
import hashlib
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from transformers.utils import logging

from .encoding import to_yuv420


logger = logging.get_logger(__name__)

__all__ = [
    "LABEL_SETS",
    "MOTIONS",
    "DigitClip",
    "build_digit_motion",
    "generate_clip",
    "handwritten_digits",
    "photographs",
    "random_colour",
    "resample",
    "table_row",
    "write_clip",
    "write_example_clips",
    "write_once",
    "write_table",
]

MOTIONS = ("right", "left", "down", "up", "clockwise", "counter-clockwise")
SPLITS = ("train", "test")

SPEED_NAMES = ("slow", "medium", "fast")
BLINK_COUNTS = (1, 2, 3, 4)

# Labels of each set. `both` is uniform given the digit alone or the motion alone. `binding` shows two digits, and the
# label is the motion of the larger one. `change` switches the motion once, in the middle of the clip. `identity` shows
# a digit that starts in the middle of a plain frame.
LABEL_SETS: dict[str, tuple[str, ...]] = {
    "motion": MOTIONS,
    "appearance": tuple(str(digit) for digit in range(10)),
    "both": ("0", "1", "2", "3"),
    "speed": SPEED_NAMES,
    "count": tuple(str(count) for count in BLINK_COUNTS),
    "binding": MOTIONS,
    "change": tuple(f"{first}_{second}" for first in MOTIONS for second in MOTIONS),
    "identity": tuple(str(digit) for digit in range(10)),
}

# Ranges are fractions of the frame side. They were chosen by a search so that small models learn quickly, but not
# without motion.
SPEED_RANGE = (0.03, 0.06)
RADIUS_RANGE = (0.12, 0.20)
SPRITE_RANGE = (0.44, 0.56)
START_RANGE = (0.47, 0.53)
BACKDROP_SPEED = 1.2 / 64
BACKDROP_CONTRAST = 0.45
MINIMUM_COLOUR_DISTANCE = 85.0
NOISE_SIGMA = 2.0
TRAIN_DIGITS = 1347
TRAIN_COLUMNS = 0.7
FRAMES_PER_SECOND = 25


@dataclass(frozen=True)
class Scene:
    """
    Content of a clip, as far as its label decides it.

    Args:
        label (`str`):
            Label of the clip.
        digits (`tuple[int, ...]`):
            Digits in the clip.
        motions (`tuple[str, ...]`):
            Motions of the first digit, one after the other; from `MOTIONS`.
        speed_bin (`int`, *optional*):
            Index into `SPEED_NAMES`; any speed by default.
        blinks (`int`, *optional*, defaults to 0):
            Number of times that the digit fades out and in.
        posed (`bool`, *optional*, defaults to `False`):
            Whether the digit starts in the middle of a plain frame, not anywhere over a photograph.
    """

    label: str
    digits: tuple[int, ...]
    motions: tuple[str, ...]
    speed_bin: int | None = None
    blinks: int = 0
    posed: bool = False


@dataclass(frozen=True)
class Sprite:
    """
    One moving digit.

    Args:
        drawing (`int`):
            Number of the digit's drawing in [`handwritten_digits`].
        matte (`np.ndarray` of shape `(8, 8)`):
            Opacity of the digit, 0 to 1.
        side (`float`):
            Side of the digit, in pixels.
        colour (`np.ndarray` of shape `(3,)`):
            RGB, 0 to 255.
        speed (`float`):
            Pixels per frame.
        path (`np.ndarray` of shape `(num_frames, 2)`):
            Position (x, y) of its centre on the torus, in pixels.
    """

    drawing: int
    matte: np.ndarray
    side: float
    colour: np.ndarray
    speed: float
    path: np.ndarray


@dataclass(frozen=True)
class DigitClip:
    """
    A generated clip with its properties.

    Args:
        frames (`np.ndarray` of shape `(num_frames, size, size, 3)`):
            uint8 RGB frames.
        label (`str`):
            One of `LABEL_SETS[label_set]`.
        digit (`int`):
            The digit; the larger one if there are two.
        drawings (`tuple[int, ...]`):
            Numbers of the digits' drawings in [`handwritten_digits`], that of `digit` first.
        motion (`str`):
            Its motion; the first one if it changes.
        speed (`float`):
            Pixels per frame.
        colour (`tuple[int, int, int]`):
            RGB of the digit, 0 to 255.
        blinks (`int`, *optional*, defaults to 0):
            Number of times that the digit fades out and in; 0 outside the `count` set.
        change_frame (`int`, *optional*, defaults to -1):
            First frame of the second motion; -1 outside the `change` set.
    """

    frames: np.ndarray
    label: str
    digit: int
    drawings: tuple[int, ...]
    motion: str
    speed: float
    colour: tuple[int, int, int]
    blinks: int = 0
    change_frame: int = -1

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the raw frames, which unlike the encoded file do not depend on the version of the encoder."""
        return hashlib.sha256(np.ascontiguousarray(self.frames).tobytes()).hexdigest()


@lru_cache(maxsize=1)
def handwritten_digits() -> tuple[np.ndarray, np.ndarray]:
    """
    Handwritten digits. The first `TRAIN_DIGITS` are for training, the others are mostly by other writers.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: mattes of shape `(1797, 8, 8)`, 0 to 1, and the digit of each.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return (bunch.images / 16.0).astype(np.float32), bunch.target


@lru_cache(maxsize=1)
def photographs() -> tuple[np.ndarray, ...]:
    """
    Two photographs. The left `TRAIN_COLUMNS` of their columns are for training.

    Returns:
        `tuple[np.ndarray, ...]`: float32 RGB, 0 to 255, of shape `(height, width, 3)`.
    """
    from sklearn.datasets import load_sample_images

    return tuple(image.astype(np.float32) for image in load_sample_images().images)


def plan_scene(label_set: str, index: int, rng: np.random.Generator) -> Scene:
    """
    Choose the label and the content of a clip. The label depends on the index, so every prefix of a split is balanced
    to within one clip per class. Everything that the label does not decide is random.

    Args:
        label_set (`str`):
            A key of `LABEL_SETS`.
        index (`int`):
            Number of the clip in its split.
        rng (`np.random.Generator`):
            Random numbers of the clip.

    Returns:
        [`Scene`]: label and content.
    """
    labels = LABEL_SETS[label_set]
    digit, motion = int(rng.integers(10)), MOTIONS[rng.integers(len(MOTIONS))]
    label = labels[index % len(labels)]
    if label_set == "motion":
        return Scene(label, (digit,), (label,))
    if label_set in ("appearance", "identity"):
        return Scene(label, (int(label),), (motion,), posed=label_set == "identity")
    if label_set == "both":
        digit, direction = divmod(index % 32, 4)
        return Scene(labels[(digit + direction) % 4], (digit,), (MOTIONS[direction],))
    if label_set == "speed":
        return Scene(label, (digit,), (motion,), speed_bin=labels.index(label))
    if label_set == "count":
        return Scene(label, (digit,), (motion,), blinks=int(label))
    if label_set == "binding":
        smaller, larger = sorted(int(digit) for digit in rng.choice(10, size=2, replace=False))
        return Scene(label, (larger, smaller), (label,))
    return Scene(label, (digit,), tuple(label.split("_")))


def motion_steps(motion: str, speed: float, radius: float, phase: float, num_frames: int) -> np.ndarray:
    """
    Displacement from each frame to the next. The y axis points down: `down` is +y, and a growing angle turns clockwise
    on the screen.

    Args:
        motion (`str`):
            One of `MOTIONS`.
        speed (`float`):
            Pixels per frame.
        radius (`float`):
            Radius of a circular motion, in pixels.
        phase (`float`):
            Start angle of a circular motion, in radians.
        num_frames (`int`):
            Frames of the clip.

    Returns:
        `np.ndarray` of shape `(num_frames - 1, 2)`: (x, y) in pixels.
    """
    straight = {"right": (1, 0), "left": (-1, 0), "down": (0, 1), "up": (0, -1)}
    if motion in straight:
        return np.tile(np.multiply(straight[motion], speed), (num_frames - 1, 1))
    sign = 1.0 if motion == "clockwise" else -1.0
    angle = phase + sign * speed / radius * np.arange(num_frames)
    return np.diff(radius * np.stack([np.cos(angle), np.sin(angle)], axis=1), axis=0)


def _random_path(
    rng: np.random.Generator,
    motions: tuple[str, ...],
    speed: float,
    size: int,
    num_frames: int,
    starts: tuple[float, float] = (0.0, 1.0),
) -> np.ndarray:
    """Positions on the torus. The second of two motions begins in the middle, see `_change_frame`."""
    radius = rng.uniform(*RADIUS_RANGE) * size
    steps = motion_steps(motions[0], speed, radius, rng.uniform(0, 2 * np.pi), num_frames)
    if len(motions) == 2:
        second = motion_steps(motions[1], speed, radius, rng.uniform(0, 2 * np.pi), num_frames)
        # The step that leads into a frame belongs to that frame's motion.
        before = _change_frame(num_frames) - 1
        steps = np.concatenate([steps[:before], second[before:]])
    start = rng.uniform(*starts, size=2) * size
    return (start + np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])) % size


def _change_frame(num_frames: int) -> int:
    return num_frames // 2


def _random_sprite(
    rng: np.random.Generator, scene: Scene, digit: int, motions: tuple[str, ...], split: str, backdrop: np.ndarray
) -> Sprite:
    """A handwritten digit with random size, colour, speed and path over `backdrop` (num_frames, size, size, 3)."""
    num_frames, size = backdrop.shape[:2]
    mattes, digits = handwritten_digits()
    writers = slice(None, TRAIN_DIGITS) if split == "train" else slice(TRAIN_DIGITS, None)
    drawing = (writers.start or 0) + int(rng.choice(np.flatnonzero(digits[writers] == digit)))

    position = rng.random()
    if scene.speed_bin is not None:
        position = (scene.speed_bin + position) / len(SPEED_NAMES)
    speed = (SPEED_RANGE[0] + (SPEED_RANGE[1] - SPEED_RANGE[0]) * position) * size
    path = _random_path(rng, motions, speed, size, num_frames, START_RANGE if scene.posed else (0.0, 1.0))

    colour = random_colour(rng, backdrop.mean(axis=(0, 1, 2)))
    return Sprite(drawing, mattes[drawing], rng.uniform(*SPRITE_RANGE) * size, colour, speed, path)


def random_colour(rng: np.random.Generator, mean_colour: np.ndarray) -> np.ndarray:
    """
    A colour that stands out.

    Args:
        rng (`np.random.Generator`):
            Random numbers.
        mean_colour (`np.ndarray` of shape `(3,)`):
            Mean RGB of what is behind it, 0 to 255.

    Returns:
        `np.ndarray` of shape `(3,)`: float32 RGB, 0 to 255.
    """
    colour = rng.uniform(0, 255, size=3)
    while np.abs(colour - mean_colour).mean() <= MINIMUM_COLOUR_DISTANCE:
        colour = rng.uniform(0, 255, size=3)
    return colour.astype(np.float32)


def _random_backdrop(rng: np.random.Generator, split: str, size: int, num_frames: int, contrast: float) -> np.ndarray:
    """A slowly sliding window of a photograph: float32 of shape `(num_frames, size, size, 3)`."""
    choices = photographs()
    photograph = choices[rng.integers(len(choices))]
    border = int(TRAIN_COLUMNS * photograph.shape[1])
    photograph = photograph[:, :border] if split == "train" else photograph[:, border:]

    padded = size + size // 2 + 8
    side = min(rng.uniform(0.9, 1.9) * padded, *photograph.shape[:2])
    top, left = (rng.uniform(0, length - side) for length in photograph.shape[:2])
    grid = (np.arange(padded) + 0.5) * side / padded - 0.5
    texture = resample(photograph, top + grid, left + grid)
    if rng.random() < 0.5:
        texture = texture[:, ::-1]
    if rng.random() < 0.5:
        texture = texture.transpose(1, 0, 2)
    texture = texture[:, :, rng.permutation(3)]
    mean = texture.mean()
    texture = (texture - mean) * contrast + np.clip(mean + rng.uniform(-30, 30), 50, 205)

    # The window slides at a constant rate and stays in the texture for any length of the clip.
    room = padded - size - 1
    limit = min(BACKDROP_SPEED * size, room / (num_frames - 1))
    travel = rng.uniform(-limit, limit, size=2) * (num_frames - 1)
    start = rng.uniform(np.maximum(0, -travel), room - np.maximum(0, travel))
    return _slide(texture, start + travel * np.linspace(0, 1, num_frames)[:, None], size)


def _slide(texture: np.ndarray, corners: np.ndarray, size: int) -> np.ndarray:
    """Square windows of `texture` with fractional upper left corners: `(len(corners), size, size, 3)`."""
    whole, fraction = _split(corners)
    windows = np.stack([texture[row : row + size + 1, column : column + size + 1] for row, column in whole])
    down, right = fraction[:, 0, None, None, None], fraction[:, 1, None, None, None]
    windows = _mix(windows[:, :-1], windows[:, 1:], down)
    return _mix(windows[:, :, :-1], windows[:, :, 1:], right)


def resample(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """
    An image at all pairs of fractional rows and columns, bilinear. Its edge pixels are repeated outside.

    Args:
        image (`np.ndarray` of shape `(height, width, 3)`):
            The image.
        rows (`np.ndarray` of shape `(new_height,)`):
            Rows; whole numbers are the middles of its pixels.
        columns (`np.ndarray` of shape `(new_width,)`):
            Columns.

    Returns:
        `np.ndarray` of shape `(new_height, new_width, 3)`
    """
    for axis, positions in enumerate((rows, columns)):
        whole, fraction = _split(np.clip(positions, 0, image.shape[axis] - 1))
        after = np.minimum(whole + 1, image.shape[axis] - 1)
        fraction = fraction[:, None, None] if axis == 0 else fraction[None, :, None]
        image = _mix(image.take(whole, axis), image.take(after, axis), fraction)
    return image


def _split(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    whole = np.floor(positions)
    return whole.astype(np.int64), (positions - whole).astype(np.float32)


def _mix(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return first + (second - first) * weight


def sprite_opacity(sprite: Sprite, size: int) -> np.ndarray:
    """
    Opacity of a sprite at every pixel of every frame.

    Bilinear interpolation is separable: with the weight of matte row r at pixel row y, and the same for columns, the
    opacity is `rows @ matte @ columns^T`. Distances are taken on the torus, so wrapping needs no special case.

    Args:
        sprite ([`Sprite`]):
            The digit.
        size (`int`):
            Side of the frames, in pixels.

    Returns:
        `np.ndarray` of shape `(num_frames, size, size)`: 0 to 1.
    """
    cells = sprite.matte.shape[0]
    weights = []
    for centre in (sprite.path[:, 1], sprite.path[:, 0]):
        distance = np.arange(size) - centre[:, None]  # (num_frames, size)
        distance = (distance + size / 2) % size - size / 2
        position = (distance / sprite.side + 0.5) * cells - 0.5  # in cells of the matte
        hat = 1.0 - np.abs(position[:, :, None] - np.arange(cells))  # (num_frames, size, cells)
        weights.append(np.maximum(hat, 0.0).astype(np.float32))
    rows, columns = weights
    return np.minimum(rows @ sprite.matte @ columns.transpose(0, 2, 1) * 1.3, 1.0)


def _blinking(blinks: int, num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """Factor of the opacity in each frame: `blinks` full periods with a random phase."""
    phase = rng.uniform(0, 2 * np.pi)
    return (0.5 + 0.5 * np.cos(phase + 2 * np.pi * blinks * np.arange(num_frames) / num_frames)).astype(np.float32)


def generate_clip(
    label_set: str,
    split: str,
    index: int,
    *,
    size: int = 64,
    num_frames: int = 16,
    seed: int = 0,
    backdrop_contrast: float = BACKDROP_CONTRAST,
) -> DigitClip:
    """
    Generate one clip. It depends on the arguments only.

    Args:
        label_set (`str`):
            A key of `LABEL_SETS`.
        split (`str`):
            `"train"` or `"test"`. The test split has other drawings, most by other writers, and other parts of the
            photographs.
        index (`int`):
            Number of the clip in its split.
        size (`int`, *optional*, defaults to 64):
            Side of the square frames, in pixels. Even and at least 16.
        num_frames (`int`, *optional*, defaults to 16):
            Frames of the clip; 64 are suitable for the `change` set.
        seed (`int`, *optional*, defaults to 0):
            Seed of the data set.
        backdrop_contrast (`float`, *optional*, defaults to 0.45):
            Contrast of the photographs, 0 to 1. 0 gives plain backdrops, which hardly distinguish one clip from
            another. Not read for the `identity` set, whose backdrops are plain.

    Returns:
        [`DigitClip`]: the frames and the properties of the clip.

    Raises:
        ValueError: an argument is not allowed.
    """
    _check(label_set, split, size, num_frames, backdrop_contrast)
    rng = np.random.default_rng(np.random.SeedSequence([seed, SPLITS.index(split)], spawn_key=(index,)))
    scene = plan_scene(label_set, index, rng)
    frames = _random_backdrop(rng, split, size, num_frames, 0.0 if scene.posed else backdrop_contrast)
    labelled = _random_sprite(rng, scene, scene.digits[0], scene.motions, split, frames)
    sprites = [labelled]
    if len(scene.digits) == 2:
        distractor = (MOTIONS[rng.integers(len(MOTIONS))],)
        sprites.append(_random_sprite(rng, scene, scene.digits[1], distractor, split, frames))
        if rng.random() < 0.5:  # either digit may be in front
            sprites.reverse()
    drawings = tuple(sprite.drawing for sprite in (labelled, *(one for one in sprites if one is not labelled)))
    for sprite in sprites:
        opacity = sprite_opacity(sprite, size)
        if scene.blinks:
            opacity *= _blinking(scene.blinks, num_frames, rng)[:, None, None]
        frames = _mix(frames, sprite.colour, opacity[..., None])
    frames += NOISE_SIGMA * rng.standard_normal(frames.shape, dtype=np.float32)
    return DigitClip(
        frames=np.clip(np.rint(frames), 0, 255).astype(np.uint8),
        label=scene.label,
        digit=scene.digits[0],
        drawings=drawings,
        motion=scene.motions[0],
        speed=labelled.speed,
        colour=(int(labelled.colour[0]), int(labelled.colour[1]), int(labelled.colour[2])),
        blinks=scene.blinks,
        change_frame=_change_frame(num_frames) if len(scene.motions) == 2 else -1,
    )


def _check(
    label_set: str, split: str, size: int, num_frames: int, backdrop_contrast: float = BACKDROP_CONTRAST
) -> None:
    if label_set not in LABEL_SETS:
        raise ValueError(f"`label_set` must be one of {', '.join(LABEL_SETS)}, got {label_set!r}")
    if split not in SPLITS:
        raise ValueError(f"`split` must be one of {', '.join(SPLITS)}, got {split!r}")
    if size < 16 or size % 2:
        raise ValueError(f"`size` must be even (4:2:0 video) and at least 16, got {size}")
    if num_frames < 2:
        raise ValueError(f"`num_frames` must be at least 2, because one frame has no motion, got {num_frames}")
    if not 0 <= backdrop_contrast <= 1:
        raise ValueError(f"`backdrop_contrast` must be between 0 and 1, got {backdrop_contrast}")


def write_clip(path: str | Path, frames: np.ndarray, fps: int = FRAMES_PER_SECOND) -> None:
    """
    Encode frames as H.264 in an MP4 file without audio.

    Args:
        path (`str` or `Path`):
            The file to write.
        frames (`np.ndarray` of shape `(num_frames, height, width, 3)`):
            uint8 RGB frames with even sides.
        fps (`int`, *optional*, defaults to `FRAMES_PER_SECOND`):
            Frames per second.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "18", "preset": "veryfast"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for planes in to_yuv420(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode(None))


def build_digit_motion(
    root: str | Path,
    label_set: str = "motion",
    num_train: int = 2000,
    num_test: int = 500,
    size: int = 64,
    num_frames: int = 16,
    seed: int = 0,
    backdrop_contrast: float = BACKDROP_CONTRAST,
) -> Path:
    """
    Write the data set, unless it exists, and return its folder.

    The folder contains `train/<label>/*.mp4`, `test/<label>/*.mp4` and `labels.csv`. If several processes call this at
    the same time, one writes and the others wait.

    Args:
        root (`str` or `Path`):
            Cache folder. Every combination of the other arguments has its own folder in it.
        label_set (`str`, *optional*, defaults to `"motion"`):
            A key of `LABEL_SETS`.
        num_train (`int`, *optional*, defaults to 2000):
            Clips in the train split.
        num_test (`int`, *optional*, defaults to 500):
            Clips in the test split.
        size (`int`, *optional*, defaults to 64):
            Side of the frames, in pixels. decord fails on 48 and 72.
        num_frames (`int`, *optional*, defaults to 16):
            Frames of each clip.
        seed (`int`, *optional*, defaults to 0):
            See [`generate_clip`].
        backdrop_contrast (`float`, *optional*, defaults to 0.45):
            See [`generate_clip`].

    Returns:
        `Path`: the folder of the data set.

    Raises:
        ValueError: an argument is not allowed.
    """
    _check(label_set, "train", size, num_frames, backdrop_contrast)
    for name, count in (("num_train", num_train), ("num_test", num_test)):
        if count < 1:
            raise ValueError(f"`{name}` must be at least 1, got {count}")
    name = f"{label_set}-{num_train}+{num_test}-{size}px-{num_frames}f-seed{seed}"
    if backdrop_contrast != BACKDROP_CONTRAST:
        name += f"-contrast{backdrop_contrast:g}"
    folder = Path(root) / name
    options = {"size": size, "num_frames": num_frames, "seed": seed, "backdrop_contrast": backdrop_contrast}
    counts = {"train": num_train, "test": num_test}
    return write_once(folder, lambda draft: _write_splits(draft, label_set, counts, options))


def write_once(folder: Path, write: Callable[[Path], None]) -> Path:
    """
    Make a folder, unless it exists. If several processes call this at the same time, one writes and the others wait.

    Args:
        folder (`Path`):
            The folder.
        write (`Callable[[Path], None]`):
            Writes its content into another, empty folder.

    Returns:
        `Path`: `folder`.
    """
    from filelock import FileLock

    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = Path(f"{folder}.lock")
    with FileLock(lock):
        if not folder.is_dir():
            logger.info(f"Generating {folder}")
            # The folder gets its name when it is complete, so an interrupted run leaves no incomplete data set.
            draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
            try:
                write(draft)
                draft.chmod(0o755)
                draft.rename(folder)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
    with contextlib.suppress(OSError):  # the folder exists, so nobody needs the lock any more
        lock.unlink()
    return folder


def write_example_clips(
    folder: str | Path, label_set: str = "motion", size: int = 64, num_frames: int = 16, seed: int = 1
) -> dict[str, Path]:
    """
    Write one clip of each label. The default seed differs from that of [`build_digit_motion`], so the clips are not in
    the data set.

    Args:
        folder (`str` or `Path`):
            Folder that receives `<label>.mp4`.
        label_set (`str`, *optional*, defaults to `"motion"`):
            A key of `LABEL_SETS`.
        size (`int`, *optional*, defaults to 64):
            Side of the frames, in pixels.
        num_frames (`int`, *optional*, defaults to 16):
            Frames of each clip.
        seed (`int`, *optional*, defaults to 1):
            See [`generate_clip`].

    Returns:
        `dict[str, Path]`: the file of each label.

    Raises:
        ValueError: an argument is not allowed.
    """
    _check(label_set, "test", size, num_frames)
    files = {label: Path(folder) / f"{label}.mp4" for label in LABEL_SETS[label_set]}
    Path(folder).mkdir(parents=True, exist_ok=True)
    for index in range(len(files)):
        clip = generate_clip(label_set, "test", index, size=size, num_frames=num_frames, seed=seed)
        write_clip(files[clip.label], clip.frames)
    return files


def _write_splits(folder: Path, label_set: str, counts: dict[str, int], options: dict[str, Any]) -> None:
    for split in counts:
        for label in LABEL_SETS[label_set]:
            (folder / split / label).mkdir(parents=True)

    def write(split: str, index: int) -> dict[str, object]:
        clip = generate_clip(label_set, split, index, **options)
        name = f"{split}/{clip.label}/{index:06d}.mp4"
        write_clip(folder / name, clip.frames)
        return table_row(name, split, clip)

    # numpy and the encoder release the global interpreter lock most of the time.
    with ThreadPoolExecutor() as pool:
        jobs = [pool.submit(write, split, index) for split, count in counts.items() for index in range(count)]
        rows = [job.result() for job in jobs]
    write_table(folder, rows)


def write_table(folder: Path, rows: list[dict[str, object]]) -> None:
    """
    Write `labels.csv`.

    Args:
        folder (`Path`):
            The folder that receives it.
        rows (`list[dict[str, object]]`):
            Rows of [`table_row`].
    """
    with open(folder / "labels.csv", "w", newline="") as table:
        writer = csv.DictWriter(table, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def table_row(name: str, split: str, clip: DigitClip) -> dict[str, object]:
    """
    The row of a clip in `labels.csv`.

    Args:
        name (`str`):
            Its file, from the folder of the data set.
        split (`str`):
            Its split.
        clip ([`DigitClip`]):
            The clip.

    Returns:
        `dict[str, object]`: values by column. `drawings` are the numbers of the digits' drawings, with spaces between.
    """
    return {
        "file": name,
        "label": clip.label,
        "split": split,
        "digit": clip.digit,
        "drawings": " ".join(map(str, clip.drawings)),
        "motion": clip.motion,
        "speed": f"{clip.speed:.4f}",
        "colour": "#{:02x}{:02x}{:02x}".format(*clip.colour),
        "blinks": clip.blinks,
        "change_frame": clip.change_frame,
        "frames_sha256": clip.fingerprint,
    }
