"""The loss of each video of an evaluation, and a picture of those that the model was most wrong about."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from ...modeling.video_processing_base import ClipVideoProcessor
from ...pictures.drawing import ClassifiedClip, draw_classified_clips, evenly_spaced
from ..data.sources import Sample, VideoSource
from .evaluation import EvaluationResult


NUM_CLIPS = 8
FRAMES = 6
HEIGHT = 144  # pixels of the frames in the picture
SHOWN_LABELS = 3


def video_losses(result: EvaluationResult) -> np.ndarray:
    """
    The loss of each video without label smoothing: cross-entropy, for multi-label models the mean binary cross-entropy
    of the labels.

    Args:
        result ([`EvaluationResult`]):
            The evaluation.

    Returns:
        `np.ndarray` of shape `(num_videos,)`: in the order of the result; not a number for a video without a label.
    """
    losses = np.full(len(result.ids), np.nan)
    if result.labels is None:
        return losses
    known = result.labels >= 0 if result.labels.ndim == 1 else (result.labels >= 0).all(axis=1)
    logits, labels = (torch.from_numpy(values) for values in result.scored())
    if result.multi_label:
        terms = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none").mean(dim=1)
    else:
        terms = F.cross_entropy(logits, labels, reduction="none")
    losses[known] = terms.numpy()
    return losses


def draw_hardest_clips(
    result: EvaluationResult,
    source: VideoSource,
    processor: ClipVideoProcessor,
    path: str | Path,
    num_clips: int = NUM_CLIPS,
) -> Path | None:
    """
    Draw the videos with the highest loss: frames, the correct label, the loss, and the labels with the best scores.

    Args:
        result ([`EvaluationResult`]):
            The evaluation.
        source ([`VideoSource`]):
            Its videos.
        processor ([`ClipVideoProcessor`]):
            Reads their frames.
        path (`str` or `Path`):
            The picture; its suffix decides the format.
        num_clips (`int`, *optional*, defaults to 8):
            Largest number of videos.

    Returns:
        `Path` or `None`: the picture's file; none if no video has a label.
    """
    losses = video_losses(result)
    order = [int(index) for index in np.argsort(-losses, kind="stable") if np.isfinite(losses[index])][:num_clips]
    wanted = {result.ids[index] for index in order}
    found: dict[str, Sample] = {}
    for sample in source.share(0, 1, None, 0) if wanted else ():
        if sample.id in wanted:
            found[sample.id] = sample
        if len(found) == len(wanted):
            break
    clips = [_row(result, index, losses[index], _frames(processor, found[result.ids[index]])) for index in order]
    return draw_classified_clips(clips, path, FRAMES) if clips else None


def _row(result: EvaluationResult, index: int, loss: float, frames: np.ndarray) -> ClassifiedClip:
    scores = result.probabilities[index]
    best = np.argsort(-scores, kind="stable")[:SHOWN_LABELS]
    assert result.labels is not None
    right = np.flatnonzero(result.labels[index]) if result.multi_label else [result.labels[index]]
    truth = ", ".join(result.label_names[int(label)] for label in right)
    note = f"loss {loss:.2f}, {Path(result.ids[index]).name}"
    return ClassifiedClip(frames, {result.label_names[label]: float(scores[label]) for label in best}, truth, note)


def _frames(processor: ClipVideoProcessor, sample: Sample) -> np.ndarray:
    """A few frames of the middle clip, made smaller."""
    clips, _ = processor.load_clips(sample.video, sampling_mode="validation")
    frames = clips[0].permute(0, 2, 3, 1).numpy()  # (frames, height, width, channels)
    frames = frames[evenly_spaced(len(frames), FRAMES)]
    height, width = frames.shape[1:3]
    size = (max(1, round(width * HEIGHT / height)), HEIGHT)
    return np.stack([np.asarray(Image.fromarray(frame).resize(size)) for frame in frames])


__all__ = ["draw_hardest_clips", "video_losses"]
