"""
Checkpoints that are written atomically: into a draft folder, which is then renamed. `torch.distributed.checkpoint`
shares the tensors out among the processes and writes them while training goes on. Tensors are stored as safetensors
and everything else as JSON. Nothing is pickled.
"""

import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import distributed
from torch.distributed.tensor import DTensor

from ...folders import file_hash, remove_folder
from .tensor_files import FILE_NAMES, cause_of, list_tensor_facts, load_tensors, save_tensors


FORMAT = 4
STATE_FILE = "state.json"
SEAL = "sha256"  # field of a JSON file with the hash of the other fields
WAY_OUT = "Delete this checkpoint to resume from the one before, or start again"
ASIDE = ".replaced"  # suffix of a checkpoint whose step is being saved again
FOLDERS = re.compile(rf"\.?step_\d{{8,}}({re.escape(ASIDE)})?(\.draft)?(\.removed)?")
FILES = re.compile(rf"state\.json|rank_\d+\.json|{FILE_NAMES}")


@dataclass
class TrainingCheckpoint:
    """
    The state from which a run continues.

    Args:
        step (`int`):
            Number of optimiser steps done.
        tensors (`dict[str, dict[str, torch.Tensor]]`):
            State dicts by part (`task`, `optimizer`, `ema`); the same in all processes.
        state (`dict`):
            Plain values that are the same in all processes.
        rank_state (`dict`):
            Plain values of this process.
        world (`int`, *optional*, defaults to 1):
            Number of processes that wrote the checkpoint.
    """

    step: int
    tensors: dict[str, dict[str, torch.Tensor]]
    state: dict[str, Any]
    rank_state: dict[str, Any]
    world: int = 1


def save_checkpoint(
    folder: Path,
    checkpoint: TrainingCheckpoint,
    *,
    keep: int = 2,
    rank: int = 0,
    agree: Callable[[bool], bool] = bool,
) -> Path:
    """
    Write a checkpoint. All processes call this function together.

    Args:
        folder (`Path`):
            The folder with the checkpoints of a run.
        checkpoint ([`TrainingCheckpoint`]):
            The state. The first process writes the common parts, and each process its own.
        keep (`int`, *optional*, defaults to 2):
            Number of latest checkpoints to keep.
        rank (`int`, *optional*, defaults to 0):
            Index of this process.
        agree (`Callable[[bool], bool]`, *optional*):
            Returns, in all processes, whether every process passed `True`. Thus all processes stop if one fails.

    Returns:
        `Path`: the folder of the checkpoint.

    Raises:
        OSError: writing failed in some process, for instance because the disk is full. Raised in all processes.
            Earlier checkpoints are intact.
    """
    writer = CheckpointWriter(folder, keep=keep, rank=rank, agree=agree)
    writer.begin(checkpoint)
    writer.finish()
    return folder / f"step_{checkpoint.step:08d}"


