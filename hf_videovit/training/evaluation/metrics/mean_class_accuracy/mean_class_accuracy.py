"""Mean class accuracy as an `evaluate` module."""

import datasets
import evaluate
import numpy as np

from ..functions import mean_class_accuracy


class MeanClassAccuracy(evaluate.Metric):
    """`compute(predictions=scores, references=labels)`, scores of shape `(num_samples, num_labels)`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
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

    def _compute(self, predictions: list[list[float]], references: list[int]) -> dict[str, float]:
        return {"mean_class_accuracy": mean_class_accuracy(np.asarray(predictions), np.asarray(references))}
