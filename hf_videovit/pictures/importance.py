"""Pictures of the importance of frames and places: a sheet of frames, and a film."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .drawing import evenly_spaced
from .films import write_film


SHEET_FRAMES = 16
COLUMNS = 8
SMALLEST_SIDE = 128  # of a frame; smaller ones are enlarged
CAPTION_HEIGHT = 20
GAP = 4
STRONGEST = 0.85  # share of colour where the importance is greatest
DIMMED = 0.55  # brightness of the grey picture under the colours
COLOURS = np.array([[120, 0, 110], [235, 60, 30], [255, 215, 60]], np.float32)  # from little to much


def heat_over(picture: np.ndarray, blocks: np.ndarray, highest: float) -> np.ndarray:
    """
    Colour the places of a frame that matter. The rest becomes grey and darker.

    Args:
        picture (`np.ndarray` of shape `(height, width, 3)`):
            The frame, in uint8.
        blocks (`np.ndarray` of shape `(rows, columns)`):
            Importance of each place; what is negative is left grey.
        highest (`float`):
            Importance that gets the brightest colour.

    Returns:
        `np.ndarray` of the shape of `picture`, in uint8.
    """
    height, width = picture.shape[:2]
    shares = (blocks / highest).clip(0, 1) if highest > 0 else np.zeros_like(blocks)
    smooth = Image.fromarray(shares.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    heat = np.asarray(smooth)
    place = heat * (len(COLOURS) - 1)
    colour = np.stack([np.interp(place, range(len(COLOURS)), channel) for channel in COLOURS.T], axis=-1)
    grey = picture.mean(axis=-1, keepdims=True) * DIMMED
    weight = STRONGEST * np.sqrt(heat)[..., None]
    return (grey * (1 - weight) + colour * weight).round().astype(np.uint8)


def frame_and_heat(picture: np.ndarray, blocks: np.ndarray, highest: float) -> np.ndarray:
    """
    A frame, and to the right of it the places that matter.

    Args:
        picture (`np.ndarray` of shape `(height, width, 3)`):
            The frame, in uint8. A small one is enlarged.
        blocks (`np.ndarray` of shape `(rows, columns)`):
            Importance of each place.
        highest (`float`):
            Importance that gets the brightest colour.

    Returns:
        `np.ndarray`: a picture twice as wide as the frame, in uint8.
    """
    plain = enlarged(picture)
    return np.concatenate([plain, heat_over(plain, blocks, highest)], axis=1)


def draw_importance(
    pictures: Sequence[np.ndarray],
    blocks: Sequence[np.ndarray],
    captions: Sequence[str],
    path: str | Path,
    max_frames: int = SHEET_FRAMES,
) -> Path:
    """
    Draw frames with the heat of their places below them, up to eight in a row.

    Args:
        pictures (`Sequence[np.ndarray]`):
            Frames in temporal order, each of shape `(height, width, 3)`, in uint8.
        blocks (`Sequence[np.ndarray]`):
            Importance of the places of each frame, of shape `(rows, columns)`.
        captions (`Sequence[str]`):
            A text under each frame, in Latin letters.
        path (`str` or `Path`):
            The picture; its suffix decides the format.
        max_frames (`int`, *optional*, defaults to 16):
            Frames to show, evenly spaced.

    Returns:
        `Path`: the picture's file.

    Raises:
        ValueError: there are no frames.
    """
    if not len(pictures):
        raise ValueError("`pictures` must hold at least one frame, got none")
    highest = float(max(one.max() for one in blocks))
    cells = []
    for index in evenly_spaced(len(pictures), max_frames):
        plain = enlarged(pictures[index])
        hot = heat_over(plain, blocks[index], highest)
        line = np.full((GAP, *plain.shape[1:]), 255, np.uint8)
        cells.append(np.concatenate([plain, line, hot, _caption(captions[index], plain.shape[1])]))
    cells = [np.pad(cell, ((0, GAP), (0, GAP), (0, 0)), constant_values=255) for cell in cells]
    columns = min(COLUMNS, len(cells))
    cells += [np.full_like(cells[0], 255)] * (-len(cells) % columns)
    rows = [np.concatenate(cells[start : start + columns], axis=1) for start in range(0, len(cells), columns)]
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows)).save(path)
    return path


def write_importance_film(
    pictures: Sequence[np.ndarray], blocks: Sequence[np.ndarray], seconds: Sequence[float], path: str | Path
) -> Path:
    """
    Write a film of frames at their times: the plain frame on the left, the heat of its places on the right.

    Args:
        pictures (`Sequence[np.ndarray]`):
            Frames in temporal order, each of shape `(height, width, 3)`, in uint8.
        blocks (`Sequence[np.ndarray]`):
            Importance of the places of each frame, of shape `(rows, columns)`.
        seconds (`Sequence[float]`):
            Times of the frames.
        path (`str` or `Path`):
            The film; .mp4.

    Returns:
        `Path`: the film's file.

    Raises:
        ValueError: `path` does not end in .mp4, or there are no frames.
    """
    if not len(pictures):
        raise ValueError("`pictures` must hold at least one frame, got none")
    highest = float(max(one.max() for one in blocks))
    frames = (
        (time - seconds[0], frame_and_heat(picture, places, highest))
        for time, picture, places in zip(seconds, pictures, blocks, strict=True)
    )
    steps = np.diff(seconds)
    rate = Fraction(1 / float(np.median(steps))) if len(steps) and np.median(steps) > 0 else Fraction(1)
    return write_film(frames, path, rate.limit_denominator(1001))


def enlarged(picture: np.ndarray) -> np.ndarray:
    """
    A picture that is large enough to be looked at.

    Args:
        picture (`np.ndarray` of shape `(height, width, 3)`):
            The picture.

    Returns:
        `np.ndarray`: the same, its pixels repeated where its shorter side has fewer than 128.
    """
    factor = -(-SMALLEST_SIDE // min(picture.shape[:2]))
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def _caption(text: str, width: int) -> np.ndarray:
    image = Image.new("RGB", (width, CAPTION_HEIGHT), "white")
    font = ImageFont.load_default(13)
    ImageDraw.Draw(image).text((width / 2, CAPTION_HEIGHT / 2), text, fill="black", font=font, anchor="mm")
    return np.asarray(image)


__all__ = ["draw_importance", "enlarged", "frame_and_heat", "heat_over", "write_importance_film"]
