"""
Any video in, frames out: one function for every source and every decoder.

The same indices give the same frames with every decoder of the processor. PyAV is the default. If decord or torchcodec
is chosen, it decodes the files on which it agrees with PyAV, and PyAV decodes the others.
"""

import glob
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

import numpy as np
import torch
from transformers.utils import logging
from transformers.video_utils import VideoMetadata

from .video_decoding_folders import FrameFolderReader, open_reader
from .video_decoding_isolation import IsolatedReader
from .video_decoding_parts import VideoPart
from .video_decoding_pyav import PyAVReader
from .video_decoding_sources import (
    EncodedVideo,
    VideoLike,
    decoded_frames,
    is_video_decoder,
    open_video,
    source_name,
    undecoded,
)
from .video_decoding_types import Reading, VideoDecodingError, VideoLimits, VideoProbe


logger = logging.get_logger(__name__)

DECODERS = ("auto", "pyav", "decord", "torchcodec", "nvdec")
POLICIES = ("strict", "salvage")
DEFAULT_LIMITS = VideoLimits()
Reader = PyAVReader | FrameFolderReader | IsolatedReader
FramePlan = Sequence[int] | np.ndarray | Callable[[VideoMetadata], Any] | None

# Narrower frames: decord takes the padding of a row for more channels, at a few widths above this one too.
DECORD_MIN_WIDTH = 80
DECORD_BAD_WIDTHS = (96, 144)
DECORD_CONTAINERS = ("mov", "matroska", "avi")
DECORD_CODECS = ("h264", "mpeg4", "mjpeg", "vp8", "vp9")
EIGHT_BIT_FORMATS = ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p")
NVDEC_CODECS = ("h264", "hevc", "vp9", "av1")
TORCHCODEC_CONTAINERS = ("mov", "matroska", "flv", "gif")
FFMPEG_OF_AVCODEC = {57: "3", 58: "4", 59: "5", 60: "6", 61: "7", 62: "8"}
MOST_WARNINGS = 1000


@dataclass
class DecodedVideo:
    """
    Frames of a video and facts about it.

    Args:
        frames (`np.ndarray` of shape `(num_frames, height, width, 3)`):
            RGB in uint8, turned as displayed. Indices of another shape stand in place of `num_frames`: of indices of
            shape `(num_clips, num_frames)` the frames have shape `(num_clips, num_frames, height, width, 3)`.
        metadata (`VideoMetadata`):
            Of the whole video, with the `frames_indices` of `frames`.
        damaged_packets (`int`, *optional*, defaults to 0):
            Packets met that did not decode or that the decoder knows to be wrong.
        timestamps (`np.ndarray` of shape `(num_frames,)`, *optional*):
            Seconds at which the frames are shown, in the shape of the indices; `None` for arrays.
    """

    frames: np.ndarray
    metadata: VideoMetadata
    damaged_packets: int = 0
    timestamps: np.ndarray | None = None


@dataclass(frozen=True)
class DecoderInfo:
    """
    Whether a decoder works here.

    Args:
        available (`bool`):
            It can be imported.
        version (`str`, *optional*):
            Of the package.
        ffmpeg (`str`, *optional*):
            Of the FFmpeg it uses.
        reason (`str`, *optional*):
            Why it is not available.
    """

    available: bool
    version: str | None = None
    ffmpeg: str | None = None
    reason: str | None = None


