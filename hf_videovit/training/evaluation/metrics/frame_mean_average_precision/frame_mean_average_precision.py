"""AVA's frame metric as an `evaluate` module."""

import datasets
import evaluate
import numpy as np

# An absolute import, since `evaluate.load` runs a copy of this file from its own cache
from hf_videovit.training.data.boxes import BoxTable
from hf_videovit.training.evaluation.metrics.boxes import frame_average_precision


class FrameMeanAveragePrecision(evaluate.Metric):
    """
    `compute(predictions=..., references=..., labels=...)`, one entry for each key-frame: `boxes` of shape
    `(num_boxes, 4)`, one of the `labels` for each, and `scores` for the predictions. A box with several labels is
    listed once for each.
    """

    def _info(self) -> evaluate.MetricInfo:
        rows = {
            "boxes": datasets.Sequence(datasets.Sequence(datasets.Value("float64"))),
            "labels": datasets.Sequence(datasets.Value("int64")),
        }
        scored = {**rows, "scores": datasets.Sequence(datasets.Value("float64"))}
        return evaluate.MetricInfo(
            description="Average precision of actions at boxes, averaged over labels, as AVA measures it.",
            citation="",
            inputs_description="predictions: boxes, labels and scores; references: boxes and labels of the key-frame.",
            features=datasets.Features({"predictions": scored, "references": rows}),
        )

    def _compute(
        self,
        predictions: list[dict],
        references: list[dict],
        labels: list[int] | None = None,
        iou_threshold: float = 0.5,
        protocol: str = "ava",
    ) -> dict[str, float]:
        truth, scored = _table(references), _table(predictions, scored=True)
        counted = np.unique(truth.labels) if labels is None else labels
        result = frame_average_precision(truth, scored, counted, iou_threshold=iou_threshold, protocol=protocol)
        return {"frame_mean_average_precision": result.mean}


def _table(rows: list[dict], scored: bool = False) -> BoxTable:
    """Rows of all key-frames, which are numbered."""
    keys = np.repeat(np.arange(len(rows)), [len(row["labels"]) for row in rows])
    columns = {
        name: np.concatenate([np.asarray(row[name], dtype).reshape(-1) for row in rows])
        for name, dtype in (("boxes", np.float64), ("labels", np.int64), ("scores", np.float64))
        if scored or name != "scores"
    }
    return BoxTable(keys, columns["boxes"].reshape(-1, 4), columns["labels"], columns.get("scores"))
