"""
Videos that come in a stream through `datasets`: WebDataset tars, parquet files and data set repos.
"""

import copy
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from .sources import (
    LABEL_COLUMNS,
    VIDEO_COLUMNS,
    Sample,
    VideoList,
    VideoSource,
    choose_column,
    index_labels,
    label_mapping,
    preview,
    read_column,
    sort_label_names,
)


class VideoShards(VideoSource):
    """
    Videos that lie in tars or parquet files, or in a data set repo, read in a stream through `datasets`.

    A process reads whole shards of its own when their number is a multiple of the number of processes. Otherwise it
    reads past the samples of the others, still encoded, and keeps every `world`-th. Samples are shuffled by the order
    of the shards and by a buffer of encoded samples.

    Args:
        dataset (`datasets.IterableDataset`):
            The stream, with decoding switched off.
        video_column (`str`):
            Column that holds `{"path", "bytes"}` or a path.
        label_column (`str` or `None`):
            Column of the label; a dot reaches into a structure (`json.label`).
        label_names (`Sequence[str]`):
            Names of the labels.
        whole_number_labels (`bool`, *optional*, defaults to `False`):
            Whether whole numbers in the label column are indices into `label_names` (else they are names themselves).
        shard_sizes (`Sequence[int]`, *optional*):
            Number of samples in each shard, where known.
        shuffle_buffer (`int`, *optional*, defaults to 256):
            Encoded samples held in memory for shuffling.
    """

    reads_ahead = True

    def __init__(
        self,
        dataset: Any,
        video_column: str,
        label_column: str | None,
        label_names: Sequence[str],
        whole_number_labels: bool = False,
        shard_sizes: Sequence[int] | None = None,
        shuffle_buffer: int = 256,
    ):
        self.dataset = dataset
        self.video_column, self.label_column = video_column, label_column
        self.label_names = list(label_names)
        self.whole_number_labels = whole_number_labels
        self.shard_sizes = None if shard_sizes is None else list(shard_sizes)
        self.shuffle_buffer = shuffle_buffer
        self.num_samples = None if shard_sizes is None else sum(shard_sizes)
        self.num_shards = dataset.num_shards
        self._data_names = self.label_names
        self._to_label = {name: index for index, name in enumerate(self.label_names)}

    def share(self, rank: int, world: int, seed: int | None, epoch: int, start: int = 0) -> Iterator[Sample]:
        if seed is None:
            samples = self._unshuffled(range(self.num_shards), rank, world)
        else:
            # Which shards are whose is the same in all epochs: only so is the number of a process's samples.
            whole = self.num_shards % world == 0
            shards = range(rank, self.num_shards, world) if whole else range(self.num_shards)
            generator = np.random.default_rng([seed, epoch, rank] if whole else [seed, epoch])
            order = [shards[int(index)] for index in generator.permutation(len(shards))]
            samples = self._unshuffled(order, 0, 1) if whole else self._unshuffled(order, rank, world)
            samples = shuffle_in_buffer(samples, self.shuffle_buffer, np.random.default_rng([seed, epoch, rank, 1]))
        for position, sample in enumerate(samples):
            if position >= start:
                yield sample

    def share_size(self, rank: int, world: int) -> int | None:
        if self.shard_sizes is None or self.num_samples is None:
            return None
        if self.num_shards % world == 0:
            return sum(self.shard_sizes[rank::world])
        return len(range(rank, self.num_samples, world))

    def with_label_names(self, label_names: Sequence[str]) -> "VideoShards":
        to_new = label_mapping(self.label_names, label_names)
        renamed = copy.copy(self)
        renamed.label_names = list(label_names)
        renamed._to_label = {name: to_new[index] for name, index in self._to_label.items()}
        return renamed

    def _unshuffled(self, shards: Sequence[int], rank: int, world: int) -> Iterator[Sample]:
        index = 0
        for shard in shards:
            rows = self.dataset.shard(num_shards=self.num_shards, index=shard)
            for row_index, row in enumerate(rows):
                if index % world == rank:
                    yield self._sample(row, shard, row_index)
                index += 1

    def _sample(self, row: Mapping[str, Any], shard: int, row_index: int) -> Sample:
        video = row[self.video_column]
        name = ""
        if isinstance(video, Mapping):
            name = Path(video.get("path") or "").name
            video = {"path": video.get("path"), "bytes": video["bytes"]} if video.get("bytes") else video["path"]
        if "__key__" in row:
            name = f"{Path(row['__url__']).name}/{row['__key__']}"
        else:
            name = f"{shard:05d}/{row_index:06d}/{name}".rstrip("/")
        label = None if self.label_column is None else self._label(read_column(row, self.label_column), name)
        return Sample(name, video, label)

    def _label(self, value: Any, name: str) -> int:
        known = self._data_names
        if self.whole_number_labels and isinstance(value, int):
            label = known[value] if 0 <= value < len(known) else None
        else:
            label = str(value).strip()
        if label not in self._to_label:
            raise ValueError(f"Sample {name!r} has the label {value!r}, which is not among {preview(known)}")
        return self._to_label[label]


