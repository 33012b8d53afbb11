"""
The frame metric of AVA as a function of arrays: mean average precision of actions at boxes.

The rules are those of the ActivityNet evaluator, which are Pascal's as TensorFlow's object detection API has them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...data.boxes import BoxTable


PROTOCOLS = ("ava", "mmaction2")


@dataclass(frozen=True)
class FrameAveragePrecision:
    """
    The result of [`frame_average_precision`].

    Args:
        mean (`float`):
            Mean of the average precisions that are numbers; NaN if there are none.
        average_precision (`dict[int, float]`):
            Of each label; NaN for labels without truth.
        num_boxes (`dict[int, int]`):
            Boxes of each label in the truth.
    """

    mean: float
    average_precision: dict[int, float]
    num_boxes: dict[int, int]


def frame_average_precision(
    truth: BoxTable,
    predictions: BoxTable,
    labels: Sequence[int] | np.ndarray,
    excluded: Sequence | np.ndarray = (),
    iou_threshold: float = 0.5,
    protocol: str = "ava",
) -> FrameAveragePrecision:
    """
    Average precision of each label over key-frames.

    A prediction is right if the box of its label that it overlaps most is overlapped by at least `iou_threshold` and
    no prediction of a higher score has that box. There is no second choice. Predictions on key-frames without truth
    are wrong.

    Equal scores: within a key-frame later rows come first when boxes are given away; the ranking puts later key-frames
    first, and earlier rows first within one. This is the official order with a stable sort; with its default sort it
    depends on the machine.

    Args:
        truth ([`BoxTable`]):
            True boxes and labels.
        predictions ([`BoxTable`]):
            Predicted boxes and labels with scores.
        labels (`Sequence[int]` or `np.ndarray`):
            The labels that count; others are left out on both sides.
        excluded (`Sequence`, *optional*):
            Key-frames that are left out on both sides.
        iou_threshold (`float`, *optional*, defaults to 0.5):
            Smallest overlap of a right prediction.
        protocol (`str`, *optional*, defaults to `"ava"`):
            `"mmaction2"` does as its copy of the metric: predictions on key-frames without truth are ignored, excluded
            key-frames keep their truth, and labels that are never predicted are left out of the mean.

    Returns:
        [`FrameAveragePrecision`]

    Raises:
        ValueError: `protocol` is unknown, or predictions have no scores or scores that are not finite.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"`protocol` must be one of {', '.join(PROTOCOLS)}, got {protocol!r}")
    if predictions.scores is None or not np.isfinite(predictions.scores).all():
        raise ValueError("`predictions` must have scores that are finite numbers")
    counted = np.unique(np.asarray(labels, dtype=np.int64))
    truth, predictions = (table.select(np.isin(table.labels, counted)) for table in (truth, predictions))
    excluded = np.asarray(excluded)
    if len(excluded):
        predictions = predictions.select(~np.isin(predictions.keys, excluded))
        if protocol == "ava":
            truth = truth.select(~np.isin(truth.keys, excluded))
    if protocol == "mmaction2":
        predictions = predictions.select(np.isin(predictions.keys, truth.keys))
    extent = predictions.boxes[:, 2:] - predictions.boxes[:, :2]
    predictions = predictions.select((extent > 0).all(axis=1))

    right, ranked = _matched(truth, predictions, iou_threshold)
    ranked_labels = predictions.labels[ranked]
    counts = {int(label): int((truth.labels == label).sum()) for label in counted}
    precisions = {}
    for label, count in counts.items():
        hits = right[ranked[ranked_labels == label]]
        if not count or (protocol == "mmaction2" and not len(hits)):
            precisions[label] = float("nan")
        else:
            precisions[label] = _area(hits, count)
    numbers = [value for value in precisions.values() if not np.isnan(value)]
    return FrameAveragePrecision(float(np.mean(numbers)) if numbers else float("nan"), precisions, counts)


def _matched(truth: BoxTable, predictions: BoxTable, iou_threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Which predictions are right, and their rows from the first to the last of the ranking."""
    assert predictions.scores is not None
    count = len(predictions.keys)
    all_keys, first, key_ids = np.unique(predictions.keys, return_index=True, return_inverse=True)
    appearance = np.empty(len(all_keys), np.int64)
    appearance[np.argsort(first, kind="stable")] = np.arange(len(all_keys))
    # key-frames in order of appearance, falling scores, later rows first
    order = np.lexsort((-np.arange(count), -predictions.scores, appearance[key_ids]))
    ranked = order[np.argsort(predictions.scores[order], kind="stable")[::-1]]

    right = np.zeros(count, bool)
    best, overlap = _best_boxes(truth, predictions)
    candidates = order[overlap[order] >= iou_threshold]
    _, winners = np.unique(best[candidates], return_index=True)  # the first of each true box
    right[candidates[winners]] = True
    return right, ranked


def _best_boxes(truth: BoxTable, predictions: BoxTable) -> tuple[np.ndarray, np.ndarray]:
    """Row of the true box of the same key-frame and label that each prediction overlaps most, and the overlap."""
    count = len(predictions.keys)
    best, overlap = np.zeros(count, np.int64), np.full(count, -1.0)
    keys, true_ids = np.unique(truth.keys, return_inverse=True)
    if not len(keys):
        return best, overlap
    found = np.minimum(np.searchsorted(keys, predictions.keys), len(keys) - 1)
    known = np.flatnonzero(keys[found] == predictions.keys)
    labels, width = truth.labels.astype(np.int64), int(max(truth.labels.max(), predictions.labels.max(initial=0))) + 1
    true_groups = true_ids * width + labels
    order = np.argsort(true_groups, kind="stable")
    groups = true_groups[order]
    wanted = found[known] * width + predictions.labels[known]
    starts, ends = np.searchsorted(groups, wanted), np.searchsorted(groups, wanted, side="right")
    has_any = ends > starts
    rows, starts, lengths = known[has_any], starts[has_any], (ends - starts)[has_any]
    if not len(rows):
        return best, overlap
    # every pair of a prediction and a true box of its group, prediction by prediction
    offsets = np.cumsum(lengths) - lengths
    pairs = order[np.arange(lengths.sum()) - np.repeat(offsets - starts, lengths)]
    overlaps = _iou(np.repeat(predictions.boxes[rows], lengths, axis=0).astype(np.float64), truth.boxes[pairs])
    largest = np.maximum.reduceat(overlaps, offsets)
    at_largest = np.flatnonzero(overlaps == np.repeat(largest, lengths))
    firsts = at_largest[np.searchsorted(at_largest, offsets)]  # the first on equality
    best[rows], overlap[rows] = pairs[firsts], largest
    return best, overlap


def _iou(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes `(num_pairs, 4)`, row by row."""
    low, high = np.maximum(one[:, :2], other[:, :2]), np.minimum(one[:, 2:], other[:, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (one, other)]
    union = areas[0] + areas[1] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _area(hits: np.ndarray, num_true: int) -> float:
    """Area under the curve of precision, made monotone, over recall."""
    found = hits.cumsum()
    precision = found / np.arange(1, len(hits) + 1)
    monotone = np.maximum.accumulate(precision[::-1])[::-1]
    return float((monotone * hits).sum() / num_true)