def decode_video(
    source: VideoLike,
    indices: FramePlan = None,
    *,
    decoder: str = "auto",
    policy: str = "strict",
    num_threads: int = 1,
    limits: VideoLimits = DEFAULT_LIMITS,
    isolate: bool = False,
    timeout: float | None = None,
    token: str | bool | None = None,
) -> DecodedVideo:
    """
    Frames of a video.

    Args:
        source:
            A path (`str` or `pathlib.Path`) of a file or of a folder of pictures, one a frame, http(s) or `hf://` URL,
            bytes, binary file object, `{"path", "bytes"}` dict (of a folder also `{"path", "fps"}`), `VideoDecoder` of
            torchcodec, uint8 array or tensor with channels first or last, or list of PIL images. Of a `VideoDecoder`
            that `datasets` made its file is read; another one gives its own frames. Of a dict with `start` and `end`
            in seconds, or `start_frame` and `end_frame`, only that part is the video; see [`VideoPart`].
        indices (sequence of `int` or callable, *optional*):
            Frames to return, in any order and any number of times; all of them by default. A callable gets the
            `VideoMetadata` with the number of frames that the file was found to hold (height and width are known only
            after decoding). Frames come back in the shape of the indices.
        decoder (`str`, *optional*, defaults to `"auto"`):
            `"pyav"`, `"decord"`, `"torchcodec"` or `"nvdec"`; `"auto"` is PyAV. The others do not tell damage: files
            they are not known to read exactly are left to PyAV, with one warning a file. `"nvdec"` is torchcodec on
            the current CUDA device. It is the only one whose pixels differ, because the device converts the colours.
            It needs processes that were not forked.
        policy (`str`, *optional*, defaults to `"strict"`):
            How damaged packets are handled, if the frames asked for are decoded from them. `"strict"` raises.
            `"salvage"` uses the frames that decode, even if they look wrong, and plans again with their number; a
            sequence of indices is clamped to it.
        num_threads (`int`, *optional*, defaults to 1):
            Threads of the decoder, 0 for one a core.
        limits ([`VideoLimits`], *optional*):
            Upper bounds.
        isolate (`bool`, *optional*, defaults to `False`):
            Decode with PyAV in a child process that is killed when time is up: for files of unknown origin.
        timeout (`float`, *optional*):
            Seconds for the whole call, waiting for other threads included. Without `isolate` it is looked at between
            packets; with it, 60 by default.
        token (`str` or `bool`, *optional*):
            For `hf://` URLs.

    Returns:
        [`DecodedVideo`]

    Raises:
        ValueError: an argument is not allowed.
        VideoDecodingError: the video cannot be read.
        ImportError: PyAV is not installed, or its release cannot be used.
    """
    _check_arguments(decoder, policy, num_threads, isolate, timeout)
    source = undecoded(source)
    if is_video_decoder(source):
        return _read_opened(source, indices, isolate)
    frames = decoded_frames(source)
    if frames is not None:
        return _choose_frames(frames, indices)
    part = VideoPart.of(source)
    if part is not None:
        indices = part.frames(_plan, indices)
    deadline = None if timeout is None else time.monotonic() + timeout
    with (
        open_video(source, limits, token=token, deadline=deadline) as video,
        _open_reader(video, limits, num_threads, isolate, deadline) as reader,
    ):
        return _decode(video, reader, indices, decoder, salvage=policy == "salvage")


def probe_video(
    source: VideoLike,
    *,
    limits: VideoLimits = DEFAULT_LIMITS,
    isolate: bool = False,
    timeout: float | None = None,
    token: str | bool | None = None,
) -> VideoProbe:
    """
    Number of frames, rate, size and more. The file is demuxed and one frame is decoded.

    Args:
        source:
            As in [`decode_video`].
        limits ([`VideoLimits`], *optional*):
            Upper bounds.
        isolate (`bool`, *optional*, defaults to `False`):
            Whether to read in a child process.
        timeout (`float`, *optional*):
            Seconds for the whole call.
        token (`str` or `bool`, *optional*):
            For `hf://` URLs.

    Returns:
        [`VideoProbe`]

    Raises:
        ValueError: an argument is not allowed.
        VideoDecodingError: the video cannot be read, or not one frame of it decodes.
        ImportError: PyAV is not installed, or its release cannot be used.
    """
    _check_arguments("auto", "strict", 1, isolate, timeout)
    source = undecoded(source)
    if is_video_decoder(source):
        return _probe_opened(source)
    frames = decoded_frames(source)
    if frames is not None:
        return VideoProbe(len(frames), fps=None, duration=None, height=frames.shape[1], width=frames.shape[2])
    deadline = None if timeout is None else time.monotonic() + timeout
    with (
        open_video(source, limits, token=token, deadline=deadline) as video,
        _open_reader(video, limits, 1, isolate, deadline) as reader,
    ):
        probe, part = reader.probe(), VideoPart.of(source)
        return probe if part is None else part.probe(probe)


