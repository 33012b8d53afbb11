"""Evaluation of pose models by COCO's metric and the share of correct keypoints."""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from tqdm.auto import tqdm
from transformers import PreTrainedModel
from transformers.utils import logging

from ...dense.pose import decode_heatmaps, flip_test, keypoints_in_image
from ...files import parse_json, read_text
from ...modes import evaluation_mode
from ..data.bad_videos import BadVideo
from ..data.coco_images import ObjectSource, people
from ..data.pose_loading import PersonLoader
from ..data.streaming import ClipStream
from .evaluation import autocast_of, describe_environment, describe_protocol, gathered
from .metrics.coco import coco_metrics, correct_keypoints, keypoint_sigmas
from .object_results import ObjectResult, check_keypoints, failures_of, objects_hash


logger = logging.get_logger(__name__)

COUNTED = 0.2  # lowest score of a keypoint that counts for the score of its person
SAME_PERSON = 0.9  # similarity from which the weaker of two poses is dropped


def evaluate_pose(
    model: PreTrainedModel,
    processor: Any,
    truth: ObjectSource,
    *,
    found_people: str | Path | None = None,
    flip: bool = True,
    pck_threshold: float = 0.1,
    sigmas: Sequence[float] | None = None,
    batch_size: int = 1,
    num_workers: int = 0,
    accelerator: Accelerator | None = None,
    mixed_precision: str | None = None,
    timeout: float = 300.0,
    progress: bool = False,
) -> ObjectResult:
    """
    Evaluate a pose model on the boxes of people. With several processes, each evaluates its share, and all get the
    complete result. People in images that cannot be read stay in the metric: they count as missed.

    Args:
        model (`PreTrainedModel`):
            [`UniFormerForPoseEstimation`], on the device to use.
        processor (`VitPoseImageProcessor`):
            Processor of the model.
        truth ([`ObjectSource`]):
            The annotations, one sample an image.
        found_people (`str` or `Path`, *optional*):
            JSON with detected people as COCO's results. Without it the annotated boxes are used, which gives an upper
            bound.
        flip (`bool`, *optional*, defaults to `True`):
            Whether to average with the flipped crops, see [`flip_test`].
        pck_threshold (`float`, *optional*, defaults to 0.1):
            Distance of a correct keypoint as a share of the box's longer side.
        sigmas (`Sequence[float]`, *optional*):
            See [`keypoint_sigmas`].
        batch_size (`int`, *optional*, defaults to 1):
            Crops in a forward pass.
        num_workers (`int`, *optional*, defaults to 0):
            Number of reading processes.
        accelerator (`Accelerator`, *optional*):
            The processes that share the people. Defaults to this process alone.
        mixed_precision (`str`, *optional*):
            `"bf16"` or `"fp16"` for autocast.
        timeout (`float`, *optional*, defaults to 300.0):
            Seconds after which workers that do not answer are considered hung.
        progress (`bool`, *optional*, defaults to `False`):
            Whether to show a progress bar.

    Returns:
        [`ObjectResult`]: `AP`, `AP50`, ... and, with annotated boxes, `PCK`.

    Raises:
        ValueError: the keypoints are not those of the model, or a file does not fit.
    """
    started = time.perf_counter()
    names = [model.config.id2label[index] for index in range(model.config.num_labels)]
    check_keypoints(truth, names)
    deviations = keypoint_sigmas(names, sigmas)
    persons = people(truth, None if found_people is None else read_results(found_people))
    rank, world = (0, 1) if accelerator is None else (accelerator.process_index, accelerator.num_processes)
    bad: list[BadVideo] = []
    stream = ClipStream(
        persons,
        PersonLoader(processor),
        batch_size,
        seed=None,
        rank=rank,
        world=world,
        num_workers=num_workers,
        timeout=timeout,
        on_bad_video=bad.append,
    )
    answers = dict(gathered(list(_answers(model, stream, flip, mixed_precision, progress and rank == 0)), accelerator))
    entries = [_entry(persons, place, answers[place]) for place in sorted(answers)]
    if found_people is not None:
        entries = without_doubles(entries, deviations)
    found = ObjectResult(entries, len(truth))
    found.metrics, per_class = coco_metrics(truth, entries, "keypoints", deviations)
    found.per_class = [{"label": name, "average_precision": value} for name, value in per_class.items()]
    found.boxes = "ground truth: an upper bound" if found_people is None else "detected people"
    if found_people is None:
        found.metrics["PCK"] = _pck(persons, answers, pck_threshold)
    found.failed = failures_of(bad, stream, accelerator)
    settings = {"flip_test": flip, "pck_threshold": pck_threshold, "sigmas": deviations, "boxes": found.boxes}
    found.protocol = describe_protocol(model, processor) | settings
    found.manifest, found.environment = objects_hash(truth), describe_environment(model, world)
    found.seconds = time.perf_counter() - started
    if found.failed:
        logger.warning(f"{len(found.failed)} of {len(persons)} people could not be read; they count as missed")
    return found


