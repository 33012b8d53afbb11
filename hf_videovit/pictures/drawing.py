"""Pictures of clips, of a model's predictions, and of the metrics of a run. Some functions need matplotlib."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw


TITLE_HEIGHT = 14
GAP = 2
PARTS = ("train", "validation")  # of a run, whose metrics have one name


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
        note (`str`, *optional*, defaults to `""`):
            A text above the frames, after the correct label.
    """

    frames: np.ndarray
    scores: Mapping[str, float]
    truth: str | None = None
    note: str = ""


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
        `Path`: the picture's file. Characters that no font of this machine has are written as their code, such as
        `U+8DF3`.

    Raises:
        ValueError: `clips` is empty.
    """
    from matplotlib import rc_context

    if not clips:
        raise ValueError("`clips` must hold at least one clip, got none")
    families, missing = fonts_for(text for clip in clips for text in (*clip.scores, clip.truth or "", clip.note))

    def known(text: str) -> str:
        return "".join(f" U+{ord(sign):04X} " if sign in missing else sign for sign in text).strip()

    shown = [
        ClassifiedClip(
            clip.frames,
            {known(name): score for name, score in clip.scores.items()},
            None if clip.truth is None else known(clip.truth),
            known(clip.note),
        )
        for clip in clips
    ]
    with rc_context({"font.family": families}):
        return _draw_clips(shown, Path(path), max_frames)


def _draw_clips(clips: Sequence[ClassifiedClip], path: Path, max_frames: int) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 1.5 * len(clips)), layout="constrained")
    axes = figure.subplots(len(clips), 2, width_ratios=[4, 1], squeeze=False)
    for clip, (strip, bars) in zip(clips, axes, strict=True):
        shown = evenly_spaced(len(clip.frames), max_frames)
        gap = np.full((clip.frames.shape[1], max(1, clip.frames.shape[2] // 32), 3), 255, np.uint8)
        strip.imshow(np.concatenate([part for index in shown for part in (clip.frames[index], gap)][:-1], axis=1))
        strip.set_axis_off()
        heading = ": ".join(text for text in (clip.truth, clip.note) if text)
        if heading:
            strip.set_title(heading, loc="left", fontsize=9, parse_math=False)

        names, scores = list(clip.scores)[::-1], list(clip.scores.values())[::-1]
        colours = ["tab:green" if clip.truth in (None, name) else "tab:grey" for name in names]
        bars.barh(names, scores, color=colours)
        bars.set_xlim(0, 1)
        bars.tick_params(labelsize=8)
        bars.spines[["top", "right"]].set_visible(False)
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
    Draw curves, one small plot for each. Training and validation of one metric share a plot. Curves that never change
    are left out, unless all are such.

    Args:
        curves (`Mapping[str, Sequence[tuple[float, float]]]`):
            Points `(x, y)` by the name of the metric, such as `train/loss`.
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
    plots = plots_of(curves)
    columns = min(3, len(plots))
    rows = -(-len(plots) // columns)
    figure = Figure(figsize=(4 * columns, 2.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (title, names) in zip(axes, plots.items()):
        for name in names:
            steps, values = zip(*curves[name])
            few = len(values) < 30
            axis.plot(steps, values, marker="o" if few else None, markersize=3, linewidth=1, label=name.split("/")[0])
        if len(names) > 1:
            axis.legend(fontsize=8)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel(along, fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
    for axis in axes[len(plots) :]:
        axis.set_axis_off()
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path


def plots_of(curves: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, list[str]]:
    """
    Group curves into plots.

    Args:
        curves (`Mapping[str, Sequence[tuple[float, float]]]`):
            As for [`draw_curves`].

    Returns:
        `dict[str, list[str]]`: names of the curves of each plot, by its title.
    """
    changing = [name for name, points in curves.items() if len(points) == 1 or len({y for _, y in points}) > 1]
    plots: dict[str, list[str]] = {}
    for name in changing or curves:
        part, _, metric = name.partition("/")
        both = part in PARTS and all(f"{one}/{metric}" in changing for one in PARTS)
        plots.setdefault(metric if both else name, []).append(name)
    return plots


def fonts_for(names: Iterable[str]) -> tuple[list[str], set[str]]:
    """
    Fonts of this machine that have the characters of some names.

    Args:
        names (`Iterable[str]`):
            Names in any script.

    Returns:
        `tuple[list[str], set[str]]`: families, in the order in which characters are looked up, and the characters that
        none of them has.
    """
    from matplotlib import rcParams
    from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

    families = [str(FontProperties(family=rcParams["font.family"]).get_name())]
    missing = {ord(sign) for name in names for sign in name if not sign.isspace()}
    missing -= set(get_font(findfont(families[0])).get_charmap())
    for font in fontManager.ttflist if missing else ():
        if "last resort" in font.name.lower():  # boxes for every character
            continue
        known = missing & set(get_font(font.fname).get_charmap())
        if known and font.name not in families:
            families.append(font.name)
            missing -= known
        if not missing:
            break
    return families, {chr(code) for code in missing}


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
        `Path`: the picture's file. Names are shown for up to 60 labels, numbers of videos for up to 20. Where no font
        of this machine has the characters of the names, labels are numbered instead.
    """
    from matplotlib import rc_context

    families, missing = fonts_for(label_names)
    shown = list(label_names) if not missing else [f"#{index}" for index in range(len(label_names))]
    with rc_context({"font.family": families}):
        return _draw_confusion(matrix, shown, Path(path), ", numbered as in the model's labels" if missing else "")


def _draw_confusion(matrix: np.ndarray, label_names: Sequence[str], path: Path, more: str) -> Path:
    from matplotlib.figure import Figure

    count = len(label_names)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = min(12.0, 3 + 0.35 * count)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(image, ax=axis, fraction=0.046, label="share of the correct label's videos")
    axis.set_xlabel(f"prediction{more}")
    axis.set_ylabel(f"correct label{more}")
    if count <= 60:
        size = 9 if count <= 20 else 6
        axis.set_xticks(range(count), label_names, rotation=90, fontsize=size)
        axis.set_yticks(range(count), label_names, fontsize=size)
    if count <= 20:
        for row, column in np.argwhere(matrix):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axis.text(column, row, str(matrix[row, column]), ha="center", va="center", color=colour, fontsize=8)
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
    "fonts_for",
    "plots_of",
]
