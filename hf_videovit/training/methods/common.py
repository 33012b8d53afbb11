"""What every kind of run shares: its processes, its batches, the folder it leaves behind."""

import platform
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from transformers import PreTrainedModel
from transformers.utils import logging

from ..arguments import RunArguments, RunConfig
from ..data.sources import VideoSource
from ..engine.loop import FitResult


logger = logging.get_logger(__name__)


def make_accelerator(arguments: RunArguments) -> Accelerator:
    """The processes and devices of a run, as `accelerate launch` started them."""
    return Accelerator(cpu=arguments.cpu, mixed_precision=arguments.mixed_precision)


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
