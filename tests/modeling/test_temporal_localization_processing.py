"""From features to a localiser's input, and from its output to segments in seconds."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor

from hf_videovit import ActionFormerConfig, ActionFormerForTemporalActionLocalization, TemporalLocalizationProcessor
from hf_videovit.modeling.feature_processing_temporal_localization import FeatureGrid, fuse_class_scores
from hf_videovit.modeling.modeling_actionformer_losses import assign_points, make_points, pad_segments
from hf_videovit.modeling.segment_suppression import ScoredSegments, segment_overlaps, suppress_segments


def outputs_of(points, logits, offsets, mask=None) -> SimpleNamespace:
    mask = torch.ones(len(points)) if mask is None else mask
    return SimpleNamespace(logits=logits[None], pred_offsets=offsets[None], points=points, point_mask=mask[None])


def test_a_segment_comes_back_from_its_points():
    """The specification's example: 3.2 s to 4.0 s at 30 frames per second lies from step 22 to 28."""
    processor = TemporalLocalizationProcessor(feature_size=4, nms_method="none")
    grid = processor.grid(40, fps=30, duration=6.0)
    labels = processor.prepare_labels([[3.2, 4.0]], [1], grid)
    np.testing.assert_allclose(labels["segments"], [[22, 28]], rtol=1e-6)
    config = ActionFormerConfig(num_branch_layers=1, num_labels=2)
    points = make_points([40, 20], config)
    segments = pad_segments([labels], 2, torch.device("cpu"))
    classes, offsets = assign_points(points, segments, 2, 1.5)
    positive = classes[0, :, 1] > 0
    assert points[positive][:, [0, 3]].tolist() == [[24, 1], [25, 1], [26, 1], [24, 2], [26, 2]]
    assert torch.allclose(offsets[0, positive][-2:], torch.tensor([[1.0, 2.0], [2.0, 1.0]]), atol=1e-5)
    logits = torch.where(classes[0] > 0, 3.0, -20.0)
    (found,) = processor.post_process_temporal_localization(outputs_of(points, logits, offsets[0]), [grid])
    assert found["labels"].tolist() == [1] * 5
    np.testing.assert_allclose(found["segments"], [[3.2, 4.0]] * 5, rtol=1e-5)


@pytest.mark.parametrize(
    ("fields", "count", "stride", "offset", "steps"),
    [
        ({}, 50, 4, 8, 50),
        ({"downsample_rate": 3}, 50, 12, 8, 17),
        ({"resize_to_max_length": True, "max_sequence_length": 64}, 50, (49 * 4 + 16) / 64, 0.5 * 212 / 64, 64),
        ({"feature_stride": None}, 50, 25 * 10 / 50, 2.5, 50),
        (
            {"feature_stride": None, "resize_to_max_length": True, "max_sequence_length": 64},
            50,
            25 * 10 / 64,
            0.5 * 250 / 64,
            64,
        ),
        (
            {"feature_stride": None, "resize_to_max_length": True, "max_sequence_length": 64, "resized_offset": 0},
            50,
            25 * 10 / 64,
            0,
            64,
        ),
        ({"feature_fps": 10}, 50, 4, 8, 50),
    ],
)
def test_grids(fields, count, stride, offset, steps):
    processor = TemporalLocalizationProcessor(feature_size=3, **fields)
    grid = processor.grid(count, fps=25, duration=10)
    assert (grid.stride, grid.offset, grid.steps) == pytest.approx((stride, offset, steps))
    assert grid.fps == fields.get("feature_fps", 25)
    assert len(processor.resample(torch.randn(count, 3))) == steps
    seconds = np.array([0.5, 3.25, 9.0])
    np.testing.assert_allclose(grid.to_seconds(grid.to_steps(seconds)), seconds, rtol=1e-5)


def test_seconds_are_clipped_to_the_video():
    grid = FeatureGrid(fps=30, duration=5.0, stride=4, offset=8)
    assert grid.to_seconds(np.array([-10.0, 1000.0])).tolist() == [0, 5]


