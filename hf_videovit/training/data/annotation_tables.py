"""
Annotation files as tables for `annotation_checks.py`: one row for each box and label, with its line. Reading forgives
what can be forgiven and notes the rest.
"""

import csv
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...files import parse_json, read_text
from .ava_csv import ava_labels
from .cvat import parse_cvat
from .proposals import ALPHACTION_FACTOR, read_plain_pickle


LEVELS = ("error", "warning")
FIRST_LINES = 10  # that a finding names


@dataclass(frozen=True)
class Finding:
    """
    One fault of a file.

    Args:
        level (`str`):
            `"error"` or `"warning"`.
        message (`str`):
            The fault, and how to mend it.
        count (`int`, *optional*, defaults to 0):
            Number of lines that have it; 0 if it is one of the whole file.
        lines (`tuple[int, ...]`, *optional*, defaults to `()`):
            The first of them: lines of a text file, entries of a JSON file or a pickle, counted from 1.
    """

    level: str
    message: str
    count: int = 0
    lines: tuple[int, ...] = ()

    def __str__(self) -> str:
        if not self.lines:
            return f"{self.level}: {self.message}"
        more = ", ..." if self.count > len(self.lines) else ""
        return f"{self.level}: {self.message} ({self.count}; line {', '.join(map(str, self.lines))}{more})"


@dataclass
class Report:
    """
    The faults that were found.

    Args:
        findings (`list[Finding]`, *optional*):
            The faults, in the order in which they were found.
    """

    findings: list[Finding] = field(default_factory=list)

    def add(self, level: str, message: str, lines: Iterable[int] | None = None) -> None:
        """
        Note a fault of some lines, or of the whole file. An empty list of lines is no fault.

        Args:
            level (`str`):
                `"error"` or `"warning"`.
            message (`str`):
                The fault.
            lines (iterable of `int`, *optional*):
                Lines that have it; the whole file by default.
        """
        found = None if lines is None else sorted({int(line) for line in lines})
        if found is None or found:
            count = len(found or ())
            self.findings.append(Finding(level, message, count, tuple((found or [])[:FIRST_LINES])))


@dataclass
class Table:
    """
    Boxes of any format, one row for each box and label.

    Args:
        lines (`np.ndarray` of shape `(num_rows,)`):
            Line or entry of each row.
        videos, times (`np.ndarray` of shape `(num_rows,)`):
            Key-frame of each row, in seconds as the file has them.
        boxes (`np.ndarray` of shape `(num_rows, 4)`):
            Corners as the file has them.
        extent (`np.ndarray` of shape `(num_rows, 2)`, *optional*):
            Width and height of the frame, for boxes in pixels.
        labels, people, scores (`np.ndarray` of shape `(num_rows,)`, *optional*):
            Numbers of labels and people, and confidences.
        whole_seconds (`bool`, *optional*, defaults to `True`):
            Whether key-frames are told apart by whole seconds.
    """

    lines: np.ndarray
    videos: np.ndarray
    times: np.ndarray
    boxes: np.ndarray
    extent: np.ndarray | None = None
    labels: np.ndarray | None = None
    people: np.ndarray | None = None
    scores: np.ndarray | None = None
    whole_seconds: bool = True


@dataclass(frozen=True)
class Expected:
    """
    Facts about a file that it does not tell itself.

    Args:
        labels (`Mapping[int, str]`, *optional*):
            Names of labels by number.
        movies (`Sequence[str]`, *optional*):
            Names of the movies by number, for AlphAction's files.
        scored (`bool`, *optional*, defaults to `False`):
            Whether it has predictions or detected people.
    """

    labels: Mapping[int, str] | None = None
    movies: Sequence[str] | None = None
    scored: bool = False


