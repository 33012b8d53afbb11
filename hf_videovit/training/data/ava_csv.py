"""
Key-frames in the csv files of AVA, AVA-Kinetics and SlowFast. They have no header; boxes are corners as shares of
width and height (exclusive), labels are numbers from 1.

| file | columns |
|---|---|
| AVA, truth | video, timestamp, x1, y1, x2, y2, label, person |
| AVA, predictions | video, timestamp, x1, y1, x2, y2, label, score |
| AVA-Kinetics | YouTube id, timestamp (a fraction), x1, y1, x2, y2, label; only the first two where nobody is seen |
| SlowFast, detected people | video, timestamp, x1, y1, x2, y2, label or nothing, score of the person |

AVA's timestamps count from the start of the film. `offset` is what to subtract from them for the time in the video: 0
for whole films, 900 for cuts that start there.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv

from ...published import published_labels
from .key_frames import BoxRows, KeyFrame, KeyFrames, group_boxes, video_name


COLUMNS = ("video", "timestamp", "x1", "y1", "x2", "y2", "label")
NO_BOX = "rows without a box"
NO_CLIP = "timestamps outside the clip"
KINETICS_CLIP = re.compile(r"(?P<id>.+)_(?P<start>\d+)_(?P<end>\d+)")
Sizes = Mapping[str, tuple[int, int]]


def ava_labels() -> dict[int, str]:
    """
    The 80 labels of AVA and AVA-Kinetics.

    Returns:
        `dict[int, str]`: names by the numbers in the files, which start at 1.
    """
    return dict(enumerate(published_labels("ava"), start=1))


def read_ava(
    path: str | os.PathLike,
    sizes: Sizes,
    labels: Mapping[int, str] | None = None,
    offset: float = 0.0,
    scored: bool = False,
) -> KeyFrames:
    """
    Read a csv of AVA.

    Args:
        path (`str` or `os.PathLike`):
            The file.
        sizes (`Mapping[str, tuple[int, int]]`):
            Width and height of each video in pixels. Rows of other videos are counted as missing.
        labels (`Mapping[int, str]`, *optional*):
            Names of the labels by number; AVA's 80 by default.
        offset (`float`, *optional*, defaults to 0.0):
            Timestamp of the start of each video, in seconds.
        scored (`bool`, *optional*, defaults to `False`):
            Whether the last column is a score (predictions) or a person (truth).

    Returns:
        [`KeyFrames`]

    Raises:
        ValueError: the file is not such a csv, or has a label without a name.
    """
    columns, skipped = _read(path, "score" if scored else "person")
    table = BoxRows(
        columns["video"],
        columns["timestamp"] - offset,
        _boxes(columns),
        _names(path, columns["label"], labels),
        None if scored else columns["person"],
        columns["score"] if scored else None,
    )
    return _with(group_boxes(table, sizes), skipped)


def read_ava_kinetics(path: str | os.PathLike, sizes: Sizes, labels: Mapping[int, str] | None = None) -> KeyFrames:
    """
    Read a csv of AVA-Kinetics.

    Args:
        path (`str` or `os.PathLike`):
            The file.
        sizes (`Mapping[str, tuple[int, int]]`):
            Width and height of each clip in pixels. Clips are named `<id>_<start>_<end>` in seconds; the time of a
            key-frame counts from the start of its clip. Key-frames that are not inside a clip are left out.
        labels (`Mapping[int, str]`, *optional*):
            Names of the labels by number; AVA's 80 by default.

    Returns:
        [`KeyFrames`]

    Raises:
        ValueError: the file is not such a csv, or has a label without a name.
    """
    columns, skipped = _read(path, None)
    clips: dict[str, list[tuple[float, float, str]]] = {}
    for name in sizes:
        if found := KINETICS_CLIP.fullmatch(name):
            clips.setdefault(found["id"], []).append((float(found["start"]), float(found["end"]), name))
    videos, starts, outside = (
        columns["video"].copy(),
        np.zeros(len(columns["video"])),
        np.zeros(len(columns["video"]), bool),
    )
    for row, (video, time) in enumerate(zip(columns["video"], columns["timestamp"].tolist())):
        parts = clips.get(video, [])
        holding = next((part for part in parts if part[0] < time < part[1]), None)
        outside[row] = bool(parts) and holding is None
        if holding is not None:
            starts[row], _, videos[row] = holding
    if outside.any():
        skipped[NO_CLIP] = int(outside.sum())
    names = _names(path, columns["label"], labels)
    table = BoxRows(videos, columns["timestamp"] - starts, _boxes(columns), names)
    return _with(group_boxes(table.select(~outside), sizes), skipped)


def read_slowfast(
    path: str | os.PathLike,
    sizes: Sizes,
    labels: Mapping[int, str] | None = None,
    offset: float = 0.0,
    threshold: float = 0.0,
) -> KeyFrames:
    """
    Read detected people from a csv of SlowFast. Labels, where there are any, are those of true people that overlap a
    detected one.

    Args:
        path (`str` or `os.PathLike`):
            The file, such as `ava_detection_val_boxes_and_labels.csv`.
        sizes (`Mapping[str, tuple[int, int]]`):
            Width and height of each video in pixels. Rows of other videos are counted as missing.
        labels (`Mapping[int, str]`, *optional*):
            Names of the labels by number; AVA's 80 by default.
        offset (`float`, *optional*, defaults to 0.0):
            Timestamp of the start of each video, in seconds.
        threshold (`float`, *optional*, defaults to 0.0):
            Smallest score of a person; SlowFast's default is 0.9.

    Returns:
        [`KeyFrames`] with `scores`.

    Raises:
        ValueError: the file is not such a csv, or has a label without a name.
    """
    columns, skipped = _read(path, "score", labelled=False)
    kept = columns["score"] >= threshold
    if not kept.all():
        skipped[f"scores below {threshold:g}"] = int((~kept).sum())
    columns = {name: column[kept] for name, column in columns.items()}
    table = BoxRows(
        columns["video"],
        columns["timestamp"] - offset,
        _boxes(columns),
        _names(path, columns["label"], labels),
        scores=columns["score"],
    )
    found = group_boxes(table, sizes)
    # the score of each label is that of the person
    people = group_boxes(BoxRows(table.videos, table.times, table.boxes, scores=table.scores), sizes)
    rows = [
        KeyFrame(one.video, one.time, one.width, one.height, one.boxes, row.labels, one.person_ids, scores=one.scores)
        for one, row in zip(people.rows, found.rows)
    ]
    return _with(KeyFrames(rows, people.skipped, people.missing), skipped)


def write_ava(
    path: str | os.PathLike,
    rows: Iterable[KeyFrame],
    label_numbers: Mapping[str, int],
    offset: float = 0.0,
) -> Path:
    """
    Write a csv of AVA: one row for each person and label, numbers with 5 decimals, labels of a person by number.
    People without a label have no row, as in AVA.

    Args:
        path (`str` or `os.PathLike`):
            The file.
        rows (iterable of [`KeyFrame`]):
            The key-frames. Those with `label_scores` are predictions: their last column is the score.
        label_numbers (`Mapping[str, int]`):
            Number of each label, from 1.
        offset (`float`, *optional*, defaults to 0.0):
            Timestamp of the start of each video, in seconds.

    Returns:
        `Path`: the file.

    Raises:
        ValueError: a label has no number.
    """
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        for row in rows:
            file.writelines(f"{line}\n" for line in ava_lines(row, label_numbers, offset))
    return Path(path)


def ava_lines(row: KeyFrame, label_numbers: Mapping[str, int], offset: float = 0.0) -> Iterator[str]:
    """
    Lines of one key-frame, see [`write_ava`].

    Args:
        row ([`KeyFrame`]):
            The key-frame.
        label_numbers (`Mapping[str, int]`):
            Number of each label, from 1.
        offset (`float`, *optional*, defaults to 0.0):
            Timestamp of the start of the video, in seconds.

    Yields:
        `str`: a line for each person and label.

    Raises:
        ValueError: a label has no number.
    """
    unknown = sorted({name for names in row.labels for name in names} - set(label_numbers))
    if unknown:
        raise ValueError(f"`label_numbers` lacks {', '.join(unknown)} of {row.video} at {row.time:g} s")
    shares = np.clip(row.boxes / [row.width, row.height, row.width, row.height], 0, 1)
    key = f"{video_name(row.video)},{format_timestamp(row.time + offset)}"
    for person, corners in enumerate(shares):
        box = "{:.5f},{:.5f},{:.5f},{:.5f}".format(*corners)
        yield from (f"{key},{box},{last}" for last in _last_columns(row, person, label_numbers))


def format_timestamp(seconds: float) -> str:
    """
    A timestamp as AVA's files have it.

    Args:
        seconds (`float`):
            Time in seconds.

    Returns:
        `str`: four digits for whole seconds (`"0902"`), otherwise up to 6 decimals.
    """
    seconds = round(seconds, 6)
    return f"{int(seconds):04d}" if seconds == int(seconds) else f"{seconds:.6f}".rstrip("0")


def _last_columns(row: KeyFrame, person: int, label_numbers: Mapping[str, int]) -> list[str]:
    names = row.labels[person]
    if row.label_scores is None:
        number = row.person_ids[person]
        return [
            f"{label},{-1 if number is None else number}" for label in sorted(label_numbers[name] for name in names)
        ]
    scored = sorted((label_numbers[name], score) for name, score in zip(names, row.label_scores[person]))
    return [f"{label},{score:.5f}" for label, score in scored]


def _read(
    path: str | os.PathLike, last: str | None, labelled: bool = True
) -> tuple[dict[str, np.ndarray], Counter[str]]:
    """Columns of the rows that have a box, and the number of those that have none."""
    names = [*COLUMNS, *([last] if last else [])]
    types: dict[str, pa.DataType] = {"video": pa.string(), **dict.fromkeys(COLUMNS[1:6], pa.float64())}
    types |= {"label": pa.int64(), "person": pa.int64(), "score": pa.float64()}
    short: Counter[str] = Counter()

    def shorter(row: Any) -> str:
        if row.actual_columns >= len(names):
            return "error"
        short[NO_BOX] += 1
        return "skip"

    if not Path(path).read_bytes()[:1]:
        return {name: np.empty((0,), types[name].to_pandas_dtype()) for name in names}, short
    try:
        table = csv.read_csv(
            path,
            read_options=csv.ReadOptions(column_names=names, use_threads=False),
            # AVA-Kinetics leaves out the box where nobody is seen
            parse_options=csv.ParseOptions(invalid_row_handler=None if last else shorter),
            convert_options=csv.ConvertOptions(column_types={name: types[name] for name in names}),
        )
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is not a csv of {', '.join(names)}: {error}") from error
    needed = [name for name in names if labelled or name != "label"]
    whole = np.ones(len(table), bool)
    for name in needed:
        whole &= table[name].is_valid().to_numpy()
    if not whole.all():
        short[NO_BOX] += int((~whole).sum())
    table = table.filter(pa.array(whole))
    if not labelled:
        table = table.set_column(6, "label", table["label"].fill_null(-1))
    return {name: table[name].to_numpy() for name in names}, short


def _boxes(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.stack([columns[name] for name in ("x1", "y1", "x2", "y2")], axis=1)


def _names(path: str | os.PathLike, numbers: np.ndarray, labels: Mapping[int, str] | None) -> np.ndarray:
    """Names of labels. -1 stands for none, in SlowFast's files."""
    table = {**(ava_labels() if labels is None else labels), -1: ""}
    present, rows = np.unique(numbers, return_inverse=True)
    unknown = [int(number) for number in present if int(number) not in table]
    if unknown:
        row = int(np.flatnonzero(numbers == unknown[0])[0]) + 1
        raise ValueError(f"{path}: label {unknown[0]} (row {row}) has no name; `labels` has {describe(table)}")
    return np.array([table[int(number)] for number in present], dtype=object)[rows]


def describe(labels: Iterable[int]) -> str:
    """
    Numbers of labels in a message.

    Args:
        labels (iterable of `int`):
            The numbers.

    Returns:
        `str`: such as `"1 to 80"`.
    """
    numbers: Sequence[int] = sorted(number for number in labels if number > 0)
    return f"{numbers[0]} to {numbers[-1]}" if numbers else "none"


def _with(found: KeyFrames, skipped: Counter[str]) -> KeyFrames:
    return KeyFrames(found.rows, found.skipped + skipped, found.missing)


__all__ = [
    "ava_labels",
    "ava_lines",
    "format_timestamp",
    "read_ava",
    "read_ava_kinetics",
    "read_slowfast",
    "write_ava",
]