def test_a_batch_is_padded_to_its_longest_or_to_the_official_length():
    videos = [torch.randn(20, 3), np.random.default_rng(0).normal(size=(33, 3)).astype(np.float16)]
    batch = TemporalLocalizationProcessor(feature_size=3)(videos, return_tensors="pt")
    assert batch["features"].shape == (2, 33, 3)
    assert batch["features"].dtype == torch.float32
    assert batch["attention_mask"].sum(dim=1).tolist() == [20, 33]
    assert not batch["features"][0, 20:].any()
    official = {"max_sequence_length": 32, "pad_to_max_length": True, "length_multiple": 24}
    processor = TemporalLocalizationProcessor(feature_size=3, **official)
    assert [processor(torch.randn(steps, 3))["features"].shape[1] for steps in (1, 32, 33, 49)] == [32, 32, 48, 72]


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.zeros(0, 3), "at least one row.*shorter than a window"),
        (torch.zeros(5, 4), r"\(num_features, 3\)"),
        (torch.zeros(3), r"\(num_features, 3\)"),
        (torch.full((5, 3), float("nan")), "finite"),
        ([], "at least one video"),
        (None, "an array or a list of arrays, got None"),
        ("film.npy", "an array or a list of arrays, got 'film.npy'"),
        (np.ones((5, 3), object), "arrays of real numbers"),
        (torch.ones(5, 3, dtype=torch.complex64), "real numbers, got torch.complex64"),
    ],
)
def test_wrong_features_are_refused(features, message):
    with pytest.raises(ValueError, match=message):
        TemporalLocalizationProcessor(feature_size=3)(features)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"nms_method": "linear"}, "`nms_method`"),
        ({"voting_weights": "iou"}, "`voting_weights`"),
        ({"feature_stride": 0}, "`feature_stride`"),
        ({"nms_sigma": 0}, "`nms_sigma`"),
        ({"max_segments": 2.5}, "`max_segments` must be a whole number or None, got 2.5"),
    ],
)
def test_wrong_settings_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        TemporalLocalizationProcessor(**fields)


@pytest.mark.parametrize("sizes", [None, 3, [None, None], [(25.0,)] * 2, [("fast", 5.0)] * 2, [(25.0, 5.0)]])
def test_wrong_sizes_of_videos_are_refused(sizes):
    outputs = SimpleNamespace(logits=torch.zeros(2, 8, 1))
    with pytest.raises(ValueError, match="`target_sizes` must h"):
        TemporalLocalizationProcessor().post_process_temporal_localization(outputs, sizes)


def test_what_a_grid_needs():
    processor = TemporalLocalizationProcessor()
    with pytest.raises(ValueError, match="`duration` must be positive"):
        processor.grid(5, fps=25, duration=0)
    with pytest.raises(ValueError, match="`fps` must be positive"):
        processor.grid(5, fps=float("nan"), duration=1)
    with pytest.raises(ValueError, match="`num_features` is needed"):
        TemporalLocalizationProcessor(resize_to_max_length=True).grid(None, fps=25, duration=1)


def test_labels_beyond_the_features_are_cut_or_left_out():
    processor = TemporalLocalizationProcessor(feature_size=3)
    grid = processor.grid(10, fps=25, duration=10)  # the last feature ends at step 12 = 2.24 s
    seconds = [[0.1, 1.0], [2.0, 2.3], [1.0, 9.0], [3.0, 4.0]]
    labels = processor.prepare_labels(seconds, [0, 1, 2, 3], grid, min_inside=0.5)
    assert labels["class_labels"].tolist() == [0, 1]
    assert labels["segments"][1, 1] == 12
    assert len(processor.prepare_labels(seconds, [0, 1, 2, 3], grid)["segments"]) == 4
    assert processor.prepare_labels([], [], grid)["segments"].shape == (0, 2)
    with pytest.raises(ValueError, match="end after they start"):
        processor.prepare_labels([[2.0, 1.0]], [0], grid)
    with pytest.raises(ValueError, match="1 rows and `class_labels` 2"):
        processor.prepare_labels([[1.0, 2.0]], [0, 1], grid)


def test_settings_travel_with_the_checkpoint(tmp_path):
    description = {"encoder": "some/encoder", "pooling": "default", "squash": True}
    processor = TemporalLocalizationProcessor(feature_size=7, feature_description=description, max_segments=5)
    config = ActionFormerConfig(feature_size=7, hidden_size=8, head_hidden_size=8, num_labels=2)
    ActionFormerForTemporalActionLocalization(config).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert type(loaded) is TemporalLocalizationProcessor
    assert loaded.to_dict() == processor.to_dict()


