"""
From samples to batches. One process walks its share of the samples in order; stateless workers decode what it hands
them. So the order never depends on the number of workers, every sample comes exactly once an epoch, and a run resumes
at any sample by skipping undecoded ones.
"""

import json
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from transformers.utils import logging

from ...modeling.video_decoding import VideoDecodingError
from .augmentation import Augmentation, sample_seed
from .processors import ClipProcessor
from .sources import Label, Sample, VideoSource, label_indices
from .workers import ignore_sigterm, worker_context


logger = logging.get_logger(__name__)

UNCOUNTED_EPOCH = 1000  # clips an epoch is taken to have, at least, while a stream does not say


@dataclass(frozen=True)
class Record:
    """A sample, the epoch it is read in and its position in the process's share."""

    sample: Sample
    epoch: int
    position: int


@dataclass(frozen=True)
class BadVideo:
    """A video that could not be read, and why."""

    id: str
    position: int
    reason: str
    kind: str
    decoder: str | None


@dataclass
class Batch:
    """
    Clips that go through the model together.

    Args:
        rows (`dict[str, torch.Tensor]`):
            Stacked tensors; the first axis is the batch.
        ids (`list[str]`):
            Sample ids.
        positions (`list[int]`):
            Where each sample stands in the process's share.
    """

    rows: dict[str, torch.Tensor]
    ids: list[str]
    positions: list[int]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def next_position(self) -> int:
        """Where a run that has used this batch goes on."""
        return self.positions[-1] + 1


SampleLoader = Callable[[Record], dict[str, torch.Tensor]]


class TrainingClipLoader:
    """
    Reads one training video: frames sampled as the processor does for training, then augmented, several times over if
    asked (repeated augmentation: decoding costs more than augmenting).

    Args:
        processor ([`ClipVideoProcessor`]):
            Samples and decodes.
        augmentation ([`ClipAugmentation`] or [`DeviceAugmentation`]):
            Augments the uint8 clip, or packs it for the accelerator.
        seed (`int`):
            With epoch and sample id, the source of every draw.
        num_sample (`int`, *optional*, defaults to 1):
            Augmented copies of the one clip that is decoded.
        num_labels (`int`, *optional*):
            Number of labels where a clip has any number of them.
    """

    def __init__(
        self,
        processor: ClipProcessor,
        augmentation: Augmentation,
        seed: int,
        num_sample: int = 1,
        num_labels: int | None = None,
    ):
        self.processor, self.augmentation, self.seed, self.num_sample = processor, augmentation, seed, num_sample
        self.num_labels = num_labels
        self.sampling_mode = "train"

    def __call__(self, record: Record) -> dict[str, torch.Tensor]:
        """
        Returns:
            `dict`: the augmentation's rows, such as `pixel_values` of shape
            `(num_sample, num_frames, num_channels, height, width)`, and `labels` of shape `(num_sample,)`, or zeros
            and ones of shape `(num_sample, num_labels)`.
        """
        if record.sample.label is None:
            raise ValueError(f"Sample {record.sample.id!r} has no label to learn")
        label = label_tensor(record.sample.label, self.num_labels)
        return {**self.clips(record), "labels": torch.stack([label] * self.num_sample)}

    def clips(self, record: Record) -> dict[str, torch.Tensor]:
        """The augmented copies, or what the device makes them of."""
        seeds = [self.seed_of(record, "augmentation", copy) for copy in range(self.num_sample)]
        return self.augmentation.rows(self.decode(record), seeds)

    def decode(self, record: Record) -> torch.Tensor:
        """The clip before augmentation: uint8 of shape `(num_frames, num_channels, height, width)`."""
        rng = np.random.default_rng(self.seed_of(record, "frames"))
        clips, _ = self.processor.load_clips(record.sample.video, sampling_mode=self.sampling_mode, rng=rng)
        return clips[0]

    def seed_of(self, record: Record, purpose: str, copy: int = 0) -> int:
        """Seed of one purpose and copy; another number of copies leaves the first ones as they are."""
        return sample_seed(self.seed, record.epoch, record.sample.id, f"{purpose}/{copy}" if copy else purpose)


def label_tensor(label: Label, num_labels: int | None = None) -> torch.Tensor:
    """
    A label as a model's loss takes it.

    Args:
        label (`int` or `tuple[int, ...]`, *optional*):
            One index or several; -1 stands for none.
        num_labels (`int`, *optional*):
            Number of labels where a clip has any number of them.

    Returns:
        `torch.Tensor`: an index, or zeros and ones (-1 for no label) of shape `(num_labels,)`.
    """
    if num_labels is None:
        if isinstance(label, tuple):
            raise ValueError(f"`label` must be one index for a model of one label a clip, got {label}")
        return torch.tensor(-1 if label is None else label)
    hot = torch.full((num_labels,), 0.0 if label is not None else -1.0)
    hot[list(label_indices(label))] = 1.0
    return hot


