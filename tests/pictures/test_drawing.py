"""The picture: one row a clip, whatever its frames' number and shape."""

import warnings

import numpy as np
import pytest
from PIL import Image

from hf_videovit.pictures.drawing import (
    ClassifiedClip,
    draw_classified_clips,
    draw_confusion_matrix,
    draw_curves,
    draw_strips,
    fonts_for,
    plots_of,
)


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


def test_strips_have_titles_and_whole_clips(tmp_path):
    red, blue = np.full((6, 8, 12, 3), (255, 0, 0), np.uint8), np.full((2, 8, 8, 3), (0, 0, 255), np.uint8)
    path = draw_strips([("two", [red, blue]), ("", [red])], tmp_path / "new" / "strips.png", max_frames=4)
    picture = np.asarray(Image.open(path))
    assert (picture == (255, 0, 0)).all(axis=-1).sum() == 2 * 4 * 8 * 12
    assert (picture == (0, 0, 255)).all(axis=-1).sum() == 2 * 8 * 8
    larger = np.asarray(Image.open(draw_strips([("", [blue])], path, min_height=20)))
    assert (larger == (0, 0, 255)).all(axis=-1).sum() == 2 * 24 * 24
    with pytest.raises(ValueError, match="`groups` must hold at least one group"):
        draw_strips([], path)


def test_a_plot_for_every_curve(tmp_path):
    points = [(1.0, 3.0), (2.0, 2.0)]
    sizes = [
        Image.open(draw_curves({str(index): points for index in range(count)}, tmp_path / f"{count}.png")).size
        for count in (1, 3, 4)
    ]
    assert sizes[0][0] < sizes[1][0] == sizes[2][0]
    assert sizes[0][1] == sizes[1][1] < sizes[2][1]
    with pytest.raises(ValueError, match="`curves` must hold at least one curve"):
        draw_curves({}, tmp_path / "none.png")


@pytest.mark.parametrize("num_labels", [2, 30, 100])
def test_confusion_matrix_is_darkest_where_most_videos_are(tmp_path, num_labels):
    names = [f"label {index}" for index in range(num_labels)]
    blue = []
    for name, matrix in {"right": 3 * np.eye(num_labels, dtype=int), "none": np.zeros((num_labels,) * 2, int)}.items():
        path = draw_confusion_matrix(matrix, names, tmp_path / "new" / f"{name}.png")
        picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
        blue.append((picture[..., 2] - picture[..., 0] > 60).sum())
    assert blue[0] > 1.05 * blue[1]


def test_training_and_validation_share_a_plot_and_flat_curves_are_left_out():
    moving, flat = [(1, 0.5), (2, 0.25)], [(1, 3.0), (2, 3.0)]
    curves = {"train/loss": moving, "train/weight_decay": flat, "validation/loss": moving, "validation/top1": moving}
    assert plots_of(curves) == {"loss": ["train/loss", "validation/loss"], "validation/top1": ["validation/top1"]}
    assert plots_of({"train/loss": flat}) == {"train/loss": ["train/loss"]}
    assert plots_of({"validation/top1": [(9, 0.5)]}) == {"validation/top1": ["validation/top1"]}


def test_labels_that_no_font_can_show_are_numbered(tmp_path, monkeypatch):
    import matplotlib.font_manager

    manager = matplotlib.font_manager.fontManager
    boxes = [font for font in manager.ttflist if "Last Resort" in font.name]  # has a box for every character
    monkeypatch.setattr(manager, "ttflist", boxes)
    assert not fonts_for(["wave", "Übung, прыжок"])[1]
    assert fonts_for(["wave", "跳ぶ"])[1] == {"跳", "ぶ"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of each missing character
        path = draw_confusion_matrix(np.eye(2, dtype=int), ["wave", "跳ぶ"], tmp_path / "confusion.png")
        clip = ClassifiedClip(np.zeros((2, 8, 8, 3), np.uint8), {"跳ぶ": 0.9, "$5_": 0.1}, "跳ぶ", "loss 1, $.mp4")
        draw_classified_clips([clip], tmp_path / "clips.png")
    assert Image.open(path).size[0] > 100
