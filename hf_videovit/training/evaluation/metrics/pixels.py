"""Scores of semantic segmentation from a confusion matrix of pixels, as MMSegmentation computes them."""

import numpy as np
import torch


def pixel_confusion(labels: torch.Tensor, predictions: torch.Tensor, num_labels: int, ignored: int) -> torch.Tensor:
    """
    Count the pixels of each label by their predicted label.

    Args:
        labels (`torch.Tensor` of any shape):
            True labels.
        predictions (`torch.Tensor` of the same shape):
            Predicted labels.
        num_labels (`int`):
            Number of labels.
        ignored (`int`):
            True label of pixels that are not counted.

    Returns:
        `torch.Tensor` of shape `(num_labels, num_labels)`: int64, a row for each true label.
    """
    known = labels != ignored
    pairs = labels[known].long() * num_labels + predictions[known].long()
    return pairs.bincount(minlength=num_labels**2).view(num_labels, num_labels)


def pixel_scores(matrix: np.ndarray) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """
    Mean intersection over union and accuracies, over the pixels of all images together.

    Args:
        matrix (`np.ndarray` of shape `(num_labels, num_labels)`):
            Numbers of pixels, a row for each true label and a column for each predicted one.

    Returns:
        `tuple`: `mIoU` (over labels that occur or are predicted), `aAcc` (share of right pixels) and `mAcc` (mean of
        the accuracies of labels that occur); the intersection over union of each label, and its accuracy, `nan` where
        it does not count. All from 0 to 1.
    """
    right, true, predicted = matrix.diagonal().astype(float), matrix.sum(1), matrix.sum(0)
    with np.errstate(invalid="ignore"):
        overlaps, accuracies = right / (true + predicted - right), right / true
    means = [float(np.nanmean(one)) if np.isfinite(one).any() else float("nan") for one in (overlaps, accuracies)]
    total = float(right.sum() / max(true.sum(), 1))
    return {"mIoU": means[0], "aAcc": total, "mAcc": means[1]}, overlaps, accuracies


__all__ = ["pixel_confusion", "pixel_scores"]
