"""Clips of a run before and after augmentation, for a picture."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from ..data.bad_videos import BadVideo
from ..data.loaders import Record
from ..data.streaming import Batch, ClipStream


logger = logging.get_logger(__name__)

GREY = 128


@dataclass(frozen=True)
class PreviewedClip:
    """
    A clip before and after augmentation.

    Args:
        id (`str`):
            Id of the sample.
        before (`np.ndarray` of shape `(num_frames, height, width, 3)`):
            The decoded frames.
        after (`list[np.ndarray]`):
            The augmented copies as the model sees them, of the size of the crop, mixed with other clips if the run
            mixes.
        labels (`list[dict[str, float]]`):
            The target of each copy: share of each label by name. Empty for methods without labels.
        masked (`list[tuple[np.ndarray, np.ndarray]]`):
            For masked modelling, the visible and the predicted patches of each copy, grey elsewhere.
    """

    id: str
    before: np.ndarray
    after: list[np.ndarray]
    labels: list[dict[str, float]]
    masked: list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class PreviewedCopies:
    """
    The augmented copies of the clips of a batch, for a preview.

    Args:
        pixels (`torch.Tensor` of shape `(num_copies * batch_size, num_frames, num_channels, height, width)`):
            uint8 clips, ordered by copy.
        labels (`list[dict[str, float]]`, *optional*, defaults to `[]`):
            The target of each clip: share of each label by name.
        masked (`list[tuple[np.ndarray, np.ndarray]]`, *optional*, defaults to `[]`):
            The visible and the predicted patches of each clip.
    """

    pixels: torch.Tensor
    labels: list[dict[str, float]] = field(default_factory=list)
    masked: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)


def preview_stream(
    stream: ClipStream, load: Any, copies_of: Callable[[Batch], PreviewedCopies]
) -> Iterator[PreviewedClip]:
    """
    The clips of a stream's first batch.

    Args:
        stream ([`ClipStream`]):
            The stream. Its batch size is the number of clips shown.
        load ([`TrainingClipLoader`]):
            Loader of the stream.
        copies_of (`Callable[[Batch], PreviewedCopies]`):
            Augments the clips of a batch.

    Returns:
        `Iterator[PreviewedClip]`

    Raises:
        ValueError: no clip can be read.
    """
    stream.on_bad_video = _warn
    batch = next(stream.epoch(0), None)
    if batch is None:
        raise ValueError("No clip can be read")
    shown = copies_of(batch)
    share = stream.source.share(0, 1, stream.seed, 0)
    samples = dict(zip(range(batch.next_position), share))
    for index, position in enumerate(batch.positions):
        record = Record(samples[position], 0, position)
        copies = range(index, len(shown.pixels), len(batch))
        yield PreviewedClip(
            record.sample.id,
            frames_of(load.decode(record)),
            [frames_of(shown.pixels[copy]) for copy in copies],
            [shown.labels[copy] for copy in copies] if shown.labels else [],
            [shown.masked[copy] for copy in copies] if shown.masked else [],
        )


def frames_of(clip: torch.Tensor) -> np.ndarray:
    """
    A clip as an array of images.

    Args:
        clip (`torch.Tensor` of shape `(num_frames, num_channels, height, width)`):
            The clip.

    Returns:
        `np.ndarray` of shape `(num_frames, height, width, num_channels)`.
    """
    return clip.permute(0, 2, 3, 1).cpu().numpy()


def split_by_mask(clip: torch.Tensor, hidden: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    The patches of a clip that the encoder sees, and those to predict. The other patches are grey.

    Args:
        clip (`torch.Tensor` of shape `(num_frames, num_channels, height, width)`):
            The uint8 clip.
        hidden (`np.ndarray` of shape `(frames, rows, columns)`):
            `True` for patches that the encoder does not see.
        predicted (`np.ndarray` of shape `(frames, rows, columns)`):
            `True` for patches to predict.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: two arrays of shape `(num_frames, height, width, num_channels)`.
    """
    frames = frames_of(clip)
    return _only(~hidden, frames), _only(predicted, frames)


def _only(cells: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Frames that are grey outside some cells of a coarser grid."""
    for axis, length in enumerate(frames.shape[:3]):
        cells = cells.repeat(length // cells.shape[axis], axis=axis)
    return np.where(cells[..., None], frames, np.uint8(GREY))


def _warn(video: BadVideo) -> None:
    logger.warning(f"{video.id!r} cannot be read and is skipped: {video.reason}")


__all__ = ["PreviewedClip", "PreviewedCopies", "frames_of", "preview_stream", "split_by_mask"]
