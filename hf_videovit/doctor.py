"""Checks of this machine and of video files, as run by `hf-videovit doctor`."""

import csv
import glob
import json
import os
import platform
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from importlib import metadata
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from transformers.utils import logging

from .bulk.work import Work
from .modeling.video_decoding import (
    DecoderInfo,
    VideoDecodingError,
    available_decoders,
    decode_in_chunks,
    decode_video,
    opened_once,
    probe_video,
)
from .modeling.video_decoding_folders import is_frame_folder
from .modeling.video_decoding_types import VIDEO_SUFFIXES
from .processes import run_apart
from .video_files import video_size, visible_videos


logger = logging.get_logger(__name__)

PACKAGES = (
    "hf-videovit",
    "torch",
    "torchvision",
    "transformers",
    "accelerate",
    "datasets",
    "huggingface-hub",
    "safetensors",
    "av",
    "decord",
    "torchcodec",
)
# The release that fixes CVE-2026-40962. A distribution may have patched an older one, so this is only a warning.
FFMPEG_FLOOR = (8, 1)
CHUNK_BYTES = 256 * 2**20
# The clip that each decoder is tried on: one grey level for each frame, and the tolerance of a decoded level.
CLIP_LEVELS = (40, 80, 120, 160, 200)
CLIP_HEIGHT, CLIP_WIDTH = 128, 160
LEVEL_TOLERANCE = 8


@dataclass(frozen=True)
class VideoCheck:
    """
    Result of the check of one file.

    Args:
        path (`str`):
            The file.
        status (`str`):
            `"ok"`: every frame decodes. `"partial"`: some frames are damaged or missing. `"bad"`: nothing can be read.
        kind (`str`, *optional*, defaults to `""`):
            Kind of [`VideoDecodingError`] if the file is not ok.
        reason (`str`, *optional*, defaults to `""`):
            Why the file is not ok.
        num_frames (`int`, *optional*, defaults to 0):
            Frames in the index of the file.
        decoded_frames (`int`, *optional*, defaults to 0):
            Frames that decode.
        fps (`float`, *optional*):
            Average frame rate in frames a second.
        duration (`float`, *optional*):
            Length in seconds.
        width (`int`, *optional*):
            Width in pixels as displayed.
        height (`int`, *optional*):
            Height in pixels as displayed.
        rotation (`int`, *optional*, defaults to 0):
            Counter-clockwise rotation of the frames for display, in degrees.
        mirrored (`bool`, *optional*, defaults to `False`):
            Whether left and right are swapped after the rotation.
        codec (`str`, *optional*, defaults to `""`):
            FFmpeg's name of the codec.
        bytes (`int`, *optional*, defaults to 0):
            Size of the file in bytes.
        seconds (`float`, *optional*, defaults to 0.0):
            Duration of the check in seconds.
    """

    path: str
    status: str
    kind: str = ""
    reason: str = ""
    num_frames: int = 0
    decoded_frames: int = 0
    fps: float | None = None
    duration: float | None = None
    width: int | None = None
    height: int | None = None
    rotation: int = 0
    mirrored: bool = False
    codec: str = ""
    bytes: int = 0
    seconds: float = 0.0


def environment_report() -> dict[str, Any]:
    """
    Versions, decoders, accelerators, memory and cores of this machine. Problems are listed under `warnings`. A decoder
    is available if it decodes a small clip made in memory.

    Returns:
        `dict[str, Any]`: plain values that can be written as JSON.
    """
    decoders = {name: asdict(_try_decoder(name, info)) for name, info in available_decoders().items()}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "decoders": decoders,
        "accelerators": _accelerators(),
        "memory_gb": _memory_gb(),
        "cpu_cores": _usable_cores(),
        "warnings": _decoder_warnings(decoders),
    }


