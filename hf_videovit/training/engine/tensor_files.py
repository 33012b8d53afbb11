"""
Storage of `torch.distributed.checkpoint` in safetensors. Its own file formats are pickled, or differ between the
versions of torch.

Each process writes one file for each part of the state. The header of a file holds the place of each tensor in the
whole one, so that any number of processes can read it.
"""

import concurrent.futures
import itertools
import json
import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import distributed
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint import Metadata, StorageReader, StorageWriter
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import WriteResult
from torch.distributed.tensor import DTensor
from torch.futures import Future

from ...folders import file_hash


FILE_NAMES = r"(task|optimizer|ema)(\.\d+)?\.safetensors"
PLACES = "places"  # field of a header: size of each whole tensor, and where the stored one begins in it


def file_name(part: str, rank: int) -> str:
    """
    Name of a file of tensors.

    Args:
        part (`str`):
            The part of the state.
        rank (`int`):
            Index of the process that writes it.

    Returns:
        `str`
    """
    return f"{part}.{rank}.safetensors" if rank else f"{part}.safetensors"


class _TensorWriter(StorageWriter):
    """
    Writes the tensors of this process.

    Args:
        folder (`Path`):
            An existing folder.
        rank (`int`):
            Index of this process.
        write (`Callable[[Path, dict, dict], None]`):
            Writes tensors and facts to a file.
        digests (`dict[str, str]`):
            Takes the SHA-256 of each file, of all processes, in the first process.
    """

    def __init__(
        self,
        folder: Path,
        rank: int,
        write: Callable[[Path, Mapping[str, torch.Tensor], dict[str, str]], None],
        digests: dict[str, str],
    ):
        self.folder, self.rank, self.write, self.digests = folder, rank, write, digests

    def reset(self, checkpoint_id: Any = None) -> None:
        """Nothing to do."""

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Nothing to do."""

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """The plan as it is."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """The plans as they are."""
        return plans

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> "Future[list[WriteResult]]":
        """Write what the plan gives to this process."""
        tensors: dict[str, dict[str, torch.Tensor]] = defaultdict(dict)
        places: dict[str, dict[str, Any]] = defaultdict(dict)
        indices: dict[str, list[MetadataIndex]] = defaultdict(list)
        results = []
        for item in plan.items:
            if item.tensor_data is None:
                raise ValueError(f"{item.index.fqn} is no tensor")
            part, _, name = item.index.fqn.partition("/")
            tensors[part][name] = cast(torch.Tensor, planner.resolve_data(item))
            places[part][name] = [list(item.tensor_data.size), list(item.tensor_data.chunk.offsets)]
            indices[part].append(item.index)
        for part, values in tensors.items():
            path = self.folder / file_name(part, self.rank)
            self.write(path, values, {PLACES: json.dumps(places[part])})
            stored = {path.name: file_hash(path)}
            results += [WriteResult(index, path.stat().st_size, stored) for index in indices[part]]
        done: Future[list[WriteResult]] = Future()
        done.set_result(results)
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Collect the hashes. Headers hold what else readers need."""
        for result in itertools.chain.from_iterable(results):
            self.digests.update(result.storage_data)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        """Whether a name can be one of a checkpoint."""
        return True


class _TensorReader(StorageReader):
    """
    Reads tensors, or parts of them, from the files of all processes.

    Args:
        folder (`Path`):
            The folder.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.metadata: Metadata | None = None

    def reset(self, checkpoint_id: Any = None) -> None:
        """Nothing to do."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """
        Sizes and places of all tensors.

        Returns:
            `Metadata`

        Raises:
            ValueError: a file is damaged.
        """
        found: dict[str, Any] = {}
        files: dict[MetadataIndex, str] = {}
        for path in sorted(self.folder.iterdir()):
            if re.fullmatch(FILE_NAMES, path.name) is None:
                continue
            for name, (size, offset, shape, dtype) in _header(path).items():
                key = f"{path.name.partition('.')[0]}/{name}"
                facts = found.setdefault(
                    key, TensorStorageMetadata(TensorProperties(dtype=dtype), torch.Size(size), [])
                )
                facts.chunks.append(ChunkStorageMetadata(torch.Size(offset), torch.Size(shape)))
                files[MetadataIndex(key, offset)] = path.name
        self.metadata = Metadata(found, storage_data=files)
        return self.metadata

    def files_of(self, name: str) -> set[str]:
        """
        The files with parts of a tensor.

        Args:
            name (`str`):
                The tensor, `part/name`.

        Returns:
            `set[str]`: their names.
        """
        metadata = self.metadata or self.read_metadata()
        return {file for index, file in metadata.storage_data.items() if index.fqn == name}

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Keep what [`~_TensorReader.read_metadata`] found."""
        self.metadata = metadata

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """The plan as it is."""
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """The plans as they are."""
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> "Future[None]":
        """Read what the plan gives to this process."""
        assert self.metadata is not None
        by_file = defaultdict(list)
        for item in plan.items:
            by_file[self.metadata.storage_data[item.storage_index]].append(item)
        for name, items in by_file.items():
            with safe_open(self.folder / name, "pt") as file:
                for item in items:
                    place = zip(item.storage_offsets, item.lengths)
                    stored = file.get_slice(item.storage_index.fqn.partition("/")[2])
                    target = planner.resolve_tensor(item).detach()
                    target.copy_(stored[tuple(slice(first, first + length) for first, length in place)])
                    planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        """Whether a name can be one of a checkpoint."""
        return True


