"""
One encoded video -> frames, read with PyAV.

Two phases: demuxing lists the packets of the best video stream, which tells how many frames there are and when each is
shown; reading then decodes the wanted frames and checks each against that list. Where the list cannot be trusted, or
does not agree with the decoded frames, frames are decoded from the start and counted.
"""

import sys
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import chain, islice
from typing import Any, BinaryIO

import numpy as np

from .video_decoding_index import (
    NO_TIMES,
    SEEKABLE,
    UPRIGHT,
    Keyframe,
    Orientation,
    Packets,
    StreamIndex,
    stored_packets,
)
from .video_decoding_types import Reading, VideoDecodingError, VideoLimits, VideoProbe
from .video_decoding_units import (
    carries_parameters,
    is_needed_by_none,
    starts_afresh,
    tells_orientation,
    tells_references,
    unit_prefix,
)


try:
    import av
    from av.sidedata.sidedata import SideDataContainer
    from av.sidedata.sidedata import Type as SideDataType
    from av.stream import Disposition
    from av.video.reformatter import VideoReformatter

    # Errors of PyAV on broken files: ValueError for text that is not UTF-8, IndexError for streams that disappear.
    BROKEN = (av.FFmpegError, OSError, ValueError, IndexError)
    # A tag that is not UTF-8 must not keep a video from opening. From 19.0 on PyAV takes any tag and has no argument.
    TAG_ERRORS: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
except ImportError:
    av = None  # type: ignore[assignment]

# One thread: left to itself, swscale starts one for every core, for every frame.
RGB_FRAME: dict[str, Any] = {"format": "rgb24", "threads": 1}
PLAIN_FORMATS = ("yuv420p", "yuvj420p")
# Demuxers that a file may be. Playlists and image patterns, which open other files and addresses, are not among them;
# sound is, to tell "no video stream" from "no media file".
DEMUXERS = (
    "mov,matroska,avi,flv,gif,mpegts,mpeg,mpegvideo,ogg,asf,h264,hevc,m4v,h263,h261,vc1,av1,obu,ivf,mjpeg,apng,rm,nut,"
    "mxf,dv,yuv4mpegpipe,jpeg_pipe,png_pipe,webp_pipe,mp3,wav,aac,flac,aiff,caf,amr,ac3"
)
# AVI has no presentation times: those of files with B-frames are made up, and wrong.
WITHOUT_TIMES = ("avi",)
# Other keyframes need this many frames, and one keyframe more, before the first that counts.
RUN_UP = 60
VP8_SHOWN = 0x10
# Codecs whose frames may carry a display matrix.
TURNING_CODECS = ("h264", "hevc")
GUESSED = "the decoder could only guess parts of a frame"
# Jumping over fewer frames than this costs more than decoding them.
WORTH_SEEKING = 12
CACHED_INDICES = 512
CACHED_FRAMES = 20_000
# Packets up to this many bytes are kept from listing to decoding, which saves reading the file twice.
KEPT_BYTES = 64 * 2**20


class _Problem(Exception):
    """Reading stops here; caught where the reading began."""

    def __init__(self, problem: str, reason: str) -> None:
        super().__init__(reason)
        self.problem = problem
        self.reason = reason


_indices: dict[Any, StreamIndex] = {}


