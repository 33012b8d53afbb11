"""
Checkpoints that are either whole or not there: written beside, renamed into place. Tensors are safetensors, the rest
is JSON; nothing is pickled.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers.utils import logging


logger = logging.get_logger(__name__)

FORMAT = 1
STATE_FILE = "state.json"


@dataclass
class Checkpoint:
    """
    What a run needs to go on.

    Args:
        step (`int`):
            Optimiser steps done.
        tensors (`dict[str, dict[str, torch.Tensor]]`):
            State dicts by part (`model`, `optimizer`, `ema`); the same in all processes.
        state (`dict`):
            Plain values, the same in all processes.
        rank_state (`dict`):
            Plain values of this process.
    """

    step: int
    tensors: dict[str, dict[str, torch.Tensor]]
    state: dict[str, Any]
    rank_state: dict[str, Any]


def save_checkpoint(
    folder: Path,
    checkpoint: Checkpoint,
    *,
    keep: int = 2,
    rank: int = 0,
    world: int = 1,
    wait_for_everyone: Callable[[], None] = lambda: None,
) -> Path:
    """
    Write a checkpoint; all processes call it together.

    Args:
        folder (`Path`):
            Holds the checkpoints of a run.
        checkpoint ([`Checkpoint`]):
            The first process writes the common parts, each its own.
        keep (`int`, *optional*, defaults to 2):
            Latest checkpoints that stay.
        rank (`int`, *optional*, defaults to 0):
            This process.
        world (`int`, *optional*, defaults to 1):
            Number of processes.
        wait_for_everyone (`Callable[[], None]`, *optional*):
            A barrier.

    Returns:
        `Path`: the checkpoint. When writing fails (disk full), an `OSError` says so, and earlier checkpoints are
        intact.
    """
    final = folder / f"step_{checkpoint.step:08d}"
    draft = folder / f".step_{checkpoint.step:08d}.draft"
    try:
        if rank == 0:
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
        wait_for_everyone()
        write_json(draft / f"rank_{rank}.json", checkpoint.rank_state)
        if rank == 0:
            for name, tensors in checkpoint.tensors.items():
                write_tensors(draft / f"{name}.safetensors", tensors)
            common = {"format": FORMAT, "step": checkpoint.step, "world": world, **checkpoint.state}
            write_json(draft / STATE_FILE, common)
        wait_for_everyone()
        if rank == 0:
            shutil.rmtree(final, ignore_errors=True)
            os.replace(draft, final)
            sync(folder)
            for old in list_checkpoints(folder)[:-keep]:
                shutil.rmtree(old)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        kept = list_checkpoints(folder)
        intact = f"{kept[-1]} is intact" if kept else "there is no earlier one"
        raise OSError(f"Checkpoint {final} could not be written ({error}); {intact}") from error
    wait_for_everyone()
    return final


def load_checkpoint(path: Path, rank: int = 0, world: int = 1) -> Checkpoint:
    """
    Read a checkpoint.

    Args:
        path (`Path`):
            One of [`list_checkpoints`].
        rank (`int`, *optional*, defaults to 0):
            This process.
        world (`int`, *optional*, defaults to 1):
            Number of processes. It must be the number that wrote the checkpoint: positions in the data are kept for
            each process's share.
    """
    state = json.loads((path / STATE_FILE).read_text(encoding="utf-8"))
    if state.pop("format") != FORMAT:
        raise ValueError(f"Checkpoint {path} is not of format {FORMAT}: another version of hf_videovit wrote it")
    written_by = state.pop("world")
    if written_by != world:
        raise ValueError(
            f"Checkpoint {path} was written by {written_by} processes and cannot go on with {world}: each process "
            "resumes at its own position in its share of the data. Start as many, or start from the saved model."
        )
    rank_state = json.loads((path / f"rank_{rank}.json").read_text(encoding="utf-8"))
    tensors = {file.stem: load_file(file) for file in sorted(path.glob("*.safetensors"))}
    return Checkpoint(state.pop("step"), tensors, state, rank_state)


def list_checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints of a run, oldest first."""
    if not folder.is_dir():
        return []
    found = (path for path in folder.iterdir() if re.fullmatch(r"step_\d+", path.name))
    return sorted((path for path in found if (path / STATE_FILE).is_file()), key=lambda path: path.name)


def flatten_optimizer(state_dict: Mapping[str, Any]) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """An optimiser's state dict as flat tensors (`index.name`) and plain groups."""
    tensors = {
        f"{index}.{name}": torch.as_tensor(value)
        for index, values in state_dict["state"].items()
        for name, value in values.items()
    }
    return tensors, [dict(group) for group in state_dict["param_groups"]]


def unflatten_optimizer(tensors: Mapping[str, torch.Tensor], groups: list[dict[str, Any]]) -> dict[str, Any]:
    """The inverse of [`flatten_optimizer`]."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    pairs = [{key: tuple(value) if key == "betas" else value for key, value in group.items()} for group in groups]
    return {"state": state, "param_groups": pairs}


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write a state dict and wait until it is on disk."""
    save_file({name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}, path)
    sync(path)


def write_json(path: Path, values: Any) -> None:
    """Write plain values and wait until they are on disk."""
    with path.open("w", encoding="utf-8") as file:
        json.dump(values, file, indent=2)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Wait until a file or folder is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