def read_results(path: str | Path) -> list[dict[str, Any]]:
    """
    Read COCO's results.

    Args:
        path (`str` or `Path`):
            A JSON list of dictionaries.

    Returns:
        `list[dict]`

    Raises:
        ValueError: the file is no such list.
    """
    found = parse_json(read_text(path, "`people`"), f"`people` {str(path)!r}")
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ValueError(f"`people` {str(path)!r} must be a JSON list of detections, as COCO's results")
    return found


Answer = tuple[np.ndarray, np.ndarray]


def _answers(
    model: PreTrainedModel, stream: ClipStream, flip: bool, precision: str | None, progress: bool
) -> Iterator[tuple[int, Answer]]:
    """Keypoints and scores of this process's people, with their places in the order of the data."""
    with evaluation_mode(model):
        for batch in tqdm(stream.epoch(0), total=stream.num_batches(), desc="evaluating", disable=not progress):
            pixels = batch.rows["pixel_values"].to(model.device, model.dtype)
            with torch.inference_mode(), autocast_of(model.device, precision):
                heatmaps = flip_test(model, pixels) if flip else model(pixels).heatmaps
            places = [stream.source.place(position, stream.rank, stream.world) for position in batch.positions]
            size = (int(pixels.shape[-2]), int(pixels.shape[-1]))
            points, scores = decode_heatmaps(heatmaps.float().cpu(), size)
            samples: Any = [stream.source[place] for place in places]  # type: ignore[index]
            boxes = torch.tensor([one.objects[0]["bbox"] for one in samples], dtype=torch.float32)
            found = keypoints_in_image(points, boxes, size)
            yield from zip(places, zip(found.numpy(), scores.numpy()))


def _entry(persons: ObjectSource, place: int, answer: Answer) -> dict[str, Any]:
    """COCO's result of one person, whose score is that of the box times the mean of its sure keypoints."""
    points, scores = answer
    sample = persons[place]
    box = sample.objects[0]
    sure = scores[scores > COUNTED]
    return {
        "image_id": sample.image_id,
        "category_id": persons.categories[0]["id"],
        "keypoints": np.column_stack([points, scores]).astype(float).ravel().tolist(),
        "score": float(box.get("score", 1.0) * (sure.mean() if len(sure) else 0.0)),
        "area": float(box["bbox"][2] * box["bbox"][3]),
    }


def _pck(persons: ObjectSource, answers: Mapping[int, Answer], threshold: float) -> float:
    objects = [persons[index].objects[0] for index in range(len(persons))]
    truth = np.array([one["keypoints"] for one in objects], dtype=float).reshape(len(objects), -1, 3)
    found = np.full(truth[..., :2].shape, np.nan)
    for place, (points, _) in answers.items():
        found[place] = points
    return correct_keypoints(found, truth, np.array([max(one["bbox"][2:]) for one in objects]), threshold)


def without_doubles(entries: Sequence[dict[str, Any]], sigmas: Sequence[float]) -> list[dict[str, Any]]:
    """
    Drop poses of people who were detected more than once: the weaker of two whose similarity is above 0.9.

    Args:
        entries (`Sequence[dict]`):
            COCO's results with `area`.
        sigmas (`Sequence[float]`):
            See [`keypoint_sigmas`].

    Returns:
        `list[dict]`: those that are kept, in their order.
    """
    variances = (2 * np.array(sigmas)) ** 2
    kept: list[int] = []
    by_image: dict[Any, list[int]] = {}
    for index in sorted(range(len(entries)), key=lambda one: -entries[one]["score"]):
        own = np.array(entries[index]["keypoints"]).reshape(-1, 3)[:, :2]
        rivals = by_image.setdefault(entries[index]["image_id"], [])
        for rival in rivals:
            distances = ((np.array(entries[rival]["keypoints"]).reshape(-1, 3)[:, :2] - own) ** 2).sum(1)
            area = (entries[index]["area"] + entries[rival]["area"]) / 2 + np.spacing(1)
            if np.exp(-distances / variances / area / 2).mean() > SAME_PERSON:
                break
        else:
            rivals.append(index)
            kept.append(index)
    return [entries[index] for index in sorted(kept)]


__all__ = ["evaluate_pose", "read_results", "without_doubles"]
