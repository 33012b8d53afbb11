"""Lists of videos in CSV and JSON, and the values of their columns: videos, one label or several labels."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...files import decode_text, parse_json, plain_name, present_path
from ...modeling.video_decoding_parts import VideoPart
from ...modeling.video_decoding_sources import folder_rate
from ...modeling.video_decoding_types import VIDEO_SUFFIXES
from .manifest import read_file
from .parts import find_part_columns, unread_bounds
from .sources import SPLITS, Label, VideoList, preview, sort_label_names
from .untrimmed import untrimmed_rows


LIST_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl")
VIDEO_COLUMNS = ("video", "file", "path", "filename", "file_name", "video_path", "clip", "mp4", "webm", "mkv", "avi")
SPLIT_COLUMNS = ("subset", "partition", "set")  # beside `split`: these count where all values are names of splits
MOST_FILES = 50_000  # of longer lists, missing files are found when they are read
RATE_COLUMN = "fps"  # of folders of pictures
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
    by_name = {column.lower(): column for column in reversed(columns)}
    return next((by_name[name] for name in usual if name in by_name), None)


def listed_rate(path: str, row: Mapping[str, Any], place: str) -> float | None:
    """
    The frame rate of a folder of pictures, from the column `fps`. Files have their own.

    Args:
        path (`str`):
            Path or URL of the video.
        row (`Mapping[str, Any]`):
            Its row.
        place (`str`):
            Where the row is, for the error message.

    Returns:
        `float` or `None`: frames a second; `None` for a file, and for a folder without a rate.

    Raises:
        ValueError: the rate of a folder is no positive number.
    """
    value = row.get(RATE_COLUMN)
    if not _is_given(value) or not Path(path).is_dir():
        return None
    return folder_rate(value, f"{place}: `{RATE_COLUMN}` of a folder of pictures")


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """
    Read a list.

    Args:
        path (`str` or `Path`):
            A CSV (separated by commas, semicolons or tabs), JSON (list of objects, or ActivityNet's `database`, see
            [`untrimmed_rows`]) or JSONL file, or its `hf://` URL.

    Returns:
        `list[dict[str, Any]]`: the rows.

    Raises:
        ValueError: the file does not exist, or has no rows with named columns.
    """
    content, suffix, what = read_file(path), Path(path).suffix.lower(), f"`data` {str(path)!r}"
    if content is None:
        raise ValueError(f"{what} does not exist")
    text = decode_text(content, what)
    if suffix in (".csv", ".tsv"):
        rows = _csv_rows(text, what)
    elif suffix == ".jsonl":
        lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
        rows = [parse_json(line, f"{what}, row {number},") for number, line in lines]
    else:
        rows = parse_json(text, what)
        if isinstance(rows, Mapping) and isinstance(rows.get("database"), Mapping):
            rows = untrimmed_rows(rows["database"], what)
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{what} must contain a list of rows with named columns")
    return rows


def _csv_rows(text: str, what: str) -> list[dict[str, Any]]:
    """
    The rows of a CSV. The first line names the columns; Excel's line `sep=;` and empty lines may be before it. Missing
    values at the end of a row are empty.
    """
    text = re.sub(r"\A(\s*\n)*(sep=.\r?\n)?", "", text)
    header = re.split(r"[\r\n]", text, maxsplit=1)[0]
    delimiter = max(",;\t|", key=header.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        rows = list(reader)
    except csv.Error as error:
        raise ValueError(f"{what} is not valid CSV: {error} in line {reader.line_num}") from error
    names = [name.strip() for name in reader.fieldnames or []]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{what} names the column {preview(twice)} more than once")
    for number, row in enumerate(rows, start=1):
        extra = [value for value in row.pop(None, []) if value]
        if extra:
            raise ValueError(
                f"{what}, row {number} after the line of names, has more values than the {len(names)} columns: put "
                f"values that contain {delimiter!r} in double quotes"
            )
    return [{name: value or "" for name, value in zip(names, row.values())} for row in rows]


def list_split_names(path: str | Path) -> list[str]:
    """
    Names of the splits of a list: the values of its column `split`, usual names in lower case.

    Args:
        path (`str` or `Path`):
            The list.

    Returns:
        `list[str]`: the sorted names; empty if there is no such column.
    """
    rows = read_rows(path)
    column = _split_column(rows)
    return sorted({name for row in rows if column is not None and (name := _split_name(row.get(column)))})


def _split_column(rows: Sequence[Mapping[str, Any]]) -> str | None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if (column := choose_column(None, columns, ("split",), "split")) is not None:
        return column
    for column in columns:
        if column.lower() in SPLIT_COLUMNS and {_split_name(row.get(column)) for row in rows} <= {*SPLITS}:
            return column
    return None


def _split_name(value: Any) -> str:
    name = str(value or "").strip()
    return name.lower() if name.lower() in SPLITS else name


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
    A CSV, JSON or JSONL list of videos. Rows without a label are left out, unless no row has one. An empty list of
    labels is a label. With columns `start` and `end` (also `start_frame`, `t_end`, `duration`, ...) a row is that part
    of its file, see [`find_part_columns`]. The column `fps` is the frame rate of folders of pictures; files have their
    own.

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
    rows, what = read_rows(path), f"`data` {str(path)!r}"
    columns = list(dict.fromkeys(name for row in rows for name in row))
    numbered = list(enumerate(rows, start=1))
    remarks: list[str] = []
    split_column = _split_column(rows)
    if split is not None and split_column is not None:
        numbered = _rows_with(numbered, split_column, remarks, "split")
        numbered = [(number, row) for number, row in numbered if _split_name(row[split_column]) == split]
        if not numbered:
            present = ", ".join(sorted({_split_name(row.get(split_column)) or "(empty)" for row in rows}))
            raise ValueError(f"`split` {split!r} is not in {str(path)!r}, which has {present}")
    video_column = choose_column(video_column, columns, VIDEO_COLUMNS, "video")
    label_column = choose_column(label_column, columns, LABEL_COLUMNS, "label")
    if video_column is None:
        raise ValueError(
            f"`video_column` is needed: {str(path)!r} has the columns {preview(columns)}, named in its first line"
        )
    numbered = _rows_with(numbered, video_column, remarks, "video")
    values = None
    if label_column is not None and any(_is_given(row.get(label_column)) for _, row in numbered):
        if not label_separator:  # with a separator, an empty text is a list without labels
            numbered = _rows_with(numbered, label_column, remarks, "label")
        values = [split_labels(row.get(label_column), label_separator) for _, row in numbered]
    places = [f"{what}, row {number}" for number, _ in numbered]
    labels, names = index_labels(values, label_names, places)
    parts = _parts(numbered, (video_column, label_column, split_column, RATE_COLUMN), what, remarks)
    files = [str(row[video_column]).strip() for _, row in numbered]
    ids = [plain_name(file if part is None else f"{file}#{part}") for file, part in zip(files, parts)]
    paths = _locate(files, path, root)
    _note_missing(paths, remarks)
    rates = [listed_rate(path, row, place) for path, (_, row), place in zip(paths, numbered, places)]
    return VideoList(_number_repeats(ids), paths, labels or [None] * len(files), names, parts, remarks, rates)


def _is_given(value: Any) -> bool:
    return value is not None and not (isinstance(value, str) and not value.strip()) and value == value


def _rows_with(
    numbered: list[tuple[int, dict[str, Any]]], column: str, remarks: list[str], what: str
) -> list[tuple[int, dict[str, Any]]]:
    """Rows with a value in a column. A remark says which ones have none."""
    empty = [number for number, row in numbered if not _is_given(row.get(column))]
    if empty:
        remarks.append(
            f"{len(empty)} rows have no {what} in column {column!r} and are left out: rows {preview(empty)}"
        )
    missing = set(empty)
    return [(number, row) for number, row in numbered if number not in missing]


def _parts(
    numbered: list[tuple[int, dict[str, Any]]], taken: tuple[str | None, ...], what: str, remarks: list[str]
) -> list[VideoPart | None]:
    """The part of each row. A remark says which columns were read."""
    rows = [row for _, row in numbered]
    try:
        found = find_part_columns(rows, taken)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error
    if found is None:
        if unread := unread_bounds(rows, taken):
            remarks.append(
                f"The columns {preview(unread)} are not read: call them `start` and `end` (seconds) or `start_frame` "
                "and `end_frame` if they are the bounds of parts"
            )
        return [None] * len(numbered)
    parts = []
    for number, row in numbered:
        try:
            parts.append(found.part(row))
        except ValueError as error:
            raise ValueError(f"{what}, row {number}: {error}") from error
    count = sum(part is not None for part in parts)
    remarks.append(
        f"{count} rows are parts of files, from the columns {', '.join(found.names)} in {found.unit}; rename these "
        "columns if the files are cut already"
    )
    return parts


def _locate(files: Sequence[str], path: str | Path, root: str | None) -> list[str]:
    """Paths and URLs of the files of a list."""
    if root is None and "://" in str(path):
        base = str(path).rpartition("/")[0]
        return [file if "://" in file else f"{base}/{file}" for file in files]
    folder = Path(path).parent if root is None else Path(root).expanduser()
    paths = [file if "://" in file else str(present_path(folder / Path(file).expanduser())) for file in files]
    stems: dict[Path, dict[str, str]] = {}
    return [_with_suffix(path, stems) for path in paths]


def _with_suffix(path: str, stems: dict[Path, dict[str, str]]) -> str:
    """The file of a name without a suffix: `NAME.mp4`, or `v_NAME.mp4` as ActivityNet has it."""
    name = Path(path)
    if "://" in path or name.suffix.lower() in VIDEO_SUFFIXES or name.exists():
        return path
    if name.parent not in stems:
        present = sorted(name.parent.iterdir()) if name.parent.is_dir() else []
        stems[name.parent] = {one.stem: str(one) for one in present if one.suffix.lower() in VIDEO_SUFFIXES}
    return next((stems[name.parent][one] for one in (name.name, f"v_{name.name}") if one in stems[name.parent]), path)


def _note_missing(paths: Sequence[str], remarks: list[str]) -> None:
    local = dict.fromkeys(path for path in paths if "://" not in path)
    missing = [path for path in local if not Path(path).exists()] if len(local) <= MOST_FILES else []
    if missing:
        remarks.append(
            f"{len(missing)} of {len(local)} files do not exist: {preview(missing, 3)}; paths are relative to the "
            "folder of the list, or to `data_root` (of an evaluation: `--videos`)"
        )


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


def index_labels(
    values: Sequence[Any] | None, label_names: Sequence[str] | None, places: Sequence[str] | None = None
) -> tuple[list[Label], list[str]]:
    """
    Convert label values to indices.

    Args:
        values (`Sequence` or `None`):
            For each video a name, an index into `label_names`, or a list of these; `None` if the data has no labels.
        label_names (`Sequence[str]` or `None`):
            Label names in the order of their indices; `None` sorts the names that occur.
        places (`Sequence[str]`, *optional*):
            Where each value is, for error messages.

    Returns:
        `tuple[list[int | tuple[int, ...] | None], list[str]]`: the indices (empty without values) and the names.

    Raises:
        ValueError: a label is not among `label_names`.
    """
    if values is None:
        return [], list(label_names or [])
    multi_label = any(isinstance(value, list) for value in values)
    texts = []
    for value, place in zip(values, places or [""] * len(values)):
        parts = value if isinstance(value, list) else [value]
        if odd := [part for part in parts if isinstance(part, dict | list | bytes)]:
            raise ValueError(f"Label {odd[0]!r} must be a name or a number{f': {place}' if place else ''}")
        texts.append([plain_name(str(part)) for part in parts])
    distinct = sorted({text for parts in texts for text in parts})
    if all(re.fullmatch(r"-?\d+\.0+", text) for text in distinct):  # spreadsheets and pandas write 1 as 1.0
        texts = [[text.partition(".")[0] for text in parts] for parts in texts]
        distinct = sorted({text for parts in texts for text in parts})
    names = sort_label_names(distinct) if label_names is None else list(label_names)
    by_number = label_names is not None and all(re.fullmatch(r"-?\d+", text) for text in distinct)
    if by_number and not set(distinct) <= {plain_name(name) for name in names}:
        to_index = {text: int(text) for text in distinct if 0 <= int(text) < len(names)}
        fault = f"is out of range for {len(names)} `label_names` (labels start at 0)"
    else:
        to_index = {plain_name(name): index for index, name in enumerate(names)}
        fault = f"is not among the `label_names` {preview(names)}"
    for parts, place in zip(texts, places or [""] * len(texts)):
        if bad := [text for text in parts if text not in to_index]:
            raise ValueError(f"Label {bad[0]} {fault}{f': {place}' if place else ''}")
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
