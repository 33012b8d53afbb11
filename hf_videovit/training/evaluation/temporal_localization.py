"""Evaluation of temporal localisation with ActivityNet's metric."""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from rich.markup import escape
from rich.table import Column, Table
from tqdm.auto import tqdm
from transformers import PreTrainedModel
from transformers.utils import logging

from ...films import FilmLocalizer
from ...modeling.feature_processing_temporal_localization import (
    FeatureGrid,
    TemporalLocalizationProcessor,
    fuse_class_scores,
)
from ...modeling.video_decoding_types import VideoDecodingError
from ...modeling.video_processing_base import ClipVideoProcessor
from ...modes import evaluation_mode
from ..data.activitynet import (
    SAME_SECONDS,
    SegmentTable,
    read_activitynet,
    read_predictions,
    segment_table,
    write_predictions,
)
from ..data.bad_videos import BadVideo
from ..data.segment_files import evaluation_subset, excluded_names, find_subset, read_segments
from ..data.segment_source import SegmentRow, SegmentSource, SequenceLoader, class_numbers
from ..data.sources import label_mapping
from ..data.streaming import ClipStream
from .evaluation import autocast_of, describe_environment, gathered
from .metrics.segments import THRESHOLDS, segment_average_precision
from .results import Result


logger = logging.get_logger(__name__)

Found = dict[str, np.ndarray]
METRICS = ("default", "activitynet", "actionformer")
ROWS = ("videos", "segments", "labels", "scores")  # of a table of predictions


