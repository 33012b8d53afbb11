"""Films of any length: their frames, a few at a time, and the segments that a localiser finds in them."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from .ahead import read_ahead
from .modeling.feature_processing_temporal_localization import FeatureGrid, TemporalLocalizationProcessor
from .modeling.segment_suppression import ScoredSegments
from .modeling.video_decoding import decode_in_chunks, opened_once, probe_video
from .modeling.video_decoding_types import VideoProbe
from .modeling.video_processing_base import ClipVideoProcessor, is_frames, without_colours


CHUNK_BYTES = 256 * 2**20
PROCESSED_FRAMES = 32
STEPS_AT_ONCE = 16_384  # of the localiser; longer sequences are cut into windows that overlap by half


class FilmLocalizer:
    """
    Finds segments in films and in their features. A film is read once, a few windows of frames at a time, which are
    decoded while the encoder computes. Only the features of one part of the localiser and the candidates are held.

    Args:
        model ([`VideoTemporalLocalizer`] or [`ActionFormerForTemporalActionLocalization`]):
            The model. One without an encoder takes features only.
        processor ([`TemporalLocalizationProcessor`]):
            Its processor.
        video_processor ([`ClipVideoProcessor`], *optional*):
            The processor of its encoder.
        steps_at_once (`int`, *optional*):
            Steps in a forward pass of the localiser. Defaults to 16,384; with `feature_source="moments"` to the
            localiser's `max_sequence_length`.
        windows_at_once (`int`, *optional*):
            Windows in a forward pass of the encoder. Defaults to `config.windows_at_once`.
    """

    def __init__(
        self,
        model: Any,
        processor: TemporalLocalizationProcessor,
        video_processor: ClipVideoProcessor | None = None,
        steps_at_once: int | None = None,
        windows_at_once: int | None = None,
    ):
        self.model, self.processor, self.video_processor = model, processor, video_processor
        self.steps_at_once, self.windows_at_once = steps_at_once, windows_at_once

    def of_features(self, features: torch.Tensor, fps: float | None, duration: float | None = None) -> ScoredSegments:
        """
        Segments in the features of a film.

        Args:
            features (`torch.Tensor` of shape `(num_features, feature_size)`):
                The features.
            fps (`float` or `None`):
                Frame rate of the film. Needed unless the processor has `feature_fps`.
            duration (`float`, *optional*):
                Its length in seconds. By default to the end of the last window.

        Returns:
            [`ScoredSegments`]: in seconds.

        Raises:
            ValueError: the frame rate or the duration is needed.
        """
        processor = self.processor
        rate = processor.feature_fps or fps
        if rate is None:
            raise ValueError("`fps` is needed: features do not say at which frame rate they were made.")
        if not len(features):
            return _nothing()
        if duration is None:
            if processor.feature_stride is None:
                raise ValueError("`duration` is needed: the features of this model are spread over the whole video.")
            duration = ((len(features) - 1) * processor.feature_stride + processor.feature_window) / rate
        parts = self._parts_of_features(iter(features))
        found = [self._candidates(part, start) for start, part in parts]
        return self._in_seconds(found, processor.grid(len(features), rate, duration))

    def of_film(self, film: Any, fps: float | None = None) -> ScoredSegments:
        """
        Segments in a film.

        Args:
            film:
                A video, in any form that the video processor accepts.
            fps (`float`, *optional*):
                Frame rate of a film given as frames.

        Returns:
            [`ScoredSegments`]: in seconds.

        Raises:
            ValueError: the frame rate is needed.
            VideoDecodingError: the film cannot be read.
        """
        assert self.video_processor is not None
        with opened_once(film, limits=self.video_processor.decoding_limits) as video:
            probe = probe_video(video, **self.video_processor.probe_options)
            rate = (fps if is_frames(video) else probe.fps) or fps
            if not rate:
                raise ValueError("`fps` is needed: the video does not say its frame rate.")
            duration = probe.duration if probe.duration and not is_frames(video) else probe.num_frames / rate
            found, count = self._parts_of_film(video, rate)
        if not found:  # shorter than a window
            return _nothing()
        grid = self.processor.grid(count, rate, duration)
        times = None if self.processor.feature_fps else uneven_times(probe, duration)
        return self._in_seconds(found, grid, times)

    def _parts_of_film(self, video: Any, rate: float) -> tuple[list[ScoredSegments], int]:
        """Candidates of each part of a film, and the number of features."""
        config, processor = self.model.config, self.processor
        assert self.video_processor is not None
        step = frame_step(config, processor, rate)
        frames = processed_frames(video, self.video_processor, self.model.device, config.squash_frames, step)
        found, count = [], 0
        with closing(read_ahead(frames, 2 * PROCESSED_FRAMES)) as ahead:  # type: ignore[type-var]
            if config.feature_source == "moments":
                parts = self._parts_of_moments(ahead)
            else:
                parts = self._parts_of_features(self._features_of_windows(ahead))
            for start, part in parts:
                found.append(self._candidates(part, start))
                count = start + len(part)
        return found, count

    def _parts_of_features(self, rows: Iterator[torch.Tensor]) -> Iterator[tuple[int, torch.Tensor]]:
        processor, steps = self.processor, self.steps_at_once or STEPS_AT_ONCE
        if processor.resize_to_max_length or processor.feature_stride is None:  # one sequence for a whole film
            whole = list(rows)
            return iter([(0, torch.stack(whole))] if whole else [])
        every = processor.downsample_rate
        return sliding_windows(rows, steps * every, max(steps // 2, 1) * every, every)

    def _candidates(self, features: torch.Tensor, start: int) -> ScoredSegments:
        """Candidates in features from number `start` on; in steps of the whole film."""
        processor, model = self.processor, self.model
        inputs = {name: value.to(model.device) for name, value in processor(features).items()}
        found = processor.candidates(getattr(model, "localizer", model)(**inputs), 0)
        found.segments = found.segments + np.float32(start / processor.downsample_rate)
        return found

    def _in_seconds(
        self, parts: Sequence[ScoredSegments], grid: FeatureGrid, times: np.ndarray | None = None
    ) -> ScoredSegments:
        """Suppress the candidates of all parts, and place the segments in time: at the frames' own times, if given."""
        pooled = ScoredSegments(
            *(np.concatenate([getattr(one, name) for one in parts]) for name in ("segments", "scores", "labels"))
        )
        found = self.processor.suppress(pooled)
        if times is None:
            found.segments = grid.to_seconds(found.segments)
        else:
            frames = found.segments.astype(np.float64) * grid.stride + grid.offset
            found.segments = np.interp(frames, np.arange(len(times)), times).astype(np.float32)
        return found

    def _features_of_windows(self, frames: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Features in order, of as many windows at a time."""
        config = self.model.config
        window, stride, count = config.feature_window, config.feature_stride, self.windows_at_once
        count = count or config.windows_at_once
        held: list[torch.Tensor] = []
        skipped = 0
        for frame in frames:
            if skipped:
                skipped -= 1
                continue
            held.append(frame)
            if len(held) == window + (count - 1) * stride:
                yield from self._encode(held)
                skipped = max(count * stride - len(held), 0)
                held = held[count * stride :]
        if len(held) >= window:
            yield from self._encode(held)

    def _encode(self, frames: list[torch.Tensor]) -> torch.Tensor:
        pixel_values = torch.stack(frames)[None].to(self.model.device, self.model.dtype)
        return self.model.encode(pixel_values)[0].float().cpu()

    def _parts_of_moments(self, frames: Iterator[torch.Tensor]) -> Iterator[tuple[int, torch.Tensor]]:
        """Features of long windows of frames; their ends are filled with the last frame."""
        config, processor = self.model.config, self.processor
        stride, clip = config.feature_stride, config.encoder_config.num_frames
        multiple = math.lcm(stride, clip)
        length = (self.steps_at_once or processor.max_sequence_length) * stride
        length = max(length // (2 * multiple), 1) * 2 * multiple
        for start, part in sliding_windows(frames, length, length // 2, multiple):
            missing = (length if processor.pad_to_max_length else -(-len(part) // multiple) * multiple) - len(part)
            filled = [*part, *[part[-1]] * missing]
            yield start // stride, self._encode(filled)[: -(-len(part) // stride)]


def frame_step(config: Any, processor: TemporalLocalizationProcessor, rate: float) -> float:
    """
    Frames of a film from one that a model reads to the next.

    Args:
        config ([`VideoTemporalLocalizerConfig`]):
            Of the model.
        processor ([`TemporalLocalizationProcessor`]):
            Its processor, whose `feature_fps` is a frame rate to which films are resampled.
        rate (`float`):
            Frame rate of the film.

    Returns:
        `float`: the model reads frame `int(k * step)` at place `k`.
    """
    return config.frame_step * rate / (processor.feature_fps or rate)


def processed_frames(
    video: Any, processor: ClipVideoProcessor, device: torch.device, squash: bool = False, step: float = 1.0
) -> Iterator[torch.Tensor]:
    """
    Frames of a whole video in order, ready for a model; decoded and processed a few at a time.

    Args:
        video:
            One video, in any form that the processor accepts.
        processor ([`ClipVideoProcessor`]):
            The checkpoint's processor.
        device (`torch.device`):
            Where the frames are processed.
        squash (`bool`, *optional*, defaults to `False`):
            See [`get_video_features`].
        step (`float`, *optional*, defaults to 1.0):
            Frame `int(k * step)` is the one at place `k`; below 1 frames are repeated.

    Yields:
        `torch.Tensor` of shape `(num_channels, height, width)`.

    Raises:
        VideoDecodingError: the video cannot be read.
    """
    chunks = decode_in_chunks(video, CHUNK_BYTES, **processor.decode_options)
    read = taken = 0
    for chunk in chunks:
        for part in torch.from_numpy(chunk.frames).split(PROCESSED_FRAMES):  # floats need more memory
            places = []
            while (place := int(taken * step)) < read + len(part):
                places.append(place - read)
                taken += 1
            read += len(part)
            if places:
                yield from _processed(part[places], processor, device, squash)


def _processed(
    frames: torch.Tensor, processor: ClipVideoProcessor, device: torch.device, squash: bool
) -> torch.Tensor:
    if squash:
        return _squash(frames, processor, device)
    options = {"do_sample_frames": False, "input_data_format": "channels_last", "num_crops": 1, "return_tensors": "pt"}
    return processor(frames, device=device, **options)["pixel_values"][0]


def _squash(frames: torch.Tensor, processor: ClipVideoProcessor, device: torch.device) -> torch.Tensor:
    target = processor.crop_size if processor.do_center_crop else processor.size
    size = (target["height"], target["width"])
    pixels = frames.to(device).permute(0, 3, 1, 2).float() / 255
    pixels = without_colours(pixels) if processor.do_grayscale else pixels
    return F.interpolate(pixels, size=size, mode="bilinear", align_corners=False, antialias=False)


def sliding_windows(
    items: Iterable[torch.Tensor], length: int, hop: int, multiple: int = 1
) -> Iterator[tuple[int, torch.Tensor]]:
    """
    Windows over a stream of tensors. The last one is moved back, so that it ends with the stream and is as long as the
    others.

    Args:
        items (`Iterable[torch.Tensor]`):
            Tensors of one shape. Only those of a window and of the hop before it are held.
        length (`int`):
            Length of a window.
        hop (`int`):
            Distance between windows.
        multiple (`int`, *optional*, defaults to 1):
            Windows start at a multiple of it, of which `hop` is one.

    Yields:
        `tuple[int, torch.Tensor]`: number of the first item, and the items, stacked.
    """
    held: list[torch.Tensor] = []
    before: list[torch.Tensor] = []
    start = 0
    for item in items:
        if len(held) == length:
            yield start, torch.stack(held)
            before, held = held[:hop], held[hop:]
            start += hop
        held.append(item)
    if held:
        back = (length - len(held)) // multiple * multiple if before else 0
        yield start - back, torch.stack([*before[len(before) - back :], *held])


def check_windows(config: Any, processor: TemporalLocalizationProcessor) -> None:
    """
    Refuse a processor that places features elsewhere than the model makes them.

    Args:
        config ([`VideoTemporalLocalizerConfig`]):
            Of the model.
        processor ([`TemporalLocalizationProcessor`]):
            Its processor.

    Raises:
        ValueError: strides or windows differ.
    """
    if processor.feature_stride is None:
        return
    for name in ("stride", "window"):
        made = getattr(config, f"feature_{name}") * config.frame_step
        placed = getattr(processor, f"feature_{name}")
        if made != placed:
            raise ValueError(
                f"`feature_{name}` of the processor must be the {made} frames of the model's windows, got {placed}."
            )


def _nothing() -> ScoredSegments:
    return ScoredSegments(np.zeros((0, 2), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


def uneven_times(probe: VideoProbe, duration: float) -> np.ndarray | None:
    """
    Times of the frames of a film with a variable rate.

    Args:
        probe ([`VideoProbe`]):
            Facts about the film.
        duration (`float`):
            Its length in seconds.

    Returns:
        `np.ndarray` of shape `(num_frames + 1,)` or `None`: seconds from the first frame, and that of the end; `None`
        for an even rate.
    """
    if probe.timestamps is None or len(probe.timestamps) < 2:
        return None
    rate = probe.fps or 1.0
    times = np.asarray(probe.timestamps, np.float64) - probe.timestamps[0]
    even = np.arange(len(times)) / rate
    if np.abs(times - even).max() <= 0.5 / rate:
        return None
    return np.append(times, duration)


__all__ = [
    "FilmLocalizer",
    "check_windows",
    "frame_step",
    "processed_frames",
    "sliding_windows",
    "uneven_times",
]
