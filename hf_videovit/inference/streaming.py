"""
Classification of frames as they come: from a camera, a network stream or a file.

The last frames are a window, which is treated as a whole video of that length: the checkpoint's own sampling, views
and merging. Each frame is decoded and processed once, however many windows share it. No activations of the model are
shared: in all six families a frame's activations depend on the frames around it, so the answer would differ.
"""

import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import av
import numpy as np
import torch
from transformers.video_utils import VideoMetadata

from ..modeling.video_decoding import decode_in_chunks, probe_video
from ..modeling.video_decoding_types import VideoDecodingError


DEFAULT_SECONDS = 2.0  # window of a protocol that spreads a clip over the whole video
CHUNK_BYTES = 64 * 2**20
DEFAULT_FPS = 30.0  # of a source that states no rate
LONG = 100_000  # frames of a video in which the span of a clip is looked up
LIVE = ("rtsp://", "rtsps://", "rtmp://", "rtp://", "udp://", "tcp://", "srt://")
CAMERA = "camera:"


@dataclass(frozen=True)
class StreamAnswer:
    """
    The answer for a window.

    Args:
        frame (`int`):
            Number of the last frame of the window, from 0.
        seconds (`float`):
            Time of that frame in the stream.
        predictions (`list[dict]`):
            Labels with scores, best first.
        latency (`float`):
            Seconds from the arrival of the last frame to the answer.
        skipped (`int`, *optional*, defaults to 0):
            Windows so far that were skipped because the model was slower than the stream.
    """

    frame: int
    seconds: float
    predictions: list[dict[str, Any]]
    latency: float
    skipped: int = 0


@dataclass
class _Frame:
    """A frame of the stream. `pixel_values` `(views, 1, channels, height, width)` once a window has used it."""

    number: int
    seconds: float
    pixels: np.ndarray
    arrival: float
    pixel_values: torch.Tensor | None = field(default=None, repr=False)


