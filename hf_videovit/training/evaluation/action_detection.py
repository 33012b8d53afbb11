"""Evaluation of action detection with AVA's metric, by the checkpoint's own protocol."""

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
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

from ...modeling.video_processing_key_frames import KeyFrameVideoProcessor
from ...modes import evaluation_mode
from ...published import ava_rows, published_labels
from ..data.ava import read_excluded
from ..data.ava_csv import write_ava
from ..data.bad_videos import BadVideo
from ..data.boxes import BoxTable
from ..data.key_frame_source import KeyFrameSource, WholeFrameLoader, key_frame_id
from ..data.key_frames import KeyFrame, video_name
from ..data.streaming import ClipStream
from .evaluation import autocast_of, describe_environment, describe_protocol, gathered
from .metrics.boxes import frame_average_precision
from .results import Result


logger = logging.get_logger(__name__)

GROUPS = ("person_movement", "object_manipulation", "person_interaction")  # of AVA's labels
LEAST_COMMON = 0.9  # share of annotated key-frames with boxes below which a warning is given


@dataclass
class ActionDetectionResult(Result):
    """
    The predictions of a model for every person, and their metrics.

    Args:
        rows (`list[KeyFrame]`):
            Key-frames with the boxes that were scored, in the order of the data.
        scores (`list[np.ndarray]`):
            Scores of each key-frame, of shape `(num_boxes, num_labels)`, times those of the people where the processor
            says so.
        label_names (`list[str]`):
            Labels of the model.
        metrics (`dict[str, float]`, *optional*, defaults to `{}`):
            `mAP`; for AVA's 80 labels also that of the three groups.
        per_class (`list[dict]`, *optional*, defaults to `[]`):
            `label`, `boxes` (in the truth) and `average_precision` (`None` without boxes) of each evaluated label.
        boxes (`str`, *optional*, defaults to `""`):
            Which boxes were scored.
        failed (`list[dict]`, *optional*, defaults to `[]`):
            Key-frames whose video could not be read: their people count as missed.
        missing (`dict[str, int]`, *optional*, defaults to `{}`):
            Videos that do not exist, with the number of their key-frames.
        protocol (`dict`, *optional*, defaults to `{}`):
            Settings of processor and metric.
        manifest (`str`, *optional*):
            SHA-256 of annotations and scored boxes, see [`key_frame_hash`].
        environment (`dict`, *optional*, defaults to `{}`):
            Versions, decoders, device, command.
        seconds (`float`, *optional*, defaults to 0.0):
            Duration in seconds.
    """

    rows: list[KeyFrame]
    scores: list[np.ndarray]
    label_names: list[str]
    metrics: dict[str, float] = field(default_factory=dict)
    per_class: list[dict[str, Any]] = field(default_factory=list)
    boxes: str = ""
    failed: list[dict[str, Any]] = field(default_factory=list)
    missing: dict[str, int] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)
    manifest: str | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def predictions(self) -> Iterator[KeyFrame]:
        """
        Key-frames with the score of every label for every person.

        Yields:
            [`KeyFrame`]
        """
        names = tuple(self.label_names)
        for row, scores in zip(self.rows, self.scores):
            answers = tuple(map(tuple, scores.tolist()))
            yield replace(row, labels=(names,) * len(row.boxes), label_scores=answers)

    def save_csv(self, path: str | Path, offset: float = 0.0) -> None:
        """
        Write the predictions as AVA's csv, labels counted from 1.

        Args:
            path (`str` or `Path`):
                The file.
            offset (`float`, *optional*, defaults to 0.0):
                Timestamp of the start of each video, in seconds.
        """
        numbers = {name: index for index, name in enumerate(self.label_names, start=1)}
        write_ava(path, self.predictions(), numbers, offset)

    def to_dict(self) -> dict[str, Any]:
        """Everything except the predictions, as plain values."""
        return {
            "metrics": self.metrics,
            "per_class": self.per_class,
            "boxes": self.boxes,
            "num_key_frames": len(self.rows),
            "num_boxes": sum(len(row.boxes) for row in self.rows),
            "num_failed": len(self.failed),
            "failed": self.failed,
            "missing_videos": self.missing,
            "protocol": self.protocol,
            "manifest_sha256": self.manifest,
            "environment": self.environment,
            "seconds": round(self.seconds, 3),
        }

    def table(self) -> Table:
        """The labels with boxes as a table for `rich.print`, the worst first."""
        columns = [Column("label", overflow="fold"), Column("boxes", justify="right")]
        table = Table(*columns, Column("average precision", justify="right"), box=None, pad_edge=False)
        known = [row for row in self.per_class if row["average_precision"] is not None]
        for row in sorted(known, key=lambda one: one["average_precision"]):
            table.add_row(escape(row["label"]), str(row["boxes"]), f"{100 * row['average_precision']:.1f} %")
        return table


