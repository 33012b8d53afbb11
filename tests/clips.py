"""Small clips made on the spot: a bright square that moves over a dark, textured ground."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


STEPS = {"right": (0, 1), "left": (0, -1), "down": (1, 0), "up": (-1, 0)}


def moving_square_clip(
    direction: str = "right", *, num_frames: int = 24, height: int = 64, width: int = 64, seed: int = 0
) -> np.ndarray:
    """
    Frames of shape `(num_frames, height, width, 3)` in uint8: a square that moves two pixels a frame and comes back
    in on the other side. The seed draws the ground, the square's colour and its start.
    """
    generator = np.random.default_rng(seed)
    ground = generator.integers(20, 90, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    ground = ground.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
    colour = generator.integers(160, 256, 3, dtype=np.uint8)
    row, column = generator.integers(0, height), generator.integers(0, width)
    down, right = STEPS[direction]
    frames = np.repeat(ground[None], num_frames, axis=0)
    side = max(2, min(height, width) // 4)
    for index, frame in enumerate(frames):
        rows = (row + 2 * down * index + np.arange(side)) % height
        columns = (column + 2 * right * index + np.arange(side)) % width
        frame[np.ix_(rows, columns)] = colour
    return frames


def write_clip(path: str | Path, frames: np.ndarray, *, fps: int = 25, title: str = "") -> Path:
    """Encode `(num_frames, height, width, 3)` frames as H.264 (even sides only) and return the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        if title:
            container.metadata["title"] = title
        stream = container.add_stream("libx264", rate=Fraction(fps))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        stream.options = {"crf": "18", "preset": "veryfast"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path
