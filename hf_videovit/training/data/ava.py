"""
AVA's files: boxes and actions (csv), excluded key-frames (csv) and the list of labels (pbtxt).

A row is a box on a key-frame with one label: video, timestamp in seconds, x1, y1, x2, y2 as shares of width and
height, label counted from 1, and a person (truth) or a score (predictions). There is no header.
"""

import os
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv

from .boxes import BoxTable


COLUMNS = ("video", "timestamp", "x1", "y1", "x2", "y2", "label")
LABEL_ITEM = re.compile(r'name:\s*"([^"]+)"[^}]*?\b(?:label_)?id:\s*(\d+)')


def read_boxes(path: str | os.PathLike, scored: bool) -> BoxTable:
    """
    Read a csv of boxes and actions.

    Args:
        path (`str` or `os.PathLike`):
            The file.
        scored (`bool`):
            Whether the last column is a score (predictions) or a person (truth).

    Returns:
        [`BoxTable`]: with keys `"video,0902"`.

    Raises:
        ValueError: the file is not such a csv; the message names the row.
    """
    last = "score" if scored else "person"
    types = {"video": pa.string(), **dict.fromkeys(COLUMNS[1:6], pa.float64()), "label": pa.int64()}
    types[last] = pa.float64() if scored else pa.string()
    try:
        table = csv.read_csv(
            path,
            read_options=csv.ReadOptions(column_names=[*COLUMNS, last]),
            convert_options=csv.ConvertOptions(column_types=types),
        )
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is not a csv of {', '.join([*COLUMNS, last])}: {error}") from error
    columns = {name: table[name].to_numpy(zero_copy_only=False) for name in types}
    return BoxTable(
        _keys(table["video"], columns["timestamp"]),
        np.stack([columns[name] for name in ("x1", "y1", "x2", "y2")], axis=1),
        columns["label"],
        columns["score"] if scored else None,
    )


def read_excluded(path: str | os.PathLike) -> np.ndarray:
    """
    Read a csv of key-frames.

    Args:
        path (`str` or `os.PathLike`):
            A file with video and timestamp in each row.

    Returns:
        `np.ndarray` of keys as in [`read_boxes`].

    Raises:
        ValueError: the file is not such a csv.
    """
    if not Path(path).read_bytes().strip():
        return np.empty(0, dtype=str)
    try:
        table = csv.read_csv(
            path,
            read_options=csv.ReadOptions(column_names=["video", "timestamp"]),
            convert_options=csv.ConvertOptions(column_types={"video": pa.string(), "timestamp": pa.float64()}),
        )
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is not a csv of video, timestamp: {error}") from error
    return _keys(table["video"], table["timestamp"].to_numpy())


def read_labels(path: str | os.PathLike) -> dict[int, str]:
    """
    Read a list of labels (pbtxt).

    Args:
        path (`str` or `os.PathLike`):
            The file.

    Returns:
        `dict[int, str]`: names by the file's numbers, which start at 1.

    Raises:
        ValueError: the file has no label.
    """
    found = LABEL_ITEM.findall(Path(path).read_text(encoding="utf-8"))
    if not found:
        raise ValueError(f"{path} has no items with a name and an id")
    return {int(number): name for name, number in found}


def _keys(videos: pa.ChunkedArray, timestamps: np.ndarray) -> np.ndarray:
    """`"video,0902"` for each row. Timestamps are cut to whole seconds, as the official evaluator does."""
    seconds = timestamps.astype(np.int64)
    if not len(seconds):
        return np.empty(0, dtype=str)
    encoded = videos.combine_chunks().dictionary_encode()
    names, which = encoded.dictionary.to_numpy(zero_copy_only=False), encoded.indices.to_numpy()
    pairs, rows = np.unique(np.stack([which, seconds], axis=1), axis=0, return_inverse=True)
    spelt = np.array([f"{names[video]},{second:04d}" for video, second in pairs])
    return spelt[rows.ravel()]
