"""Sets of features of windows: resumable, described, with a list of the videos."""

import json

import numpy as np
import pytest
import torch
from transformers import pipeline

from hf_videovit import (
    ActionFormerConfig,
    ActionFormerForTemporalActionLocalization,
    TemporalLocalizationProcessor,
    films,
    get_video_features,
)
from hf_videovit.feature_files import open_features
from hf_videovit.inference.feature_sets import FeatureSettings, make_features, plan_features, weights_hash
from hf_videovit.inference.features import iter_video_features
from hf_videovit.inference.temporal_localization import join_localizer
from tests.clips import moving_square_clip, write_clip
from tests.saved_model import tiny_classifier, tiny_processor


SETTINGS = FeatureSettings(window=4, stride=3)


@pytest.fixture(scope="module")
def classifier():
    return tiny_classifier().eval()


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """22, 9, 3 and 14 frames: 7, 2, 0 and 4 windows."""
    folder = tmp_path_factory.mktemp("clips")
    names = zip(("right", "up", "left", "down"), (22, 9, 3, 14))
    return [
        str(write_clip(folder / f"{name}.mp4", moving_square_clip(name, num_frames=count, width=96, seed=count)))
        for name, count in names
    ]


def make(model, files, folder, settings=SETTINGS, name="tiny", batch_size=3):
    processor = tiny_processor()
    plan = plan_features(model, processor, files, folder, settings, batch_size=batch_size)
    return plan, list(make_features(model, processor, plan, folder, settings, name=name, batch_size=batch_size))


def test_a_set_of_features(classifier, clips, tmp_path):
    plan, rows = make(classifier, clips, tmp_path / "set")
    assert plan.num_windows == 13 and plan.num_bytes == 13 * 32 * 4
    assert "4 videos, 13 windows, 0.0 MB of features, about " in str(plan)
    assert [(row["video"], row["windows"], row["frames"]) for row in rows] == [
        ("right", 7, 22),
        ("up", 2, 9),
        ("left", 0, 3),
        ("down", 4, 14),
    ]
    folder = open_features(tmp_path / "set")
    assert folder.description["window"] == 4 and folder.description["frames"].startswith("cropped to")
    assert folder.videos["up"]["fps"] == pytest.approx(folder.videos["up"]["frames"] / folder.videos["up"]["duration"])
    expected = get_video_features(classifier, tiny_processor(), clips, window=4, stride=3)
    for name, value in zip(("right", "up", "left", "down"), expected):
        stored = folder.files[name].read()
        assert stored.shape == value.shape == (folder.videos[name]["windows"], 32)
        torch.testing.assert_close(stored, value, atol=1e-5, rtol=1e-5)


def test_a_stopped_run_continues_and_makes_nothing_twice(classifier, clips, tmp_path, monkeypatch):
    processor, folder = tiny_processor(), tmp_path / "set"
    plan = plan_features(classifier, processor, clips, folder, SETTINGS, measure=False)
    made = make_features(classifier, processor, plan, folder, SETTINGS, name="tiny")
    next(made)
    made.close()
    before = (folder / "right.npy").stat().st_mtime_ns
    with (folder / "manifest.jsonl").open("a") as file:
        file.write('{"video": "up", "fi')  # cut off by a crash
    read = []
    decode = films.decode_in_chunks
    monkeypatch.setattr(
        films,
        "decode_in_chunks",
        lambda video, *rest, **more: read.append(video) or decode(video, *rest, **more),
    )
    plan, rows = make(classifier, clips, folder)
    assert [row["video"] for row in plan.kept] == ["right"] and "1 videos have features already" in str(plan)
    assert [row["video"] for row in rows] == ["up", "left", "down"] and read == clips[1:]
    assert (folder / "right.npy").stat().st_mtime_ns == before
    write_clip(folder.parent / "up.mp4", moving_square_clip("up", num_frames=12, width=96, seed=1))
    again = plan_features(classifier, processor, [str(folder.parent / "up.mp4")], folder, SETTINGS, measure=False)
    assert [row["windows"] for row in again.rows] == [3]  # another file of that name


