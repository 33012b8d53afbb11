"""
ActivityNet's files, which all data sets of temporal localisation use: segments with classes (`database`), and
predictions (`results`).
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...files import parse_json, plain_name, read_text


SAME_SECONDS = 1e-3  # annotations that differ by less are one
Annotation = tuple[float, float, Any]  # start, end, class


@dataclass
class SegmentTable:
    """
    Segments of several videos, one a row.

    Args:
        videos (`np.ndarray` of shape `(num_rows,)`):
            Name of the video.
        segments (`np.ndarray` of shape `(num_rows, 2)`):
            Start and end in seconds.
        labels (`np.ndarray` of shape `(num_rows,)`):
            Class.
        scores (`np.ndarray` of shape `(num_rows,)`, *optional*):
            Scores of predictions.
        class_names (`dict[int, str]`, *optional*):
            Names of the classes, where they are known.
        durations (`dict[str, float]`, *optional*):
            Length in seconds of every video, those without segments included.
        frame_rates (`dict[str, float]`, *optional*):
            Frames per second of the videos whose entry has them.
    """

    videos: np.ndarray
    segments: np.ndarray
    labels: np.ndarray
    scores: np.ndarray | None = None
    class_names: dict[int, str] = field(default_factory=dict)
    durations: dict[str, float] = field(default_factory=dict)
    frame_rates: dict[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.videos)


def segment_table(rows: Iterable[tuple[str, float, float, int, float | None]]) -> SegmentTable:
    """
    A table from its rows.

    Args:
        rows (`Iterable[tuple]`):
            Video, start, end, class, and score or `None`.

    Returns:
        [`SegmentTable`]
    """
    videos, starts, ends, labels, scores = zip(*rows) if (rows := list(rows)) else ((),) * 5
    segments = np.stack((np.array(starts, np.float64), np.array(ends, np.float64)), axis=1)
    known = None if any(score is None for score in scores) else np.array(scores, np.float64)
    return SegmentTable(np.array(videos, dtype=np.str_), segments, np.array(labels, np.int64), known)


def read_activitynet(
    source: str | os.PathLike | Mapping[str, Any], subset: str | None = None, tolerance: float | None = SAME_SECONDS
) -> SegmentTable:
    """
    Read true segments.

    Classes are numbered by `label_id`; files without it by the order of all their class names. They never depend on
    the subset.

    Args:
        source (`str`, `os.PathLike` or `Mapping[str, Any]`):
            A JSON file with `database`, or its content.
        subset (`str`, *optional*):
            Only videos of this subset, upper and lower case alike; all by default.
        tolerance (`float`, *optional*, defaults to 0.001):
            Annotations of one class whose starts and whose ends differ by no more seconds are one, and shorter ones
            are left out, as in ActionFormer's code. `None` keeps all, as in ActivityNet's.

    Returns:
        [`SegmentTable`]

    Raises:
        ValueError: the file has no `database`, the subset does not exist, a segment is not two finite numbers with
            the end after the start, or a duration or frame rate is not positive.
    """
    name, content = _read_json(source)
    database = content.get("database")
    if not isinstance(database, Mapping):
        raise ValueError(f"{name} has no `database`: it is not an annotation file of ActivityNet's form.")
    check_database(database, name)
    numbers = _class_numbers(database, name)
    subsets = {str(entry.get("subset", "")).lower() for entry in database.values()}
    if subset is not None and subset.lower() not in subsets:
        raise ValueError(f"`subset` must be one of {', '.join(sorted(subsets))}, got {subset!r}.")
    rows, durations, rates = [], {}, {}
    for video, entry in database.items():
        if subset is not None and str(entry.get("subset", "")).lower() != subset.lower():
            continue
        durations[video] = positive_number(entry.get("duration"), f"{name}: `duration` of {video}") or np.inf
        if rate := positive_number(entry.get("fps"), f"{name}: `fps` of {video}"):
            rates[video] = rate
        annotations = [
            (*segment_bounds(one, video, name), numbers[one["label"]]) for one in entry.get("annotations") or ()
        ]
        rows += [(video, *one, None) for one in distinct_segments(annotations, tolerance)]
    table = segment_table(rows)
    table.class_names = {number: label for label, number in numbers.items()}
    table.durations, table.frame_rates = durations, rates
    return table


def read_predictions(
    source: str | os.PathLike | Mapping[str, Any], class_names: Mapping[int, str] | None = None
) -> SegmentTable:
    """
    Read predicted segments.

    Args:
        source (`str`, `os.PathLike` or `Mapping[str, Any]`):
            A JSON file with `results`, or its content.
        class_names (`Mapping[int, str]`, *optional*):
            Names of the truth's classes. Predictions are matched by name, or by `label_id` where they have no name.
            Other names get numbers that no class has.

    Returns:
        [`SegmentTable`]: with scores.

    Raises:
        ValueError: the file has no `results`, a segment is not two finite numbers, or a class has neither name nor
            number.
    """
    name, content = _read_json(source)
    results = content.get("results")
    if not isinstance(results, Mapping):
        raise ValueError(f"{name} has no `results`: it is not a prediction file of ActivityNet's form.")
    numbers = {label: number for number, label in (class_names or {}).items()}
    unknown = 1 + max(numbers.values(), default=-1)
    rows = []
    for video, found in results.items():
        for one in found:
            label = one.get("label")
            if label in numbers:
                number = numbers[label]
            elif "label_id" in one or isinstance(label, int):
                number = int(one.get("label_id", label))
            elif label is not None:
                number = numbers[label] = unknown
                unknown += 1
            else:
                raise ValueError(f"{name}: a prediction of {video} has neither `label` nor `label_id`.")
            rows.append((video, *segment_bounds(one, video, name, ordered=False), number, float(one["score"])))
    table = segment_table(rows)
    table.scores = np.zeros(0) if table.scores is None else table.scores
    if not np.isfinite(table.scores).all():
        raise ValueError(f"{name}: scores must be finite numbers.")
    return table


def write_predictions(
    path: str | os.PathLike, results: Mapping[str, Mapping[str, Any]], class_names: Mapping[int, str]
) -> None:
    """
    Write predictions as the official tools read them.

    Args:
        path (`str` or `os.PathLike`):
            The JSON file.
        results (`Mapping[str, Mapping]`):
            For each video `segments` in seconds, `scores` and `labels`, as
            [`~TemporalLocalizationProcessor.post_process_temporal_localization`] gives them.
        class_names (`Mapping[int, str]`):
            Names of the classes, such as `config.id2label`.
    """
    entries = {
        video: [
            {"segment": [float(start), float(end)], "label": class_names[int(label)], "score": float(score)}
            for (start, end), label, score in zip(one["segments"], one["labels"], one["scores"])
        ]
        for video, one in results.items()
    }
    content = {"version": "VERSION 1.3", "results": entries, "external_data": {}}
    Path(path).write_text(json.dumps(content) + "\n", encoding="utf-8")


def read_class_scores(path: str | os.PathLike, label_names: Sequence[str]) -> dict[str, list[float]]:
    """
    Read the scores of a classifier of whole videos, which give classes to segments without any.

    Args:
        path (`str` or `os.PathLike`):
            JSON with `results`: for each video a list with the probability of each class. Where the file also lists
            the names of its classes (`class` or `classes`), they are matched by name.
        label_names (`Sequence[str]`):
            Classes of the data in order.

    Returns:
        `dict[str, list[float]]`: probabilities in the order of `label_names`.

    Raises:
        ValueError: the file is another one (a pickle, for instance), lacks a class, or has another number of scores.
    """
    if Path(path).suffix.lower() in (".pkl", ".pickle"):
        raise ValueError(f"`class_scores` {str(path)!r} is a pickle, which may run code: convert it to JSON")
    name, content = _read_json(path)
    results, listed = content.get("results"), content.get("classes", content.get("class"))
    if not isinstance(results, Mapping):
        raise ValueError(f"{name} has no `results`: it is not a file of class scores.")
    count = len(label_names if listed is None else listed)
    columns = range(count)
    if listed is not None:
        places = {plain_name(str(one)): index for index, one in enumerate(listed)}
        lacking = [one for one in label_names if plain_name(one) not in places]
        if lacking:
            raise ValueError(f"{name} has no scores of the classes {', '.join(lacking[:8])}.")
        columns = [places[plain_name(one)] for one in label_names]  # type: ignore[assignment]
    found = {}
    for video, scores in results.items():
        if not isinstance(scores, Sequence) or len(scores) != count:
            raise ValueError(f"{name}: {video} must have {count} scores.")
        found[video] = [float(scores[column]) for column in columns]
    return found


def _read_json(source: str | os.PathLike | Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Name for messages, and content."""
    if isinstance(source, Mapping):
        return "the given mapping", source
    path = Path(source)
    content = parse_json(read_text(path, "the file"), path.name)
    if not isinstance(content, Mapping):
        raise ValueError(f"{path.name} must hold a mapping, got {type(content).__name__}.")
    return path.name, content


