"""Forms of a video: paths, bytes, file objects, URLs and decoded frames."""

import io
import math
import os
import re
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import numpy as np
import torch
from PIL import Image
from transformers.utils import logging

from .video_decoding_types import VideoDecodingError, VideoLimits


logger = logging.get_logger(__name__)

VideoLike = str | os.PathLike | bytes | bytearray | memoryview | BinaryIO | dict | np.ndarray | torch.Tensor | list

FORMS = (
    "a path of a file or folder of pictures, an http(s):// or hf:// URL, bytes, a binary file object, a "
    "{'path', 'bytes'} dict, a torchcodec "
    "`VideoDecoder`, a uint8 array or tensor with channels first or last, or a list of PIL images"
)
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
DOWNLOAD_TIMEOUT = 60.0
FOLDER_FPS = 25.0  # frame rate of a folder of pictures, if none is given
FOLDER_FPS_VARIABLE = "HF_VIDEOVIT_FOLDER_FPS"
NOT_ON_HUB = "no such file on the Hub, or no right to read it"
BLOCK = 2**20


@dataclass(frozen=True)
class EncodedVideo:
    """
    A video within reach of a decoder.

    Args:
        name (`str`):
            Name for messages.
        path (`str`, *optional*):
            The file, or the folder of pictures.
        file (`BinaryIO`, *optional*):
            The open file, if there is no path.
        cache_key (*optional*):
            Equal keys mean the same file.
        part ([`~video_decoding_parts.VideoPart`], *optional*):
            The part of the file that is the video; all of it by default.
        fps (`float`, *optional*):
            Frame rate of a folder of pictures; `None` for a file.
    """

    name: str
    path: str | None = None
    file: BinaryIO | None = None
    cache_key: Any = None
    part: Any = None
    fps: float | None = None

    def content(self) -> bytes:
        """
        The file as bytes.

        Returns:
            `bytes`: the whole file.

        Raises:
            ValueError: the file has a path.
        """
        if self.file is None:
            raise ValueError(f"{self.name} has a path; read it from there.")
        self.file.seek(0)
        return self.file.read()


def is_video_decoder(source: Any) -> bool:
    """
    Whether a value is a `VideoDecoder` of torchcodec, as the `Video` column of a `datasets` data set gives.

    Args:
        source:
            A video in any form.

    Returns:
        `bool`
    """
    decoders = sys.modules.get("torchcodec.decoders")  # if it is not imported, no such object exists
    return decoders is not None and isinstance(source, decoders.VideoDecoder)


def undecoded(source: Any) -> Any:
    """
    The file behind a `VideoDecoder` that `datasets` made. Our own decoding verifies its frames.

    Args:
        source:
            A video in any form.

    Returns:
        A `{"path", "bytes"}` dict; `source` itself if it is something else, or if its file is not known.
    """
    encoded = getattr(source, "_hf_encoded", None) if is_video_decoder(source) else None
    if not encoded or (encoded.get("bytes") is None and "::" in (encoded.get("path") or "::")):
        return source  # `::`: a file inside a remote archive
    return encoded


def source_name(source: Any) -> str:
    """
    A short name for messages. User, password and query of a URL are left out.

    Args:
        source:
            A video in any form.

    Returns:
        `str`: the name.
    """
    if isinstance(source, EncodedVideo):
        return source.name
    if isinstance(source, dict):
        named = source.get("path") or source.get("bytes")
        return "<empty dict>" if named is None else source_name(named)
    if isinstance(source, str) and SCHEME.match(source):
        return re.sub(r"^([^:]+://)([^/@]*@)?([^?#]*).*$", r"\1\3", source, flags=re.DOTALL)
    if isinstance(source, str | os.PathLike):
        return os.fsdecode(source)
    if isinstance(source, bytes | bytearray | memoryview):
        size = memoryview(source).nbytes
        return f"<bytes, {size / 1000:.0f} kB>" if size >= 1000 else f"<bytes, {size} B>"
    if isinstance(source, np.ndarray | torch.Tensor):
        return f"<{type(source).__name__} of shape {tuple(source.shape)}>"
    if isinstance(source, list | tuple):
        return f"<{type(source).__name__} of {len(source)} frames>"
    if isinstance(source, io.IOBase) or hasattr(source, "read"):
        name = getattr(source, "name", None)
        return name if isinstance(name, str) else f"<{type(source).__name__}>"
    return f"<{type(source).__name__}>"


