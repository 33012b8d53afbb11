"""Top-k accuracy as an `evaluate` module."""

import datasets
import evaluate
import numpy as np

# An absolute import, since `evaluate.load` runs a copy of this file from its own cache
from hf_videovit.training.evaluation.metrics.functions import top_k_accuracy


class TopKAccuracy(evaluate.Metric):
    """`compute(predictions=scores, references=labels, k=1)`, scores of shape `(num_samples, num_labels)`."""

    def _info(self) -> evaluate.MetricInfo:
        info = evaluate.MetricInfo(
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
        info.format = "numpy"  # the constructor accepts it for scalar features only; lists of numbers need much memory
        return info

    def _compute(self, predictions: np.ndarray, references: np.ndarray, k: int = 1) -> dict[str, float]:
        return {f"top{k}": top_k_accuracy(predictions, references, k)}