class MaskedClipLoader(TrainingClipLoader):
    """
    Reads one clip for masked modelling: dense clips at exact stride (segment and uniform ones as in training), and for
    each augmented copy its own masks.

    Args:
        processor ([`ClipVideoProcessor`]):
            Samples and decodes.
        augmentation ([`ClipAugmentation`] or [`DeviceAugmentation`]):
            Augments the uint8 clip, or packs it for the accelerator.
        seed (`int`):
            With epoch and sample id, the source of every draw.
        num_sample (`int`):
            Augmented copies of the one clip that is decoded.
        masks (`Callable[[numpy.random.Generator], tuple[np.ndarray, np.ndarray]]`):
            Draws the encoder's and the decoder's mask of one copy.
    """

    def __init__(
        self, processor: ClipProcessor, augmentation: Augmentation, seed: int, num_sample: int, masks: "MaskMaker"
    ):
        super().__init__(processor, augmentation, seed, num_sample)
        self.sampling_mode = "pretrain" if processor.frame_sampling == "dense" else "train"
        self.masks = masks

    def __call__(self, record: Record) -> dict[str, torch.Tensor]:
        """
        Returns:
            `dict`: the augmentation's rows, such as `pixel_values` of shape
            `(num_sample, num_frames, num_channels, height, width)`; `encoder_mask` and `decoder_mask`, bool of shape
            `(num_sample, sequence_length)`.
        """
        seeds = [self.seed_of(record, "masks", copy) for copy in range(self.num_sample)]
        return {**self.clips(record), **stacked_masks(self.masks, seeds)}


MaskMaker = Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]


def stacked_masks(masks: MaskMaker, seeds: Sequence[int]) -> dict[str, torch.Tensor]:
    """Masks of several samples under the names of the model's arguments, one seed each."""
    pairs = [masks(np.random.default_rng(seed)) for seed in seeds]
    encoder, decoder = (torch.from_numpy(np.stack(parts)) for parts in zip(*pairs))
    return {"encoder_mask": encoder, "decoder_mask": decoder}