# Candidates


def test_thresholds_and_numbers_count_for_each_level():
    points = make_points([4, 2], ActionFormerConfig(num_branch_layers=1))
    logits = torch.tensor([[2.0, -9.0], [1.0, 0.5], [0.0, -9.0], [-9.0, -9.0], [3.0, 1.5], [4.0, -9.0]])
    offsets = torch.tensor([[1.0, 1.0]] * 4 + [[0.5, 0.5], [0.0, 0.0]])
    fields = {"feature_size": 3, "score_threshold": 0.4, "max_candidates": 2}
    found = TemporalLocalizationProcessor(**fields).candidates(outputs_of(points, logits, offsets), 0)
    # the last point has no length and was one of its level's two
    assert found.segments.tolist() == [[-1, 1], [0, 2], [-1, 1]]
    assert found.labels.tolist() == [0, 0, 0]
    over_all = TemporalLocalizationProcessor(**fields, candidates_per_level=False, min_length=-1)
    found = over_all.candidates(outputs_of(points, logits, offsets), 0)
    np.testing.assert_allclose(found.scores, torch.tensor([4.0, 3.0]).sigmoid())
    mask = torch.tensor([1, 0, 1, 1, 1, 0])
    found = TemporalLocalizationProcessor(feature_size=3, score_threshold=-1.0).candidates(
        outputs_of(points, logits, offsets, mask), 0
    )
    assert len(found) == 8  # four points and two labels


def test_distances_of_each_class():
    points = make_points([2], ActionFormerConfig(num_branch_layers=0))
    offsets = torch.tensor([[[1.0, 1.0], [2.0, 3.0]], [[0.5, 0.5], [1.0, 4.0]]])
    outputs = outputs_of(points, torch.tensor([[1.0, 2.0], [-30.0, 3.0]]), offsets)
    found = TemporalLocalizationProcessor(feature_size=3).candidates(outputs, 0)
    assert found.segments.tolist() == [[0, 5], [-2, 3], [-1, 1]]
    assert found.labels.tolist() == [1, 1, 0]


def test_settings_can_be_replaced_for_one_call():
    torch.manual_seed(0)
    points = make_points([40], ActionFormerConfig(num_branch_layers=0))
    outputs = outputs_of(points, torch.randn(40, 2), torch.rand(40, 2) * 8)
    processor = TemporalLocalizationProcessor(feature_size=3)
    sizes = [(25.0, 10.0)]
    (many,) = processor.post_process_temporal_localization(outputs, sizes)
    (few,) = processor.post_process_temporal_localization(outputs, sizes, max_segments=3)
    (sure,) = processor.post_process_temporal_localization(outputs, sizes, threshold=0.6)
    assert len(few["scores"]) == 3
    assert torch.equal(few["segments"], many["segments"][:3])
    assert torch.equal(sure["scores"], many["scores"][many["scores"] >= 0.6])
    with pytest.raises(ValueError, match="`max_segment` is not a field"):
        processor.post_process_temporal_localization(outputs, sizes, max_segment=3)
    with pytest.raises(ValueError, match="`target_sizes` must have an entry"):
        processor.post_process_temporal_localization(outputs, [])


def test_segments_without_classes_get_those_of_the_video():
    found = ScoredSegments(np.array([[0.0, 1.0], [2.0, 3.0]]), np.array([0.2, 0.8]), np.zeros(2, np.int64))
    fused = fuse_class_scores(found, [0.1, 0.5, 0.3], num_classes=2)
    assert fused.labels.tolist() == [1, 1, 2, 2]
    np.testing.assert_allclose(fused.scores, np.sqrt([0.4, 0.1, 0.24, 0.06]), rtol=1e-6)
    assert fused.segments.tolist() == [[2, 3], [0, 1]] * 2
    assert len(fuse_class_scores(found, [0.1, 0.5], max_segments=1)) == 2
    with pytest.raises(ValueError, match="one row of probabilities"):
        fuse_class_scores(found, [[0.1, 0.5]])


# Suppression


def random_segments(count: int, seed: int, classes: int = 3) -> ScoredSegments:
    rng = np.random.default_rng(seed)
    starts = rng.uniform(0, 40, count)
    segments = np.stack((starts, starts + rng.uniform(0.5, 12, count)), axis=1).astype(np.float32)
    return ScoredSegments(segments, rng.uniform(0.01, 1, count).astype(np.float32), rng.integers(0, classes, count))