def load_table(path: str | os.PathLike, report: Report, expected: Expected) -> Table | None:
    """
    Read a file and note its faults.

    Args:
        path (`str` or `os.PathLike`):
            The file.
        report ([`Report`]):
            Receives the faults.
        expected ([`Expected`]):
            Facts about the file.

    Returns:
        [`Table`], or `None` if the file cannot be read.

    Raises:
        ValueError: the suffix is not that of an annotation file.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in LOADERS:
        raise ValueError(f"`path` must end in {', '.join(LOADERS)}, got {os.fspath(path)!r}")
    try:
        table = LOADERS[suffix](path, report, expected)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        report.add("error", f"it cannot be read: {reason}")
        return None
    if table is not None and not len(table.lines) and not report.findings:
        report.add("error", "it has no boxes")
    return table


# ---------------------------------------------------------------------- csv


def _load_csv(path: str | os.PathLike, report: Report, expected: Expected) -> Table:
    """AVA's csv and its relatives. Rows that are no numbers are noted and left out."""
    rows: list[tuple[int, list[str]]] = []
    wrong: list[int] = []
    with Path(path).open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        for words in reader:
            words = [word.strip() for word in words]
            empty = not any(words[2:])
            if words and not (empty and len(words) in (2, 7, 8)):  # a key-frame without a person is fine
                (rows.append((reader.line_num, words)) if len(words) in (7, 8) else wrong.append(reader.line_num))
    report.add("error", "rows must have 8 columns (AVA, SlowFast) or 7 (AVA-Kinetics), separated by commas", wrong)
    numbers = [_numbers(words) for _, words in rows]
    bad = [line for (line, _), values in zip(rows, numbers) if values is None]
    if bad and rows and bad[0] == rows[0][0] == 1:
        report.add("error", "the first row is a header; these files have none", bad[:1])
        bad = bad[1:]
    report.add("error", "timestamp, corners or label are no numbers", bad)
    kept = [(line, words, values) for (line, words), values in zip(rows, numbers) if values is not None]
    values = np.array([one[2] for one in kept], dtype=np.float64).reshape(-1, 6)
    table = Table(
        np.array([one[0] for one in kept], dtype=np.int64),
        np.array([one[1][0] for one in kept], dtype=object),
        values[:, 0],
        values[:, 1:5],
        labels=values[:, 5],
    )
    _last_column(table, [one[1][7] if len(one[1]) == 8 else None for one in kept], report, expected)
    _check_labels(table, report, expected)
    _check_repeated(table, report)
    return table


def _numbers(words: Sequence[str]) -> list[float] | None:
    """Timestamp, corners and label. SlowFast's files leave the label of a detected person empty: -1."""
    try:
        return [*(float(word) for word in words[1:6]), float(words[6] or -1)]
    except ValueError:
        return None


def _last_column(table: Table, words: list[str | None], report: Report, expected: Expected) -> None:
    """People of the truth, or scores of predictions."""
    values = np.array([_number(word) for word in words], dtype=np.float64)
    given = np.array([word is not None for word in words], dtype=bool)
    whole = given & (values == np.floor(values))
    if expected.scored and not given.all():
        report.add("error", "predictions need a score in the eighth column", table.lines[~given])
    elif expected.scored and len(values) and whole.all() and values.max() > 1:
        report.add("error", "the eighth column has whole numbers (people) where scores are meant")
    elif expected.scored or not whole[given].all():
        report.add("error", "scores that are no numbers", table.lines[given & np.isnan(values)])
        table.scores = values
    elif given.any():
        table.people = np.where(given, values, -1)


def _number(word: str | None) -> float:
    try:
        return float(word or "nan")
    except ValueError:
        return float("nan")


def _check_labels(table: Table, report: Report, expected: Expected) -> None:
    assert table.labels is not None
    labels, lines = table.labels, table.lines
    names = ava_labels() if expected.labels is None else expected.labels
    report.add("error", "labels must be whole numbers", lines[labels != np.floor(labels)])
    if (labels == 0).any():
        report.add("error", "label 0: labels count from 1, these count from 0 (add 1 to all)", lines[labels == 0])
    report.add("error", "labels below 0", lines[labels < -1])
    if table.scores is None:  # -1 stands for no label in SlowFast's files
        report.add("error", "label -1", lines[labels == -1])
    unknown = (labels > 0) & (labels == np.floor(labels)) & ~np.isin(labels, list(names))
    which = "AVA's 80" if expected.labels is None else f"the {len(names)} given"
    report.add("error", f"labels that are not among {which}", lines[unknown])


def _check_repeated(table: Table, report: Report) -> None:
    last = table.people if table.people is not None else table.scores
    columns = [codes(table.videos), table.times, table.boxes, table.labels, *([last] if last is not None else [])]
    rows = np.column_stack([column for column in columns if column is not None])
    if len(rows):
        _, firsts = np.unique(rows, axis=0, return_index=True)
        repeated = np.ones(len(rows), bool)
        repeated[firsts] = False
        report.add("warning", "rows that repeat an earlier one", table.lines[repeated])


# ---------------------------------------------------------------------- JSON lines, JSON, XML, pickle


