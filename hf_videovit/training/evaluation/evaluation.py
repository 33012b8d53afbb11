"""
Evaluation by the checkpoint's own protocol: the processor makes the views, the model merges them. For each video this
is `model(**processor(video))`, as in the pipeline.
"""

import csv
import importlib.util
import json
import platform
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from rich.markup import escape
from rich.table import Column, Table
from tqdm.auto import tqdm
from transformers import PreTrainedModel
from transformers.utils import logging

from ... import __version__
from ...modeling.video_decoding import available_decoders
from ...modes import evaluation_mode
from ...pictures.drawing import draw_confusion_matrix
from ..building import MULTI_LABEL
from ..data.bad_videos import BadVideo
from ..data.loaders import Record, label_tensor
from ..data.opening import match_labels
from ..data.processors import ClipProcessor
from ..data.sources import Label, Sample, SampleList, VideoSource, label_indices, manifest_hash
from ..data.streaming import ClipStream
from .metrics import average_precisions, confusion_matrix, score
from .results import Result


logger = logging.get_logger(__name__)

PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class EvaluationResult(Result):
    """
    The predictions of a model for every video, and their metrics.

    Args:
        ids (`list[str]`):
            Ids of the videos that could be read, in the data's order.
        labels (`np.ndarray` of shape `(num_videos,)` or `(num_videos, num_labels)`, or `None`):
            True labels as class indices of the model (multi-label: zeros and ones), -1 for a video without a label;
            `None` if no video has one.
        logits (`np.ndarray` of shape `(num_videos, num_labels)`):
            Output of the model, merged over views.
        failed (`list[dict]`):
            Videos that could not be read (`id`, `label`, `reason`, `kind`, `decoder`). They are not scored and not
            replaced.
        label_names (`list[str]`):
            Label names of the model.
        metrics (`dict[str, float]`, *optional*, defaults to `{}`):
            `top1`, `mean_class_accuracy` and, with more than five labels, `top5`; multi-label: `mAP` (mean over
            classes) and `mAP_weighted` (classes weighted by their videos). Computed over the videos that could be read
            and have labels.
        multi_label (`bool`, *optional*, defaults to `False`):
            Whether a video has any number of labels.
        protocol (`dict`, *optional*, defaults to `{}`):
            Frames, clips, crops, sizes, normalisation, and the merging of views.
        environment (`dict`, *optional*, defaults to `{}`):
            Versions, decoders and their FFmpeg, device, command.
        manifest (`str`, *optional*):
            SHA-256 of the videos' ids and labels, unreadable videos included, see [`~sources.manifest_hash`].
        seconds (`float`, *optional*, defaults to 0.0):
            Duration in seconds.
    """

    ids: list[str]
    labels: np.ndarray | None
    logits: np.ndarray
    failed: list[dict[str, Any]]
    label_names: list[str]
    metrics: dict[str, float] = field(default_factory=dict)
    multi_label: bool = False
    protocol: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    manifest: str | None = None
    seconds: float = 0.0

    @property
    def probabilities(self) -> np.ndarray:
        """Softmax (multi-label: sigmoid) of the logits, of shape `(num_videos, num_labels)`."""
        logits = torch.from_numpy(self.logits)
        return (logits.sigmoid() if self.multi_label else logits.softmax(dim=-1)).numpy()

    def scored(self) -> tuple[np.ndarray, np.ndarray]:
        """
        Logits and labels of the videos that have labels.

        Returns:
            `tuple[np.ndarray, np.ndarray]`: the rows of `logits` and of `labels`.

        Raises:
            ValueError: no video has a label.
        """
        if self.labels is None:
            raise ValueError("The videos have no labels, so nothing can be scored")
        known = self.labels >= 0 if self.labels.ndim == 1 else (self.labels >= 0).all(axis=1)
        return self.logits[known], self.labels[known]

    def predictions(self) -> list[dict[str, Any]]:
        """
        The prediction for each video.

        Returns:
            `list[dict]`: one row per video with its `id`, the predicted label (`prediction`), its `probability`, and
            the true `label` if known. Multi-label: lists of these, where labels with a probability of at least 0.5
            are predicted, the most probable first.
        """
        rows = []
        for index, (name, scores) in enumerate(zip(self.ids, self.probabilities)):
            ranked = np.argsort(-scores, kind="stable")
            best = [int(label) for label in ranked if scores[label] >= 0.5] if self.multi_label else [int(ranked[0])]
            prediction = [self.label_names[label] for label in best]
            probability = [float(scores[label]) for label in best]
            row = {"id": name, "prediction": prediction, "probability": probability}
            if self.labels is not None and (self.labels[index] >= 0).all():
                right = np.flatnonzero(self.labels[index]) if self.multi_label else [self.labels[index]]
                row["label"] = [self.label_names[int(label)] for label in right]
            rows.append(row if self.multi_label else {key: _only(value) for key, value in row.items()})
        return rows

    def per_class(self) -> list[dict[str, Any]]:
        """
        The results for each class that occurs.

        Returns:
            `list[dict]`: one row per class with its `label`, its number of `videos`, its `accuracy`, and the class
            that most of its other videos are taken for (`taken_for`). Multi-label: `average_precision` instead of the
            last two.

        Raises:
            ValueError: no video has a label.
        """
        logits, labels = self.scored()
        if self.multi_label:
            precisions = average_precisions(logits, labels)
            return [
                {"label": name, "videos": int(count), "average_precision": float(precision)}
                for name, count, precision in zip(self.label_names, labels.sum(axis=0), precisions)
                if count
            ]
        matrix = confusion_matrix(logits, labels)
        rows = []
        for label in np.flatnonzero(matrix.sum(axis=1)):
            wrong = matrix[label].copy()
            wrong[label] = 0
            rows.append(
                {
                    "label": self.label_names[label],
                    "videos": int(matrix[label].sum()),
                    "accuracy": float(matrix[label, label] / matrix[label].sum()),
                    "taken_for": self.label_names[int(wrong.argmax())] if wrong.any() else None,
                }
            )
        return rows

    def table(self, max_classes: int = 40) -> Table:
        """
        [`~EvaluationResult.per_class`] as a table for `rich.print`, the worst classes first.

        Args:
            max_classes (`int`, *optional*, defaults to 40):
                Largest number of classes shown.

        Returns:
            `rich.table.Table`
        """
        rows, measure = self.per_class(), "average_precision" if self.multi_label else "accuracy"
        worst = sorted(rows, key=lambda row: row[measure])[:max_classes]
        caption = f"the {len(worst)} worst of {len(rows)} classes" if len(worst) < len(rows) else None
        columns = [Column("label", overflow="fold"), Column("videos", justify="right")]
        columns.append(Column(measure.replace("_", " "), justify="right"))
        columns += [] if self.multi_label else [Column("most often confused with", overflow="fold")]
        table = Table(*columns, box=None, pad_edge=False, caption=caption)
        for row in worst:
            words = [escape(row["label"]), str(row["videos"]), f"{100 * row[measure]:.1f} %"]
            table.add_row(*words, *([] if self.multi_label else [escape(row["taken_for"] or "")]))
        return table

    def to_dict(self) -> dict[str, Any]:
        """Everything except the predictions, as plain values."""
        return {
            "metrics": self.metrics,
            "per_class": [] if self.labels is None else self.per_class(),
            "num_videos": len(self.ids),
            "num_failed": len(self.failed),
            "failed": self.failed,
            "protocol": self.protocol,
            "manifest_sha256": self.manifest,
            "environment": self.environment,
            "seconds": round(self.seconds, 3),
        }

    def save(self, path: str | Path, **more: Any) -> None:
        """
        Write the result file. For videos with one label each, a picture of the confusion matrix is written beside it
        if matplotlib is installed (`results_confusion.png` for `results.json`).

        Args:
            path (`str` or `Path`):
                The file, usually `results.json` beside the weights.
            more:
                Further plain values to write, such as `seed`.
        """
        super().save(path, **more)
        if self.labels is None or self.multi_label:
            return
        if importlib.util.find_spec("matplotlib") is None:
            logger.info("The confusion matrix is not drawn: matplotlib is not installed (`hf_videovit[train]`)")
        else:
            matrix = confusion_matrix(*self.scored())
            picture = Path(path).with_name(f"{Path(path).stem}_confusion.png")
            draw_confusion_matrix(matrix, self.label_names, picture)

    def save_confusion_matrix(self, path: str | Path) -> None:
        """
        Write the confusion matrix as CSV: numbers of videos with a row per true label and a column per predicted one.

        Args:
            path (`str` or `Path`):
                The file.

        Raises:
            ValueError: the data is multi-label, or no video has a label.
        """
        if self.multi_label:
            raise ValueError("Multi-label data has no confusion matrix")
        matrix = confusion_matrix(*self.scored())
        with Path(path).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["", *self.label_names])
            for name, counts in zip(self.label_names, matrix.tolist()):
                writer.writerow([name, *counts])

    def save_predictions(self, path: str | Path) -> None:
        """
        Write [`~EvaluationResult.predictions`] as JSON lines.

        Args:
            path (`str` or `Path`):
                The file.
        """
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in self.predictions()]
        Path(path).write_text("".join(lines), encoding="utf-8")


