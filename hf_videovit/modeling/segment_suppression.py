"""
Suppression of overlapping segments, and the segments that a model's points stand for. Arrays of float32, as in the
official code: overlaps are compared with thresholds.
"""

from dataclasses import dataclass

import numpy as np


METHODS = ("soft", "hard", "none")
VOTING_WEIGHTS = ("overlap", "score")
LENGTH_EPS = np.float32(1e-6)  # added to each length where overlaps suppress


@dataclass
class ScoredSegments:
    """
    Segments of one video.

    Args:
        segments (`np.ndarray` of shape `(num_segments, 2)`):
            Start and end.
        scores (`np.ndarray` of shape `(num_segments,)`):
            Scores.
        labels (`np.ndarray` of shape `(num_segments,)`):
            Classes.
    """

    segments: np.ndarray
    scores: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, rows: np.ndarray | slice) -> "ScoredSegments":
        """
        Some of the segments.

        Args:
            rows (`np.ndarray` or `slice`):
                Their rows.

        Returns:
            [`ScoredSegments`]
        """
        return ScoredSegments(self.segments[rows], self.scores[rows], self.labels[rows])

    def by_score(self, limit: int | None = None) -> "ScoredSegments":
        """
        The segments by falling score; equal scores keep their order.

        Args:
            limit (`int`, *optional*):
                Largest number of segments.

        Returns:
            [`ScoredSegments`]
        """
        return self.take(np.argsort(-self.scores, kind="stable")[:limit])


def suppress_segments(
    found: ScoredSegments,
    method: str = "soft",
    *,
    sigma: float = 0.5,
    iou_threshold: float = 0.1,
    min_score: float = 0.001,
    max_segments: int | None = 200,
    class_agnostic: bool = False,
    voting_threshold: float = 0.0,
    voting_weights: str = "overlap",
) -> ScoredSegments:
    """
    Suppress segments that overlap better ones.

    Args:
        found ([`ScoredSegments`]):
            Candidates.
        method (`str`, *optional*, defaults to `"soft"`):
            `"soft"`: the score of a segment is multiplied by exp(-overlap² / sigma) for every better one, and it is
            dropped when its score falls below `min_score`. A segment whose score never fell is kept whatever its
            score. `"hard"`: a segment that overlaps a better one by at least `iou_threshold` is dropped. `"none"`:
            all are kept in their order, and nothing below applies.
        sigma (`float`, *optional*, defaults to 0.5):
            Width of the soft decay.
        iou_threshold (`float`, *optional*, defaults to 0.1):
            For `"hard"`.
        min_score (`float`, *optional*, defaults to 0.001):
            Smallest score; for `"hard"` of a candidate, which must be above it.
        max_segments (`int`, *optional*, defaults to 200):
            Largest number of segments of a class and of all.
        class_agnostic (`bool`, *optional*, defaults to `False`):
            Whether segments of different classes suppress each other.
        voting_threshold (`float`, *optional*, defaults to 0.0):
            With `class_agnostic`, a kept segment becomes the weighted mean of all candidates that it overlaps by at
            least this much; 0 for none.
        voting_weights (`str`, *optional*, defaults to `"overlap"`):
            Weights of that mean: `"overlap"` for score times overlap (ActionFormer), `"score"` (OpenTAD, TriDet).

    Returns:
        [`ScoredSegments`]: by falling score.

    Raises:
        ValueError: `method` or `voting_weights` is unknown.
    """
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {METHODS}, got {method!r}.")
    if voting_weights not in VOTING_WEIGHTS:
        raise ValueError(f"`voting_weights` must be one of {VOTING_WEIGHTS}, got {voting_weights!r}.")
    if method == "none" or not len(found):
        return found
    if class_agnostic:
        groups = [np.arange(len(found))]
    else:
        groups = [np.flatnonzero(found.labels == label) for label in np.unique(found.labels)]
    kept, scores = [], []
    for rows in groups:
        segments, own = found.segments[rows], found.scores[rows]
        if method == "soft":
            chosen, decayed = _soft(segments, own, sigma, min_score, max_segments)
        else:
            chosen = _hard(segments, own, iou_threshold, min_score, max_segments)
            decayed = own[chosen]
        kept.append(rows[chosen])
        scores.append(decayed)
    rows = np.concatenate(kept)
    result = ScoredSegments(found.segments[rows], np.concatenate(scores), found.labels[rows])
    if class_agnostic and voting_threshold > 0:
        result.segments = _vote(result.segments, found, voting_threshold, voting_weights)
    return result.by_score(max_segments)


