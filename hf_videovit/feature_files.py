"""
Features of videos on disk: a file for each video, with a description of how they were made and a list of the videos.

Nothing is unpickled.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from .files import visible_files


FEATURE_SUFFIXES = (".npy", ".safetensors", ".pt", ".pth")
PICKLE_SUFFIXES = (".pkl", ".pickle")
UNPICKLE = ". A pickle may run code: convert it to .npy or .safetensors with a program that you trust"
DESCRIPTION_FILE = "features.json"
MANIFEST_FILE = "manifest.jsonl"
TENSOR_NAME = "features"
# What must agree between the features that a localiser was trained on and those that it is given.
DECISIVE = ("weights", "feature_size", "window", "stride", "fps", "pooling", "frames", "normalized")


@dataclass(frozen=True)
class FeatureFile:
    """
    The features of one video.

    Args:
        path (`Path`):
            The file.
        tensor (`str`, *optional*):
            Name of the tensor in a file with those of several videos.
    """

    path: Path
    tensor: str | None = None

    def read(self) -> torch.Tensor:
        """
        Read the features.

        Returns:
            `torch.Tensor` of shape `(num_features, feature_size)`: in the type that is stored.

        Raises:
            ValueError: the file is damaged, needs unpickling, or does not hold one matrix of numbers.
        """
        try:
            found = self._content()
        except (OSError, EOFError, RuntimeError, SafetensorError) as error:
            raise ValueError(f"Features {self.path} cannot be read: {error}") from error
        except Exception as error:  # numpy and torch raise many kinds for damaged files and for pickles
            reason = str(error).partition("\n")[0]
            if not re.search("pickle|Python objects|Weights only", reason):
                raise ValueError(f"Features {self.path} cannot be read: {reason}") from error
            raise ValueError(
                f"Features {self.path} cannot be read without unpickling, which may run code of the file. Convert "
                "them to .npy or .safetensors with a program that you trust."
            ) from error
        if found.ndim == 3 and len(found) == 1:
            found = found[0]
        if found.ndim != 2:
            raise ValueError(
                f"Features {self.path} must have shape (num_features, feature_size), got {tuple(found.shape)}"
            )
        return found

    def shape(self) -> tuple[int, int]:
        """
        Number and size of the features.

        Returns:
            `tuple[int, int]`

        Raises:
            ValueError: the file cannot be read, see [`~FeatureFile.read`].
        """
        if self.path.suffix.lower() == ".npy":
            try:
                shape = np.load(self.path, mmap_mode="r", allow_pickle=False).shape[-2:]
            except (OSError, ValueError, EOFError) as error:
                raise ValueError(f"Features {self.path} cannot be read: {error}") from error
            if len(shape) == 2:
                return int(shape[0]), int(shape[1])
        count, size = self.read().shape
        return count, size

    def _content(self) -> torch.Tensor:
        suffix = self.path.suffix.lower()
        if suffix == ".npy":
            return torch.from_numpy(np.array(np.load(self.path, mmap_mode="r", allow_pickle=False)))
        if suffix == ".safetensors":
            with safe_open(self.path, "pt") as file:
                return file.get_tensor(self._name(list(file.keys())))
        content = torch.load(self.path, map_location="cpu", weights_only=True)
        if isinstance(content, Mapping):
            content = content[self._name(list(content))]
        return torch.as_tensor(content)

    def _name(self, names: list[Any]) -> Any:
        wanted = self.tensor or (names[0] if len(names) == 1 else TENSOR_NAME)
        if wanted not in names:
            raise RuntimeError(f"it holds {', '.join(map(str, names[:8]))}, not {wanted!r}")
        return wanted


@dataclass
class FeatureFolder:
    """
    The features of several videos.

    Args:
        path (`Path`):
            Folder, or safetensors file.
        files (`dict[str, FeatureFile]`):
            Features by name of the video.
        description (`dict`, *optional*):
            How they were made, from `features.json`: see [`describe_features`].
        videos (`dict[str, dict]`, *optional*, defaults to `{}`):
            What `manifest.jsonl` says about each video: `fps`, `duration`, `frames`.
    """

    path: Path
    files: dict[str, FeatureFile]
    description: dict[str, Any] | None = None
    videos: dict[str, dict[str, Any]] = field(default_factory=dict)

    def find(self, video: str, form: str = "{video}") -> FeatureFile | None:
        """
        The features of a video.

        Args:
            video (`str`):
                Its name in the annotations.
            form (`str`, *optional*, defaults to `"{video}"`):
                How files are named after it, such as `"v_{video}"`.

        Returns:
            [`FeatureFile`] or `None`
        """
        return self.files.get(form.format(video=video))


def describe_features(
    *,
    encoder: str,
    revision: str | None,
    weights: str,
    feature_size: int,
    window: int,
    stride: int,
    pooling: str,
    squash: bool,
    frame_size: tuple[int, int],
    normalized: bool,
    dtype: str,
    fps: float | None = None,
) -> dict[str, Any]:
    """
    The description of features that a localiser keeps.

    Args:
        encoder (`str`):
            Name of the encoder's checkpoint, without its folder.
        revision (`str` or `None`):
            Revision of the checkpoint on a Hub.
        weights (`str`):
            Hash of the encoder's weights: the same encoder under any name.
        feature_size (`int`):
            Channels of a feature.
        window (`int`):
            Frames of a window.
        stride (`int`):
            Frames from one window to the next.
        pooling (`str`):
            How tokens become one vector.
        squash (`bool`):
            Whether frames are resized without keeping their form; cropped otherwise.
        frame_size (`tuple[int, int]`):
            Height and width of the encoder's frames.
        normalized (`bool`):
            Whether pixels have the encoder's mean and deviation; in [0, 1] otherwise.
        dtype (`str`):
            Type in which they are stored.
        fps (`float`, *optional*):
            Frame rate to which videos were resampled; `None` for their own.

    Returns:
        `dict[str, Any]`: plain values.
    """
    height, width = frame_size
    return {
        "encoder": encoder,
        "revision": revision,
        "weights": weights,
        "feature_size": feature_size,
        "window": window,
        "stride": stride,
        "fps": fps,
        "pooling": pooling,
        "frames": f"{'squashed' if squash else 'cropped'} to {height} x {width}",
        "normalized": normalized,
        "dtype": dtype,
    }


def check_description(expected: Mapping[str, Any] | None, found: Mapping[str, Any] | None, where: str) -> None:
    """
    Refuse features that were made in another way than those of the training.

    Args:
        expected (`Mapping` or `None`):
            Description that the localiser keeps (`feature_description`).
        found (`Mapping` or `None`):
            That of the features.
        where (`str`):
            Name of the features, for the message.

    Raises:
        ValueError: a decisive field differs. Fields that either lacks are not compared.
    """
    if not expected or not found:
        return
    named = () if {"weights"} <= expected.keys() & found.keys() else ("encoder",)
    for name in (*named, *DECISIVE):
        if name in expected and name in found and expected[name] != found[name]:
            raise ValueError(
                f"{where} has features with `{name}` {found[name]!r}, but the localiser was trained on `{name}` "
                f"{expected[name]!r}: make them in the same way, or train a localiser on these"
            )


def open_features(path: str | os.PathLike) -> FeatureFolder:
    """
    Find the features of several videos.

    Args:
        path (`str` or `os.PathLike`):
            A folder with a file for each video (`VIDEO.npy`, `.safetensors`, `.pt`), or one safetensors file with a
            tensor for each.

    Returns:
        [`FeatureFolder`]

    Raises:
        ValueError: there is no such folder or file, it has no features, or two files are of one video.
    """
    path = Path(path).expanduser()
    if path.is_file() and path.suffix.lower() == ".safetensors":
        try:
            with safe_open(path, "pt") as file:
                names, metadata = list(file.keys()), file.metadata() or {}
        except (OSError, SafetensorError) as error:
            raise ValueError(f"Features {path} cannot be read: {error}") from error
        description = json.loads(metadata["description"]) if "description" in metadata else None
        return FeatureFolder(path, {name: FeatureFile(path, name) for name in names}, description)
    if not path.is_dir():
        advice = UNPICKLE if path.suffix.lower() in PICKLE_SUFFIXES else ""
        raise ValueError(f"`features` must be a folder or a .safetensors file, {str(path)!r} is neither{advice}")
    files: dict[str, FeatureFile] = {}
    for file in visible_files(path):
        if file.suffix.lower() in FEATURE_SUFFIXES:
            name = file.relative_to(path).with_suffix("").as_posix()
            if name in files:
                raise ValueError(f"{files[name].path} and {file} are both features of {name!r}: keep one of them")
            files[name] = FeatureFile(file)
    if not files:
        advice = UNPICKLE if any(file.suffix.lower() in PICKLE_SUFFIXES for file in visible_files(path)) else ""
        raise ValueError(f"`features` {str(path)!r} has no files of features ({', '.join(FEATURE_SUFFIXES)}){advice}")
    return FeatureFolder(path, files, read_description(path), {row["video"]: row for row in read_manifest(path)})


def read_description(folder: Path) -> dict[str, Any] | None:
    """
    How the features of a folder were made.

    Args:
        folder (`Path`):
            The folder.

    Returns:
        `dict[str, Any]` or `None`: see [`describe_features`]; `None` if the folder does not say.

    Raises:
        ValueError: its `features.json` is damaged.
    """
    path = folder / DESCRIPTION_FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a mapping, got {type(content).__name__}")
    return content


def read_manifest(folder: Path) -> Iterator[dict[str, Any]]:
    """
    The videos whose features a folder holds.

    Args:
        folder (`Path`):
            The folder.

    Yields:
        `dict[str, Any]`: the last line of each video. A line that was cut off by a crash is left out.
    """
    path, rows = folder / MANIFEST_FILE, {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "video" in row:
            rows[row["video"]] = row
    yield from rows.values()


__all__ = [
    "DESCRIPTION_FILE",
    "FEATURE_SUFFIXES",
    "MANIFEST_FILE",
    "FeatureFile",
    "FeatureFolder",
    "check_description",
    "describe_features",
    "open_features",
    "read_description",
    "read_manifest",
]