class CheckpointWriter:
    """
    Writes the checkpoints of a run while it goes on, one at a time. All processes call its methods together.

    Args:
        folder (`Path`):
            The folder with the checkpoints of a run.
        keep (`int`, *optional*, defaults to 2):
            Number of latest checkpoints to keep.
        rank (`int`, *optional*, defaults to 0):
            Index of this process.
        agree (`Callable[[bool], bool]`, *optional*):
            Returns, in all processes, whether every process passed `True`. Thus all processes stop if one fails.
        group (`ProcessGroup`, *optional*):
            Processes that communicate over the CPU, used by nothing else.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: int = 2,
        rank: int = 0,
        agree: Callable[[bool], bool] = bool,
        group: "distributed.ProcessGroup | None" = None,
    ):
        self.folder, self.keep, self.rank, self.agree, self.group = folder, keep, rank, agree, group
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._step = 0

    @property
    def _final(self) -> Path:
        return self.folder / f"step_{self._step:08d}"

    @property
    def _draft(self) -> Path:
        return self.folder / f".{self._final.name}.draft"

    def begin(self, checkpoint: TrainingCheckpoint) -> None:
        """
        Copy the state, and write it in a thread. The checkpoint before is finished first.

        Args:
            checkpoint ([`TrainingCheckpoint`]):
                The state. Its tensors may be sharded.

        Raises:
            OSError: this checkpoint or the one before cannot be written. See [`~CheckpointWriter.finish`].
        """
        self.finish()
        self._step = checkpoint.step
        for part in (self._start, lambda: _write_json(self._draft / f"rank_{self.rank}.json", checkpoint.rank_state)):
            self._settle(_error_of(part))
        named = {
            f"{part}/{name}": value for part, found in checkpoint.tensors.items() for name, value in found.items()
        }
        tensors = self._own_tensors(named, checkpoint.world)
        written: Future[Any] = Future()
        digests: dict[str, str] = {}
        if named:
            written = save_tensors(self._draft, tensors, self.rank, _write_tensors, digests, self.group)
        else:
            written.set_result(None)
        self._thread = threading.Thread(target=self._complete, args=(written, checkpoint, named.keys(), digests))
        self._thread.start()

    def _own_tensors(self, named: Mapping[str, torch.Tensor], world: int) -> dict[str, torch.Tensor]:
        """
        This process's shards, and its share of the tensors that all processes hold. The share depends on the names
        only: processes may hold the tensors in different orders.
        """
        own = {
            name: named[name].detach()
            for number, name in enumerate(sorted(named))
            if isinstance(named[name], DTensor) or number % world == self.rank
        }
        return {name: value.clone() if value.device.type == "cpu" else value for name, value in own.items()}

    def finish(self) -> None:
        """
        Wait until the checkpoint is complete.

        Raises:
            OSError: writing failed in some process, for instance because the disk is full. Raised in all processes.
                Earlier checkpoints are intact.
        """
        if self._thread is None:
            return
        self.wait()
        error, self._thread, self._error = self._error, None, None
        self._settle(error)

    def wait(self) -> None:
        """Wait until nothing is being written, whether it succeeded or not."""
        if self._thread is not None:
            self._thread.join()

    def _settle(self, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, OSError):
            raise error
        if self.agree(error is None):
            return
        if self.rank == 0:
            shutil.rmtree(self._draft, ignore_errors=True)
        kept = list_checkpoints(self.folder)
        intact = f"{kept[-1]} is intact" if kept else "there is no earlier checkpoint"
        reason = error or "see the error of another process"
        raise OSError(f"Checkpoint {self._final} could not be written ({reason}); {intact}") from error

    def _start(self) -> None:
        if self.rank == 0:
            shutil.rmtree(self._draft, ignore_errors=True)
            self._draft.mkdir(parents=True)

    def _complete(
        self,
        written: "Future[Any]",
        checkpoint: TrainingCheckpoint,
        names: Collection[str],
        digests: Mapping[str, str],
    ) -> None:
        """Wait for all processes, then give the checkpoint its name."""
        try:
            written.result()
            if self.rank == 0:
                missing = sorted(set(names) - list_tensor_facts(self._draft).keys())
                if missing:
                    raise RuntimeError(f"No process wrote {', '.join(missing[:8])} of checkpoint {self._final}")
                self._publish(checkpoint, digests)
        except BaseException as error:  # raised where the run waits for it
            self._error = cause_of(error)

    def _publish(self, checkpoint: TrainingCheckpoint, digests: Mapping[str, str]) -> None:
        common = {"format": FORMAT, "step": checkpoint.step, "world": checkpoint.world}
        common |= {"parts": list(checkpoint.tensors), "files": dict(sorted(digests.items()))} | checkpoint.state
        _write_json(self._draft / STATE_FILE, common)
        _sync(self._draft)
        _put_in_place(self._draft, self._final)
        for old in filter(is_own_folder, list_checkpoints(self.folder)[: -self.keep]):
            remove_folder(old)
        remove_leftovers(self.folder)


def _error_of(part: Callable[[], None]) -> OSError | None:
    try:
        part()
    except OSError as error:
        return error
    return None


def _put_in_place(draft: Path, final: Path) -> None:
    """Rename a folder. An older one of that name is renamed first, so that one of them is complete at any time."""
    aside = final.with_name(f"{final.name}{ASIDE}")
    remove_folder(aside)
    if final.exists():
        os.replace(final, aside)
    os.replace(draft, final)
    _sync(final.parent)
    remove_folder(aside)


def is_own_folder(path: Path) -> bool:
    """
    Whether a folder is a checkpoint, or a part of one, with no other files in it.

    Args:
        path (`Path`):
            A folder beside the checkpoints of a run.

    Returns:
        `bool`
    """
    if path.is_symlink() or not path.is_dir() or not FOLDERS.fullmatch(path.name):
        return False
    return all(FILES.fullmatch(entry.name) for entry in path.iterdir())


def remove_leftovers(folder: Path) -> None:
    """
    Delete what a process left that was killed while it wrote or deleted a checkpoint.

    Args:
        folder (`Path`):
            The folder with the checkpoints of a run. It may be missing.
    """
    for path in list(folder.iterdir()) if folder.is_dir() else []:
        if is_own_folder(path) and (path.name.startswith(".") or not (path / STATE_FILE).is_file()):
            remove_folder(path)


def load_checkpoint(path: Path, rank: int = 0) -> TrainingCheckpoint:
    """
    Read a checkpoint.

    Args:
        path (`Path`):
            A folder from [`list_checkpoints`].
        rank (`int`, *optional*, defaults to 0):
            Index of this process. The values of a process are empty where fewer processes wrote the checkpoint.

    Returns:
        [`TrainingCheckpoint`]

    Raises:
        ValueError: the checkpoint has another format, or one of its files is damaged or was edited.
    """
    state = read_state(path)
    check_files(path)
    rank_state = read_rank_state(path, rank) if rank < state["world"] else {}
    del state["files"]
    parts: dict[str, dict[str, torch.Tensor]] = {name: {} for name in state.pop("parts")}
    whole = {name: torch.empty(facts.size, dtype=facts.properties.dtype) for name, facts in list_tensors(path).items()}
    read_into(path, whole, alone=True)
    for name, value in whole.items():
        part, _, inner = name.partition("/")
        parts[part][inner] = value
    return TrainingCheckpoint(state.pop("step"), parts, state, rank_state, state.pop("world"))


def check_files(path: Path, rank: int = 0, world: int = 1) -> None:
    """
    Check that files of tensors are those that were written. Each of several processes checks its share.

    Args:
        path (`Path`):
            A folder from [`list_checkpoints`].
        rank (`int`, *optional*, defaults to 0):
            Index of this process.
        world (`int`, *optional*, defaults to 1):
            Number of processes that check.

    Raises:
        ValueError: a file is missing, damaged, or was edited.
    """
    for name, digest in list(read_state(path)["files"].items())[rank::world]:
        file = path / name
        if not file.is_file():
            raise ValueError(f"The file {file} is missing. {WAY_OUT}")
        if file_hash(file) != digest:
            raise ValueError(f"The file {file} is damaged: it is not what was written. {WAY_OUT}")


def list_tensors(path: Path) -> dict[str, Any]:
    """
    Sizes and types of the tensors of a checkpoint.

    Args:
        path (`Path`):
            A folder from [`list_checkpoints`].

    Returns:
        `dict[str, TensorStorageMetadata]`: by name, `part/name`.

    Raises:
        ValueError: a file is damaged.
    """
    try:
        return list_tensor_facts(path)
    except ValueError as error:
        raise ValueError(f"{error}. {WAY_OUT}") from error


def read_into(path: Path, tensors: Mapping[str, torch.Tensor], alone: bool = False) -> None:
    """
    Read the tensors of a checkpoint into others of the same sizes, sharded or not. All processes call this together.

    Args:
        path (`Path`):
            A folder from [`list_checkpoints`].
        tensors (`Mapping[str, torch.Tensor]`):
            The tensors to fill, by name.
        alone (`bool`, *optional*, defaults to `False`):
            Whether this process reads without the others.

    Raises:
        ValueError: a file is damaged, or has values that are not finite.
    """
    if not tensors:
        return
    try:
        load_tensors(path, tensors, alone)
    except ValueError as error:
        raise ValueError(f"{error}. {WAY_OUT}") from error


def read_state(path: Path) -> dict[str, Any]:
    """
    Read the plain values of a checkpoint that are the same in all processes.

    Args:
        path (`Path`):
            A folder from [`list_checkpoints`].

    Returns:
        `dict[str, Any]`: the values, with `step`, `parts` and `world`, the number of processes that wrote it.

    Raises:
        ValueError: the checkpoint has another format, or its file is damaged or was edited.
    """
    state = _read_json(path / STATE_FILE)
    if state.get("format") != FORMAT:
        raise ValueError(f"Checkpoint {path} must have format {FORMAT}: another version of hf_videovit wrote it")
    _check_seal(path / STATE_FILE, state)
    if path.name.removesuffix(ASIDE) != f"step_{state['step']:08d}":
        raise ValueError(f"Checkpoint {path} is of step {state['step']}: give its folder its name back. {WAY_OUT}")
    return {name: value for name, value in state.items() if name not in (SEAL, "format")}


def read_rank_state(path: Path, rank: int) -> dict[str, Any]:
    """
    Read the plain values of one of the processes that wrote a checkpoint.

    Args:
        path (`Path`):
            A folder from [`list_checkpoints`].
        rank (`int`):
            Index of the process.

    Returns:
        `dict[str, Any]`: the values.

    Raises:
        ValueError: the file is damaged or was edited.
    """
    values = _read_json(path / f"rank_{rank}.json")
    _check_seal(path / f"rank_{rank}.json", values)
    del values[SEAL]
    return values


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """
    Read a state dict.

    Args:
        path (`Path`):
            The safetensors file.

    Returns:
        `dict[str, torch.Tensor]`: the state dict.

    Raises:
        ValueError: the file is missing or damaged, or has values that are not finite.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"The file {path} is damaged: {error}. {WAY_OUT}") from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"The file {path} is damaged: {name} has values that are not finite. {WAY_OUT}")
    return tensors


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"The file {path} is damaged: {error}. {WAY_OUT}") from error
    if not isinstance(values, dict):
        raise ValueError(f"The file {path} is damaged: it has no fields. {WAY_OUT}")
    return values


