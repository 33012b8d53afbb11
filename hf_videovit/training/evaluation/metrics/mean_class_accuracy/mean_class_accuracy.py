"""Mean class accuracy as an `evaluate` module."""

import datasets
import evaluate
import numpy as np

# An absolute import, since `evaluate.load` runs a copy of this file from its own cache
from hf_videovit.training.evaluation.metrics.functions import mean_class_accuracy


class MeanClassAccuracy(evaluate.Metric):
    """`compute(predictions=scores, references=labels)`, scores of shape `(num_samples, num_labels)`."""

    def _info(self) -> evaluate.MetricInfo:
        info = evaluate.MetricInfo(
            description="Top-1 accuracy of each class, averaged over the classes that occur.",
            citation="",
            inputs_description="predictions: scores of every class; references: class indices.",
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("float32")),
                    "references": datasets.Value("int64"),
                }
            ),
        )
        info.format = "numpy"  # the constructor accepts it for scalar features only; lists of numbers need much memory
        return info

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        return {"mean_class_accuracy": mean_class_accuracy(predictions, references)}
