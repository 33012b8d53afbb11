"""
Actions of people on key-frames, one row a key-frame: the JSON lines that training, evaluation and annotation share.

A row has a video, a time in seconds, the size that its boxes refer to, and for each person a box, names of labels and
a number. Boxes are corners x1, y1, x2, y2 in pixels; the lower right corner lies just outside (exclusive). Readers of
other formats (`ava_csv.py`, `proposals.py`, `cvat.py`, `coco.py`) give these rows, writers take them.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...modeling.video_decoding_types import VIDEO_SUFFIXES


DIGITS = 6  # of numbers in JSON lines: far below the precision of any annotation
NO_AREA = "boxes without area"


@dataclass(frozen=True, eq=False)
class KeyFrame:
    """
    The people on one key-frame.

    Args:
        video (`str`):
            File or name of the video.
        time (`float`):
            Time of the key-frame in the video, in seconds.
        width, height (`int`):
            Size of the frame that `boxes` refer to, in pixels. The video may have another: boxes scale with it.
        boxes (`np.ndarray` of shape `(num_people, 4)`):
            Corners x1, y1, x2, y2 in pixels, the second one exclusive.
        labels (`tuple[tuple[str, ...], ...]`):
            Names of the labels of each person, sorted.
        person_ids (`tuple[int | None, ...]`):
            Number of each person in the video; `None` where it is not known.
        frame (`int`, *optional*):
            Number of the key-frame in the video, from 0.
        scores (`np.ndarray` of shape `(num_people,)`, *optional*):
            Confidence of a detector that each box is a person.
        label_scores (`tuple[tuple[float, ...], ...]`, *optional*):
            Confidence of each of `labels`, for predictions.

    Raises:
        ValueError: the columns do not have one entry for each person.
    """

    video: str
    time: float
    width: int
    height: int
    boxes: np.ndarray
    labels: tuple[tuple[str, ...], ...]
    person_ids: tuple[int | None, ...]
    frame: int | None = None
    scores: np.ndarray | None = None
    label_scores: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self) -> None:
        count = len(self.boxes)
        if self.boxes.shape != (count, 4):
            raise ValueError(f"`boxes` must have 4 numbers for each person, got the shape {self.boxes.shape}")
        for name in ("labels", "person_ids", "scores", "label_scores"):
            column = getattr(self, name)
            if column is not None and len(column) != count:
                raise ValueError(f"`{name}` must have one entry for each of {count} boxes, got {len(column)}")
        if self.label_scores is not None and [*map(len, self.label_scores)] != [*map(len, self.labels)]:
            raise ValueError("`label_scores` must have one number for each of `labels`")

    def select(self, people: Sequence[int] | np.ndarray) -> "KeyFrame":
        """
        Some of the people.

        Args:
            people (`Sequence[int]` or `np.ndarray`):
                Their indices.

        Returns:
            [`KeyFrame`]
        """
        return replace(
            self,
            boxes=self.boxes[np.asarray(people, dtype=np.int64)],
            labels=tuple(self.labels[index] for index in people),
            person_ids=tuple(self.person_ids[index] for index in people),
            scores=None if self.scores is None else self.scores[np.asarray(people, dtype=np.int64)],
            label_scores=None if self.label_scores is None else tuple(self.label_scores[index] for index in people),
        )

    def above(self, threshold: float) -> "KeyFrame":
        """
        The labels of predictions that are confident enough, as if they were annotated.

        Args:
            threshold (`float`):
                Smallest score of a label.

        Returns:
            [`KeyFrame`] without `label_scores`. Everybody stays, with or without labels.

        Raises:
            ValueError: there are no `label_scores`.
        """
        if self.label_scores is None:
            raise ValueError(f"{self.video} at {self.time:g} s has no `label_scores`")
        pairs = zip(self.labels, self.label_scores)
        kept = (tuple(name for name, score in zip(*pair) if score >= threshold) for pair in pairs)
        return replace(self, labels=tuple(kept), label_scores=None)


@dataclass
class KeyFrames:
    """
    Key-frames as they are read from a file.

    Args:
        rows (`list[KeyFrame]`):
            Key-frames with at least one person, in the order of the file.
        skipped (`Counter[str]`, *optional*):
            Number of entries that were left out, by reason.
        missing (`Counter[str]`, *optional*):
            Number of entries of each video that the reader was not told of.
    """

    rows: list[KeyFrame]
    skipped: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)

    @property
    def label_names(self) -> list[str]:
        """Names of all labels that occur, sorted."""
        return sorted({name for row in self.rows for names in row.labels for name in names})


def read_key_frames(path: str | os.PathLike) -> KeyFrames:
    """
    Read JSON lines.

    Args:
        path (`str` or `os.PathLike`):
            A file with one object in each line: `video`, `time`, `width`, `height` and `boxes`, and optionally
            `labels`, `person_ids`, `frame`, `scores` and `label_scores`, as in [`KeyFrame`].

    Returns:
        [`KeyFrames`]

    Raises:
        ValueError: a line is not such an object; the message has its number.
    """
    rows = []
    with Path(path).open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    rows.append(_parse(json.loads(line)))
                except (KeyError, TypeError, ValueError) as error:
                    reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else error
                    raise ValueError(f"{path}, line {number}: {reason}") from error
    return KeyFrames(rows)


def _parse(row: dict[str, Any]) -> KeyFrame:
    if not isinstance(row, dict):
        raise ValueError("not an object")
    boxes = np.asarray(row["boxes"], dtype=np.float64)
    boxes = boxes.reshape(0, 4) if not boxes.size else boxes
    width, height = int(row["width"]), int(row["height"])
    if boxes.shape != (len(boxes), 4):
        raise ValueError(f"`boxes` must have 4 numbers for each person, got the shape {boxes.shape}")
    if not np.isfinite(boxes).all():
        raise ValueError("`boxes` must be finite numbers")
    if width < 1 or height < 1:
        raise ValueError(f"`width` and `height` must be those of the frame in pixels, got {width} and {height}")
    if min(width, height) > 1 and len(boxes) and boxes.max() <= 1 and (boxes % 1).any():
        raise ValueError("`boxes` must be pixels, these are shares of width and height")
    scores, label_scores = row.get("scores"), row.get("label_scores")
    labels, people = row.get("labels") or [()] * len(boxes), row.get("person_ids") or [None] * len(boxes)
    if any(isinstance(names, str) or not all(isinstance(name, str) for name in names) for names in labels):
        raise ValueError("`labels` must be a list of names for each person")
    return KeyFrame(
        str(row["video"]),
        float(row["time"]),
        width,
        height,
        boxes,
        tuple(tuple(names) for names in labels),
        tuple(None if person is None else int(person) for person in people),
        None if row.get("frame") is None else int(row["frame"]),
        None if scores is None else np.asarray(scores, dtype=np.float64),
        None if label_scores is None else tuple(tuple(map(float, one)) for one in label_scores),
    )


def write_key_frames(path: str | os.PathLike, rows: Iterable[KeyFrame]) -> Path:
    """
    Write JSON lines, see [`read_key_frames`]. The file appears when it is complete.

    Args:
        path (`str` or `os.PathLike`):
            The file.
        rows (iterable of [`KeyFrame`]):
            The key-frames.

    Returns:
        `Path`: the file.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(_as_dict(row), ensure_ascii=False) + "\n")
    os.replace(partial, path)
    return path


