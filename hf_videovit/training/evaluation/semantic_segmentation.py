"""Evaluation of semantic segmentation by the checkpoint's own protocol, and the same evaluation again."""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from accelerate import Accelerator
from rich.markup import escape
from rich.table import Column, Table
from tqdm.auto import tqdm
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation, PreTrainedModel
from transformers.utils import logging

from ...modeling.image_processing_uniformer_dense import UniFormerSegmenterImageProcessor
from ...modeling.semantic_protocol import label_probabilities
from ...modes import evaluation_mode
from ..data.bad_videos import BadVideo
from ..data.segmentation import IGNORED, SegmentationSource, WholeImageLoader, open_segmentation
from ..data.streaming import ClipStream
from .claims import Claim
from .evaluation import autocast_of, describe_environment, describe_protocol, gathered
from .metrics.pixels import pixel_confusion, pixel_scores
from .results import Result


logger = logging.get_logger(__name__)

Answer = tuple[str, str]  # name of an image, hash of its labels


@dataclass
class SegmentationResult(Result):
    """
    The scores of a model for semantic segmentation.

    Args:
        confusion (`np.ndarray` of shape `(num_labels, num_labels)`):
            Numbers of pixels, a row for each true label and a column for each predicted one.
        label_names (`list[str]`):
            Labels of the model.
        metrics (`dict[str, float]`, *optional*, defaults to `{}`):
            `mIoU`, `aAcc` and `mAcc`, see [`pixel_scores`].
        per_class (`list[dict]`, *optional*, defaults to `[]`):
            `label`, `pixels`, `iou` and `accuracy` (`None` where it does not count) of each label.
        num_images (`int`, *optional*, defaults to 0):
            Images that were scored.
        failed (`list[dict]`, *optional*, defaults to `[]`):
            Images that could not be read (`id`, `reason`, `kind`). They are not scored and not replaced.
        protocol (`dict`, *optional*, defaults to `{}`):
            Settings of the processor.
        manifest (`str`, *optional*):
            SHA-256 of names and labels of the scored images.
        environment (`dict`, *optional*, defaults to `{}`):
            Versions, device, command.
        seconds (`float`, *optional*, defaults to 0.0):
            Duration in seconds.
    """

    confusion: np.ndarray
    label_names: list[str]
    metrics: dict[str, float] = field(default_factory=dict)
    per_class: list[dict[str, Any]] = field(default_factory=list)
    num_images: int = 0
    failed: list[dict[str, Any]] = field(default_factory=list)
    protocol: dict[str, Any] = field(default_factory=dict)
    manifest: str | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.metrics, overlaps, accuracies = pixel_scores(self.confusion)
        pixels = self.confusion.sum(1)
        self.per_class = [
            {
                "label": name,
                "pixels": int(pixels[index]),
                "iou": None if np.isnan(overlaps[index]) else float(overlaps[index]),
                "accuracy": None if np.isnan(accuracies[index]) else float(accuracies[index]),
            }
            for index, name in enumerate(self.label_names)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Everything except the predictions, as plain values."""
        return {
            "metrics": self.metrics,
            "per_class": self.per_class,
            "num_images": self.num_images,
            "num_failed": len(self.failed),
            "failed": self.failed,
            "protocol": self.protocol,
            "manifest_sha256": self.manifest,
            "environment": self.environment,
            "seconds": round(self.seconds, 3),
        }

    def table(self) -> Table:
        """The labels that occur or are predicted as a table for `rich.print`, the worst first."""
        numbers = [Column(name, justify="right") for name in ("pixels", "IoU", "accuracy")]
        table = Table(Column("label", overflow="fold"), *numbers, box=None, pad_edge=False)
        for row in sorted((row for row in self.per_class if row["iou"] is not None), key=lambda one: one["iou"]):
            shares = ["" if row[name] is None else f"{100 * row[name]:.1f} %" for name in ("iou", "accuracy")]
            table.add_row(escape(row["label"]), str(row["pixels"]), *shares)
        return table


def evaluate_segmentation(
    model: PreTrainedModel,
    processor: UniFormerSegmenterImageProcessor,
    source: SegmentationSource,
    *,
    num_workers: int = 0,
    accelerator: Accelerator | None = None,
    mixed_precision: str | None = None,
    timeout: float = 300.0,
    progress: bool = False,
) -> SegmentationResult:
    """
    Evaluate a model for semantic segmentation, one image at a time. With several processes, each evaluates its share,
    and all get the complete result.

    Args:
        model (`PreTrainedModel`):
            A model for semantic segmentation, on the device to use.
        processor ([`UniFormerSegmenterImageProcessor`]):
            Processor of the model. Its fields are the protocol, see [`label_probabilities`].
        source ([`SegmentationSource`]):
            Images and masks.
        num_workers (`int`, *optional*, defaults to 0):
            Number of reading processes.
        accelerator (`Accelerator`, *optional*):
            The processes that share the images. Defaults to this process alone.
        mixed_precision (`str`, *optional*):
            `"bf16"` or `"fp16"` for autocast.
        timeout (`float`, *optional*, defaults to 300.0):
            Seconds after which workers that do not answer are considered hung.
        progress (`bool`, *optional*, defaults to `False`):
            Whether to show a progress bar.

    Returns:
        [`SegmentationResult`]

    Raises:
        ValueError: labels do not match those of the model.
    """
    started = time.perf_counter()
    label_names = [model.config.id2label[index] for index in range(model.config.num_labels)]
    source = source.with_label_names(label_names)
    rank, world = (0, 1) if accelerator is None else (accelerator.process_index, accelerator.num_processes)
    bad: list[BadVideo] = []
    stream = ClipStream(
        source,
        WholeImageLoader(processor, len(label_names)),
        1,
        seed=None,
        rank=rank,
        world=world,
        num_workers=num_workers,
        timeout=timeout,
        on_bad_video=bad.append,
    )
    confusion, answers = _counted(model, processor, stream, mixed_precision, progress and rank == 0)
    counts = gathered([confusion.cpu().numpy()], accelerator)
    answers = gathered(answers, accelerator)
    failures = sorted(
        gathered([(one.position * world + rank, one) for one in bad], accelerator), key=lambda one: one[0]
    )
    result = SegmentationResult(np.sum(counts, axis=0), label_names, num_images=len(answers))
    result.failed = [{"id": one.id, "reason": one.reason, "kind": one.kind} for _, one in failures]
    result.protocol = describe_protocol(model, processor)  # type: ignore[arg-type]
    result.environment = describe_environment(model, world)
    result.manifest = hashlib.sha256(json.dumps([label_names, sorted(answers)]).encode()).hexdigest()
    result.seconds = time.perf_counter() - started
    if result.failed:
        logger.warning(f"{len(result.failed)} of {source.num_samples} images could not be read and are not scored")
    return result


def _counted(
    model: PreTrainedModel,
    processor: UniFormerSegmenterImageProcessor,
    stream: ClipStream,
    mixed_precision: str | None,
    progress: bool,
) -> tuple[torch.Tensor, list[Answer]]:
    """Confusion matrix of this process's images on the device, and what identifies each."""
    number = model.config.num_labels
    confusion = torch.zeros(number, number, dtype=torch.long, device=model.device)
    answers: list[Answer] = []
    with evaluation_mode(model):
        for batch in tqdm(stream.epoch(0), total=stream.num_batches(), desc="evaluating", disable=not progress):
            labels = batch.rows["labels"][0]
            views = [batch.rows[f"view_{index}"][0] for index in range(len(processor.test_scales))]
            with autocast_of(model.device, mixed_precision):
                found = label_probabilities(model, processor, views, (labels.shape[0], labels.shape[1]))
            confusion += pixel_confusion(labels.to(model.device), found.argmax(0), number, IGNORED)
            answers.append((batch.ids[0], hashlib.sha256(labels.numpy().tobytes()).hexdigest()))
    return confusion, answers


@dataclass(frozen=True)
class SegmentationClaim(Claim):
    """
    The data of an evaluation of semantic segmentation, as `results.json` records them.

    Args:
        data (`str`):
            Images and masks, see [`open_segmentation`].
        split (`str`, *optional*):
            The split. Defaults to the first to evaluate on.
        data_root (`str`, *optional*):
            Folder that the paths of a list are relative to.
        max_samples (`int`, *optional*):
            Largest number of images; more are sampled by `seed`.
        seed (`int`, *optional*, defaults to 0):
            Seed of the run.
    """

    files: ClassVar[tuple[tuple[str, str], ...]] = (("data", "data"),)

    data: str
    split: str | None = None
    data_root: str | None = None
    max_samples: int | None = None
    seed: int = 0

    def open(self, label_names: Sequence[str] | None = None) -> SegmentationSource:
        """
        Open the images.

        Args:
            label_names (`Sequence[str]`, *optional*):
                Names of the labels, if the data has none.

        Returns:
            [`SegmentationSource`]

        Raises:
            ValueError: there are no such images.
        """
        source = open_segmentation(self.data, self.split, root=self.data_root, label_names=label_names)
        if source is None:  # no split to evaluate on: all are evaluated
            source = open_segmentation(self.data, "train", root=self.data_root, label_names=label_names)
        assert source is not None
        return source.sample(self.max_samples, self.seed)


def evaluate_segmenter(
    folder: str | os.PathLike, claim: SegmentationClaim, *, device: str = "cpu", **running: Any
) -> tuple[SegmentationResult, SegmentationSource]:
    """
    Do the evaluation of a claim.

    Args:
        folder (`str` or `os.PathLike`):
            Folder or Hub id of a model for semantic segmentation with its processor.
        claim ([`SegmentationClaim`]):
            The data.
        device (`str`, *optional*, defaults to `"cpu"`):
            Device of the model.
        running:
            Of [`evaluate_segmentation`].

    Returns:
        `tuple`: the result, and the images.
    """
    model = AutoModelForSemanticSegmentation.from_pretrained(folder).to(device)
    processor = AutoImageProcessor.from_pretrained(folder)
    source = claim.open([model.config.id2label[index] for index in range(model.config.num_labels)])
    return evaluate_segmentation(model, processor, source, **running), source


__all__ = [
    "SegmentationClaim",
    "SegmentationResult",
    "evaluate_segmentation",
    "evaluate_segmenter",
]
