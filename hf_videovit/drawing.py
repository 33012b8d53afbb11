"""A picture of what a model says about videos. Needs matplotlib."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class ClassifiedClip:
    """
    One row of the picture.

    Args:
        frames (`np.ndarray` of shape `(num_frames, height, width, 3)`):
            uint8 frames that the model saw.
        scores (`Mapping[str, float]`):
            Probability of each label that is to be shown, best first.
        truth (`str`, *optional*):
            The right label, if known.
    """

    frames: np.ndarray
    scores: Mapping[str, float]
    truth: str | None = None


def draw_classified_clips(clips: Sequence[ClassifiedClip], path: str | Path, max_frames: int = 8) -> Path:
    """
    Draw the frames of each clip in a strip, with the model's scores as bars beside it.

    Args:
        clips (`Sequence[ClassifiedClip]`):
            One row each.
        path (`str` or `Path`):
            The picture; its suffix decides the format.
        max_frames (`int`, *optional*, defaults to 8):
            Frames of a clip that are shown, evenly spaced.

    Returns:
        `Path`: where the picture is.
    """
    from matplotlib.figure import Figure

    if not clips:
        raise ValueError("`clips` must hold at least one clip, got none")
    figure = Figure(figsize=(12, 1.5 * len(clips)), layout="constrained")
    axes = figure.subplots(len(clips), 2, width_ratios=[4, 1], squeeze=False)
    for clip, (strip, bars) in zip(clips, axes, strict=True):
        shown = np.linspace(0, len(clip.frames) - 1, min(max_frames, len(clip.frames))).round().astype(int)
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


__all__ = ["ClassifiedClip", "draw_classified_clips"]