def test_features_made_in_another_way_are_not_mixed(classifier, clips, tmp_path):
    make(classifier, clips[:1], tmp_path / "set")
    for settings in (
        FeatureSettings(4, 2),
        FeatureSettings(4, 3, squash=True),
        FeatureSettings(4, 3, dtype="float16"),
    ):
        with pytest.raises(ValueError, match="has features that were made in another way"):
            make(classifier, clips, tmp_path / "set", settings)
    other = tiny_classifier()
    with torch.no_grad():
        next(other.base_model.parameters()).add_(1)
    with pytest.raises(ValueError, match="made in another way: weights"):
        make(other, clips, tmp_path / "set")
    _, rows = make(classifier, clips, tmp_path / "set", name="renamed")
    assert len(rows) == 3
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "right.npy").write_bytes(b"mine")
    with pytest.raises(ValueError, match="must not exist"):
        make(classifier, clips, mine)
    assert (mine / "right.npy").read_bytes() == b"mine"


def test_half_precision_and_hash_of_the_encoder(classifier, clips, tmp_path):
    _, rows = make(classifier, clips[:1], tmp_path / "half", FeatureSettings(4, 3, dtype="float16"))
    stored = np.load(tmp_path / "half" / "right.npy")
    assert stored.dtype == np.float16 and rows[0]["windows"] == 7
    expected = get_video_features(classifier, tiny_processor(), clips[0], window=4, stride=3)[0]
    np.testing.assert_allclose(stored.astype(np.float32), expected.numpy(), atol=2e-3, rtol=2e-3)
    assert weights_hash(classifier) == weights_hash(classifier.base_model)


@pytest.mark.parametrize("batch_size", [1, 3, 5, 64])
def test_batches_across_videos_change_nothing(classifier, clips, tmp_path, batch_size):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"nothing" * 50)
    videos = [clips[1], str(broken), clips[2], clips[0], clips[3]]
    results = list(
        iter_video_features(
            classifier, tiny_processor(), videos, window=4, stride=3, batch_size=batch_size, on_error="return"
        )
    )
    assert [type(one).__name__ for one in results] == ["Tensor", "VideoDecodingError", "Tensor", "Tensor", "Tensor"]
    for video, found in zip(videos, results):
        if isinstance(found, torch.Tensor):
            expected = get_video_features(classifier, tiny_processor(), video, window=4, stride=3)[0]
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_unreadable_videos_are_listed(classifier, clips, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"nothing" * 50)
    plan, rows = make(classifier, [str(broken), clips[1]], tmp_path / "set")
    assert "error" in rows[0] and rows[1]["windows"] == 2
    lines = (tmp_path / "set" / "manifest.jsonl").read_text().splitlines()
    assert [("error" in json.loads(line)) for line in lines] == [True, False]
    again = plan_features(classifier, tiny_processor(), [str(broken), clips[1]], tmp_path / "set", SETTINGS)
    assert [row["video"] for row in again.rows] == ["broken"] and again.num_windows == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stride": 0}, "`stride` must be at least 1, got 0"),
        ({"dtype": "int8"}, "`dtype` must be one of float32, float16"),
        ({"pooling": "tokens"}, "`pooling` of windows must be default, mean or first"),
    ],
)
def test_settings_are_checked(fields, message):
    with pytest.raises(ValueError, match=message):
        FeatureSettings(**{"window": 4, "stride": 3, **fields})


def test_a_localiser_takes_only_its_own_features(classifier, clips, tmp_path):
    make(classifier, clips[:1], tmp_path / "set")
    description = open_features(tmp_path / "set").description
    processor = TemporalLocalizationProcessor(
        feature_size=32, feature_stride=3, feature_window=4, feature_description=description
    )
    config = ActionFormerConfig(
        feature_size=32, hidden_size=16, head_hidden_size=16, num_branch_layers=1, num_labels=2
    )
    localizer = ActionFormerForTemporalActionLocalization(config).eval()
    parts = join_localizer(classifier.base_model, localizer, processor, tiny_processor())
    assert parts["model"].config.pooling == "default"
    other = tiny_classifier().base_model
    with torch.no_grad():
        next(other.parameters()).add_(1)
    with pytest.raises(ValueError, match="`encoder` has other weights than that of the features \\('tiny'\\)"):
        join_localizer(other, localizer, processor, tiny_processor())
    localize = pipeline("temporal-action-localization", model=localizer, feature_extractor=processor)
    file = str(tmp_path / "set" / "right.npy")
    assert isinstance(localize(file, fps=25.0), list)
    changed = tmp_path / "set" / "features.json"
    changed.write_text(json.dumps(description | {"stride": 6}))
    with pytest.raises(ValueError, match="`stride` 6, but the localiser was trained on `stride` 3"):
        localize(file, fps=25.0)
