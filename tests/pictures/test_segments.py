"""Pictures of timelines."""

import numpy as np
import pytest
from PIL import Image

from hf_videovit.pictures.segments import draw_segments, draw_timeline
from tests.clips import moving_square_clip, write_clip


def segment(label, start, end, score=1.0):
    return {"label": label, "score": score, "segment": {"start": start, "end": end}}


def columns_of(picture, colour):
    """The first and the last column with a colour, and how many rows have it."""
    pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    there = np.abs(pixels - colour).max(axis=-1) == 0
    columns = np.flatnonzero(there.any(axis=0))
    return columns.min(), columns.max(), int(there.any(axis=1).sum())


def test_bars_lie_where_the_segments_do(tmp_path):
    segments = [segment("a", 10, 20), segment("b", 0, 40), segment("a", 30, 35, 0.5)]
    path = draw_segments(segments, 40.0, tmp_path / "x" / "timeline.png")
    red, green = (230, 25, 75), (60, 180, 75)  # of the first and of the second label
    whole = columns_of(path, green)
    width = whole[1] - whole[0]
    first = columns_of(path, red)
    assert (first[0] - whole[0]) / width == pytest.approx(0.25, abs=0.01)
    assert (first[1] - whole[0]) / width == pytest.approx(0.875, abs=0.01)  # the border of the third
    assert whole[2] == 19
    pale = tuple(round(255 + (channel - 255) * 0.575) for channel in red)
    start, end, _ = columns_of(path, pale)
    assert (start - whole[0]) / width == pytest.approx(0.75, abs=0.01)
    assert (end - whole[0]) / width == pytest.approx(0.875, abs=0.01)


@pytest.mark.parametrize("duration", [0.4, 7.0, 600.0, 5 * 3600.0])
def test_any_length_and_no_segments(duration, tmp_path):
    assert Image.open(draw_segments([], duration, tmp_path / "empty.png")).width == 1200
    long_name = [segment("a very long name of an action " * 10, 0, duration)]
    assert Image.open(draw_segments(long_name, duration, tmp_path / "long.png")).width == 1200


def test_frames_are_shown_above(tmp_path):
    frames = moving_square_clip(height=40, width=56, num_frames=50)
    film = write_clip(tmp_path / "film.mp4", frames, fps=25)
    with_frames = Image.open(draw_timeline(str(film), [segment("a", 0.5, 1.5)], tmp_path / "film.png"))
    without = Image.open(draw_segments([segment("a", 0.5, 1.5)], 2.0, tmp_path / "bars.png"))
    assert with_frames.height > without.height
    assert np.asarray(with_frames)[12:84].std() > 0
    with pytest.raises(ValueError, match="`duration` must be positive, got 0"):
        draw_segments([], 0, tmp_path / "x.png")
