"""
Where labelled videos come from: a source of `Sample`s in an order that seed and epoch decide. Here those known one by
one (class folders, lists); tars, parquet files and data set repos are in `shards.py`. A source never decodes.
"""

import csv
import hashlib
import io
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa


VIDEO_SUFFIXES = (
    ".mp4",
    ".m4v",
    ".mov",
    ".avi",
    ".mkv",
    ".webm",
    ".mpg",
    ".mpeg",
    ".ts",
    ".flv",
    ".wmv",
    ".ogv",
    ".gif",
)
EVAL_SPLITS = ("val", "validation", "valid", "test", "eval")
SPLITS = ("train", "training", *EVAL_SPLITS)
VIDEO_COLUMNS = ("video", "file", "path", "filename", "file_name", "video_path", "clip", "mp4", "webm", "mkv", "avi")
LABEL_COLUMNS = (
    "label",
    "labels",
    "class",
    "class_name",
    "category",
    "target",
    "json.label",
    "json.class",
    "cls",
    "txt",
)


@dataclass(frozen=True)
class Sample:
    """
    One labelled video.

    Args:
        id (`str`):
            Name that is unique in its source and the same on every machine: augmentation and reports go by it.
        video (`str` or `dict`):
            A path or URL, or `{"path": name, "bytes": encoded}`.
        label (`int`, *optional*):
            Index into the source's label names.
    """

    id: str
    video: str | dict[str, Any]
    label: int | None


class VideoSource(ABC):
    """
    Labelled videos in an order that is a pure function of seed and epoch, shared out among processes.

    Attributes:
        label_names (`list[str]`):
            Name of each label index; sorted, unless the data set itself fixes an order.
        num_samples (`int` or `None`):
            Number of videos; `None` for a remote stream that does not say.
        reads_ahead (`bool`):
            Whether reading a sample costs enough to be done ahead of time.
    """

    label_names: list[str]
    num_samples: int | None
    reads_ahead: bool

    @abstractmethod
    def share(self, rank: int, world: int, seed: int | None, epoch: int, start: int = 0) -> Iterator[Sample]:
        """
        The samples of one process, without reading those of the others further than needed to skip them.

        Args:
            rank (`int`):
                This process.
            world (`int`):
                Number of processes; their shares are disjoint and together complete.
            seed (`int` or `None`):
                Seed of the order; `None` keeps the source's own order.
            epoch (`int`):
                Epoch of the order.
            start (`int`, *optional*, defaults to 0):
                Samples of this share to skip.
        """

    @abstractmethod
    def share_size(self, rank: int, world: int) -> int | None:
        """Number of samples in a share, `None` if the stream does not say."""

    @abstractmethod
    def with_label_names(self, label_names: Sequence[str]) -> "VideoSource":
        """The same videos with labels indexing `label_names`, matched by name; ValueError if a name is missing."""

    def __iter__(self) -> Iterator[Sample]:
        return self.share(0, 1, None, 0)

    def manifest_hash(self) -> str | None:
        """SHA-256 over ids and label names in order, `None` for a stream: what exactly a result was measured on."""
        return None


