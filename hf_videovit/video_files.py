"""Videos in folders: files with a suffix of a video, and folders of pictures, one a frame."""

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from .files import visible_files
from .modeling.video_decoding_folders import is_series, list_pictures
from .modeling.video_decoding_types import PICTURE_SUFFIXES, VIDEO_SUFFIXES, VideoDecodingError


def find_frame_folders(files: Sequence[Path], root: Path, suffixes: Sequence[str] = VIDEO_SUFFIXES) -> list[Path]:
    """
    Replace pictures by their folder where they are the frames of a video: where names differ in numbers only, and no
    videos or other pictures are in the folder or in folders in it.

    Args:
        files (`Sequence[Path]`):
            Files of `root` at any depth.
        root (`Path`):
            The folder. Pictures directly in it stay.
        suffixes (`Sequence[str]`, *optional*, defaults to `VIDEO_SUFFIXES`):
            Suffixes of videos, in lower case. If they include those of pictures, all files stay.

    Returns:
        `list[Path]`: the other files and the folders, sorted.
    """
    if set(PICTURE_SUFFIXES) & set(suffixes):
        return list(files)
    pictures: dict[Path, list[str]] = defaultdict(list)
    around = {root}
    for file in files:
        if file.suffix.lower() in PICTURE_SUFFIXES:
            pictures[file.parent].append(file.name)
        elif file.suffix.lower() in suffixes:
            around.update(file.parents)
    for folder in pictures:
        around.update(folder.parents)
    videos = {folder for folder, names in pictures.items() if folder not in around and is_series(names)}
    kept = [file for file in files if file.parent not in videos or file.suffix.lower() not in PICTURE_SUFFIXES]
    return sorted([*kept, *videos]) if videos else kept


def is_video(path: Path, suffixes: Sequence[str] = VIDEO_SUFFIXES) -> bool:
    """
    Whether a path is a video, for paths of [`find_frame_folders`].

    Args:
        path (`Path`):
            A file or a folder of pictures.
        suffixes (`Sequence[str]`, *optional*, defaults to `VIDEO_SUFFIXES`):
            Suffixes of videos, in lower case.

    Returns:
        `bool`: `True` also for a link without a target.
    """
    return path.suffix.lower() in suffixes or path.is_dir()


def visible_videos(folder: Path, suffixes: Sequence[str] = VIDEO_SUFFIXES) -> list[Path]:
    """
    Videos in a folder at any depth, sorted by path.

    Args:
        folder (`Path`):
            The folder.
        suffixes (`Sequence[str]`, *optional*, defaults to `VIDEO_SUFFIXES`):
            Suffixes of videos, in lower case.

    Returns:
        `list[Path]`: files and folders of pictures.
    """
    return [path for path in find_frame_folders(visible_files(folder), folder, suffixes) if is_video(path, suffixes)]


def video_name(path: Path) -> str:
    """
    Name of a video without its suffix. Folders have none.

    Args:
        path (`Path`):
            A file or a folder of pictures.

    Returns:
        `str`: the name.
    """
    return path.name if path.is_dir() else path.stem


def video_size(path: str | os.PathLike) -> int | None:
    """
    Bytes of a video.

    Args:
        path (`str` or `os.PathLike`):
            A file, a folder of pictures, or a URL.

    Returns:
        `int` or `None`: `None` for what is not on this machine.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        try:
            return list_pictures(path)[1]
        except VideoDecodingError:
            return None
    return os.path.getsize(path) if os.path.isfile(path) else None


__all__ = ["find_frame_folders", "is_video", "video_name", "video_size", "visible_videos"]
