"""
Where labelled videos come from: a source of `Sample`s in an order that seed and epoch decide. Here those known one by
one; lists are read in `lists.py`, tars and parquet files in `shards.py`, repos in `repos.py`. A source never decodes.
"""

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ...modeling.video_decoding_types import VIDEO_SUFFIXES


EVAL_SPLITS = ("val", "validation", "valid", "test", "eval")
SPLITS = ("train", "training", *EVAL_SPLITS)

Label = int | tuple[int, ...] | None


@dataclass(frozen=True)
class Sample:
    """
    One labelled video.

    Args:
        id (`str`):
            Name that is unique in its source and the same on every machine: augmentation and reports go by it.
        video (`str` or `dict`):
            A path or URL, or `{"path": name, "bytes": encoded}`.
        label (`int` or `tuple[int, ...]`, *optional*):
            Index into the source's label names; any number of them where the data is multi-label.
    """

    id: str
    video: str | dict[str, Any]
    label: Label


class VideoSource(ABC):
    """
    Labelled videos in an order that is a pure function of seed and epoch, shared out among processes.

    Attributes:
        label_names (`list[str]`):
            Name of each label index; sorted, unless the data set itself fixes an order.
        multi_label (`bool`):
            Whether a video has any number of labels instead of one.
        num_samples (`int` or `None`):
            Number of videos; `None` for a remote stream that does not say.
        reads_ahead (`bool`):
            Whether reading a sample costs enough to be done ahead of time.
    """

    label_names: list[str]
    multi_label: bool = False
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

    def place(self, position: int, rank: int, world: int) -> int:
        """Where the sample at `position` of an unshuffled share stands in the source's own order."""
        return position * world + rank

    def __iter__(self) -> Iterator[Sample]:
        return self.share(0, 1, None, 0)


class VideoList(VideoSource):
    """
    Videos known one by one. Columns are held in Arrow, which forked workers share without copying.

    Args:
        ids (`Sequence[str]`):
            Unique names.
        paths (`Sequence[str]`):
            Where each video is.
        labels (`Sequence[int | tuple[int, ...] | None]`):
            Index into `label_names`, or several, or `None` for unlabelled videos.
        label_names (`Sequence[str]`):
            Names of the labels.
    """

    reads_ahead = False

    def __init__(
        self,
        ids: Sequence[str],
        paths: Sequence[str],
        labels: Sequence[Label],
        label_names: Sequence[str],
    ):
        self.multi_label = any(isinstance(label, tuple) for label in labels)
        self._ids = pa.array(ids, pa.large_string())
        self._paths = pa.array(paths, pa.large_string())
        self._labels = pa.array(labels, pa.list_(pa.int64()) if self.multi_label else pa.int64())
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
        return Sample(self._ids[index].as_py(), self._paths[index].as_py(), _frozen(self._labels[index].as_py()))

    def share(self, rank: int, world: int, seed: int | None, epoch: int, start: int = 0) -> Iterator[Sample]:
        for index in shuffled_indices(len(self), seed, epoch)[rank::world][start:]:
            yield self[int(index)]

    def share_size(self, rank: int, world: int) -> int:
        return len(range(rank, len(self), world))

    def select(self, indices: Iterable[int]) -> "VideoList":
        """The videos at `indices`, in that order."""
        chosen = pa.array(list(indices), pa.int64())
        ids, paths, labels = (column.take(chosen).to_pylist() for column in (self._ids, self._paths, self._labels))
        return VideoList(ids, paths, [_frozen(label) for label in labels], self.label_names)

    def with_label_names(self, label_names: Sequence[str]) -> "VideoList":
        to_new = label_mapping(self.label_names, label_names)
        labels = [renumber(label, to_new) for label in self.labels()]
        return VideoList(self._ids.to_pylist(), self._paths.to_pylist(), labels, label_names)

    def labels(self) -> list[Label]:
        """Label of each video."""
        return [_frozen(label) for label in self._labels.to_pylist()]

    def label_counts(self) -> dict[str, int]:
        """Number of videos of each label."""
        counts = Counter(index for label in self.labels() for index in label_indices(label))
        return {name: counts[index] for index, name in enumerate(self.label_names)}

    def split(self, share: float) -> tuple["VideoList", "VideoList"]:
        """
        Hold out a share of each label (of several the rarest counts). Which videos are held out depends on their ids
        alone: it does not change with the seed, the machine, or the order of the list.

        Args:
            share (`float`):
                Share of each label's videos that goes into the second list; at least one video if there are two.

        Returns:
            `tuple[VideoList, VideoList]`: what stays and what is held out.
        """
        held_out: set[int] = set()
        counts = list(self.label_counts().values())
        groups = [label_indices(label) or (-1,) for label in self.labels()]
        labels = np.array([min(group, key=lambda label: (counts[label], label)) for group in groups], np.int64)
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
        self.multi_label = any(isinstance(sample.label, tuple) for sample in samples)

    def share(self, rank: int, world: int, seed: int | None, epoch: int, start: int = 0) -> Iterator[Sample]:
        order = shuffled_indices(len(self.samples), seed, epoch)
        return (self.samples[index] for index in order[rank::world][start:])

    def share_size(self, rank: int, world: int) -> int:
        return len(range(rank, len(self.samples), world))

    def with_label_names(self, label_names: Sequence[str]) -> "SampleList":
        to_new = label_mapping(self.label_names, label_names)
        renamed = [replace(sample, label=renumber(sample.label, to_new)) for sample in self.samples]
        return SampleList(renamed, label_names)


