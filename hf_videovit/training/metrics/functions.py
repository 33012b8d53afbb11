"""Accuracy over arrays of scores."""

import numpy as np


def top_k_accuracy(scores: np.ndarray, labels: np.ndarray, k: int = 1) -> float:
    """
    Share of samples whose label is among the `k` highest scores. Equal scores rank by class index, so a model that
    gives every class the same score is not called right.

    Args:
        scores (`np.ndarray` of shape `(num_samples, num_labels)`):
            Anything that grows with confidence: logits or probabilities.
        labels (`np.ndarray` of shape `(num_samples,)`):
            Class indices.
        k (`int`, *optional*, defaults to 1):
            How many classes may be named.
    """
    scores, labels = _checked(scores, labels)
    if k < 1:
        raise ValueError(f"`k` must be at least 1, got {k}")
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float((best == labels[:, None]).any(axis=1).mean())


def mean_class_accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """
    Top-1 accuracy of each class, averaged over the classes that occur in `labels`: rare classes count as much as
    common ones.

    Args:
        scores (`np.ndarray` of shape `(num_samples, num_labels)`):
            Anything that grows with confidence.
        labels (`np.ndarray` of shape `(num_samples,)`):
            Class indices.
    """
    scores, labels = _checked(scores, labels)
    right = scores.argmax(axis=1) == labels
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))


def _checked(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.ndim != 2 or labels.shape != scores.shape[:1] or not len(labels):
        raise ValueError(
            f"`scores` must be (num_samples, num_labels) and `labels` (num_samples,) with at least one sample, got "
            f"{scores.shape} and {labels.shape}"
        )
    if not np.isfinite(scores).all():
        raise ValueError("`scores` has values that are not finite")
    return scores, labels