# ---------------------------------------------------------------------- frames


def decoded_frames(source: Any) -> np.ndarray | None:
    """
    Frames that need no decoding as `(num_frames, height, width, 3)` uint8, `None` for encoded videos.

    Args:
        source:
            A video in any form.

    Returns:
        `np.ndarray` of shape `(num_frames, height, width, 3)` in uint8, or `None` for an encoded video.

    Raises:
        ValueError: not 4-D, not uint8, or of unclear channel axis.
    """
    if isinstance(source, list | tuple):
        return _stack(source)
    if isinstance(source, torch.Tensor):
        source = source.detach().cpu().numpy()
    if not isinstance(source, np.ndarray):
        return None
    if source.ndim != 4 or 0 in source.shape:
        raise ValueError(f"`source` as an array must have 4 axes and hold frames, got shape {source.shape}.")
    if source.dtype != np.uint8:
        raise ValueError(
            f"`source` as an array must be uint8 with values 0..255, got {source.dtype}; floats in 0..1 become frames "
            "by `(frames * 255).round().astype(numpy.uint8)`."
        )
    first, last = source.shape[1] in (1, 3, 4), source.shape[-1] in (1, 3, 4)
    if first == last:
        raise ValueError(
            f"`source` of shape {source.shape}: exactly one of the second and the last axis must be channels (1, 3 or "
            "4) to tell (frames, channels, height, width) from (frames, height, width, channels)."
        )
    frames = np.moveaxis(source, 1, -1) if first else source
    return frames.repeat(3, axis=-1) if frames.shape[-1] == 1 else frames[..., :3]  # transparency is dropped


def _stack(frames: list | tuple) -> np.ndarray | None:
    if not frames or not all(isinstance(frame, Image.Image | np.ndarray | torch.Tensor) for frame in frames):
        raise ValueError(f"`source` as a list must hold PIL images or arrays, one a frame, got {source_name(frames)}.")
    arrays = [
        np.asarray(frame.convert("RGB")) if isinstance(frame, Image.Image) else np.asarray(frame) for frame in frames
    ]
    arrays = [array[..., None] if array.ndim == 2 else array for array in arrays]
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        raise ValueError(f"`source` as a list must hold frames of one shape, got {sorted(shapes)}.")
    return decoded_frames(np.stack(arrays))


# ---------------------------------------------------------------------- encoded videos


