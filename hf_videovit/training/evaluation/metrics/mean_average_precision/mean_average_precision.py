"""Mean average precision as an `evaluate` module."""

import datasets
import evaluate
import numpy as np

# An absolute import, since `evaluate.load` runs a copy of this file from its own cache
from hf_videovit.training.evaluation.metrics.functions import mean_average_precision


class MeanAveragePrecision(evaluate.Metric):
    """
    `compute(predictions=scores, references=labels)`, both of shape `(num_samples, num_labels)`; `average="weighted"`
    weights classes by their number of samples.
    """

    def _info(self) -> evaluate.MetricInfo:
        info = evaluate.MetricInfo(
            description="Average precision of each class, averaged over the classes that occur.",
            citation="",
            inputs_description="predictions: scores of every class; references: 1 for labels of the sample, else 0.",
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("float32")),
                    "references": datasets.Sequence(datasets.Value("int64")),
                }
            ),
        )
        info.format = "numpy"  # the constructor accepts it for scalar features only; lists of numbers need much memory
        return info

    def _compute(self, predictions: np.ndarray, references: np.ndarray, average: str = "macro") -> dict[str, float]:
        value = mean_average_precision(predictions, references, average)
        return {"mean_average_precision": value}
