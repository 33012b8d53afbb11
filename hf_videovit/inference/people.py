"""
People in the answers of action detection: where they are, who is who from key-frame to key-frame, and what each does
over time.

Linking is by overlap alone. A person who is out of sight for longer than `max_gap` key-frames comes back as another.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.ops import box_iou


PERSON = "person"
SMOOTHING = 3  # key-frames that a score is averaged over
END_SHARE = 0.7  # an action ends below this share of the threshold

Detector = Callable[[list[Image.Image]], Sequence[Any]]


def person_detector(detector: Any, device: Any = None) -> Detector:
    """
    A detector of people as a function of images.

    Args:
        detector (`str`, `ObjectDetectionPipeline` or callable):
            Folder or Hub id of an object detector of transformers, its pipeline, or a function that takes a list of
            PIL images and returns, for each, boxes `(num_boxes, 4)` in pixels (x1, y1, x2, y2), or a tuple of boxes
            and scores.
        device (*optional*):
            Where a detector given by name runs.

    Returns:
        A function from a list of images to a list of `(boxes, scores)`.

    Raises:
        ValueError: the detector has no label "person".
    """
    if isinstance(detector, str):
        from transformers import pipeline

        detector = pipeline("object-detection", model=detector, device=device)
    if getattr(detector, "task", None) != "object-detection":
        return detector
    labels = [label for label in detector.model.config.id2label.values() if label.lower() == PERSON]
    if not labels:
        known = ", ".join(map(str, list(detector.model.config.id2label.values())[:5]))
        raise ValueError(f'`person_detector` must have a label "person", got a model with {known}, ...')

    def detect(images: list[Image.Image]) -> list[Any]:
        answers = detector(images, threshold=0.0)
        people = [[one for one in found if one["label"] in labels] for found in answers]
        return [
            ([[one["box"][name] for name in ("xmin", "ymin", "xmax", "ymax")] for one in found],
             [one["score"] for one in found])
            for found in people
        ]  # fmt: skip

    return detect


def detect_people(
    detector: Detector, images: list[Image.Image], threshold: float
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """
    Boxes around the people in images.

    Args:
        detector:
            See [`person_detector`].
        images (`list[PIL.Image.Image]`):
            Key-frames.
        threshold (`float`):
            Lowest score of a person.

    Returns:
        `list[tuple]`: boxes `(num_boxes, 4)` and scores `(num_boxes,)` of each image.

    Raises:
        ValueError: the detector does not answer once for each image.
    """
    answers = list(detector(images))
    if len(answers) != len(images):
        raise ValueError(
            f"`person_detector` must answer for each of {len(images)} images, got {len(answers)} answers."
        )
    people = []
    for answer in answers:
        boxes, scores = boxes_and_scores(answer)
        kept = scores >= threshold
        people.append((boxes[kept], scores[kept]))
    return people


def boxes_and_scores(people: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Boxes with or without scores as two tensors.

    Args:
        people:
            Boxes `(num_boxes, 4)`, a tuple of boxes and scores, or a dictionary of `boxes` and `scores`. Boxes without
            scores have the score 1.

    Returns:
        `tuple`: boxes `(num_boxes, 4)` and scores `(num_boxes,)` in float32.

    Raises:
        ValueError: boxes are not four numbers each, or the number of scores is not that of the boxes.
    """
    boxes, scores = people, None
    if isinstance(people, dict):
        boxes, scores = people["boxes"], people.get("scores")
    elif isinstance(people, tuple) and len(people) == 2:
        boxes, scores = people
    found = np.asarray(boxes, dtype=np.float32)
    if found.size and (found.ndim != 2 or found.shape[1] != 4):
        raise ValueError(f"`boxes` must have shape (num_boxes, 4), got {found.shape}.")
    corners = torch.as_tensor(found).reshape(-1, 4)
    given = torch.ones(len(corners)) if scores is None else torch.as_tensor(np.asarray(scores, dtype=np.float32))
    if given.shape != (len(corners),):
        raise ValueError(f"`scores` must be one for each of {len(corners)} boxes, got {tuple(given.shape)}.")
    return corners, given