class EvaluationClipLoader:
    """
    Reads one video as the model's input, with the processor alone.

    Args:
        processor ([`ClipProcessor`]):
            The checkpoint's processor.
        sampling_mode (`str`, *optional*):
            Overrides the processor's own.
        num_labels (`int`, *optional*):
            Number of labels if the data is multi-label.
    """

    def __init__(self, processor: ClipProcessor, sampling_mode: str | None = None, num_labels: int | None = None):
        self.processor, self.num_labels = processor, num_labels
        self.options = {} if sampling_mode is None else {"sampling_mode": sampling_mode}

    def __call__(self, record: Record) -> dict[str, torch.Tensor]:
        inputs = self.processor(record.sample.video, return_tensors="pt", **self.options)
        return {
            "pixel_values": inputs["pixel_values"][0],
            "labels": label_tensor(record.sample.label, self.num_labels),
        }


class _RecordingSource(VideoSource):
    """Wraps a source and records the labels of its samples, since unreadable videos are reported without a label."""

    def __init__(self, source: VideoSource):
        self.source = source
        self.label_names, self.multi_label, self.num_samples = (
            source.label_names,
            source.multi_label,
            source.num_samples,
        )
        self.reads_ahead = source.reads_ahead
        self.recorded: dict[str, Label] = {}

    def share(self, rank: int, world: int, seed: int | None, epoch: int, start: int = 0) -> Iterator[Sample]:
        for sample in self.source.share(rank, world, seed, epoch, start):
            self.recorded[sample.id] = sample.label
            yield sample

    def share_size(self, rank: int, world: int) -> int | None:
        return self.source.share_size(rank, world)

    def place(self, position: int, rank: int, world: int) -> int:
        return self.source.place(position, rank, world)

    def with_label_names(self, label_names: Sequence[str]) -> "VideoSource":
        return _RecordingSource(self.source.with_label_names(label_names))


