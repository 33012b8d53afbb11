"""Evaluation of detectors of objects by COCO's metrics, with the checkpoint's own processor."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from tqdm.auto import tqdm
from transformers import PreTrainedModel
from transformers.utils import logging

from ...modeling.image_processing_uniformer_dense import UniFormerDetectorImageProcessor, paste_masks
from ...modes import evaluation_mode
from ..data.bad_videos import BadVideo
from ..data.coco_images import ObjectSource, coco_masks
from ..data.object_loading import WholeImageLoader
from ..data.streaming import ClipStream
from .evaluation import autocast_of, describe_environment, describe_protocol, gathered
from .metrics.coco import coco_metrics
from .object_results import ObjectResult, failures_of, objects_hash


logger = logging.get_logger(__name__)

PASTED = 16  # masks that are resized to an image at once
INSIDE = 0.5  # lowest probability of a mask's pixel


def evaluate_object_detection(
    model: PreTrainedModel,
    processor: UniFormerDetectorImageProcessor,
    truth: ObjectSource,
    *,
    batch_size: int = 1,
    num_workers: int = 0,
    accelerator: Accelerator | None = None,
    mixed_precision: str | None = None,
    timeout: float = 300.0,
    progress: bool = False,
) -> ObjectResult:
    """
    Evaluate a detector. Only images of equal size go through the model together, so the answers do not depend on the
    batch. With several processes, each evaluates its share, and all get the complete result. Images that cannot be
    read stay in the metric: their objects count as missed.

    Args:
        model (`PreTrainedModel`):
            [`UniFormerForObjectDetection`], on the device to use.
        processor ([`UniFormerDetectorImageProcessor`]):
            Processor of the model.
        truth ([`ObjectSource`]):
            The annotations, one sample an image.
        batch_size (`int`, *optional*, defaults to 1):
            Largest number of images in a forward pass.
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
        [`ObjectResult`]: `box_AP`, `box_AP50`, ... and, if the model has masks, `mask_AP`, ...

    Raises:
        ValueError: pycocotools is not installed, or the labels are not those of the model.
    """
    started = time.perf_counter()
    truth = truth.with_label_names([model.config.id2label[index] for index in range(model.config.num_labels)])
    rank, world = (0, 1) if accelerator is None else (accelerator.process_index, accelerator.num_processes)
    bad: list[BadVideo] = []
    stream = ClipStream(
        truth,
        WholeImageLoader(processor),
        1,
        seed=None,
        rank=rank,
        world=world,
        num_workers=num_workers,
        timeout=timeout,
        on_bad_video=bad.append,
    )
    answers = list(_answers(model, processor, stream, batch_size, mixed_precision, progress and rank == 0))
    ordered = sorted(gathered(answers, accelerator), key=lambda pair: pair[0])
    found = ObjectResult([entry for _, entries in ordered for entry in entries], len(truth))
    _score(found, truth, model.config.use_masks)
    found.failed = failures_of(bad, stream, accelerator)
    found.protocol = describe_protocol(model, processor) | {"score_threshold": model.config.score_threshold}
    found.manifest, found.environment = objects_hash(truth), describe_environment(model, world)
    found.seconds = time.perf_counter() - started
    if found.failed:
        logger.warning(f"{len(found.failed)} of {len(truth)} images could not be read; their objects count as missed")
    return found


def _score(found: ObjectResult, truth: ObjectSource, masks: bool) -> None:
    """Metrics of boxes, and of masks."""
    metrics, per_class = coco_metrics(truth, [_without(one, "segmentation") for one in found.predictions], "bbox")
    found.metrics = {f"box_{name}": value for name, value in metrics.items()}
    found.per_class = [{"label": name, "average_precision": value} for name, value in per_class.items()]
    if masks:
        # without boxes, so that a mask's size is that of its pixels, as MMDetection's evaluation has it
        metrics, _ = coco_metrics(truth, [_without(one, "bbox") for one in found.predictions], "segm")
        found.metrics |= {f"mask_{name}": value for name, value in metrics.items()}


def _without(entry: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != name}


def _answers(
    model: PreTrainedModel, processor: Any, stream: ClipStream, batch_size: int, precision: str | None, progress: bool
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """COCO's results of this process's images, with their places in the order of the data."""
    waiting: list[tuple[int, dict[str, torch.Tensor]]] = []
    with evaluation_mode(model):
        for batch in tqdm(stream.epoch(0), total=stream.num_batches(), desc="evaluating", disable=not progress):
            place = stream.source.place(batch.positions[0], stream.rank, stream.world)
            rows = {name: value[0] for name, value in batch.rows.items()}
            other = waiting and waiting[0][1]["pixel_values"].shape != rows["pixel_values"].shape
            if other or len(waiting) == batch_size:
                yield from _detected(model, processor, stream.source, waiting, precision)
                waiting = []
            waiting.append((place, rows))
        if waiting:
            yield from _detected(model, processor, stream.source, waiting, precision)


def _detected(
    model: PreTrainedModel, processor: Any, source: Any, waiting: Sequence[Any], precision: str | None
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    names, device = ("pixel_values", "pixel_mask"), model.device
    inputs = {name: torch.stack([rows[name] for _, rows in waiting]).to(device) for name in names}
    sizes = [tuple(rows["size"].tolist()) for _, rows in waiting]
    with torch.inference_mode(), autocast_of(device, precision):
        outputs = model(**inputs | {"pixel_values": inputs["pixel_values"].to(model.dtype)})
    answers = processor.post_process_object_detection(outputs, threshold=0.0, target_sizes=sizes)
    masks = outputs.pred_masks
    for index, ((place, _), answer) in enumerate(zip(waiting, answers)):
        sample = source[place]
        category = [one["id"] for one in source.categories]
        boxes, scores = answer["boxes"].float(), answer["scores"].tolist()
        corners = torch.cat((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), dim=1).tolist()
        entries = [
            {"image_id": sample.image_id, "category_id": category[label], "bbox": box, "score": score}
            for label, box, score in zip(answer["labels"].tolist(), corners, scores)
        ]
        if masks is not None:
            for entry, mask in zip(entries, _run_lengths(masks[index, : len(entries)].float(), boxes, sizes[index])):
                entry["segmentation"] = mask
        yield place, [entry for entry in entries if entry["category_id"] is not None]


def _run_lengths(masks: torch.Tensor, boxes: torch.Tensor, size: tuple[int, int]) -> Iterator[dict[str, Any]]:
    """Masks over boxes as COCO's compressed run lengths over the image."""
    for some, own in zip(masks.split(PASTED), boxes.split(PASTED)):
        pasted = (paste_masks(some, own, *size) >= INSIDE).cpu().numpy().astype(np.uint8)
        for one in pasted:
            found = coco_masks().encode(np.asfortranarray(one))
            yield {"size": list(size), "counts": found["counts"].decode()}


__all__ = ["evaluate_object_detection"]