def shuffle_in_buffer(samples: Iterable[Sample], size: int, generator: np.random.Generator) -> Iterator[Sample]:
    """Shuffle a stream through a buffer; the same generator gives the same order, so skipping replays it exactly."""
    buffer: list[Sample] = []
    for sample in samples:
        if len(buffer) < size:
            buffer.append(sample)
            continue
        slot = int(generator.integers(size))
        buffer[slot], sample = sample, buffer[slot]
        yield sample
    for slot in generator.permutation(len(buffer)):
        yield buffer[int(slot)]


def shard_source(
    files: Sequence[Path],
    video_column: str | None = None,
    label_column: str | None = None,
    label_names: Sequence[str] | None = None,
    shuffle_buffer: int = 256,
) -> VideoShards:
    """
    Local WebDataset tars or parquet files. Headers and labels are read once, the videos are not.

    Args:
        files (`Sequence[Path]`):
            The shards, all `.tar` or all `.parquet`.
        video_column (`str`, *optional*):
            Column of the video; the usual names are tried otherwise.
        label_column (`str`, *optional*):
            Column of the label; likewise. A dot reaches into a structure (`json.label`).
        label_names (`Sequence[str]`, *optional*):
            Names to index; those declared or found in the data otherwise.
        shuffle_buffer (`int`, *optional*, defaults to 256):
            Encoded samples held in memory for shuffling.
    """
    from datasets import load_dataset

    suffixes = {path.suffix for path in files}
    if suffixes not in ({".tar"}, {".parquet"}):
        raise ValueError(f"`data` must be all .tar or all .parquet files, got {', '.join(sorted(suffixes))}")
    kind = "webdataset" if suffixes == {".tar"} else "parquet"
    shards = [str(path.absolute()) for path in sorted(files)]
    dataset = load_dataset(kind, data_files=shards, split="train", streaming=True).decode(False)
    video_column, label_column = choose_stream_columns(dataset, video_column, label_column)
    names = label_names or class_label_names(dataset, label_column)
    scan = scan_tar if kind == "webdataset" else scan_parquet
    scanned = [scan(path, None if names else label_column) for path in shards]
    found = sort_label_names(name for _, labels in scanned for name in labels)
    sizes = [count for count, _ in scanned]
    return VideoShards(dataset, video_column, label_column, names or found, bool(names), sizes, shuffle_buffer)


def scan_tar(path: str, label_column: str | None) -> tuple[int, set[Any]]:
    """Number of samples of a WebDataset tar and its distinct labels (none if no column is asked for)."""
    extension, _, field = (label_column or "").partition(".")
    keys, labels = set(), set()
    with tarfile.open(path) as archive:
        for member in archive:
            folder, _, name = member.name.rpartition("/")
            stem, _, member_extension = name.partition(".")
            if not member.isfile() or not stem or not member_extension:
                continue
            keys.add(f"{folder}/{stem}")
            if label_column and member_extension.lower() == extension:
                reader = archive.extractfile(member)
                text = reader.read().decode("utf-8") if reader else ""
                labels.add(json.loads(text)[field] if field else text.strip())
    return len(keys), labels