def evaluate_action_detection(
    model: PreTrainedModel,
    processor: KeyFrameVideoProcessor,
    truth: KeyFrameSource,
    *,
    people: KeyFrameSource | None = None,
    person_threshold: float = 0.8,
    excluded: str | Path | None = None,
    offset: float = 0.0,
    metric: str = "ava",
    batch_size: int = 1,
    num_workers: int = 0,
    accelerator: Accelerator | None = None,
    mixed_precision: str | None = None,
    timeout: float = 300.0,
    progress: bool = False,
) -> ActionDetectionResult:
    """
    Evaluate an action detector. Only clips of equal size go through the model together, so the scores do not depend on
    the batch. With several processes, each evaluates its share, and all get the complete result.

    Args:
        model (`PreTrainedModel`):
            A model for action detection, on the device to use.
        processor ([`KeyFrameVideoProcessor`]):
            Processor of the model.
        truth ([`KeyFrameSource`]):
            The annotations.
        people ([`KeyFrameSource`], *optional*):
            Detected people, with `scores`. Without them the annotated boxes are scored, which gives an upper bound.
        person_threshold (`float`, *optional*, defaults to 0.8):
            Lowest score of a detected person. Key-frames without any are left out; their annotations count as missed.
        excluded (`str` or `Path`, *optional*):
            csv of video and timestamp of key-frames that are left out, as AVA has it.
        offset (`float`, *optional*, defaults to 0.0):
            Timestamp in `excluded` of the start of each video, in seconds. 900 for AVA's cuts of 15 minutes.
        metric (`str`, *optional*, defaults to `"ava"`):
            `"mmaction2"` for its variant; see [`frame_average_precision`].
        batch_size (`int`, *optional*, defaults to 1):
            Largest number of clips in a forward pass.
        num_workers (`int`, *optional*, defaults to 0):
            Number of decoding processes.
        accelerator (`Accelerator`, *optional*):
            The processes that share the key-frames. Defaults to this process alone.
        mixed_precision (`str`, *optional*):
            `"bf16"` or `"fp16"` for autocast.
        timeout (`float`, *optional*, defaults to 300.0):
            Seconds after which workers that do not answer are considered hung.
        progress (`bool`, *optional*, defaults to `False`):
            Whether to show a progress bar.

    Returns:
        [`ActionDetectionResult`]

    Raises:
        ValueError: annotations and boxes have no key-frame in common, or labels do not match those of the model.
    """
    started = time.perf_counter()
    label_names = [model.config.id2label[index] for index in range(model.config.num_labels)]
    truth, listed = truth.with_label_names(label_names), excluded_keys(excluded)
    kept = [row for row in truth.rows if timestamp_key(row, offset) not in listed]
    rows = kept if people is None else detected_people(people, kept, person_threshold, listed, offset)
    boxes = "ground truth: an upper bound"
    if people is not None:
        boxes = f"detected people with a score of at least {person_threshold:g}"
    rank, world = (0, 1) if accelerator is None else (accelerator.process_index, accelerator.num_processes)
    bad: list[BadVideo] = []
    stream = ClipStream(
        truth.of_rows([replace(row, labels=((),) * len(row.boxes)) for row in rows]),
        WholeFrameLoader(processor),
        1,
        seed=None,
        rank=rank,
        world=world,
        num_workers=num_workers,
        timeout=timeout,
        on_bad_video=bad.append,
    )
    answers = gathered(list(_answers(model, stream, batch_size, mixed_precision, progress and rank == 0)), accelerator)
    failures = sorted(
        gathered([(one.position * world + rank, one) for one in bad], accelerator), key=lambda one: one[0]
    )
    result = _collected(rows, answers, label_names, processor.use_person_score)
    result.failed = [{"id": one.id, "reason": one.reason, "kind": one.kind} for _, one in failures]
    score_action_detection(result, kept, model.config.detection_config.evaluated_labels, metric)
    result.boxes, result.missing = boxes, truth.missing | ({} if people is None else people.missing)
    settings = {"metric": metric, "boxes": boxes, "excluded_key_frames": truth.num_samples - len(kept)}
    result.protocol = describe_protocol(model, processor) | settings
    result.manifest = key_frame_hash(kept, rows)
    result.environment = describe_environment(model, world)
    result.seconds = time.perf_counter() - started
    if result.failed:
        logger.warning(f"The videos of {len(result.failed)} of {len(rows)} key-frames could not be read")
    return result


