"""The metric of temporal localisation against its definition, one prediction at a time."""

from typing import get_args

import numpy as np
import pytest

from hf_videovit.cli.models import Overlaps
from hf_videovit.training.data.activitynet import SegmentTable, segment_table
from hf_videovit.training.evaluation.metrics.reported import compute_metric
from hf_videovit.training.evaluation.metrics.segments import THRESHOLDS, segment_average_precision
from hf_videovit.training.methods.temporal_localization import Protocol


def tables(seed: int, videos: int = 8, classes: int = 4, predictions: int = 300) -> tuple[SegmentTable, SegmentTable]:
    """Random truth, and predictions that are near it or anywhere; some of a video and a class that it lacks."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(videos * 6):
        start = rng.uniform(0, 60)
        rows.append((f"v{rng.integers(videos)}", start, start + rng.uniform(1, 15), int(rng.integers(classes)), None))
    guesses = []
    for _ in range(predictions):
        video, start, end, label, _ = rows[rng.integers(len(rows))]
        if rng.uniform() < 0.3:
            video, label = f"v{rng.integers(videos + 1)}", int(rng.integers(classes + 1))
        noise = rng.normal(0, 1.5, 2)
        guesses.append((video, start + noise[0], max(end + noise[1], start + noise[0] + 0.1), label, rng.uniform()))
    return segment_table(rows), segment_table(guesses)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    shared = max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
    return shared / ((one[1] - one[0]) + (other[1] - other[0]) - shared)


def average_precision(truth: SegmentTable, predictions: SegmentTable, label: int, threshold: float) -> float:
    mine = [row for row in range(len(truth)) if truth.labels[row] == label]
    order = [row for row in np.argsort(-predictions.scores) if predictions.labels[row] == label]
    taken: set[int] = set()
    precisions, recalls, right = [], [], 0
    for rank, row in enumerate(order, start=1):
        here = [one for one in mine if truth.videos[one] == predictions.videos[row]]
        here.sort(key=lambda one: -overlap(truth.segments[one], predictions.segments[row]))
        for one in here:
            if overlap(truth.segments[one], predictions.segments[row]) >= threshold and one not in taken:
                taken.add(one)
                right += 1
                break
        precisions.append(right / rank)
        recalls.append(right / len(mine))
    best = [max(precisions[rank:]) for rank in range(len(precisions))]
    return sum((recall - before) * value for recall, before, value in zip(recalls, [0.0, *recalls], best))


def recall(truth: SegmentTable, predictions: SegmentTable, label: int, threshold: float, multiple: int) -> float:
    found, total = 0, 0
    for video in set(truth.videos.tolist()):
        mine = [row for row in range(len(truth)) if truth.labels[row] == label and truth.videos[row] == video]
        rows = [row for row in np.argsort(-predictions.scores) if predictions.labels[row] == label]
        rows = [row for row in rows if predictions.videos[row] == video][: multiple * len(mine)]
        total += len(mine)
        found += sum(
            any(overlap(truth.segments[one], predictions.segments[row]) >= threshold for row in rows) for one in mine
        )
    return found / total


@pytest.mark.parametrize("seed", range(4))
def test_every_number_is_that_of_the_definition(seed):
    truth, predictions = tables(seed)
    thresholds = (0.1, 0.5, 0.75)
    result = segment_average_precision(truth, predictions, thresholds, (1, 3))
    assert result.classes.tolist() == [0, 1, 2, 3]
    for row, threshold in enumerate(thresholds):
        expected = [average_precision(truth, predictions, label, threshold) for label in range(4)]
        np.testing.assert_allclose(result.average_precision[row], expected, atol=1e-12)
        for column, multiple in enumerate((1, 3)):
            expected = np.mean([recall(truth, predictions, label, threshold, multiple) for label in range(4)])
            np.testing.assert_allclose(result.recall[row, column], expected, atol=1e-12)
    assert result.num_truth == 48
    assert result.num_unknown_videos == len(set(predictions.videos) - set(truth.videos))


def test_the_order_of_rows_does_not_count():
    truth, predictions = tables(0)
    shuffled = np.random.default_rng(1).permutation(len(predictions))
    other = SegmentTable(*(column[shuffled] for column in (predictions.videos, predictions.segments)), None)
    other.labels, other.scores = predictions.labels[shuffled], predictions.scores[shuffled]
    expected = segment_average_precision(truth, predictions)
    np.testing.assert_array_equal(
        segment_average_precision(truth, other).average_precision, expected.average_precision
    )


def test_the_second_best_segment_is_taken_if_the_best_is_gone():
    truth = segment_table([("v", 0.0, 10.0, 0, None), ("v", 2.0, 12.0, 0, None)])
    predictions = segment_table([("v", 0.0, 10.0, 0, 0.9), ("v", 0.5, 10.5, 0, 0.8)])
    assert segment_average_precision(truth, predictions, [0.5]).mean == 1


def test_no_predictions_are_zeros():
    truth, predictions = tables(0)
    none = segment_table([])
    none.scores = np.zeros(0)
    result = segment_average_precision(truth, none)
    assert result.mean == 0
    assert not result.recall.any()
    assert segment_average_precision(truth, predictions).mean > 0


def test_absent_classes_are_ignored_or_renumbered():
    truth = segment_table([("v", 0.0, 5.0, 0, None), ("v", 10.0, 15.0, 2, None)])
    predictions = segment_table([("v", 0.0, 5.0, 0, 0.9), ("v", 20.0, 25.0, 1, 0.8), ("v", 10.0, 15.0, 2, 0.7)])
    assert segment_average_precision(truth, predictions, [0.5]).mean == 1
    renumbered = segment_average_precision(truth, predictions, [0.5], absent_classes="renumbered")
    assert renumbered.means.tolist() == [0.75]  # the wrong guess of class 1 comes before the right one of class 2


def test_wrong_arguments_are_refused():
    truth, predictions = tables(0)
    with pytest.raises(ValueError, match="`absent_classes` must be one of ignored, renumbered"):
        segment_average_precision(truth, predictions, absent_classes="dropped")
    with pytest.raises(ValueError, match="`predictions` must have scores"):
        segment_average_precision(truth, truth)
    with pytest.raises(ValueError, match="`truth` must have at least one"):
        segment_average_precision(segment_table([]), predictions)


def test_the_thresholds_of_the_papers():
    assert THRESHOLDS["thumos14"][1] == 0.39999999999999997  # numpy's, as in the official code
    counts = {name: len(values) for name, values in THRESHOLDS.items()}
    wide = {"activitynet": 10, "hacs": 10, "fineaction": 10, "multithumos": 9, "charades": 9}
    assert counts == {"thumos14": 5, "epic": 5, "ego4d": 5} | wide
    assert set(get_args(Protocol)) == set(get_args(Overlaps)) == set(THRESHOLDS)  # recipes and the command line


def test_the_module_gives_the_same():
    truth, predictions = tables(3)
    names = sorted(set(truth.videos.tolist()))

    def rows(table, scored):
        columns = {"segments": table.segments, "labels": table.labels} | ({"scores": table.scores} if scored else {})
        return np.array(
            [{name: column[table.videos == video].tolist() for name, column in columns.items()} for video in names]
        )

    value = compute_metric(
        "segment_mean_average_precision", rows(predictions, True), rows(truth, False), protocol="thumos14"
    )
    known = SegmentTable(predictions.videos, predictions.segments, predictions.labels, predictions.scores)
    kept = np.isin(known.videos, names)
    known = SegmentTable(known.videos[kept], known.segments[kept], known.labels[kept], known.scores[kept])
    assert value == pytest.approx(segment_average_precision(truth, known, THRESHOLDS["thumos14"]).mean)