@contextmanager
def open_video(
    source: Any, limits: VideoLimits, *, token: str | bool | None = None, deadline: float | None = None
) -> Iterator[EncodedVideo]:
    """
    Open an encoded video. A URL is downloaded to a temporary file; nothing else uses the network.

    Args:
        source:
            A path, URL, bytes, file object or `{"path", "bytes"}` dict, or an [`EncodedVideo`], which is passed on.
        limits ([`VideoLimits`]):
            Upper bounds.
        token (`str` or `bool`, *optional*):
            Token for `hf://` URLs.
        deadline (`float`, *optional*):
            Time of `time.monotonic()` at which a download is given up.

    Returns:
        A context manager that gives an [`EncodedVideo`].

    Raises:
        ValueError: `source` is in no form that can be read.
        VideoDecodingError: there is no such file, or it is larger than allowed.
    """
    name, fps = source_name(source), None
    if isinstance(source, EncodedVideo):
        yield source
        return
    if isinstance(source, dict):
        if not {"path", "bytes"} & source.keys():
            raise ValueError(f"`source` as a dict needs 'bytes' or 'path', got keys {sorted(source)}.")
        fps = source.get("fps")
        source = source.get("bytes") if source.get("bytes") is not None else source.get("path")
    if isinstance(source, str) and SCHEME.match(source):
        with tempfile.TemporaryDirectory(prefix="video-", ignore_cleanup_errors=True) as folder:
            path = os.path.join(folder, "video")
            _download(source, name, path, limits, token, deadline)
            yield EncodedVideo(name, path=path)
    elif isinstance(source, str | os.PathLike):
        yield _from_path(source, name, limits, fps)
    elif isinstance(source, bytes | bytearray | memoryview):
        _check_size(memoryview(source).nbytes, name, limits)
        yield EncodedVideo(name, file=io.BytesIO(source))
    elif hasattr(source, "read"):
        with _from_file(source, name, limits) as video:
            yield video
    else:
        raise ValueError(f"`source` must be {FORMS}, got {name}.")


def _from_path(source: str | os.PathLike, name: str, limits: VideoLimits, fps: float | None) -> EncodedVideo:
    try:
        path = os.path.abspath(os.fsdecode(source))
        facts = os.stat(path)
        if stat.S_ISREG(facts.st_mode):
            open(path, "rb").close()  # whether we may
    except (OSError, ValueError) as error:  # ValueError: a zero character in the name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise VideoDecodingError(name, None, f"{reason}", "missing") from None
    key = (path, facts.st_ino, facts.st_mtime_ns, facts.st_size)
    if stat.S_ISDIR(facts.st_mode):
        return EncodedVideo(name, path=path, cache_key=key, fps=folder_rate(fps))
    if not stat.S_ISREG(facts.st_mode):
        raise VideoDecodingError(name, None, "a device or pipe, not a file", "missing")
    _check_size(facts.st_size, name, limits)
    return EncodedVideo(name, path=path, cache_key=key)


def folder_rate(given: Any = None, named: str = "`fps` of a folder of pictures") -> float:
    """
    Frame rate of a folder of pictures: the given one, that of the environment variable `HF_VIDEOVIT_FOLDER_FPS` (the
    option `--folder-fps` of the command line), or 25, with one warning.

    Args:
        given (`float` or `str`, *optional*):
            Frames a second.
        named (`str`, *optional*):
            What `given` is, for the error message.

    Returns:
        `float`: frames a second.

    Raises:
        ValueError: the rate is no positive number.
    """
    value = str(given) if given is not None else None
    if value is None and (text := os.environ.get(FOLDER_FPS_VARIABLE)):
        named, value = FOLDER_FPS_VARIABLE, text
    if value is None:
        logger.warning_once(
            f"Folders of pictures do not tell their frame rate: {FOLDER_FPS:g} frames a second are assumed. Give it "
            f'with --folder-fps, {FOLDER_FPS_VARIABLE} or {{"path": FOLDER, "fps": RATE}}.'
        )
        return FOLDER_FPS
    try:
        rate = float(value)
    except ValueError:
        rate = math.nan
    if not 0 < rate < math.inf:
        raise ValueError(f"{named} must be a positive number, got {value}.")
    return rate


@contextmanager
def _from_file(file: Any, name: str, limits: VideoLimits) -> Iterator[EncodedVideo]:
    """A file object is read from its start and left where it was."""
    if isinstance(file, io.TextIOBase):
        raise ValueError(f"`source` as a file object must be open in binary mode, got {name} in text mode.")
    try:
        seekable = file.seekable() if hasattr(file, "seekable") else hasattr(file, "seek")
        if seekable:
            before, size = file.tell(), file.seek(0, os.SEEK_END)
            size = file.tell() if size is None else size
        else:
            content = file.read(limits.max_bytes + 1)
            size = len(content)
    except OSError as error:
        raise VideoDecodingError(name, None, f"cannot be read ({error})", "missing") from None
    try:
        _check_size(size, name, limits)
        yield EncodedVideo(name, file=file if seekable else io.BytesIO(content))
    finally:
        if seekable:
            file.seek(before)


