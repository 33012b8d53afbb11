"""Key-frames with boxes as training and evaluation samples of action detection, and the functions that read them."""

import copy
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from ...modeling.box_geometry import scale_boxes, to_corners
from ...modeling.video_decoding import VideoDecodingError
from ...modeling.video_processing_key_frames import KeyFrameVideoProcessor
from .augmentation import sample_seed
from .box_augmentation import BoxAugmentation
from .key_frames import KeyFrame, read_key_frames
from .loaders import Record
from .manifest import read_label_names
from .sources import EVAL_SPLITS, IndexedSource, Sample, fingerprint, label_mapping


OTHER_FORMATS = (".csv", ".json", ".xml", ".pkl")  # of annotations, which are prepared first


@dataclass(frozen=True)
class KeyFrameSample(Sample):
    """
    A key-frame of a video.

    Args:
        id, video, label:
            See [`Sample`]. The label holds the indices of all labels on the key-frame.
        row ([`KeyFrame`]):
            The people on it.
    """

    row: KeyFrame


class KeyFrameSource(IndexedSource):
    """
    Key-frames, each a sample.

    Args:
        rows (`Sequence[KeyFrame]`):
            The key-frames, with paths of files that exist.
        label_names (`Sequence[str]`):
            Names of the labels.
        missing (`Mapping[str, int]`, *optional*):
            Videos that do not exist, with the number of their key-frames that are left out.
        remarks (`Sequence[str]`, *optional*, defaults to `()`):
            See [`VideoSource`].

    Raises:
        ValueError: a key-frame occurs twice, or has a label that is not among `label_names`.
    """

    multi_label = True

    def __init__(
        self,
        rows: Sequence[KeyFrame],
        label_names: Sequence[str],
        missing: Mapping[str, int] | None = None,
        remarks: Sequence[str] = (),
    ):
        self.rows, self.label_names, self.num_samples = list(rows), list(label_names), len(rows)
        self.missing, self.remarks = dict(missing or {}), tuple(remarks)
        repeated = [name for name, count in Counter(map(key_frame_id, rows)).items() if count > 1]
        if repeated:
            raise ValueError(f"A key-frame must be one row, {repeated[0]} has more: merge its people")
        unknown = sorted({name for row in rows for names in row.labels for name in names} - set(label_names))
        if unknown:
            raise ValueError(f"Labels {', '.join(unknown[:8])} are not among the {len(label_names)} label names")

    def __getitem__(self, index: int) -> KeyFrameSample:
        row, numbers = self.rows[index], {name: number for number, name in enumerate(self.label_names)}
        labels = tuple(sorted({numbers[name] for names in row.labels for name in names}))
        return KeyFrameSample(key_frame_id(row), row.video, labels, row)

    def with_label_names(self, label_names: Sequence[str]) -> "KeyFrameSource":
        """See [`VideoSource.with_label_names`]."""
        label_mapping(self.label_names, label_names)
        renamed = copy.copy(self)
        renamed.label_names = list(label_names)
        return renamed

    def fingerprint(self) -> str:
        """See [`VideoSource.fingerprint`]."""
        return fingerprint(
            len(self.rows), ([key_frame_id(row), row.boxes.tolist(), list(map(list, row.labels))] for row in self.rows)
        )

    def sample(self, count: int, seed: int) -> "KeyFrameSource":
        """
        Select key-frames at random.

        Args:
            count (`int`):
                Largest number of key-frames.
            seed (`int`):
                Seed of the choice.

        Returns:
            [`KeyFrameSource`]: the key-frames, in the order of this source.
        """
        chosen = np.random.default_rng([seed, len(self.rows)]).permutation(len(self.rows))[:count]
        return self.of_rows([self.rows[index] for index in sorted(chosen)])

    def of_rows(self, rows: Sequence[KeyFrame]) -> "KeyFrameSource":
        """
        A source of other key-frames with the same labels.

        Args:
            rows (`Sequence[KeyFrame]`):
                The key-frames.

        Returns:
            [`KeyFrameSource`]
        """
        return KeyFrameSource(rows, self.label_names, self.missing, self.remarks)

    def on_key_frames_of(self, other: "KeyFrameSource") -> "KeyFrameSource":
        """
        The key-frames that another source has, too.

        Args:
            other ([`KeyFrameSource`]):
                The other source.

        Returns:
            [`KeyFrameSource`]
        """
        chosen = set(map(key_frame_id, other.rows))
        return self.of_rows([row for row in self.rows if key_frame_id(row) in chosen])

    @property
    def num_boxes(self) -> int:
        """Number of people on all key-frames."""
        return sum(len(row.boxes) for row in self.rows)