def _load_json_lines(path: str | os.PathLike, report: Report, expected: Expected) -> Table:
    columns: dict[str, list[Any]] = {name: [] for name in ("lines", "videos", "times", "boxes", "extent", "scores")}
    names = None if expected.labels is None else set(expected.labels.values())
    faults: dict[str, list[int]] = {}
    keys: set[tuple[str, float]] = set()
    with Path(path).open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                boxes = np.asarray(row["boxes"], dtype=np.float64)
                boxes = boxes.reshape(0, 4) if not boxes.size else boxes
                if boxes.shape != (len(boxes), 4):
                    raise ValueError
                key = (str(row["video"]), float(row["time"]))
                size = (float(row["width"]), float(row["height"]))
            except (KeyError, TypeError, ValueError):
                needed = "rows need video, time, width, height and boxes of 4 numbers"
                faults.setdefault(needed, []).append(number)
                continue
            for fault in _row_faults(row, len(boxes), names):
                faults.setdefault(fault, []).append(number)
            if key in keys:
                faults.setdefault("key-frames that an earlier line has already", []).append(number)
            keys.add(key)
            scores = row.get("scores") or [np.nan] * len(boxes)
            for box, score in zip(boxes, scores):
                for name, value in zip(columns, (number, *key, box, size, score)):
                    columns[name].append(value)
    for fault, lines in faults.items():
        report.add("error", fault, lines)
    scores = np.asarray(columns["scores"], dtype=np.float64)
    return Table(
        np.asarray(columns["lines"], dtype=np.int64),
        np.asarray(columns["videos"], dtype=object),
        np.asarray(columns["times"], dtype=np.float64),
        np.asarray(columns["boxes"], dtype=np.float64).reshape(-1, 4),
        np.asarray(columns["extent"], dtype=np.float64).reshape(-1, 2),
        scores=None if np.isnan(scores).all() else scores,
        whole_seconds=False,
    )


def _row_faults(row: dict[str, Any], count: int, names: set[str] | None) -> Iterable[str]:
    for column in ("labels", "person_ids", "scores", "label_scores"):
        values = row.get(column)
        if values is not None and (not isinstance(values, list) or len(values) != count):
            yield f"`{column}` must have one entry for each box"
    labels = row.get("labels") or []
    found = [name for one in labels for name in (one if isinstance(one, list) else [one])]
    if any(not isinstance(one, list) for one in labels) or any(not isinstance(name, str) for name in found):
        yield "`labels` must be a list of names for each person"
    elif names is not None and set(found) - names:
        yield "labels that are not among those given"


def _load_json(path: str | os.PathLike, report: Report, expected: Expected) -> Table | None:
    content = parse_json(read_text(path, "`path`"), f"`path` {os.fspath(path)!r}")
    if isinstance(content, list):
        return _load_people(content, report, expected)
    return _load_coco(content, report)


def _load_people(entries: list[Any], report: Report, expected: Expected) -> Table:
    """AlphAction's and InternVideo's detected people."""
    lines, videos, times, boxes, scores, faulty, unknown = [], [], [], [], [], [], []
    shares = bool(entries) and isinstance(entries[0], dict) and isinstance(entries[0].get("image_id"), str)
    for number, entry in enumerate(entries, start=1):
        try:
            box, score = [float(value) for value in entry["bbox"]], float(entry["score"])
            if shares:
                video, _, second = entry["image_id"].rpartition("_")
            else:
                movie, second = divmod(int(entry["image_id"]), ALPHACTION_FACTOR)
                if expected.movies is not None and movie >= len(expected.movies):
                    unknown.append(number)
                    continue
                video = str(movie) if expected.movies is None else expected.movies[movie]
            if len(box) != 4:
                raise ValueError
            times.append(float(second))
        except (KeyError, TypeError, ValueError):
            faulty.append(number)
            continue
        # AlphAction's boxes are x, y, width, height
        boxes.append(box if shares else [*box[:2], box[0] + box[2], box[1] + box[3]])
        lines.append(number)
        videos.append(video)
        scores.append(score)
    report.add("error", "entries need image_id, bbox of 4 numbers and score", faulty)
    report.add("error", "movies that are not in the list", unknown)
    corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    return Table(
        np.asarray(lines, dtype=np.int64),
        np.asarray(videos, dtype=object),
        np.asarray(times, dtype=np.float64),
        corners,
        None if shares else np.full((len(corners), 2), np.inf),  # the file does not tell the size of its images
        scores=np.asarray(scores, dtype=np.float64),
    )