def merge_copies(rows: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """
    Make the copies of each video samples of their own: `(num_videos, num_sample, ...)` to
    `(num_sample * num_videos, ...)`, first copies first: mixing pairs neighbours, which so are different videos.
    """
    return {name: value.transpose(0, 1).flatten(0, 1) for name, value in rows.items()}


class BatchStream(Protocol):
    """What the loop reads its batches from; see [`ClipStream`]."""

    source: VideoSource
    rank: int
    world: int
    position: int

    def num_batches(self, rank: int | None = None) -> int | None:
        """Batches an epoch of a process."""

    def num_read(self, position: int) -> int:
        """Samples that stand before a position."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from a position on."""


class ClipStream:
    """
    Batches of one process.

    Args:
        source ([`VideoSource`]):
            The videos.
        load (`Callable[[Record], dict[str, torch.Tensor]]`):
            Reads one sample; runs in the workers, so it must be picklable. Its `VideoDecodingError`s become
            [`BadVideo`]s, and the batch is filled from the samples that follow.
        batch_size (`int`):
            Samples of a batch.
        seed (`int` or `None`):
            Seed of the order; `None` keeps the source's.
        rank (`int`, *optional*, defaults to 0):
            This process.
        world (`int`, *optional*, defaults to 1):
            Number of processes.
        num_workers (`int`, *optional*, defaults to 0):
            Decoding processes; 0 decodes in this one.
        timeout (`float`, *optional*, defaults to 300.0):
            Seconds without a batch from the workers after which they count as hung.
        drop_last (`bool`, *optional*, defaults to `False`):
            Whether to leave out what does not fill the last batch of an epoch.
        on_bad_video (`Callable[[BadVideo], None]`, *optional*):
            Told of each unreadable video when its turn comes. Without it the video's error is raised.
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
        self.seed, self.rank, self.world = seed, rank, world
        self.on_bad_video = on_bad_video
        self.position = 0  # in the epoch at hand; what stands before it was handed out or reported
        self._sampler = _ChunkSampler(source, batch_size, seed, rank, world)
        workers: dict[str, Any] = {}
        if num_workers:
            workers = {"persistent_workers": True, "timeout": timeout}
            workers |= {"multiprocessing_context": worker_context(), "worker_init_fn": ignore_sigterm}
        self._loader = DataLoader(
            _RecordDataset(load),
            batch_sampler=self._sampler,
            collate_fn=_as_is,
            num_workers=num_workers,
            pin_memory=torch.cuda.is_available(),
            **workers,
        )

    def num_batches(self, rank: int | None = None) -> int | None:
        """Batches an epoch of a process (this one by default) while every video can be read; `None` if unknown."""
        size = self.source.share_size(self.rank if rank is None else rank, self.world)
        return None if size is None else count_batches(size, self.batch_size, self.drop_last)

    def num_read(self, position: int) -> int:
        """Samples that stand before a position: a position is their number."""
        return position

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """
        The batches of an epoch.

        Args:
            epoch (`int`):
                Its number.
            start (`int`, *optional*, defaults to 0):
                Position to resume at: what `position` was when the last batch came, or the batch's `next_position`,
                after which unreadable videos at the end of a share are reported once more.
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
        """Take up to `count` readable samples off the queue and report the unreadable ones passed on the way."""
        taken: list[_Item] = []
        while pending and len(taken) < count:
            item = pending.popleft()
            self.position = item.position + 1
            if item.bad is None:
                taken.append(item)
            elif self.on_bad_video is None:
                raise RuntimeError(f"Video {item.id!r} cannot be read: {item.bad.reason}")
            else:
                self.on_bad_video(item.bad)
        rows = [item.row for item in taken if item.row is not None]
        stacked = {name: torch.stack([row[name] for row in rows]) for name in (rows[0] if rows else {})}
        return Batch(stacked, [item.id for item in taken], [item.position for item in taken])

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


def count_batches(size: int, batch_size: int, drop_last: bool) -> int:
    """Batches that `size` samples make."""
    return size // batch_size if drop_last else -(-size // batch_size)


class BadVideoLedger:
    """
    Keeps account of unreadable videos: a line of JSON each, and an error when there are too many of them.

    Args:
        path (`Path`, *optional*):
            File that receives the lines.
        limit (`float`, *optional*, defaults to 0.05):
            Share of an epoch's videos that may be unreadable.
        minimum (`int`, *optional*, defaults to 20):
            Videos read before that share is judged.
    """

    def __init__(self, path: Path | None = None, limit: float = 0.05, minimum: int = 20):
        self.path, self.limit, self.minimum = path, limit, minimum
        self.epoch, self.count, self.lines = 0, 0, 0

    def begin(self, epoch: int) -> None:
        """Start the count of an epoch."""
        self.epoch, self.count = epoch, 0

    def add(self, video: BadVideo) -> None:
        """Write a video down."""
        self.count += 1
        self.lines += 1
        logger.warning(f"Skipped unreadable video {video.id!r}: {video.reason}")
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"epoch": self.epoch, **asdict(video)}, ensure_ascii=False) + "\n")

    def judge(self, bad: int, read: int, epoch_size: int | None) -> None:
        """
        Raise a `RuntimeError` when more of the epoch's videos are unreadable than the limit allows.

        Args:
            bad (`int`):
                Unreadable videos of the epoch, of all processes.
            read (`int`):
                Videos of the epoch read so far, of all processes, the unreadable ones included.
            epoch_size (`int` or `None`):
                Videos of the epoch, if known: a few bad ones that come early stop nothing.
        """
        allowed = self.limit * max(read, UNCOUNTED_EPOCH if epoch_size is None else epoch_size)
        if read >= self.minimum and bad > allowed:
            raise RuntimeError(
                f"{bad} of the {read} videos read in this epoch cannot be read, more than `bad_video_limit` "
                f"({self.limit:g}) allows; they are listed in {self.path}"
            )

    def state_dict(self) -> dict[str, int]:
        """What a checkpoint keeps."""
        return {"epoch": self.epoch, "count": self.count, "lines": self.lines}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go back to a checkpoint: lines written after it are taken out again."""
        self.epoch, self.count, self.lines = state["epoch"], state["count"], state["lines"]
        if self.path is not None and self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            self.path.write_text("".join(lines[: self.lines]), encoding="utf-8")


class _ChunkSampler:
    """Walks the share of a process and hands it out in chunks; the records themselves are the workers' indices."""

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


class _RecordDataset(Dataset):
    """What runs in a worker: reads the records it is handed."""

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
        return {
            "rows": {name: torch.stack([row[name] for row in rows]) for name in (rows[0] if rows else {})},
            "ids": [record.sample.id for record in good],
            "positions": [record.position for record in good],
            "bad": bad,
        }


def _as_is(chunk: Any) -> Any:
    return chunk


@dataclass
class _Item:
    """One sample of a chunk: its tensors, or why there are none."""

    position: int
    id: str
    row: dict[str, torch.Tensor] | None = None
    bad: BadVideo | None = None


def _in_order(chunk: dict[str, Any]) -> list[_Item]:
    """A chunk's samples, readable or not, in the order of the share."""
    items = [_Item(video.position, video.id, bad=video) for video in chunk["bad"]]
    for index, (position, name) in enumerate(zip(chunk["positions"], chunk["ids"])):
        items.append(_Item(position, name, {key: rows[index] for key, rows in chunk["rows"].items()}))
    return sorted(items, key=lambda item: item.position)


def read_ahead(items: Iterable[Any], size: int) -> Iterator[Any]:
    """
    Read an iterable in a thread, at most `size` items ahead; its errors are raised where the items are used.

    Args:
        items (`Iterable`):
            What to read.
        size (`int`):
            Items held ready.
    """
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=size)
    stopped = threading.Event()

    def put(kind: str, value: Any) -> bool:
        while not stopped.is_set():
            try:
                ready.put((kind, value), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def read() -> None:
        try:
            for item in items:
                if not put("item", item):
                    return
            put("end", None)
        except Exception as error:  # handed over to the reader's thread, which raises it
            put("error", error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
    finally:
        stopped.set()
        thread.join()
