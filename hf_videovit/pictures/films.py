"""Films: pictures at their times, and videos with boxes and labels drawn on them."""

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torchvision.utils import draw_bounding_boxes

from ..modeling.video_decoding import decode_video, probe_video


FILM_MARK = "drawn by hf_videovit"  # comment in the file
FRAMES_AT_ONCE = 32
CLOCK = 90_000  # ticks of a second, as in MPEG
COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000")
MOST_LABELS = 3


def write_labelled_film(
    video: Any, answers: Sequence[dict[str, Any]], path: str | Path, *, isolate: bool = False
) -> Path:
    """
    Write a film with a box around each person and the names of their actions.

    The boxes and names of a key-frame are shown from halfway after the one before to halfway before the next. Sound is
    left out.

    Args:
        video:
            The video, in any form that is decoded.
        answers (`Sequence[dict]`):
            Of `pipeline("action-detection")`.
        path (`str` or `Path`):
            The film; .mp4.
        isolate (`bool`, *optional*, defaults to `False`):
            Whether to decode in a separate process, for files of unknown origin.

    Returns:
        `Path`: the film's file.

    Raises:
        ValueError: `path` does not end in .mp4, or there are no answers.
        VideoDecodingError: the video cannot be read.
    """
    path = Path(path)
    if path.suffix != ".mp4":
        raise ValueError(f"`path` must end in .mp4, got {path.name!r}")
    if not answers:
        raise ValueError("`answers` must hold at least one key-frame, got none")
    probe = probe_video(video, isolate=isolate)
    times = probe.timestamps
    if times is None:
        times = np.arange(probe.num_frames) / (probe.fps or 25)
    times = times - times[0]
    moments = np.array([answer["time"] for answer in answers])
    nearest = np.abs(times[:, None] - moments).argmin(axis=1)

    def frames() -> Iterator[tuple[float, np.ndarray]]:
        for start in range(0, len(times), FRAMES_AT_ONCE):
            chosen = np.arange(start, min(start + FRAMES_AT_ONCE, len(times)))
            for index, pixels in zip(chosen, decode_video(video, chosen, isolate=isolate).frames):
                yield times[index], draw_people(pixels, answers[nearest[index]]["people"])

    return write_film(frames(), path, Fraction(probe.fps or 25).limit_denominator(1001))


def write_film(frames: Iterable[tuple[float, np.ndarray]], path: str | Path, rate: Fraction) -> Path:
    """
    Write pictures as a film. A side with an odd number of pixels loses one.

    Args:
        frames (`Iterable[tuple[float, np.ndarray]]`):
            Time in seconds and picture, uint8 of shape `(height, width, 3)`, in temporal order.
        path (`str` or `Path`):
            The film; .mp4.
        rate (`Fraction`):
            Frames of a second, as the file states it.

    Returns:
        `Path`: the film's file.

    Raises:
        ValueError: `path` does not end in .mp4.
    """
    path = Path(path)
    if path.suffix != ".mp4":
        raise ValueError(f"`path` must end in .mp4, got {path.name!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        container.metadata["comment"] = FILM_MARK
        stream = container.add_stream("libx264", rate=rate)
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, CLOCK)
        for number, (seconds, pixels) in enumerate(frames):
            if number == 0:
                stream.height, stream.width = (side - side % 2 for side in pixels.shape[:2])  # H.264 needs even
            kept = np.ascontiguousarray(pixels[: stream.height, : stream.width])
            frame = av.VideoFrame.from_ndarray(kept, format="rgb24")
            frame.pts, frame.time_base = round(seconds * CLOCK), Fraction(1, CLOCK)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def draw_people(pixels: np.ndarray, people: Sequence[dict[str, Any]]) -> np.ndarray:
    """
    Draw boxes and actions on a frame.

    Args:
        pixels (`np.ndarray` of shape `(height, width, 3)`):
            The frame, uint8.
        people (`Sequence[dict]`):
            People of an answer of `pipeline("action-detection")`.

    Returns:
        `np.ndarray` of the same shape.
    """
    if not people:
        return pixels
    boxes = torch.tensor([[one["box"][name] for name in ("xmin", "ymin", "xmax", "ymax")] for one in people])
    labels = [
        "\n".join(f"{action['label']} {action['score']:.2f}" for action in one["actions"][:MOST_LABELS])
        for one in people
    ]
    colours = [COLOURS[one["person_id"] % len(COLOURS)] for one in people]
    image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)
    width = max(1, min(pixels.shape[:2]) // 120)
    drawn = draw_bounding_boxes(image, boxes, labels=labels, colors=colours, width=width)
    return drawn.permute(1, 2, 0).numpy()