def _check_size(size: int, name: str, limits: VideoLimits) -> None:
    if size == 0:
        raise VideoDecodingError(name, None, "the file is empty", "empty")
    if size > limits.max_bytes:
        raise VideoDecodingError(name, None, f"{size} bytes, allowed are {limits.max_bytes}", "limit")


# ---------------------------------------------------------------------- URLs


def _download(
    url: str, name: str, path: str, limits: VideoLimits, token: str | bool | None, deadline: float | None
) -> None:
    scheme = urlsplit(url).scheme.lower()
    if scheme not in ("http", "https", "hf"):
        raise ValueError(f"`source` as a URL must start with http://, https:// or hf://, got {name!r}.")
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise VideoDecodingError(name, None, "offline mode is on (HF_HUB_OFFLINE): no downloads", "missing")
    blocks = _hub_blocks(url, name, token) if scheme == "hf" else _http_blocks(url, name, deadline)
    deadline = time.monotonic() + DOWNLOAD_TIMEOUT * 10 if deadline is None else deadline
    size = 0
    with open(path, "wb") as file:
        for block in blocks:
            size += len(block)
            if size > limits.max_bytes:
                raise VideoDecodingError(name, None, f"more than {limits.max_bytes} bytes", "limit")
            if time.monotonic() > deadline:
                raise VideoDecodingError(name, None, "downloading takes too long", "timeout")
            file.write(block)
    _check_size(size, name, limits)


def _http_blocks(url: str, name: str, deadline: float | None) -> Iterator[bytes]:
    """The body of a page in blocks, through the session that the user set up for huggingface_hub."""
    from huggingface_hub import get_session

    httpx = http_library()
    timeout = DOWNLOAD_TIMEOUT if deadline is None else max(0.001, min(DOWNLOAD_TIMEOUT, deadline - time.monotonic()))
    try:
        with get_session().stream("GET", url, follow_redirects=True, timeout=timeout) as response:
            if response.status_code >= 400:
                raise VideoDecodingError(name, None, f"HTTP status {response.status_code}", "missing")
            yield from response.iter_bytes(BLOCK)
    except httpx.TimeoutException:
        raise VideoDecodingError(name, None, "the server does not answer in time", "timeout") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise VideoDecodingError(name, None, f"download failed ({type(error).__name__})", "missing") from None


def http_library() -> ModuleType:
    """
    The HTTP library that huggingface_hub uses. It differs between releases of huggingface_hub.

    Returns:
        The module `httpx` or `httpx2`.
    """
    try:
        from huggingface_hub.utils import httpx as library
    except ImportError:
        return import_module("httpx")
    return library


def _hub_blocks(url: str, name: str, token: str | bool | None) -> Iterator[bytes]:
    """A file of a Hub repository, bucket or data set, in blocks."""
    from huggingface_hub import HfFileSystem
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    httpx = http_library()
    try:
        with HfFileSystem(token=token).open(url, "rb", block_size=0) as file:
            while block := file.read(BLOCK):
                yield block
    except HfHubHTTPError as error:
        status = None if error.response is None else error.response.status_code
        reason = NOT_ON_HUB if status in (None, 401, 403, 404) else f"the Hub answers with status {status}"
        raise VideoDecodingError(name, None, reason, "missing") from None
    except httpx.HTTPError as error:  # also a connection that was cut in the middle of the file
        raise VideoDecodingError(name, None, f"download failed ({type(error).__name__})", "missing") from None
    except (HFValidationError, OSError, ValueError) as error:
        reason = NOT_ON_HUB if isinstance(error, OSError) else type(error).__name__
        raise VideoDecodingError(name, None, reason, "missing") from None
