"""
Features of the windows of many videos in a folder, for temporal localisation: a file for each video, a description of
how they were made, and a list of the videos with their frame rates and durations. A stopped run continues.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from ..feature_files import (
    DESCRIPTION_FILE,
    MANIFEST_FILE,
    describe_features,
    read_description,
    read_manifest,
)
from ..folders import held_folder, refuse_existing, shorten, write_text
from ..modeling.video_decoding import VideoDecodingError, probe_video
from ..modeling.video_processing_base import ClipVideoProcessor
from ..video_files import video_size
from .features import POOLINGS, feature_files, iter_video_features


DTYPES = {"float32": np.float32, "float16": np.float16}
SAMPLED = 64  # values of each tensor that the hash of the weights reads


@dataclass(frozen=True)
class FeatureSettings:
    """
    How features are made.

    Args:
        window (`int`):
            Frames of a window.
        stride (`int`):
            Frames from one window to the next.
        squash (`bool`, *optional*, defaults to `False`):
            See [`get_video_features`].
        pooling (`str`, *optional*, defaults to `"default"`):
            `"default"`, `"mean"` or `"first"`, see [`get_video_features`].
        dtype (`str`, *optional*, defaults to `"float32"`):
            Type in which they are stored: `"float32"` or `"float16"`.

    Raises:
        ValueError: a value is not allowed.
    """

    window: int
    stride: int
    squash: bool = False
    pooling: str = "default"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name in ("window", "stride"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if self.dtype not in DTYPES:
            raise ValueError(f"`dtype` must be one of {', '.join(DTYPES)}, got {self.dtype!r}.")
        if self.pooling not in POOLINGS or self.pooling == "tokens":
            raise ValueError(f"`pooling` of windows must be default, mean or first, got {self.pooling!r}.")

    def count(self, num_frames: int) -> int:
        """
        Windows of a video.

        Args:
            num_frames (`int`):
                Its frames.

        Returns:
            `int`: 0 for a video shorter than a window.
        """
        return max(0, (num_frames - self.window) // self.stride + 1)


@dataclass(frozen=True)
class FeaturePlan:
    """
    The cost of a set of features, stated before it is made.

    Args:
        rows (`list[dict]`):
            What is known about each video: `video`, `file`, `frames`, `fps`, `duration`, `windows`; or `error`.
        kept (`list[dict]`):
            Rows of the manifest whose features exist already.
        feature_size (`int`):
            Channels.
        bytes_per_number (`int`):
            Bytes of a stored number.
        seconds_per_window (`float`, *optional*):
            Of the encoder on this machine, if it was measured.
    """

    rows: list[dict[str, Any]]
    kept: list[dict[str, Any]]
    feature_size: int
    bytes_per_number: int
    seconds_per_window: float | None = None

    @property
    def num_windows(self) -> int:
        """Windows that are still to be encoded."""
        return sum(row.get("windows", 0) for row in self.rows)

    @property
    def num_bytes(self) -> int:
        """Bytes of the features that are still to be stored."""
        return self.num_windows * self.feature_size * self.bytes_per_number

    def __str__(self) -> str:
        text = f"{len(self.rows)} videos, {self.num_windows:,} windows, {self.num_bytes / 1e6:,.1f} MB of features"
        if self.seconds_per_window:
            text += f", about {_duration(self.num_windows * self.seconds_per_window)} of encoding on this device"
        return text + (f"; {len(self.kept)} videos have features already" if self.kept else "")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def weights_hash(model: PreTrainedModel) -> str:
    """
    Hash of an encoder's weights, from some numbers of each tensor.

    Args:
        model (`PreTrainedModel`):
            A model; its encoder is read.

    Returns:
        `str`: 16 hexadecimal digits, the same for the same encoder with any head and under any name.
    """
    encoder: Any = model.base_model
    digest = hashlib.sha256()
    for name, value in sorted(encoder.state_dict().items()):
        flat = value.detach().flatten()
        places = torch.linspace(0, max(len(flat) - 1, 0), SAMPLED).long().unique().to(flat.device)
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(flat[places].float().cpu().numpy().tobytes() if len(flat) else b"")
    return digest.hexdigest()[:16]


def describe_encoder(
    model: PreTrainedModel, processor: ClipVideoProcessor, settings: FeatureSettings, name: str
) -> dict[str, Any]:
    """
    The description that is stored with the features, see [`describe_features`].

    Args:
        model (`PreTrainedModel`):
            The encoder.
        processor ([`ClipVideoProcessor`]):
            Its processor.
        settings ([`FeatureSettings`]):
            How features are made.
        name (`str`):
            Folder or Hub id of the checkpoint.

    Returns:
        `dict[str, Any]`
    """
    return describe_features(
        encoder=name if not Path(name).exists() else Path(name).resolve().name,
        revision=getattr(model.config, "_commit_hash", None),
        weights=weights_hash(model),
        feature_size=model.config.hidden_size,
        window=settings.window,
        stride=settings.stride,
        pooling=settings.pooling,
        squash=settings.squash,
        frame_size=_frame_size(processor),
        normalized=not settings.squash,
        dtype=settings.dtype,
    )


def _frame_size(processor: ClipVideoProcessor) -> tuple[int, int]:
    """Height and width of the encoder's frames; of square ones where frames are not cropped."""
    size: Any = processor.crop_size if processor.do_center_crop else processor.size
    side = size.get("shortest_edge")
    return size.get("height", side), size.get("width", side)


