"""The batch with which a run goes on, on any number of processes: the clips of a step stay those of its checkpoint."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers.utils import logging

from ..arguments import OptimizationArguments, RunConfig
from .checkpointing import list_checkpoints, read_state


logger = logging.get_logger(__name__)

BATCH_FIELDS = ("batch_size", "accumulation")


def resumed_batch(config: RunConfig, world: int, change_accumulation: bool = True) -> OptimizationArguments:
    """
    The batch with which a run goes on from its last checkpoint. A step has as many clips as before, on any number of
    processes, so that the order of the samples and the learning rates stay.

    Args:
        config ([`RunConfig`]):
            The run. `batch_size` is the largest batch that fits a process.
        world (`int`):
            Number of processes.
        change_accumulation (`bool`, *optional*, defaults to `True`):
            Whether the number of batches in a step may change. Otherwise only their size does.

    Returns:
        [`OptimizationArguments`]: those of the run, with another `batch_size` and `accumulation` if necessary.

    Raises:
        ValueError: the processes cannot share the clips of a step equally, or the run was given another batch.
    """
    arguments = config.optimization
    checkpoints = list_checkpoints(Path(config.run.output_dir) / "checkpoints")
    if not config.run.resume or not checkpoints:
        return arguments
    state = read_state(checkpoints[-1])
    clips, given = state["clips_per_step"], batch_fields(state["config"])
    if clips_per_step(arguments, world) == clips:
        return arguments
    changes = [
        f"`{name}` was {before}, is {getattr(arguments, name)}"
        for name, before in given.items()
        if getattr(arguments, name) != before
    ]
    if changes:
        raise ValueError(
            f"`resume` continues the run in `output_dir` {config.run.output_dir!r}, which had other settings: "
            f"{'; '.join(changes)}. Restore them, or give values with which {world} processes take the {clips} clips "
            "of a step"
        )
    return _shared(arguments, clips, world, change_accumulation)


def _shared(arguments: OptimizationArguments, clips: int, world: int, change_accumulation: bool) -> Any:
    """The fewest batches, no larger than `batch_size`, into which a process can divide its part of a step."""
    part = clips // world
    numbers = range(1, part + 1) if change_accumulation else [arguments.accumulation]
    fitting = [
        number
        for number in numbers
        if part % number == 0 and (part // number <= arguments.batch_size or not change_accumulation)
    ]
    if clips % world or not fitting:
        parts = "" if change_accumulation else f", each in {arguments.accumulation} batches (`accumulation`)"
        raise ValueError(
            f"`resume` keeps the {clips} clips of a step, which {world} processes cannot share equally{parts}: start "
            "another number of processes"
        )
    changed = replace(arguments, batch_size=part // fitting[0], accumulation=fitting[0])
    if PartialState().is_main_process:
        logger.warning(
            f"A step keeps its {clips} clips: `batch_size` is {changed.batch_size}, "
            f"`accumulation` {changed.accumulation}"
        )
    return changed


def clips_per_step(arguments: OptimizationArguments, world: int) -> int:
    """
    Samples of a step in all processes.

    Args:
        arguments ([`OptimizationArguments`]):
            `batch_size` and `accumulation`.
        world (`int`):
            Number of processes.

    Returns:
        `int`: the number.
    """
    return arguments.batch_size * arguments.accumulation * world


def batch_fields(config: dict[str, Any]) -> dict[str, Any]:
    """
    The fields of a run that say how a step is divided.

    Args:
        config (`dict`):
            A run, from `to_dict`.

    Returns:
        `dict[str, Any]`: values by name.
    """
    return {name: config["optimization"][name] for name in BATCH_FIELDS}
