"""Models of this package in FiftyOne: labels, logits and embeddings; and lists of its data sets."""

import csv
import math
import os
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
from fiftyone.core.models import EmbeddingsMixin, LogitsMixin, Model
from transformers import AutoConfig, AutoModel, AutoVideoProcessor, pipeline

from ..modeling.video_decoding import probe_video
from .action_detection import TASK as DETECTION
from .features import get_video_features
from .pipeline import TASK as CLASSIFICATION
from .temporal_localization import TASK as LOCALIZATION


TASKS = {
    "ForVideoClassification": CLASSIFICATION,
    "ForActionDetection": DETECTION,
    "VideoTemporalLocalizer": LOCALIZATION,
}
OF_IMAGES = ("ForImageClassification", "ForObjectDetection", "ForPoseEstimation", "ForSemanticSegmentation")
SPLITS = {"train": "train", "validation": "val", "val": "val", "test": "test"}  # tags of FiftyOne and our names


class FiftyOneModel(LogitsMixin, EmbeddingsMixin, Model):
    """
    A model for `apply_model` and `compute_embeddings` of FiftyOne. Clips, crops and normalisation are the checkpoint's
    own; the frames that FiftyOne decodes are not used.

    | model | label of a video |
    |---|---|
    | classifier | `Classification`; `Classifications` if it is multi-label |
    | action detector | `Detections` of the key-frames: one for each action of a person, whose number is `index` |
    | localiser with an encoder | `TemporalDetections` |
    | encoder | none; it has embeddings |

    Args:
        model (`str`):
            Folder or Hub id of a model of this package.
        device (`str`, *optional*):
            Device, such as `"cuda:0"`. Defaults to an accelerator if there is one.
        pooling (`str`, *optional*, defaults to `"default"`):
            `"default"`, `"mean"` or `"first"` for embeddings, see [`get_video_features`].
        options (`Any`):
            Arguments of the pipeline of the task, such as `person_detector` or `threshold`.

    Raises:
        ValueError: the model is one of images, or answers with numbers instead of labels, or an option is not allowed.

    Example:

    ```python
    >>> import fiftyone
    >>> from hf_videovit.inference.fiftyone_model import FiftyOneModel

    >>> dataset = fiftyone.load_dataset("clips")
    >>> dataset.apply_model(FiftyOneModel("path/to/model"), label_field="prediction", store_logits=True)
    ```"""

    def __init__(self, model: str, device: str | None = None, pooling: str = "default", **options: Any):
        LogitsMixin.__init__(self)
        self.config = None
        self.pooling = pooling
        architecture = (AutoConfig.from_pretrained(model).architectures or [""])[0]
        self.task = next((task for ending, task in TASKS.items() if architecture.endswith(ending)), None)
        self.pipeline: Any = None
        if architecture.endswith(OF_IMAGES):
            raise ValueError(f"`model` must be a model of videos, {model!r} is {architecture}.")
        if self.task is None:
            if options:
                raise ValueError(f"`options` must be empty for an encoder, got {', '.join(options)}.")
            self.encoder = AutoModel.from_pretrained(model)
            self.encoder.eval().to(device or self.encoder.device)
            self.processor = AutoVideoProcessor.from_pretrained(model)
            return
        self.pipeline = pipeline(self.task, model=model, device=device, **options)  # type: ignore[call-overload]
        self.encoder, self.processor = self.pipeline.model, self.pipeline.video_processor
        if self.encoder.config.problem_type == "regression":
            raise ValueError(f"`model` must have labels, {model!r} is trained for regression.")

    @property
    def media_type(self) -> str:
        """`"video"`."""
        return "video"

    @property
    def has_logits(self) -> bool:
        """Whether labels can have logits."""
        return self.task == CLASSIFICATION

    @property
    def has_embeddings(self) -> bool:
        """Whether the model makes one vector of a video."""
        return self.task in (CLASSIFICATION, None)

    def predict(self, arg: Any) -> Any:
        """
        Labels of a video.

        Args:
            arg (`eta.core.video.VideoReader`):
                The video, or with a range of frames a part of it.

        Returns:
            `fiftyone.Label`, or for an action detector `dict[int, fiftyone.Detections]` by number of the frame.

        Raises:
            ValueError: the model is an encoder, or a detector gets a part of a video.
            VideoDecodingError: the video cannot be read.
        """
        if self.task is None:
            raise ValueError("`model` is an encoder without labels: use `compute_embeddings`.")
        if self.task == CLASSIFICATION:
            return self._classes(_video(arg))
        if isinstance(_video(arg), dict):
            raise ValueError(f"`samples` must be whole videos for {self.task}, got frames {arg.frames}.")
        find = self._segments if self.task == LOCALIZATION else self._people
        return find(arg.inpath)

    def embed(self, arg: Any) -> np.ndarray:
        """
        Features of a video.

        Args:
            arg (`eta.core.video.VideoReader`):
                The video, or with a range of frames a part of it.

        Returns:
            `np.ndarray` of shape `(hidden_size,)`.

        Raises:
            VideoDecodingError: the video cannot be read.
        """
        features: Any = get_video_features(self.encoder, self.processor, [_video(arg)], pooling=self.pooling)
        return features[0].numpy()

    def _classes(self, video: Any) -> fo.Label:
        classify = self.pipeline
        outputs = classify.forward(classify.preprocess(video, **classify._preprocess_params))
        found = [
            fo.Classification(label=one["label"], confidence=one["score"])
            for one in classify.postprocess(outputs, **classify._postprocess_params)
        ]
        logits = outputs["logits"][0].float().cpu().numpy() if self.store_logits else None
        if self.encoder.config.problem_type == "multi_label_classification":
            return fo.Classifications(classifications=found, logits=logits)
        found[0].logits = logits
        return found[0]

    def _segments(self, path: str) -> fo.TemporalDetections:
        probe = probe_video(path, **self.processor.probe_options)
        found = []
        for one in self.pipeline(path):
            start, end = (math.ceil(one["segment"][name] * probe.fps - 1e-6) for name in ("start", "end"))
            first = min(max(start, 0), probe.num_frames - 1) + 1  # FiftyOne counts from 1
            support = [first, max(first, min(end, probe.num_frames))]
            found.append(fo.TemporalDetection(label=one["label"], confidence=one["score"], support=support))
        return fo.TemporalDetections(detections=found)

    def _people(self, path: str) -> dict[int, fo.Detections]:
        probe = probe_video(path, **self.processor.probe_options)
        frames = {}
        for answer in self.pipeline(path):
            found = []
            for person in answer["people"]:
                left, top, right, bottom = (person["box"][name] for name in ("xmin", "ymin", "xmax", "ymax"))
                box = [left / probe.width, top / probe.height]
                box += [(right - left) / probe.width, (bottom - top) / probe.height]
                facts = {"bounding_box": box, "index": person["person_id"], "person_score": person["person_score"]}
                found += [
                    fo.Detection(label=action["label"], confidence=action["score"], **facts)
                    for action in person["actions"]
                ]
            frames[answer["frame"] + 1] = fo.Detections(detections=found)
        return frames