def _header(path: Path) -> dict[str, tuple[list[int], list[int], list[int], torch.dtype]]:
    """Size of the whole, offset, shape and type of each tensor of a file."""
    try:
        with safe_open(path, "pt") as file:
            places = json.loads((file.metadata() or {})[PLACES])
            if places.keys() != set(file.keys()):
                raise KeyError("the header names other tensors")
            return {name: (*place, *_shape_and_type(file, name)) for name, place in places.items()}
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ValueError(f"The file {path} is damaged: {error}") from error


def _shape_and_type(file: Any, name: str) -> tuple[list[int], torch.dtype]:
    stored = file.get_slice(name)
    return stored.get_shape(), TYPES[stored.get_dtype()]


TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def save_tensors(
    folder: Path,
    tensors: dict[str, torch.Tensor],
    rank: int,
    write: Callable[[Path, Mapping[str, torch.Tensor], dict[str, str]], None],
    digests: dict[str, str],
    group: "distributed.ProcessGroup | None" = None,
) -> "concurrent.futures.Future[Any]":
    """
    Copy tensors, and write them in a thread. All processes call this together.

    Args:
        folder (`Path`):
            An existing folder.
        tensors (`dict[str, torch.Tensor]`):
            The tensors of this process, by name, `part/name`.
        rank (`int`):
            Index of this process.
        write (`Callable[[Path, dict, dict], None]`):
            Writes tensors and facts to a file.
        digests (`dict[str, str]`):
            Takes the SHA-256 of each file by name, in the first process.
        group (`ProcessGroup`, *optional*):
            Processes that communicate over the CPU, used by nothing else.

    Returns:
        `Future`: done when all processes have written.
    """
    _expect_one_process()
    writer = _TensorWriter(folder, rank, write, digests)
    return cast(Any, dcp.async_save(tensors, storage_writer=writer, process_group=group))


def list_tensor_facts(folder: Path) -> dict[str, Any]:
    """
    Sizes and types of the tensors in a folder.

    Args:
        folder (`Path`):
            The folder.

    Returns:
        `dict[str, TensorStorageMetadata]`: by name, `part/name`.

    Raises:
        ValueError: a file is damaged.
    """
    return dict(_TensorReader(folder).read_metadata().state_dict_metadata)


def load_tensors(folder: Path, tensors: Mapping[str, torch.Tensor], alone: bool = False) -> None:
    """
    Read tensors into others of the same sizes, sharded or not. All processes call this together.

    Args:
        folder (`Path`):
            The folder.
        tensors (`Mapping[str, torch.Tensor]`):
            The tensors to fill, by name.
        alone (`bool`, *optional*, defaults to `False`):
            Whether this process reads without the others.

    Raises:
        ValueError: a file is damaged, or has values that are not finite.
    """
    _expect_one_process()
    reader = _TensorReader(folder)
    try:
        dcp.load(dict(tensors), storage_reader=reader, no_dist=alone or not distributed.is_initialized())
    except CheckpointException as error:
        raise ValueError(str(cause_of(error))) from error
    for name, value in tensors.items():
        local = value.to_local() if isinstance(value, DTensor) else value
        if local.is_floating_point() and not local.isfinite().all():
            files = ", ".join(sorted(str(folder / file) for file in reader.files_of(name)))
            inner = name.partition("/")[2]
            raise ValueError(f"The file {files} is damaged: {inner} has values that are not finite")


def _expect_one_process() -> None:
    """Do not warn that torch runs without a group where there is one process."""
    warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)


def cause_of(error: BaseException) -> BaseException:
    """
    The error of a process, out of the one that `torch.distributed.checkpoint` raises in all of them.

    Args:
        error (`BaseException`):
            Any error.

    Returns:
        `BaseException`: the first process's error, or the error itself.
    """
    if isinstance(error, CheckpointException) and error.failures:
        failure = error.failures[min(error.failures)]
        return failure[0] if isinstance(failure, tuple) else failure
    return error