def _check_seal(path: Path, values: dict[str, Any]) -> None:
    """Raise a ValueError if the values of a file are not those that were written."""
    if values.get(SEAL) != _seal(values):
        raise ValueError(f"The file {path} was edited since it was written. {WAY_OUT}")


def _seal(values: Mapping[str, Any]) -> str:
    """SHA-256 of plain values as they are read from JSON."""
    plain = json.loads(json.dumps({name: value for name, value in values.items() if name != SEAL}))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def list_checkpoints(folder: Path) -> list[Path]:
    """
    List the complete checkpoints of a run.

    Args:
        folder (`Path`):
            The folder with the checkpoints. It may be missing.

    Returns:
        `list[Path]`: folders of the checkpoints, oldest first.
    """
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if re.fullmatch(rf"step_\d+({re.escape(ASIDE)})?", path.name)]
    whole = (path for path in found if (path / STATE_FILE).is_file())
    return sorted(whole, key=lambda path: (path.name.removesuffix(ASIDE), not path.name.endswith(ASIDE)))


def flatten_optimizer(state_dict: Mapping[str, Any]) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """
    Split an optimiser's state dict into tensors for safetensors and plain values for JSON.

    Args:
        state_dict (`Mapping[str, Any]`):
            The result of `optimizer.state_dict()`.

    Returns:
        `tuple[dict[str, torch.Tensor], list[dict]]`: tensors named `index.name`, and the parameter groups.
    """
    tensors = {
        f"{index}.{name}": torch.as_tensor(value)
        for index, values in state_dict["state"].items()
        for name, value in values.items()
    }
    return tensors, [dict(group) for group in state_dict["param_groups"]]


