"""
Sources of labelled videos: `Sample`s in an order that depends on seed and epoch. A source never decodes. Sources of
single files are defined here; `folders.py` reads folders, `lists.py` lists, `shards.py` tars and parquet files,
`repos.py` repos.
"""

import copy
import hashlib
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from ...files import plain_name
from ...modeling.video_decoding_parts import VideoPart


EVAL_SPLITS = ("val", "validation", "valid", "test", "eval")
SPLITS = ("train", "training", *EVAL_SPLITS)
SHARD_SUFFIXES = (".tar", ".parquet")

Label = int | tuple[int, ...] | None
BESIDE_PATH = pa.struct([(name, pa.float64()) for name in ("start", "end", "start_frame", "end_frame", "fps")])


@dataclass(frozen=True)
class Sample:
    """
    One labelled video.

    Args:
        id (`str`):
            Name that is unique in its source and the same on every machine. Augmentation and reports depend on it.
        video (`str` or `dict`):
            A path or URL, `{"path": name, "bytes": encoded}`, a part of a file: `{"path": path, "start": seconds,
            "end": seconds}`, see [`VideoPart`], or a folder of pictures with its rate: `{"path": path, "fps": rate}`.
        label (`int`, `tuple[int, ...]` or `None`):
            Index into the label names of the source, or any number of indices if the data is multi-label.
    """

    id: str
    video: str | dict[str, Any]
    label: Label


