"""`pipeline("temporal-action-localization")`: videos and features of any length."""

import math
import weakref

import numpy as np
import pytest
import torch
from transformers import AutoVideoProcessor, pipeline

from hf_videovit import (
    ActionFormerConfig,
    ActionFormerForTemporalActionLocalization,
    TemporalLocalizationProcessor,
    get_video_features,
)
from hf_videovit.films import sliding_windows
from hf_videovit.inference.temporal_localization import (
    join_localizer,
    load_localizer,
    save_localizer,
)
from tests.clips import moving_square_clip, write_clip
from tests.families import FAMILIES, Case
from tests.segments import assert_same_segments


TASK = "temporal-action-localization"
NAMES = {0: "wave", 1: "walk", 2: "sit"}
FPS = 25


def encoder_case(name="videomae_v2") -> Case:
    family = next(family for family in FAMILIES if family.name == name)
    return Case(family, family.heads[0])


def localizer_of(feature_size: int, **fields) -> ActionFormerForTemporalActionLocalization:
    torch.manual_seed(0)
    config = ActionFormerConfig(
        feature_size=feature_size,
        hidden_size=16,
        head_hidden_size=16,
        num_branch_layers=2,
        attention_window=5,
        classifier_prior=0.3,
        layer_scale_init_value=0.5,
        id2label=NAMES,
        label2id={name: index for index, name in NAMES.items()},
        **fields,
    )
    model = ActionFormerForTemporalActionLocalization(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model


def joined_folder(path, name="videomae_v2", encoder_fields=None, fields=None, **processor):
    case = encoder_case(name)
    encoder = case.model(**(encoder_fields or {}))
    video_processor = case.family.processor_class(**case.family.processor)
    features = TemporalLocalizationProcessor(
        **{
            "feature_size": encoder.config.hidden_size,
            "feature_stride": 2,
            "feature_window": encoder.config.num_frames,
            **processor,
        }
    )
    localizer = localizer_of(encoder.config.hidden_size)
    return save_localizer(path, **join_localizer(encoder, localizer, features, video_processor, **(fields or {})))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = joined_folder(tmp_path_factory.mktemp("joined"))
    write_clip(path / "film.mp4", moving_square_clip(height=40, width=56, num_frames=90), fps=FPS)
    return path


@pytest.mark.parametrize("name", [family.name for family in FAMILIES])
def test_the_pipeline_is_features_localiser_and_processor(name, tmp_path):
    joined_folder(tmp_path, name)
    video = str(write_clip(tmp_path / "film.mp4", moving_square_clip(height=40, width=56, num_frames=61), fps=FPS))
    localize = pipeline(TASK, model=str(tmp_path))
    found = localize(video, threshold=0.0)
    model, processor = localize.model, localize.feature_extractor
    window = processor.feature_window
    (features,) = get_video_features(
        model.encoder, AutoVideoProcessor.from_pretrained(tmp_path), [video], window=window, stride=2
    )
    with torch.no_grad():
        outputs = model.localizer(**processor(features))
    (expected,) = processor.post_process_temporal_localization(outputs, [(FPS, 61 / FPS)])
    assert len(found) == len(expected["scores"]) > 3
    rows = zip(expected["segments"].tolist(), expected["scores"].tolist(), expected["labels"].tolist())
    assert_same_segments(
        found,
        [
            {"label": NAMES[label], "score": score, "segment": {"start": start, "end": end}}
            for (start, end), score, label in rows
        ],
    )
    assert all(0 <= one["segment"]["start"] <= one["segment"]["end"] <= 61 / FPS + 1e-5 for one in found)
    assert_same_segments(localize(features, fps=FPS, duration=61 / FPS, threshold=0.0), found)


@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_the_number_of_windows_in_a_pass_changes_nothing(folder, batch_size):
    localize = pipeline(TASK, model=str(folder))
    video = str(folder / "film.mp4")
    assert_same_segments(localize(video, batch_size=batch_size), localize(video))


@pytest.mark.parametrize("stride", [1, 3, 7])
def test_windows_that_overlap_and_windows_apart(folder, stride, tmp_path):
    """Windows of 4 frames; a stride of 7 leaves frames out."""
    joined_folder(tmp_path, feature_stride=stride)
    localize = pipeline(TASK, model=str(tmp_path))
    video = str(folder / "film.mp4")
    (features,) = get_video_features(
        localize.model.encoder, localize.video_processor, [video], window=4, stride=stride
    )
    for batch_size in (1, 2, 5):
        assert_same_segments(
            localize(video, batch_size=batch_size, threshold=0.0),
            localize(features, fps=FPS, duration=90 / FPS, threshold=0.0),
        )


def test_features_come_as_arrays_and_files(folder, tmp_path):
    localizer = localizer_of(8)
    TemporalLocalizationProcessor(feature_size=8).save_pretrained(tmp_path)
    localizer.save_pretrained(tmp_path)
    localize = pipeline(TASK, model=str(tmp_path))
    features = torch.randn(60, 8)
    np.save(tmp_path / "film.npy", features.half().numpy())
    expected = localize(features.half().float(), fps=30.0)
    assert expected and all(one["score"] >= 0.1 for one in expected)
    assert_same_segments(localize(str(tmp_path / "film.npy"), fps=30.0), expected)
    assert_same_segments(localize([features.half().numpy(), tmp_path / "film.npy"], fps=30.0)[1], expected)
    assert len(localize(features, fps=30.0, top_k=2)) == 2
    scores = [one["score"] for one in localize(features, fps=30.0, threshold=0.3)]
    assert scores == sorted(scores, reverse=True) and min(scores) >= 0.3
    assert localize(torch.zeros(0, 8), fps=30.0) == []
    with pytest.raises(ValueError, match="`fps` is needed"):
        localize(features)
    with pytest.raises(ValueError, match="a localiser without an encoder"):
        localize(str(folder / "film.mp4"))
    (tmp_path / "bad.npy").write_bytes(b"no array")
    with pytest.raises(ValueError, match=r"bad\.npy cannot be read"):
        localize(str(tmp_path / "bad.npy"), fps=30.0)


def test_long_sequences_are_cut_into_parts_that_overlap(tmp_path):
    """Every candidate of the whole sequence is found again, in the part that has it far from its ends."""
    localizer_of(8).save_pretrained(tmp_path)
    settings = {"nms_method": "none", "max_segments": None, "max_candidates": None, "feature_stride": 4}
    TemporalLocalizationProcessor(feature_size=8, **settings).save_pretrained(tmp_path)
    localize = pipeline(TASK, model=str(tmp_path))
    features = torch.randn(600, 8)
    seen = []
    localize.model.register_forward_pre_hook(
        lambda _, given, options: seen.append(options["features"].shape[1]), with_kwargs=True
    )
    whole = localize(features, fps=25.0, threshold=0.3)
    parts = localize(features, fps=25.0, threshold=0.29, steps_at_once=256)
    assert seen == [600, 256, 256, 256, 256]
    rows = [
        (one["label"], round(one["score"], 3), round(one["segment"]["start"], 1), round(one["segment"]["end"], 1))
        for one in (*whole, *parts)
    ]
    found, missing = np.array(rows[len(whole) :], dtype=object), 0
    for label, score, start, end in rows[: len(whole)]:
        near = (found[:, 0] == label) & (np.abs(found[:, 1:] - (score, start, end)).max(axis=1).astype(float) < 0.15)
        missing += not near.any()
    assert len(whole) > 100 and missing == 0


@pytest.mark.parametrize(("length", "hop", "multiple"), [(6, 3, 1), (6, 4, 2), (8, 4, 4), (5, 5, 1)])
@pytest.mark.parametrize("count", [0, 1, 5, 6, 7, 13, 18, 29])
def test_windows_over_a_stream(length, hop, multiple, count):
    windows = list(sliding_windows(iter(torch.arange(count)), length, hop, multiple))
    covered = {int(item) for _, part in windows for item in part}
    assert covered == set(range(count))
    for start, part in windows:
        assert start % multiple == 0 and part.tolist() == list(range(start, start + len(part)))
        assert len(part) <= length
    assert all(len(part) == length for _, part in windows[:-1])
    if count > length and multiple == 1:
        assert len(windows[-1][1]) == length


def test_frames_of_a_stream_are_not_kept():
    """Of a long stream only a window and a hop are held."""
    alive = []

    def stream():
        for _ in range(500):
            item = torch.zeros(1)
            alive.append(weakref.ref(item))
            yield item

    most = 0
    for _ in sliding_windows(stream(), 20, 10):
        most = max(most, sum(one() is not None for one in alive))
    assert most <= 40


def test_an_encoder_with_adapters_reads_long_windows(tmp_path):
    joined_folder(
        tmp_path,
        encoder_fields={"adapter_layers": [1]},
        fields={"feature_source": "moments", "feature_stride": 2, "feature_window": 2},
        feature_stride=2,
        feature_window=2,
        max_sequence_length=32,
    )
    video = str(write_clip(tmp_path / "film.mp4", moving_square_clip(height=40, width=56, num_frames=50), fps=FPS))
    localize = pipeline(TASK, model=str(tmp_path))
    found = localize(video, threshold=0.0)
    assert found and max(one["segment"]["end"] for one in found) <= 2.0 + 1e-6
    seen = []
    localize.model.encoder.register_forward_pre_hook(
        lambda _, given, options: seen.append(options["pixel_values"].shape[1]), with_kwargs=True
    )
    localize(video, threshold=0.0)
    localize(video, threshold=0.0, steps_at_once=12)  # 24 frames, every 12
    assert seen == [52, 24, 24, 24, 24]


def test_what_is_read_at_another_rate(folder, tmp_path):
    """Every second frame; windows of 4 of them span 8 frames."""
    joined_folder(tmp_path, fields={"frame_step": 2, "feature_stride": 1}, feature_stride=2, feature_window=8)
    localize = pipeline(TASK, model=str(tmp_path))
    clip = moving_square_clip(height=40, width=56, num_frames=90)
    found = localize(str(folder / "film.mp4"), threshold=0.0)
    (features,) = get_video_features(localize.model.encoder, localize.video_processor, [clip[::2]], window=4, stride=1)
    expected = localize(features, fps=FPS, duration=90 / FPS, threshold=0.0)
    assert len(found) == len(expected)
    assert found[0]["segment"]["start"] == pytest.approx(expected[0]["segment"]["start"], abs=0.2)
    seen = []
    localize.model.encoder.register_forward_pre_hook(
        lambda _, given, options: seen.append(len(options["pixel_values"])), with_kwargs=True
    )
    localize(str(folder / "film.mp4"))
    assert sum(seen) == 45 - 4 + 1


def test_resized_features_and_short_videos(folder, tmp_path):
    joined_folder(tmp_path, resize_to_max_length=True, max_sequence_length=24, class_agnostic=True)
    localize = pipeline(TASK, model=str(tmp_path))
    video = str(folder / "film.mp4")
    (features,) = get_video_features(localize.model.encoder, localize.video_processor, [video], window=4, stride=2)
    assert_same_segments(localize(video, threshold=0.0), localize(features, fps=FPS, duration=90 / FPS, threshold=0.0))
    short = str(write_clip(tmp_path / "short.mp4", moving_square_clip(height=40, width=56, num_frames=3), fps=FPS))
    assert localize(short) == []


def test_classes_of_a_classifier(folder):
    localize = pipeline(TASK, model=str(folder))
    video = str(folder / "film.mp4")
    plain = localize(video, threshold=0.0)
    fused = localize(video, threshold=0.0, class_scores=[0.1, 0.64, 0.2, 0.06], class_names=["a", "b", "c", "d"])
    assert {one["label"] for one in fused} == {"b", "c"}
    assert fused[0]["label"] == "b" and fused[0]["score"] == pytest.approx(math.sqrt(0.64 * plain[0]["score"]))
    with pytest.raises(ValueError, match="of the 3 classes, got 4"):
        localize(video, class_scores=[0.1, 0.64, 0.2, 0.06])


def test_frames_and_damaged_files(folder, tmp_path):
    localize = pipeline(TASK, model=str(folder))
    clip = moving_square_clip(height=40, width=56, num_frames=30)
    assert localize(clip, fps=FPS)
    with pytest.raises(ValueError, match="`fps` is needed"):
        localize(clip)
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(b"nothing")
    good, bad = localize([str(folder / "film.mp4"), str(damaged)], on_error="report")
    assert good and "error" in bad
    with pytest.raises(Exception, match="damaged"):
        localize(str(damaged))


def test_a_localiser_is_joined_when_it_is_loaded(folder, tmp_path):
    model = pipeline(TASK, model=str(folder))
    model.model.localizer.save_pretrained(tmp_path / "localizer")
    model.feature_extractor.save_pretrained(tmp_path / "localizer")
    model.model.encoder.save_pretrained(tmp_path / "encoder")
    model.video_processor.save_pretrained(tmp_path / "encoder")
    parts = load_localizer(tmp_path / "localizer", tmp_path / "encoder")
    video = str(folder / "film.mp4")
    assert_same_segments(pipeline(TASK, **parts)(video), model(video))
    assert load_localizer(tmp_path / "localizer")["video_processor"] is None
    with pytest.raises(ValueError, match="`encoder` must be None"):
        load_localizer(folder, tmp_path / "encoder")
    with pytest.raises(ValueError, match="`encoder` must be an encoder of videos, .* is a localiser"):
        load_localizer(tmp_path / "localizer", tmp_path / "localizer")
    with pytest.raises(ValueError, match="`model` must be a localiser, .* is a model of type"):
        load_localizer(tmp_path / "encoder")
    model.save_pretrained(tmp_path / "again")
    assert_same_segments(pipeline(TASK, model=str(tmp_path / "again"))(video), model(video))


def test_parts_that_do_not_fit_are_refused(folder, tmp_path):
    parts = load_localizer(folder)
    parts["feature_extractor"] = parts["feature_extractor"].replaced(feature_stride=8)
    with pytest.raises(ValueError, match="`feature_stride` of the processor must be the 2 frames .*, got 8"):
        pipeline(TASK, **parts)
    parts = {**load_localizer(folder), "video_processor": None}
    save_localizer(tmp_path, **parts)
    with pytest.raises(ValueError, match="`video_processor` must be the encoder's"):
        pipeline(TASK, model=str(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threshold": 2}, "`threshold` must be between 0 and 1, got 2"),
        ({"top_k": 0}, "`top_k` must be at least 1, got 0"),
        ({"steps_at_once": 1}, "`steps_at_once` must be at least 2, got 1"),
        ({"fps": 0}, "`fps` must be positive, got 0"),
        ({"duration": float("nan")}, "`duration` must be positive, got nan"),
        ({"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
        ({"on_error": "skip"}, "`on_error` must be one of"),
    ],
)
def test_refused_arguments(folder, arguments, message):
    with pytest.raises(ValueError, match=message):
        pipeline(TASK, model=str(folder))(str(folder / "film.mp4"), **arguments)