def plan_features(
    model: PreTrainedModel,
    processor: ClipVideoProcessor,
    files: Sequence[str],
    folder: str | os.PathLike,
    settings: FeatureSettings,
    *,
    batch_size: int = 1,
    measure: bool = True,
) -> FeaturePlan:
    """
    Count the windows of videos and the features that exist, and measure the encoder. Nothing is written.

    Args:
        model (`PreTrainedModel`):
            The encoder, on the device to use.
        processor ([`ClipVideoProcessor`]):
            Its processor.
        files (`Sequence[str]`):
            The videos.
        folder (`str` or `os.PathLike`):
            Folder of the features.
        settings ([`FeatureSettings`]):
            How features are made.
        batch_size (`int`, *optional*, defaults to 1):
            Windows in a forward pass.
        measure (`bool`, *optional*, defaults to `True`):
            Whether to time a forward pass.

    Returns:
        [`FeaturePlan`]

    Raises:
        ValueError: two videos would share a file.
    """
    folder = Path(folder)
    targets = feature_files(files, folder)
    listed = {row["video"]: row for row in read_manifest(folder)}
    rows, kept = [], []
    for file, target in zip(files, targets):
        known = listed.get(target.stem)
        if known is not None and "error" not in known and target.is_file() and known.get("bytes") == video_size(file):
            kept.append(known)
            continue
        rows.append({"video": target.stem, "file": file, "bytes": video_size(file), **_facts(file, settings)})
    seconds = None
    if measure and sum(row.get("windows", 0) for row in rows):
        seconds = seconds_per_window(model, processor, settings, batch_size)
    width = np.dtype(DTYPES[settings.dtype]).itemsize
    return FeaturePlan(rows, kept, model.config.hidden_size, width, seconds)


def _facts(file: str, settings: FeatureSettings) -> dict[str, Any]:
    try:
        probe = probe_video(file)
    except VideoDecodingError as error:
        return {"error": str(error)}
    facts = {"frames": probe.num_frames, "fps": probe.fps, "duration": probe.duration}
    return facts | {"windows": settings.count(probe.num_frames)}


