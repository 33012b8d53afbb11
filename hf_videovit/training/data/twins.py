"""Clips that are in two sources, found by their files, not by their names."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from ...modeling.video_decoding_folders import list_pictures
from ...video_files import video_size
from .sources import VideoList, VideoSource


MOST_FILES = 50_000  # larger data is compared by path only: reading sizes from a network drive takes long
EDGE = 2**16  # bytes that are compared at the start, the middle and the end of files of one size


def shared_clips(first: VideoSource, second: VideoSource) -> list[str]:
    """
    Clips of the second source that the first one has too: the same part of the same file, of a link to it or of a copy
    of it. Streams are not compared.

    Args:
        first ([`VideoSource`]):
            Videos.
        second ([`VideoSource`]):
            Other videos.

    Returns:
        `list[str]`: ids in the second source.
    """
    if not isinstance(first, VideoList) or not isinstance(second, VideoList):
        return []
    pairs = [(_path(video), _part(video)) for source in (first, second) for video in source.videos()]
    files = {path: os.path.realpath(path) for path, _ in pairs if "://" not in path}
    if len(files) <= MOST_FILES:
        files = _same_content(files)
    keys = [(files.get(path, path), part) for path, part in pairs]
    known = set(keys[: len(first)])
    return [sample.id for sample, key in zip(second, keys[len(first) :]) if key in known]


def _path(video: Any) -> str:
    return str(video["path"]) if isinstance(video, dict) else str(video)


def _part(video: Any) -> tuple[tuple[str, float], ...]:
    """The bounds of a part; empty for a whole file. The rate of a folder of pictures makes it no other video."""
    if not isinstance(video, dict):
        return ()
    return tuple((name, value) for name, value in video.items() if name not in ("path", "fps"))


def _same_content(files: dict[str, str]) -> dict[str, str]:
    """One name for all files of the same size and content."""
    sizes: dict[int, list[str]] = defaultdict(list)
    for path in set(files.values()):
        if (size := video_size(path)) is not None:
            sizes[size].append(path)
    names = {
        path: content_digest(path, size) for size, paths in sizes.items() if len(paths) > 1 and size for path in paths
    }
    return {path: names.get(real, real) for path, real in files.items()}


def content_digest(path: str, size: int) -> str:
    """
    Hash of the size of a video and of its bytes at the start, in the middle and at the end: of a file, or of three
    pictures of a folder.

    Args:
        path (`str`):
            The video.
        size (`int`):
            Its size in bytes.

    Returns:
        `str`: hexadecimal digits.
    """
    digest = hashlib.blake2b(str(size).encode())
    if os.path.isdir(path):
        names, _ = list_pictures(path)
        for name in (names[0], names[len(names) // 2], names[-1]):
            picture = os.path.join(path, name)
            digest.update(content_digest(picture, os.path.getsize(picture)).encode())
        return digest.hexdigest()
    with open(path, "rb") as file:
        for place in _places(size):
            file.seek(place)
            digest.update(file.read(EDGE))
    return digest.hexdigest()


def _places(size: int) -> Iterable[int]:
    return sorted({0, max(size // 2 - EDGE // 2, 0), max(size - EDGE, 0)})
