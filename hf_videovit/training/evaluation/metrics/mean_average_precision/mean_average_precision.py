"""Mean average precision as an `evaluate` module."""

import datasets
import evaluate
import numpy as np

from ..functions import mean_average_precision


class MeanAveragePrecision(evaluate.Metric):
    """
    `compute(predictions=scores, references=labels)`, both of shape `(num_samples, num_labels)`; `average="weighted"`
    weighs classes by their samples.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Average precision of each class, averaged over the classes that occur.",
            citation="",
            inputs_description="predictions: scores of every class; references: 1 for a label that is there, else 0.",
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("float32")),
                    "references": datasets.Sequence(datasets.Value("int64")),
                }
            ),
        )

    def _compute(
        self, predictions: list[list[float]], references: list[list[int]], average: str = "macro"
    ) -> dict[str, float]:
        value = mean_average_precision(np.asarray(predictions), np.asarray(references), average)
        return {"mean_average_precision": value}