def unflatten_optimizer(tensors: Mapping[str, torch.Tensor], groups: list[dict[str, Any]]) -> dict[str, Any]:
    """
    The inverse of [`flatten_optimizer`].

    Args:
        tensors (`Mapping[str, torch.Tensor]`):
            Tensors named `index.name`.
        groups (`list[dict]`):
            The parameter groups. They may have been written to JSON and read again.

    Returns:
        `dict[str, Any]`: a state dict for `optimizer.load_state_dict`.
    """
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    pairs = [{key: tuple(value) if key == "betas" else value for key, value in group.items()} for group in groups]
    return {"state": state, "param_groups": pairs}


def _write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], facts: dict[str, str] | None = None) -> None:
    """Write a state dict and wait until it is on disk. Raises `OSError` if it cannot be written."""
    try:
        save_file({name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}, path, facts)
    except SafetensorError as error:  # raised for a full disk
        raise OSError(str(error)) from error
    _sync(path)


def replace_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """
    Replace a file with a state dict. The older file stays complete until the new one is on disk.

    Args:
        path (`Path`):
            The safetensors file.
        tensors (`Mapping[str, torch.Tensor]`):
            The state dict.

    Raises:
        OSError: the file cannot be written.
    """
    draft = path.with_name(f".{path.name}.draft")
    _write_tensors(draft, tensors)
    os.replace(draft, path)
    _sync(path.parent)


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write plain values with their hash, and wait until they are on disk."""
    with path.open("w", encoding="utf-8") as file:
        json.dump({**values, SEAL: _seal(values)}, file, indent=2)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    """Wait until a file or folder is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