def segment_overlaps(first: np.ndarray, second: np.ndarray, eps: np.float32 | float = 0.0) -> np.ndarray:
    """
    Overlap (intersection over union) of every pair of segments.

    Args:
        first (`np.ndarray` of shape `(n, 2)`):
            Starts and ends.
        second (`np.ndarray` of shape `(m, 2)`):
            Starts and ends.
        eps (`float`, *optional*, defaults to 0.0):
            Added to each length.

    Returns:
        `np.ndarray` of shape `(n, m)`; 0 for two segments without length.
    """
    start = np.maximum(first[:, None, 0], second[None, :, 0])
    end = np.minimum(first[:, None, 1], second[None, :, 1])
    shared = np.maximum(end - start, 0)
    lengths = [(one[:, 1] - one[:, 0] + eps).astype(first.dtype) for one in (first, second)]
    union = lengths[0][:, None] + lengths[1][None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _soft(
    segments: np.ndarray, scores: np.ndarray, sigma: float, min_score: float, limit: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Rows that are kept, best first, and their decayed scores."""
    rows, scores = np.arange(len(scores)), scores.astype(np.float32)
    starts, ends = segments.T.astype(np.float32)
    lengths = ends - starts + LENGTH_EPS
    kept: list[int] = []
    kept_scores: list[np.float32] = []
    while len(rows) and (limit is None or len(kept) < limit):
        best = int(scores.argmax())
        row = rows[best]
        kept.append(row)
        kept_scores.append(scores[best])
        # as in the official code: the first of the rest takes the place of the best one
        rows[best], scores[best] = rows[0], scores[0]
        rows, scores = rows[1:], scores[1:]
        shared = np.minimum(ends[row], ends[rows]) - np.maximum(starts[row], starts[rows])
        shared = np.maximum(shared, 0)
        overlaps = shared / (lengths[row] + lengths[rows] - shared)
        scores = scores * np.exp(-(overlaps * overlaps) / np.float32(sigma))
        rows, scores = _without_weak(rows, scores, min_score)
    return np.array(kept, np.int64), np.array(kept_scores, np.float32)


def _without_weak(rows: np.ndarray, scores: np.ndarray, min_score: float) -> tuple[np.ndarray, np.ndarray]:
    """Drop weak segments. The last ones take their places, which decides the order of equal scores."""
    strong = scores >= np.float32(min_score)
    count = int(strong.sum())
    holes, fillers = np.flatnonzero(~strong[:count]), np.flatnonzero(strong[count:])[::-1] + count
    rows[holes], scores[holes] = rows[fillers], scores[fillers]
    return rows[:count], scores[:count]


def _hard(
    segments: np.ndarray, scores: np.ndarray, iou_threshold: float, min_score: float, limit: int | None
) -> np.ndarray:
    """Rows that are kept, best first."""
    left = np.flatnonzero(scores > np.float32(min_score)) if min_score > 0 else np.arange(len(scores))
    left = left[np.argsort(-scores[left], kind="stable")]
    segments = segments.astype(np.float32)
    kept: list[int] = []
    while len(left) and (limit is None or len(kept) < limit):
        kept.append(left[0])
        overlaps = segment_overlaps(segments[left[:1]], segments[left[1:]], LENGTH_EPS)[0]
        left = left[1:][overlaps < np.float32(iou_threshold)]
    return np.array(kept, np.int64)


def _vote(kept: np.ndarray, candidates: ScoredSegments, threshold: float, weighting: str) -> np.ndarray:
    """Each kept segment as the weighted mean of the candidates that it overlaps, itself included."""
    overlaps = segment_overlaps(kept, candidates.segments)
    weights = np.where(overlaps >= np.float32(threshold), candidates.scores[None], np.float32(0))
    if weighting == "overlap":
        weights = weights * overlaps
    total = weights.sum(axis=1, keepdims=True, dtype=np.float64)
    voted = (weights @ candidates.segments.astype(np.float64)) / np.where(total > 0, total, 1)
    return np.where(total > 0, voted, kept).astype(kept.dtype)


__all__ = ["METHODS", "VOTING_WEIGHTS", "ScoredSegments", "segment_overlaps", "suppress_segments"]
