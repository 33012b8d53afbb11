"""Timelines: segments of actions along a video, as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..modeling.video_decoding import decode_video, probe_video
from .drawing import evenly_spaced


COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000")
WIDTH, MARGIN = 1200, 12
ROW_HEIGHT, BAR_HEIGHT = 26, 18
MOST_FRAMES = 10
FRAME_HEIGHT = 72
FONT_SIZE = 13
# Distances between ticks in seconds, the smallest of which leaves room for the labels is taken.
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)
MOST_TICKS = 12


def draw_segments(
    segments: Sequence[dict[str, Any]],
    duration: float,
    path: str | Path,
    frames: Sequence[np.ndarray] = (),
) -> Path:
    """
    Draw the segments of a video: a row for each label, time from left to right. The fuller the colour of a bar, the
    higher its score.

    Args:
        segments (`Sequence[dict]`):
            Of `pipeline("temporal-action-localization")`.
        duration (`float`):
            Length of the video in seconds.
        path (`str` or `Path`):
            The picture; its suffix decides the format.
        frames (`Sequence[np.ndarray]`, *optional*, defaults to `()`):
            Frames at even distances, each `(height, width, 3)` in uint8, that are shown above.

    Returns:
        `Path`: the picture's file.

    Raises:
        ValueError: `duration` is not positive.
    """
    if not duration > 0:
        raise ValueError(f"`duration` must be positive, got {duration}.")
    labels = list(dict.fromkeys(one["label"] for one in segments))
    font: Any = ImageFont.load_default(FONT_SIZE)
    names = max((int(font.getlength(label)) for label in labels), default=0)
    left = min(names, WIDTH // 3) + 2 * MARGIN
    scale = (WIDTH - left - MARGIN) / duration
    top = MARGIN + (FRAME_HEIGHT + MARGIN if len(frames) else 0)
    bottom = top + max(len(labels), 1) * ROW_HEIGHT
    picture = Image.new("RGB", (WIDTH, bottom + FONT_SIZE + 2 * MARGIN), "white")
    draw = ImageDraw.Draw(picture)
    _draw_frames(picture, frames, left)
    _draw_axis(draw, duration, left, scale, (top, bottom), font)
    for row, label in enumerate(labels):
        middle = top + row * ROW_HEIGHT + ROW_HEIGHT // 2
        draw.text((left - MARGIN, middle), label, "black", font, anchor="rm")
        own = [one for one in segments if one["label"] == label]
        for one in sorted(own, key=lambda one: one["score"]):  # the best on top
            start, end = (left + one["segment"][name] * scale for name in ("start", "end"))
            colour = _faded(COLOURS[row % len(COLOURS)], one["score"])
            box = (start, middle - BAR_HEIGHT // 2, max(end, start + 1), middle + BAR_HEIGHT // 2)
            draw.rectangle(box, colour, COLOURS[row % len(COLOURS)])
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return path


def draw_timeline(video: Any, segments: Sequence[dict[str, Any]], path: str | Path, *, isolate: bool = False) -> Path:
    """
    [`draw_segments`] of a video, with some of its frames.

    Args:
        video:
            The video, in any form that is decoded.
        segments (`Sequence[dict]`):
            Of `pipeline("temporal-action-localization")`.
        path (`str` or `Path`):
            The picture; its suffix decides the format.
        isolate (`bool`, *optional*, defaults to `False`):
            Whether to decode in a separate process, for files of unknown origin.

    Returns:
        `Path`: the picture's file.

    Raises:
        ValueError: the video does not say how long it is.
        VideoDecodingError: the video cannot be read.
    """
    probe = probe_video(video, isolate=isolate)
    duration = probe.duration or (probe.num_frames / probe.fps if probe.fps else 0.0)
    # the middle of each of the equal parts that the frames stand for
    places = evenly_spaced(probe.num_frames, 2 * MOST_FRAMES + 1)[1::2]
    frames = list(decode_video(video, places, isolate=isolate).frames) if len(places) else []
    return draw_segments(segments, duration, path, frames)


def _draw_frames(picture: Image.Image, frames: Sequence[np.ndarray], left: int) -> None:
    """Frames side by side over the time axis, cut to equal widths."""
    width = (WIDTH - left - MARGIN) // max(len(frames), 1)
    for place, frame in enumerate(frames):
        image = Image.fromarray(np.asarray(frame))
        image = image.resize((max(image.width * FRAME_HEIGHT // image.height, 1), FRAME_HEIGHT))
        cut = max((image.width - width + 2) // 2, 0)
        image = image.crop((cut, 0, min(cut + width - 2, image.width), FRAME_HEIGHT))
        picture.paste(image, (left + place * width + (width - image.width) // 2, MARGIN))


def _draw_axis(
    draw: ImageDraw.ImageDraw, duration: float, left: int, scale: float, rows: tuple[int, int], font: Any
) -> None:
    distance = next((one for one in TICKS if duration / one <= MOST_TICKS), duration / MOST_TICKS)
    for tick in np.arange(0, duration + 1e-9, distance):
        place = left + tick * scale
        draw.line((place, rows[0], place, rows[1]), "#dddddd")
        draw.text((place, rows[1] + MARGIN // 2), _clock(float(tick), distance), "#555555", font, anchor="ma")
    draw.line((left, rows[1], left + duration * scale, rows[1]), "#555555")


def _clock(seconds: float, distance: float) -> str:
    """`1.5 s`, `2:05` or `1:02:05`."""
    if distance < 1:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _faded(colour: str, score: float) -> tuple[int, ...]:
    """A colour mixed with white: at a score of 1 the colour itself."""
    share = 0.15 + 0.85 * min(max(score, 0.0), 1.0)
    channels = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return tuple(round(255 + (channel - 255) * share) for channel in channels)


__all__ = ["draw_segments", "draw_timeline"]