def parse_boxes_by_time(found: Any) -> dict[float, Any]:
    """
    Boxes by key-frame, as JSON has them.

    Args:
        found (`Any`):
            A JSON object `{seconds: boxes}`; boxes as for `pipeline("action-detection")`.

    Returns:
        `dict[float, Any]`: boxes by seconds.

    Raises:
        ValueError: it is no such object.
    """
    if not isinstance(found, dict):
        raise ValueError(f"boxes must be a JSON object {{seconds: boxes}}, got {type(found).__name__}")
    boxes = {}
    for time, people in found.items():
        try:
            boxes[float(time)] = people
            boxes_and_scores(people)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"boxes must be a JSON object {{seconds: boxes}} with boxes [x1, y1, x2, y2], got {time!r}: {people!r}"
            ) from error
    return boxes


def link_people(boxes: Sequence[torch.Tensor], min_overlap: float = 0.3, max_gap: int = 2) -> list[list[int]]:
    """
    Number people, the same number for the same person on successive key-frames.

    Boxes are matched to the last known boxes of people so that their overlaps add up to the most.

    Args:
        boxes (`Sequence[torch.Tensor]` of shapes `(num_boxes, 4)`):
            Boxes of each key-frame.
        min_overlap (`float`, *optional*, defaults to 0.3):
            Smallest intersection over union of a match.
        max_gap (`int`, *optional*, defaults to 2):
            Key-frames for which a person may be missing.

    Returns:
        `list[list[int]]`: a number for each box, in the order of first appearance.
    """
    from scipy.optimize import linear_sum_assignment

    known: dict[int, tuple[int, torch.Tensor]] = {}  # person -> last key-frame and box
    numbers, people = [], 0
    for frame, found in enumerate(boxes):
        recent = {person: box for person, (last, box) in known.items() if frame - last <= max_gap + 1}
        row: list[int | None] = [None] * len(found)
        if recent and len(found):
            overlaps = box_iou(torch.stack(list(recent.values())), found).numpy()
            for old, new in zip(*linear_sum_assignment(overlaps, maximize=True)):
                if overlaps[old, new] >= min_overlap:
                    row[new] = list(recent)[old]
        for index, box in enumerate(found):
            if row[index] is None:
                row[index], people = people, people + 1
            known[int(row[index])] = (frame, box)  # type: ignore[arg-type]  # every box has a number by now
        numbers.append([int(one) for one in row])  # type: ignore[arg-type]
    return numbers


def person_timelines(answers: Sequence[dict[str, Any]], threshold: float = 0.5) -> list[dict[str, Any]]:
    """
    Actions of each person over time.

    Scores are averaged over the last three key-frames. An action begins where the average reaches `threshold`, and
    ends where it falls below 0.7 of it or the person disappears.

    Args:
        answers (`Sequence[dict]`):
            Of the pipeline, with all labels: call it with `threshold=0.0, top_k=None`.
        threshold (`float`, *optional*, defaults to 0.5):
            Score at which an action begins.

    Returns:
        `list[dict]`: `person`, `label`, `start` and `end` in seconds and the mean `score`, by person and start.
    """
    tracks: dict[int, list[tuple[float, dict[str, float]]]] = {}
    for answer in answers:
        for person in answer["people"]:
            scores = {action["label"]: action["score"] for action in person["actions"]}
            tracks.setdefault(person["person_id"], []).append((answer["time"], scores))
    times = [answer["time"] for answer in answers]
    step = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    intervals = []
    for person, track in sorted(tracks.items()):
        for label in sorted({label for _, scores in track for label in scores}):
            series = [(time, scores.get(label, 0.0)) for time, scores in track]
            for start, end, score in _intervals(series, threshold, step):
                intervals.append({"person": person, "label": label, "start": start, "end": end, "score": score})
    return sorted(intervals, key=lambda one: (one["person"], one["start"], one["label"]))


def _intervals(series: list[tuple[float, float]], threshold: float, step: float) -> list[tuple[float, ...]]:
    """Start, end and mean score of each stretch above the threshold. A key-frame lasts until the next one."""
    found: list[tuple[float, ...]] = []
    open_scores: list[float] = []
    start = end = 0.0
    for index, (time, _) in enumerate(series):
        average = float(np.mean([score for _, score in series[max(index - SMOOTHING + 1, 0) : index + 1]]))
        if open_scores and average < END_SHARE * threshold:
            found.append((start, end, float(np.mean(open_scores))))
            open_scores = []
        if not open_scores and average >= threshold:
            start, open_scores = time, [average]
        elif open_scores:
            open_scores.append(average)
        if open_scores:
            end = time + step
    if open_scores:
        found.append((start, end, float(np.mean(open_scores))))
    return found
