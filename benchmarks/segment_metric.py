"""
The metric of temporal localisation beside the same rules written as plain loops, both in one run:

    python -m benchmarks.segment_metric

12,000 predictions for 360 segments of 8 classes in 60 videos, five overlaps. Processor time of the fastest of several
rounds. The means are equal.
"""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks._machine import write_csv
from hf_videovit.training.data.activitynet import SegmentTable, segment_table
from hf_videovit.training.evaluation.metrics.segments import THRESHOLDS, segment_average_precision


RESULTS = Path(__file__).parent / "results" / "segment_metric.csv"
VIDEOS, CLASSES, SEGMENTS, PREDICTIONS, ROUNDS = 60, 8, 360, 12_000, 3


def make_tables() -> tuple[SegmentTable, SegmentTable]:
    """Random segments, and predictions near them or anywhere."""
    rng = np.random.default_rng(0)
    starts = rng.uniform(0, 60, SEGMENTS)
    truth = [
        (f"v{rng.integers(VIDEOS)}", start, start + rng.uniform(1, 15), int(rng.integers(CLASSES)), None)
        for start in starts
    ]
    guesses = []
    for _ in range(PREDICTIONS):
        video, start, end, label, _ = truth[rng.integers(SEGMENTS)]
        if rng.uniform() < 0.3:
            video, label = f"v{rng.integers(VIDEOS)}", int(rng.integers(CLASSES))
        first, last = start + rng.normal(0, 1.5), end + rng.normal(0, 1.5)
        guesses.append((video, first, max(last, first + 0.1), label, rng.uniform()))
    return segment_table(truth), segment_table(guesses)


def plain_mean(truth: SegmentTable, predictions: SegmentTable) -> float:
    """Average precision by loops over classes, overlaps and predictions."""
    scores = predictions.scores
    assert scores is not None
    found = []
    for label in np.unique(truth.labels):
        order = [row for row in np.argsort(-scores, kind="stable") if predictions.labels[row] == label]
        mine = np.flatnonzero(truth.labels == label)
        for threshold in THRESHOLDS["thumos14"]:
            taken: set[int] = set()
            hits = [_hit(truth, predictions, row, mine, threshold, taken) for row in order]
            right = np.cumsum(hits)
            precision = np.maximum.accumulate((right / np.arange(1, len(hits) + 1))[::-1])[::-1]
            found.append(float((precision * np.array(hits)).sum() / len(mine)))
    return float(np.mean(found))


def _hit(
    truth: SegmentTable, predictions: SegmentTable, row: int, mine: np.ndarray, threshold: float, taken: set[int]
) -> bool:
    start, end = predictions.segments[row]
    best, chosen = 0.0, None
    for other in mine:
        if truth.videos[other] != predictions.videos[row] or int(other) in taken:
            continue
        first, last = truth.segments[other]
        shared = max(0.0, min(end, last) - max(start, first))
        overlap = shared / ((end - start) + (last - first) - shared)
        if overlap >= threshold and overlap > best:
            best, chosen = overlap, int(other)
    if chosen is not None:
        taken.add(chosen)
    return chosen is not None


def seconds(one: Callable[[], float]) -> tuple[float, float]:
    """Processor time of the fastest round, and the mean average precision."""
    times, value = [], 0.0
    for _ in range(ROUNDS):
        start = time.process_time()
        value = one()
        times.append(time.process_time() - start)
    return min(times), value


def main() -> None:
    truth, predictions = make_tables()
    ours = seconds(lambda: segment_average_precision(truth, predictions, THRESHOLDS["thumos14"]).mean)
    plain = seconds(lambda: plain_mean(truth, predictions))
    if not np.isclose(ours[1], plain[1]):
        raise ValueError(f"the means differ: {ours[1]} and {plain[1]}")
    rows = [
        {"side": side, "predictions": PREDICTIONS, "processor_seconds": round(one[0], 3), "mean": round(one[1], 6)}
        for side, one in (("hf_videovit", ours), ("plain loops", plain))
    ]
    for row in rows:
        print(row)
    write_csv(RESULTS, rows)


if __name__ == "__main__":
    main()