def scan_parquet(path: str, label_column: str | None) -> tuple[int, set[Any]]:
    """Number of rows of a parquet file and its distinct labels (none if no column is asked for)."""
    with pq.ParquetFile(path) as file:
        labels: set[Any] = set()
        if label_column:
            for batch in file.iter_batches(columns=[label_column]):
                labels.update(read_column(row, label_column) for row in batch.to_pylist())
        return file.metadata.num_rows, labels


def choose_stream_columns(dataset: Any, video: str | None, label: str | None) -> tuple[str, str | None]:
    """Video and label column of a stream; structures count as `name.field`."""
    columns: list[str] = []
    for name, feature in (dataset.features or {}).items():
        columns.append(name)
        if isinstance(feature, dict):
            columns.extend(f"{name}.{field}" for field in feature)
    video_column = choose_column(video, columns, VIDEO_COLUMNS, "video")
    if video_column is None:
        raise ValueError(f"`video_column` is needed: the data set has the columns {', '.join(columns)}")
    return video_column, choose_column(label, columns, LABEL_COLUMNS, "label")


def class_label_names(dataset: Any, label_column: str | None) -> list[str] | None:
    """Label names that the data set itself declares."""
    from datasets import ClassLabel

    feature = (dataset.features or {}).get(label_column)
    return list(feature.names) if isinstance(feature, ClassLabel) else None


def repo_source(
    repo: str,
    split: str,
    config: str | None = None,
    video_column: str | None = None,
    label_column: str | None = None,
    label_names: Sequence[str] | None = None,
    shuffle_buffer: int = 256,
) -> VideoSource:
    """
    A data set repo on a Hub: tars and parquet files are streamed, single video files become a list of their addresses.

    Args:
        repo (`str`):
            Its id.
        split (`str`):
            Its split.
        config (`str`, *optional*):
            Its configuration.
        video_column (`str`, *optional*):
            Column of the video; the usual names are tried otherwise.
        label_column (`str`, *optional*):
            Column of the label; likewise. A dot reaches into a structure (`json.label`).
        label_names (`Sequence[str]`, *optional*):
            Names to index; needed where the repo does not declare them.
        shuffle_buffer (`int`, *optional*, defaults to 256):
            Encoded samples held in memory for shuffling.
    """
    from datasets import load_dataset

    dataset = load_dataset(repo, config, split=split, streaming=True).decode(False)
    video_column, label_column = choose_stream_columns(dataset, video_column, label_column)
    if dataset.builder_name == "videofolder":
        return _list_of_addresses(dataset, video_column, label_column, label_names)
    names = label_names or class_label_names(dataset, label_column)
    if names is None and label_column is not None:
        raise ValueError(f"`label_names` is needed: column {label_column!r} of {repo!r} does not declare its names")
    splits = dataset.info.splits or {}
    count = splits[split].num_examples if split in splits else 0
    sizes = [count] if count and dataset.num_shards == 1 else None
    return VideoShards(dataset, video_column, label_column, names or [], True, sizes, shuffle_buffer)


def _list_of_addresses(
    dataset: Any, video_column: str, label_column: str | None, label_names: Sequence[str] | None
) -> VideoList:
    """Single files can be counted and shuffled as a whole; `datasets` streams them class by class in one shard."""
    rows = list(dataset)
    paths = [row[video_column]["path"] for row in rows]
    ids = [path.partition("@")[2].partition("/")[2] or path for path in paths]  # hf://datasets/owner/name@commit/id
    declared = class_label_names(dataset, label_column)
    values = None if label_column is None else [row[label_column] for row in rows]
    if declared is not None and values is not None:
        values = [declared[value] for value in values]
    labels, names = index_labels(values, label_names or declared)
    return VideoList(ids, paths, labels or [None] * len(rows), names)