class VideoSource(ABC):
    """
    Labelled videos in an order that is a pure function of seed and epoch, divided among processes.

    Attributes:
        label_names (`list[str]`):
            Name of each label index. Sorted, unless the data set fixes an order.
        multi_label (`bool`):
            Whether a video has any number of labels instead of one.
        num_samples (`int` or `None`):
            Number of videos; `None` for a remote stream of unknown length.
        reads_ahead (`bool`):
            Whether samples should be read ahead, because reading one is slow.
        remarks (`tuple[str, ...]`):
            Sentences about the data that a user should know: what is left out and why, parts, merged folders.
    """

    label_names: list[str]
    multi_label: bool = False
    num_samples: int | None
    reads_ahead: bool
    remarks: tuple[str, ...] = ()

    @abstractmethod
    def share(self, rank: int, world: int, seed: int | None, epoch: int, start: int = 0) -> Iterator[Sample]:
        """
        The samples of one process. Samples of other processes are read only as far as needed to skip them.

        Args:
            rank (`int`):
                Number of the process.
            world (`int`):
                Number of processes. Their shares are disjoint and together complete.
            seed (`int` or `None`):
                Seed of the order; `None` keeps the order of the source.
            epoch (`int`):
                Epoch of the order.
            start (`int`, *optional*, defaults to 0):
                Number of samples of this share to skip.

        Returns:
            `Iterator[Sample]`: the samples.
        """

    def steps(
        self, rank: int, world: int, seed: int | None, epoch: int, start: int, size: int
    ) -> Iterator[list[Sample | None]]:
        """
        The samples of one process in each step of training. Step `n` takes the positions `n * size` to
        `(n + 1) * size` of the order of the epoch, and process `r` the `r`-th of `world` equal parts of them. So the
        samples of a step do not depend on the number of processes.

        Args:
            rank (`int`):
                Number of the process.
            world (`int`):
                Number of processes.
            seed (`int` or `None`):
                Seed of the order; `None` keeps the order of the source.
            epoch (`int`):
                Epoch of the order.
            start (`int`):
                Position at which the first step begins, a multiple of `size`.
            size (`int`):
                Samples of a step in all processes, a multiple of `world`.

        Returns:
            `Iterator[list[Sample | None]]`: `size // world` samples a step; `None` where there are no more.
        """
        part = size // world
        samples = self.share(0, 1, seed, epoch, start)
        while step := list(islice(samples, size)):
            own = step[rank * part : (rank + 1) * part]
            yield [*own, *[None] * (part - len(own))]

    def num_steps(self, size: int) -> int | None:
        """
        Number of steps in an epoch.

        Args:
            size (`int`):
                Samples of a step in all processes.

        Returns:
            `int` or `None`: `None` if unknown. The last step may have fewer samples.
        """
        return None if self.num_samples is None else -(-self.num_samples // size)

    def num_full_steps(self, size: int) -> int | None:
        """
        Number of steps in an epoch that have all samples.

        Args:
            size (`int`):
                Samples of a step in all processes.

        Returns:
            `int` or `None`: `None` if unknown.
        """
        return None if self.num_samples is None else self.num_samples // size

    @abstractmethod
    def share_size(self, rank: int, world: int) -> int | None:
        """
        Number of samples in a share.

        Args:
            rank (`int`):
                Number of the process.
            world (`int`):
                Number of processes.

        Returns:
            `int` or `None`: `None` if unknown.
        """

    @abstractmethod
    def with_label_names(self, label_names: Sequence[str]) -> "VideoSource":
        """
        The same videos with labels that index other label names, matched by name.

        Args:
            label_names (`Sequence[str]`):
                The new label names.

        Returns:
            [`VideoSource`]: the videos.

        Raises:
            ValueError: a label of the source is not among `label_names`.
        """

    def fingerprint(self) -> str:
        """
        Number of samples and a hash of their ids and labels in order. A position in the source is the same sample as
        long as this is the same.

        Returns:
            `str`: the facts as text.
        """
        return fingerprint(self.num_samples, self.label_names)

    def place(self, position: int, rank: int, world: int) -> int:
        """
        Position of a sample of an unshuffled share in the order of the source.

        Args:
            position (`int`):
                Position in the share.
            rank (`int`):
                Number of the process.
            world (`int`):
                Number of processes.

        Returns:
            `int`: the position.
        """
        return position * world + rank

    def __iter__(self) -> Iterator[Sample]:
        return self.share(0, 1, None, 0)


class IndexedSource(VideoSource):
    """Samples that can be looked up by their index, so that a process makes its own only."""

    reads_ahead = False
    num_samples: int

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """
        A sample.

        Args:
            index (`int`):
                Its index in the order of the source.

        Returns:
            [`Sample`]
        """

    def share(self, rank: int, world: int, seed: int | None, epoch: int, start: int = 0) -> Iterator[Sample]:
        """See [`VideoSource.share`]."""
        for index in shuffled_indices(self.num_samples, seed, epoch)[rank::world][start:]:
            yield self[int(index)]

    def steps(
        self, rank: int, world: int, seed: int | None, epoch: int, start: int, size: int
    ) -> Iterator[list[Sample | None]]:
        """See [`VideoSource.steps`]."""
        part, order = size // world, shuffled_indices(self.num_samples, seed, epoch)
        for first in range(start, self.num_samples, size):
            own = order[first + rank * part : first + (rank + 1) * part]
            yield [*(self[int(index)] for index in own), *[None] * (part - len(own))]

    def share_size(self, rank: int, world: int) -> int:
        """See [`VideoSource.share_size`]."""
        return len(range(rank, self.num_samples, world))


class VideoList(IndexedSource):
    """
    Videos in single files. Columns are stored in Arrow, which forked workers share without copying.

    Args:
        ids (`Sequence[str]`):
            Unique names.
        paths (`Sequence[str]`):
            Path or URL of each video.
        labels (`Sequence[int | tuple[int, ...] | None]`):
            Index into `label_names`, several indices, or `None` for an unlabelled video.
        label_names (`Sequence[str]`):
            Names of the labels.
        parts (`Sequence[VideoPart | None]`, *optional*):
            The part of each file that is the video; whole files by default.
        rates (`Sequence[float | None]`, *optional*):
            Frame rate of each folder of pictures; `None` for files.
        remarks (`Sequence[str]`, *optional*, defaults to `()`):
            See [`VideoSource`].

    Raises:
        ValueError: the columns have different lengths, or ids are not unique.
    """

    held_out = False  # whether the videos are a part of the training data that is not trained on

    def __init__(
        self,
        ids: Sequence[str],
        paths: Sequence[str],
        labels: Sequence[Label],
        label_names: Sequence[str],
        parts: Sequence[VideoPart | None] | None = None,
        remarks: Sequence[str] = (),
        rates: Sequence[float | None] | None = None,
    ):
        self.multi_label = any(isinstance(label, tuple) for label in labels)
        self._ids = pa.array(ids, pa.large_string())
        self._paths = pa.array(paths, pa.large_string())
        self._labels = pa.array(labels, pa.list_(pa.int64()) if self.multi_label else pa.int64())
        if not len(self._ids) == len(self._paths) == len(self._labels):
            raise ValueError(
                "`ids`, `paths` and `labels` must have the same length, got "
                f"{len(ids)}, {len(paths)} and {len(labels)}"
            )
        if len(self._ids.unique()) != len(self._ids):
            raise ValueError(f"`ids` must be unique, {Counter(ids).most_common(1)[0][0]!r} occurs more than once")
        self.label_names, self.remarks = list(label_names), tuple(remarks)
        self.num_samples = len(self._ids)
        nothing: list[None] = [None] * len(ids)
        fields = [{} if part is None else part.fields() for part in parts or nothing]
        fields = [one if rate is None else one | {"fps": rate} for one, rate in zip(fields, rates or nothing)]
        self._parts = pa.array([one or None for one in fields], BESIDE_PATH)

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Sample:
        video = _whole_or_part(self._paths[index].as_py(), self._parts[index].as_py())
        return Sample(self._ids[index].as_py(), video, _frozen(self._labels[index].as_py()))

    def select(self, indices: Iterable[int]) -> "VideoList":
        """
        Select videos.

        Args:
            indices (`Iterable[int]`):
                Their indices in this list.

        Returns:
            [`VideoList`]: the videos, in the order of `indices`.
        """
        chosen = pa.array(list(indices), pa.int64())
        selected = copy.copy(self)
        for column in ("_ids", "_paths", "_labels", "_parts"):
            setattr(selected, column, getattr(self, column).take(chosen))
        selected.num_samples = len(selected._ids)
        return selected

    def with_label_names(self, label_names: Sequence[str]) -> "VideoList":
        """See [`VideoSource.with_label_names`]."""
        to_new = label_mapping(self.label_names, label_names)
        renamed = copy.copy(self)
        renamed.label_names = list(label_names)
        renamed._labels = pa.array([_renumber(label, to_new) for label in self.labels()], self._labels.type)
        return renamed

    def videos(self) -> list[str | dict[str, Any]]:
        """Path or URL of each video, with its part where it has one."""
        return [_whole_or_part(*pair) for pair in zip(self._paths.to_pylist(), self._parts.to_pylist())]

    def fingerprint(self) -> str:
        """See [`VideoSource.fingerprint`]."""
        rows = zip(self._ids.to_pylist(), self.labels(), self._parts.to_pylist())
        names: Sequence[Any] = self.label_names or range(1 << 31)  # labels without names are numbers
        named = ([name, [names[index] for index in label_indices(label)], part] for name, label, part in rows)
        return fingerprint(len(self), named)

    def labels(self) -> list[Label]:
        """Label of each video."""
        return [_frozen(label) for label in self._labels.to_pylist()]

    def label_counts(self) -> dict[str, int]:
        """Number of videos of each label."""
        counts = Counter(index for label in self.labels() for index in label_indices(label))
        return {name: counts[index] for index, name in enumerate(self.label_names)}

    def split(self, share: float) -> tuple["VideoList", "VideoList"]:
        """
        Hold out a share of the videos of each label. A video with several labels counts for the rarest one. The choice
        depends on the ids only, not on a seed, the machine or the order of the list.

        Args:
            share (`float`):
                Share of the videos of each label that is held out: at least one video if there are two.

        Returns:
            `tuple[VideoList, VideoList]`: the remaining videos and the videos held out.
        """
        held_out: set[int] = set()
        counts = list(self.label_counts().values())
        groups = [label_indices(label) for label in self.labels()]
        rarest = [min(group, key=lambda label: (counts[label], label), default=-1) for group in groups]
        labels = np.array(rarest, np.int64)  # -1 without a label
        for label in np.unique(labels):
            members = sorted(
                np.flatnonzero(labels == label).tolist(), key=lambda index: stable_hash(self._ids[index].as_py())
            )
            count = min(max(round(share * len(members)), 1), len(members) - 1)
            held_out.update(members[:count])
        everything = range(len(self))
        return self.select(i for i in everything if i not in held_out), self.select(sorted(held_out))

    def sample(self, count: int, seed: int) -> "VideoList":
        """
        Select videos at random.

        Args:
            count (`int`):
                Largest number of videos.
            seed (`int`):
                Seed of the choice.

        Returns:
            [`VideoList`]: the videos, in the order of this list.
        """
        chosen = np.random.default_rng([seed, len(self)]).permutation(len(self))[:count]
        return self.select(sorted(chosen))


class SampleList(IndexedSource):
    """
    Samples in memory. Their videos may have any form: paths, bytes, arrays.

    Args:
        samples (`Sequence[Sample]`):
            Samples with unique ids.
        label_names (`Sequence[str]`, *optional*, defaults to `()`):
            Names of the labels.

    Raises:
        ValueError: ids are not unique.
    """

    def __init__(self, samples: Sequence[Sample], label_names: Sequence[str] = ()):
        ids = Counter(sample.id for sample in samples)
        if len(ids) != len(samples):
            raise ValueError(f"Sample ids must be unique, {ids.most_common(1)[0][0]!r} occurs more than once")
        self.samples, self.label_names, self.num_samples = list(samples), list(label_names), len(samples)
        self.multi_label = any(isinstance(sample.label, tuple) for sample in samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]

    def fingerprint(self) -> str:
        """See [`VideoSource.fingerprint`]."""
        names: Sequence[Any] = self.label_names or range(1 << 31)  # labels without names are numbers
        rows = ([sample.id, [names[index] for index in label_indices(sample.label)]] for sample in self.samples)
        return fingerprint(len(self.samples), rows)

    def with_label_names(self, label_names: Sequence[str]) -> "SampleList":
        """See [`VideoSource.with_label_names`]."""
        to_new = label_mapping(self.label_names, label_names)
        renamed = [replace(sample, label=_renumber(sample.label, to_new)) for sample in self.samples]
        return SampleList(renamed, label_names)


def label_indices(label: Label) -> tuple[int, ...]:
    """
    The indices of a label.

    Args:
        label (`int`, `tuple[int, ...]` or `None`):
            A label.

    Returns:
        `tuple[int, ...]`: no, one or several indices.
    """
    if label is None:
        return ()
    return label if isinstance(label, tuple) else (label,)


def _renumber(label: Label, to_new: Sequence[int]) -> Label:
    """A label with new indices; `to_new` holds the new index for each old one."""
    if isinstance(label, tuple):
        return tuple(to_new[index] for index in label)
    return None if label is None else to_new[label]


def _whole_or_part(path: str, part: dict[str, float | None] | None) -> str | dict[str, Any]:
    """The video of a sample: a path, or a path with the bounds of a part."""
    if part is None:
        return path
    return {"path": path} | {name: value for name, value in part.items() if value is not None}


def _frozen(label: int | list[int] | None) -> Label:
    return tuple(label) if isinstance(label, list) else label


def fingerprint(count: int | None, rows: Iterable[Any]) -> str:
    """
    Number of samples and a hash of what is known about them.

    Args:
        count (`int` or `None`):
            Number of samples, if known.
        rows (`Iterable[Any]`):
            Plain values, in order.

    Returns:
        `str`: the facts as text.
    """
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row).encode() + b"\n")
    return f"{'a stream' if count is None else f'{count} samples'} (sha256 {digest.hexdigest()[:16]})"


