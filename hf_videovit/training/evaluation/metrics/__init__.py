"""
Metrics as plain functions over arrays, and as `evaluate` modules that need no network: load one by its folder
(`evaluate.load(metric_path("top_k_accuracy"))`) or make an instance of its class.
"""

from pathlib import Path

from .functions import (
    average_precisions,
    confusion_matrix,
    mean_average_precision,
    mean_class_accuracy,
    top_k_accuracy,
)


METRICS = ("mean_average_precision", "mean_class_accuracy", "top_k_accuracy")


def metric_path(name: str) -> str:
    """
    Folder of an `evaluate` module.

    Args:
        name (`str`):
            One of `METRICS`.
    """
    if name not in METRICS:
        raise ValueError(f"`name` must be one of {', '.join(METRICS)}, got {name!r}")
    return str(Path(__file__).parent / name)


__all__ = [
    "METRICS",
    "average_precisions",
    "confusion_matrix",
    "mean_average_precision",
    "mean_class_accuracy",
    "metric_path",
    "top_k_accuracy",
]