def label_indices(label: Label) -> tuple[int, ...]:
    """The indices of a label: none, one or several."""
    if label is None:
        return ()
    return label if isinstance(label, tuple) else (label,)


def renumber(label: Label, to_new: Sequence[int]) -> Label:
    """A label in another numbering, which `to_new` gives for each index."""
    if isinstance(label, tuple):
        return tuple(to_new[index] for index in label)
    return None if label is None else to_new[label]


def _frozen(label: int | list[int] | None) -> Label:
    return tuple(label) if isinstance(label, list) else label


def manifest_hash(labelled: Iterable[tuple[str, Label]], label_names: Sequence[str]) -> str:
    """
    What exactly a result was measured on.

    Args:
        labelled (`Iterable[tuple[str, int | tuple[int, ...] | None]]`):
            Id and label of each video, in any order.
        label_names (`Sequence[str]`):
            Names of the labels.

    Returns:
        `str`: SHA-256 over the lines `id<tab>label name`, further names after further tabs, sorted by id.
    """
    digest = hashlib.sha256()
    for name, label in sorted(labelled, key=lambda pair: pair[0]):
        words = [label_names[index] for index in label_indices(label)] or [""]
        digest.update(("\t".join([name, *words]) + "\n").encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


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


def list_videos(folder: Path, suffixes: Sequence[str] = VIDEO_SUFFIXES) -> list[Path]:
    """Every video file (or other file of these suffixes) below a folder, sorted by path."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())


def folder_source(
    root: Path, label_names: Sequence[str] | None = None, suffixes: Sequence[str] = VIDEO_SUFFIXES
) -> VideoList:
    """
    A folder of class folders, or of unlabelled videos.

    Args:
        root (`Path`):
            Holds one folder a label, each with videos at any depth; or videos only, which then have no labels.
        label_names (`Sequence[str]`, *optional*):
            Names to index; the sorted folder names by default.
        suffixes (`Sequence[str]`, *optional*, defaults to `VIDEO_SUFFIXES`):
            Of the files, in lower case.

    Returns:
        `VideoList`: ids are paths relative to `root`.
    """
    folders = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = [(name, path) for name in folders for path in list_videos(root / name, suffixes)]
    if not folders and (unlabelled := list_videos(root, suffixes)):
        ids = [path.relative_to(root).as_posix() for path in unlabelled]
        return VideoList(ids, [str(path) for path in unlabelled], [None] * len(ids), list(label_names or []))
    if not found:
        files = "videos" if suffixes == VIDEO_SUFFIXES else "files"
        raise ValueError(f"`data` {str(root)!r} has no class folders with {files} ({', '.join(suffixes)})")
    classes = sorted({name for name, _ in found})
    names = sort_label_names(classes) if label_names is None else list(label_names)
    indices = label_mapping(classes, names)
    to_index = dict(zip(classes, indices, strict=True))
    ids = [path.relative_to(root).as_posix() for _, path in found]
    return VideoList(ids, [str(path) for _, path in found], [to_index[name] for name, _ in found], names)
