"""Metrics as functions of arrays."""

import numpy as np


AVERAGES = ("macro", "weighted")


def top_k_accuracy(scores: np.ndarray, labels: np.ndarray, k: int = 1) -> float:
    """
    Share of samples whose label is among the `k` highest scores. Equal scores are ranked by class index, so a model
    that gives every class the same score is not counted as right.

    Args:
        scores (`np.ndarray` of shape `(num_samples, num_labels)`):
            Anything that grows with confidence: logits or probabilities.
        labels (`np.ndarray` of shape `(num_samples,)`):
            Class indices.
        k (`int`, *optional*, defaults to 1):
            Number of highest scores.

    Returns:
        `float`: between 0 and 1.

    Raises:
        ValueError: the shapes do not match, there are no samples, scores are not finite, or `k` is below 1.
    """
    scores, labels = _checked(scores, labels)
    if k < 1:
        raise ValueError(f"`k` must be at least 1, got {k}")
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float((best == labels[:, None]).any(axis=1).mean())


def mean_class_accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """
    Top-1 accuracy of each class, averaged over the classes that occur in `labels`.

    Args:
        scores (`np.ndarray` of shape `(num_samples, num_labels)`):
            Anything that grows with confidence.
        labels (`np.ndarray` of shape `(num_samples,)`):
            Class indices.

    Returns:
        `float`: between 0 and 1.

    Raises:
        ValueError: the shapes do not match, there are no samples, or scores are not finite.
    """
    scores, labels = _checked(scores, labels)
    right = scores.argmax(axis=1) == labels
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))


def mean_average_precision(scores: np.ndarray, labels: np.ndarray, average: str = "macro") -> float:
    """
    Average precision of each class, averaged over the classes that occur, for multi-label data.

    ```
    for each class that occurs:
        ranked = samples by falling score of the class
        precision[k] = share of the first k samples that have the class
        average_precision = mean of precision[k] over the ranks k at which a sample has the class
    ```

    Samples of equal score share one rank, the last of them, so their order does not matter, as in scikit-learn.

    Args:
        scores (`np.ndarray` of shape `(num_samples, num_labels)`):
            Anything that grows with confidence, comparable between the samples of a class.
        labels (`np.ndarray` of shape `(num_samples, num_labels)`):
            1 or `True` where the sample has the label.
        average (`str`, *optional*, defaults to `"macro"`):
            `"macro"` for the plain mean over classes, `"weighted"` to weight classes by their number of samples.

    Returns:
        `float`: between 0 and 1.

    Raises:
        ValueError: `average` is unknown, or as for [`average_precisions`].
    """
    if average not in AVERAGES:
        raise ValueError(f"`average` must be one of {', '.join(AVERAGES)}, got {average!r}")
    precisions = average_precisions(scores, labels)
    occurring = ~np.isnan(precisions)
    weights = np.asarray(labels).sum(axis=0)[occurring] if average == "weighted" else None
    return float(np.average(precisions[occurring], weights=weights))


def average_precisions(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """
    Average precision of each class, NaN for classes that do not occur. See [`mean_average_precision`].

    Args:
        scores (`np.ndarray` of shape `(num_samples, num_labels)`):
            Anything that grows with confidence, comparable between the samples of a class.
        labels (`np.ndarray` of shape `(num_samples, num_labels)`):
            1 or `True` where the sample has the label.

    Returns:
        `np.ndarray` of shape `(num_labels,)`.

    Raises:
        ValueError: the shapes do not match, no sample has a label, or scores are not finite.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.ndim != 2 or labels.shape != scores.shape or not np.isin(labels, (0, 1)).all():
        raise ValueError(
            "`scores` and `labels` must both be (num_samples, num_labels), labels of zeros and ones, got "
            f"{scores.shape} and {labels.shape}"
        )
    if not labels.any():
        raise ValueError("`labels` must have at least one label, got zeros only")
    if not np.isfinite(scores).all():
        raise ValueError("`scores` has values that are not finite")
    precisions = np.full(scores.shape[1], np.nan)
    for label in np.flatnonzero(labels.any(axis=0)):
        precisions[label] = _average_precision(scores[:, label], labels[:, label] == 1)
    return precisions


def confusion_matrix(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """
    Number of samples for each pair of true and predicted class.

    Args:
        scores (`np.ndarray` of shape `(num_samples, num_labels)`):
            Anything that grows with confidence.
        labels (`np.ndarray` of shape `(num_samples,)`):
            Class indices.

    Returns:
        `np.ndarray` of shape `(num_labels, num_labels)`: true classes in rows, classes with the highest score in
        columns.
    """
    scores, labels = _checked(scores, labels)
    matrix = np.zeros((scores.shape[1],) * 2, np.int64)
    np.add.at(matrix, (labels, scores.argmax(axis=1)), 1)
    return matrix


def _average_precision(scores: np.ndarray, present: np.ndarray) -> float:
    order = np.argsort(-scores, kind="stable")
    ranked, found = scores[order], present[order].cumsum()
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # last rank of each distinct score
    precision = found[last] / (last + 1)
    return float((precision * np.diff(found[last], prepend=0)).sum() / present.sum())


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