def _as_dict(row: KeyFrame) -> dict[str, Any]:
    result: dict[str, Any] = {"video": row.video}
    if row.frame is not None:
        result["frame"] = row.frame
    result |= {"time": round(row.time, DIGITS), "width": row.width, "height": row.height}
    result["boxes"] = row.boxes.round(DIGITS).tolist()
    result |= {"labels": [list(names) for names in row.labels], "person_ids": list(row.person_ids)}
    if row.scores is not None:
        result["scores"] = row.scores.round(DIGITS).tolist()
    if row.label_scores is not None:
        result["label_scores"] = [[round(score, DIGITS) for score in scores] for scores in row.label_scores]
    return result


@dataclass(frozen=True)
class BoxRows:
    """
    A table with one row for each box and label, as AVA's files have it. Rows of one key-frame, person and box are one
    person with several labels.

    Args:
        videos (`np.ndarray` of shape `(num_rows,)`):
            Names of the videos.
        times (`np.ndarray` of shape `(num_rows,)`):
            Times of the key-frames in the videos, in seconds.
        boxes (`np.ndarray` of shape `(num_rows, 4)`):
            Corners as shares of width and height, or in pixels.
        labels (`np.ndarray` of shape `(num_rows,)`, *optional*):
            Names; an empty name for a person without a label.
        person_ids (`np.ndarray` of shape `(num_rows,)`, *optional*):
            Numbers of people; negative where a person is not known.
        scores (`np.ndarray` of shape `(num_rows,)`, *optional*):
            Confidence of the labels, or of the people if there are no labels.
    """

    videos: np.ndarray
    times: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray | None = None
    person_ids: np.ndarray | None = None
    scores: np.ndarray | None = None

    def select(self, rows: np.ndarray) -> "BoxRows":
        """
        Some of the rows.

        Args:
            rows (`np.ndarray`):
                Indices, or a mask.

        Returns:
            [`BoxRows`]
        """
        columns = (self.videos, self.times, self.boxes, self.labels, self.person_ids, self.scores)
        return BoxRows(*(None if column is None else column[rows] for column in columns))  # type: ignore[arg-type]


