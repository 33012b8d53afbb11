"""What every kind of run shares: its processes, its batches, the folder it leaves behind."""

import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from transformers import PreTrainedModel
from transformers.utils import logging

from hf_videovit.modeling.video_processing_base import interpolation_mode

from .arguments import RunArguments, RunConfig
from .augmentation import Augmentation, ClipAugmentation, DeviceAugmentation, mirrored_labels
from .engine import FitResult
from .sources import VideoSource
from .streaming import BadVideoLedger, ClipStream, SampleLoader


logger = logging.get_logger(__name__)


def make_accelerator(arguments: RunArguments) -> Accelerator:
    """The processes and devices of a run, as `accelerate launch` started them."""
    return Accelerator(cpu=arguments.cpu, mixed_precision=arguments.mixed_precision)


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


def save_model(folder: Path, config: RunConfig, model: PreTrainedModel, processor: Any) -> None:
    """
    Write what the Hub and the next user need.

    Args:
        folder (`Path`):
            Receives config, weights, processor and `run.yaml`.
        config ([`RunConfig`]):
            The run.
        model (`PreTrainedModel`):
            The trained model.
        processor ([`ClipVideoProcessor`]):
            Its processor.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    config.save(folder / "run.yaml")


def run_facts(config: RunConfig, accelerator: Accelerator, fitted: FitResult, source: VideoSource) -> dict[str, Any]:
    """
    What a model card states of any run.

    Args:
        config ([`RunConfig`]):
            The run.
        accelerator (`Accelerator`):
            Its processes.
        fitted ([`FitResult`]):
            How it went.
        source ([`VideoSource`]):
            What it was trained on.
    """
    optimization, world = config.optimization, accelerator.num_processes
    effective = optimization.batch_size * optimization.accumulation * world
    return {
        "model_type": fitted.model.config.model_type,
        "base_model": config.model.checkpoint,
        "num_parameters": fitted.model.num_parameters(),
        "data": config.data.data,
        "num_train_videos": source.num_samples,
        "num_bad_train_videos": fitted.bad_videos,
        "epochs": fitted.epochs,
        "steps": fitted.steps,
        "effective_batch": effective,
        "num_sample": config.augmentation.num_sample,
        "seconds": round(fitted.seconds, 1),
        "hardware": f"{world} x {accelerator.device.type} ({platform.machine()})",
        "arguments": config.to_dict(),
    }