def check_database(database: Mapping[str, Any], name: str) -> None:
    """
    Check that the entries of an annotation file have ActivityNet's form.

    Args:
        database (`Mapping[str, Any]`):
            Its videos.
        name (`str`):
            The file, for the error message.

    Raises:
        ValueError: an entry is no mapping, its annotations are no list of mappings, or one of them has no label.
    """
    for video, entry in database.items():
        annotations = entry.get("annotations") or [] if isinstance(entry, Mapping) else None
        if not isinstance(annotations, list):
            raise ValueError(f"{name}: {video} must be a mapping with a list of `annotations`, got {entry!r}.")
        for one in annotations:
            if not isinstance(one, Mapping) or not isinstance(one.get("label"), str) or not one["label"]:
                raise ValueError(f"{name}: an annotation of {video} needs a `label` and a `segment`, got {one!r}.")


def positive_number(value: Any, what: str) -> float | None:
    """
    A frame rate or a length.

    Args:
        value (`Any`):
            As a file has it.
        what (`str`):
            What it is, for the error message.

    Returns:
        `float` or `None`: `None` if there is no value.

    Raises:
        ValueError: it is not a positive number.
    """
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = np.nan
    if not 0 < number < np.inf:
        raise ValueError(f"{what} must be a positive number, got {value!r}.")
    return number