class StreamingClassifier:
    """
    Classifies the last frames of a stream every few frames.

    Args:
        classifier ([`~pipeline.ClipClassificationPipeline`]):
            `pipeline("video-classification", model=...)`.
        fps (`float`):
            Frames per second of the stream.
        every (`int`, *optional*):
            Frames between two answers. Defaults to a quarter of the window.
        seconds (`float`, *optional*):
            Length of a window. Defaults to that of one clip of the checkpoint's protocol, or to 2 seconds where the
            protocol spreads a clip over the whole video.
        top_k (`int`, *optional*, defaults to 5):
            Largest number of predictions in an answer.

    Raises:
        ValueError: an argument is out of range.

    Example:

    ```python
    >>> from transformers import pipeline

    >>> from hf_videovit.inference.streaming import StreamingClassifier

    >>> stream = StreamingClassifier(pipeline("video-classification", model="model"), fps=30.0)
    >>> for frame in frames:  # (height, width, 3), uint8
    ...     answer = stream.push(frame)
    ...     if answer is not None:
    ...         print(answer.seconds, answer.predictions[0])
    ```"""

    def __init__(
        self,
        classifier: Any,
        *,
        fps: float,
        every: int | None = None,
        seconds: float | None = None,
        top_k: int = 5,
    ):
        for name, value in (("fps", fps), ("every", every), ("seconds", seconds), ("top_k", top_k)):
            if value is not None and not value > 0:
                raise ValueError(f"`{name}` must be above 0, got {value}.")
        self.classifier, self.fps, self.top_k = classifier, fps, top_k
        self.window = self._window_frames(seconds)
        self.every = every or max(1, self.window // 4)
        self.indices = self._sampled(self.window)
        self._frames: deque[_Frame] = deque(maxlen=self.window)
        self._count = 0
        self._answered = False

    def push(self, frame: np.ndarray, seconds: float | None = None) -> StreamAnswer | None:
        """
        Add the next frame.

        Args:
            frame (`np.ndarray` of shape `(height, width, 3)`):
                The frame, RGB in uint8.
            seconds (`float`, *optional*):
                Its time. Defaults to its number by `fps`.

        Returns:
            [`StreamAnswer`], or `None` between two answers and before the first window is full.

        Raises:
            ValueError: the frame has another shape or type.
        """
        self.add(frame, seconds)
        if not self._is_due(self._count):
            return None
        return self._answer(list(self._frames))

    def add(self, frame: np.ndarray, seconds: float | None = None) -> None:
        """
        Add the next frame without an answer.

        Args:
            frame (`np.ndarray` of shape `(height, width, 3)`):
                The frame, RGB in uint8.
            seconds (`float`, *optional*):
                Its time. Defaults to its number by `fps`.

        Raises:
            ValueError: the frame has another shape or type.
        """
        frame = np.asarray(frame)
        if frame.ndim != 3 or frame.shape[-1] != 3 or frame.dtype != np.uint8:
            raise ValueError(f"`frame` must be (height, width, 3) in uint8, got {frame.shape} in {frame.dtype}.")
        at = self._count / self.fps if seconds is None else seconds
        self._frames.append(_Frame(self._count, at, frame, time.perf_counter()))
        self._count += 1

    def finish(self) -> StreamAnswer | None:
        """
        End the stream.

        Returns:
            [`StreamAnswer`] of all frames, if the stream was shorter than a window; else `None`.
        """
        if self._answered or not self._frames:
            return None
        return self._answer(list(self._frames))

    def classify(self, frames: Iterable[tuple[float, np.ndarray]]) -> Iterator[StreamAnswer]:
        """
        Classify all windows of a stream. It is read as fast as the model answers.

        Args:
            frames (`Iterable[tuple[float, np.ndarray]]`):
                Times and frames, such as those of a [`FileSource`].

        Yields:
            [`StreamAnswer`]
        """
        for seconds, frame in frames:
            answer = self.push(frame, seconds)
            if answer is not None:
                yield answer
        last = self.finish()
        if last is not None:
            yield last

    def follow(self, frames: Iterable[tuple[float, np.ndarray]]) -> Iterator[StreamAnswer]:
        """
        Classify a stream that does not wait, such as that of a camera. It is read in a thread. An answer is for the
        newest window that is due: where the model is slower than the stream, windows in between are skipped and
        counted, so the latency stays that of one forward pass. No window lacks a frame.

        Args:
            frames (`Iterable[tuple[float, np.ndarray]]`):
                Times and frames in real time.

        Yields:
            [`StreamAnswer`]

        Raises:
            Exception: any exception of the stream.
        """
        changed, stopped = threading.Condition(), threading.Event()
        ended: list[Exception | None] = []
        due: list[list[_Frame]] = []  # the newest window that is due
        skipped = 0

        def read() -> None:
            nonlocal skipped
            problem = None
            try:
                for seconds, frame in frames:
                    if stopped.is_set():
                        return
                    self.add(frame, seconds)
                    if self._is_due(self._count):
                        with changed:
                            skipped += len(due)
                            due[:] = [list(self._frames)]
                            changed.notify()
            except Exception as error:  # raised in the thread that uses the answers
                problem = error
            with changed:
                ended.append(problem)
                changed.notify()

        threading.Thread(target=read, daemon=True).start()
        try:
            while True:
                with changed:
                    changed.wait_for(lambda: due or ended)
                    window, missed = (due.pop() if due else None), skipped
                if window is not None:
                    yield self._answer(window, missed)
                elif ended[0] is not None:
                    raise ended[0]
                else:
                    break
            last = self.finish()
            if last is not None:
                yield last
        finally:
            stopped.set()

    def _is_due(self, count: int) -> bool:
        return count >= self.window and (count - self.window) % self.every == 0

    def _window_frames(self, seconds: float | None) -> int:
        if seconds is not None:
            return max(1, round(seconds * self.fps))
        span = int(np.ptp(self._sampled(LONG)[0])) + 1
        if span > LONG // 2:
            return max(self._sampled(LONG).shape[1], round(DEFAULT_SECONDS * self.fps))
        return span

    def _sampled(self, length: int) -> np.ndarray:
        """Frames `(clips, frames)` of a video of this length that the protocol reads; equal clips once."""
        metadata = VideoMetadata(total_num_frames=length, fps=self.fps, duration=length / self.fps)
        return np.unique(np.atleast_2d(self.classifier.video_processor.sample_frames(metadata)), axis=0)

    def _answer(self, window: list[_Frame], skipped: int = 0) -> StreamAnswer:
        self._answered = True
        indices = self.indices if len(window) == self.window else self._sampled(len(window))
        clips = [torch.cat([self._processed(window[index]) for index in clip], dim=1) for clip in indices]
        views = torch.cat(clips)  # (clips * crops, frames, channels, height, width)
        pixel_values = views[None] if len(views) > 1 else views
        outputs = self.classifier.forward({"pixel_values": [pixel_values], "errors": [None]})
        predictions = self.classifier.postprocess(outputs, top_k=self.top_k)
        last = window[-1]
        return StreamAnswer(last.number, last.seconds, predictions, time.perf_counter() - last.arrival, skipped)

    def _processed(self, frame: _Frame) -> torch.Tensor:
        """The frame as the model takes it, in each crop: `(crops, 1, channels, height, width)`."""
        if frame.pixel_values is None:
            clip = torch.from_numpy(frame.pixels).permute(2, 0, 1)[None]
            options = {"do_sample_frames": False, "input_data_format": "channels_first", "return_tensors": "pt"}
            pixel_values = self.classifier.video_processor([clip], **options)["pixel_values"]
            frame.pixel_values = pixel_values[0] if pixel_values.ndim == 6 else pixel_values
        return frame.pixel_values


def latency_summary(answers: Sequence[StreamAnswer]) -> str:
    """
    The latencies of a stream in a line.

    Args:
        answers (`Sequence[StreamAnswer]`):
            Its answers.

    Returns:
        `str`
    """
    if not answers:
        return "no answers: the stream had no frames"
    half, most = np.percentile([one.latency for one in answers], (50, 95))
    return (
        f"{len(answers)} answers, {answers[-1].skipped} windows skipped, latency {1e3 * half:.0f} ms (median), "
        f"{1e3 * most:.0f} ms (95 %)"
    )


def is_live(source: str) -> bool:
    """
    Whether a source sends its frames in real time.

    Args:
        source (`str`):
            A path, an address, or a camera such as `"camera:0"`.

    Returns:
        `bool`
    """
    return source.startswith((CAMERA, *LIVE))


class FileSource:
    """
    The frames of a file, in order.

    Args:
        source (`str`):
            Path of a file.
        processor ([`ClipVideoProcessor`]):
            Its decoder, policy for damaged files and isolation are used.

    Raises:
        VideoDecodingError: the file cannot be read.

    Attributes:
        fps (`float`): the rate that the file states, else 30.
    """

    def __init__(self, source: str, processor: Any):
        self.source, self.processor = source, processor
        probe = probe_video(source, **processor.probe_options)
        self.fps = probe.fps or DEFAULT_FPS
        times = [] if probe.timestamps is None else list(probe.timestamps)
        self._times = [float(one - times[0]) for one in times]

    def __iter__(self) -> Iterator[tuple[float, np.ndarray]]:
        chunks = decode_in_chunks(self.source, CHUNK_BYTES, **self.processor.decode_options)
        for number, frame in enumerate(frame for chunk in chunks for frame in chunk.frames):
            yield self._times[number] if number < len(self._times) else number / self.fps, frame


def in_real_time(frames: Iterable[tuple[float, np.ndarray]]) -> Iterator[tuple[float, np.ndarray]]:
    """
    Frames no sooner than their times, as a camera would send them.

    Args:
        frames (`Iterable[tuple[float, np.ndarray]]`):
            Times and frames.

    Yields:
        `tuple[float, np.ndarray]`
    """
    start = time.perf_counter()
    for seconds, frame in frames:
        time.sleep(max(0.0, start + seconds - time.perf_counter()))
        yield seconds, frame


class LiveSource:
    """
    A camera or a network stream, opened by FFmpeg. Frames come as they are sent: no rotation is applied.

    Args:
        source (`str`):
            An address (`rtsp://`, `udp://`, `http://`, ...), or `"camera:NUMBER"`.
        timeout (`float`, *optional*, defaults to 10.0):
            Seconds to wait for the source to open, and for each packet.

    Raises:
        VideoDecodingError: the source cannot be opened, or has no video.

    Attributes:
        fps (`float`): the rate that the source states, else 30.
    """

    def __init__(self, source: str, timeout: float = 10.0):
        self.source = source
        options: dict[str, Any] = {"timeout": timeout}
        address = source
        if source.startswith(CAMERA):
            address, options["format"] = _camera(source.removeprefix(CAMERA))
        try:
            self._container = av.open(address, **options)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise VideoDecodingError(source, "pyav", f"cannot be opened: {error}") from error
        if not self._container.streams.video:
            self._container.close()
            raise VideoDecodingError(source, "pyav", "has no video stream", "no_video_stream")
        stream: Any = self._container.streams.video[0]
        self.fps = float(stream.average_rate or stream.guessed_rate or DEFAULT_FPS)

    def __iter__(self) -> Iterator[tuple[float, np.ndarray]]:
        first = None
        try:
            for number, frame in enumerate(self._container.decode(video=0)):
                at: Any = frame.time if frame.time is not None else number / self.fps
                first = at if first is None else first
                yield float(at - first), frame.to_ndarray(format="rgb24")
        except (av.FFmpegError, OSError) as error:
            raise VideoDecodingError(self.source, "pyav", f"ended with an error: {error}") from error
        finally:
            self._container.close()


def _camera(number: str) -> tuple[str, str]:
    """Address and FFmpeg's input format of a camera on this system."""
    if sys.platform == "darwin":
        return number, "avfoundation"
    if sys.platform == "win32":
        return f"video={number}", "dshow"
    return f"/dev/video{number}", "v4l2"


__all__ = [
    "FileSource",
    "LiveSource",
    "StreamAnswer",
    "StreamingClassifier",
    "in_real_time",
    "is_live",
    "latency_summary",
]
