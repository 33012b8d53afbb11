"""The streams that a run trains on: its augmentation, its batches, its account of unreadable videos."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from transformers.utils import logging

from ...modeling.video_processing_base import interpolation_mode
from ..arguments import RunConfig
from .augmentation import Augmentation, ClipAugmentation, DeviceAugmentation, mirrored_labels
from .sources import VideoSource
from .streaming import BadVideoLedger, ClipStream, SampleLoader


logger = logging.get_logger(__name__)


def training_ledger(config: RunConfig, accelerator: Accelerator) -> BadVideoLedger:
    """
    The account of unreadable training videos of this process.

    Args:
        config ([`RunConfig`]):
            The run.
        accelerator (`Accelerator`):
            Tells which process this is.
    """
    return BadVideoLedger(
        Path(config.run.output_dir) / "logs" / f"bad_videos.rank{accelerator.process_index}.jsonl",
        config.data.bad_video_limit,
        config.data.bad_video_minimum,
    )


def clip_augmentation(
    config: RunConfig, processor: Any, label_names: Sequence[str] = (), *, view: int = 0, jitter: float = 0.0
) -> Augmentation:
    """
    The augmentation of a run's clips.

    Args:
        config ([`RunConfig`]):
            The run.
        processor ([`ClipVideoProcessor`]):
            Says to what size clips are cropped, and how they are normalised afterwards.
        label_names (`Sequence[str]`, *optional*):
            Labels that are learnt: where mirroring would turn one into another, clips are not mirrored
            (`flip_labels`).
        view (`int`, *optional*, defaults to 0):
            1 for the second of two clips, where they are treated differently.
        jitter (`float`, *optional*, defaults to 0.0):
            See [`ClipAugmentation`].
    """
    arguments = config.augmentation
    pairs = mirrored_labels(label_names) if arguments.flip and arguments.flip_labels == "alike" else []
    if pairs:
        logger.warning(
            f"Clips are not mirrored: that would turn label {pairs[0][0]!r} into {pairs[0][1]!r} "
            "(`flip_labels` any mirrors all the same)"
        )
        arguments = replace(arguments, flip=0.0)
    size = processor.crop_size if processor.do_center_crop else processor.size
    height, width = size["height"], size["width"]
    augmentation = ClipAugmentation(
        arguments,
        (height, width),
        image_mean=tuple(processor.image_mean),
        image_std=tuple(processor.image_std),
        interpolation=interpolation_mode(processor.resample),
        antialias=processor.antialias,
        jitter=jitter,
        view=view,
    )
    if not arguments.augment_on_device:
        return augmentation
    return DeviceAugmentation(augmentation, arguments.device_area or 2 * height * width)


def training_stream(
    config: RunConfig,
    accelerator: Accelerator,
    source: VideoSource,
    load: SampleLoader,
    ledger: BadVideoLedger,
    batch_size: int | None = None,
    drop_last: bool | None = None,
) -> ClipStream:
    """
    The augmented training batches of this process.

    Args:
        config ([`RunConfig`]):
            The run.
        accelerator (`Accelerator`):
            Tells which process this is.
        source ([`VideoSource`]):
            The videos, labelled with the model's labels if the method needs any.
        load (`Callable[[Record], dict[str, torch.Tensor]]`):
            Reads one of them, such as [`TrainingClipLoader`].
        ledger ([`BadVideoLedger`]):
            Is told of unreadable videos, unless `bad_video` is `"raise"`.
        batch_size (`int`, *optional*):
            Samples of a batch; the run's by default.
        drop_last (`bool`, *optional*):
            Whether incomplete batches are left out; likewise.
    """
    return ClipStream(
        source,
        load,
        batch_size or config.optimization.batch_size,
        config.run.seed,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        num_workers=config.data.num_workers,
        prefetch_batches=config.data.prefetch_batches,
        timeout=config.data.worker_timeout,
        drop_last=config.optimization.drop_last if drop_last is None else drop_last,
        on_bad_video=ledger.add if config.data.bad_video == "skip" else None,
    )
