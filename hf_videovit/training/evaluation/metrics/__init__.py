"""
The metrics of this package. Each is an `evaluate` module in its own folder, around a plain function of arrays.
`reported.py` lists the metrics that an evaluation reports.
"""

from .functions import (
    average_precisions,
    confusion_matrix,
    mean_average_precision,
    mean_class_accuracy,
    top_k_accuracy,
)
from .reported import METRICS, compute_metric, metric_path, score


__all__ = [
    "METRICS",
    "average_precisions",
    "compute_metric",
    "confusion_matrix",
    "mean_average_precision",
    "mean_class_accuracy",
    "metric_path",
    "score",
    "top_k_accuracy",
]