def _class_numbers(database: Mapping[str, Any], name: str) -> dict[str, int]:
    """Number of each class name in all subsets."""
    annotations = [one for entry in database.values() for one in entry.get("annotations") or ()]
    numbered = ["label_id" in one for one in annotations]
    if any(numbered) and not all(numbered):
        raise ValueError(f"{name}: `label_id` must be in all annotations or in none.")
    if not any(numbered):
        return {label: number for number, label in enumerate(sorted({one["label"] for one in annotations}))}
    numbers: dict[str, int] = {}
    for one in annotations:
        if numbers.setdefault(one["label"], int(one["label_id"])) != int(one["label_id"]):
            raise ValueError(f"{name}: class {one['label']!r} has several numbers (`label_id`).")
    return numbers


def segment_bounds(one: Mapping[str, Any], video: str, name: str, ordered: bool = True) -> tuple[float, float]:
    """
    Start and end of an annotation.

    Args:
        one (`Mapping[str, Any]`):
            The annotation, with `segment`.
        video (`str`):
            Its video, for the error message.
        name (`str`):
            The file, for the error message.
        ordered (`bool`, *optional*, defaults to `True`):
            Whether the end must come after the start.

    Returns:
        `tuple[float, float]`: in seconds.

    Raises:
        ValueError: the segment is not two finite numbers, or the end is not after the start.
    """
    try:
        start, end = (float(value) for value in one["segment"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{name}: a segment of {video} must be two numbers, got {one.get('segment')!r}.") from error
    if not np.isfinite((start, end)).all() or ordered and end < start:
        raise ValueError(f"{name}: a segment of {video} must be finite and end after it starts, got {[start, end]}.")
    return start, end


def distinct_segments(annotations: list[Annotation], tolerance: float | None = SAME_SECONDS) -> list[Annotation]:
    """
    Segments of a video without copies.

    Args:
        annotations (`list[tuple]`):
            Start, end and class of each.
        tolerance (`float` or `None`, *optional*, defaults to 0.001):
            See [`read_activitynet`].

    Returns:
        `list[tuple]`
    """
    if tolerance is None:
        return annotations
    kept: list[Annotation] = []
    for start, end, label in annotations:
        same = any(
            abs(start - other[0]) <= tolerance and abs(end - other[1]) <= tolerance and label == other[2]
            for other in kept
        )
        if not same and end - start >= tolerance:
            kept.append((start, end, label))
    return kept


__all__ = [
    "SegmentTable",
    "check_database",
    "distinct_segments",
    "positive_number",
    "read_activitynet",
    "read_class_scores",
    "read_predictions",
    "segment_bounds",
    "segment_table",
    "write_predictions",
]
