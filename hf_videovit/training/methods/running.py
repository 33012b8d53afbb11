"""The run of a method, from its configuration to a saved folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from transformers.utils import logging

from ..arguments import RunArguments
from ..engine.loop import fit
from ..engine.resuming import resumed_batch
from ..engine.run_folder import open_run_folder
from .common import Method, RunResult


def make_accelerator(arguments: RunArguments) -> Accelerator:
    """
    The processes and devices of a run, as started by `accelerate launch`.

    Args:
        arguments ([`RunArguments`]):
            `cpu` and `mixed_precision` are used.

    Returns:
        `Accelerator`

    Raises:
        ValueError: the launcher started several processes, and Accelerate takes each for a run of its own.
    """
    accelerator = Accelerator(cpu=arguments.cpu, mixed_precision=arguments.mixed_precision)
    started = int(os.environ.get("WORLD_SIZE", 1))
    if accelerator.num_processes < started:
        raise ValueError(
            f"The launcher started {started} processes, and Accelerate sees {accelerator.num_processes}: set the "
            "environment variable ACCELERATE_USE_CPU=true for processes without an accelerator"
        )
    return accelerator


def run(method: Method, accelerator: Accelerator | None = None) -> RunResult:
    """
    Train, evaluate and save.

    Args:
        method ([`Method`]):
            The method with its run.
        accelerator (`Accelerator`, *optional*):
            Processes and devices. Built from the run's fields by default.

    Returns:
        [`RunResult`]

    Raises:
        ValueError: `output_dir` is in use, or has files that the run would replace.
    """
    accelerator = accelerator or make_accelerator(method.config.run)
    with open_run_folder(method.config, accelerator) as folder, _progress_bars(method.config.run.progress):
        method.use_batch(resumed_batch(method.config, accelerator.num_processes, method.changes_accumulation))
        torch.manual_seed(method.config.run.seed)
        method.begin(accelerator)
        fitted = fit(
            method.task(),
            method.stream(),
            method.config,
            accelerator=accelerator,
            prepare_batch=method.prepare_batch,
            ledger=method.ledger,
            validate=method.validate if method.can_validate else None,
            observers=method.observers(),
            folder=folder,
        )
        if accelerator.is_main_process:
            folder.begin_saving()
        result = method.finish(method.merged(fitted))
        if accelerator.is_main_process:
            folder.record_results()
    return result


@contextmanager
def _progress_bars(shown: bool) -> Iterator[None]:
    """A block in which transformers shows its progress bars, or does not."""
    before = logging.is_progress_bar_enabled()
    if not shown:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if before:
            logging.enable_progress_bar()


__all__ = ["make_accelerator", "run"]
