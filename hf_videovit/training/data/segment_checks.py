"""Faults of annotations of temporal localisation, which `hf-videovit doctor FILE.json` prints with their videos."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ...files import parse_json, read_text
from .activitynet import SAME_SECONDS
from .annotation_tables import LEVELS, Finding, Report
from .segment_files import AMBIGUOUS, AnnotatedVideo, read_segments
from .sources import preview


SLACK = 0.05  # seconds; annotated ends are often rounded up
LENGTH_SLACK = 1.0  # seconds between an annotated length and that of the film


def is_segment_file(path: str | os.PathLike) -> bool:
    """
    Whether a file has segments in ActivityNet's form.

    Args:
        path (`str` or `os.PathLike`):
            The file.

    Returns:
        `bool`
    """
    if Path(path).suffix.lower() != ".json":
        return False
    try:
        return "database" in _content(path)
    except ValueError:
        return False


def check_segments(path: str | os.PathLike, *, durations: Mapping[str, float] | None = None) -> list[Finding]:
    """
    Check a file of segments.

    Args:
        path (`str` or `os.PathLike`):
            JSON with `database`.
        durations (`Mapping[str, float]`, *optional*):
            Length in seconds of each film, by name without suffix.

    Returns:
        `list[Finding]`: errors first.
    """
    report = Report()
    try:
        annotations = read_segments(Path(path))
    except ValueError as error:
        report.add("error", str(error))
        return report.findings
    if not any(len(video.segments) for video in annotations.videos):
        report.add("error", "there are no segments")
    for remark in annotations.remarks:
        report.add("warning", remark)
    _add(
        report,
        "warning",
        "videos without segments, which are negative examples",
        _without_segments(annotations.videos),
    )
    _add(report, "warning", "videos without a duration", (one.name for one in annotations.videos if not one.duration))
    _check_bounds(report, annotations.videos)
    _add(report, "warning", "videos with a segment that is there twice, which counts once", _with_copies(path))
    if durations is not None:
        _check_films(report, annotations.videos, durations)
    return sorted(report.findings, key=lambda finding: LEVELS.index(finding.level))


def _without_segments(videos: Iterable[AnnotatedVideo]) -> Iterable[str]:
    return (video.name for video in videos if not len(video.segments))


def _check_bounds(report: Report, videos: Iterable[AnnotatedVideo]) -> None:
    """Segments against the length of their video."""
    late, beyond, early = [], [], []
    for video in videos:
        starts, ends = video.segments.reshape(-1, 2).T
        length = video.duration or float("inf")
        if (starts >= length).any():
            late.append(video.name)
        elif (ends > length + SLACK).any():
            beyond.append(video.name)
        if (starts < 0).any():
            early.append(video.name)
    _add(report, "error", "videos with a segment that starts after their end (frames in place of seconds?)", late)
    _add(report, "warning", "videos with a segment that ends after their end", beyond)
    _add(report, "warning", "videos with a segment that starts before 0", early)


def _check_films(report: Report, videos: Iterable[AnnotatedVideo], durations: Mapping[str, float]) -> None:
    """Annotations against the films."""
    absent, other = [], []
    for video in videos:
        length = durations.get(video.name)
        if length is None:
            absent.append(video.name)
        elif video.duration is not None and abs(length - video.duration) > LENGTH_SLACK:
            other.append(video.name)
    _add(report, "error", "videos that are not in the folder", absent)
    _add(report, "warning", f"videos whose film is more than {LENGTH_SLACK:g} s longer or shorter", other)


def _with_copies(path: str | os.PathLike) -> Iterable[str]:
    for video, entry in _content(path)["database"].items():
        seen: list[tuple[str, float, float]] = []
        for one in entry.get("annotations") or []:
            label, (start, end) = one["label"], map(float, one["segment"])
            near = (abs(start - first) + abs(end - last) < SAME_SECONDS for name, first, last in seen if name == label)
            if label != AMBIGUOUS and any(near):
                yield video
                break
            seen.append((label, start, end))


def _content(path: str | os.PathLike) -> Mapping[str, Any]:
    content = parse_json(read_text(Path(path), "`path`"), f"`path` {os.fspath(path)!r}")
    return content if isinstance(content, Mapping) else {}


def _add(report: Report, level: str, fault: str, names: Iterable[str]) -> None:
    """Note a fault of some videos by their names."""
    if found := list(names):
        report.add(level, f"{len(found)} {fault}: {preview(found)}")


__all__ = ["check_segments", "is_segment_file"]
