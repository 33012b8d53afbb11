"""Lists of videos in CSV and JSON, and the values of their columns: videos, one label or several labels."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .manifest import read_file
from .sources import Label, VideoList, label_mapping, sort_label_names


LIST_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl")
VIDEO_COLUMNS = ("video", "file", "path", "filename", "file_name", "video_path", "clip", "mp4", "webm", "mkv", "avi")
LABEL_COLUMNS = (
    "label",
    "labels",
    "class",
    "class_name",
    "category",
    "target",
    "json.label",
    "json.labels",
    "json.class",
    "cls",
    "txt",
)


def read_column(row: Mapping[str, Any], column: str) -> Any:
    """
    A value of a row.

    Args:
        row (`Mapping[str, Any]`):
            The row.
        column (`str`):
            Name of the column; a dot separates the column from a field of its structure.

    Returns:
        `Any`: the value.
    """
    value: Any = row
    for part in [column] if column in row else column.split("."):
        value = value[part]
    return value


def choose_column(requested: str | None, columns: Sequence[str], usual: Sequence[str], what: str) -> str | None:
    """
    Choose a column.

    Args:
        requested (`str` or `None`):
            The requested column.
        columns (`Sequence[str]`):
            The columns of the data.
        usual (`Sequence[str]`):
            Usual names, tried in this order if no column is requested.
        what (`str`):
            `"video"` or `"label"`, for the error message.

    Returns:
        `str` or `None`: the column; `None` if the data has no column of a usual name.

    Raises:
        ValueError: the requested column does not exist.
    """
    if requested is not None:
        if requested not in columns:
            raise ValueError(f"`{what}_column` {requested!r} is not among the columns {', '.join(columns)}")
        return requested
    return next((name for name in usual if name in columns), None)


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """
    Read a list.

    Args:
        path (`str` or `Path`):
            A CSV (separated by commas, semicolons or tabs), JSON (list of objects) or JSONL file, or its `hf://` URL.

    Returns:
        `list[dict[str, Any]]`: the rows.

    Raises:
        ValueError: the file does not exist, or has no rows with named columns.
    """
    content, suffix = read_file(path), Path(path).suffix.lower()
    if content is None:
        raise ValueError(f"`data` {str(path)!r} does not exist")
    text = content.decode("utf-8-sig")
    if suffix in (".csv", ".tsv"):
        header = text.split("\n", 1)[0]
        delimiter = max(",;\t", key=header.count)
        rows: list[Any] = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))
    elif suffix == ".jsonl":
        rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    else:
        rows = json.loads(text)
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"`data` {str(path)!r} must contain a list of rows with named columns")
    return rows


def list_source(
    path: str | Path,
    split: str | None = None,
    video_column: str | None = None,
    label_column: str | None = None,
    root: str | None = None,
    label_names: Sequence[str] | None = None,
    label_separator: str | None = None,
) -> VideoList:
    """
    A CSV, JSON or JSONL list of videos. Rows without a label are left out. An empty list of labels is a label.

    Args:
        path (`str` or `Path`):
            The list, or its `hf://` URL.
        split (`str`, *optional*):
            Keep the rows with this value in the column `split`, if there is such a column.
        video_column (`str`, *optional*):
            Column of the video; the usual names are tried by default.
        label_column (`str`, *optional*):
            Column of the label; the usual names are tried by default.
        root (`str`, *optional*):
            Folder that the paths are relative to; the folder of the list by default.
        label_names (`Sequence[str]`, *optional*):
            Label names in the order of their indices. Whole-number labels are then indices into them.
        label_separator (`str`, *optional*):
            Separator between the labels of a video with several labels; JSON lists need none.

    Returns:
        [`VideoList`]: the videos.

    Raises:
        ValueError: the list has no such split or column, or a label is not among `label_names`.
    """
    rows = read_rows(path)
    columns = list(rows[0])
    if split is not None and "split" in columns:
        present = sorted({str(row.get("split")) for row in rows})
        rows = [row for row in rows if str(row.get("split")) == split]
        if not rows:
            raise ValueError(f"`split` {split!r} is not in {str(path)!r}, which has {', '.join(present)}")
    video_column = choose_column(video_column, columns, VIDEO_COLUMNS, "video")
    label_column = choose_column(label_column, columns, LABEL_COLUMNS, "label")
    if video_column is None:
        raise ValueError(f"`video_column` is needed: {str(path)!r} has the columns {', '.join(columns)}")
    values = None
    if label_column is not None:
        missing = (None,) if label_separator else (None, "")
        rows = [row for row in rows if row.get(label_column) not in missing]
        values = [split_labels(row[label_column], label_separator) for row in rows]
    labels, names = index_labels(values, label_names)
    files = [str(row[video_column]) for row in rows]
    if root is None and "://" in str(path):
        base = str(path).rpartition("/")[0]
        paths = [file if "://" in file else f"{base}/{file}" for file in files]
    else:
        folder = Path(path).parent if root is None else Path(root)
        paths = [file if "://" in file else str(folder / file) for file in files]
    return VideoList(_number_repeats(files), paths, labels or [None] * len(rows), names)


def split_labels(value: Any, separator: str | None) -> Any:
    """
    Split the value of a label column.

    Args:
        value (`Any`):
            The value.
        separator (`str` or `None`):
            Separator between several labels.

    Returns:
        `Any`: a list if the column has any number of labels, otherwise the value.
    """
    if isinstance(value, list | tuple | np.ndarray):
        return list(value)
    if separator and not isinstance(value, str):
        return [] if value is None else [value]
    return [part.strip() for part in value.split(separator) if part.strip()] if separator else value


def index_labels(values: Sequence[Any] | None, label_names: Sequence[str] | None) -> tuple[list[Label], list[str]]:
    """
    Convert label values to indices.

    Args:
        values (`Sequence` or `None`):
            For each video a name, an index into `label_names`, or a list of these; `None` if the data has no labels.
        label_names (`Sequence[str]` or `None`):
            Label names in the order of their indices; `None` sorts the names that occur.

    Returns:
        `tuple[list[int | tuple[int, ...] | None], list[str]]`: the indices (empty without values) and the names.

    Raises:
        ValueError: a label is not among `label_names`.
    """
    if values is None:
        return [], list(label_names or [])
    multi_label = any(isinstance(value, list) for value in values)
    texts = [[str(part).strip() for part in (value if isinstance(value, list) else [value])] for value in values]
    distinct = sorted({text for parts in texts for text in parts})
    names = sort_label_names(distinct) if label_names is None else list(label_names)
    if label_names is not None and all(text.isdecimal() for text in distinct) and not set(distinct) <= set(names):
        to_index = {text: int(text) for text in distinct}
        if max(to_index.values()) >= len(names):
            raise ValueError(
                f"Label {max(to_index.values())} is out of range for {len(names)} `label_names` (labels start at 0)"
            )
    else:
        to_index = dict(zip(distinct, label_mapping(distinct, names), strict=True))
    indices = [[to_index[text] for text in parts] for parts in texts]
    if multi_label:
        return [tuple(dict.fromkeys(parts)) for parts in indices], names
    return [parts[0] for parts in indices], names


def _number_repeats(names: Iterable[str]) -> list[str]:
    """Make names unique: the second `clip.mp4` becomes `clip.mp4#2`."""
    seen: Counter[str] = Counter()
    unique = []
    for name in names:
        seen[name] += 1
        unique.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return unique
