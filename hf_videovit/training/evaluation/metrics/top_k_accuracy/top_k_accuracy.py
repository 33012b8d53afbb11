"""Top-k accuracy as an `evaluate` module."""

import datasets
import evaluate
import numpy as np

from ..functions import top_k_accuracy


class TopKAccuracy(evaluate.Metric):
    """`compute(predictions=scores, references=labels, k=1)`, scores of shape `(num_samples, num_labels)`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Share of samples whose label is among the k highest scores.",
            citation="",
            inputs_description="predictions: scores of every class; references: class indices; k: how many count.",
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("float32")),
                    "references": datasets.Value("int64"),
                }
            ),
        )

    def _compute(self, predictions: list[list[float]], references: list[int], k: int = 1) -> dict[str, float]:
        return {f"top{k}": top_k_accuracy(np.asarray(predictions), np.asarray(references), k)}