def _load_coco(content: dict[str, Any], report: Report) -> Table:
    categories = {one["id"] for one in content["categories"]}
    videos = {one["id"]: one for one in content.get("videos", [])}
    images = {one["id"]: one for one in content["images"]}
    entries = list(enumerate(content["annotations"], start=1))
    report.add(
        "error", "annotations of unknown images", (n for n, one in entries if one.get("image_id") not in images)
    )
    strange = (number for number, one in entries if one.get("category_id") not in categories)
    report.add("error", "annotations of unknown categories", strange)
    report.add("error", "annotations without a box", (n for n, one in entries if len(one.get("bbox") or ()) != 4))
    entries = [(n, one) for n, one in entries if one.get("image_id") in images and len(one.get("bbox") or ()) == 4]
    untracked = [n for n, one in entries if {**(one.get("attributes") or {}), **one}.get("track_id") is None]
    report.add(
        "warning", "annotations without track_id: people are merged by equal boxes, without a number", untracked
    )
    timeless = [n for n, one in entries if {"frame_id", "time"}.isdisjoint(images[one["image_id"]])]
    report.add("error", "images without frame_id or time", timeless)
    boxes = np.array([one["bbox"] for _, one in entries], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    times, names, sizes = [], [], []
    for _, one in entries:
        image = images[one["image_id"]]
        video = videos.get(image.get("video_id"), {})
        frame = float(image.get("frame_id", 0)) / float(video.get("fps") or 1)
        times.append(float(image.get("time", frame)))
        names.append(
            str(video.get("file_name") or video.get("name") or str(image.get("file_name", "")).rpartition("/")[0])
        )
        sizes.append((float(image["width"]), float(image["height"])))
    return Table(
        np.array([number for number, _ in entries], dtype=np.int64),
        np.array(names, dtype=object),
        np.array(times, dtype=np.float64),
        boxes,
        np.array(sizes, dtype=np.float64).reshape(-1, 2),
        whole_seconds=False,
    )


def _load_cvat(path: str | os.PathLike, report: Report, expected: Expected) -> Table:
    content = parse_cvat(path)
    lines, times, boxes, people, late = [], [], [], [], []
    for track in content.tracks:
        for line, frame, box, outside in zip(track.lines, track.frames, track.boxes, track.outside):
            if outside:
                continue
            if content.num_frames and frame >= content.num_frames:
                late.append(line)
            lines.append(line)
            times.append(float(frame))
            boxes.append(box)
            people.append(float(track.id))
    report.add("error", f"boxes after the last of {content.num_frames} frames", late)
    names = Counter(track.label for track in content.tracks)
    if names and "person" not in names:
        found = ", ".join(f"{name} ({count})" for name, count in names.items())
        report.add("warning", f"no track is labelled person, but {found}: give the label of people")
    if names and not any(any(track.actions) for track in content.tracks):
        report.add("warning", "no attribute is on: nobody does anything")
    number = len(lines)
    return Table(
        np.array(lines, dtype=np.int64),
        np.full(number, content.source, dtype=object),
        np.array(times, dtype=np.float64),
        np.array(boxes, dtype=np.float64).reshape(-1, 4),
        np.tile(np.array([[content.width, content.height]], dtype=np.float64), (number, 1)),
        people=np.array(people, dtype=np.float64),
        whole_seconds=False,
    )


def _load_pickle(path: str | os.PathLike, report: Report, expected: Expected) -> Table | None:
    content = read_plain_pickle(path)
    if not isinstance(content, dict):
        report.add("error", f"it must hold a dictionary of key-frames, not a {type(content).__name__}")
        return None
    lines, videos, times, strange, narrow = [], [], [], [], []
    boxes = [np.empty((0, 5))]
    for number, (key, value) in enumerate(content.items(), start=1):
        video, comma, second = key.rpartition(",") if isinstance(key, str) else ("", "", "")
        array = np.asarray(value, dtype=np.float64)
        if not comma or not second.strip().isdigit():
            strange.append(number)
        elif array.size and (array.ndim != 2 or array.shape[1] != 5):
            narrow.append(number)
        else:
            boxes.append(array.reshape(-1, 5))
            lines += [number] * len(boxes[-1])
            videos += [video] * len(boxes[-1])
            times += [float(second)] * len(boxes[-1])
    report.add("error", "keys must be text like 'video,0902'", strange)
    report.add("error", "arrays must have 5 columns: 4 corners and a score", narrow)
    table = np.concatenate(boxes)
    places = np.asarray(lines, dtype=np.int64)
    names = np.asarray(videos, dtype=object)
    return Table(places, names, np.asarray(times, dtype=np.float64), table[:, :4], scores=table[:, 4])


LOADERS: dict[str, Callable[[str | os.PathLike, Report, Expected], Table | None]] = {
    ".csv": _load_csv,
    ".jsonl": _load_json_lines,
    ".json": _load_json,
    ".xml": _load_cvat,
    ".pkl": _load_pickle,
}


def codes(values: np.ndarray) -> np.ndarray:
    """
    Names as numbers, which sort faster.

    Args:
        values (`np.ndarray` of shape `(num_rows,)`):
            The names.

    Returns:
        `np.ndarray` of shape `(num_rows,)`: equal numbers for equal names.
    """
    numbers = {name: place for place, name in enumerate(dict.fromkeys(values.tolist()))}
    return np.array([numbers[name] for name in values.tolist()], dtype=np.float64)


__all__ = ["Expected", "Finding", "LEVELS", "LOADERS", "Report", "Table", "codes", "load_table"]
