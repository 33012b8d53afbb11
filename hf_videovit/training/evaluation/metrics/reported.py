"""
Which metrics an evaluation reports, and how they are computed: by `evaluate` modules, without network, in memory.

A new metric is a folder with an `evaluate` module of the same name, and a row in `SINGLE_LABEL` or `MULTI_LABEL` where
an evaluation of a classifier reports it.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


METRICS = ("mean_average_precision", "mean_class_accuracy", "top_k_accuracy")
ROWS_AT_ONCE = 1024  # on their way to the module's Arrow table, rows are lists of Python numbers


@dataclass(frozen=True)
class _Reported:
    """A module and its options; `min_labels` is the smallest number of labels that the metric makes sense for."""

    module: str
    options: Mapping[str, Any] = field(default_factory=dict)
    min_labels: int = 1


# The name in `results.json` -> what computes it. The first one chooses the best weights.
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
        and `mAP_weighted`, none if all labels are zeros.

    Raises:
        ValueError: no samples, shapes that do not fit, or scores that are not finite.
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
    Compute a metric by its `evaluate` module.

    It is computed in this process, of all the predictions that it is given: gather those of several processes first.
    Nothing is written but an empty folder, which is removed.

    Args:
        name (`str`):
            One of `METRICS`.
        predictions (`np.ndarray`):
            Predictions as the module takes them, one sample a row.
        references (`np.ndarray`):
            Right answers as the module takes them, one sample a row.
        options:
            Further arguments of the module.

    Returns:
        `float`: the value.

    Raises:
        ValueError: `name` is unknown, or the module refuses its inputs.
    """
    from evaluate.loading import import_main_class  # a second that only scoring should cost

    metric_path(name)  # refuses unknown names
    # What `evaluate.load` does after it has copied the file to its cache, which may not be writable
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
