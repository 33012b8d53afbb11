"""
The metric of temporal localisation as a function of arrays: mean average precision of segments, and recall.

The rules are those of ActivityNet's toolkit, which every data set of this task uses.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...data.activitynet import SegmentTable


ABSENT_CLASSES = ("ignored", "renumbered")
THRESHOLDS = {
    "thumos14": tuple(np.linspace(0.3, 0.7, 5)),
    **dict.fromkeys(("activitynet", "hacs", "fineaction"), tuple(np.linspace(0.5, 0.95, 10))),
    **dict.fromkeys(("epic", "ego4d"), tuple(np.linspace(0.1, 0.5, 5))),
    **dict.fromkeys(("multithumos", "charades"), tuple(np.linspace(0.1, 0.9, 9))),
}


@dataclass(frozen=True)
class SegmentAveragePrecision:
    """
    The result of [`segment_average_precision`].

    Args:
        classes (`np.ndarray` of shape `(num_classes,)`):
            Classes of the truth.
        average_precision (`np.ndarray` of shape `(num_thresholds, num_classes)`):
            Of each class.
        recall (`np.ndarray` of shape `(num_thresholds, num_multiples)`):
            Share of segments found among the best predictions, averaged over classes.
        num_truth (`int`):
            Segments of the truth.
        num_unknown_videos (`int`):
            Predicted videos that have no truth. Their predictions are wrong.
    """

    classes: np.ndarray
    average_precision: np.ndarray
    recall: np.ndarray
    num_truth: int
    num_unknown_videos: int

    @property
    def means(self) -> np.ndarray:
        """Mean over classes at each threshold."""
        return self.average_precision.mean(axis=1)

    @property
    def mean(self) -> float:
        """Mean over classes and thresholds, the number that papers report as average mAP."""
        return float(self.means.mean())


def segment_average_precision(
    truth: SegmentTable,
    predictions: SegmentTable,
    thresholds: Sequence[float] = THRESHOLDS["activitynet"],
    multiples: Sequence[int] = (1, 5),
    absent_classes: str = "ignored",
) -> SegmentAveragePrecision:
    """
    Average precision of each class over all videos.

    ```
    for each prediction of a class by falling score:
        it is right if a segment of its video and class that no better prediction has overlaps it by at least the
        threshold; it takes the one that it overlaps most
    precision is made non-increasing from the right; the average is the area under its steps over recall
    ```

    A class without predictions counts as 0. Of equal scores later rows come first: the official order with a stable
    sort.

    Args:
        truth ([`SegmentTable`]):
            True segments.
        predictions ([`SegmentTable`]):
            Predicted segments with scores.
        thresholds (`Sequence[float]`, *optional*):
            Overlaps (intersection over union). Defaults to 0.5, 0.55, ..., 0.95; see `THRESHOLDS` for other data sets.
        multiples (`Sequence[int]`, *optional*, defaults to `(1, 5)`):
            Recall counts this many predictions of a video and class for each of its segments, the best of them.
        absent_classes (`str`, *optional*, defaults to `"ignored"`):
            Predictions of classes that the truth does not have: `"ignored"` as in ActivityNet's toolkit and OpenTAD,
            or `"renumbered"` as in ActionFormer's evaluation, which numbers the truth's classes anew and then takes a
            predicted class that is not among them for the class with its number.

    Returns:
        [`SegmentAveragePrecision`]

    Raises:
        ValueError: there is no truth, predictions have no scores, or `absent_classes` is unknown.
    """
    if absent_classes not in ABSENT_CLASSES:
        raise ValueError(f"`absent_classes` must be one of {', '.join(ABSENT_CLASSES)}, got {absent_classes!r}.")
    if not len(truth):
        raise ValueError("`truth` must have at least one segment.")
    if predictions.scores is None or not np.isfinite(predictions.scores).all():
        raise ValueError("`predictions` must have scores that are finite numbers.")
    classes, true_classes = np.unique(truth.labels, return_inverse=True)
    numbers = _renumbered(predictions.labels, classes, absent_classes)
    counted = np.flatnonzero((numbers >= 0) & (numbers < len(classes)))
    videos, codes = np.unique(np.concatenate((truth.videos, predictions.videos[counted])), return_inverse=True)
    true_groups = codes[: len(truth)] * len(classes) + true_classes
    groups = codes[len(truth) :] * len(classes) + numbers[counted]
    scores, segments = predictions.scores[counted], predictions.segments[counted]
    order = np.argsort(scores, kind="stable")[::-1]
    ranked = _Ranked(segments[order], groups[order], numbers[counted][order])
    pairs = _overlapping_pairs(ranked, truth.segments, true_groups, min(thresholds))
    right = _match(len(ranked.groups), len(truth), pairs, thresholds)
    counts = np.bincount(true_classes, minlength=len(classes))
    precision = np.zeros((len(thresholds), len(classes)))
    for number in range(len(classes)):
        of_class = right[:, ranked.classes == number]
        for row, hits in enumerate(of_class):
            precision[row, number] = _area(hits, counts[number]) if hits.size else 0.0
    recall = _recall(ranked, pairs, true_groups, true_classes, thresholds, multiples)
    unknown = len(set(predictions.videos.tolist()) - set(truth.videos.tolist()))
    return SegmentAveragePrecision(classes, precision, recall, len(truth), unknown)


@dataclass(frozen=True)
class _Ranked:
    """Predictions by falling score: segments, group (video and class) and class."""

    segments: np.ndarray
    groups: np.ndarray
    classes: np.ndarray


@dataclass(frozen=True)
class _Pairs:
    """Pairs of a prediction and a true segment of its group: rows, and overlaps. Sorted by prediction, best first."""

    predictions: np.ndarray
    truths: np.ndarray
    overlaps: np.ndarray


def _renumbered(labels: np.ndarray, classes: np.ndarray, absent_classes: str) -> np.ndarray:
    """Number of each label among the classes; -1 for others that are ignored."""
    found = np.minimum(np.searchsorted(classes, labels), len(classes) - 1)
    other = np.full_like(labels, -1) if absent_classes == "ignored" else labels
    return np.where(classes[found] == labels, found, other)


def _overlapping_pairs(ranked: _Ranked, truths: np.ndarray, true_groups: np.ndarray, least: float) -> _Pairs:
    order = np.argsort(true_groups, kind="stable")
    groups = true_groups[order]
    starts, ends = np.searchsorted(groups, ranked.groups), np.searchsorted(groups, ranked.groups, side="right")
    lengths = ends - starts
    rows = np.repeat(np.arange(len(lengths)), lengths)
    first = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    columns = order[np.arange(len(rows)) + first]
    predicted, true = ranked.segments[rows], truths[columns]
    shared = np.minimum(predicted[:, 1], true[:, 1]) - np.maximum(predicted[:, 0], true[:, 0])
    shared = shared.clip(0)
    union = (true[:, 1] - true[:, 0]) + (predicted[:, 1] - predicted[:, 0]) - shared
    overlaps = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    enough = overlaps >= least
    rows, columns, overlaps = rows[enough], columns[enough], overlaps[enough]
    order = np.lexsort((-columns, -overlaps, rows))  # of equal overlaps the later one, as in the official code
    return _Pairs(rows[order], columns[order], overlaps[order])


def _match(num_predictions: int, num_truths: int, pairs: _Pairs, thresholds: Sequence[float]) -> np.ndarray:
    """
    Which predictions are right at each threshold, `(thresholds, predictions)`.

    One pass serves all thresholds: a number holds one bit a threshold.
    """
    rows = np.arange(len(thresholds))
    passed = ((pairs.overlaps[:, None] >= np.asarray(thresholds)) << rows).sum(axis=1)
    free = [(1 << len(thresholds)) - 1] * num_truths
    found = [0] * num_predictions
    for prediction, truth, able in zip(pairs.predictions.tolist(), pairs.truths.tolist(), passed.tolist()):
        taken = able & free[truth] & ~found[prediction]
        free[truth] &= ~taken
        found[prediction] |= taken
    return (np.array(found, np.int64) >> rows[:, None] & 1).astype(bool)


def _area(hits: np.ndarray, count: int) -> float:
    """Area under the steps of precision over recall."""
    true = np.cumsum(hits).astype(float)
    recall = np.concatenate(([0.0], true / float(count), [1.0]))
    precision = np.concatenate(([0.0], true / np.arange(1, len(hits) + 1), [0.0]))
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.flatnonzero(recall[1:] != recall[:-1]) + 1
    return float(np.sum((recall[steps] - recall[steps - 1]) * precision[steps]))


def _recall(
    ranked: _Ranked,
    pairs: _Pairs,
    true_groups: np.ndarray,
    true_classes: np.ndarray,
    thresholds: Sequence[float],
    multiples: Sequence[int],
) -> np.ndarray:
    """Share of the truth that the best predictions of each group overlap, averaged over classes."""
    by_group = np.argsort(ranked.groups, kind="stable")
    groups = ranked.groups[by_group]
    ranks = np.empty(len(groups), np.int64)
    ranks[by_group] = np.arange(len(groups)) - np.searchsorted(groups, groups)
    _, inverse, sizes = np.unique(true_groups, return_inverse=True, return_counts=True)
    allowed = sizes[inverse][pairs.truths]
    counts = np.bincount(true_classes)
    recall = np.zeros((len(thresholds), len(multiples)))
    for column, multiple in enumerate(multiples):
        best = np.full(len(true_groups), -1.0)
        among = ranks[pairs.predictions] < multiple * allowed
        np.maximum.at(best, pairs.truths[among], pairs.overlaps[among])
        for row, threshold in enumerate(thresholds):
            found = np.bincount(true_classes, weights=best >= threshold, minlength=len(counts))
            recall[row, column] = (found / counts).mean()
    return recall


__all__ = ["THRESHOLDS", "SegmentAveragePrecision", "segment_average_precision"]
