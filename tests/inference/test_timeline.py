"""Scores along a clip: of every family, by the processor's own views."""

import pytest
import torch
from transformers import AutoModelForVideoClassification, pipeline

from hf_videovit.inference.pipeline import ClipClassificationPipeline
from hf_videovit.inference.timeline import load_views, score_views, scores_over_time
from tests.clips import moving_square_clip, write_clip
from tests.families import FAMILIES
from tests.saved_model import save_tiny_classifier, tiny_classifier, tiny_processor


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    frames = moving_square_clip(num_frames=40, width=96)
    return str(write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", frames, fps=20))


@pytest.fixture
def classifier(tmp_path):
    return pipeline("video-classification", model=str(save_tiny_classifier(tmp_path, num_clips=2, num_crops=3)))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("protocol", [{}, {"num_clips": 3}, {"num_clips": 2, "num_crops": 3}], ids=str)
def test_views_are_those_of_the_processor(family, protocol, clip):
    """To the last bit, and the frames beside them are the ones that the views were made of."""
    processor = family.processor_class(**{**family.processor, **protocol})
    views = load_views(processor, clip)
    batch = processor(clip, return_tensors="pt", return_metadata=True)
    assert torch.equal(views.pixel_values, batch["pixel_values"])
    assert views.indices.ravel().tolist() == list(batch["video_metadata"][0].frames_indices)
    assert views.frames.shape == (*views.indices.shape, 64, 96, 3)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_family_answers_over_time(family, clip):
    torch.manual_seed(0)
    model = AutoModelForVideoClassification.from_config(family.config()).eval()
    classifier = ClipClassificationPipeline(
        model=model, video_processor=family.processor_class(**family.processor), task="video-classification"
    )
    answer = {one["label"]: one["score"] for one in classifier(clip, top_k=None)}
    assert score_views(classifier, load_views(classifier.video_processor, clip).pixel_values) == answer
    windows = scores_over_time(classifier, clip, num_windows=3)
    assert (windows[0].first, windows[-1].end, len(windows)) == (0, 40, 3)
    assert all(window.scores.keys() == answer.keys() for window in windows)


def test_a_window_is_scored_as_a_clip_of_its_own(classifier, clip):
    """Clips of 4 frames, 2 apart, cover 7; the pipeline says the same of these frames alone."""
    decoded = load_views(tiny_processor(num_frames=40, frame_stride=1), clip).frames[0]
    windows = scores_over_time(classifier, clip, num_windows=4)
    assert [(window.first, window.end) for window in windows] == [(0, 7), (11, 18), (22, 29), (33, 40)]
    nearest = [window.first for window in scores_over_time(classifier, clip, num_windows=6)]
    assert nearest == [0, 7, 13, 20, 26, 33]  # multiples of 6.6
    for window in windows:
        assert window.start_seconds == pytest.approx(window.first / 20)
        assert window.end_seconds == pytest.approx(window.end / 20)
        alone = {one["label"]: one["score"] for one in classifier(decoded[window.first : window.end], top_k=None)}
        assert alone.keys() == window.scores.keys()
        assert all(window.scores[label] == pytest.approx(score, abs=1e-6) for label, score in alone.items())


@pytest.mark.parametrize(("frames", "length"), [(40, 10), (12, 4), (3, 3)])
def test_a_protocol_that_spreads_over_the_video_gets_a_quarter(frames, length, tmp_path):
    path = str(write_clip(tmp_path / "clip.mp4", moving_square_clip(num_frames=frames)))
    model = ClipClassificationPipeline(
        model=tiny_classifier(), video_processor=tiny_processor(frame_sampling="uniform"), task="video-classification"
    )
    windows = scores_over_time(model, path)
    assert {window.end - window.first for window in windows} == {length}
    assert (windows[0].first, windows[-1].end) == (0, frames)


def test_what_is_not_allowed_is_refused(classifier, clip):
    with pytest.raises(ValueError, match="`num_windows` must be at least 1, got 0"):
        scores_over_time(classifier, clip, num_windows=0)
