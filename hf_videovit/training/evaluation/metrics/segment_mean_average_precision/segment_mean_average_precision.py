"""The metric of temporal localisation as an `evaluate` module."""

import datasets
import evaluate
import numpy as np

# Absolute imports, since `evaluate.load` runs a copy of this file from its own cache
from hf_videovit.training.data.activitynet import SegmentTable
from hf_videovit.training.evaluation.metrics.segments import THRESHOLDS, segment_average_precision


class SegmentMeanAveragePrecision(evaluate.Metric):
    """
    `compute(predictions=..., references=..., protocol="thumos14")`, one entry for each video: `segments` of shape
    `(num_segments, 2)` in seconds, one of the `labels` for each, and `scores` for the predictions. The value is the
    mean over classes and over the thresholds of the protocol.
    """

    def _info(self) -> evaluate.MetricInfo:
        rows = {
            "segments": datasets.Sequence(datasets.Sequence(datasets.Value("float64"))),
            "labels": datasets.Sequence(datasets.Value("int64")),
        }
        scored = {**rows, "scores": datasets.Sequence(datasets.Value("float64"))}
        return evaluate.MetricInfo(
            description="Average precision of segments, averaged over classes and overlaps, as for ActivityNet.",
            citation="",
            inputs_description="predictions: segments, labels and scores; references: segments and labels of a video.",
            features=datasets.Features({"predictions": scored, "references": rows}),
        )

    def _compute(
        self, predictions: list[dict], references: list[dict], protocol: str = "activitynet"
    ) -> dict[str, float]:
        if protocol not in THRESHOLDS:
            raise ValueError(f"`protocol` must be one of {', '.join(THRESHOLDS)}, got {protocol!r}")
        result = segment_average_precision(_table(references), _table(predictions, scored=True), THRESHOLDS[protocol])
        return {"segment_mean_average_precision": result.mean}


def _table(rows: list[dict], scored: bool = False) -> SegmentTable:
    """Rows of all videos, which are numbered."""
    videos = np.repeat(np.arange(len(rows)), [len(row["labels"]) for row in rows])
    columns = {
        name: np.concatenate([np.asarray(row[name], dtype).reshape(-1) for row in rows])
        for name, dtype in (("segments", np.float64), ("labels", np.int64), ("scores", np.float64))
        if scored or name != "scores"
    }
    return SegmentTable(videos, columns["segments"].reshape(-1, 2), columns["labels"], columns.get("scores"))
