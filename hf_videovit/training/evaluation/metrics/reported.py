"""
The metrics that an evaluation reports. They are computed by `evaluate` modules in memory, without network.

A new metric is a folder with an `evaluate` module of the same name, and a row in `SINGLE_LABEL` or `MULTI_LABEL` if
evaluations of classifiers report it.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


METRICS = (
    *("frame_mean_average_precision", "mean_average_precision", "mean_class_accuracy"),
    *("segment_mean_average_precision", "top_k_accuracy"),
)
ROWS_AT_ONCE = 1024  # rows are converted to lists of Python numbers for the module's Arrow table


@dataclass(frozen=True)
class _Reported:
    """A module and its options. The metric is reported with at least `min_labels` labels."""

    module: str
    options: Mapping[str, Any] = field(default_factory=dict)
    min_labels: int = 1


# Name in `results.json` -> module and options. The first metric chooses the best weights.
SINGLE_LABEL = {
    "top1": _Reported("top_k_accuracy", {"k": 1}),
    "mean_class_accuracy": _Reported("mean_class_accuracy"),
    "top5": _Reported("top_k_accuracy", {"k": 5}, min_labels=6),
}
MULTI_LABEL = {
    "mAP": _Reported("mean_average_precision", {"average": "macro"}),
    "mAP_weighted": _Reported("mean_average_precision", {"average": "weighted"}),
}


def score(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """
    The reported metrics of a classifier.

    Args:
        scores (`np.ndarray` of shape `(num_samples, num_labels)`):
            Anything that grows with confidence: logits or probabilities.
        labels (`np.ndarray` of shape `(num_samples,)` or `(num_samples, num_labels)`):
            Class indices; multi-label: zeros and ones.

    Returns:
        `dict[str, float]`: `top1`, `mean_class_accuracy` and, with more than five labels, `top5`; multi-label: `mAP`
        and `mAP_weighted`. Empty if all labels are zeros.

    Raises:
        ValueError: there are no samples, the shapes do not match, or scores are not finite.
    """
    if labels.ndim == 2 and not labels.any():
        return {}
    reported = MULTI_LABEL if labels.ndim == 2 else SINGLE_LABEL
    return {
        name: compute_metric(metric.module, scores, labels, **metric.options)
        for name, metric in reported.items()
        if scores.shape[1] >= metric.min_labels
    }


def compute_metric(name: str, predictions: np.ndarray, references: np.ndarray, **options: Any) -> float:
    """
    Compute a metric with its `evaluate` module.

    It is computed in this process, over the given predictions. Gather those of several processes first. Only an empty
    temporary folder is written.

    Args:
        name (`str`):
            One of `METRICS`.
        predictions (`np.ndarray`):
            Predictions as the module takes them, one sample per row.
        references (`np.ndarray`):
            True labels as the module takes them, one sample per row.
        options:
            Further arguments of the module.

    Returns:
        `float`: the value.

    Raises:
        ValueError: `name` is unknown, or the module rejects its inputs.
    """
    from evaluate.loading import import_main_class  # the import takes a second

    metric_path(name)  # rejects unknown names
    # As in `evaluate.load`, which first copies the file to a cache that may not be writable
    module_class = import_main_class(f"{__package__}.{name}.{name}")
    with tempfile.TemporaryDirectory(prefix="hf_videovit_metric_") as folder:
        module = module_class(cache_dir=folder, keep_in_memory=True)
        for start in range(0, len(predictions), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            module.add_batch(predictions=predictions[rows].tolist(), references=references[rows].tolist())
        (value,) = module.compute(**options).values()
    return float(value)


def metric_path(name: str) -> str:
    """
    Folder of an `evaluate` module, for `evaluate.load`.

    Args:
        name (`str`):
            One of `METRICS`.

    Returns:
        `str`: the folder.

    Raises:
        ValueError: `name` is unknown.
    """
    if name not in METRICS:
        raise ValueError(f"`name` must be one of {', '.join(METRICS)}, got {name!r}")
    return str(Path(__file__).parent / name)
