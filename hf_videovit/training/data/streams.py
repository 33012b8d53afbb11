"""The streams of a run: augmentation, training and validation batches, and the list of unreadable videos."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from accelerate import Accelerator
from transformers.utils import logging

from ...modeling.video_processing_base import interpolation_mode
from ..arguments import AugmentationArguments, DataArguments
from .augmentation import Augmentation, ClipAugmentation, DeviceAugmentation, mirrored_labels
from .bad_videos import FILE_NAME, BadVideo, BadVideoLedger
from .loaders import SampleLoader
from .processors import ClipProcessor
from .sources import VideoSource
from .streaming import ClipStream, StepStream


logger = logging.get_logger(__name__)


def training_ledger(arguments: DataArguments, folder: Path, accelerator: Accelerator) -> BadVideoLedger:
    """
    The list of training videos that cannot be read by this process.

    Args:
        arguments ([`DataArguments`]):
            `bad_video_limit` and `bad_video_minimum`.
        folder (`Path`):
            Output folder of the run. The list is written to its subfolder `logs`.
        accelerator (`Accelerator`):
            Number of this process.

    Returns:
        [`BadVideoLedger`]: the list.
    """
    path = folder / "logs" / FILE_NAME.format(rank=accelerator.process_index)
    return BadVideoLedger(path, arguments.bad_video_limit, arguments.bad_video_minimum)


def keep_directions(arguments: AugmentationArguments, label_names: Sequence[str]) -> AugmentationArguments:
    """
    Disable the horizontal flip if it would turn one label into another ("left" into "right").

    Args:
        arguments ([`AugmentationArguments`]):
            Augmentation of the run.
        label_names (`Sequence[str]`):
            Label names of the model.

    Returns:
        [`AugmentationArguments`]: the augmentation, without the flip if necessary.
    """
    pairs = mirrored_labels(label_names) if arguments.flip else []
    if not pairs:
        return arguments
    logger.warning(
        f"Clips are not flipped, because a flip would turn the label {pairs[0][0]!r} into {pairs[0][1]!r}. "
        "Set `flip_labels` to any to flip them anyway."
    )
    return replace(arguments, flip=0.0)


def clip_augmentation(
    arguments: AugmentationArguments, processor: ClipProcessor, *, view: int = 0, jitter: float = 0.0
) -> Augmentation:
    """
    The augmentation of the clips of a run.

    Args:
        arguments ([`AugmentationArguments`]):
            Augmentation of the run.
        processor ([`ClipProcessor`]):
            Its crop size, normalisation and interpolation are used.
        view (`int`, *optional*, defaults to 0):
            1 for the second of two clips that are augmented differently.
        jitter (`float`, *optional*, defaults to 0.0):
            Largest change of brightness, contrast and saturation, see [`ClipAugmentation`].

    Returns:
        [`ClipAugmentation`] or [`DeviceAugmentation`]: the augmentation.
    """
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
    arguments: DataArguments,
    source: VideoSource,
    load: SampleLoader,
    ledger: BadVideoLedger,
    accelerator: Accelerator,
    *,
    seed: int,
    batch_size: int,
    accumulation: int,
    drop_last: bool,
    full_batches: bool = False,
) -> StepStream:
    """
    The training batches of this process.

    Args:
        arguments ([`DataArguments`]):
            Settings of the workers, and how unreadable videos are handled.
        source ([`VideoSource`]):
            The videos, with the label indices of the model if the method needs labels.
        load (`Callable[[Record], dict[str, torch.Tensor]]`):
            Reads one sample, such as [`TrainingClipLoader`].
        ledger ([`BadVideoLedger`]):
            Records unreadable videos, unless `bad_video` is `"raise"`.
        accelerator (`Accelerator`):
            Number of this process and of all processes.
        seed (`int`):
            Seed of the order.
        batch_size (`int`):
            Samples per batch.
        accumulation (`int`):
            Batches of each process in a step.
        drop_last (`bool`):
            Whether an incomplete last step is left out.
        full_batches (`bool`, *optional*, defaults to `False`):
            See [`StepStream`].

    Returns:
        [`StepStream`]: the batches.
    """
    return StepStream(
        source,
        load,
        batch_size,
        seed,
        accumulation,
        full_batches,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        num_workers=arguments.num_workers,
        timeout=arguments.worker_timeout,
        drop_last=drop_last,
        on_bad_video=ledger.add if arguments.bad_video == "skip" else None,
    )


def evaluation_stream(
    arguments: DataArguments,
    source: VideoSource,
    load: SampleLoader,
    accelerator: Accelerator,
    *,
    batch_size: int,
    on_bad_video: Callable[[BadVideo], None] | None = None,
) -> ClipStream:
    """
    The validation batches of this process, in the order of the source.

    Args:
        arguments ([`DataArguments`]):
            Settings of the workers.
        source ([`VideoSource`]):
            The videos.
        load (`Callable[[Record], dict[str, torch.Tensor]]`):
            Reads one sample.
        accelerator (`Accelerator`):
            Number of this process and of all processes.
        batch_size (`int`):
            Samples per batch.
        on_bad_video (`Callable[[BadVideo], None]`, *optional*):
            Called with each unreadable video. By default a warning is logged.

    Returns:
        [`ClipStream`]: the batches.
    """
    return ClipStream(
        source,
        load,
        batch_size,
        seed=None,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        num_workers=arguments.num_workers,
        timeout=arguments.worker_timeout,
        on_bad_video=on_bad_video or _warn,
    )


def _warn(video: BadVideo) -> None:
    logger.warning(f"Video {video.id!r} cannot be read and is left out of the validation: {video.reason}")
