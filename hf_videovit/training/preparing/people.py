"""
People that a detector finds on key-frames of videos, as JSON lines for the evaluation of action detection.
`hf-videovit prepare --layout people` runs this module. An interrupted run goes on after its last video.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from ...files import parse_json, read_text
from ...folders import remove_folder, write_text
from ...modeling.video_decoding import VideoDecodingError, VideoProbe, decode_video, probe_video
from ..data.key_frames import KeyFrame, read_key_frames, write_key_frames


PARTS = ".parts"  # added to the name of the output: the folder of an interrupted run
SETTINGS = "settings.json"
Finder = Callable[[list[Image.Image]], Sequence[tuple[Any, Any]]]


@dataclass
class FoundPeople:
    """
    Result of [`find_people`].

    Args:
        file (`Path`):
            The JSON lines.
        num_key_frames, num_people (`int`):
            Number of rows, and of boxes in them.
        missing (`list[str]`, *optional*):
            Videos that do not exist.
        damaged (`dict[str, str]`, *optional*):
            Videos that cannot be read, with the reason.
        resumed (`int`, *optional*, defaults to 0):
            Number of videos that an interrupted run had finished.
    """

    file: Path
    num_key_frames: int
    num_people: int
    missing: list[str] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    resumed: int = 0


def find_people(
    videos: Mapping[str, Sequence[float] | None],
    output: str | os.PathLike,
    detect: Finder,
    settings: Mapping[str, Any],
    *,
    every: float = 1.0,
    batch_size: int = 8,
    overwrite: bool = False,
    progress: bool = False,
) -> FoundPeople:
    """
    Find the people on key-frames of videos. A key-frame without people is a row without boxes. Paths of videos are
    relative to the folder of the file where that is possible.

    Args:
        videos (`Mapping[str, Sequence[float] | None]`):
            Paths of the videos, each with its key-frames in seconds; `None` for one `every` so many seconds.
        output (`str` or `os.PathLike`):
            The JSON lines to write, a name that ends in `.jsonl`. Beside it, `OUTPUT.parts` holds the videos that are
            done until all are.
        detect:
            A function from a list of images to boxes `(num_boxes, 4)` in pixels and scores of each, such as
            [`detect_people`] with a detector.
        settings (`Mapping[str, Any]`):
            Plain values that `detect` depends on. An interrupted run goes on with the same ones only.
        every (`float`, *optional*, defaults to 1.0):
            Seconds between key-frames.
        batch_size (`int`, *optional*, defaults to 8):
            Images that the detector gets at once.
        overwrite (`bool`, *optional*, defaults to `False`):
            Whether to replace key-frames of `output`, and an interrupted run with other settings.
        progress (`bool`, *optional*, defaults to `False`):
            Whether to show a progress bar.

    Returns:
        [`FoundPeople`]

    Raises:
        ValueError: an argument is not allowed, an interrupted run had other settings, or no video can be read.
    """
    output = Path(output)
    _check(output, every, batch_size, overwrite)
    parts = output.with_name(output.name + PARTS)
    listed = {video: times if times is None else [float(time) for time in times] for video, times in videos.items()}
    _open_parts(parts, {**settings, "every": every, "videos": listed}, overwrite)
    found = FoundPeople(output, 0, 0)
    rows: list[KeyFrame] = []
    for number, (video, times) in enumerate(tqdm(videos.items(), desc="videos", disable=not progress)):
        part = parts / f"{number:06d}.jsonl"
        found.resumed += part.is_file()
        if not part.is_file():
            if not Path(video).exists():
                found.missing.append(video)
                continue
            try:
                write_key_frames(part, _people_of(video, times, detect, every, batch_size, output.parent))
            except VideoDecodingError as error:
                found.damaged[video] = error.reason
                continue
        rows += read_key_frames(part).rows
    if not rows:
        raise ValueError(f"`videos` has no readable video with a key-frame, of {len(videos)}")
    write_key_frames(output, rows)
    remove_folder(parts)
    found.num_key_frames, found.num_people = len(rows), sum(len(row.boxes) for row in rows)
    return found


def _check(output: Path, every: float, batch_size: int, overwrite: bool) -> None:
    if output.suffix != ".jsonl":
        raise ValueError(f"`output` must end in .jsonl, got {str(output)!r}")
    if not every > 0:
        raise ValueError(f"`every` must be a positive number of seconds, got {every}")
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1, got {batch_size}")
    if output.exists() and not overwrite:
        raise ValueError(f"`output` {str(output)!r} exists: choose another name, or set `overwrite`")
    if output.exists():
        read_key_frames(output)  # other files are never replaced


def _open_parts(parts: Path, settings: Mapping[str, Any], overwrite: bool) -> None:
    """A new folder of parts, or that of an interrupted run with the same settings."""
    path = parts / SETTINGS
    if path.is_file():
        known = parse_json(read_text(path, SETTINGS), str(path))
        if known == json.loads(json.dumps(settings)):
            return
        if not overwrite:
            names = sorted(name for name in {*known, *settings} if known.get(name) != settings.get(name))
            raise ValueError(
                f"{parts} is an interrupted run with other {', '.join(names)}: use the same, or set `overwrite`"
            )
        remove_folder(parts)
    parts.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(settings, indent=1, ensure_ascii=False) + "\n")


def _people_of(
    video: str, times: Sequence[float] | None, detect: Finder, every: float, batch_size: int, folder: Path
) -> list[KeyFrame]:
    """The key-frames of a video."""
    probe = probe_video(video)
    clock = _clock(probe)
    wanted = np.arange(0, clock[-1] + 1e-9, every) if times is None else np.asarray(times, dtype=np.float64)
    frames = np.array([np.abs(clock - time).argmin() for time in wanted], dtype=np.int64)
    name = _relative(video, folder)
    rows = []
    for start in range(0, len(frames), batch_size):
        chunk = slice(start, start + batch_size)
        chosen, place = np.unique(frames[chunk], return_inverse=True)
        images = [Image.fromarray(frame) for frame in decode_video(video, chosen).frames]
        answers = detect(images)
        for time, frame, index in zip(wanted[chunk], frames[chunk], place.ravel().tolist()):
            boxes, scores = (np.asarray(part, dtype=np.float64) for part in answers[index])
            width, height = images[index].size
            nothing = ((),) * len(boxes), (None,) * len(boxes)
            rows.append(KeyFrame(name, float(time), width, height, boxes.reshape(-1, 4), *nothing, int(frame), scores))
    return rows


def _clock(probe: VideoProbe) -> np.ndarray:
    """Seconds from the first frame to each frame."""
    if probe.timestamps is not None and len(probe.timestamps):
        return np.asarray(probe.timestamps) - probe.timestamps[0]
    return np.arange(probe.num_frames) / (probe.fps or 25.0)


def _relative(video: str, folder: Path) -> str:
    try:
        return Path(os.path.relpath(Path(video).absolute(), folder.absolute())).as_posix()
    except ValueError:  # another drive
        return Path(video).absolute().as_posix()


__all__ = ["FoundPeople", "find_people"]