@torch.no_grad()
def seconds_per_window(
    model: PreTrainedModel, processor: ClipVideoProcessor, settings: FeatureSettings, batch_size: int = 1
) -> float:
    """
    Time of the encoder for a window, from the second of two forward passes on a GPU and from one elsewhere.

    Args:
        model (`PreTrainedModel`):
            The encoder.
        processor ([`ClipVideoProcessor`]):
            Its processor.
        settings ([`FeatureSettings`]):
            How features are made.
        batch_size (`int`, *optional*, defaults to 1):
            Windows in a forward pass.

    Returns:
        `float`: seconds.
    """
    encoder: Any = model.base_model
    height, width = _frame_size(processor)
    clips = torch.zeros(batch_size, settings.window, 3, height, width, device=encoder.device)
    on_gpu = encoder.device.type == "cuda"
    started = time.perf_counter()
    for _ in range(2 if on_gpu else 1):
        started = time.perf_counter()
        encoder(pixel_values=clips)
        if on_gpu:
            torch.cuda.synchronize()
    return (time.perf_counter() - started) / batch_size


def make_features(
    model: PreTrainedModel,
    processor: ClipVideoProcessor,
    plan: FeaturePlan,
    folder: str | os.PathLike,
    settings: FeatureSettings,
    *,
    name: str,
    batch_size: int = 1,
) -> Iterator[dict[str, Any]]:
    """
    Make the features of a plan. Each video is written when it is done, so a run that is stopped continues with the
    next one.

    Args:
        model (`PreTrainedModel`):
            The encoder, on the device to use.
        processor ([`ClipVideoProcessor`]):
            Its processor.
        plan ([`FeaturePlan`]):
            From [`plan_features`] with the same settings.
        folder (`str` or `os.PathLike`):
            Receives `VIDEO.npy`, `features.json` and `manifest.jsonl`.
        settings ([`FeatureSettings`]):
            How features are made.
        name (`str`):
            Folder or Hub id of the encoder, for the description.
        batch_size (`int`, *optional*, defaults to 1):
            Windows in a forward pass, of several videos where they are short.

    Yields:
        `dict[str, Any]`: the row of the manifest of each video: `video`, `file`, `frames`, `fps`, `duration` and
        `windows`; or `error`.

    Raises:
        ValueError: the folder has features that were made in another way, or files that are not from here.
    """
    folder = Path(folder)
    description = describe_encoder(model, processor, settings, name)
    with held_folder(folder, "output"):
        _check_folder(folder, description, plan)
        write_text(folder / DESCRIPTION_FILE, json.dumps(description, indent=1, ensure_ascii=False) + "\n")
        readable = [row for row in plan.rows if "error" not in row]
        yield from (_listed(folder, row) for row in plan.rows if "error" in row)
        results = iter_video_features(
            model,
            processor,
            [row["file"] for row in readable],
            window=settings.window,
            stride=settings.stride,
            squash=settings.squash,
            pooling=settings.pooling,
            batch_size=batch_size,
            on_error="return",
        )
        for row, features in zip(readable, results, strict=True):
            if isinstance(features, VideoDecodingError):
                row = {key: row[key] for key in ("video", "file", "bytes")} | {"error": str(features)}
            else:
                _write_array(folder / f"{row['video']}.npy", features.numpy().astype(DTYPES[settings.dtype]))
                row = row | {"windows": len(features)}
            yield _listed(folder, row)


def _check_folder(folder: Path, description: dict[str, Any], plan: FeaturePlan) -> None:
    earlier = read_description(folder)
    if earlier is None:
        refuse_existing([folder / f"{row['video']}.npy" for row in plan.rows], "output")
        return
    differing = [key for key in description if key != "encoder" and earlier.get(key) != description[key]]
    if differing:
        changes = shorten(f"{key} {earlier.get(key)!r}, now {description[key]!r}" for key in differing)
        raise ValueError(f"`output` {str(folder)!r} has features that were made in another way: {changes}")


def _write_array(path: Path, array: np.ndarray) -> None:
    draft = path.with_name(f".{path.name}.draft")
    with draft.open("wb") as file:
        np.save(file, array)
    os.replace(draft, path)


def _listed(folder: Path, row: dict[str, Any]) -> dict[str, Any]:
    with (folder / MANIFEST_FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return row


__all__ = [
    "FeaturePlan",
    "FeatureSettings",
    "describe_encoder",
    "make_features",
    "plan_features",
    "seconds_per_window",
    "weights_hash",
]
