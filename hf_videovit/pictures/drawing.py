"""Pictures of clips, of a model's predictions, and of the metrics of a run. Some functions need matplotlib."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw


TITLE_HEIGHT = 14
GAP = 2


@dataclass(frozen=True)
class ClassifiedClip:
    """
    One row of the picture.

    Args:
        frames (`np.ndarray` of shape `(num_frames, height, width, 3)`):
            Frames that the model saw, in uint8.
        scores (`Mapping[str, float]`):
            Probability of each label to show, best first.
        truth (`str`, *optional*):
            The correct label, if known.
    """

    frames: np.ndarray
    scores: Mapping[str, float]
    truth: str | None = None


def draw_classified_clips(clips: Sequence[ClassifiedClip], path: str | Path, max_frames: int = 8) -> Path:
    """
    Draw the frames of each clip in a strip, with the scores of the model as bars beside it.

    Args:
        clips (`Sequence[ClassifiedClip]`):
            One row each.
        path (`str` or `Path`):
            The picture; its suffix decides the format.
        max_frames (`int`, *optional*, defaults to 8):
            Frames to show per clip, evenly spaced.

    Returns:
        `Path`: the picture's file.

    Raises:
        ValueError: `clips` is empty.
    """
    from matplotlib.figure import Figure

    if not clips:
        raise ValueError("`clips` must hold at least one clip, got none")
    figure = Figure(figsize=(12, 1.5 * len(clips)), layout="constrained")
    axes = figure.subplots(len(clips), 2, width_ratios=[4, 1], squeeze=False)
    for clip, (strip, bars) in zip(clips, axes, strict=True):
        shown = evenly_spaced(len(clip.frames), max_frames)
        gap = np.full((clip.frames.shape[1], max(1, clip.frames.shape[2] // 32), 3), 255, np.uint8)
        strip.imshow(np.concatenate([part for index in shown for part in (clip.frames[index], gap)][:-1], axis=1))
        strip.set_axis_off()
        if clip.truth is not None:
            strip.set_title(clip.truth, loc="left", fontsize=9)

        names, scores = list(clip.scores)[::-1], list(clip.scores.values())[::-1]
        colours = ["tab:green" if clip.truth in (None, name) else "tab:grey" for name in names]
        bars.barh(names, scores, color=colours)
        bars.set_xlim(0, 1)
        bars.tick_params(labelsize=8)
        bars.spines[["top", "right"]].set_visible(False)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path


def evenly_spaced(count: int, most: int) -> np.ndarray:
    """
    Evenly spaced indices that include the first and the last.

    Args:
        count (`int`):
            Number of items.
        most (`int`):
            Maximum number of indices.

    Returns:
        `np.ndarray` of shape `(min(count, most),)`: the indices.
    """
    return np.linspace(0, count - 1, min(most, count)).round().astype(int)


def draw_strips(
    groups: Sequence[tuple[str, Sequence[np.ndarray]]], path: str | Path, max_frames: int = 8, min_height: int = 0
) -> Path:
    """
    Draw groups of clips: the frames of each clip in a strip, the strips below one another.

    Args:
        groups (`Sequence[tuple[str, Sequence[np.ndarray]]]`):
            A title (`""` for none) and clips: uint8 of shape `(num_frames, height, width, 3)`.
        path (`str` or `Path`):
            The picture; its suffix decides the format.
        max_frames (`int`, *optional*, defaults to 8):
            Frames to show per clip, evenly spaced.
        min_height (`int`, *optional*, defaults to 0):
            Smaller clips are enlarged by an integer factor to at least this height in pixels.

    Returns:
        `Path`: the picture's file.

    Raises:
        ValueError: `groups` is empty.
    """
    if not groups:
        raise ValueError("`groups` must hold at least one group of clips, got none")
    rows: list[np.ndarray] = []
    for title, clips in groups:
        if title:
            rows.append(_title(title))
        for clip in clips:
            factor = max(1, -(-min_height // clip.shape[1]))
            frames = clip[evenly_spaced(len(clip), max_frames)].repeat(factor, axis=1).repeat(factor, axis=2)
            padded = np.pad(frames, ((0, 0), (0, GAP), (0, GAP), (0, 0)), constant_values=255)
            rows.append(np.concatenate(list(padded), axis=1))
        rows.append(np.full((2 * GAP, 1, 3), 255, np.uint8))
    sheet = np.full((sum(map(len, rows)), max(row.shape[1] for row in rows), 3), 255, np.uint8)
    top = 0
    for row in rows:
        sheet[top : top + len(row), : row.shape[1]] = row
        top += len(row)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(path)
    return path


def _title(text: str) -> np.ndarray:
    width = int(ImageDraw.Draw(Image.new("RGB", (1, 1))).textlength(text)) + 4
    image = Image.new("RGB", (width, TITLE_HEIGHT), "white")
    ImageDraw.Draw(image).text((2, 1), text, fill="black")
    return np.asarray(image)


def draw_curves(curves: Mapping[str, Sequence[tuple[float, float]]], path: str | Path, along: str = "step") -> Path:
    """
    Draw curves, one small plot for each.

    Args:
        curves (`Mapping[str, Sequence[tuple[float, float]]]`):
            Points `(x, y)` by the name of the metric.
        path (`str` or `Path`):
            The picture; its suffix decides the format.
        along (`str`, *optional*, defaults to `"step"`):
            Label of the horizontal axis.

    Returns:
        `Path`: the picture's file.

    Raises:
        ValueError: `curves` is empty.
    """
    from matplotlib.figure import Figure

    if not curves:
        raise ValueError("`curves` must hold at least one curve, got none")
    columns = min(3, len(curves))
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(4 * columns, 2.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (name, points) in zip(axes, curves.items()):
        steps, values = zip(*points)
        axis.plot(steps, values, marker="o" if len(points) < 30 else None, markersize=3, linewidth=1)
        axis.set_title(name, fontsize=9)
        axis.set_xlabel(along, fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
    for axis in axes[len(curves) :]:
        axis.set_axis_off()
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path


def draw_confusion_matrix(matrix: np.ndarray, label_names: Sequence[str], path: str | Path) -> Path:
    """
    Draw a confusion matrix, as shares of the videos of each correct label.

    Args:
        matrix (`np.ndarray` of shape `(num_labels, num_labels)`):
            Numbers of videos; row = correct label, column = prediction.
        label_names (`Sequence[str]`):
            Names of the labels.
        path (`str` or `Path`):
            The picture; its suffix decides the format.

    Returns:
        `Path`: the picture's file. Names are shown for up to 60 labels, numbers for up to 20.
    """
    from matplotlib.figure import Figure

    count = len(label_names)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = min(12.0, 3 + 0.35 * count)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(image, ax=axis, fraction=0.046, label="share of the correct label's videos")
    axis.set_xlabel("prediction")
    axis.set_ylabel("correct label")
    if count <= 60:
        size = 9 if count <= 20 else 6
        axis.set_xticks(range(count), label_names, rotation=90, fontsize=size)
        axis.set_yticks(range(count), label_names, fontsize=size)
    if count <= 20:
        for row, column in np.argwhere(matrix):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axis.text(column, row, str(matrix[row, column]), ha="center", va="center", color=colour, fontsize=8)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path


__all__ = [
    "ClassifiedClip",
    "draw_classified_clips",
    "draw_confusion_matrix",
    "draw_curves",
    "draw_strips",
    "evenly_spaced",
]