class VideoList(VideoSource):
    """
    Videos known one by one. Columns are held in Arrow, which forked workers share without copying.

    Args:
        ids (`Sequence[str]`):
            Unique names.
        paths (`Sequence[str]`):
            Where each video is.
        labels (`Sequence[int | None]`):
            Index into `label_names`, or `None` for unlabelled videos.
        label_names (`Sequence[str]`):
            Names of the labels.
    """

    reads_ahead = False

    def __init__(
        self,
        ids: Sequence[str],
        paths: Sequence[str],
        labels: Sequence[int | None],
        label_names: Sequence[str],
    ):
        self._ids = pa.array(ids, pa.large_string())
        self._paths = pa.array(paths, pa.large_string())
        self._labels = pa.array(labels, pa.int64())
        if not len(self._ids) == len(self._paths) == len(self._labels):
            raise ValueError(
                f"`ids`, `paths` and `labels` must be equally long, got {len(ids)}, {len(paths)} and {len(labels)}"
            )
        if len(self._ids.unique()) != len(self._ids):
            raise ValueError(f"`ids` must be unique, {Counter(ids).most_common(1)[0][0]!r} is there more than once")
        self.label_names = list(label_names)
        self.num_samples = len(self._ids)

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self._ids[index].as_py(), self._paths[index].as_py(), self._labels[index].as_py())

    def share(self, rank: int, world: int, seed: int | None, epoch: int, start: int = 0) -> Iterator[Sample]:
        for index in shuffled_indices(len(self), seed, epoch)[rank::world][start:]:
            yield self[int(index)]

    def share_size(self, rank: int, world: int) -> int:
        return len(range(rank, len(self), world))

    def select(self, indices: Iterable[int]) -> "VideoList":
        """The videos at `indices`, in that order."""
        chosen = pa.array(list(indices), pa.int64())
        ids, paths, labels = (column.take(chosen).to_pylist() for column in (self._ids, self._paths, self._labels))
        return VideoList(ids, paths, labels, self.label_names)

    def with_label_names(self, label_names: Sequence[str]) -> "VideoList":
        to_new = label_mapping(self.label_names, label_names)
        labels = [None if label is None else to_new[label] for label in self._labels.to_pylist()]
        return VideoList(self._ids.to_pylist(), self._paths.to_pylist(), labels, label_names)

    def label_counts(self) -> dict[str, int]:
        """Number of videos of each label."""
        counts = Counter(self._labels.to_pylist())
        return {name: counts[index] for index, name in enumerate(self.label_names)}

    def split(self, share: float) -> tuple["VideoList", "VideoList"]:
        """
        Hold out a share of each label. Which videos are held out depends on their ids alone: it does not change with
        the seed, the machine, or the order of the list.

        Args:
            share (`float`):
                Share of each label's videos that goes into the second list; at least one video if there are two.

        Returns:
            `tuple[VideoList, VideoList]`: what stays and what is held out.
        """
        held_out: set[int] = set()
        labels = np.array([-1 if label is None else label for label in self._labels.to_pylist()])
        for label in np.unique(labels):
            members = sorted(
                np.flatnonzero(labels == label).tolist(), key=lambda index: stable_hash(self._ids[index].as_py())
            )
            count = min(max(round(share * len(members)), 1), len(members) - 1)
            held_out.update(members[:count])
        everything = range(len(self))
        return self.select(i for i in everything if i not in held_out), self.select(sorted(held_out))

    def sample(self, count: int, seed: int) -> "VideoList":
        """At most `count` videos, chosen by the seed, in the list's order."""
        chosen = np.random.default_rng([seed, len(self)]).permutation(len(self))[:count]
        return self.select(sorted(chosen))

    def manifest_hash(self) -> str:
        digest = hashlib.sha256()
        for name, label in zip(self._ids.to_pylist(), self._labels.to_pylist(), strict=True):
            digest.update(f"{name}\t{'' if label is None else self.label_names[label]}\n".encode())
        return digest.hexdigest()


class SampleList(VideoSource):
    """
    Samples held in memory as they are, whatever form their videos have (paths, bytes, arrays).

    Args:
        samples (`Sequence[Sample]`):
            With unique ids.
        label_names (`Sequence[str]`, *optional*):
            Names of the labels.
    """

    reads_ahead = False

    def __init__(self, samples: Sequence[Sample], label_names: Sequence[str] = ()):
        ids = Counter(sample.id for sample in samples)
        if len(ids) != len(samples):
            raise ValueError(f"Sample ids must be unique, {ids.most_common(1)[0][0]!r} is there more than once")
        self.samples, self.label_names, self.num_samples = list(samples), list(label_names), len(samples)

    def share(self, rank: int, world: int, seed: int | None, epoch: int, start: int = 0) -> Iterator[Sample]:
        order = shuffled_indices(len(self.samples), seed, epoch)
        return (self.samples[index] for index in order[rank::world][start:])

    def share_size(self, rank: int, world: int) -> int:
        return len(range(rank, len(self.samples), world))

    def with_label_names(self, label_names: Sequence[str]) -> "SampleList":
        to_new = label_mapping(self.label_names, label_names)
        labels = [None if sample.label is None else to_new[sample.label] for sample in self.samples]
        renamed = [replace(sample, label=label) for sample, label in zip(self.samples, labels)]
        return SampleList(renamed, label_names)


def shuffled_indices(count: int, seed: int | None, epoch: int) -> np.ndarray:
    """The order of an epoch: a permutation that seed and epoch decide, or no shuffling without a seed."""
    return np.arange(count) if seed is None else np.random.default_rng([seed, epoch]).permutation(count)


def stable_hash(text: str) -> int:
    """A 64-bit number from a text, the same on every machine and in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")


def label_mapping(names: Sequence[str], target_names: Sequence[str]) -> list[int]:
    """
    Match labels by name.

    Args:
        names (`Sequence[str]`):
            The data's label names.
        target_names (`Sequence[str]`):
            The model's label names.

    Returns:
        `list[int]`: for each of `names` its index in `target_names`. A name that is not there raises a `ValueError`
        that shows both sides: matching labels by position would give wrong answers without a word.
    """
    index = {name: position for position, name in enumerate(target_names)}
    missing = [name for name in names if name not in index]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(names)} label names of the data are not among the model's {len(target_names)}: "
            f"{preview(missing)}; the model has {preview(target_names)}"
        )
    return [index[name] for name in names]


def preview(names: Sequence[Any], count: int = 8) -> str:
    """The first few of many names, for messages."""
    shown = ", ".join(repr(name) for name in names[:count])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > count else shown


def sort_label_names(names: Iterable[Any]) -> list[str]:
    """Distinct label names in their fixed order: by number if all are whole numbers, else by text."""
    distinct = {str(name).strip() for name in names}
    return sorted(distinct, key=int) if all(name.isdecimal() for name in distinct) else sorted(distinct)


def read_column(row: Mapping[str, Any], column: str) -> Any:
    """A value of a row; a dot in the name reaches into a structure."""
    value: Any = row
    for part in [column] if column in row else column.split("."):
        value = value[part]
    return value


def choose_column(requested: str | None, columns: Sequence[str], usual: Sequence[str], what: str) -> str | None:
    """The column asked for, or the first usual one there is; ValueError if the one asked for is missing."""
    if requested is not None:
        if requested not in columns:
            raise ValueError(f"`{what}_column` {requested!r} is not among the columns {', '.join(columns)}")
        return requested
    return next((name for name in usual if name in columns), None)


def list_videos(folder: Path) -> list[Path]:
    """Every video file below a folder, sorted by path."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file())