def key_frame_hash(truth: Iterable[KeyFrame], scored: Iterable[KeyFrame]) -> str:
    """
    Hash of the annotations and boxes that a result was measured on. Folders of the videos do not matter, nor the order
    of the key-frames.

    Args:
        truth (`Iterable[KeyFrame]`):
            The annotations.
        scored (`Iterable[KeyFrame]`):
            The key-frames with the boxes that were scored.

    Returns:
        `str`: SHA-256 in hexadecimal.
    """
    lines = []
    for name, rows in (("annotated", truth), ("scored", scored)):
        for row in rows:
            facts = [name, video_name(row.video), round(row.time, 6), row.width, row.height, row.boxes.tolist()]
            scores = None if row.scores is None else row.scores.tolist()
            lines.append(json.dumps([*facts, *([row.labels] if name == "annotated" else [scores])]))
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def excluded_keys(path: str | Path | None) -> set[str]:
    """
    The key-frames of a file of excluded ones.

    Args:
        path (`str`, `Path` or `None`):
            csv of video and timestamp.

    Returns:
        `set[str]`: `"video,0902"`.
    """
    return set() if path is None else set(read_excluded(path).tolist())


def timestamp_key(row: KeyFrame, offset: float) -> str:
    """
    A key-frame as AVA's files name it.

    Args:
        row ([`KeyFrame`]):
            The key-frame.
        offset (`float`):
            Timestamp of the start of the video, in seconds.

    Returns:
        `str`: `"video,0902"`.
    """
    return f"{video_name(row.video)},{int(round(row.time + offset, 6)):04d}"


def detected_people(
    people: KeyFrameSource, truth: Sequence[KeyFrame], threshold: float, excluded: set[str], offset: float
) -> list[KeyFrame]:
    """
    The people that are scored.

    Args:
        people ([`KeyFrameSource`]):
            Detected people, with `scores`.
        truth (`Sequence[KeyFrame]`):
            Annotated key-frames.
        threshold (`float`):
            Lowest score.
        excluded (`set[str]`):
            See [`excluded_keys`].
        offset (`float`):
            See [`timestamp_key`].

    Returns:
        `list[KeyFrame]`: key-frames with at least one person.

    Raises:
        ValueError: a row has no `scores`, or no key-frame is annotated.
    """
    unscored = next((row for row in people.rows if row.scores is None), None)
    if unscored is not None:
        raise ValueError(f"Detected people must have `scores`, {key_frame_id(unscored)} has none")
    rows = []
    for row in people.rows:
        assert row.scores is not None
        sure = np.flatnonzero(row.scores >= threshold)
        if len(sure) and timestamp_key(row, offset) not in excluded:
            rows.append(row.select(sure))
    annotated, found = ({key_frame_id(row) for row in part} for part in (truth, rows))
    shared = len(annotated & found)
    if not shared:
        example = next(iter(found), "none")
        raise ValueError(
            f"No annotated key-frame has a detected person: the annotations have {next(iter(annotated), 'none')!r}, "
            f"the detections {example!r}"
        )
    if shared < LEAST_COMMON * len(annotated):
        logger.warning(f"Only {shared} of {len(annotated)} annotated key-frames have a detected person")
    return rows


def score_action_detection(
    result: ActionDetectionResult, truth: Sequence[KeyFrame], evaluated: Sequence[int] | None, metric: str = "ava"
) -> None:
    """
    Fill `metrics` and `per_class` of a result.

    Args:
        result ([`ActionDetectionResult`]):
            The predictions.
        truth (`Sequence[KeyFrame]`):
            The annotations.
        evaluated (`Sequence[int]` or `None`):
            Labels that are scored; `None` for all.
        metric (`str`, *optional*, defaults to `"ava"`):
            See [`frame_average_precision`].
    """
    names = result.label_names
    labels = list(range(len(names))) if evaluated is None else list(evaluated)
    keys = {key_frame_id(row): index for index, row in enumerate(result.rows)}
    for row in truth:
        keys.setdefault(key_frame_id(row), len(keys))
    found = frame_average_precision(
        truth_table(truth, keys, names), _prediction_table(result, keys), labels, protocol=metric
    )
    precisions = found.average_precision
    result.metrics = {"mAP": found.mean}
    if names == published_labels("ava"):
        for group in GROUPS:
            numbers = [precisions[row] for row in ava_rows(group) if not np.isnan(precisions.get(row, np.nan))]
            result.metrics[f"mAP_{group}"] = float(np.mean(numbers)) if numbers else float("nan")
    result.per_class = [
        {
            "label": names[label],
            "boxes": found.num_boxes[label],
            "average_precision": None if np.isnan(precisions[label]) else precisions[label],
        }
        for label in labels
    ]