@contextmanager
def opened_once(source: VideoLike, *, limits: VideoLimits = DEFAULT_LIMITS) -> Iterator[Any]:
    """
    Open a video for several calls of [`decode_video`] and [`probe_video`]: a URL is downloaded once, a file object
    read once.

    Args:
        source:
            As in [`decode_video`].
        limits ([`VideoLimits`], *optional*):
            Upper bounds.

    Returns:
        A context manager that gives the video in a form that these functions take.

    Raises:
        ValueError: `source` is in no form that can be read.
        VideoDecodingError: there is no such file, or it is larger than allowed.
    """
    source = undecoded(source)
    if is_video_decoder(source) or isinstance(source, list | tuple | np.ndarray | torch.Tensor):
        yield source
        return
    with open_video(source, limits) as video:
        key = video.cache_key or object()
        try:
            yield replace(video, cache_key=key, part=VideoPart.of(source))
        finally:
            if video.cache_key is None:
                PyAVReader.forget(key)


def decode_in_chunks(
    source: VideoLike,
    chunk_bytes: int,
    *,
    decoder: str = "auto",
    policy: str = "strict",
    num_threads: int = 1,
    limits: VideoLimits = DEFAULT_LIMITS,
    isolate: bool = False,
    timeout: float | None = None,
) -> Iterator[DecodedVideo]:
    """
    All frames of a video in order, some at a time. With `policy="salvage"` these are the frames that decode.

    Args:
        source:
            As in [`decode_video`].
        chunk_bytes (`int`):
            Bytes of the frames held at once; at least 16 frames.
        decoder (`str`, *optional*, defaults to `"auto"`):
            As in [`decode_video`].
        policy (`str`, *optional*, defaults to `"strict"`):
            As in [`decode_video`]. `"strict"` raises when it comes to the damage.
        num_threads (`int`, *optional*, defaults to 1):
            Threads of the decoder.
        limits ([`VideoLimits`], *optional*):
            Upper bounds.
        isolate (`bool`, *optional*, defaults to `False`):
            Whether to decode in a child process.
        timeout (`float`, *optional*):
            Seconds for each chunk.

    Yields:
        [`DecodedVideo`]: one chunk after the other.

    Raises:
        ValueError: an argument is not allowed.
        VideoDecodingError: the video cannot be read.
    """
    options: dict[str, Any] = {"limits": limits, "isolate": isolate, "timeout": timeout}
    with opened_once(source, limits=limits) as video:
        probe = probe_video(video, **options)
        step = max(16, chunk_bytes // (probe.height * probe.width * 3))
        options |= {"decoder": decoder, "policy": policy, "num_threads": num_threads}
        start, total, damaged = 0, probe.num_frames, False

        def plan(metadata: VideoMetadata) -> np.ndarray:
            """The frames that follow, or the last one where the video turns out to end before them."""
            nonlocal total
            total = metadata.total_num_frames
            return np.arange(min(start, total - 1), min(start + step, total))

        while start < total:
            chunk = _decode_salvaged(video, plan, **options) if damaged else decode_video(video, plan, **options)
            damaged = damaged or (policy == "salvage" and chunk.damaged_packets > 0)
            if start < total:
                yield chunk
            start += step


def available_decoders() -> dict[str, DecoderInfo]:
    """
    Every decoder, whether it can be used here, and which FFmpeg it uses.

    Returns:
        `dict[str, DecoderInfo]`: decoders by name.
    """
    return {name: inspect() for name, inspect in INSPECTIONS.items()}


# ---------------------------------------------------------------------- steps of decode_video


def _check_arguments(decoder: str, policy: str, num_threads: int, isolate: bool, timeout: float | None) -> None:
    for name, value, allowed in (("decoder", decoder, DECODERS), ("policy", policy, POLICIES)):
        if value not in allowed:
            raise ValueError(f"`{name}` must be one of {allowed}, got {value!r}.")
    if num_threads < 0:
        raise ValueError(f"`num_threads` must be at least 0, got {num_threads}.")
    if timeout is not None and timeout <= 0:
        raise ValueError(f"`timeout` must be positive, got {timeout}.")
    if isolate and decoder not in ("auto", "pyav"):
        raise ValueError(f"`isolate=True` decodes with PyAV, got `decoder={decoder!r}`.")


def _decode_salvaged(
    video: Any, plan: FramePlan, *, limits: VideoLimits, isolate: bool, num_threads: int, **options: Any
) -> DecodedVideo:
    """Frames by their number among those that decode, even if no damage is met on the way to them."""
    timeout, part = options["timeout"], VideoPart.of(video)
    plan = plan if part is None else part.frames(_plan, plan)
    deadline = None if timeout is None else time.monotonic() + timeout
    with _open_reader(video, limits, num_threads, isolate, deadline) as reader:
        return _decode(video, reader, plan, "auto", salvage=True, counted=True)


def _open_reader(
    video: EncodedVideo, limits: VideoLimits, num_threads: int, isolate: bool, deadline: float | None
) -> Reader:
    if isolate:
        content = None if video.path else video.content()
        left = None if deadline is None else max(deadline - time.monotonic(), 0.001)
        options: dict[str, Any] = {"limits": limits, "num_threads": num_threads, "timeout": left, "fps": video.fps}
        return IsolatedReader(video.path, content, video.name, **options)
    file = video.path or video.file
    if file is None:
        raise ValueError(f"{video.name} is neither a path nor a file.")
    return open_reader(
        file,
        video.name,
        fps=video.fps,
        limits=limits,
        num_threads=num_threads,
        deadline=deadline,
        cache_key=video.cache_key,
    )


def _decode(
    video: EncodedVideo,
    reader: Reader,
    plan: FramePlan,
    decoder: str,
    salvage: bool,
    counted: bool = False,
) -> DecodedVideo:
    metadata = _metadata(reader, reader.num_frames)
    indices = _plan(plan, metadata)
    positions, places = _ascending(indices)
    reading = Reading(problem="damaged") if counted else None
    if decoder in OTHER_DECODERS and isinstance(reader, PyAVReader):
        reading = _read_with(decoder, video, reader, positions)
        metadata.video_backend = reader.decoder if reading is None else decoder
    reading = reader.read(positions) if reading is None else reading
    if reading.problem:
        if reading.problem == "damaged" and not salvage:
            raise VideoDecodingError(video.name, reader.decoder, reading.reason)
        reading, metadata, indices, places = _recover(video, reader, plan, salvage)
    frames, times = reading.frames, reading.timestamps
    if places is not None:
        frames, times = frames[places], times[places]
    metadata.frames_indices = indices.ravel().tolist()
    metadata.height, metadata.width = frames.shape[1:3]
    frames, times = frames.reshape(*indices.shape, *frames.shape[1:]), times.reshape(indices.shape)
    return DecodedVideo(frames, metadata, max(reading.damaged_packets, reader.damaged_packets), times)


def _recover(
    video: EncodedVideo, reader: Reader, plan: FramePlan, salvage: bool
) -> tuple[Reading, VideoMetadata, np.ndarray, list[int] | None]:
    """Count the frames that decode, plan anew and read those, from the start."""
    promised = reader.num_frames
    num_frames, damaged = reader.count()
    if num_frames == 0:
        raise VideoDecodingError(video.name, reader.decoder, "no frame decodes")
    metadata = _metadata(reader, num_frames)
    try:
        indices = _plan(plan, metadata, clamp=salvage)
    except ValueError:
        reason = f"only {num_frames} of {promised} frames decode"
        raise VideoDecodingError(video.name, reader.decoder, reason) from None
    positions, places = _ascending(indices)
    reading = reader.read_counted(positions)
    if reading.problem or (reading.damaged_packets and not salvage):
        reason = reading.reason or f"{reading.damaged_packets} damaged packets"
        raise VideoDecodingError(video.name, reader.decoder, reason)
    if damaged:
        _warn_once("salvage", video.name, f"{damaged} damaged packets, {num_frames} of {promised} frames used")
    return reading, metadata, indices, places


def _metadata(reader: Reader, num_frames: int) -> VideoMetadata:
    return VideoMetadata(
        total_num_frames=num_frames, fps=reader.fps, duration=reader.duration, video_backend=reader.decoder
    )


def _plan(plan: FramePlan, metadata: VideoMetadata, clamp: bool = False) -> np.ndarray:
    """The indices asked for; ValueError for any that does not exist."""
    num_frames = metadata.total_num_frames
    if plan is None:
        return np.arange(num_frames)
    indices = np.asarray(plan(metadata) if callable(plan) else plan)
    if indices.size == 0 or indices.dtype.kind not in "iu":
        raise ValueError(f"`indices` must be integers, at least one, got {indices.dtype} of shape {indices.shape}.")
    if clamp and not callable(plan):
        indices = indices.clip(max=num_frames - 1)
    for extreme in (indices.min(), indices.max()):
        if not 0 <= extreme < num_frames:
            raise ValueError(f"`indices` must lie in 0..{num_frames - 1}, got {extreme}.")
    return indices


def _ascending(indices: np.ndarray) -> tuple[list[int], list[int] | None]:
    """The indices in ascending order without repeats, and where each one asked for stands; `None` if in place."""
    asked = indices.ravel().tolist()
    positions = sorted(set(asked))
    if positions == asked:
        return positions, None
    slots = {position: slot for slot, position in enumerate(positions)}
    return positions, [slots[index] for index in asked]


def _choose_frames(frames: np.ndarray, plan: FramePlan) -> DecodedVideo:
    metadata = VideoMetadata(total_num_frames=len(frames), height=frames.shape[1], width=frames.shape[2])
    indices = _plan(plan, metadata)
    metadata.frames_indices = indices.ravel().tolist()
    return DecodedVideo(np.ascontiguousarray(frames if plan is None else frames[indices]), metadata)


def _probe_opened(decoder: Any) -> VideoProbe:
    facts = decoder.metadata
    return VideoProbe(len(decoder), facts.average_fps, facts.duration_seconds, facts.height, facts.width)


def _read_opened(decoder: Any, plan: FramePlan, isolate: bool) -> DecodedVideo:
    """Frames of a `VideoDecoder` of torchcodec, as it gives them."""
    if isolate:
        raise ValueError(
            "`source` is a torchcodec `VideoDecoder`, which decodes in this process; `isolate=True` needs the file "
            'itself (with `datasets`: `cast_column("video", Video(decode=False))`).'
        )
    facts = decoder.metadata
    metadata = VideoMetadata(
        total_num_frames=len(decoder),
        fps=facts.average_fps,
        duration=facts.duration_seconds,
        video_backend="torchcodec",
    )
    indices = _plan(plan, metadata)
    try:
        batch = decoder.get_frames_at(indices.ravel().tolist())
    except RuntimeError as error:
        raise VideoDecodingError(source_name(decoder), "torchcodec", _first_line(error)) from None
    frames = decoded_frames(batch.data)
    assert frames is not None
    metadata.frames_indices = indices.ravel().tolist()
    metadata.height, metadata.width = frames.shape[1:3]
    frames = np.ascontiguousarray(frames).reshape(*indices.shape, *frames.shape[1:])
    return DecodedVideo(frames, metadata, timestamps=batch.pts_seconds.cpu().numpy().reshape(indices.shape))


# ---------------------------------------------------------------------- decord and torchcodec


def _read_with(decoder: str, video: EncodedVideo, reader: PyAVReader, positions: list[int]) -> Reading | None:
    """Frames by a decoder other than PyAV; `None`, with a warning, where it cannot be relied on."""
    info = _inspect_nvdec() if decoder == "nvdec" else INSPECTIONS[decoder]()
    if not info.available:
        raise ValueError(f"`decoder={decoder!r}` is not available: {info.reason}.")
    read, doubts = OTHER_DECODERS[decoder]
    doubt = _any_doubt(reader) or doubts(reader)
    if doubt is None:
        try:
            return read(video, reader, positions)
        except _Doubt as found:
            doubt = str(found)
    _warn_once(decoder, video.name, f"{doubt}: decoded with PyAV instead of {decoder}")
    return None


class _Doubt(Exception):
    """A decoder failed, or its frames do not agree with the index."""


def _any_doubt(reader: PyAVReader) -> str | None:
    """Why a decoder other than PyAV might give wrong frames of this file, as far as can be told beforehand."""
    index = reader.index
    if index.damaged_packets:
        return "incomplete packets"
    if index.needs_first_packet:
        return "4:4:4 H.264"
    if not index.keyframes or index.keyframes[0][0] != 0:
        return "frames before the first keyframe"
    if index.codec == "h264" and not all(clean for _, _, clean, _ in index.keyframes):
        return "keyframes that do not start afresh"  # intra refresh too, where "keyframes" are hardly any picture yet
    if reader.shown().mirrored:
        return "mirrored frames"
    if reader.may_turn_midway():
        return "frames that say themselves how they are turned"
    return None


def _decord_doubt(reader: PyAVReader) -> str | None:
    index = reader.index
    width = index.size[1]
    if not index.container.startswith(DECORD_CONTAINERS) or index.codec not in DECORD_CODECS:
        return f"{index.codec} in {index.container.split(',')[0]}"
    if reader.pixel_format not in EIGHT_BIT_FORMATS:
        return f"{reader.pixel_format} pixels"
    if len(index.times) == 0 or index.times[0] != 0 or index.has_hidden_frames:
        return "an edit list or a start other than 0"
    if index.header_frames not in (0, index.num_frames):
        return "the container claims another number of frames"
    if min(index.size) < DECORD_MIN_WIDTH or width in DECORD_BAD_WIDTHS or index.size[0] in DECORD_BAD_WIDTHS:
        return f"{width} pixels wide"
    if index.size[0] % 2:
        return f"{index.size[0]} pixels high"
    if reader.has_b_frames and (index.codec == "mpeg4" or not index.in_order):
        return f"B-frames of {index.codec} in {index.container.split(',')[0]}"
    if index.shown.rotation and not index.container.startswith("mov"):
        return f"turned frames in {index.container.split(',')[0]}"
    return None


def _torchcodec_doubt(reader: PyAVReader) -> str | None:
    index = reader.index
    if not index.container.startswith(TORCHCODEC_CONTAINERS) or not index.in_order:
        return f"{index.codec} in {index.container.split(',')[0]}"
    # older releases (0.6) do not turn frames, and differ in these colours
    if index.shown.rotation:
        return "turned frames"
    if reader.pixel_format not in EIGHT_BIT_FORMATS or index.size[0] % 2:
        return f"{reader.pixel_format} pixels in {index.size[0]} rows"
    return None


def _read_decord(video: EncodedVideo, reader: PyAVReader, positions: list[int]) -> Reading:
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    index = reader.index
    try:
        opened = decord.VideoReader(
            video.path or BytesIO(video.content()), ctx=decord.cpu(0), num_threads=reader.num_threads
        )
        if len(opened) != index.num_frames:
            raise _Doubt("it counts other frames")
        frames = opened.get_batch(positions).asnumpy()
        starts = np.array([opened.get_frame_timestamp(position)[0] for position in positions])
    except (RuntimeError, IndexError, decord.base.DECORDError):
        raise _Doubt("it fails") from None
    return _agreeing(frames, starts, reader, positions)


def _nvdec_doubt(reader: PyAVReader) -> str | None:
    index = reader.index
    if index.codec not in NVDEC_CODECS or reader.pixel_format not in ("yuv420p", "yuvj420p"):
        return f"{reader.pixel_format} pixels of {index.codec}"
    return _torchcodec_doubt(reader)


def _read_nvdec(video: EncodedVideo, reader: PyAVReader, positions: list[int]) -> Reading:
    return _read_torchcodec(video, reader, positions, device="cuda")


def _read_torchcodec(video: EncodedVideo, reader: PyAVReader, positions: list[int], device: str = "cpu") -> Reading:
    from torchcodec.decoders import VideoDecoder

    index = reader.index
    try:
        opened = VideoDecoder(
            video.path or video.content(),
            stream_index=index.stream,
            dimension_order="NHWC",
            num_ffmpeg_threads=reader.num_threads,
            seek_mode="exact",
            device=device,
        )
        if opened.metadata.num_frames != index.num_frames:
            raise _Doubt("it counts other frames")
        batch = opened.get_frames_at(positions)
    except (RuntimeError, IndexError, ValueError):
        raise _Doubt("it fails") from None
    return _agreeing(batch.data.cpu().numpy(), batch.pts_seconds.cpu().numpy(), reader, positions)


def _agreeing(frames: np.ndarray, starts: np.ndarray, reader: PyAVReader, positions: list[int]) -> Reading:
    """The frames, if they have the right form and the times that the index says."""
    index = reader.index
    shapes = [(len(positions), *size, 3) for size in (index.size, index.size[::-1])]  # upright or turned
    if frames.dtype != np.uint8 or frames.shape not in shapes:
        raise _Doubt(f"it gives {frames.dtype} of shape {frames.shape}")
    times = np.array(positions) / index.fps if index.fps else starts
    if index.in_order:
        times = index.times[positions] * index.time_base
        near = 0.5 * float(np.diff(index.times).min(initial=index.times[-1] + 1)) * index.time_base
        if np.abs(times - starts).max() > near:
            raise _Doubt("it gives frames of other times")
    return Reading(frames=frames, timestamps=times)


def _warn_once(subject: str, name: str, text: str) -> None:
    if (subject, name) not in _warned and len(_warned) < MOST_WARNINGS:
        _warned.add((subject, name))
        logger.warning(f"{name}: {text}.")


_warned: set[tuple[str, str]] = set()


def _inspect_pyav() -> DecoderInfo:
    try:
        import av
    except ImportError as error:
        return DecoderInfo(False, reason=_first_line(error))
    version = ".".join(map(str, av.library_versions["libavcodec"]))
    return DecoderInfo(True, av.__version__, getattr(av, "ffmpeg_version_info", None) or _ffmpeg(version))


def _inspect_decord() -> DecoderInfo:
    try:
        import decord
    except (ImportError, OSError, RuntimeError) as error:
        return DecoderInfo(False, reason=_first_line(error))
    folder = os.path.dirname(os.path.dirname(os.path.abspath(decord.__file__)))
    bundled = glob.glob(os.path.join(glob.escape(folder), "decord*.libs", "libavcodec*"))
    found = re.search(r"\.so\.([\d.]+)$", bundled[0]) if bundled else None
    return DecoderInfo(True, decord.__version__, _ffmpeg(found[1]) if found else None)


def _inspect_torchcodec() -> DecoderInfo:
    try:
        import torchcodec
        from torchcodec.decoders import VideoDecoder  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        return DecoderInfo(False, reason=_first_line(error))
    try:
        from torchcodec import ffmpeg_major_version
    except ImportError:  # an older release, which does not tell
        return DecoderInfo(True, torchcodec.__version__)
    if ffmpeg_major_version is None:  # newer releases can be imported without FFmpeg, and fail on every file
        return DecoderInfo(False, torchcodec.__version__, reason="Could not load a version of FFmpeg that it supports")
    return DecoderInfo(True, torchcodec.__version__, str(ffmpeg_major_version))


def _inspect_nvdec() -> DecoderInfo:
    info = _inspect_torchcodec()
    if info.available and not torch.cuda.is_available():
        return DecoderInfo(False, info.version, reason="there is no CUDA device")
    return info


def _ffmpeg(avcodec: str) -> str:
    """FFmpeg's version from that of its libavcodec."""
    major = FFMPEG_OF_AVCODEC.get(int(avcodec.split(".")[0]))
    return f"{major} (libavcodec {avcodec})" if major else f"unknown (libavcodec {avcodec})"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:")


INSPECTIONS: dict[str, Callable[[], DecoderInfo]] = {
    "pyav": _inspect_pyav,
    "decord": _inspect_decord,
    "torchcodec": _inspect_torchcodec,
}
OTHER_DECODERS: dict[str, tuple[Callable[..., Reading], Callable[..., str | None]]] = {
    "decord": (_read_decord, _decord_doubt),
    "torchcodec": (_read_torchcodec, _torchcodec_doubt),
    "nvdec": (_read_nvdec, _nvdec_doubt),
}

__all__ = [
    "DecodedVideo",
    "DecoderInfo",
    "VideoDecodingError",
    "VideoLimits",
    "VideoProbe",
    "VideoLike",
    "available_decoders",
    "decode_in_chunks",
    "decode_video",
    "opened_once",
    "probe_video",
    "source_name",
]