def key_frame_id(row: KeyFrame) -> str:
    """
    Name of a key-frame.

    Args:
        row ([`KeyFrame`]):
            The key-frame.

    Returns:
        `str`: video and seconds.
    """
    return f"{row.video}@{row.time:.6f}".rstrip("0").rstrip(".")


def open_key_frames(
    path: str | Path, root: str | Path | None = None, label_names: Sequence[str] | None = None
) -> KeyFrameSource:
    """
    Open key-frames for training or evaluation.

    Args:
        path (`str` or `Path`):
            JSON lines, see [`read_key_frames`].
        root (`str` or `Path`, *optional*):
            Folder that the videos' paths are relative to. Defaults to the folder of the file.
        label_names (`Sequence[str]`, *optional*):
            Names of the labels in order. By default those of `labels.json` beside the file, else the sorted names.

    Returns:
        [`KeyFrameSource`]: without the key-frames of videos that do not exist, which are counted in `missing`.

    Raises:
        ValueError: the file is not such a file.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{str(path)!r} is not a file of key-frames (JSON lines)")
    if path.suffix.lower() in OTHER_FORMATS:
        raise ValueError(f"{str(path)!r} must be JSON lines of key-frames; `hf-videovit prepare` writes them from it")
    found = read_key_frames(path)
    folder = path.parent if root is None else Path(root)
    names = label_names or read_label_names(path.parent) or found.label_names
    _check_rows(path, found.rows, names)
    exists = {video: (folder / video).exists() for video in {row.video for row in found.rows}}
    missing = Counter(row.video for row in found.rows if not exists[row.video])
    rows = [replace(row, video=str(folder / row.video)) for row in found.rows if exists[row.video]]
    remarks = []
    if missing:
        remarks.append(
            f"{len(missing)} of {len(exists)} videos do not exist; their {missing.total()} key-frames are left out"
        )
    return KeyFrameSource(rows, names, missing, remarks)


def _check_rows(path: Path, rows: Sequence[KeyFrame], label_names: Sequence[str]) -> None:
    """Refuse a label without a name or a repeated key-frame, by its line."""
    known, seen = set(label_names), set()
    for index, row in enumerate(rows):
        unknown = sorted({name for names in row.labels for name in names} - known)
        key = key_frame_id(row)
        if unknown or key in seen:
            with path.open(encoding="utf-8") as lines:
                line = [number for number, text in enumerate(lines, start=1) if text.strip()][index]
            fault = f"the key-frame {key} is on an earlier line, too: merge its people"
            if unknown:
                fault = f"labels {', '.join(unknown[:8])} are not among the {len(known)} label names"
            raise ValueError(f"{path}, line {line}: {fault}")
        seen.add(key)


def find_key_frames(data: str, split: str | None) -> Path | None:
    """
    The file of a split.

    Args:
        data (`str`):
            A file of key-frames, or a folder with a file for each split, such as `train.jsonl`.
        split (`str` or `None`):
            Name of the split; `None` for the first of those to evaluate on that exists.

    Returns:
        `Path` or `None`: `None` if there is no split to evaluate on.

    Raises:
        ValueError: the folder has no file of the split.
    """
    path = Path(data)
    if not path.is_dir():
        return path if split == "train" else None
    if split is None:
        return next((path / f"{name}.jsonl" for name in EVAL_SPLITS if (path / f"{name}.jsonl").is_file()), None)
    if not (path / f"{split}.jsonl").is_file():
        raise ValueError(f"{str(path)!r} has no file {split}.jsonl of key-frames")
    return path / f"{split}.jsonl"


@contextmanager
def _named(row: KeyFrame) -> Iterator[None]:
    """Name the key-frame in an error about it."""
    try:
        yield
    except VideoDecodingError:
        raise
    except ValueError as error:
        raise ValueError(
            f"Key-frame {key_frame_id(row)}: {error} `hf-videovit doctor ANNOTATIONS --videos FOLDER` names the lines"
        ) from error


class KeyFrameClipLoader:
    """
    Reads the clip around a training key-frame, with the boxes and labels of its people.

    Args:
        processor ([`KeyFrameVideoProcessor`]):
            Chooses and decodes frames, and resizes them.
        augmentation ([`BoxAugmentation`]):
            Changes clip and boxes.
        label_names (`Sequence[str]`):
            Labels of the model in order.
        seed (`int`):
            Seed of all random numbers, together with epoch and sample.
        max_boxes (`int`):
            Largest number of people; more are sampled, with their labels.
    """

    def __init__(
        self,
        processor: KeyFrameVideoProcessor,
        augmentation: BoxAugmentation,
        label_names: Sequence[str],
        seed: int,
        max_boxes: int,
    ):
        self.processor, self.augmentation, self.seed, self.max_boxes = processor, augmentation, seed, max_boxes
        self.numbers = {name: index for index, name in enumerate(label_names)}

    def __call__(self, record: Record) -> dict[str, torch.Tensor]:
        """
        Read a sample.

        Args:
            record ([`Record`]):
                The sample and its epoch.

        Returns:
            `dict`: `pixel_values`, uint8 of shape `(num_frames, num_channels, crop_size, crop_size)`; `boxes` of shape
            `(max_boxes, 4)` in pixels of the crop, `box_mask` of shape `(max_boxes,)` and `labels` of shape
            `(max_boxes, num_labels)`, zeros and ones.
        """
        clip, boxes, labels = self.people(record)
        rng = np.random.default_rng(sample_seed(self.seed, record.epoch, record.sample.id, "augmentation"))
        clip, boxes = self.augmentation(clip, boxes, rng)
        spare = self.max_boxes - len(boxes)
        return {
            "pixel_values": clip,
            "boxes": F.pad(boxes, (0, 0, 0, spare)),
            "box_mask": torch.arange(self.max_boxes) < len(boxes),
            "labels": F.pad(labels, (0, 0, 0, spare)),
        }

    def decode(self, record: Record) -> torch.Tensor:
        """
        Decode and resize a clip.

        Args:
            record ([`Record`]):
                The sample.

        Returns:
            `torch.Tensor` of shape `(num_frames, num_channels, height, width)`: uint8 frames before augmentation.
        """
        row = self.row_of(record)
        with _named(row):
            return self.processor.resize_clip(self.processor.load_key_frames(row.video, [row.time])[0])

    def people(self, record: Record) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        The resized clip with its people, at most `max_boxes` of them.

        Args:
            record ([`Record`]):
                The sample and its epoch.

        Returns:
            `tuple`: the clip, boxes `(num_boxes, 4)` in pixels of it, and labels `(num_boxes, num_labels)`.
        """
        row, clip = self.row_of(record), self.decode(record)
        corners, kept = to_corners(
            torch.from_numpy(row.boxes).float(),
            (row.height, row.width),
            "xyxy",
            False,
            self.processor.box_convention,
        )
        boxes = scale_boxes(corners, (row.height, row.width), clip.shape[-2:])
        labels = torch.zeros(len(kept), len(self.numbers))
        for index, person in enumerate(kept.tolist()):
            labels[index, [self.numbers[name] for name in row.labels[person]]] = 1
        if len(boxes) > self.max_boxes:
            rng = np.random.default_rng(sample_seed(self.seed, record.epoch, record.sample.id, "people"))
            chosen = torch.from_numpy(np.sort(rng.choice(len(boxes), self.max_boxes, replace=False)))
            boxes, labels = boxes[chosen], labels[chosen]
        return clip, boxes, labels

    @staticmethod
    def row_of(record: Record) -> KeyFrame:
        """
        The key-frame of a sample.

        Args:
            record ([`Record`]):
                The sample.

        Returns:
            [`KeyFrame`]
        """
        assert isinstance(record.sample, KeyFrameSample)
        return record.sample.row