@dataclass
class LocalizationResult(Result):
    """
    The segments that a model finds, and their metrics.

    Args:
        predictions (`dict[str, dict[str, np.ndarray]]`):
            For each video `segments` in seconds, `scores` and `labels`, by falling score.
        label_names (`list[str]`):
            Classes of `labels`.
        metrics (`dict[str, float]`, *optional*, defaults to `{}`):
            `mAP` over classes and overlaps, `mAP@0.5` and so on for each overlap, and `recall@1x`, `recall@5x` at the
            overlap of 0.5 or the one nearest to it.
        per_class (`list[dict]`, *optional*, defaults to `[]`):
            `label`, `segments` (in the truth) and `average_precision` of each class of the truth.
        num_truth (`int`, *optional*, defaults to 0):
            True segments, those of videos without features included.
        failed (`list[dict]`, *optional*, defaults to `[]`):
            Videos whose features could not be read: their segments count as missed.
        missing (`list[str]`, *optional*, defaults to `[]`):
            Videos without features, or without predictions in a file: their segments count as missed.
        protocol (`dict`, *optional*, defaults to `{}`):
            Settings of processor and metric.
        environment (`dict`, *optional*, defaults to `{}`):
            Versions, device, command.
        seconds (`float`, *optional*, defaults to 0.0):
            Duration in seconds.
        manifest (`str`, *optional*):
            SHA-256 of the videos, their true segments and the class scores.
    """

    predictions: dict[str, Found]
    label_names: list[str]
    metrics: dict[str, float] = field(default_factory=dict)
    per_class: list[dict[str, Any]] = field(default_factory=list)
    num_truth: int = 0
    failed: list[dict[str, Any]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    protocol: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    manifest: str | None = None

    def save_predictions(self, path: str | Path) -> None:
        """
        Write the predictions as ActivityNet's tools read them.

        Args:
            path (`str` or `Path`):
                The JSON file.
        """
        write_predictions(path, self.predictions, dict(enumerate(self.label_names)))

    def to_dict(self) -> dict[str, Any]:
        """Everything except the predictions, as plain values. The videos are listed, since they decide the numbers."""
        return {
            "metrics": self.metrics,
            "per_class": self.per_class,
            "num_videos": len(self.predictions),
            "num_segments": self.num_truth,
            "num_failed": len(self.failed),
            "failed": self.failed,
            "missing_features": self.missing,
            "videos": sorted(self.predictions),
            "manifest_sha256": self.manifest,
            "protocol": self.protocol,
            "environment": self.environment,
            "seconds": round(self.seconds, 3),
        }

    def table(self) -> Table:
        """The classes as a table for `rich.print`, the worst first."""
        columns = [Column("class", overflow="fold"), Column("segments", justify="right")]
        table = Table(*columns, Column("average precision", justify="right"), box=None, pad_edge=False)
        for row in sorted(self.per_class, key=lambda one: one["average_precision"]):
            table.add_row(escape(row["label"]), str(row["segments"]), f"{100 * row['average_precision']:.1f} %")
        return table


def evaluate_temporal_localization(
    model: PreTrainedModel,
    processor: TemporalLocalizationProcessor,
    source: SegmentSource,
    *,
    protocol: str = "activitynet",
    class_scores: Mapping[str, Sequence[float]] | None = None,
    batch_size: int = 1,
    num_workers: int = 0,
    accelerator: Accelerator | None = None,
    mixed_precision: str | None = None,
    timeout: float = 300.0,
    progress: bool = False,
    video_processor: ClipVideoProcessor | None = None,
) -> LocalizationResult:
    """
    Evaluate a localiser. With several processes, each evaluates its share, and all get the complete result.

    Args:
        model (`PreTrainedModel`):
            A model for temporal action localisation, on the device to use.
        processor ([`TemporalLocalizationProcessor`]):
            Processor of the model.
        source ([`SegmentSource`]):
            The videos. The segments of those without features count as missed.
        protocol (`str`, *optional*, defaults to `"activitynet"`):
            Overlaps over which the metric is averaged: a name in `THRESHOLDS`.
        class_scores (`Mapping[str, Sequence[float]]`, *optional*):
            Probabilities of a classifier of whole videos, by video, in the order of `source.label_names`. The
            segments get its classes; see [`fuse_class_scores`].
        batch_size (`int`, *optional*, defaults to 1):
            Videos in a forward pass.
        num_workers (`int`, *optional*, defaults to 0):
            Number of reading processes.
        accelerator (`Accelerator`, *optional*):
            The processes that share the videos. Defaults to this process alone.
        mixed_precision (`str`, *optional*):
            `"bf16"` or `"fp16"` for autocast.
        timeout (`float`, *optional*, defaults to 300.0):
            Seconds after which workers that do not answer are considered hung.
        progress (`bool`, *optional*, defaults to `False`):
            Whether to show a progress bar.
        video_processor ([`ClipVideoProcessor`], *optional*):
            The processor of the model's encoder. The videos of `source` are then read themselves, in the way of
            `pipeline("temporal-action-localization")`; `batch_size` and `num_workers` are not used.

    Returns:
        [`LocalizationResult`]

    Raises:
        ValueError: the protocol is unknown, classes do not match those of the model, a video has no class scores, or
            there are no true segments.
    """
    if protocol not in THRESHOLDS:
        raise ValueError(f"`protocol` must be one of {', '.join(THRESHOLDS)}, got {protocol!r}")
    started = time.perf_counter()
    label_names = [model.config.id2label[index] for index in range(model.config.num_labels)]
    if class_scores is None:
        label_mapping(source.label_names, label_names)
    else:
        label_names = source.label_names
        _check_class_scores(class_scores, source)
    rank, world = (0, 1) if accelerator is None else (accelerator.process_index, accelerator.num_processes)
    bad: list[BadVideo] = []
    shown = progress and rank == 0
    if video_processor is None:
        stream = ClipStream(
            source,
            SequenceLoader(processor),
            1,
            seed=None,
            rank=rank,
            world=world,
            num_workers=num_workers,
            timeout=timeout,
            on_bad_video=bad.append,
        )
        own = _predictions(model, processor, stream, batch_size, class_scores, mixed_precision, shown)
    else:
        films = tqdm(source.rows[rank::world], desc="evaluating", disable=not shown)
        film_localizer = FilmLocalizer(model, processor, video_processor)
        own = _predictions_of_films(film_localizer, films, bad.append, class_scores, mixed_precision)
    found = dict(gathered(list(own), accelerator))
    failures = sorted(gathered([(one.id, one.reason, one.kind) for one in bad], accelerator))
    predictions = {row.name: found[row.name] for row in source.rows if row.name in found}
    result = LocalizationResult(predictions, label_names)
    result.failed = [{"id": name, "reason": reason, "kind": kind} for name, reason, kind in failures]
    result.missing = [video.name for video in source.missing]
    _finish(result, source, protocol, class_scores, processor, describe_environment(model, world))
    result.seconds = time.perf_counter() - started
    if result.failed:
        logger.warning(
            f"The features of {len(result.failed)} of {source.num_samples} videos could not be read, and their "
            f"segments count as missed; the first is {result.failed[0]['id']!r}: {result.failed[0]['reason']}"
        )
    return result


def evaluate_films(
    localize: Any,
    source: SegmentSource,
    *,
    protocol: str = "activitynet",
    class_scores: Mapping[str, Sequence[float]] | None = None,
    batch_size: int | None = None,
    progress: bool = False,
) -> LocalizationResult:
    """
    Evaluate a localiser with its encoder on videos, as its pipeline reads them.

    Args:
        localize ([`TemporalActionLocalizationPipeline`]):
            `pipeline("temporal-action-localization")` of a model with its encoder.
        source ([`SegmentSource`]):
            The videos, in the place of features. The segments of missing and unreadable ones count as missed.
        protocol (`str`, *optional*, defaults to `"activitynet"`):
            Overlaps over which the metric is averaged.
        class_scores (`Mapping[str, Sequence[float]]`, *optional*):
            See [`evaluate_temporal_localization`].
        batch_size (`int`, *optional*):
            Windows in a forward pass of the encoder.
        progress (`bool`, *optional*, defaults to `False`):
            Whether to show a progress bar.

    Returns:
        [`LocalizationResult`]

    Raises:
        ValueError: as for [`evaluate_temporal_localization`].
    """
    if protocol not in THRESHOLDS:
        raise ValueError(f"`protocol` must be one of {', '.join(THRESHOLDS)}, got {protocol!r}")
    started, config = time.perf_counter(), localize.model.config
    label_names = [config.id2label[index] for index in range(config.num_labels)]
    if class_scores is None:
        label_mapping(source.label_names, label_names)
    else:
        label_names = source.label_names
        _check_class_scores(class_scores, source)
    result = LocalizationResult({}, label_names, missing=[video.name for video in source.missing])
    for row in tqdm(source.rows, desc="evaluating", disable=not progress):
        named = {} if class_scores is None else {"class_scores": class_scores[row.name], "class_names": label_names}
        found = localize(str(row.file), batch_size, threshold=0.0, on_error="report", **named)
        if isinstance(found, dict):
            result.failed.append({"id": row.name, "reason": found["error"], "kind": "unreadable"})
            continue
        result.predictions[row.name] = {
            "segments": np.array([[one["segment"]["start"], one["segment"]["end"]] for one in found]).reshape(-1, 2),
            "scores": np.array([one["score"] for one in found], np.float32),
            "labels": np.array([label_names.index(one["label"]) for one in found], np.int64),
        }
    environment = describe_environment(localize.model, 1)
    _finish(result, source, protocol, class_scores, localize.feature_extractor, environment)
    result.seconds = time.perf_counter() - started
    return result


def _finish(
    result: LocalizationResult,
    source: SegmentSource,
    protocol: str,
    class_scores: Mapping[str, Sequence[float]] | None,
    processor: TemporalLocalizationProcessor,
    environment: dict[str, Any],
) -> None:
    """Metrics, and what they were measured on and with."""
    _score(result, source, protocol)
    settings = {"metric": "ActivityNet's toolkit", "overlaps": protocol, "class_scores": class_scores is not None}
    result.protocol = json.loads(processor.to_json_string()) | settings
    result.environment = environment
    result.manifest = _manifest_hash(source, class_scores)


def _manifest_hash(source: SegmentSource, class_scores: Mapping[str, Sequence[float]] | None) -> str:
    """Hash of what is scored: videos, also missing ones, with their segments, in any order, and class scores."""
    videos: list[Any] = [*source.rows, *source.missing]
    rows = [
        [one.name, one.segments.tolist(), list(one.labels), list((class_scores or {}).get(one.name, ()))]
        for one in videos
    ]
    text = json.dumps([sorted(source.label_names), sorted(rows)], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _check_class_scores(class_scores: Mapping[str, Sequence[float]], source: SegmentSource) -> None:
    for row in source.rows:
        if row.name not in class_scores:
            raise ValueError(f"`class_scores` has no scores of {row.name!r}")
        if len(class_scores[row.name]) != len(source.label_names):
            raise ValueError(
                f"`class_scores` has {len(class_scores[row.name])} scores of {row.name!r}, the data has "
                f"{len(source.label_names)} classes"
            )


def _predictions(
    model: PreTrainedModel,
    processor: TemporalLocalizationProcessor,
    stream: ClipStream,
    batch_size: int,
    class_scores: Mapping[str, Sequence[float]] | None,
    mixed_precision: str | None,
    progress: bool,
) -> Iterator[tuple[str, Found]]:
    """Segments of the videos of this process, `batch_size` of them in a forward pass."""
    waiting: list[tuple[str, torch.Tensor, FeatureGrid]] = []
    with evaluation_mode(model):
        for batch in tqdm(stream.epoch(0), total=stream.num_batches(), desc="evaluating", disable=not progress):
            fps, duration, stride, offset, steps = batch.rows["grid"][0].tolist()
            grid = FeatureGrid(fps, duration, stride, offset, int(steps))
            waiting.append((batch.ids[0], batch.rows["features"][0], grid))
            if len(waiting) == batch_size:
                yield from _localized(model, processor, waiting, class_scores, mixed_precision)
                waiting = []
        if waiting:
            yield from _localized(model, processor, waiting, class_scores, mixed_precision)


def _predictions_of_films(
    film_localizer: FilmLocalizer,
    films: Iterable[SegmentRow],
    report: Callable[[BadVideo], None],
    class_scores: Mapping[str, Sequence[float]] | None,
    mixed_precision: str | None,
) -> Iterator[tuple[str, Found]]:
    """Segments of the films of this process, each read once."""
    model = film_localizer.model
    with evaluation_mode(model):
        for position, row in enumerate(films):
            try:
                with torch.inference_mode(), autocast_of(model.device, mixed_precision):
                    found = film_localizer.of_film(row.file)
            except VideoDecodingError as error:
                report(BadVideo(row.name, position, error.reason, error.kind, error.decoder))
                continue
            if class_scores is not None:
                found = fuse_class_scores(found, class_scores[row.name])
            found = found.by_score()
            yield row.name, {"segments": found.segments, "scores": found.scores, "labels": found.labels}


def _localized(
    model: PreTrainedModel,
    processor: TemporalLocalizationProcessor,
    waiting: Sequence[tuple[str, torch.Tensor, FeatureGrid]],
    class_scores: Mapping[str, Sequence[float]] | None,
    mixed_precision: str | None,
) -> Iterator[tuple[str, Found]]:
    names, sequences, grids = zip(*waiting)
    inputs = processor.pad(sequences)
    with torch.inference_mode(), autocast_of(model.device, mixed_precision):
        outputs = model(**{name: value.to(model.device) for name, value in inputs.items()})
    scores = None if class_scores is None else [class_scores[name] for name in names]
    results = processor.post_process_temporal_localization(outputs, list(grids), class_scores=scores)
    for name, one in zip(names, results):
        yield name, {key: value.numpy() for key, value in one.items()}


def _score(result: LocalizationResult, source: SegmentSource, protocol: str) -> None:
    """Fill `metrics` and `per_class`. Segments of missing and unreadable videos count as missed."""
    rows = [
        (video, float(start), float(end), int(label), float(score))
        for video, one in result.predictions.items()
        for (start, end), label, score in zip(one["segments"], one["labels"], one["scores"])
    ]
    predictions = segment_table(rows)
    predictions.scores = np.zeros(0) if predictions.scores is None else predictions.scores
    _fill(result, true_segments(source, result.label_names), predictions, protocol)


def _fill(
    result: LocalizationResult,
    truth: SegmentTable,
    predictions: SegmentTable,
    protocol: str,
    absent_classes: str = "ignored",
) -> None:
    """Fill `metrics`, `per_class` and `num_truth` from the tables."""
    thresholds = THRESHOLDS[protocol]
    found = segment_average_precision(truth, predictions, thresholds, absent_classes=absent_classes)
    middle = int(np.abs(np.asarray(thresholds) - 0.5).argmin())
    result.metrics = {"mAP": found.mean}
    result.metrics |= {f"mAP@{overlap:.3g}": float(value) for overlap, value in zip(thresholds, found.means)}
    result.metrics |= {f"recall@{times}x": float(found.recall[middle, row]) for row, times in enumerate((1, 5))}
    result.num_truth = found.num_truth
    counts = np.bincount(truth.labels)
    result.per_class = [
        {
            "label": result.label_names[int(label)],
            "segments": int(counts[label]),
            "average_precision": float(precision),
        }
        for label, precision in zip(found.classes, found.average_precision.mean(axis=0))
    ]


def score_predictions(
    truth: str | Path,
    predictions: str | Path,
    *,
    subset: str | None = None,
    protocol: str = "activitynet",
    metric: str = "default",
    excluded: str | Path | None = None,
) -> LocalizationResult:
    """
    Score a file of predictions.

    Args:
        truth (`str` or `Path`):
            Annotations in a form that [`read_segments`] takes.
        predictions (`str` or `Path`):
            JSON with `results`, as ActivityNet's tools read and write it.
        subset (`str`, *optional*):
            Subset of the annotations. Defaults to validation or test, where the file has subsets.
        protocol (`str`, *optional*, defaults to `"activitynet"`):
            Overlaps over which the metric is averaged: a name in `THRESHOLDS`.
        metric (`str`, *optional*, defaults to `"default"`):
            Where official tools differ. `"default"`: annotations that are the same within a millisecond count once,
            and predictions of classes without truth are ignored. `"activitynet"`: all annotations count.
            `"actionformer"`: predictions of classes without truth are taken for other classes, see
            [`segment_average_precision`].
        excluded (`str` or `Path`, *optional*):
            File with names of videos to leave out, of the truth and of the predictions; see [`read_segments`].

    Returns:
        [`LocalizationResult`]: `missing` lists the videos of the truth that have no predictions.

    Raises:
        ValueError: a file has another form, the subset, protocol or metric is unknown, or no predicted video is in
            the truth.
    """
    for name, value, allowed in (("protocol", protocol, THRESHOLDS), ("metric", metric, METRICS)):
        if value not in allowed:
            raise ValueError(f"`{name}` must be one of {', '.join(allowed)}, got {value!r}")
    started = time.perf_counter()
    annotations = read_segments(truth, excluded)
    for remark in annotations.remarks:
        logger.warning(remark)
    part = subset or evaluation_subset(annotations.subsets, None)
    videos = annotations.videos if part is None else annotations.subset(part)
    numbers = class_numbers(annotations.label_names)
    if metric == "activitynet":
        rows = _with_copies(truth, None if part is None else find_subset(part, annotations.subsets), numbers)
    else:
        rows = [
            (video.name, float(start), float(end), numbers[label], None)
            for video in videos
            for (start, end), label in zip(video.segments, video.labels)
        ]
    found = read_predictions(predictions, dict(enumerate(annotations.label_names)))
    if excluded is not None:
        names = excluded_names(excluded)
        rows = [row for row in rows if row[0] not in names]
        counted = np.array([video not in names for video in found.videos], dtype=bool)
        found = replace(found, **{part: getattr(found, part)[counted] for part in ROWS})
    known, predicted = {video.name for video in videos}, set(found.videos.tolist())
    if predicted and not predicted & known:
        raise ValueError(
            f"`predictions` {str(predictions)!r} are of other videos than `truth`: {sorted(predicted)[0]!r}, not "
            f"{sorted(known)[0]!r}"
        )
    result = LocalizationResult({}, annotations.label_names)
    for video in sorted(predicted & known):
        own = np.flatnonzero(found.videos == video)
        assert found.scores is not None
        result.predictions[video] = {
            "segments": found.segments[own],
            "labels": found.labels[own],
            "scores": found.scores[own],
        }
    result.missing = sorted(known - predicted)
    unknown = len(predicted - known)
    result.protocol = {"metric": metric, "overlaps": protocol, "subset": part, "unknown_videos": unknown}
    _fill(result, segment_table(rows), found, protocol, "renumbered" if metric == "actionformer" else "ignored")
    result.seconds = time.perf_counter() - started
    return result


def _with_copies(
    truth: str | Path, subset: str | None, numbers: Mapping[str, int]
) -> list[tuple[str, float, float, int, None]]:
    """All annotations, also several of one segment."""
    if Path(truth).suffix.lower() != ".json":
        raise ValueError(f"`metric` activitynet needs ActivityNet's JSON as `truth`, got {str(truth)!r}")
    table = read_activitynet(truth, subset, tolerance=None)
    return [
        (str(video), float(start), float(end), numbers[table.class_names[int(label)]], None)
        for video, (start, end), label in zip(table.videos, table.segments, table.labels)
    ]


def true_segments(source: SegmentSource, label_names: Sequence[str]) -> SegmentTable:
    """
    The true segments of all videos, also of those without features.

    Args:
        source ([`SegmentSource`]):
            The videos.
        label_names (`Sequence[str]`):
            Classes of the model in order.

    Returns:
        [`SegmentTable`]: without segments of less than a millisecond, as in ActionFormer's evaluation.
    """
    numbers = class_numbers(label_names)
    videos = [(row.name, row.segments, row.labels) for row in source.rows]
    videos += [(video.name, video.segments, video.labels) for video in source.missing]
    return segment_table(
        (name, float(start), float(end), numbers[label], None)
        for name, segments, labels in videos
        for (start, end), label in zip(segments, labels)
        if end - start >= SAME_SECONDS
    )


__all__ = ["METRICS", "LocalizationResult", "evaluate_temporal_localization", "score_predictions", "true_segments"]