def save_list(samples: Any, path: str | os.PathLike, label_field: str = "ground_truth") -> Path:
    """
    Save labelled videos of FiftyOne as a list, which `train`, `evaluate` and [`open_source`] read.

    Args:
        samples (`fiftyone.core.collections.SampleCollection`):
            A data set or a view of videos. Each sample of a view of clips (`to_clips`) is that part of its file.
        path (`str` or `os.PathLike`):
            The list, `NAME.csv`. A column `split` is in it if each sample has one of the tags `train`, `validation`,
            `val` and `test`.
        label_field (`str`, *optional*, defaults to `"ground_truth"`):
            Field with a `Classification`, such as the truth, or the answers of a model. Samples without a label are
            left out.

    Returns:
        `Path`: the list.

    Raises:
        ValueError: the file exists, the samples are not videos, or no sample has a label there.
    """
    path = Path(path)
    if path.suffix != ".csv" or path.exists():
        raise ValueError(f"`path` must be a new file NAME.csv, got {str(path)!r}.")
    if samples.media_type != "video":
        raise ValueError(f"`samples` must be videos, got {samples.media_type}.")
    if not samples.has_field(f"{label_field}.label"):
        raise ValueError(f"`label_field` must be a field with a Classification, got {label_field!r}.")
    rows = [_row(sample, label_field) for sample in samples if sample[label_field] is not None]
    if not rows:
        raise ValueError(f"`label_field` {label_field!r} is empty in all samples.")
    if not all(row["split"] for row in rows):
        rows = [{name: value for name, value in row.items() if name != "split"} for row in rows]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def _row(sample: Any, label_field: str) -> dict[str, Any]:
    splits = [SPLITS[tag] for tag in sample.tags if tag in SPLITS]
    row = {
        "video": sample.filepath,
        "label": sample[label_field].label,
        "split": splits[0] if len(splits) == 1 else None,
    }
    if sample.has_field("support"):
        first, last = sample.support
        row |= {"start_frame": first - 1, "end_frame": last}
    return row


def _video(reader: Any) -> Any:
    """The video of a reader: a path, or a part of a file."""
    first, _, last = reader.frames.partition("-")
    first, last = int(first), int(last or first)
    if (first, last) == (1, reader.total_frame_count):
        return reader.inpath
    return {"path": reader.inpath, "start_frame": first - 1, "end_frame": last}


__all__ = ["FiftyOneModel", "save_list"]