class WholeFrameLoader:
    """
    Reads the clip around a key-frame for evaluation, with the processor alone.

    Args:
        processor ([`KeyFrameVideoProcessor`]):
            The checkpoint's processor.
    """

    def __init__(self, processor: KeyFrameVideoProcessor):
        self.processor = processor

    def __call__(self, record: Record) -> dict[str, Any]:
        """
        Read a sample.

        Args:
            record ([`Record`]):
                The sample.

        Returns:
            `dict`: `pixel_values`, `sizes` and `boxes` of the clip as the processor makes them, and `kept_boxes`.
        """
        row = KeyFrameClipLoader.row_of(record)
        shares = np.clip(row.boxes / [row.width, row.height, row.width, row.height], 0, 1)
        with _named(row):
            inputs = self.processor(
                row.video, boxes=[shares], key_frame=[[row.time]], normalized=True, return_tensors="pt"
            )
        kept = inputs.pop("kept_boxes")[0]
        return {name: inputs[name][0] for name in ("pixel_values", "sizes", "boxes")} | {"kept_boxes": kept}


__all__ = [
    "KeyFrameClipLoader",
    "KeyFrameSample",
    "KeyFrameSource",
    "WholeFrameLoader",
    "find_key_frames",
    "key_frame_id",
    "open_key_frames",
]