def truth_table(rows: Sequence[KeyFrame], keys: Mapping[str, int], label_names: Sequence[str]) -> BoxTable:
    """
    Annotations as a table, boxes as shares of width and height.

    Args:
        rows (`Sequence[KeyFrame]`):
            The annotations.
        keys (`Mapping[str, int]`):
            Number of each key-frame, by [`key_frame_id`].
        label_names (`Sequence[str]`):
            Labels in order.

    Returns:
        [`BoxTable`]
    """
    numbers = {name: index for index, name in enumerate(label_names)}
    entries = [
        (keys[key_frame_id(row)], box, numbers[name])
        for row in rows
        for box, names in zip(_shares(row), row.labels)
        for name in names
    ]
    columns = list(zip(*entries)) if entries else [(), (), ()]
    boxes = np.array(columns[1], dtype=np.float64).reshape(-1, 4)
    return BoxTable(np.array(columns[0], dtype=np.int64), boxes, np.array(columns[2], dtype=np.int64))


def _shares(row: KeyFrame) -> np.ndarray:
    return np.clip(row.boxes / [row.width, row.height, row.width, row.height], 0, 1)


def _prediction_table(result: ActionDetectionResult, keys: Mapping[str, int]) -> BoxTable:
    """One row for each person and label."""
    count = len(result.label_names)
    people = [len(row.boxes) for row in result.rows]
    numbers = np.array([keys[key_frame_id(row)] for row in result.rows], dtype=np.int64)
    boxes = np.concatenate([np.zeros((0, 4)), *map(_shares, result.rows)])
    scores = np.concatenate([np.zeros((0, count), np.float32), *result.scores])
    return BoxTable(
        np.repeat(numbers, np.array(people, dtype=np.int64) * count),
        np.repeat(boxes, count, axis=0),
        np.tile(np.arange(count), sum(people)),
        scores.ravel().astype(np.float64),
    )


Answer = tuple[int, np.ndarray, np.ndarray]


def _answers(
    model: PreTrainedModel, stream: ClipStream, batch_size: int, mixed_precision: str | None, progress: bool
) -> Iterator[Answer]:
    """Answers of this process: place in the data's order, indices of the boxes kept, and their scores."""
    waiting: list[tuple[int, dict[str, torch.Tensor]]] = []
    with evaluation_mode(model):
        for batch in tqdm(stream.epoch(0), total=stream.num_batches(), desc="evaluating", disable=not progress):
            place = stream.source.place(batch.positions[0], stream.rank, stream.world)
            rows = {name: value[0] for name, value in batch.rows.items()}
            other = waiting and waiting[0][1]["pixel_values"].shape != rows["pixel_values"].shape
            if other or len(waiting) == batch_size:
                yield from _scored(model, waiting, mixed_precision)
                waiting = []
            waiting.append((place, rows))
        if waiting:
            yield from _scored(model, waiting, mixed_precision)


def _scored(
    model: PreTrainedModel, waiting: Sequence[tuple[int, dict[str, torch.Tensor]]], mixed_precision: str | None
) -> Iterator[Answer]:
    device = model.device
    inputs = {name: torch.stack([rows[name] for _, rows in waiting]).to(device) for name in ("pixel_values", "sizes")}
    boxes = [rows["boxes"].to(device) for _, rows in waiting]
    pixel_values = inputs["pixel_values"].to(model.dtype)
    with torch.inference_mode(), autocast_of(device, mixed_precision):
        outputs = model(pixel_values=pixel_values, boxes=boxes, sizes=inputs["sizes"])
    for (place, rows), own, scores in zip(waiting, boxes, outputs.probabilities.float().cpu()):
        yield place, rows["kept_boxes"].numpy(), scores[: len(own)].numpy()


def _collected(
    rows: Sequence[KeyFrame], answers: Sequence[Answer], label_names: list[str], weighted: bool
) -> ActionDetectionResult:
    """The answers in the data's order, each once."""
    by_place = {place: (kept, scores) for place, kept, scores in answers}
    chosen, all_scores = [], []
    for place in sorted(by_place):
        kept, scores = by_place[place]
        row = rows[place].select(kept)
        if weighted and row.scores is not None:
            scores = scores * row.scores[:, None].astype(scores.dtype)
        chosen.append(row)
        all_scores.append(scores)
    return ActionDetectionResult(chosen, all_scores, label_names)


__all__ = [
    "ActionDetectionResult",
    "detected_people",
    "evaluate_action_detection",
    "excluded_keys",
    "key_frame_hash",
    "score_action_detection",
    "timestamp_key",
    "truth_table",
]
