"""A picture of what training sees: clips as they are decoded, as they are augmented, mixed and masked."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision.transforms import v2
from transformers import PreTrainedConfig
from transformers.utils import logging

from ..modeling.video_processing_base import without_colours
from ..pictures.drawing import draw_strips
from .arguments import RunConfig
from .building import describe_inputs
from .data.augmentation import BatchMixing, seeded_torch
from .data.opening import load_sources
from .data.sources import VideoSource, stable_hash
from .data.streaming import (
    BadVideo,
    Batch,
    ClipStream,
    MaskedClipLoader,
    Record,
    TrainingClipLoader,
    merge_copies,
)
from .data.streams import clip_augmentation
from .methods.masked_pixels import masks_of
from .words.streams import WordData


logger = logging.get_logger(__name__)

TASKS = ("classification", "masked_modeling", "masked_words")
GREY = 128
MIN_HEIGHT = 96


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
            For masked modelling, of each copy: what the encoder sees, and what is to be reconstructed or named; grey
            elsewhere.
    """

    id: str
    before: np.ndarray
    after: list[np.ndarray]
    labels: list[dict[str, float]]
    masked: list[tuple[np.ndarray, np.ndarray]]


def preview_task(config: RunConfig) -> str:
    """
    The method that a recipe is for: masked words where it names a tokenizer, masked modelling where it sets a mask
    ratio, else classification.
    """
    if config.model.tokenizer is not None:
        return "masked_words"
    return "masked_modeling" if "encoder_mask_ratio" in config.model.config else "classification"


def preview_clips(
    config: RunConfig, task: str | None = None, num_clips: int = 4, source: VideoSource | None = None
) -> list[PreviewedClip]:
    """
    The first clips of a run's first epoch. No weights are loaded.

    Args:
        config ([`RunConfig`]):
            The run.
        task (`str`, *optional*):
            `"classification"` (distillation included), `"masked_modeling"`, or `"masked_words"`, whose images follow
            the clips; by default what [`preview_task`] says.
        num_clips (`int`, *optional*, defaults to 4):
            How many. They are mixed among themselves, so their partners are not those of the run's batch.
        source ([`VideoSource`], *optional*):
            The videos; opened from `config.data` by default.

    Returns:
        `list[PreviewedClip]`
    """
    task = task or preview_task(config)
    if task not in TASKS:
        raise ValueError(f"`task` must be one of {', '.join(TASKS)}, got {task!r}")
    if task == "masked_words":
        return _word_clips(config, num_clips, source)
    source = load_sources(config.data, config.run.seed)[0] if source is None else source
    model_config, processor = describe_inputs(config.model)
    names = list(source.label_names) if task == "classification" else []
    if task == "classification" and len(names) < 2:
        raise ValueError(f"`data` must have at least two labels for classification, it has {names}")
    augmentation = clip_augmentation(config, processor, names)
    options = (processor, augmentation, config.run.seed, config.augmentation.num_sample)
    load: TrainingClipLoader = TrainingClipLoader(*options)
    if task == "masked_modeling":
        load = MaskedClipLoader(*options, masks_of(model_config))
    stream = ClipStream(source, load, num_clips, config.run.seed, on_bad_video=_tell)
    batch = _first(stream)
    rows = augmentation.finish(merge_copies(batch.rows))
    if processor.do_grayscale:
        rows["pixel_values"] = without_colours(rows["pixel_values"])
    labels: list[dict[str, float]] = []
    if task == "classification":
        rows["pixel_values"], labels = _mix(config, processor, names, rows)
    return [
        PreviewedClip(
            record.sample.id,
            _decoded(load, record),
            after,
            [labels[copy] for copy in copies] if labels else [],
            [] if labels else [_masked(*pair, rows, model_config) for pair in zip(after, copies)],
        )
        for record, copies, after in _drawn(batch, stream, rows["pixel_values"])
    ]


def _word_clips(config: RunConfig, num_clips: int, source: VideoSource | None) -> list[PreviewedClip]:
    """Clips, and then images, as masked visual words are predicted of."""
    model_config, processor = describe_inputs(config.model)
    data = WordData(config, model_config, processor)
    clips = []
    for kind, (train, _) in data.sources.items():
        load = data.loader(images=kind == "image")
        given = train if source is None or kind == "image" else source
        stream = ClipStream(given, load, num_clips, config.run.seed, on_bad_video=_tell)
        batch = _first(stream)
        rows = merge_copies(batch.rows)
        for record, copies, after in _drawn(batch, stream, rows["pixel_values"]):
            masked = [_hidden(*pair, rows["mask"]) for pair in zip(after, copies)]
            clips.append(PreviewedClip(record.sample.id, _decoded(load, record), after, [], masked))
    return clips


def _first(stream: ClipStream) -> Batch:
    batch = next(stream.epoch(0), None)
    if batch is None:
        raise ValueError("None of the clips can be read")
    return batch


def _drawn(
    batch: Batch, stream: ClipStream, pixels: torch.Tensor
) -> Iterator[tuple[Record, Sequence[int], list[np.ndarray]]]:
    """Each sample of the first batch of an epoch, the rows of its copies, and these as frames."""
    share = stream.source.share(0, 1, stream.seed, 0)
    samples = dict(zip(range(batch.next_position), share))
    for index, position in enumerate(batch.positions):
        copies = range(index, len(pixels), len(batch))
        yield Record(samples[position], 0, position), copies, [_frames(pixels[copy]) for copy in copies]


