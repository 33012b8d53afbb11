"""
Safe and lazy reading of weight files.

Only tensors are read from a pickled file (`weights_only=True`); nothing in it can run. Tensors stay on disk until they
are read one by one, so memory does not grow with the file.
"""

import argparse
import gc
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from transformers.utils import logging


logger = logging.get_logger(__name__)

WRAPPERS = ("model", "module", "state_dict", "model_state")  # in the order of the official loaders
CHOSEN_WRAPPERS = ("model_ema", "ema", "teacher", "student")  # used only if the caller names them
PREFIXES = ("_orig_mod.", "module.", "backbone.", "model.")
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pyth", ".pt", ".bin", ".npz")
# pages of a mapped file count as memory of the process until it is unmapped
REMAP_AFTER_BYTES = 256 * 2**20
READ_BYTES = 2**20
BFLOAT16_IN_NUMPY = np.dtype("V2")  # numpy has no name for it
SHOWN_NAMES = 8


@dataclass
class Checkpoint:
    """
    Weights on disk or in memory.

    Args:
        name (`str`):
            Name in messages.
        shapes (`dict[str, tuple[int, ...]]`):
            Shape of each tensor by its name in the file.
        read (`Callable[[str], torch.Tensor]`):
            Reads one tensor. The result may share memory with a mapped file: copy it before keeping it.
        ignored (`list[str]`, *optional*):
            Other entries of the file: training state, not weights.
        config (`dict[str, Any]`, *optional*):
            `config.json` beside the weights; empty without one.
        file_names (`dict[str, str]`, *optional*):
            Names in the file of tensors that have another name here.
    """

    name: str
    shapes: dict[str, tuple[int, ...]]
    read: Callable[[str], torch.Tensor]
    ignored: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    file_names: dict[str, str] = field(default_factory=dict)

    def in_file(self, name: str) -> str:
        """
        Name of a tensor in the file.

        Args:
            name (`str`):
                One of `shapes`.

        Returns:
            `str`: the name.
        """
        return self.file_names.get(name, name)


def open_checkpoint(
    source: str | os.PathLike | Mapping[str, Any],
    *,
    entry: str | None = None,
    weights: str | None = None,
    preferred: str | None = None,
) -> Checkpoint:
    """
    Open weights without reading them.

    Args:
        source (`str`, `os.PathLike` or `Mapping[str, Any]`):
            A `.pth`, `.pt`, `.bin` or `.safetensors` file, a folder with one (sharded or not), or a loaded dict.
        entry (`str`, *optional*):
            Entry of the file that holds the weights, such as `"model_ema"`. Defaults to the first of `"model"`,
            `"module"`, `"state_dict"` and `"model_state"`, or the dict itself.
        weights (`str`, *optional*):
            File name in a folder with several.
        preferred (`str`, *optional*):
            Entry that comes before these four where the file has it.

    Returns:
        [`Checkpoint`]

    Raises:
        FileNotFoundError: the file or folder does not exist.
        ValueError: `source` is not a path or dict, the file is not a weight file, is damaged, contains anything but
            tensors, or lacks the entry.
    """
    if isinstance(source, Mapping):
        tensors, ignored = _unwrap(source, "the given state dict", entry, preferred)
        return Checkpoint("the given state dict", _shapes(tensors), tensors.__getitem__, ignored)
    if not isinstance(source, str | os.PathLike):
        raise ValueError(f"`checkpoint` must be a path or a dict of tensors, got {type(source).__name__}.")
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(
            f"`checkpoint` {os.fspath(source)!r} does not exist. To get it from the Hub: hf download REPOSITORY."
        )
    if path.is_dir():
        config = _read_json(path / "config.json") if (path / "config.json").is_file() else {}
        checkpoint = _join([_open_file(file, entry, preferred) for file in _weight_files(path, weights)], path)
        checkpoint.config = config
        return checkpoint
    return _open_file(path, entry, preferred)


