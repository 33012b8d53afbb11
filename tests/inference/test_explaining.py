"""Explanations: they point where the answer comes from, add up for every family, and can be drawn."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForVideoClassification, pipeline
from typer.testing import CliRunner

from hf_videovit.cli import app
from hf_videovit.inference.explaining import (
    block_starts,
    block_sums,
    check_by_deletion,
    explain_video,
    integrated_gradients,
    mean_colour,
)
from hf_videovit.inference.pipeline import ClipClassificationPipeline
from hf_videovit.modeling.video_decoding import decode_video, probe_video
from tests.clips import moving_square_clip, write_clip
from tests.families import FAMILIES
from tests.saved_model import LABELS, save_tiny_classifier, tiny_classifier, tiny_processor


FRAME, ROWS, COLUMNS = 5, slice(8, 12), slice(20, 24)  # where the made-up model looks, in frames of 32 x 32


class LooksAtOnePlace(torch.nn.Module):
    """The logit of "down" is the brightness of one place of one frame, that of "up" the opposite."""

    def __init__(self, inner):
        super().__init__()
        self.config, self.inner = inner.config, inner
        self.dtype, self.device = torch.float32, torch.device("cpu")

    def forward(self, pixel_values):
        views = pixel_values if pixel_values.ndim == 6 else pixel_values[:, None]
        seen = views[:, :, FRAME, :, ROWS, COLUMNS].mean(dim=(1, 2, 3, 4))
        logits = torch.zeros(len(seen), len(LABELS))
        logits[:, 2], logits[:, 3] = 4 * seen, -4 * seen
        return type("Output", (), {"logits": logits})


@pytest.fixture
def noise(tmp_path):
    """A video of noise, frames of 32 x 32, of which the third second is brighter."""
    frames = np.random.default_rng(0).integers(0, 120, (32, 32, 32, 3), dtype=np.uint8)
    frames[20:24] += 120
    return str(write_clip(tmp_path / "noise.mp4", frames, fps=8))


def looking(**processor):
    fields = {"num_frames": 8, "frame_stride": 4, **processor}
    classifier = ClipClassificationPipeline(
        model=tiny_classifier(), video_processor=tiny_processor(**fields), task="video-classification"
    )
    classifier.model = LooksAtOnePlace(classifier.model)
    return classifier


def test_it_points_where_the_answer_comes_from(noise):
    classifier = looking()
    explanation = explain_video(classifier, noise, steps=2)
    assert explanation.label == "down"
    assert explanation.importance.shape == (1, 8, 8, 8)
    frames = explanation.frames()
    assert [frame.index for frame in frames] == list(range(0, 32, 4))
    assert frames[FRAME].share == pytest.approx(1) and frames[FRAME].seconds == pytest.approx(20 / 8)
    place = np.zeros((8, 8), bool)
    place[ROWS.start // 4, COLUMNS.start // 4] = True
    np.testing.assert_array_equal(frames[FRAME].blocks > 1e-6, place)
    opposite = explain_video(classifier, noise, "up", steps=2)
    np.testing.assert_allclose(opposite.importance, -explanation.importance, atol=1e-5)
    assert [frame.share for frame in opposite.frames()] == [0.0] * 8


def test_the_picture_of_a_frame_is_what_the_model_saw(noise):
    frames = explain_video(looking(), noise, steps=1).frames()
    for frame in frames:
        np.testing.assert_array_equal(frame.picture, decode_video(noise, [frame.index]).frames[0])


def test_hiding_what_matters_costs_the_score(noise):
    classifier = looking()
    explanation = explain_video(classifier, noise, steps=1)
    found = check_by_deletion(classifier, explanation, share=1 / 512, draws=20)  # one block
    assert found.whole == explanation.score > 0.6
    assert found.important == pytest.approx(score_of_zero_contribution(classifier, explanation), abs=1e-5)
    assert found.random == pytest.approx(found.whole, abs=1e-6)
    again = check_by_deletion(classifier, explanation, share=0.2, seed=1)
    assert again == check_by_deletion(classifier, explanation, share=0.2, seed=1)


def score_of_zero_contribution(classifier, explanation):
    """The score where the decisive place has the mean colour of its view."""
    clip = explanation.views.frame_tensor()
    logits = classifier.model(pixel_values=mean_colour(clip).expand_as(clip)).logits
    return float(logits.softmax(dim=-1)[0, 2])


@pytest.mark.parametrize("crops", [1, 3])
def test_of_several_views_each_frame_is_told_once(crops, tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (20, 32, 96, 3), dtype=np.uint8)
    path = str(write_clip(tmp_path / "wide.mp4", frames))
    explanation = explain_video(looking(num_clips=3, num_crops=crops, frame_stride=2), path, steps=1)
    assert explanation.importance.shape == (3 * crops, 8, 8, 8)
    shown = explanation.frames()
    indices = [frame.index for frame in shown]
    assert indices == sorted(set(explanation.views.indices.ravel().tolist())) and len(indices) < 3 * 8
    assert sum(frame.share for frame in shown) == pytest.approx(1)
    decisive = set(explanation.views.indices[:, FRAME].tolist())
    assert {frame.index for frame in shown if frame.share > 1e-6} <= decisive


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_importances_add_up_for_every_family(family):
    """They sum to the logit of the clip less that of the grey clip, and leave the model as it was."""
    torch.manual_seed(0)
    model = AutoModelForVideoClassification.from_config(family.config()).eval()
    for weight in model.parameters():
        weight.data.add_(0.05 * torch.randn_like(weight))  # published starts are close to constant
    config = model.config
    clip = torch.randn(1, config.num_frames, config.num_channels, config.image_size, config.image_size)
    found = integrated_gradients(model, clip, [1], steps=64)
    with torch.no_grad():
        whole, grey = model(pixel_values=torch.cat([clip, mean_colour(clip).expand_as(clip)])).logits[:, 1]
    assert found.shape == clip.shape and abs(whole - grey) > 1e-3
    assert float(found.sum()) == pytest.approx(float(whole - grey), rel=0.02, abs=1e-3)
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())


def test_blocks_cover_every_pixel_once():
    values = np.random.default_rng(0).random((2, 10, 7))
    sums = block_sums(values, 4)
    assert sums.shape == (2, 4, 4) and block_starts(10, 4).tolist() == [0, 2, 5, 7]
    assert sums[1, 1, 3] == pytest.approx(values[1, 2:5, 5:7].sum())
    assert sums.sum() == pytest.approx(values.sum())
    np.testing.assert_array_equal(block_sums(values, 20), values)


def test_what_is_not_allowed_is_refused(noise):
    classifier = looking()
    with pytest.raises(
        ValueError, match=r"`label` must be one of the model's 6 labels, got 'rihgt'\. Did you mean 'ri"
    ):
        explain_video(classifier, noise, "rihgt")
    with pytest.raises(ValueError, match="`steps` must be at least 1, got 0"):
        explain_video(classifier, noise, steps=0)
    explanation = explain_video(classifier, noise, steps=1)
    with pytest.raises(ValueError, match="`share` must be greater than 0 and less than 1, got 1.5"):
        check_by_deletion(classifier, explanation, share=1.5)
    with pytest.raises(ValueError, match="`draws` must be at least 1, got 0"):
        check_by_deletion(classifier, explanation, draws=0)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save_tiny_classifier(tmp_path_factory.mktemp("model"), num_clips=2))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    frames = moving_square_clip(num_frames=40, width=96)
    return str(write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", frames, fps=20))


def run(*words):
    return CliRunner().invoke(app, ["explain", *map(str, words), "--device", "cpu"])


def test_the_command_writes_pictures_a_film_and_numbers(model, clip, tmp_path):
    done = run(clip, "--model", model, "--output", tmp_path, "--label", "up", "--steps", 4)
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "explanation.json").read_text())
    scores = {one["label"]: one["score"] for one in pipeline("video-classification", model=model)(clip, top_k=None)}
    assert report["label"] == "up" and report["score"] == pytest.approx(scores["up"])
    assert f"up: score {scores['up']:.3f}" in done.output and "% of the blocks hidden" in done.output
    frames = report["frames"]
    best = max(frames, key=lambda frame: frame["share"])
    assert f"{best['seconds']:.2f} s" in done.stdout.splitlines()[2]
    assert sum(frame["share"] for frame in frames) == pytest.approx(1, abs=1e-2)
    assert all(frame["seconds"] == pytest.approx(frame["index"] / 20) for frame in frames)
    picture = Image.open(tmp_path / "explanation.png")
    assert picture.width == min(8, len(frames)) * (128 + 4)
    film = probe_video(str(tmp_path / "explanation.mp4"))
    assert (film.num_frames, film.height, film.width) == (len(frames), 128, 256)
    again = run(clip, "--model", model, "--output", tmp_path, "--steps", 4, "--json")
    assert again.exit_code == 0 and json.loads(again.stdout)["label"] == max(scores, key=scores.get)


def test_the_command_says_what_is_wrong(model, clip, tmp_path):
    done = run(clip, "--model", model, "--label", "sideways", "--output", tmp_path / "a")
    assert done.exit_code == 2 and "`label` must be one of the model's 6 labels, got 'sideways'" in done.output
    (tmp_path / "broken.mp4").write_bytes(b"nothing" * 100)
    done = run(tmp_path / "broken.mp4", "--model", model, "--output", tmp_path / "a")
    assert done.exit_code == 2 and "broken.mp4" in done.output and not (tmp_path / "a").exists()
    done = run("--model", model, "--label", "up")
    assert done.exit_code == 2 and "--label needs a video" in done.output
    (tmp_path / "explanation.png").write_bytes(b"mine")
    done = run(clip, "--model", model, "--output", tmp_path)
    assert done.exit_code == 2 and "must not exist" in done.output
    assert (tmp_path / "explanation.png").read_bytes() == b"mine"