def draw_preview(
    config: RunConfig,
    path: str | Path,
    task: str | None = None,
    num_clips: int = 4,
    source: VideoSource | None = None,
    max_frames: int = 8,
) -> list[PreviewedClip]:
    """
    Draw what training sees: for each clip a strip as it is decoded, and below it one for each augmented copy, with its
    target above; for masked modelling also what the encoder sees of it and what is to be reconstructed.

    Args:
        config ([`RunConfig`]):
            The run.
        path (`str` or `Path`):
            The picture; its suffix decides the format.
        task (`str`, *optional*):
            See [`preview_clips`].
        num_clips (`int`, *optional*, defaults to 4):
            Clips in the picture.
        source ([`VideoSource`], *optional*):
            The videos.
        max_frames (`int`, *optional*, defaults to 8):
            Frames of a clip that are shown.

    Returns:
        `list[PreviewedClip]`: what is drawn.
    """
    clips = preview_clips(config, task, num_clips, source)
    height, width = clips[0].after[0].shape[1:3]
    groups: list[tuple[str, list[np.ndarray]]] = []
    for clip in clips:
        groups.append(
            (f"{clip.id}: decoded ({clip.before.shape[2]} x {clip.before.shape[1]})", [_fit(clip.before, height)])
        )
        for index, frames in enumerate(clip.after):
            title = f"augmented ({width} x {height})" + (f", copy {index + 1}" if len(clip.after) > 1 else "")
            if clip.labels:
                title += ": " + target_text(clip.labels[index])
            if clip.masked:
                title += "; seen by the encoder; to be predicted"
            groups.append((title, [frames, *(clip.masked[index] if clip.masked else ())]))
    draw_strips(groups, path, max_frames, min_height=MIN_HEIGHT)
    return clips


def target_text(shares: dict[str, float]) -> str:
    """A target in words: `0.70 jump + 0.30 fall`."""
    ordered = sorted(shares.items(), key=lambda share: -share[1])
    return ordered[0][0] if len(ordered) == 1 else " + ".join(f"{share:.2f} {name}" for name, share in ordered)


def _mix(
    config: RunConfig, processor: Any, names: list[str], rows: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, list[dict[str, float]]]:
    """Clips and targets as the first step would mix them."""
    mixing = BatchMixing(config.augmentation, len(names))
    with seeded_torch(stable_hash(f"{config.run.seed}/0/0") >> 1):
        pixels, labels = mixing(processor.normalize_clips(rows["pixel_values"]), rows["labels"])
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (processor.image_mean, processor.image_std))
    if processor.do_normalize:
        pixels = pixels * std + mean
    if labels.ndim == 1:
        return rows["pixel_values"], [{names[int(label)]: 1.0} for label in labels]
    targets = [{names[index]: share for index, share in enumerate(row) if share > 0} for row in labels.tolist()]
    return (pixels / processor.rescale_factor).round().clamp(0, 255).to(torch.uint8), targets


def _decoded(load: TrainingClipLoader, record: Record) -> np.ndarray:
    rng = np.random.default_rng(load.seed_of(record, "frames"))
    clips, _ = load.processor.load_clips(record.sample.video, sampling_mode=load.sampling_mode, rng=rng)
    return _frames(clips[0])


def _frames(clip: torch.Tensor) -> np.ndarray:
    return clip.permute(0, 2, 3, 1).cpu().numpy()


def _fit(frames: np.ndarray, height: int) -> np.ndarray:
    """Frames at the height of the augmented ones, for the picture's sake."""
    width = max(1, round(frames.shape[2] * height / frames.shape[1]))
    clip = torch.from_numpy(frames).permute(0, 3, 1, 2)
    return _frames(v2.functional.resize(clip, [height, width], antialias=True))


def _masked(
    frames: np.ndarray, copy: int, rows: dict[str, torch.Tensor], config: PreTrainedConfig
) -> tuple[np.ndarray, np.ndarray]:
    """What the encoder sees of a clip, and what of it the decoder is to reconstruct."""
    hidden, left_out = (rows[name][copy].numpy() for name in ("encoder_mask", "decoder_mask"))
    grid = config.token_grid()
    return _only(~hidden.reshape(grid), frames), _only((hidden & ~left_out).reshape(grid), frames)


def _hidden(frames: np.ndarray, copy: int, masks: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """What the encoder sees of a clip or image, and the patches whose words it is to name."""
    mask = masks[copy].numpy()
    mask = mask[None] if mask.ndim == 2 else mask
    return _only(~mask, frames), _only(mask, frames)


def _only(cells: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Frames with grey where a coarser grid says no."""
    for axis, length in enumerate(frames.shape[:3]):
        cells = cells.repeat(length // cells.shape[axis], axis=axis)
    return np.where(cells[..., None], frames, np.uint8(GREY))


def _tell(video: BadVideo) -> None:
    logger.warning(f"Video {video.id!r} cannot be read and is left out: {video.reason}")