def find_videos(paths: Iterable[str | os.PathLike], *, suffixes: Sequence[str] = VIDEO_SUFFIXES) -> list[str]:
    """
    Find the videos that paths, folders and glob patterns name. Folders are searched recursively by suffix, and for
    folders of numbered pictures. Matches are sorted within each argument and contain no duplicates. URLs and names of
    missing files are kept, so that opening them reports the error.

    Args:
        paths (iterable of `str` or `os.PathLike`):
            Files, folders, glob patterns or URLs. A file that is named directly may have any suffix.
        suffixes (`Sequence[str]`, *optional*, defaults to `VIDEO_SUFFIXES`):
            Lower-case suffixes that count as videos inside a folder.

    Returns:
        `list[str]`: the files.

    Raises:
        ValueError: a folder contains no video, or a pattern matches no file.
    """
    found: dict[str, None] = {}
    for path in [os.fspath(path) for path in paths]:
        if "://" in path or os.path.isfile(path):
            matches = [path]
        elif os.path.isdir(path):
            matches = [str(video) for video in visible_videos(Path(path), suffixes)]
            if not matches and is_frame_folder(path):
                matches = [path]
            if not matches:
                raise ValueError(
                    f"No video in folder {path!r}. Videos end in: {' '.join(sorted(suffixes))}; or are folders of "
                    "numbered pictures."
                )
        elif glob.has_magic(path):
            found_names = glob.glob(path, recursive=True)
            matches = sorted(name for name in found_names if os.path.isfile(name) or is_frame_folder(name))
            if not matches:
                raise ValueError(f"No file matches the pattern {path!r}.")
        else:
            matches = [path]
        found.update(dict.fromkeys(matches))
    return list(found)


def check_video(path: str | os.PathLike, *, decoder: str = "auto") -> VideoCheck:
    """
    Probe a file and decode all of it, a few hundred megabytes at a time.

    Args:
        path (`str` or `os.PathLike`):
            The file.
        decoder (`str`, *optional*, defaults to `"auto"`):
            Decoder to read with.

    Returns:
        [`VideoCheck`]
    """
    path = os.fspath(path)
    started = time.monotonic()
    facts: dict[str, Any] = {"bytes": video_size(path) or 0}
    try:
        with opened_once(path) as video:
            probe = probe_video(video)
            facts |= {name: getattr(probe, name) for name in ("num_frames", "fps", "duration", "width", "height")}
            facts |= {"rotation": probe.rotation, "mirrored": probe.mirrored, "codec": probe.codec or ""}
            chunks = decode_in_chunks(video, CHUNK_BYTES, decoder=decoder)
            facts["decoded_frames"] = sum(len(chunk.frames) for chunk in chunks)
        facts["status"] = "ok"
    except VideoDecodingError as error:
        facts |= {"kind": error.kind, "reason": error.reason, "decoded_frames": _salvageable(path, decoder)}
        facts["status"] = "partial" if facts["decoded_frames"] else "bad"
    return VideoCheck(path=path, seconds=round(time.monotonic() - started, 3), **facts)


def check_videos(
    paths: Iterable[str | os.PathLike], *, decoder: str = "auto", num_workers: int = 1
) -> Iterator[VideoCheck]:
    """
    Run [`check_video`] on many files.

    Args:
        paths (iterable of `str` or `os.PathLike`):
            The files.
        decoder (`str`, *optional*, defaults to `"auto"`):
            Decoder to read with.
        num_workers (`int`, *optional*, defaults to 1):
            Number of processes. With more than one, results come in the order in which they finish.

    Returns:
        `Iterator[VideoCheck]`: one result for each file.

    Raises:
        ValueError: `num_workers` is less than 1.
    """
    if num_workers < 1:
        raise ValueError(f"`num_workers` must be at least 1, got {num_workers}.")
    if num_workers == 1:
        for path in paths:
            yield check_video(path, decoder=decoder)
        return
    calls = [partial(check_video, path, decoder=decoder) for path in paths]
    if calls:
        yield from (check for _, check in run_apart(calls, num_workers, __name__))


def checking_work(decoder: str = "auto") -> Work:
    """
    [`check_video`] as work for an engine (see [`run_work`]): columns `id` and those of [`VideoCheck`]. Videos that are
    not completely readable have a row, and a line in the ledger.

    Args:
        decoder (`str`, *optional*, defaults to `"auto"`):
            Decoder to read with.

    Returns:
        [`Work`]
    """
    kinds: dict[Any, Any] = {int: pa.int64(), int | None: pa.int64(), float: pa.float64(), float | None: pa.float64()}
    kinds[bool] = pa.bool_()
    columns = [(one.name, kinds.get(one.type, pa.string())) for one in fields(VideoCheck)]
    return Work(partial(_checked, decoder=decoder), pa.schema([("id", pa.string()), *columns]), keeps_failed=True)