def _unwrap(
    loaded: Any, name: str, entry: str | None = None, preferred: str | None = None
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """
    State dict inside the content of a file, and the names of the other entries.

    Raises:
        ValueError: the entry does not exist, or there are no tensors, or values that are not tensors.
    """
    ignored: list[str] = []
    if entry is None and isinstance(loaded, Mapping) and isinstance(loaded.get(preferred), Mapping):
        entry = preferred
    if entry is not None:
        if not isinstance(loaded, Mapping) or not isinstance(loaded.get(entry), Mapping):
            found = sorted(map(str, loaded)) if isinstance(loaded, Mapping) else type(loaded).__name__
            raise ValueError(f"`entry` {entry!r} is not in {name}; found {shorten(found)}.")
        ignored = [str(key) for key in loaded if key != entry]
        loaded = loaded[entry]
    while isinstance(loaded, Mapping):
        inner = next((key for key in WRAPPERS if isinstance(loaded.get(key), Mapping)), None)
        if inner is None:
            break
        ignored += [str(key) for key in loaded if key != inner]
        loaded = loaded[inner]
    if not isinstance(loaded, Mapping) or not loaded:
        raise ValueError(f"{name} is {_describe(loaded)}, not a state dict (names and tensors).")
    others = [f"{key} ({_kind(value)})" for key, value in loaded.items() if not _is_weight(key, value)]
    if others:
        chosen = [key for key in CHOSEN_WRAPPERS if isinstance(loaded.get(key), Mapping)]
        hint = (
            f" Pass entry={chosen[0]!r} to use that one." if chosen else f" Weights are expected in one of {WRAPPERS}."
        )
        raise ValueError(f"{name} has entries that are not plain tensors: {shorten(others)}.{hint}")
    return dict(loaded), ignored


def clean_names(names: Iterable[str], prefixes: tuple[str, ...] = PREFIXES) -> dict[str, str]:
    """
    Remove the prefixes that wrappers around a model add to names.

    Args:
        names (`Iterable[str]`):
            Names in the file.
        prefixes (`tuple[str, ...]`, *optional*):
            Prefixes to remove.

    Returns:
        `dict[str, str]`: the name in the file by the clean name.

    Raises:
        ValueError: two names become the same.
    """
    cleaned: dict[str, str] = {}
    for name in names:
        short = name.replace("_orig_mod.", "")  # torch.compile may wrap a part of the model
        while short.startswith(prefixes):
            short = next(short.removeprefix(prefix) for prefix in prefixes if short.startswith(prefix))
        if short in cleaned:
            raise ValueError(f"The checkpoint has {short!r} twice, as {cleaned[short]!r} and as {name!r}.")
        cleaned[short] = name
    return cleaned


def _open_file(path: Path, entry: str | None, preferred: str | None) -> Checkpoint:
    head = _refuse_what_is_no_weight_file(path)
    if head.startswith(b"PK") and path.suffix == ".safetensors":
        raise ValueError(f"{path.name} is a file of torch.save with another suffix; rename it to .pth.")
    if path.suffix == ".npz":
        if entry is not None:
            raise ValueError(f"`entry` {entry!r} is not supported for {path.name}: .npz files have no entries.")
        return _open_arrays(path)
    # by content, because files get renamed: a JSON header follows the eight bytes of its length
    if head[8:9] == b"{" or path.suffix == ".safetensors":
        if entry is not None:
            raise ValueError(f"`entry` {entry!r} is not supported for {path.name}: safetensors files have no entries.")
        return _open_safetensors(path)
    return _open_pickled(path, entry, preferred)


def _refuse_what_is_no_weight_file(path: Path) -> bytes:
    """First bytes of a file. ValueError if it cannot be a weight file."""
    with path.open("rb") as file:
        head = file.read(256)
    text = head.lstrip().lower()
    if not head:
        raise ValueError(f"{path.name} is empty.")
    if text.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path.name} is a Git LFS pointer, not the weights. Run `git lfs pull` or `hf download`.")
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise ValueError(
            f"{path.name} is a web page, not weights: the download led to a log-in or error page. Download it again."
        )
    if head.startswith(b"PK") and not zipfile.is_zipfile(path):
        raise ValueError(f"{path.name} is cut off after {path.stat().st_size:,} bytes. Download it again.")
    return head


def _open_safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f"{path.name} ({path.stat().st_size:,} bytes) is not a complete safetensors file ({error}). Download it "
            "again."
        ) from error

    def read(name: str) -> torch.Tensor:
        with safe_open(path, framework="pt") as file:  # opened for each tensor, so that no mapping grows
            return file.get_tensor(name)

    return Checkpoint(path.name, shapes, read)


def _open_arrays(path: Path) -> Checkpoint:
    """Open numpy's archive of arrays (Flax models). ValueError for arrays of Python objects, which are pickled."""
    try:
        with np.load(path) as archive:
            shapes = {name: tuple(_array(archive, name).shape) for name in archive.files}
    except (ValueError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path.name} cannot be read as numpy arrays ({type(error).__name__}: {error}).") from error
    if not shapes:
        raise ValueError(f"{path.name} has no arrays.")

    def read(name: str) -> torch.Tensor:
        with np.load(path) as archive:
            return _tensor(_array(archive, name))

    return Checkpoint(path.name, shapes, read)


def _array(archive: Any, name: str) -> np.ndarray:
    array = archive[name]
    if array.dtype.kind not in "fiubV" or array.dtype.kind == "V" and array.dtype != BFLOAT16_IN_NUMPY:
        raise ValueError(f"{name} is of type {array.dtype}")
    return array


def _tensor(array: np.ndarray) -> torch.Tensor:
    if array.dtype == BFLOAT16_IN_NUMPY:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _open_pickled(path: Path, entry: str | None, preferred: str | None) -> Checkpoint:
    mapped = zipfile.is_zipfile(path)
    if mapped:
        _refuse_wrong_checksums(path)
    tensors, ignored = _unwrap(_load_tensors(path, mapped), path.name, entry, preferred)
    shapes, held, touched = _shapes(tensors), {"tensors": tensors}, {"bytes": 0}

    def read(name: str) -> torch.Tensor:
        if mapped and touched["bytes"] > REMAP_AFTER_BYTES:
            held.clear()
            gc.collect()  # torch's reader leaves cycles that would keep the old mapping
            held["tensors"], touched["bytes"] = _unwrap(_load_tensors(path, mapped), path.name, entry, preferred)[0], 0
        tensor = held["tensors"][name]
        touched["bytes"] += tensor.nbytes
        return tensor

    return Checkpoint(path.name, shapes, read, ignored)