def folder_source(root: Path, label_names: Sequence[str] | None = None) -> VideoList:
    """
    A folder of class folders, or of unlabelled videos.

    Args:
        root (`Path`):
            Holds one folder a label, each with videos at any depth; or videos only, which then have no labels.
        label_names (`Sequence[str]`, *optional*):
            Names to index; the sorted folder names by default.

    Returns:
        `VideoList`: ids are paths relative to `root`.
    """
    folders = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = [(name, path) for name in folders for path in list_videos(root / name)]
    if not folders and (unlabelled := list_videos(root)):
        ids = [path.relative_to(root).as_posix() for path in unlabelled]
        return VideoList(ids, [str(path) for path in unlabelled], [None] * len(ids), list(label_names or []))
    if not found:
        raise ValueError(f"`data` {str(root)!r} has no class folders with videos ({', '.join(VIDEO_SUFFIXES)})")
    classes = sorted({name for name, _ in found})
    names = sort_label_names(classes) if label_names is None else list(label_names)
    indices = label_mapping(classes, names)
    to_index = dict(zip(classes, indices, strict=True))
    ids = [path.relative_to(root).as_posix() for _, path in found]
    return VideoList(ids, [str(path) for _, path in found], [to_index[name] for name, _ in found], names)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a CSV (comma, semicolon or tab), JSON (list of objects) or JSONL file."""
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() in (".csv", ".tsv"):
        header = text.split("\n", 1)[0]
        delimiter = max(",;\t", key=header.count)
        rows: list[Any] = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))
    elif path.suffix.lower() == ".jsonl":
        rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    else:
        rows = json.loads(text)
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"`data` {str(path)!r} must hold a list of rows with named columns")
    return rows


def list_source(
    path: Path,
    split: str | None = None,
    video_column: str | None = None,
    label_column: str | None = None,
    root: str | None = None,
    label_names: Sequence[str] | None = None,
) -> VideoList:
    """
    A CSV, JSON or JSONL list of videos. Rows with an empty label are left out.

    Args:
        path (`Path`):
            The list; paths in it are relative to `root`, which defaults to the list's folder.
        split (`str`, *optional*):
            Keep the rows whose column `split` says so, if there is such a column.
        video_column (`str`, *optional*):
            Column of the video; the usual names are tried otherwise.
        label_column (`str`, *optional*):
            Column of the label; likewise.
        root (`str`, *optional*):
            Folder that relative paths start from.
        label_names (`Sequence[str]`, *optional*):
            Names to index; whole-number labels are then taken as indices into them.
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
    if label_column is not None:
        rows = [row for row in rows if row.get(label_column) not in (None, "")]
    labels, names = index_labels([row[label_column] for row in rows] if label_column else None, label_names)
    base = path.parent if root is None else Path(root)
    files = [str(row[video_column]) for row in rows]
    paths = [file if "://" in file else str(base / file) for file in files]
    return VideoList(number_repeats(files), paths, labels or [None] * len(rows), names)


def index_labels(
    values: Sequence[Any] | None, label_names: Sequence[str] | None
) -> tuple[list[int] | None, list[str]]:
    """Label values (names, or whole numbers into `label_names`) as indices, and the names they index."""
    if values is None:
        return None, list(label_names or [])
    texts = [str(value).strip() for value in values]
    if label_names is None:
        names = sort_label_names(texts)
    else:
        names = list(label_names)
        if all(text.isdecimal() for text in texts) and not set(texts) <= set(names):
            indices = [int(text) for text in texts]
            if max(indices) >= len(names):
                raise ValueError(f"Label {max(indices)} is beyond the {len(names)} `label_names` (labels start at 0)")
            return indices, names
    distinct = sorted(set(texts))
    to_index = dict(zip(distinct, label_mapping(distinct, names), strict=True))
    return [to_index[text] for text in texts], names


def number_repeats(names: Iterable[str]) -> list[str]:
    """Make names unique: the second `clip.mp4` becomes `clip.mp4#2`."""
    seen: Counter[str] = Counter()
    unique = []
    for name in names:
        seen[name] += 1
        unique.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return unique