def soft_suppression(segments, scores, sigma, min_score):
    """The official loop, one comparison at a time."""
    rows = [[*segment, score] for segment, score in zip(segments.tolist(), scores.tolist())]
    done = 0
    while done < len(rows):
        best = max(range(done, len(rows)), key=lambda row: rows[row][2])
        rows[done], rows[best] = rows[best], rows[done]
        place = done + 1
        while place < len(rows):
            shared = max(0.0, min(rows[done][1], rows[place][1]) - max(rows[done][0], rows[place][0]))
            lengths = [rows[one][1] - rows[one][0] + 1e-6 for one in (done, place)]
            rows[place][2] *= np.exp(-((shared / (sum(lengths) - shared)) ** 2) / sigma)
            if rows[place][2] < min_score:
                rows[place] = rows[-1]
                rows.pop()
            else:
                place += 1
        done += 1
    return np.array(rows)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sigma", [0.3, 0.75])
def test_soft_suppression_is_the_official_loop(seed, sigma):
    found = random_segments(120, seed)
    expected = soft_suppression(found.segments, found.scores, sigma, 0.05)
    result = suppress_segments(found, sigma=sigma, min_score=0.05, class_agnostic=True, max_segments=None)
    np.testing.assert_allclose(np.column_stack((result.segments, result.scores)), expected, rtol=1e-5)
    by_class = suppress_segments(found, sigma=sigma, min_score=0.05, max_segments=None)
    for label in range(3):
        rows = found.labels == label
        expected = soft_suppression(found.segments[rows], found.scores[rows], sigma, 0.05)
        of_class = by_class.take(by_class.labels == label)
        np.testing.assert_allclose(np.column_stack((of_class.segments, of_class.scores)), expected, rtol=1e-5)


def test_a_lone_weak_segment_is_kept_by_soft_suppression_only():
    weak = ScoredSegments(np.array([[0.0, 1.0]], np.float32), np.array([1e-5], np.float32), np.array([0]))
    assert len(suppress_segments(weak, "soft")) == 1
    assert len(suppress_segments(weak, "hard")) == 0
    assert len(suppress_segments(weak, "none")) == 1


def test_hard_suppression_leaves_no_overlaps():
    found = random_segments(200, 0)
    result = suppress_segments(found, "hard", iou_threshold=0.3, class_agnostic=True)
    overlaps = segment_overlaps(result.segments, result.segments) - np.eye(len(result))
    assert (overlaps < 0.3).all()
    assert (np.diff(result.scores) <= 0).all()
    assert result.scores[0] == found.scores.max()


@pytest.mark.parametrize("weights", ["overlap", "score"])
def test_votes_of_overlapping_candidates(weights):
    segments = np.array([[0.0, 10.0], [1.0, 10.0], [30.0, 31.0]], np.float32)
    found = ScoredSegments(segments, np.array([0.9, 0.6, 0.5], np.float32), np.array([0, 1, 0]))
    result = suppress_segments(
        found, "hard", iou_threshold=0.5, class_agnostic=True, voting_threshold=0.8, voting_weights=weights
    )
    second = 0.6 * (0.9 if weights == "overlap" else 1)
    np.testing.assert_allclose(result.segments, [[second / (0.9 + second), 10], [30, 31]], rtol=1e-5)
    per_class = suppress_segments(found, "hard", iou_threshold=0.5, voting_threshold=0.8)
    assert per_class.segments.tolist() == segments.tolist()


def test_segments_without_length_have_no_votes_of_nothing():
    segments = np.array([[5.0, 5.0], [5.0, 5.0]], np.float32)
    found = ScoredSegments(segments, np.array([0.9, 0.6], np.float32), np.array([0, 0]))
    result = suppress_segments(found, class_agnostic=True, voting_threshold=0.5)
    assert np.isfinite(result.segments).all()


def test_no_candidates():
    none = random_segments(0, 0)
    for method in ("soft", "hard", "none"):
        assert len(suppress_segments(none, method, class_agnostic=True, voting_threshold=0.5)) == 0
    with pytest.raises(ValueError, match="`method` must be one of"):
        suppress_segments(none, "linear")