def manifest_hash(labelled: Iterable[tuple[str, Label]], label_names: Sequence[str]) -> str:
    """
    Hash of the videos and labels that a result was measured on.

    Args:
        labelled (`Iterable[tuple[str, int | tuple[int, ...] | None]]`):
            Id and label of each video, in any order.
        label_names (`Sequence[str]`):
            Names of the labels.

    Returns:
        `str`: SHA-256 of lines with an id and label names, separated by tabs and sorted by id.
    """
    digest = hashlib.sha256()
    for name, label in sorted(labelled, key=lambda pair: pair[0]):
        words = [label_names[index] for index in label_indices(label)] or [""]
        digest.update(("\t".join([name, *words]) + "\n").encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def shuffled_indices(count: int, seed: int | None, epoch: int) -> np.ndarray:
    """
    The order of an epoch.

    Args:
        count (`int`):
            Number of samples.
        seed (`int` or `None`):
            Seed of a permutation; `None` keeps the order.
        epoch (`int`):
            The epoch, on which the permutation depends as well.

    Returns:
        `np.ndarray` of shape `(count,)`: indices.
    """
    return np.arange(count) if seed is None else np.random.default_rng([seed, epoch]).permutation(count)


def stable_hash(text: str) -> int:
    """
    A 64-bit hash that is the same on every machine and in every process.

    Args:
        text (`str`):
            Any text.

    Returns:
        `int`: the hash.
    """
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")


def label_mapping(names: Sequence[str], target_names: Sequence[str]) -> list[int]:
    """
    Match labels by name.

    Args:
        names (`Sequence[str]`):
            Label names of the data.
        target_names (`Sequence[str]`):
            Label names of the model.

    Returns:
        `list[int]`: index in `target_names` of each of `names`.

    Raises:
        ValueError: a name is not in `target_names`. Labels are never matched by position, which would silently give
            wrong results.
    """
    index = {plain_name(name): position for position, name in enumerate(target_names)}
    missing = [name for name in names if plain_name(name) not in index]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(names)} label names of the data are not among the model's {len(target_names)}: "
            f"{preview(missing)}; the model has {preview(target_names)}"
        )
    return [index[plain_name(name)] for name in names]


def preview(names: Sequence[Any], count: int = 8) -> str:
    """
    The first few of many names, for messages.

    Args:
        names (`Sequence`):
            The names.
        count (`int`, *optional*, defaults to 8):
            Largest number of names to show.

    Returns:
        `str`: the names, separated by commas.
    """
    shown = ", ".join(repr(name) for name in names[:count])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > count else shown


def sort_label_names(names: Iterable[Any]) -> list[str]:
    """
    Sort distinct label names: by number if all are whole numbers, otherwise as text.

    Args:
        names (`Iterable`):
            The names.

    Returns:
        `list[str]`: the sorted names.
    """
    distinct = {plain_name(str(name)) for name in names}
    return sorted(distinct, key=int) if all(name.isdecimal() for name in distinct) else sorted(distinct)
