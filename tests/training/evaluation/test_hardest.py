"""Losses of videos, and the picture of the hardest."""

import math

import numpy as np
import pytest
from PIL import Image

from hf_videovit.training.data.sources import Sample, SampleList
from hf_videovit.training.evaluation.evaluation import EvaluationResult
from hf_videovit.training.evaluation.hardest import draw_hardest_clips, video_losses
from tests.saved_model import tiny_processor


COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))


def result_of(labels, logits, **more):
    names = [f"name {index}" for index in range(logits.shape[1])]
    ids = [f"folder/{index}.mp4" for index in range(len(logits))]
    return EvaluationResult(ids, None if labels is None else np.array(labels), logits, [], names, **more)


def test_losses_are_those_of_the_labels():
    logits = np.array([[0.0, 0.0], [math.log(3), 0.0], [5.0, 1.0]], np.float32)
    losses = video_losses(result_of([0, 1, -1], logits))
    assert losses[:2] == pytest.approx([math.log(2), math.log(4)]) and math.isnan(losses[2])
    assert np.isnan(video_losses(result_of(None, logits))).all()
    several = video_losses(result_of([[1, 0], [0, 0], [-1, -1]], logits, multi_label=True))
    assert several[:2] == pytest.approx([math.log(2), (math.log(4) + math.log(2)) / 2]) and math.isnan(several[2])


def shades(path):
    """How many pixels have each of the colours."""
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return [int((np.abs(picture - colour).max(axis=-1) == 0).sum()) for colour in COLOURS]


def test_the_picture_shows_the_clips_with_the_highest_loss(tmp_path):
    videos = [np.full((8, 40, 60, 3), colour, np.uint8) for colour in COLOURS]
    source = SampleList([Sample(f"folder/{index}.mp4", video, 0) for index, video in enumerate(videos)])
    logits = np.array([[0.0, 2.0], [3.0, 0.0], [0.0, 4.0]], np.float32)  # red is wrong, green right, blue most wrong
    result = result_of([0, 0, 0], logits)
    path = draw_hardest_clips(result, source, tiny_processor(), tmp_path / "two.png", 2)
    red, green, blue = shades(path)
    assert red > 1000 and blue > 1000 and green == 0
    red, green, blue = shades(draw_hardest_clips(result, source, tiny_processor(), tmp_path / "one.png", 1))
    assert blue > 1000 and red == green == 0
    assert draw_hardest_clips(result_of(None, logits), source, tiny_processor(), tmp_path / "none.png") is None
    assert not (tmp_path / "none.png").exists()
