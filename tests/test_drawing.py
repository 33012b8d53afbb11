"""The picture: one row a clip, whatever its frames' number and shape."""

import numpy as np
import pytest
from PIL import Image

from hf_videovit.drawing import ClassifiedClip, draw_classified_clips


def clip_of(colour: tuple[int, int, int], num_frames: int = 4, truth: str | None = None) -> ClassifiedClip:
    return ClassifiedClip(np.full((num_frames, 16, 24, 3), colour, np.uint8), {"jump": 0.7, "fall": 0.3}, truth)


def test_a_row_for_every_clip_with_its_frames(tmp_path):
    clips = [clip_of((255, 0, 0), truth="jump"), clip_of((0, 0, 255), num_frames=1)]
    path = draw_classified_clips(clips, tmp_path / "new" / "picture.png")
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    middle = picture.shape[0] // 2
    for half, colour in ((picture[:middle], (255, 0, 0)), (picture[middle:], (0, 0, 255))):
        assert (np.abs(half - colour).sum(axis=-1) == 0).sum() > 1000


def test_no_more_frames_than_asked_for(tmp_path):
    heights = []
    for count in (2, 8):
        path = draw_classified_clips(
            [clip_of((255, 0, 0), num_frames=16)], tmp_path / f"{count}.png", max_frames=count
        )
        red = (np.asarray(Image.open(path).convert("RGB")).astype(int) == (255, 0, 0)).all(axis=-1)
        heights.append(red.any(axis=1).sum())
    assert heights[0] > heights[1]  # the same width holds fewer, so larger, frames


def test_nothing_to_draw_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="`clips` must hold at least one clip"):
        draw_classified_clips([], tmp_path / "picture.png")
