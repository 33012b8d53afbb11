"""Read a clip to its last frame and encode it at a smaller size."""

import dataclasses
import io
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.codec.context import Flags

from ...modeling.video_decoding import DEFAULT_LIMITS, VideoDecodingError, VideoProbe, decode_video, probe_video
from ...modeling.video_decoding_index import StreamIndex, stored_text
from ...modeling.video_decoding_pyav import PyAVReader


Video = str | Path | dict[str, Any]
CHUNK_BYTES = 128 * 2**20  # size of the decoded frames in memory
TIME_BASE = 90_000  # ticks per second, as in MPEG
KEEPABLE = (".mp4", ".m4v", ".mov")
# ITU-R BT.601, studio range. Rows are Y, Cb and Cr without their offsets.
RGB_TO_YUV = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]) / 255
RGB_TO_YUV = RGB_TO_YUV.astype(np.float32)
MAX_PSNR = 100.0  # dB, of frames without any error
SLACK = 1.0  # seconds; a file that is longer than its clip by less than this is not cut


@dataclass(frozen=True)
class EncodingSettings:
    """
    How clips are encoded.

    Args:
        short_side (`int`, *optional*, defaults to 256):
            Upper bound of the shorter side of the frames, in pixels. `None` keeps all sizes.
        crf (`int`, *optional*, defaults to 18):
            Constant rate factor of H.264, 0 to 51. A smaller value gives better quality and larger files.
        keyframe_every (`int`, *optional*, defaults to 48):
            Largest distance between two keyframes, in frames.
        reencode (`bool`, *optional*, defaults to `False`):
            Whether to encode every clip. By default a file is copied if it is H.264 in MP4, upright, small enough and
            needs no cut.
        references_every (`int`, *optional*):
            Distance of the frames that others are decoded from, in frames, 1 to 16. The frames between can then be
            left undecoded, and the file is written to be decoded fast: without the entropy coding and the filter that
            cost a decoder most, and without the tricks of x264 that please the eye and change the pixels. By default
            x264 chooses.

    Raises:
        ValueError: a value is out of range.
    """

    short_side: int | None = 256
    crf: int = 18
    keyframe_every: int = 48
    reencode: bool = False
    references_every: int | None = None

    def __post_init__(self) -> None:
        if self.short_side is not None and self.short_side < 16:
            raise ValueError(f"`short_side` must be at least 16, got {self.short_side}")
        if not 0 <= self.crf <= 51:
            raise ValueError(f"`crf` must be between 0 and 51, got {self.crf}")
        if self.keyframe_every < 1:
            raise ValueError(f"`keyframe_every` must be at least 1, got {self.keyframe_every}")
        if self.references_every is not None and not 1 <= self.references_every <= 16:
            raise ValueError(f"`references_every` must be between 1 and 16, got {self.references_every}")

    def x264_options(self) -> dict[str, str]:
        """The options of x264."""
        # The macroblock tree of x264 makes the bytes differ from run to run on processors with AVX-512.
        options: dict[str, int | str] = {"crf": self.crf, "preset": "veryfast", "g": self.keyframe_every, "mbtree": 0}
        if self.references_every is not None:
            options |= {"preset": "medium", "tune": "fastdecode", "bf": self.references_every - 1, "b_strategy": 0}
            options["x264-params"] = "b-pyramid=none:psy=0:aq-mode=0:chroma-qp-offset=-2"
        return {name: str(value) for name, value in options.items()}


@dataclass(frozen=True)
class EncodedClip:
    """
    A clip that was read to its end and is ready to be stored.

    Args:
        content (`bytes`):
            Content of the file.
        suffix (`str`):
            Suffix of the file.
        probe ([`VideoProbe`]):
            Size, rate and length of the video.
        kept (`bool`):
            Whether the file is a copy of the source.
        psnr (`float`, *optional*):
            Peak signal-to-noise ratio of the luma of all frames, in dB, against the resized frames of the source; 100
            if they are equal. Copies have none.
    """

    content: bytes
    suffix: str
    probe: VideoProbe
    kept: bool
    psnr: float | None = None