class PyAVReader:
    """
    An open video. A context manager for use within one call: an open container survives neither fork nor threads.

    Args:
        file (`str` or `BinaryIO`):
            A path or a seekable binary file.
        name (`str`):
            Name for messages.
        limits ([`VideoLimits`]):
            Upper bounds.
        num_threads (`int`, *optional*, defaults to 1):
            Threads of the decoder, 0 for one a core.
        deadline (`float`, *optional*):
            `time.monotonic()` at which to give up.
        cache_key (*optional*):
            Identity of the file, under which its index is kept for the next call.
        trust_stored (`bool`, *optional*, defaults to `True`):
            Whether the index that a file holds may be used, instead of listing its packets.

    Raises:
        VideoDecodingError: the file cannot be read, has no video, or is beyond `limits`.
        ImportError: PyAV is not installed, or its release cannot be used.
    """

    decoder = "pyav"

    def __init__(
        self,
        file: str | BinaryIO,
        name: str,
        *,
        limits: VideoLimits,
        num_threads: int = 1,
        deadline: float | None = None,
        cache_key: Any = None,
        trust_stored: bool = True,
    ) -> None:
        self.file = file
        self.name = name
        self.limits = limits
        self.num_threads = num_threads
        self.deadline = deadline
        self._container: Any = None
        self._used = False  # whether packets were taken since the container was opened
        self._kept: list[Any] = []
        self._packets: Iterator[Any] = iter(())
        self._frames: Iterator[Any] = iter(())
        try:
            self._open()
            known = _indices.get(cache_key) or (self._stored_index() if trust_stored else None)
            self.index: StreamIndex = self._list_packets() if known is None else known
            self._cache_key = cache_key
            self._remember(cache_key)
            self._check_limits()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "PyAVReader":
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and drop the packets kept in memory."""
        self._kept = []
        self._frames = self._packets = iter(())  # the generator refers to the reader: only the collector would end it
        if self._container is not None:
            self._container.close()
            self._container = None

    @staticmethod
    def forget(cache_key: Any) -> None:
        """
        Drop the index of a file that will not be read again.

        Args:
            cache_key:
                Identity of the file.
        """
        _indices.pop(cache_key, None)

    @property
    def num_frames(self) -> int:
        """Frames in the index."""
        return self.index.num_frames

    @property
    def fps(self) -> float | None:
        """Average frame rate, if it is known."""
        return self.index.fps

    @property
    def duration(self) -> float | None:
        """Seconds, if they are known."""
        return self.index.duration

    @property
    def damaged_packets(self) -> int:
        """Packets that the container marks as incomplete."""
        return self.index.damaged_packets

    @property
    def has_b_frames(self) -> bool:
        """Whether frames are shown in another order than they are stored."""
        return bool(self._stream.codec_context.has_b_frames)

    @property
    def pixel_format(self) -> str:
        """FFmpeg's name of the form of coded pixels."""
        return _pixel_format(self._stream.codec_context)

    def shown(self) -> Orientation:
        """
        How frames are turned for display.

        Returns:
            [`Orientation`]: of the first frame that decodes.
        """
        self._learn_shown()
        return self.index.shown

    def may_turn_midway(self) -> bool:
        """
        Whether frames say themselves how they are turned, beside or against the container. H.264 and HEVC can, in a
        message (SEI) before a picture.

        Returns:
            `bool`: `True` also where the file is of a form in which this is not looked for.
        """
        if self.index.codec not in TURNING_CODECS:
            return False
        self._rewind()
        self._used = True
        prefix = unit_prefix(self.index.codec, self._stream.codec_context.extradata)
        while (packet := self._next_packet()) is not None:
            if not prefix or tells_orientation(self.index.codec, prefix, packet):
                return True
        return False

    def probe(self) -> VideoProbe:
        """
        Facts about the video. One frame is decoded, because only frames tell the rotation.

        Returns:
            [`VideoProbe`]

        Raises:
            VideoDecodingError: no frame decodes.
        """
        index = self.index
        if not self._learn_shown():
            raise self._error(self._why_no_frames())
        height, width = index.shown_size
        return VideoProbe(
            num_frames=index.num_frames,
            fps=index.fps,
            duration=index.duration,
            height=height,
            width=width,
            rotation=index.shown.rotation,
            mirrored=index.shown.mirrored,
            codec=index.codec,
            container=index.container,
            header_frames=index.header_frames,
            damaged_packets=index.damaged_packets,
            timestamps=index.times * index.time_base if index.in_order else None,
        )

    def read(self, positions: Sequence[int]) -> Reading:
        """
        Frames, each verified against the index. No frame is returned if a damaged packet was met on the way. Frames
        that are neither wanted nor needed for those that are may be left undecoded.

        Args:
            positions (`Sequence[int]`):
                Frame numbers, ascending, without repeats.

        Returns:
            [`Reading`]: the frames, or the problem that was met.
        """
        if self.index.seekable:
            reading, shortened = self._collect(positions, seeking=True, checked=True, tolerant=False)
            if reading.problem and self.index.stored:
                return self._read_listed(positions)
            if not (reading.problem and shortened):
                return reading
        return self._collect(positions, seeking=False, checked=self.index.in_order, tolerant=False)[0]

    def _read_listed(self, positions: Sequence[int]) -> Reading:
        """As [`read`], after the packets were listed because the index in the file is not its own."""
        promised = self.num_frames
        _indices.pop(self._cache_key, None)
        self._open()
        self.index = self._list_packets()
        self._remember(self._cache_key)
        if self.num_frames != promised:
            return Reading(problem="miscounted", reason=f"{self.num_frames} frames instead of {promised}")
        return self.read(positions)

    def read_counted(self, positions: Sequence[int]) -> Reading:
        """
        Frames by their number among those that decode; damage is counted.

        Args:
            positions (`Sequence[int]`):
                Numbers, ascending, without repeats.

        Returns:
            [`Reading`]: the frames, or the problem that was met.
        """
        return self._collect(positions, seeking=False, checked=False, tolerant=True)[0]

    def count(self) -> tuple[int, int]:
        """
        Frames that decode and damaged packets of the whole file.

        Returns:
            `tuple[int, int]`: number of frames and number of damaged packets.
        """
        self._start(checked=False, tolerant=True)
        num_frames = 0
        for frame in self._frames:
            if frame.is_corrupt:
                self._note_damage(GUESSED)
            num_frames += 1
        if num_frames and not self._damaged:  # the list of packets was wrong, not the file
            self.index.num_frames = num_frames
            self.index.times = NO_TIMES
        return num_frames, self._damaged

    # ------------------------------------------------------------------ opening

    def _error(self, reason: str, kind: str = "undecodable") -> VideoDecodingError:
        return VideoDecodingError(self.name, self.decoder, reason, kind)

    def _open(self) -> None:
        if av is None:
            raise ImportError("Decoding videos needs PyAV: `pip install av`.")
        self.close()
        if not isinstance(self.file, str):
            self.file.seek(0)
        try:
            self._container = av.open(
                f"file:{self.file}" if isinstance(self.file, str) else self.file,
                # Not `options`: on FLV and MPEG, whose streams turn up late, that crashes PyAV 17.
                container_options={"format_whitelist": DEMUXERS, "protocol_whitelist": "file"},
                timeout=None if self.deadline is None else max(self.deadline - time.monotonic(), 0.001),
                **TAG_ERRORS,
            )
        except av.ExitError:
            raise self._error("opening takes too long", "timeout") from None
        except TypeError as error:  # no fault of the video: every other one would fail as well
            raise ImportError(
                f"PyAV {av.__version__} cannot be used: {error}. Install another release of `av`."
            ) from error
        except BROKEN as error:  # FFmpeg may call what it did not get to read damaged
            self._check_time()
            raise self._error(_words(error)) from None
        self._used = False
        self._stream = self._best_stream()
        context = self._stream.codec_context
        if context is None:
            raise self._error("no decoder for this codec")
        context.options = {"max_pixels": str(self.limits.max_pixels)}
        context.thread_count = self.num_threads
        if self.num_threads != 1:
            context.thread_type = "AUTO"
        self._check_pixels(context.height, context.width)

    def _best_stream(self) -> Any:
        try:
            stream = self._container.streams.best("video")
        except BROKEN as error:
            raise self._error(_words(error)) from None
        if stream is None or stream.disposition & Disposition.attached_pic:
            raise self._error("no video stream", "no_video_stream")
        return stream

    def _rewind(self) -> None:
        """Back to the first packet: those kept, else by seeking where that is exact, else by opening anew."""
        if self._kept:
            self._stream.codec_context.flush_buffers()
            self._packets = iter(self._kept)
            return
        if not self._used:
            self._packets = self._container.demux(self._stream)
            self._used = True
            return
        first = self.index.first_packet
        if self.index.in_order and self.index.container.startswith(SEEKABLE) and first and first[1] is not None:
            self._container.seek(first[1], stream=self._stream, backward=True)
            self._packets = self._container.demux(self._stream)
            packet = next(self._packets, None)
            if packet is not None and (packet.pts, packet.dts, packet.size) == first:
                self._packets = chain([packet], self._packets)
                return
        self._open()
        self._packets = self._container.demux(self._stream)
        self._used = True

    def _check_pixels(self, height: int, width: int) -> None:
        if height * width > self.limits.max_pixels:
            raise self._error(f"{width}x{height} pixels, allowed are {self.limits.max_pixels}", "limit")

    def _check_time(self) -> None:
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise self._error("decoding takes too long", "timeout")

    def _check_limits(self) -> None:
        index, limits = self.index, self.limits
        if index.num_frames == 0:
            raise self._error("the video stream holds no frames", "empty")
        if index.num_frames > limits.max_frames:
            raise self._error(f"more than {limits.max_frames} frames", "limit")
        if index.duration is not None and index.duration > limits.max_duration:
            raise self._error(f"{index.duration:.0f} seconds, allowed are {limits.max_duration:.0f}", "limit")

    # ------------------------------------------------------------------ the index

    def _stored_index(self) -> StreamIndex | None:
        """The index that `hf-videovit prepare` wrote into the file."""
        container, codec = self._container.format.name, _codec_name(self._stream.codec_context)
        if not container.startswith("mov") or codec != "h264":
            return None
        found = stored_packets(self._container.metadata.get("comment", ""), self._stream.frames)
        index = None if found is None else self._make_index(found)
        if index is None or not index.seekable or not index.unit_prefix:
            return None
        index.stored = True
        return index

    def _list_packets(self) -> StreamIndex:
        """Demux everything once."""
        found = Packets(room=KEPT_BYTES)
        context = self._stream.codec_context
        codec = _codec_name(context)
        prefix = unit_prefix(codec, context.extradata)
        self._used = True
        packets = self._container.demux(self._stream)
        while (packet := self._list_packet(packets, found)) is not None:
            found.room -= packet.size
            if found.room >= 0:
                self._kept.append(packet)
            if not packet.size:
                continue
            if found.first is None:
                found.first = (packet.pts, packet.dts, packet.size)
            if packet.is_keyframe and packet.pts is not None:
                found.keys.append((packet.pts, starts_afresh(codec, prefix, packet), found.count))
                found.new_parameters |= carries_parameters(codec, prefix, packet)
            found.count += 1
            found.damaged += packet.is_corrupt
            # Before the start of an edit list, or VP8's frames for reference only: decoded, never shown.
            if packet.is_discard or (codec == "vp8" and not memoryview(packet)[0] & VP8_SHOWN):
                found.hidden = True
                continue
            found.times.append(packet.pts)
            found.last_duration = packet.duration or found.last_duration
            if len(found.times) > self.limits.max_frames:
                raise self._error(f"more than {self.limits.max_frames} frames", "limit")
            if self.deadline is not None:
                self._check_time()
        if found.room < 0 or found.broken_off:
            self._kept = []
        return self._make_index(found)

    def _list_packet(self, packets: Iterator[Any], found: Packets) -> Any:
        try:
            return next(packets, None)
        except av.ExitError:
            raise self._error("reading takes too long", "timeout") from None
        except BROKEN as error:
            self._check_time()
            if not found.times:
                raise self._error(_words(error)) from None
            found.broken_off = True
            found.damaged += 1
            return None

    def _make_index(self, found: Packets) -> StreamIndex:
        stream, container = self._stream, self._container.format.name
        time_base = float(stream.time_base) if stream.time_base else 0.0
        times, rate = NO_TIMES, Fraction(found.fps) if found.fps else stream.average_rate
        timed = not container.startswith(WITHOUT_TIMES)
        if found.times and None not in found.times and time_base:
            times = np.sort(np.array(found.times, dtype=np.int64))
            if timed:
                rate = _true_rate(rate, times, stream.time_base)
            if (times[1:] <= times[:-1]).any():
                times = NO_TIMES
        keyframes: list[tuple[int, int, bool, int]] = []
        if len(times):
            positions = np.searchsorted(times, [at for at, _, _ in found.keys]).tolist()
            keyframes = sorted((place, *key) for place, key in zip(positions, found.keys))
        fps = float(rate or 0) or None
        span = float(times[-1] - times[0]) * time_base if len(times) else 0.0
        duration = len(found.times) / fps if fps else None
        if len(times) and timed:
            last = found.last_duration * time_base or (1 / fps if fps else 0.0)
            duration = span + last or None
        return StreamIndex(
            container=container,
            timed=timed,
            codec=_codec_name(stream.codec_context),
            stream=stream.index,
            num_frames=len(found.times),
            times=times,
            keyframes=keyframes,
            time_base=time_base,
            fps=fps,
            duration=duration,
            header_frames=stream.frames,
            damaged_packets=found.damaged,
            first_packet=found.first,
            size=(stream.codec_context.height, stream.codec_context.width),
            has_hidden_frames=found.hidden,
            needs_first_packet=_remembers_first_packet(stream.codec_context),
            landings={at: position for position, at, _, _ in keyframes},
            unit_prefix=0 if found.new_parameters else self._telling_prefix(),
        )

    def _telling_prefix(self) -> int:
        """[`unit_prefix`] of a stream whose units tell which frames no other frame needs; 0 for others."""
        codec, extradata = _codec_name(self._stream.codec_context), self._stream.codec_context.extradata
        return unit_prefix(codec, extradata) if tells_references(codec, extradata) else 0

    def _remember(self, cache_key: Any) -> None:
        if cache_key is None or cache_key in _indices or self.index.num_frames > CACHED_FRAMES:
            return
        if len(_indices) >= CACHED_INDICES:
            _indices.clear()
        _indices[cache_key] = self.index

    # ------------------------------------------------------------------ reading

    def _start(self, *, checked: bool, tolerant: bool) -> None:
        self._rewind()
        self._frames = self._decode()
        self._position = 0  # of the next frame
        self._running_up = False  # after a jump, until the frame at `_position` comes
        self._missing: set[int] | None = None  # times of wanted frames that the decoder did not get; `None`: all
        self._left_out: set[int] = set()  # times of frames that it will not get
        self._damaged = 0
        self._damage = ""
        self._checked = checked
        self._tolerant = tolerant

    def _collect(
        self, positions: Sequence[int], *, seeking: bool, checked: bool, tolerant: bool
    ) -> tuple[Reading, bool]:
        """The frames, and whether any were jumped over or left out on the way."""
        # Else the first frame is met on the way. In a prepared file all frames are turned alike.
        if seeking and positions[0] >= WORTH_SEEKING and not self.index.stored:
            self._learn_shown()
        self._start(checked=checked, tolerant=tolerant)
        reading = Reading(timestamps=np.empty(len(positions)))
        converter, slot = _Converter(), 0
        runs = self._runs(positions) if seeking else [(None, positions)]
        try:
            for keyframe, wanted in runs:
                if keyframe is not None:
                    self._jump(keyframe)
                if seeking and self.index.unit_prefix:
                    self._missing = set(self.index.times[list(wanted)].tolist())
                for position in wanted:
                    frame = self._frame_at(position)
                    if slot == 0:
                        reading.frames = self._room_for(len(positions))
                    reading.frames[slot] = self._pixels(frame, converter)
                    reading.timestamps[slot] = self._seconds(frame, position)
                    slot += 1
        except _Problem as stop:
            reading = Reading(problem=stop.problem, reason=stop.reason)
        reading.damaged_packets = self._damaged
        return reading, len(runs) > 1 or runs[0][0] is not None or bool(self._left_out)

    def _frame_at(self, wanted: int) -> Any:
        while True:
            frame = next(self._frames, None)
            if frame is None:
                raise _Problem("miscounted", f"only {self._position} of {self.num_frames} frames decode")
            if self._running_up:
                if frame.pts is None or frame.pts < self.index.times[self._position]:
                    continue
                self._running_up = False
            if frame.is_corrupt:
                self._note_damage(GUESSED)
            while self._left_out and self.index.times[self._position] in self._left_out:
                self._position += 1
            if self._checked and frame.pts != self.index.times[self._position]:
                raise _Problem("miscounted", f"frame {self._position} is missing")
            self._position += 1
            if self._position > wanted:
                return frame

    def _decode(self) -> Iterator[Any]:
        """Frames of the packets that are left, up to those that hold the wanted frames."""
        size = self.index.size
        while (packet := self._next_packet()) is not None:
            if not packet.size and packet.dts is not None:  # a frame left out, which would be taken for the end
                continue
            if self._leaves_out(packet):
                continue
            if packet.is_corrupt:
                self._note_damage("incomplete packet")
            try:
                frames = packet.decode()
            except BROKEN as error:
                self._note_damage(_words(error))
                continue
            while frames:  # given away one by one: a frame held longer costs the decoder a fresh buffer
                if (frames[0].height, frames[0].width) != size:
                    self._check_pixels(frames[0].height, frames[0].width)
                if not self.index.knows_shown:
                    self._note_shown(frames[0])
                yield frames.pop(0)

    def _leaves_out(self, packet: Any) -> bool:
        """Whether a packet holds a frame that is neither wanted nor needed for another one."""
        if self._missing is None or packet.pts is None or packet.is_corrupt or packet.is_discard:
            return False
        if packet.pts in self._missing:
            self._missing.discard(packet.pts)
            return False
        if not is_needed_by_none(self.index.codec, self.index.unit_prefix, packet):
            return False
        self._left_out.add(packet.pts)
        return True

    def _next_packet(self) -> Any:
        if self.deadline is not None:
            self._check_time()
        try:
            return next(self._packets, None)
        except av.ExitError:
            raise self._error("reading takes too long", "timeout") from None
        except BROKEN as error:  # the end of what can be read; the decoder still holds frames
            self._note_damage(_words(error))
            last = av.Packet()
            last.stream = self._stream
            return last

    def _note_damage(self, reason: str) -> None:
        if self._running_up:
            return
        self._damaged += 1
        self._damage = self._damage or reason
        if not self._tolerant:
            raise _Problem("damaged", f"damaged at frame {self._position} of {self.num_frames}: {reason}")

    def _why_no_frames(self) -> str:
        return f"no frame decodes ({self._damage})" if self._damage else "no frame decodes"

    def _runs(self, positions: Sequence[int]) -> list[tuple[Keyframe | None, list[int]]]:
        """The positions in runs: those of a run are decoded one after the other from the keyframe that is sought."""
        runs: list[tuple[Keyframe | None, list[int]]] = [(None, [])]
        reached = 0
        for wanted in positions:
            keyframe = self._keyframe_towards(wanted, reached)
            if keyframe is not None:
                runs.append((keyframe, []))
            runs[-1][1].append(wanted)
            reached = wanted + 1
        return [run for run in runs if run[1]]

    def _keyframe_towards(self, wanted: int, reached: int) -> Keyframe | None:
        """
        A keyframe well between two positions, from which to go on. Frames up to it, or to the next one where it does
        not start afresh, will be passed over.
        """
        keyframes = self.index.keyframes
        before = bisect_right(keyframes, (wanted, sys.maxsize)) - 1
        for number in range(before, 0, -1):
            landing, _, clean, _ = keyframes[number]
            if landing - reached < WORTH_SEEKING:
                return None
            if clean or (number < before and wanted - landing >= RUN_UP):
                return keyframes[number]
        return None

    def _jump(self, keyframe: Keyframe) -> None:
        landing, at, clean, number = keyframe
        self._frames = self._decode()
        following = bisect_right(self.index.keyframes, (landing, sys.maxsize))
        self._position = landing if clean else self.index.keyframes[following][0]
        self._running_up = True
        if self._kept:
            self._stream.codec_context.flush_buffers()
            self._packets = islice(self._kept, number, None)
            return
        try:
            self._container.seek(at, stream=self._stream, backward=True)
            self._packets = self._container.demux(self._stream)
            packet = next(self._packets, None)
        except BROKEN as error:
            raise _Problem("miscounted", _words(error)) from None
        if packet is None or self.index.landings.get(packet.pts, sys.maxsize) > landing:
            raise _Problem("miscounted", "seeking lands elsewhere")
        if self.index.stored and not starts_afresh(self.index.codec, self.index.unit_prefix, packet):
            raise _Problem("miscounted", "the keyframe is none")
        self._packets = chain([packet], self._packets)

    def _learn_shown(self) -> bool:
        """Decode the first frame for the shape of all; `False` if none decodes."""
        if not self.index.knows_shown:
            self._start(checked=False, tolerant=True)
            next(self._frames, None)
        return self.index.knows_shown

    def _note_shown(self, frame: Any) -> None:
        self.index.shown = _orientation(frame)
        self.index.knows_shown = True
        if 0 in self.index.size:
            self.index.size = (frame.height, frame.width)

    def _room_for(self, num_frames: int) -> np.ndarray:
        height, width = self.index.shown_size
        needed = num_frames * height * width * 3
        if needed > self.limits.max_decoded_bytes:
            allowed = self.limits.max_decoded_bytes
            raise self._error(f"{num_frames} frames take {needed} bytes, allowed are {allowed}", "limit")
        return np.empty((num_frames, height, width, 3), dtype=np.uint8)

    def _pixels(self, frame: Any, converter: "_Converter") -> np.ndarray:
        """A frame as displayed. Where a picture changes its shape midway, it is scaled to that of the first frame."""
        orientation = _orientation(frame)
        height, width = self.index.shown_size
        if orientation.rotation % 180:
            height, width = width, height
        try:
            pixels = converter.rgb(frame, height, width)
        except BROKEN as error:
            raise _Problem("damaged", f"no RGB from frame {self._position - 1}: {_words(error)}") from None
        pixels = np.rot90(pixels, k=orientation.rotation // 90)
        return pixels[:, ::-1] if orientation.mirrored else pixels

    def _seconds(self, frame: Any, position: int) -> float:
        index = self.index
        if index.timed and frame.pts is not None:
            return frame.pts * index.time_base
        start = float(index.times[0]) * index.time_base if len(index.times) else 0.0
        return start + position / index.fps if index.fps else float("nan")


def _true_rate(declared: Fraction | None, times: np.ndarray, time_base: Fraction) -> Fraction | None:
    """
    Frames a second that the listed times give. The declared rate is kept where it agrees with them but for the
    rounding of times: it is the exact number.
    """
    span = int(times[-1] - times[0])
    if span == 0:
        return declared
    steps = len(times) - 1
    if declared and abs(steps / (declared * time_base) - span) <= 1:
        return declared
    return steps / (span * Fraction(time_base))


class _Converter:
    """
    Frames to RGB by the `scale` filter, which is what the `ffmpeg` command line uses.

    swscale called directly, which PyAV does, is faster for small frames. It gives the same pixels for common 4:2:0
    frames. It gives others for more than 8 bits, odd heights (another interpolation of colours) and interlaced frames
    (fields are converted apart).
    """

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()
        self._graph: Any = None
        self._form: tuple | None = None

    def rgb(self, frame: Any, height: int, width: int) -> np.ndarray:
        """The frame in uint8, scaled to a size."""
        plain = frame.format.name in PLAIN_FORMATS and height % 2 == 0 and not frame.interlaced_frame
        if plain and (frame.height, frame.width) == (height, width):
            return self._reformatter.reformat(frame, **RGB_FRAME).to_ndarray()
        form = (frame.height, frame.width, frame.format.name, frame.colorspace, frame.color_range, height, width)
        if form != self._form:
            self._graph, self._form = _scaling_graph(frame, height, width), form
        self._graph.push(frame)
        return self._graph.pull().to_ndarray()


def _scaling_graph(frame: Any, height: int, width: int) -> Any:
    graph = av.filter.Graph()
    graph.threads = 1
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
    scale, form = graph.add("scale", f"{width}:{height}"), graph.add("format", RGB_FRAME["format"])
    graph.link_nodes(source, scale, form, graph.add("buffersink")).configure()
    return graph


def _orientation(frame: Any) -> Orientation:
    """
    How a frame is turned for display, from its display matrix: `(x, y)` goes to `(a * x + c * y, b * x + d * y)`. Its
    nearest of the eight ways to turn and mirror a picture by right angles.
    """
    try:
        # not `frame.side_data`: it refers to the frame, which keeps it, so that pixels wait for the garbage collector
        matrix = SideDataContainer(frame).get(SideDataType.DISPLAYMATRIX)  # type: ignore[call-arg]
    except ValueError:  # PyAV does not know another entry beside it
        return Orientation(round(frame.rotation / 90) % 4 * 90, False)
    if matrix is None:
        return UPRIGHT
    a, b, _, c, d = np.frombuffer(matrix, dtype=np.int32)[:5].tolist()
    sideways = abs(b) + abs(c) > abs(a) + abs(d)
    left, up = (c < 0, b < 0) if sideways else (a < 0, d < 0)  # whether x and y are reversed
    mirrored = (left == up) if sideways else (left != up)
    return Orientation((90 if up else 270) if sideways else (180 if up else 0), mirrored)


def _remembers_first_packet(context: Any) -> bool:
    """
    Whether frames after a keyframe cannot be decoded from that keyframe alone.

    FFmpeg reads 4:4:4 H.264 of old x264 versions differently, and their version stands in the first packet only.
    """
    return _codec_name(context) == "h264" and _pixel_format(context).startswith(("yuv444", "yuvj444", "gbr"))


def _pixel_format(context: Any) -> str:
    """Its name; empty where no frame was decoded, for which PyAV 17.0.1's own `pix_fmt` ends the process."""
    return context.format.name if context.format is not None else ""


def _codec_name(context: Any) -> str:
    """`"av1"` rather than the library that decodes it."""
    return context.codec.canonical_name


def _words(error: BaseException) -> str:
    """FFmpeg's words without file names and numbers."""
    text = error.strerror if isinstance(error, OSError) or (av and isinstance(error, av.FFmpegError)) else str(error)
    return (text or type(error).__name__).strip().rstrip(".")
