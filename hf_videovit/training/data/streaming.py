"""
From samples to batches. The main process iterates over its samples in order, and stateless workers decode them. The
order therefore does not depend on the number of workers, every sample is used exactly once per epoch, and a run
resumes at any step by skipping samples without decoding them.

[`StepStream`] gives the batches of training: a step takes a slice of the order of the epoch, whatever the number of
processes is. [`ClipStream`] gives the batches of evaluation: every process reads its share of the samples.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset
from transformers.utils import logging

from ...ahead import read_ahead
from ...modeling.video_decoding import VideoDecodingError
from .bad_videos import BadVideo
from .loaders import Record, SampleLoader
from .sources import Sample, VideoSource
from .workers import ignore_signals, worker_context


logger = logging.get_logger(__name__)


@dataclass
class Batch:
    """
    A batch of samples.

    Args:
        rows (`dict[str, torch.Tensor]`):
            Stacked tensors; the first axis is the batch.
        ids (`list[str]`):
            Sample ids.
        positions (`list[int]`):
            Position of each sample in the order of the epoch, or in the share of the process ([`ClipStream`]).
    """

    rows: dict[str, torch.Tensor]
    ids: list[str]
    positions: list[int]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def next_position(self) -> int:
        """Position at which a run continues after this batch."""
        return self.positions[-1] + 1


def merge_copies(rows: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """
    Merge the axes of videos and copies. The first copies of all videos come first, because mixing pairs neighbours,
    which should be different videos.

    Args:
        rows (`dict[str, torch.Tensor]`):
            Tensors of shape `(num_videos, num_sample, ...)`.

    Returns:
        `dict[str, torch.Tensor]`: tensors of shape `(num_sample * num_videos, ...)`.
    """
    return {name: value.transpose(0, 1).flatten(0, 1) for name, value in rows.items()}


class BatchStream(Protocol):
    """A stream of batches for the training loop, such as [`ClipStream`]."""

    source: VideoSource
    sources: list[VideoSource]  # all sources whose samples are in the batches
    rank: int
    world: int
    position: int

    def num_batches(self, rank: int | None = None) -> int | None:
        """
        Number of batches in an epoch.

        Args:
            rank (`int`, *optional*):
                Number of the process; this one by default.

        Returns:
            `int` or `None`: `None` if unknown.
        """

    def num_read(self, position: int) -> int:
        """
        Number of samples before a position.

        Args:
            position (`int`):
                A position of the stream.
        """

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """
        The batches of an epoch.

        Args:
            epoch (`int`):
                Number of the epoch.
            start (`int`, *optional*, defaults to 0):
                Position to resume at.

        Returns:
            `Iterator[Batch]`: the batches.
        """

    def example(self) -> Batch | None:
        """
        A batch for a process that takes part in a step without samples of its own.

        Returns:
            [`Batch`] or `None`: `None` if no sample can be read.
        """


class ClipStream:
    """
    Batches of one process from its share of the samples.

    Args:
        source ([`VideoSource`]):
            The videos.
        load (`Callable[[Record], dict[str, torch.Tensor]]`):
            Reads one sample. It runs in the workers, so it must be picklable. A `VideoDecodingError` becomes a
            [`BadVideo`], and the batch is filled with the following samples.
        batch_size (`int`):
            Samples per batch.
        seed (`int` or `None`):
            Seed of the order; `None` keeps the order of the source.
        rank (`int`, *optional*, defaults to 0):
            Number of this process.
        world (`int`, *optional*, defaults to 1):
            Number of processes.
        num_workers (`int`, *optional*, defaults to 0):
            Decoding processes; 0 decodes in the main process.
        timeout (`float`, *optional*, defaults to 300.0):
            Seconds without a batch from the workers after which they are considered hung.
        drop_last (`bool`, *optional*, defaults to `False`):
            Whether to leave out an incomplete last batch of an epoch.
        on_bad_video (`Callable[[BadVideo], None]`, *optional*):
            Called with each unreadable video, in the order of the share. By default an unreadable video raises a
            `RuntimeError`.
    """

    def __init__(
        self,
        source: VideoSource,
        load: SampleLoader,
        batch_size: int,
        seed: int | None,
        rank: int = 0,
        world: int = 1,
        num_workers: int = 0,
        timeout: float = 300.0,
        drop_last: bool = False,
        on_bad_video: Callable[[BadVideo], None] | None = None,
    ):
        self.source, self.batch_size, self.drop_last = source, batch_size, drop_last
        self.sources = [source]
        self.seed, self.rank, self.world = seed, rank, world
        self.on_bad_video = on_bad_video
        self.position = 0  # in the current epoch; all samples before it were returned or reported
        self._sampler = self._make_sampler()
        workers: dict[str, Any] = {}
        if num_workers:
            workers = {"persistent_workers": True, "timeout": timeout}
            workers |= {"multiprocessing_context": worker_context(), "worker_init_fn": ignore_signals}
        self._loader = DataLoader(
            _RecordDataset(load),
            batch_sampler=self._sampler,
            collate_fn=_as_is,
            num_workers=num_workers,
            pin_memory=torch.cuda.is_available(),
            **workers,
        )

    def _make_sampler(self) -> "_ChunkSampler":
        return _ChunkSampler(self.source, self.batch_size, self.seed, self.rank, self.world)

    @property
    def stride(self) -> int:
        """Positions from one batch to the next."""
        return self.batch_size

    @property
    def num_positions(self) -> int | None:
        """Positions of an epoch; `None` if unknown."""
        return self.source.share_size(self.rank, self.world)

    def example(self) -> Batch | None:
        """
        A batch for a process that takes part in a step without samples of its own: one readable sample, repeated.

        Returns:
            [`Batch`] or `None`: `None` if no sample can be read.
        """
        for sample in self.source.share(0, 1, self.seed, 0):
            chunk = self._loader.dataset[Record(sample, 0, 0)]
            if chunk["ids"]:
                rows = {name: value.repeat_interleave(self.batch_size, 0) for name, value in chunk["rows"].items()}
                return Batch(rows, chunk["ids"] * self.batch_size, [0] * self.batch_size)
        return None

    def num_batches(self, rank: int | None = None) -> int | None:
        """
        Number of batches in an epoch, if every video can be read.

        Args:
            rank (`int`, *optional*):
                Number of the process; this one by default.

        Returns:
            `int` or `None`: `None` if unknown.
        """
        size = self.source.share_size(self.rank if rank is None else rank, self.world)
        return None if size is None else count_batches(size, self.batch_size, self.drop_last)

    def num_read(self, position: int) -> int:
        """
        Number of samples before a position, which is the position itself.

        Args:
            position (`int`):
                A position of the stream.
        """
        return position

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """
        The batches of an epoch.

        Args:
            epoch (`int`):
                Number of the epoch.
            start (`int`, *optional*, defaults to 0):
                Position to resume at: `position` after the last batch, or `next_position` of the batch. With the
                latter, unreadable videos at the end of a share are reported again.

        Returns:
            `Iterator[Batch]`: the batches.
        """
        self._sampler.begin(epoch, start)
        self.position = start
        pending: deque[_Item] = deque()
        for chunk in self._chunks():
            if not pending and not chunk["bad"] and len(chunk["ids"]) == self.batch_size:
                self.position = chunk["positions"][-1] + 1
                yield Batch(chunk["rows"], chunk["ids"], chunk["positions"])
                continue
            pending.extend(_in_order(chunk))
            while sum(item.row is not None for item in pending) >= self.batch_size:
                yield self._take(pending, self.batch_size)
        rest = self._take(pending, self.batch_size)
        if len(rest) and not self.drop_last:
            yield rest

    def _take(self, pending: "deque[_Item]", count: int) -> Batch:
        """Take up to `count` readable samples from the queue and report unreadable ones before them."""
        taken: list[_Item] = []
        while pending and len(taken) < count:
            item = pending.popleft()
            self.position = item.position + 1
            if item.bad is None:
                taken.append(item)
            else:
                self._report(item.bad)
        rows = [item.row for item in taken if item.row is not None]
        stacked = {name: torch.stack([row[name] for row in rows]) for name in (rows[0] if rows else {})}
        return Batch(stacked, [item.id for item in taken], [item.position for item in taken])

    def _report(self, video: BadVideo) -> None:
        if self.on_bad_video is None:
            raise RuntimeError(f"Video {video.id!r} cannot be read: {video.reason}")
        self.on_bad_video(video)

    def _chunks(self) -> Iterator[dict[str, Any]]:
        try:
            for chunk in self._loader:
                self._sampler.handed_out.popleft()
                yield chunk
        except RuntimeError as error:
            if "timed out" not in str(error):
                raise
            waiting = ", ".join(self._sampler.handed_out[0]) if self._sampler.handed_out else "nothing"
            raise TimeoutError(
                f"No batch from the decoding workers for {self._loader.timeout:g} s (`worker_timeout`); "
                f"they are reading {waiting}"
            ) from error


class StepStream(ClipStream):
    """
    Batches of one process in training. A step takes the next samples in the order of the epoch, `accumulation` batches
    in each process. Its samples, and those of each batch, do not depend on the number of processes as long as the
    samples of a step are as many. A position is the number of samples before a step in that order, the same in all
    processes.

    An unreadable video is missing from its step. Batches may be empty: at the end of an epoch, and where none of their
    videos can be read. With `drop_last` an incomplete last step is left out.

    Args:
        source ([`VideoSource`]):
            The videos.
        load (`Callable[[Record], dict[str, torch.Tensor]]`):
            Reads one sample. See [`ClipStream`].
        batch_size (`int`):
            Samples per batch.
        seed (`int` or `None`):
            Seed of the order; `None` keeps the order of the source.
        accumulation (`int`, *optional*, defaults to 1):
            Batches of this process in a step.
        full_batches (`bool`, *optional*, defaults to `False`):
            Whether the readable samples of a batch also take the places of unreadable ones, for losses that need
            equally many clips in all processes.
        options (`Any`):
            Further arguments of [`ClipStream`].
    """

    def __init__(
        self,
        source: VideoSource,
        load: SampleLoader,
        batch_size: int,
        seed: int | None,
        accumulation: int = 1,
        full_batches: bool = False,
        **options: Any,
    ):
        self.accumulation, self.full_batches = accumulation, full_batches
        super().__init__(source, load, batch_size, seed, **options)

    def _make_sampler(self) -> "_ChunkSampler":
        return _StepSampler(self)

    @property
    def stride(self) -> int:
        """Positions from one step to the next."""
        return self.batch_size * self.accumulation * self.world

    @property
    def num_positions(self) -> int | None:
        """Positions of an epoch; `None` if unknown."""
        return self.source.num_samples

    @property
    def num_steps(self) -> int | None:
        """Steps of an epoch; `None` if unknown."""
        return self.source.num_full_steps(self.stride) if self.drop_last else self.source.num_steps(self.stride)

    def num_batches(self, rank: int | None = None) -> int | None:
        """
        Number of batches in an epoch, empty ones included.

        Args:
            rank (`int`, *optional*):
                Number of the process. All processes have equally many.

        Returns:
            `int` or `None`: `None` if unknown.
        """
        return None if self.num_steps is None else self.num_steps * self.accumulation

    def num_read(self, position: int) -> int:
        """
        Number of samples of this process before a position.

        Args:
            position (`int`):
                A position of the stream.
        """
        return position // self.world

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """
        The batches of an epoch.

        Args:
            epoch (`int`):
                Number of the epoch.
            start (`int`, *optional*, defaults to 0):
                Position to resume at: `position` after the last batch of a step.

        Returns:
            `Iterator[Batch]`: the batches, `accumulation` for each step.

        Raises:
            ValueError: `start` is not the position of a step.
        """
        if start % self.stride:
            raise ValueError(f"`start` must be a multiple of the {self.stride} samples of a step, got {start}")
        self._sampler.begin(epoch, start)
        self.position = start
        begin, batches = start // self.stride, self._batches()
        if self.num_steps is not None:  # all processes have equally many
            empty = (Batch({}, [], []) for _ in itertools.count())
            left = max(self.num_steps - begin, 0) * self.accumulation
            batches = itertools.islice(itertools.chain(batches, empty), left)
        for number, batch in enumerate(batches, start=begin * self.accumulation + 1):
            self.position = number // self.accumulation * self.stride
            yield batch

    def _batches(self) -> Iterator[Batch]:
        for chunk in self._chunks():
            for video in chunk["bad"]:
                self._report(video)
            batch = Batch(chunk["rows"], chunk["ids"], chunk["positions"])
            if 0 < len(batch) < self.batch_size:
                if self.drop_last and not chunk["bad"]:
                    batch = Batch({}, [], [])  # the end of samples whose number was unknown
                elif self.full_batches:
                    batch = _repeated(batch, self.batch_size)
            yield batch


def _repeated(batch: Batch, count: int) -> Batch:
    """So many samples, those of a batch in turn."""
    again = [index % len(batch) for index in range(count)]
    rows = {name: value[again] for name, value in batch.rows.items()}
    return Batch(rows, [batch.ids[index] for index in again], [batch.positions[index] for index in again])


def count_batches(size: int, batch_size: int, drop_last: bool) -> int:
    """
    Number of batches in an epoch.

    Args:
        size (`int`):
            Number of samples.
        batch_size (`int`):
            Samples per batch.
        drop_last (`bool`):
            Whether an incomplete last batch is left out.

    Returns:
        `int`: the number.
    """
    return size // batch_size if drop_last else -(-size // batch_size)


class _ChunkSampler:
    """Splits the share of a process into chunks. The indices that workers receive are the records themselves."""

    def __init__(self, source: VideoSource, batch_size: int, seed: int | None, rank: int, world: int):
        self.source, self.batch_size, self.seed, self.rank, self.world = source, batch_size, seed, rank, world
        self.handed_out: deque[list[str]] = deque()
        self._epoch, self._start = 0, 0

    def begin(self, epoch: int, start: int) -> None:
        self._epoch, self._start = epoch, start
        self.handed_out.clear()

    def __iter__(self) -> Iterator[list[Record]]:
        samples: Iterator[Sample] = self.source.share(self.rank, self.world, self.seed, self._epoch, self._start)
        if self.source.reads_ahead:
            samples = read_ahead(samples, 2 * self.batch_size)
        chunk: list[Record] = []
        for position, sample in enumerate(samples, start=self._start):
            chunk.append(Record(sample, self._epoch, position))
            if len(chunk) == self.batch_size:
                self.handed_out.append([record.sample.id for record in chunk])
                yield chunk
                chunk = []
        if chunk:
            self.handed_out.append([record.sample.id for record in chunk])
            yield chunk


class _StepSampler(_ChunkSampler):
    """Splits the samples of a process in each step into chunks, some of them empty."""

    def __init__(self, stream: StepStream):
        super().__init__(stream.source, stream.batch_size, stream.seed, stream.rank, stream.world)
        self.stream = stream

    def __iter__(self) -> Iterator[list[Record]]:
        stride, batch_size, source = self.stream.stride, self.batch_size, self.source
        steps = source.steps(self.rank, self.world, self.seed, self._epoch, self._start, stride)
        if self.stream.num_steps is not None:
            steps = itertools.islice(steps, max(self.stream.num_steps - self._start // stride, 0))
        if source.reads_ahead:
            steps = read_ahead(steps, 2)
        part = stride // self.world
        for number, step in enumerate(steps, start=self._start // stride):
            begin = number * stride + self.rank * part
            for first in range(0, part, batch_size):
                places = enumerate(step[first : first + batch_size], start=begin + first)
                chunk = [Record(sample, self._epoch, place) for place, sample in places if sample is not None]
                self.handed_out.append([record.sample.id for record in chunk])
                yield chunk


class _RecordDataset(Dataset):
    """Reads records in a worker. A loader whose samples differ in size has `collate`, which makes a batch of them."""

    def __init__(self, load: SampleLoader):
        self.load = load

    def __getitem__(self, record: Record) -> dict[str, Any]:
        return self.__getitems__([record])

    def __getitems__(self, records: list[Record]) -> dict[str, Any]:
        rows: list[dict[str, torch.Tensor]] = []
        good: list[Record] = []
        bad: list[BadVideo] = []
        for record in records:
            try:
                rows.append(self.load(record))
                good.append(record)
            except VideoDecodingError as error:
                bad.append(BadVideo(record.sample.id, record.position, error.reason, error.kind, error.decoder))
        collate = getattr(self.load, "collate", _stacked)
        return {
            "rows": collate(rows) if rows else {},
            "ids": [record.sample.id for record in good],
            "positions": [record.position for record in good],
            "bad": bad,
        }


def _stacked(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def _as_is(chunk: Any) -> Any:
    return chunk


@dataclass
class _Item:
    """One sample of a chunk: its tensors, or the unreadable video."""

    position: int
    id: str
    row: dict[str, torch.Tensor] | None = None
    bad: BadVideo | None = None


def _in_order(chunk: dict[str, Any]) -> list[_Item]:
    """All samples of a chunk, including unreadable ones, in the order of the share."""
    items = [_Item(video.position, video.id, bad=video) for video in chunk["bad"]]
    for index, (position, name) in enumerate(zip(chunk["positions"], chunk["ids"])):
        items.append(_Item(position, name, {key: rows[index] for key, rows in chunk["rows"].items()}))
    return sorted(items, key=lambda item: item.position)