def evaluate_model(
    model: PreTrainedModel,
    processor: ClipProcessor,
    samples: VideoSource | Iterable[Sample] | Iterable[tuple[str, Any, int | None]],
    *,
    batch_size: int = 1,
    num_workers: int = 0,
    sampling_mode: str | None = None,
    accelerator: Accelerator | None = None,
    mixed_precision: str | None = None,
    timeout: float = 300.0,
    progress: bool = False,
) -> EvaluationResult:
    """
    Evaluate a classifier on videos.

    With several processes, each evaluates its share, and all get the complete result. With `batch_size=1` and no mixed
    precision, the logits are bitwise those of `model(**processor(video))`.

    Args:
        model (`PreTrainedModel`):
            A model for video classification, on the device to use.
        processor ([`ClipProcessor`]):
            Processor of the model.
        samples ([`VideoSource`], or samples, or tuples `(id, video, label)`):
            The videos. A source's labels are matched with the model's by name. Samples and tuples have the model's own
            indices.
        batch_size (`int`, *optional*, defaults to 1):
            Videos in a forward pass.
        num_workers (`int`, *optional*, defaults to 0):
            Number of decoding processes.
        sampling_mode (`str`, *optional*):
            `"validation"` for the quick single view during training. Defaults to the processor's own mode.
        accelerator (`Accelerator`, *optional*):
            The processes that share the videos. Defaults to this process alone.
        mixed_precision (`str`, *optional*):
            `"bf16"` or `"fp16"` for autocast.
        timeout (`float`, *optional*, defaults to 300.0):
            Seconds after which workers that do not answer are considered hung.
        progress (`bool`, *optional*, defaults to `False`):
            Whether to show a progress bar.

    Returns:
        [`EvaluationResult`]

    Raises:
        ValueError: the labels of the data do not match those of the model.
    """
    started = time.perf_counter()
    config = model.config
    multi_label = config.problem_type == MULTI_LABEL
    source = _RecordingSource(match_source(samples, config.id2label, multi_label))
    rank, world = (0, 1) if accelerator is None else (accelerator.process_index, accelerator.num_processes)
    bad: list[BadVideo] = []
    stream = ClipStream(
        source,
        EvaluationClipLoader(processor, sampling_mode, config.num_labels if multi_label else None),
        batch_size,
        seed=None,
        rank=rank,
        world=world,
        num_workers=num_workers,
        timeout=timeout,
        on_bad_video=bad.append,
    )
    answers = _answers(model, stream, mixed_precision, progress and rank == 0)
    failures = [(source.place(video.position, rank, world), video) for video in bad]
    answers, failures = gathered(answers, accelerator), gathered(failures, accelerator)
    recorded = dict(gathered(list(source.recorded.items()), accelerator))
    label_names = [config.id2label[index] for index in range(config.num_labels)]
    result = collect_answers(answers, failures, recorded, label_names, multi_label)
    result.protocol = describe_protocol(model, processor, sampling_mode)
    result.environment = describe_environment(model, world) | {"decoder": decoder_used(processor)}
    result.manifest = manifest_hash(recorded.items(), label_names)
    result.seconds = time.perf_counter() - started
    if result.failed:
        logger.warning(f"{len(result.failed)} of {len(result.ids) + len(result.failed)} videos could not be read")
    return result


