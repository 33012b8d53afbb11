"""The first clips of a run on their way into the model, for a picture."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from ..data.streaming import BadVideo, Batch, ClipStream, Record


logger = logging.get_logger(__name__)

GREY = 128


@dataclass(frozen=True)
class PreviewedClip:
    """
    A clip on its way into the model.

    Args:
        id (`str`):
            Of the sample.
        before (`np.ndarray` of shape `(num_frames, height, width, 3)`):
            As decoded.
        after (`list[np.ndarray]`):
            Its copies as the model is given them, of the crop's size; mixed with other clips where the run mixes.
        labels (`list[dict[str, float]]`):
            The target of each copy: label names and their shares. Empty for methods without labels.
        masked (`list[tuple[np.ndarray, np.ndarray]]`):
            For masked modelling, of each copy: what the encoder sees, and what is to be predicted; grey elsewhere.
    """

    id: str
    before: np.ndarray
    after: list[np.ndarray]
    labels: list[dict[str, float]]
    masked: list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class PreviewedCopies:
    """
    What a method makes of a batch, for its preview.

    Args:
        pixels (`torch.Tensor` of shape `(num_copies * batch_size, num_frames, num_channels, height, width)`):
            uint8; all first copies first.
        labels (`list[dict[str, float]]`, *optional*):
            The target of each.
        masked (`list[tuple[np.ndarray, np.ndarray]]`, *optional*):
            What the encoder sees of each, and what is to be predicted.
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
            Batches of as many clips as are shown.
        load ([`TrainingClipLoader`]):
            The stream's loader.
        copies_of (`Callable[[Batch], PreviewedCopies]`):
            What the method makes of the batch.

    Raises:
        ValueError: If none of the clips can be read.
    """
    stream.on_bad_video = _warn
    batch = next(stream.epoch(0), None)
    if batch is None:
        raise ValueError("None of the clips can be read")
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
    """A clip `(num_frames, num_channels, height, width)` as pictures `(num_frames, height, width, num_channels)`."""
    return clip.permute(0, 2, 3, 1).cpu().numpy()


def split_by_mask(clip: torch.Tensor, hidden: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    What the encoder sees of a clip and what is to be predicted; the rest is grey.

    Args:
        clip (`torch.Tensor` of shape `(num_frames, num_channels, height, width)`):
            uint8.
        hidden (`np.ndarray` of shape `(frames, rows, columns)`):
            Cells that the encoder does not see.
        predicted (`np.ndarray` of shape `(frames, rows, columns)`):
            Cells that are to be predicted.
    """
    frames = frames_of(clip)
    return _only(~hidden, frames), _only(predicted, frames)


def _only(cells: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Frames, grey outside the cells of a coarser grid."""
    for axis, length in enumerate(frames.shape[:3]):
        cells = cells.repeat(length // cells.shape[axis], axis=axis)
    return np.where(cells[..., None], frames, np.uint8(GREY))


def _warn(video: BadVideo) -> None:
    logger.warning(f"Video {video.id!r} cannot be read and is left out: {video.reason}")


__all__ = ["PreviewedClip", "PreviewedCopies", "frames_of", "preview_stream", "split_by_mask"]
