"""Films with true segments: training samples of an encoder and a localiser in one model."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torchvision.transforms import InterpolationMode, v2

from ...films import frame_step, uneven_times
from ...modeling.feature_processing_temporal_localization import TemporalLocalizationProcessor
from ...modeling.video_decoding import decode_video, opened_once, probe_video
from ...modeling.video_decoding_types import VideoDecodingError, VideoProbe
from ...modeling.video_processing_base import ClipVideoProcessor
from ...video_files import video_name, visible_videos
from .augmentation import sample_seed
from .feature_sequences import random_window
from .loaders import Record
from .segment_files import AnnotatedVideo
from .segment_source import OPEN_END, SegmentRow, SegmentSource, class_numbers, padded_labels, row_of


DECODED_FRAMES = 64  # at full size at a time


def join_films(
    videos: Sequence[AnnotatedVideo],
    label_names: Sequence[str],
    folder: str | Path,
    *,
    form: str = "{video}",
    remarks: Sequence[str] = (),
) -> SegmentSource:
    """
    Find the files of annotated videos.

    Args:
        videos (`Sequence[AnnotatedVideo]`):
            The videos.
        label_names (`Sequence[str]`):
            Classes in order.
        folder (`str` or `Path`):
            Folder with the files, which may lie in subfolders.
        form (`str`, *optional*, defaults to `"{video}"`):
            How files are named after videos, without their suffix, such as `"v_{video}"`.
        remarks (`Sequence[str]`, *optional*, defaults to `()`):
            What is known about the data.

    Returns:
        [`SegmentSource`]: without the videos that have no file, which are counted in `missing`.

    Raises:
        ValueError: there is no such folder, no video has a file, or two files are of one video.
    """
    files = _files_by_name(Path(folder))
    names = [form.format(video=video.name) for video in videos]
    for name in names:
        if len(files.get(name, ())) > 1:
            raise ValueError(f"{' and '.join(map(str, files[name]))} are both videos of the name {name!r}: keep one")
    rows = [
        SegmentRow(
            video.name, files[name][0], video.segments, video.labels, video.fps or 0.0, video.duration or OPEN_END
        )
        for video, name in zip(videos, names)
        if name in files
    ]
    missing = [video for video, name in zip(videos, names) if name not in files]
    if videos and not rows:
        raise ValueError(
            f"No video of the annotations is in {str(folder)!r}: they have {names[0]!r}, the folder "
            f"{next(iter(files), 'no video')!r}. `video_name` says how files are named, such as 'v_{{video}}'."
        )
    found = list(remarks)
    if missing:
        lost = sum(len(video.segments) for video in missing)
        found.append(f"{len(missing)} of {len(videos)} videos with {lost} segments have no file")
    return SegmentSource(rows, label_names, missing, found)


def _files_by_name(folder: Path) -> dict[str, list[Path]]:
    """Videos by their names, with and without subfolders."""
    if not folder.is_dir():
        raise ValueError(f"`data_root` (of an evaluation: `videos`) must be a folder of videos, got {str(folder)!r}")
    files: dict[str, list[Path]] = {}
    for file in visible_videos(folder):
        name = video_name(file)
        for one in {name, file.relative_to(folder).with_name(name).as_posix()}:
            files.setdefault(one, []).append(file)
    return files


@dataclass(frozen=True)
class FrameWindows:
    """
    The frames of a training sample.

    Args:
        config ([`VideoTemporalLocalizerConfig`]):
            Of the model.
        steps (`int`):
            Steps of the localiser in a sample.
    """

    config: Any
    steps: int

    @property
    def multiple(self) -> int:
        """Frames of a sample are a multiple of it: with moments of the encoder's clips and of the stride."""
        config = self.config
        moments = config.feature_source == "moments"
        return math.lcm(config.feature_stride, config.encoder_config.num_frames) if moments else 1

    def frames_of(self, steps: int) -> int:
        """
        Frames that the model needs for so many features.

        Args:
            steps (`int`):
                Number of features.

        Returns:
            `int`
        """
        config = self.config
        if config.feature_source == "moments":
            return -(-steps * config.feature_stride // self.multiple) * self.multiple
        return (steps - 1) * config.feature_stride + config.feature_window

    def steps_of(self, frames: int) -> int:
        """
        Features of so many frames; 0 of fewer than a window has.

        Args:
            frames (`int`):
                Number of frames that the model reads.

        Returns:
            `int`
        """
        config = self.config
        if config.feature_source == "moments":
            return -(-frames // config.feature_stride)
        return max((frames - config.feature_window) // config.feature_stride + 1, 0)


class FilmWindowLoader:
    """
    Reads the frames of a random window of a film, with the segments in it. Frames stay bytes; at full size only a few
    are held at a time.

    Args:
        processor ([`TemporalLocalizationProcessor`]):
            Places segments on the steps.
        video_processor ([`ClipVideoProcessor`]):
            Says how films are decoded.
        windows ([`FrameWindows`]):
            Steps and frames of a sample.
        augmentation (`Callable[[torch.Tensor, int], torch.Tensor]`):
            Changes the frames `(num_frames, num_channels, height, width)`, with a seed.
        label_names (`Sequence[str]`):
            Classes of the model in order.
        seed (`int`):
            Seed of all random numbers, together with epoch and sample.
        max_segments (`int`):
            Rows of the result's segments: at least the largest number in a film.
        min_inside (`float`, *optional*, defaults to 0.5):
            See [`crop_sequence`].
        crop_ratio (`Sequence[float]`, *optional*):
            See [`random_window`].
        short_side (`int`, *optional*):
            Short side that frames are resized to before augmentation. By default they keep their size.
    """

    def __init__(
        self,
        processor: TemporalLocalizationProcessor,
        video_processor: ClipVideoProcessor,
        windows: FrameWindows,
        augmentation: Callable[[torch.Tensor, int], torch.Tensor],
        label_names: Sequence[str],
        seed: int,
        max_segments: int,
        min_inside: float = 0.5,
        crop_ratio: Sequence[float] | None = None,
        short_side: int | None = None,
    ):
        self.processor, self.video_processor, self.windows = processor, video_processor, windows
        self.augmentation, self.seed, self.max_segments = augmentation, seed, max_segments
        self.min_inside, self.crop_ratio, self.short_side = min_inside, crop_ratio, short_side
        self.numbers = class_numbers(label_names)

    def __call__(self, record: Record) -> dict[str, torch.Tensor]:
        """
        Read a sample.

        Args:
            record ([`Record`]):
                The sample and its epoch.

        Returns:
            `dict`: `frames`, uint8 of shape `(num_frames, num_channels, height, width)`, the last one repeated at the
            end; `attention_mask` of shape `(steps,)`; `segments` of shape `(max_segments, 2)` in steps, and
            `class_labels` of shape `(max_segments,)`, -100 in padding.

        Raises:
            VideoDecodingError: the film cannot be read, or is shorter than a window.
        """
        row, windows = row_of(record), self.windows
        assert isinstance(row.file, Path)
        with opened_once(row.file, limits=self.video_processor.decoding_limits) as film:
            probe = probe_video(film, **self.video_processor.probe_options)
            if not probe.fps:
                raise VideoDecodingError(row.name, None, "the file does not say its frame rate")
            step = frame_step(windows.config, self.processor, probe.fps)
            places = math.ceil(probe.num_frames / step)
            steps, labels = self._window(record, row, probe, places)
            first = int(steps[0]) * windows.config.feature_stride
            last = min(first + windows.frames_of(len(steps)), places)
            indices = (np.arange(first, last) * step).astype(np.int64).clip(max=probe.num_frames - 1)
            frames = self._frames(film, indices)
        frames = self.augmentation(frames, sample_seed(self.seed, record.epoch, record.sample.id))
        spare = windows.frames_of(windows.steps) - len(frames)
        return {
            "frames": torch.cat((frames, frames[-1:].expand(spare, -1, -1, -1))),
            "attention_mask": (torch.arange(windows.steps) < len(steps)).long(),
            **padded_labels(labels, self.max_segments),
        }

    def _window(
        self, record: Record, row: SegmentRow, probe: VideoProbe, places: int
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Numbers of the steps of a random window, and the segments in it."""
        count, rate = self.windows.steps_of(places), probe.fps or 1.0
        if not count:
            raise VideoDecodingError(row.name, None, f"its {places} frames are fewer than those of a window")
        duration = probe.duration or probe.num_frames / rate
        times = None if self.processor.feature_fps else uneven_times(probe, duration)
        segments = row.segments
        if times is not None:  # to the times that the frames would have at an even rate
            segments = np.interp(segments, times, np.arange(len(times))) / rate
        kept = segments[:, 1] > segments[:, 0]
        grid = self.processor.grid(count, rate, duration)
        numbers = [self.numbers[name] for name, inside in zip(row.labels, kept) if inside]
        labels = self.processor.prepare_labels(segments[kept], numbers, grid, self.min_inside)
        return random_window(
            torch.arange(count),
            labels,
            self.windows.steps,
            Random(sample_seed(self.seed, record.epoch, record.sample.id, "window")),
            min_inside=self.min_inside,
            offset=grid.offset / grid.stride,
            crop_ratio=self.crop_ratio or None,
        )

    def _frames(self, film: Any, indices: np.ndarray) -> torch.Tensor:
        """Frames `(num_frames, num_channels, height, width)` in uint8, resized as they are decoded."""
        options = self.video_processor.decode_options
        parts = []
        for start in range(0, len(indices), DECODED_FRAMES):
            decoded = decode_video(film, indices[start : start + DECODED_FRAMES], **options)
            frames = torch.from_numpy(decoded.frames).movedim(-1, 1)
            if self.short_side is not None:
                scale = self.short_side / min(frames.shape[-2:])
                size = [max(round(side * scale), self.short_side) for side in frames.shape[-2:]]
                frames = v2.functional.resize(frames, size, InterpolationMode.BILINEAR, antialias=False)
            parts.append(frames.contiguous())
        return torch.cat(parts)


__all__ = ["FilmWindowLoader", "FrameWindows", "join_films"]