def describe_protocol(
    model: PreTrainedModel, processor: ClipProcessor, sampling_mode: str | None = None
) -> dict[str, Any]:
    """
    The evaluation protocol: the saved settings of the processor, and the model's merging of views.

    Args:
        model (`PreTrainedModel`):
            The model.
        processor ([`ClipProcessor`]):
            Processor of the model.
        sampling_mode (`str`, *optional*):
            Overrides the processor's own.

    Returns:
        `dict[str, Any]`: plain values.
    """
    protocol = json.loads(processor.to_json_string())
    merging = model.config.to_dict().get("view_merging")
    return protocol | ({"sampling_mode": sampling_mode} if sampling_mode else {}) | {"view_merging": merging}


def describe_environment(model: PreTrainedModel, world: int = 1) -> dict[str, Any]:
    """
    Versions, decoders, device and command of an evaluation.

    Args:
        model (`PreTrainedModel`):
            The model. Its device and dtype are used.
        world (`int`, *optional*, defaults to 1):
            Number of processes.

    Returns:
        `dict[str, Any]`: plain values.
    """
    packages = ("torch", "torchvision", "transformers", "accelerate", "av")
    decoders = {name: {"version": info.version, "ffmpeg": info.ffmpeg} for name, info in available_decoders().items()}
    device = torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else platform.machine()
    return {
        "packages": {"hf_videovit": __version__} | {name: version(name) for name in packages},
        "python": platform.python_version(),
        "decoders": decoders,
        "device": f"{model.device.type}: {device}",
        "dtype": str(model.dtype).removeprefix("torch."),
        "processes": world,
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def match_source(samples: Any, id2label: Mapping[int, str], multi_label: bool) -> VideoSource:
    """
    The videos to evaluate on, with the label indices of the model.

    Args:
        samples ([`VideoSource`], or samples, or tuples `(id, video, label)`):
            The videos, see [`evaluate_model`].
        id2label (`Mapping[int, str]`):
            Label names of the model.
        multi_label (`bool`):
            Whether the model gives a video any number of labels.

    Returns:
        [`VideoSource`]

    Raises:
        ValueError: the labels of the data do not match those of the model.
    """
    if isinstance(samples, VideoSource):
        source = match_labels(samples, dict(id2label)) if samples.label_names else samples
    else:
        listed = [sample if isinstance(sample, Sample) else Sample(*sample) for sample in samples]
        for sample in listed:
            if unknown := [label for label in label_indices(sample.label) if label not in id2label]:
                raise ValueError(
                    f"The label of sample {sample.id!r} must be from 0 to {len(id2label) - 1}, got {unknown[0]}"
                )
        source = SampleList(listed)
    if source.multi_label and not multi_label:
        raise ValueError(f"`problem_type` of the model must be {MULTI_LABEL!r} for multi-label data")
    return source


def _only(value: Any) -> Any:
    return value[0] if isinstance(value, list) else value


def decoder_used(processor: ClipProcessor) -> dict[str, Any]:
    """
    The decoder that a processor uses, with its FFmpeg.

    Args:
        processor ([`ClipProcessor`]):
            The processor.

    Returns:
        `dict[str, Any]`: plain values.
    """
    name = "pyav" if processor.decoder == "auto" else processor.decoder
    info = available_decoders()[name]
    return {"name": name, "version": info.version, "ffmpeg": info.ffmpeg, "policy": processor.decoding_policy}


def _answers(
    model: PreTrainedModel, stream: ClipStream, mixed_precision: str | None, progress: bool
) -> list[tuple[int, str, int | list[float], np.ndarray]]:
    """Predictions of this process: place in the data's order, id, label, logits."""
    answers = []
    with evaluation_mode(model):
        for batch in tqdm(stream.epoch(0), total=stream.num_batches(), desc="evaluating", disable=not progress):
            pixel_values = batch.rows["pixel_values"].to(model.device)
            with torch.inference_mode(), autocast_of(model.device, mixed_precision):
                logits = model(pixel_values=pixel_values).logits.float().cpu().numpy()
            for position, name, label, row in zip(batch.positions, batch.ids, batch.rows["labels"].tolist(), logits):
                place = stream.source.place(position, stream.rank, stream.world)
                answers.append((place, name, label, row))
    return answers


def autocast_of(device: torch.device, mixed_precision: str | None) -> AbstractContextManager[Any]:
    """
    The precision of a forward pass.

    Args:
        device (`torch.device`):
            Device of the model.
        mixed_precision (`str` or `None`):
            `"bf16"`, `"fp16"`, or none.

    Returns:
        A context manager.
    """
    dtype = PRECISIONS.get(mixed_precision or "no")
    return torch.autocast(device.type, dtype) if dtype else nullcontext()


def gathered(items: list[Any], accelerator: Accelerator | None) -> list[Any]:
    """
    Items of all processes, which may have different numbers of them.

    Args:
        items (`list`):
            Items of this process.
        accelerator (`Accelerator` or `None`):
            The processes.

    Returns:
        `list`: the same in all processes.
    """
    return items if accelerator is None or accelerator.num_processes == 1 else gather_object(items)


def collect_answers(
    answers: list[tuple[int, str, int | list[float], np.ndarray]],
    failures: list[tuple[int, BadVideo]],
    recorded: Mapping[str, Label],
    label_names: list[str],
    multi_label: bool,
) -> EvaluationResult:
    """
    The result of an evaluation from its parts, in any order.

    Args:
        answers (`list[tuple]`):
            Place in the data's order, id, label and logits of each video.
        failures (`list[tuple]`):
            Place and [`BadVideo`] of each video that could not be read.
        recorded (`Mapping`):
            Label of each id.
        label_names (`list[str]`):
            Label names of the model.
        multi_label (`bool`):
            Whether a video has any number of labels.

    Returns:
        [`EvaluationResult`]: with metrics, without protocol and environment.
    """
    by_id = {name: (name, label, row) for _, name, label, row in sorted(answers, key=lambda answer: answer[0])}
    failed = {video.id: video for _, video in sorted(failures, key=lambda failure: failure[0])}
    rows = list(by_id.values())
    logits = np.stack([row for _, _, row in rows]) if rows else np.zeros((0, len(label_names)), np.float32)
    labels = np.array([label for _, label, _ in rows], np.int64)
    result = EvaluationResult(
        ids=[name for name, _, _ in rows],
        labels=labels if (labels >= 0).any() else None,
        logits=logits,
        failed=[
            {
                "id": video.id,
                "label": [label_names[label] for label in label_indices(recorded[video.id])],
                "reason": video.reason,
                "kind": video.kind,
                "decoder": video.decoder,
            }
            for video in failed.values()
        ],
        label_names=label_names,
        multi_label=multi_label,
    )
    if result.labels is not None:
        result.metrics = score(*result.scored())
        unlabelled = len(rows) - len(result.scored()[0])
        if unlabelled:
            logger.warning(f"{unlabelled} of {len(rows)} videos have no label and are not scored")
    return result
