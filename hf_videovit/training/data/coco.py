"""
COCO with videos: `videos`, `images` with `video_id` and `frame_id`, `annotations` with `track_id`.

An annotation has one category, so a person with several actions has several annotations with one box. They are merged
by track, or by box where there are no tracks. Actions are categories, or attributes that are true.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...files import parse_json, read_text
from .key_frames import DIGITS, KeyFrame, KeyFrames, merge_people


# Attributes of CVAT's export that are no actions.
STATES = ("occluded", "keyframe", "outside", "track_id", "rotation", "crowd")
IN_SHARES = "boxes as shares of width and height where pixels are meant"
DIFFERENT_BOXES = "annotations of one person whose boxes differ"


def read_coco(
    path: str | os.PathLike,
    fps: float | Mapping[str, float] | None = None,
    video: str | None = None,
    person_label: str | None = "person",
) -> KeyFrames:
    """
    Read key-frames.

    Args:
        path (`str` or `os.PathLike`):
            The file.
        fps (`float` or `Mapping[str, float]`, *optional*):
            Frames per second, of all videos or by name. By default that of the file's `videos`. An image's own `time`
            in seconds comes first.
        video (`str`, *optional*):
            Name of the video, for files without `videos`. By default the folder of each image's `file_name`.
        person_label (`str`, *optional*, defaults to `"person"`):
            Category that is no action.

    Returns:
        [`KeyFrames`]: key-frames with at least one person, by video and frame.

    Raises:
        ValueError: the file is not of that format, or an image has neither a time nor a frame and a rate.
    """
    content = parse_json(read_text(path, "`path`"), f"`path` {os.fspath(path)!r}")
    try:
        categories = {one["id"]: str(one["name"]) for one in content["categories"]}
        videos = {one["id"]: one for one in content.get("videos", [])}
        images = {one["id"]: one for one in content["images"]}
        annotations = content["annotations"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is not COCO: {error} is missing") from error
    entries: dict[Any, list[dict[str, Any]]] = {}
    skipped: Counter[str] = Counter()
    for entry in annotations:
        reason = _fault(entry, images, categories)
        if reason:
            skipped[reason] += 1
        else:
            entries.setdefault(entry["image_id"], []).append(entry)
    rows = []
    for image_id, found in entries.items():
        image = images[image_id]
        parts = [_part(entry, categories, person_label) for entry in found]
        merged = sorted(merge_people(parts), key=lambda one: np.inf if one[0] is None else one[0])
        people, boxes, labels, differs = zip(*merged)
        if any(differs):
            skipped[DIFFERENT_BOXES] += sum(differs)
        name, rate = _video(path, image, videos, video, fps)
        time, frame = _time(path, image, rate)
        row = KeyFrame(name, time, int(image["width"]), int(image["height"]), np.stack(boxes), labels, people, frame)
        rows.append(row)
    order = {name: place for place, name in enumerate(dict.fromkeys(row.video for row in rows))}
    return KeyFrames(sorted(rows, key=lambda row: (order[row.video], row.time)), skipped)


def _fault(entry: dict[str, Any], images: Mapping[Any, Any], categories: Mapping[Any, str]) -> str:
    if entry.get("image_id") not in images:
        return "annotations of unknown images"
    if entry.get("category_id") not in categories:
        return "annotations of unknown categories"
    box: list[Any] = list(entry.get("bbox") or ())
    numbers = len(box) == 4 and all(isinstance(one, (int, float)) for one in box)
    if not numbers or not np.isfinite(box).all() or min(box[2:]) <= 0:
        return "annotations without a box"
    sizes = [images[entry["image_id"]].get(name) for name in ("width", "height")]
    if not all(isinstance(size, (int, float)) and size > 0 for size in sizes):
        return "annotations of images without width and height"
    if min(sizes) > 1 and max(box[0] + box[2], box[1] + box[3]) <= 1 and any(value % 1 for value in box):
        return IN_SHARES
    return "crowds" if entry.get("iscrowd") else ""


def _part(
    entry: dict[str, Any], categories: Mapping[Any, str], person_label: str | None
) -> tuple[int | None, np.ndarray, set[str]]:
    """Person, box and labels of one annotation."""
    attributes = entry.get("attributes") or {}
    person = next((one["track_id"] for one in (entry, attributes) if one.get("track_id") is not None), None)
    names = {name for name, value in attributes.items() if value is True and name not in STATES}
    if categories[entry["category_id"]] != person_label:
        names.add(categories[entry["category_id"]])
    x, y, width, height = map(float, entry["bbox"])
    return None if person is None else int(person), np.array([x, y, x + width, y + height]), names


def _video(
    path: str | os.PathLike,
    image: dict[str, Any],
    videos: Mapping[Any, dict[str, Any]],
    name: str | None,
    fps: float | Mapping[str, float] | None,
) -> tuple[str, float | None]:
    """Name of the video of an image, and its rate."""
    listed = videos.get(image.get("video_id"), {})
    folder = str(image.get("file_name", "")).rpartition("/")[0]
    found = name or listed.get("file_name") or listed.get("name") or folder
    if not found:
        raise ValueError(
            f"{path}: image {image['id']} does not name its video; add `videos` to the file, or give the one video"
        )
    rate = fps.get(found) if isinstance(fps, Mapping) else fps
    return found, rate or listed.get("fps")


def _time(path: str | os.PathLike, image: dict[str, Any], rate: float | None) -> tuple[float, int | None]:
    frame = image.get("frame_id")
    if image.get("time") is not None:
        return float(image["time"]), None if frame is None else int(frame)
    if frame is None or not rate:
        raise ValueError(f"{path}: image {image['id']} has no time, and no frame_id of a video with fps; give `fps`")
    return int(frame) / float(rate), int(frame)


def write_coco(
    path: str | os.PathLike,
    rows: Iterable[KeyFrame],
    label_names: Sequence[str] | None = None,
    fps: float | Mapping[str, float] | None = None,
    person_label: str = "person",
) -> Path:
    """
    Write key-frames: one annotation for each person and label, with `score` for predictions. People without a label
    get one annotation of the category `person_label`.

    Args:
        path (`str` or `os.PathLike`):
            The file.
        rows (iterable of [`KeyFrame`]):
            The key-frames.
        label_names (`Sequence[str]`, *optional*):
            Names of all labels, in the order of their ids from 1; those that occur by default.
        fps (`float` or `Mapping[str, float]`, *optional*):
            Frames per second, of all videos or by name.
        person_label (`str`, *optional*, defaults to `"person"`):
            Category of people without a label, the last one.

    Returns:
        `Path`: the file.

    Raises:
        ValueError: a name is not in `label_names`.
    """
    rows = list(rows)
    used = KeyFrames(rows).label_names
    names = used if label_names is None else list(label_names)
    if set(used) - set(names):
        raise ValueError(f"`label_names` lacks {', '.join(sorted(set(used) - set(names)))}")
    numbers = {name: number for number, name in enumerate([*names, person_label], start=1)}
    videos: dict[str, dict[str, Any]] = {}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for row in rows:
        size = {"width": row.width, "height": row.height}
        rate = fps.get(row.video) if isinstance(fps, Mapping) else fps
        listed = {"id": len(videos) + 1, "file_name": row.video, **size, **({"fps": rate} if rate else {})}
        video_id = videos.setdefault(row.video, listed)["id"]
        frame = {} if row.frame is None else {"frame_id": row.frame}
        place = {"video_id": video_id, **frame, "time": round(row.time, DIGITS)}
        name = f"{row.video}/{row.frame if row.frame is not None else f'{row.time:.3f}'}.jpg"
        images.append({"id": len(images) + 1, **place, **size, "file_name": name})
        for entry in _annotations(row, numbers, person_label):
            annotations.append({"id": len(annotations) + 1, "image_id": len(images), **entry})
    categories = [{"id": number, "name": name} for name, number in numbers.items()]
    content = {
        "videos": list(videos.values()),
        "images": images,
        "categories": categories,
        "annotations": annotations,
    }
    Path(path).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return Path(path)


def _annotations(row: KeyFrame, numbers: Mapping[str, int], person_label: str) -> Iterable[dict[str, Any]]:
    for index, (box, names, person) in enumerate(zip(row.boxes, row.labels, row.person_ids)):
        x, y, width, height = np.round([*box[:2], *(box[2:] - box[:2])], DIGITS).tolist()
        shape = {"bbox": [x, y, width, height], "area": round(width * height, DIGITS), "iscrowd": 0}
        track = {} if person is None else {"track_id": person}
        for place, name in enumerate(names or (person_label,)):
            score = {"score": row.label_scores[index][place]} if row.label_scores is not None and names else {}
            yield {"category_id": numbers[name], **track, **shape, **score}


__all__ = ["read_coco", "write_coco"]