def _checked(sample: Any, decoder: str) -> dict[str, Any]:
    if not isinstance(sample.video, str):
        raise ValueError(f"Sample {sample.id!r}: single files are checked, not those in tars or parquet.")
    check = check_video(sample.video, decoder=decoder)
    error = {} if check.status == "ok" else {"error": check.reason, "error_kind": check.kind}
    return asdict(check) | error


def write_report(checks: Iterable[VideoCheck], path: str | os.PathLike) -> Path:
    """
    Write checks to a table with one row for each file.

    Args:
        checks (iterable of [`VideoCheck`]):
            The rows.
        path (`str` or `os.PathLike`):
            A name that ends in `.csv` or `.json`.

    Returns:
        `Path`: the file.

    Raises:
        ValueError: another suffix.
    """
    path = Path(path)
    rows = [asdict(check) for check in checks]
    if path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=[field.name for field in fields(VideoCheck)])
            writer.writeheader()
            writer.writerows(rows)
    else:
        raise ValueError(f"`path` of a report must end in .csv or .json, got {str(path)!r}.")
    return path


def _salvageable(path: str, decoder: str) -> int:
    """Number of frames that decode in a damaged file."""
    try:
        chunks = decode_in_chunks(path, CHUNK_BYTES, decoder=decoder, policy="salvage")
        return sum(len(chunk.frames) for chunk in chunks)
    except (VideoDecodingError, ValueError):
        return 0


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _accelerators() -> list[dict[str, Any]]:
    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        return [{"name": device.name, "memory_gb": round(device.total_memory / 2**30, 1)} for device in devices]
    if torch.backends.mps.is_available():
        return [{"name": "Apple MPS", "memory_gb": None}]
    return []


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError):  # Windows has neither
        return None


def _usable_cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # only Linux tells which cores this process may use
        return os.cpu_count() or 1


def _try_decoder(name: str, info: DecoderInfo) -> DecoderInfo:
    """`info`, or `info` marked as unavailable if the decoder fails on a small clip."""
    if not info.available:
        return info
    try:
        decoded = decode_video(_make_clip(), decoder=name)
    except Exception as error:  # the report shows any error of a broken installation
        return replace(info, available=False, reason=f"fails on a small clip ({type(error).__name__}: {error})")
    if decoded.metadata.video_backend != name:
        return replace(info, available=False, reason="fails on a small clip that PyAV decodes")
    levels = decoded.frames.mean(axis=(1, 2, 3))
    if len(levels) != len(CLIP_LEVELS) or np.abs(levels - CLIP_LEVELS).max() > LEVEL_TOLERANCE:
        return replace(info, available=False, reason="returns wrong frames of a small clip")
    return info


def _make_clip() -> bytes:
    """An MP4 of one grey level a frame, encoded in memory."""
    import av

    file = BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = CLIP_HEIGHT, CLIP_WIDTH, "yuv420p"
        for level in CLIP_LEVELS:
            pixels = np.full((CLIP_HEIGHT, CLIP_WIDTH, 3), level, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def _decoder_warnings(decoders: dict[str, dict[str, Any]]) -> list[str]:
    warnings = []
    if not any(decoder["available"] for decoder in decoders.values()):
        warnings.append("no video decoder works: install one with `pip install av`")
    floor = ".".join(map(str, FFMPEG_FLOOR))
    for name, decoder in decoders.items():
        if decoder["version"] is not None and not decoder["available"]:
            warnings.append(f"{name} {decoder['version']} is installed but cannot be used: {decoder['reason']}")
        version = _version_numbers(decoder["ffmpeg"])
        if decoder["available"] and version is not None and version < FFMPEG_FLOOR:
            warnings.append(
                f"{name} decodes with FFmpeg {decoder['ffmpeg']}, which is older than {floor} "
                "(CVE-2026-40962): do not use it for untrusted files unless your distribution has patched it"
            )
    return warnings


def _version_numbers(version: str | None) -> tuple[int, ...] | None:
    """The first numbers in a version; `None` when there are none."""
    match = re.search(r"\d+(\.\d+)?", version or "")
    return tuple(int(part) for part in match[0].split(".")) if match else None


__all__ = [
    "VideoCheck",
    "check_video",
    "check_videos",
    "checking_work",
    "environment_report",
    "find_videos",
    "write_report",
]