def group_boxes(table: BoxRows, sizes: Mapping[str, tuple[int, int]], shares: bool = True) -> KeyFrames:
    """
    Rows of boxes and labels as key-frames, in the order of first appearance.

    Args:
        table ([`BoxRows`]):
            The rows.
        sizes (`Mapping[str, tuple[int, int]]`):
            Width and height of each video in pixels. Rows of other videos are counted as missing.
        shares (`bool`, *optional*, defaults to `True`):
            Whether boxes are shares of width and height. They are clipped to the frame, and boxes without area are
            left out.

    Returns:
        [`KeyFrames`]
    """
    known = np.array([name in sizes for name in table.videos], dtype=bool)
    missing = Counter(table.videos[~known].tolist())
    table = table.select(known)
    extent = np.array([sizes[name] * 2 for name in table.videos], dtype=np.float64).reshape(-1, 4)
    pixels = np.clip(table.boxes * extent if shares else table.boxes, 0, extent)
    solid = (pixels[:, 2:] > pixels[:, :2]).all(axis=1)
    skipped = Counter({NO_AREA: int((~solid).sum())} if not solid.all() else {})
    table, pixels = table.select(solid), pixels[solid]

    _, videos = np.unique(table.videos, return_inverse=True)
    frames = _appearance(np.stack([videos, table.times], axis=1))
    unknown = np.full(len(frames), -1)
    identity = unknown if table.person_ids is None else table.person_ids
    people = _appearance(np.column_stack([frames, identity, table.boxes]))
    order = np.lexsort((np.arange(len(frames)), people, frames))
    bounds = np.flatnonzero(np.diff(frames[order], prepend=-1, append=-1)) if len(order) else np.empty(0, int)
    rows = [
        _key_frame(table, pixels, people, order[start:end], sizes)
        for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist())
    ]
    return KeyFrames(rows, skipped, missing)


def _appearance(columns: np.ndarray) -> np.ndarray:
    """Number of each row's group of equal rows, groups counted in the order in which they first appear."""
    if not len(columns):
        return np.empty(0, np.int64)
    _, first, group = np.unique(columns, axis=0, return_index=True, return_inverse=True)
    place = np.empty(len(first), np.int64)
    place[np.argsort(first)] = np.arange(len(first))
    return place[group.ravel()]


def _key_frame(
    table: BoxRows, pixels: np.ndarray, people: np.ndarray, rows: np.ndarray, sizes: Mapping[str, tuple[int, int]]
) -> KeyFrame:
    """The key-frame of rows that are sorted by person."""
    starts = np.flatnonzero(np.diff(people[rows], prepend=-1))
    groups = np.split(rows, starts[1:])
    firsts = rows[starts]
    video = str(table.videos[firsts[0]])
    person_ids: tuple[int | None, ...] = (None,) * len(firsts)
    if table.person_ids is not None:
        person_ids = tuple(None if number < 0 else number for number in table.person_ids[firsts].tolist())
    labels: tuple[tuple[str, ...], ...] = ((),) * len(firsts)
    label_scores = None
    if table.labels is not None:
        named = [_sorted_labels(table.labels[group], table.scores, group) for group in groups]
        labels = tuple(names for names, _ in named)
        label_scores = tuple(scores for _, scores in named) if table.scores is not None else None
    person_scores = table.scores[firsts] if table.labels is None and table.scores is not None else None
    width, height = sizes[video]
    time = float(table.times[firsts[0]])
    return KeyFrame(
        video, time, width, height, pixels[firsts], labels, person_ids, scores=person_scores, label_scores=label_scores
    )


def _sorted_labels(
    names: np.ndarray, scores: np.ndarray | None, rows: np.ndarray
) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Labels of one person sorted by name, without empty and repeated ones; the highest score of each."""
    best: dict[str, float] = {}
    for name, score in zip(names.tolist(), [0.0] * len(names) if scores is None else scores[rows].tolist()):
        if name:
            best[name] = max(score, best.get(name, score))
    ordered = sorted(best)
    return tuple(ordered), tuple(best[name] for name in ordered)


def merge_people(parts: Iterable[tuple[int | None, np.ndarray, Iterable[str]]]) -> Iterator[tuple[Any, ...]]:
    """
    One person from several entries with one label each.

    Args:
        parts (iterable of `tuple`):
            Person (or `None`), box and names of labels of each entry. Entries without a person belong together if
            their boxes are equal to 0.01 pixel.

    Yields:
        `tuple`: person, first box, sorted names, and whether a later box of the person differs by more than a pixel.
    """
    people: dict[Any, tuple[int | None, np.ndarray, set[str], list[bool]]] = {}
    for person, box, names in parts:
        key = person if person is not None else tuple(np.round(box, 2))
        known = people.setdefault(key, (person, box, set(), []))
        known[2].update(names)
        known[3].append(bool(np.abs(known[1] - box).max() > 1))
    for person, box, found, differs in people.values():
        yield person, box, tuple(sorted(found)), any(differs)


def video_name(video: str) -> str:
    """
    Name of a video as AVA's files have it.

    Args:
        video (`str`):
            A path.

    Returns:
        `str`: the file's name without folder and suffix.
    """
    name = video.replace("\\", "/").rpartition("/")[2]
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in VIDEO_SUFFIXES else name


__all__ = [
    "BoxRows",
    "KeyFrame",
    "KeyFrames",
    "group_boxes",
    "merge_people",
    "read_key_frames",
    "video_name",
    "write_key_frames",
]