def encode_clip(
    path: str | Path,
    settings: EncodingSettings,
    start: float | None = None,
    end: float | None = None,
    exact: bool = False,
    fps: float | None = None,
) -> EncodedClip:
    """
    Read a clip to its end and encode it. The same input gives the same bytes with the same versions of FFmpeg and
    x264.

    Args:
        path (`str` or `Path`):
            The video.
        settings ([`EncodingSettings`]):
            How to encode it.
        start, end (`float`, *optional*):
            Start and end of the clip in the video, in seconds.
        exact (`bool`, *optional*, defaults to `False`):
            Whether a video that is less than a second longer than the clip is cut too.
        fps (`float`, *optional*):
            Frame rate of a folder of pictures.

    Returns:
        [`EncodedClip`]: the encoded clip.

    Raises:
        VideoDecodingError: the video or the wanted part of it is damaged or missing.
    """
    video: Video = path if fps is None else {"path": str(path), "fps": fps}
    probe = probe_video(video)
    indices = np.arange(probe.num_frames)
    if start is not None and (exact or end is None or (probe.duration or 0) > end - start + SLACK):
        indices = _frames_between(path, probe, start, math.inf if end is None else end)
    height, width = _smaller(probe.height, probe.width, settings.short_side)
    # Smaller videos keep their size. Odd sides lose a pixel, because 4:2:0 needs even sides.
    untouched = (height, width) == (probe.height, probe.width) and len(indices) == probe.num_frames
    upright = probe.rotation == 0 and not probe.mirrored
    plain = Path(path).suffix.lower() in KEEPABLE and probe.codec == "h264" and upright
    if untouched and plain and not settings.reencode:
        for _ in _read(video, probe, indices):
            continue
        content = Path(path).read_bytes()
        return EncodedClip(content, Path(path).suffix.lower(), probe, kept=True)
    content, psnr = _encode(_read(video, probe, indices), probe, (height, width), settings)
    if settings.references_every is not None:
        content = _with_index(content, probe.fps)
    written = probe_video(content)
    if written.num_frames != len(indices):
        reason = f"{len(indices)} frames were written, but {written.num_frames} can be read back"
        raise VideoDecodingError(str(path), "pyav", reason)
    return EncodedClip(content, ".mp4", written, kept=False, psnr=psnr)


def _frames_between(path: str | Path, probe: VideoProbe, start: float, end: float) -> np.ndarray:
    times = np.arange(probe.num_frames) / (probe.fps or 25.0) if probe.timestamps is None else probe.timestamps
    indices = np.flatnonzero((times - times[0] >= start) & (times - times[0] < end))
    if not len(indices):
        raise VideoDecodingError(str(path), "pyav", f"no frame between {start:g} and {end:g} s", "empty")
    return indices


def _smaller(height: int, width: int, short_side: int | None) -> tuple[int, int]:
    """Height and width to encode at: `short_side` is an upper bound, the aspect ratio is kept, both are even."""
    share = 1.0 if short_side is None else min(1.0, short_side / min(height, width))
    if share == 1.0:
        return max(2, height - height % 2), max(2, width - width % 2)
    return max(2, 2 * round(height * share / 2)), max(2, 2 * round(width * share / 2))


