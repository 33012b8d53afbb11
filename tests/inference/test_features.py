"""Features: never masked, views averaged, windows of long videos in bounded memory."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open

from hf_videovit import VideoMAEV2ForPreTraining, VideoMAEV2Model, get_video_features
from hf_videovit.inference.features import iter_video_features, save_features
from hf_videovit.modeling.video_decoding import VideoDecodingError
from tests.clips import moving_square_clip, write_clip
from tests.saved_model import tiny_classifier, tiny_config, tiny_processor


@pytest.fixture(scope="module")
def classifier():
    return tiny_classifier()


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return [
        str(write_clip(folder / f"{name}.mp4", moving_square_clip(name, num_frames=22, width=96, seed=index)))
        for index, name in enumerate(("right", "up", "left"))
    ]


def encode(model, pixel_values):
    with torch.no_grad():
        return model.base_model(pixel_values=pixel_values)


def test_default_pooling_is_the_models_own(classifier, clips):
    processor = tiny_processor()
    features = get_video_features(classifier, processor, clips)
    expected = encode(classifier, processor(clips, return_tensors="pt")["pixel_values"])
    torch.testing.assert_close(features, expected.pooler_output)
    norm = classifier.base_model.fc_norm
    torch.testing.assert_close(features, norm(expected.last_hidden_state.mean(dim=1)).detach())
    assert features.shape == (3, 32)
    assert features.dtype == torch.float32
    assert not features.requires_grad


def test_other_poolings(classifier, clips):
    processor = tiny_processor()
    tokens = encode(classifier, processor(clips[0], return_tensors="pt")["pixel_values"]).last_hidden_state
    for pooling, expected in (("mean", tokens.mean(dim=1)), ("first", tokens[:, 0]), ("tokens", tokens)):
        torch.testing.assert_close(get_video_features(classifier, processor, clips[0], pooling=pooling), expected)


def test_views_are_averaged(classifier, clips):
    processor = tiny_processor(num_clips=2, num_crops=3)
    views = processor(clips[0], return_tensors="pt")["pixel_values"][0]
    outputs = encode(classifier, views)
    features = get_video_features(classifier, processor, clips[0])
    torch.testing.assert_close(features[0], outputs.pooler_output.mean(dim=0))
    tokens = get_video_features(classifier, processor, clips[0], pooling="tokens")
    torch.testing.assert_close(tokens[0], outputs.last_hidden_state.flatten(0, 1))


@pytest.mark.parametrize("batch_size", [2, 3, 5])
@pytest.mark.parametrize("options", [{}, {"stride": 3}])
def test_batches_change_nothing(classifier, clips, batch_size, options):
    one_by_one = get_video_features(classifier, tiny_processor(), clips, **options)
    together = get_video_features(classifier, tiny_processor(), clips, batch_size=batch_size, **options)
    for left, right in zip(one_by_one, together, strict=True):
        torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-5)


def test_one_video_in_every_form(classifier, clips):
    expected = get_video_features(classifier, tiny_processor(), [clips[0]])
    with open(clips[0], "rb") as file:
        data = file.read()
        file.seek(0)
        for form in (clips[0], data, {"path": None, "bytes": data}, file, (clip for clip in clips[:1])):
            torch.testing.assert_close(get_video_features(classifier, tiny_processor(), form), expected)
    frames = moving_square_clip(num_frames=22, width=96)
    assert get_video_features(classifier, tiny_processor(), frames).shape == (1, 32)


def test_a_pretraining_model_is_not_masked_and_has_no_pooled_output(clips):
    torch.manual_seed(0)
    model = VideoMAEV2ForPreTraining(tiny_config())
    tokens = get_video_features(model, tiny_processor(), clips[0], pooling="tokens")
    assert tokens.shape == (1, 2 * 4 * 4, 32)
    with pytest.raises(ValueError, match="pooling='default'.*needs a pooled output"):
        get_video_features(model, tiny_processor(), clips[0])


@pytest.mark.parametrize(("window", "stride", "count"), [(4, None, 5), (4, 4, 5), (4, 3, 7), (6, 1, 17), (22, 5, 1)])
def test_windows(classifier, clips, window, stride, count):
    processor = tiny_processor()
    (features,) = get_video_features(classifier, processor, clips[0], window=window, stride=stride, batch_size=3)
    assert features.shape == (count, 32)
    frames = processor(clips[0], do_sample_frames=False, return_tensors="pt")["pixel_values"][0]
    assert frames.shape[0] == 22
    starts = range(0, 22 - window + 1, stride or window)
    expected = encode(classifier, torch.stack([frames[start : start + window] for start in starts])).pooler_output
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)


def test_windows_are_not_cut_at_the_decoders_chunks(classifier, clips, monkeypatch):
    whole = get_video_features(classifier, tiny_processor(), clips[0], stride=1)[0]
    monkeypatch.setattr("hf_videovit.films.CHUNK_BYTES", 1)  # the smallest chunks: 16 frames
    torch.testing.assert_close(get_video_features(classifier, tiny_processor(), clips[0], stride=1)[0], whole)


def test_windows_have_one_view_whatever_the_protocol(classifier, clips):
    one = get_video_features(classifier, tiny_processor(), clips[0], stride=5)[0]
    many = get_video_features(classifier, tiny_processor(num_clips=2, num_crops=3), clips[0], stride=5)[0]
    torch.testing.assert_close(one, many)


def test_the_window_defaults_to_the_models_frames(classifier, clips):
    assert len(get_video_features(classifier, tiny_processor(), clips[0], stride=4)[0]) == 5


def test_windows_of_a_video_that_is_too_short(classifier, tmp_path):
    clip = write_clip(tmp_path / "short.mp4", moving_square_clip(num_frames=3))
    (features,) = get_video_features(classifier, tiny_processor(), clip, stride=4)
    assert features.shape == (0, 32)


def test_squashed_windows_are_the_published_localisation_features(classifier, clips):
    """Whole frame to a square, plain [0, 1] pixels (videomae_v2 specification, 5.2)."""
    processor = tiny_processor()
    frames = processor.load_clips(clips[0], do_sample_frames=False)[0][0]  # (22, 3, 64, 96)
    pixels = F.interpolate(frames.float() / 255, size=(32, 32), mode="bilinear", antialias=False)
    expected = encode(classifier, torch.stack([pixels[start : start + 4] for start in range(0, 19, 4)])).pooler_output
    (features,) = get_video_features(classifier, processor, clips[0], stride=4, squash=True)
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)


def test_the_generator_reads_one_video_at_a_time(classifier, clips):
    read = []

    def videos():
        for clip in clips:
            read.append(clip)
            yield clip

    features = iter_video_features(classifier, tiny_processor(), videos())
    next(features)
    assert read == clips[:1]
    assert len(list(features)) == 2


@pytest.mark.parametrize("options", [{}, {"batch_size": 2}, {"stride": 4}])
def test_unreadable_videos(classifier, clips, tmp_path, options):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"nothing" * 50)
    with pytest.raises(VideoDecodingError, match=r"bad\.mp4"):
        get_video_features(classifier, tiny_processor(), [clips[0], bad], **options)
    videos = [bad, clips[0], bad, clips[1]]
    results = list(iter_video_features(classifier, tiny_processor(), videos, on_error="return", **options))
    assert [isinstance(result, VideoDecodingError) for result in results] == [True, False, True, False]
    expected = get_video_features(classifier, tiny_processor(), clips[1], **options)[0]
    torch.testing.assert_close(results[3], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "max"}, "`pooling` must be one of 'default', 'mean', 'first', 'tokens', got 'max'"),
        ({"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
        ({"stride": 0}, "`stride` must be at least 1, got 0"),
        ({"squash": True}, "`squash=True` applies to windows only"),
    ],
)
def test_bad_arguments_are_named(classifier, clips, options, message):
    with pytest.raises(ValueError, match=message):
        get_video_features(classifier, tiny_processor(), clips[0], **options)


def test_no_videos(classifier):
    with pytest.raises(ValueError, match="at least one video"):
        get_video_features(classifier, tiny_processor(), [])
    assert get_video_features(classifier, tiny_processor(), [], stride=2) == []


def test_saving(tmp_path):
    features = {"a/one.mp4": torch.ones(3, 4), "a/two.mp4": torch.zeros(3, 4)}
    (path,) = save_features(features, tmp_path / "new" / "all.safetensors", metadata={"stride": "4"})
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"stride": "4"}
        assert torch.equal(file.get_tensor("a/one.mp4"), torch.ones(3, 4))
    (path,) = save_features(features, tmp_path / "all.npy")
    assert np.load(path).shape == (2, 3, 4)
    (path,) = save_features({"one": torch.ones(5, 4)}, tmp_path / "one.npy")
    assert np.load(path).shape == (5, 4)
    assert [path.name for path in save_features(features, tmp_path / "folder")] == ["one.npy", "two.npy"]
    with pytest.raises(ValueError, match="several shapes"):
        save_features({**features, "c": torch.ones(1, 4)}, tmp_path / "bad.npy")
    with pytest.raises(ValueError, match="share one file in .*: 'a/one.mp4' and 'b/one.avi'"):
        save_features({**features, "b/one.avi": torch.ones(3, 4)}, tmp_path / "folder")


def test_a_base_model_does_too(clips):
    torch.manual_seed(0)
    assert get_video_features(VideoMAEV2Model(tiny_config()), tiny_processor(), clips).shape == (3, 32)


@pytest.mark.parametrize("options", [{}, {"window": 4}])
def test_a_model_that_trains_goes_on_training(clips, options):
    model = tiny_classifier().train()
    model.base_model.encoder.layers[0].eval()  # a frozen part stays as it is
    before = [module.training for module in model.modules()]
    features = iter_video_features(model, tiny_processor(), clips, **options)
    next(features)
    assert [module.training for module in model.modules()] == before  # between two videos, too
    list(features)
    assert [module.training for module in model.modules()] == before


def test_a_film_that_is_as_low_as_it_has_channels(classifier, tmp_path):
    """Decoded frames have one layout: nothing is guessed from their shape, which could be either here."""
    film = str(write_clip(tmp_path / "low.mp4", moving_square_clip("up", num_frames=6, width=96)[:, :4, :4]))
    assert get_video_features(classifier, tiny_processor(), [film], window=4, stride=2)[0].shape == (2, 32)
