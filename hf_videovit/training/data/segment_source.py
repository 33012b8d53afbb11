"""Videos with true segments, and the features of their windows: training and evaluation samples of localisers."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from ...feature_files import MANIFEST_FILE, FeatureFile, FeatureFolder
from ...files import plain_name
from ...modeling.feature_processing_temporal_localization import FeatureGrid, TemporalLocalizationProcessor
from ...modeling.modeling_actionformer_losses import NO_SEGMENT
from ...modeling.video_decoding_types import VideoDecodingError
from .activitynet import positive_number
from .augmentation import sample_seed
from .feature_sequences import random_window
from .loaders import Record
from .segment_files import AnnotatedVideo
from .sources import IndexedSource, Sample, fingerprint, label_mapping


OPEN_END = 1e8  # seconds: the official code's length of a video whose annotation has none, so that nothing is clipped


@dataclass(frozen=True)
class SegmentRow:
    """
    A video with its true segments.

    Args:
        name (`str`):
            Name of the video.
        file ([`FeatureFile`] or `Path`):
            Its features, or the video itself.
        segments (`np.ndarray` of shape `(num_segments, 2)`):
            True segments in seconds.
        labels (`tuple[str, ...]`):
            Class of each, in the form of [`plain_name`].
        fps (`float`):
            Frame rate.
        duration (`float`):
            Length in seconds. Of videos themselves, their files say both.
    """

    name: str
    file: FeatureFile | Path
    segments: np.ndarray
    labels: tuple[str, ...]
    fps: float
    duration: float


@dataclass(frozen=True)
class SegmentSample(Sample):
    """
    A video with its true segments.

    Args:
        id, video, label:
            See [`Sample`]. The label holds the indices of all classes in the video.
        row ([`SegmentRow`]):
            Segments and file.
    """

    row: SegmentRow


class SegmentSource(IndexedSource):
    """
    Videos with true segments, each a sample. A video without segments is a negative example.

    Args:
        rows (`Sequence[SegmentRow]`):
            The videos.
        label_names (`Sequence[str]`):
            Names of the classes.
        missing (`Sequence[AnnotatedVideo]`, *optional*, defaults to `()`):
            Videos without a file, which are left out.
        remarks (`Sequence[str]`, *optional*, defaults to `()`):
            See [`VideoSource`].

    Raises:
        ValueError: a segment has a class that is not among `label_names`.
    """

    multi_label = True

    def __init__(
        self,
        rows: Sequence[SegmentRow],
        label_names: Sequence[str],
        missing: Sequence[AnnotatedVideo] = (),
        remarks: Sequence[str] = (),
    ):
        self.rows, self.label_names, self.num_samples = list(rows), list(label_names), len(rows)
        self.missing, self.remarks = list(missing), tuple(remarks)
        known = set(map(plain_name, label_names))
        unknown = sorted({name for labels in _labels(rows, missing) for name in labels} - known)
        if unknown:
            raise ValueError(f"Classes {', '.join(unknown[:8])} are not among the {len(label_names)} label names")

    def __getitem__(self, index: int) -> SegmentSample:
        row, numbers = self.rows[index], class_numbers(self.label_names)
        labels = tuple(sorted({numbers[name] for name in row.labels}))
        path = row.file.path if isinstance(row.file, FeatureFile) else row.file
        return SegmentSample(row.name, str(path), labels, row)

    def with_label_names(self, label_names: Sequence[str]) -> "SegmentSource":
        """See [`VideoSource.with_label_names`]."""
        label_mapping(self.label_names, label_names)
        renamed = copy.copy(self)
        renamed.label_names = list(label_names)
        return renamed

    def fingerprint(self) -> str:
        """See [`VideoSource.fingerprint`]."""
        rows = ([row.name, row.segments.tolist(), list(row.labels), row.fps, row.duration] for row in self.rows)
        return fingerprint(len(self.rows), rows)

    def sample(self, count: int, seed: int) -> "SegmentSource":
        """
        Select videos at random.

        Args:
            count (`int`):
                Largest number of videos.
            seed (`int`):
                Seed of the choice.

        Returns:
            [`SegmentSource`]: the videos, in the order of this source; none is missing.
        """
        chosen = np.random.default_rng([seed, len(self.rows)]).permutation(len(self.rows))[:count]
        return SegmentSource([self.rows[index] for index in sorted(chosen)], self.label_names, remarks=self.remarks)

    def as_one_class(self, name: str) -> "SegmentSource":
        """
        The same segments, all of one class.

        Args:
            name (`str`):
                Name of the class.

        Returns:
            [`SegmentSource`]
        """
        rows = [replace(row, labels=(name,) * len(row.labels)) for row in self.rows]
        missing = [replace(row, labels=(name,) * len(row.labels)) for row in self.missing]
        return SegmentSource(rows, [name], missing, self.remarks)

    @property
    def num_segments(self) -> int:
        """Number of segments of all videos."""
        return sum(len(row.segments) for row in self.rows)


def join_features(
    videos: Sequence[AnnotatedVideo],
    label_names: Sequence[str],
    folder: FeatureFolder,
    *,
    form: str = "{video}",
    fps: float | None = None,
    needs_duration: bool = False,
    remarks: Sequence[str] = (),
) -> SegmentSource:
    """
    Find the features of annotated videos.

    Args:
        videos (`Sequence[AnnotatedVideo]`):
            The videos.
        label_names (`Sequence[str]`):
            Classes in order.
        folder ([`FeatureFolder`]):
            The features. Its manifest gives the frame rates and durations that annotations lack.
        form (`str`, *optional*, defaults to `"{video}"`):
            See [`FeatureFolder.find`].
        fps (`float`, *optional*):
            Frame rate of videos for which neither names one.
        needs_duration (`bool`, *optional*, defaults to `False`):
            Whether a video without a duration is refused. Otherwise its segments are never clipped.
        remarks (`Sequence[str]`, *optional*, defaults to `()`):
            What is known about the data.

    Returns:
        [`SegmentSource`]: without the videos that have no features, which are counted in `missing`.

    Raises:
        ValueError: no video has features, or a frame rate or duration is unknown.
    """
    rows, missing = [], []
    for video in videos:
        file = folder.find(video.name, form)
        if file is None:
            missing.append(video)
            continue
        facts = {
            key: positive_number(
                folder.videos.get(video.name, {}).get(key), f"{MANIFEST_FILE}: `{key}` of {video.name}"
            )
            for key in ("fps", "duration")
        }
        rate = video.fps or facts["fps"] or fps
        duration = video.duration or facts["duration"]
        if needs_duration:
            rate = rate or 1.0  # features that are spread over a video do not depend on it
        if rate is None:
            raise ValueError(f"The frame rate of {video.name!r} is unknown: set `fps`")
        if duration is None and needs_duration:
            raise ValueError(f"The duration of {video.name!r} is unknown: features over a whole video need it")
        rows.append(
            SegmentRow(video.name, file, video.segments, video.labels, float(rate), float(duration or OPEN_END))
        )
    if videos and not rows:
        example = next(iter(folder.files))
        raise ValueError(
            f"No video has features in {str(folder.path)!r}: {form.format(video=videos[0].name)!r} is not there, but "
            f"{example!r} is. `feature_name` says how files are named after videos, such as 'v_{{video}}'."
        )
    found = list(remarks)
    if missing:
        lost = sum(len(video.segments) for video in missing)
        found.append(f"{len(missing)} of {len(videos)} videos with {lost} segments have no features")
    return SegmentSource(rows, label_names, missing, [*found, *_remark_on_late(rows, folder)])


def _remark_on_late(rows: Sequence[SegmentRow], folder: FeatureFolder) -> list[str]:
    """A remark on segments that no feature shows, because their video ends before they start."""
    lengths = {
        row.name: min(row.duration, folder.videos.get(row.name, {}).get("duration") or OPEN_END) for row in rows
    }
    late = [(row.name, start) for row in rows for start in row.segments[:, 0] if start >= lengths[row.name]]
    if not late:
        return []
    name, start = late[0]
    example = f"{name!r} has one at {start:g} s and a length of {lengths[name]:g} s"
    return [f"{len(late)} segments start after the end of their video: {example}. Check the unit of start and end"]


class SegmentFeatureLoader:
    """
    Reads the features of a video with its segments, and takes a random window of them.

    Args:
        processor ([`TemporalLocalizationProcessor`]):
            Resamples features, and places segments on their steps.
        label_names (`Sequence[str]`):
            Classes of the model in order.
        seed (`int`):
            Seed of all random numbers, together with epoch and sample.
        max_segments (`int`):
            Rows of the result's segments: at least the largest number in a video.
        min_inside (`float`, *optional*, defaults to 0.5):
            See [`crop_sequence`].
        crop_ratio (`Sequence[float]`, *optional*):
            See [`random_window`].
    """

    def __init__(
        self,
        processor: TemporalLocalizationProcessor,
        label_names: Sequence[str],
        seed: int,
        max_segments: int,
        min_inside: float = 0.5,
        crop_ratio: Sequence[float] | None = None,
    ):
        self.processor, self.seed, self.max_segments = processor, seed, max_segments
        self.min_inside, self.crop_ratio = min_inside, crop_ratio
        self.numbers = class_numbers(label_names)

    def __call__(self, record: Record) -> dict[str, torch.Tensor]:
        """
        Read a sample.

        Args:
            record ([`Record`]):
                The sample and its epoch.

        Returns:
            `dict`: `features` of shape `(max_sequence_length, feature_size)`, `attention_mask` of shape
            `(max_sequence_length,)`, `segments` of shape `(max_segments, 2)` in steps, and `class_labels` of shape
            `(max_segments,)`, -100 in padding.

        Raises:
            VideoDecodingError: the features cannot be read or are not such as the processor expects.
        """
        row = row_of(record)
        features, grid = read_sequence(self.processor, row)
        labels = self.processor.prepare_labels(
            row.segments, [self.numbers[name] for name in row.labels], grid, self.min_inside
        )
        longest = self.processor.max_sequence_length
        features, labels = random_window(
            features,
            labels,
            longest,
            Random(sample_seed(self.seed, record.epoch, record.sample.id, "window")),
            min_inside=self.min_inside,
            offset=grid.offset / grid.stride,
            crop_ratio=self.crop_ratio or None,
        )
        return {
            "features": F.pad(features, (0, 0, 0, longest - len(features))),
            "attention_mask": (torch.arange(longest) < len(features)).long(),
            **padded_labels(labels, self.max_segments),
        }


def padded_labels(labels: Mapping[str, torch.Tensor], max_segments: int) -> dict[str, torch.Tensor]:
    """
    The segments of a sample, with as many rows as those of all others.

    Args:
        labels (`Mapping[str, torch.Tensor]`):
            `segments` and `class_labels`, see [`~TemporalLocalizationProcessor.prepare_labels`].
        max_segments (`int`):
            Rows of the result.

    Returns:
        `dict[str, torch.Tensor]`: both, with rows of padding of class -100.
    """
    spare = max_segments - len(labels["segments"])
    return {
        "segments": F.pad(labels["segments"], (0, 0, 0, spare)),
        "class_labels": F.pad(labels["class_labels"], (0, spare), value=NO_SEGMENT),
    }


class SequenceLoader:
    """
    Reads the features of a whole video for evaluation.

    Args:
        processor ([`TemporalLocalizationProcessor`]):
            Resamples features.
    """

    def __init__(self, processor: TemporalLocalizationProcessor):
        self.processor = processor

    def __call__(self, record: Record) -> dict[str, Any]:
        """
        Read a sample.

        Args:
            record ([`Record`]):
                The sample.

        Returns:
            `dict`: `features` of shape `(steps, feature_size)`, and `grid`, the five fields of its [`FeatureGrid`].

        Raises:
            VideoDecodingError: the features cannot be read or are not such as the processor expects.
        """
        features, grid = read_sequence(self.processor, row_of(record))
        fields = (grid.fps, grid.duration, grid.stride, grid.offset, grid.steps)
        return {"features": features, "grid": torch.tensor(fields, dtype=torch.float64)}


def class_numbers(label_names: Sequence[str]) -> dict[str, int]:
    """
    Number of each class by name.

    Args:
        label_names (`Sequence[str]`):
            Classes in order.

    Returns:
        `dict[str, int]`: by the form of the names in which they are compared.
    """
    return {plain_name(name): index for index, name in enumerate(label_names)}


def _labels(rows: Sequence[SegmentRow], missing: Sequence[AnnotatedVideo]) -> list[tuple[str, ...]]:
    return [row.labels for row in rows] + [video.labels for video in missing]


def row_of(record: Record) -> SegmentRow:
    """
    The video of a sample.

    Args:
        record ([`Record`]):
            The sample.

    Returns:
        [`SegmentRow`]
    """
    assert isinstance(record.sample, SegmentSample)
    return record.sample.row


def read_sequence(processor: TemporalLocalizationProcessor, row: SegmentRow) -> tuple[torch.Tensor, FeatureGrid]:
    """
    The features of a video as input of a localiser, without padding.

    Args:
        processor ([`TemporalLocalizationProcessor`]):
            Processor of the localiser.
        row ([`SegmentRow`]):
            The video.

    Returns:
        `tuple[torch.Tensor, FeatureGrid]`: features of shape `(steps, feature_size)`, and where they lie in time.

    Raises:
        VideoDecodingError: the features cannot be read or are not such as the processor expects.
    """
    assert isinstance(row.file, FeatureFile)
    try:
        stored = row.file.read()
        sequence = processor.resample(stored)
    except ValueError as error:
        raise VideoDecodingError(row.name, None, str(error)) from error
    return sequence, processor.grid(len(stored), row.fps, row.duration)


__all__ = [
    "SegmentFeatureLoader",
    "SegmentRow",
    "SegmentSample",
    "SegmentSource",
    "SequenceLoader",
    "class_numbers",
    "join_features",
    "padded_labels",
    "read_sequence",
    "row_of",
]