def _read(video: Video, probe: VideoProbe, indices: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Frames and their times, in chunks that fit into memory. Damage anywhere raises an error."""
    step = max(16, CHUNK_BYTES // (probe.height * probe.width * 3))
    for first in range(0, len(indices), step):
        chunk = indices[first : first + step]
        decoded = decode_video(video, chunk, policy="strict")
        times = decoded.timestamps
        yield decoded.frames, chunk / (probe.fps or 25.0) if times is None or not len(times) else times


def _encode(
    chunks: Iterator[tuple[np.ndarray, np.ndarray]],
    probe: VideoProbe,
    size: tuple[int, int],
    settings: EncodingSettings,
) -> tuple[bytes, float]:
    """The file and its PSNR."""
    height, width = size
    file = io.BytesIO()
    begin, last = None, -1
    errors: list[int] = []
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(probe.fps or 25.0).limit_denominator(1001))
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.codec_context.time_base = Fraction(1, TIME_BASE)
        stream.codec_context.thread_count = 1  # the bytes depend on the number of threads
        stream.codec_context.flags |= Flags.psnr.value  # packets tell their error; their bytes stay the same
        stream.options = settings.x264_options()
        for frames, times in chunks:
            for pixels, time in zip(frames, times):
                begin = time if begin is None else begin
                if pixels.shape[:2] != size:
                    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
                    frame = frame.reformat(width=width, height=height, interpolation="BICUBIC", threads=1)
                    pixels = frame.to_ndarray()
                frame = av.VideoFrame.from_ndarray(to_yuv420(pixels[None])[0], format="yuv420p")
                last = max(last + 1, round((time - begin) * TIME_BASE))
                frame.pts, frame.time_base = last, Fraction(1, TIME_BASE)
                errors += _written(container, stream.encode(frame))
        errors += _written(container, stream.encode(None))
    error = sum(errors) / (len(errors) * height * width)
    return file.getvalue(), min(MAX_PSNR, 10 * math.log10(255**2 / error) if error else MAX_PSNR)


def _written(container: av.container.OutputContainer, packets: list[av.Packet]) -> list[int]:
    """Write packets. Returns the sum of squared errors of the luma of each."""
    # AV_PKT_DATA_QUALITY_STATS: 4 bytes of quality, the type and the number of planes, and 8 bytes of error per plane
    errors = [struct.unpack_from("<q", bytes(packet.get_sidedata("quality_stats")), 8)[0] for packet in packets]
    container.mux(packets)
    return errors


def _with_index(content: bytes, fps: float | None) -> bytes:
    """
    The same packets in a file that tells its frames, times, keyframes and rate, so that no reader has to list them.
    The rate is that of the source: times that are rounded give another one, and another one other frames.
    """
    file, index = io.BytesIO(), dataclasses.replace(_listed(content), fps=fps)
    with av.open(io.BytesIO(content)) as source, av.open(file, "w", format="mp4") as target:
        target.metadata["comment"] = stored_text(index)
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    written = _listed(file.getvalue())
    same = np.array_equal(written.times, index.times) and written.keyframes == index.keyframes
    if not (same and written.seekable and all(clean for _, _, clean, _ in written.keyframes)):
        raise VideoDecodingError("<encoded clip>", "pyav", "its index would be wrong")
    return file.getvalue()


def _listed(content: bytes) -> StreamIndex:
    with PyAVReader(io.BytesIO(content), "<encoded clip>", limits=DEFAULT_LIMITS, trust_stored=False) as reader:
        return reader.index


def to_yuv420(frames: np.ndarray) -> np.ndarray:
    """
    Convert RGB frames to 8-bit planes of ITU-R BT.601 in studio range. A chroma sample is the mean of four pixels;
    PyAV's own conversion takes it from one pixel.

    Args:
        frames (`np.ndarray` of shape `(num_frames, height, width, 3)`):
            uint8 frames with even sides.

    Returns:
        `np.ndarray` of shape `(num_frames, height * 3 / 2, width)`: uint8 planes.
    """
    num_frames, height, width, _ = frames.shape
    luma, blue, red = np.moveaxis(frames.astype(np.float32) @ RGB_TO_YUV.T, -1, 0)  # each (num_frames, height, width)
    corners = [(slice(None), slice(row, None, 2), slice(column, None, 2)) for row in (0, 1) for column in (0, 1)]
    chroma = [sum(plane[corner] for corner in corners).reshape(num_frames, -1) / 4 + 128 for plane in (blue, red)]
    planes = np.concatenate([luma.reshape(num_frames, -1) + 16, *chroma], axis=1)
    return np.rint(planes).astype(np.uint8).reshape(num_frames, height * 3 // 2, width)