def _refuse_wrong_checksums(path: Path) -> None:
    """ValueError for a damaged file. torch does not check checksums, so its model would run but be wrong."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        damaged = [member.filename for member in members if not _is_whole(archive, member)]
    # torch can write files without checksums (`set_crc32_options`); then every one is wrong
    if damaged and len(damaged) < len(members):
        raise ValueError(f"{path.name} is damaged: the checksum of {shorten(damaged)} is wrong. Download it again.")


def _is_whole(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    try:
        with archive.open(member) as file:
            while file.read(READ_BYTES):
                pass
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError):
        return False
    return True


def _load_tensors(path: Path, mapped: bool) -> Any:
    major, minor = (int(part) for part in torch.__version__.split(".")[:2])
    if (major, minor) < (2, 6):
        raise ValueError(
            f"torch {torch.__version__} can be made to run code from a weight file (CVE-2025-32434); use torch>=2.6."
        )
    try:
        # official training scripts save `args` as a Namespace, which runs no code when it is rebuilt
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, weights_only=True, mmap=mapped, map_location="cpu")
    except Exception as error:  # an arbitrary file can raise any error
        raise ValueError(_unreadable(path, mapped, error)) from error


def _unreadable(path: Path, mapped: bool, error: Exception) -> str:
    unsafe: list[str] = []
    if mapped:
        try:
            unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        except Exception:  # not a file of torch.save: report the first error
            logger.debug("no list of pickled objects in %s", path.name)
    unsafe = sorted(name for name in unsafe if name != "argparse.Namespace")
    # torch's own text recommends weights_only=False, so only the line that names the object is passed on
    named = [line for line in str(error).split("\n") if "GLOBAL" in line or "Unsupported class" in line]
    if unsafe or named:
        found = shorten(unsafe) if unsafe else named[-1].split("WeightsUnpickler error:")[-1].strip()
        return (
            f"{path.name} contains pickled objects besides tensors ({found}). It is not read, because unpickling them "
            "could run code. If you trust the file, load it in the environment that wrote it and save only the "
            'tensors: torch.save(checkpoint["model"], path), or safetensors.torch.save_file.'
        )
    return f"{path.name} cannot be read as weights: it is damaged or not from torch.save ({type(error).__name__})."


def _weight_files(folder: Path, weights: str | None) -> list[Path]:
    if weights is not None:
        if not (folder / weights).is_file():
            raise ValueError(f"`weights` {weights!r} is not in {folder.name}; found {_listing(folder)}.")
        return [folder / weights]
    for index in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        if (folder / index).is_file():
            return _shards(folder, index)
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return [folder / name]
    candidates = [file for file in sorted(folder.iterdir()) if file.suffix in WEIGHT_SUFFIXES]
    if len(candidates) != 1:
        raise ValueError(
            f"`checkpoint` {folder.name} is a folder with {len(candidates)} weight files; found {_listing(folder)}. "
            "Pass the path of one file."
        )
    return candidates


def _shards(folder: Path, index: str) -> list[Path]:
    names = sorted(set(_read_json(folder / index).get("weight_map", {}).values()))
    missing = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
    if missing or not names:
        raise ValueError(f"{index} names shards that are not in the folder: {shorten(missing)}.")
    return [folder / name for name in names]


def _join(parts: list[Checkpoint], folder: Path) -> Checkpoint:
    if len(parts) == 1:
        return parts[0]
    owners = {name: part for part in parts for name in part.shapes}
    if len(owners) != sum(len(part.shapes) for part in parts):
        raise ValueError(f"Two shards of {folder.name} contain the same tensor.")
    shapes = {name: part.shapes[name] for name, part in owners.items()}
    return Checkpoint(folder.name, shapes, lambda name: owners[name].read(name))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path.name} is not JSON ({error}).") from error


def _shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _is_weight(name: Any, value: Any) -> bool:
    plain = torch.is_tensor(value) and value.layout == torch.strided and not (value.is_meta or value.is_quantized)
    return plain and isinstance(name, str)


def _kind(value: Any) -> str:
    if not torch.is_tensor(value):
        return type(value).__name__
    return f"{value.dtype} tensor, {value.layout}, on {value.device}"


def _describe(loaded: Any) -> str:
    return "an empty dict" if isinstance(loaded, Mapping) else f"an object of type {type(loaded).__name__}"


def _listing(folder: Path) -> str:
    return shorten(sorted(file.name for file in folder.iterdir()))


def shorten(names: Any) -> str:
    """
    Join names for a message.

    Args:
        names (`str` or `Iterable[str]`):
            The names.

    Returns:
        `str`: up to eight names, and the number of the others.
    """
    if isinstance(names, str):
        return names
    names = list(names)
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return (", ".join(names[:SHOWN_NAMES]) or "nothing") + more
