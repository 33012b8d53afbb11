"""
Faults of annotation files that would train or score in silence: numbers of labels, ranges, pixels against shares,
timestamps, and key-frames that two files do not share. `hf-videovit doctor FILE` prints them with their lines.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .annotation_tables import LEVELS, LOADERS, Expected, Finding, Report, Table, codes, load_table
from .ava_csv import format_timestamp
from .key_frames import video_name


MOST = 0.5  # share of rows from which a fault is that of the whole file
SHARES_LIMIT = 2.0  # larger numbers are no shares
SLACK = 1e-3  # AVA's numbers have 3 decimals
COMMON = 0.9  # share of key-frames that two files should have in common
AVA_OFFSET = 900
YOUTUBE_ID = 11  # characters


def check_annotations(
    path: str | os.PathLike,
    *,
    truth: str | os.PathLike | None = None,
    labels: Mapping[int, str] | None = None,
    durations: Mapping[str, float] | None = None,
    offset: float = 0.0,
    movies: Sequence[str] | None = None,
) -> list[Finding]:
    """
    Check a file of boxes and actions.

    Args:
        path (`str` or `os.PathLike`):
            AVA's, AVA-Kinetics' or SlowFast's csv, our JSON lines, COCO's, AlphAction's or InternVideo's JSON, CVAT's
            XML, or FAIR's pickle.
        truth (`str` or `os.PathLike`, *optional*):
            A file whose key-frames `path` should have: `path` has predictions or detected people.
        labels (`Mapping[int, str]`, *optional*):
            Names of labels by number; AVA's 80 by default, for csv files.
        durations (`Mapping[str, float]`, *optional*):
            Length of each video in seconds, by name without suffix.
        offset (`float`, *optional*, defaults to 0.0):
            Timestamp of the start of the videos, in seconds, for csv files and pickles.
        movies (`Sequence[str]`, *optional*):
            Names of the movies by number, for AlphAction's files.

    Returns:
        `list[Finding]`: errors first.

    Raises:
        ValueError: the suffix is not that of such a file.
    """
    report = Report()
    expected = Expected(labels, movies, truth is not None)
    table = load_table(path, report, expected)
    if table is not None and len(table.lines):
        _check_boxes(table, report)
        _check_people(table, report)
        _check_scores(table, report)
        _check_times(table, report, durations, offset)
    if table is not None and truth is not None:
        reference = load_table(truth, Report(), Expected(labels, movies, False))
        if reference is None:
            report.add("error", f"the truth {os.fspath(truth)} cannot be read; check it for itself first")
        else:
            _check_common(table, reference, report, offset)
    return sorted(report.findings, key=lambda finding: LEVELS.index(finding.level))


def is_annotation_file(path: str | os.PathLike) -> bool:
    """
    Whether a file has the suffix of an annotation file.

    Args:
        path (`str` or `os.PathLike`):
            The file.

    Returns:
        `bool`
    """
    return Path(path).suffix.lower() in LOADERS


def _check_boxes(table: Table, report: Report) -> None:
    boxes, lines = table.boxes, table.lines
    finite = np.isfinite(boxes).all(axis=1)
    report.add("error", "corners that are not finite", lines[~finite])
    if table.extent is None:
        shares, in_pixels = boxes, (boxes > SHARES_LIMIT).any(axis=1)
        report.add("error", "boxes in pixels where shares of width and height are meant", lines[in_pixels])
        if in_pixels.mean() > MOST:
            return
    else:
        unsized = ~(table.extent > 0).all(axis=1)
        report.add("error", "frames without width and height", lines[unsized])
        shares = boxes / np.tile(np.where(table.extent > 0, table.extent, np.inf), 2)
        in_shares = (boxes <= 1).all(axis=1) & (boxes % 1 > 0).any(axis=1) & (table.extent > 1).all(axis=1)
        report.add("error", "boxes as shares of width and height where pixels are meant", lines[in_shares])
        if in_shares.mean() > MOST:
            return
    flat = finite & ~(boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    if flat.mean() > MOST / 2:
        hint = "boxes must be x1, y1, x2, y2 with x2 > x1 and y2 > y1; are these x, y, width, height?"
        report.add("error", hint, lines[flat])
    else:
        report.add("warning", "boxes without area, which are left out", lines[flat])
    limits = np.ones((1, 2)) if table.extent is None else table.extent
    gone = finite & ((boxes[:, 2:] <= 0) | (boxes[:, :2] >= limits)).any(axis=1) & ~flat
    gone &= table.extent is not None or ~(boxes > SHARES_LIMIT).any(axis=1)
    report.add("error", "boxes outside the frame", lines[gone])
    outside = finite & ((shares < -SLACK) | (shares > 1 + SLACK)).any(axis=1) & ~gone
    outside &= table.extent is not None or ~(boxes > SHARES_LIMIT).any(axis=1)
    report.add("warning", "boxes that reach outside the frame, which are clipped", lines[outside])


def _check_people(table: Table, report: Report) -> None:
    if table.people is None:
        return
    known = table.people >= 0
    keys = np.column_stack([codes(table.videos), table.times, table.people])[known]
    if not len(keys):
        return
    _, person = np.unique(keys, axis=0, return_inverse=True)
    _, firsts = np.unique(person, return_index=True)
    first_box = table.boxes[known][firsts][person.ravel()]
    differs = np.abs(table.boxes[known] - first_box).max(axis=1) > SLACK
    report.add("warning", "one person with several boxes on a key-frame", table.lines[known][differs])


def _check_scores(table: Table, report: Report) -> None:
    if table.scores is None:
        return
    given = ~np.isnan(table.scores)
    report.add("error", "rows without a score", table.lines[~given])
    outside = given & ((table.scores < 0) | (table.scores > 1))
    report.add("warning", "scores outside 0 to 1", table.lines[outside])


def _check_times(table: Table, report: Report, durations: Mapping[str, float] | None, offset: float) -> None:
    report.add("error", "timestamps below 0", table.lines[table.times < 0])
    names = np.array([video_name(str(video)) for video in table.videos], dtype=object)
    if durations is not None:
        lengths = np.array([durations.get(name, np.nan) for name in names], dtype=np.float64)
        report.add("warning", "key-frames of videos that are not there", table.lines[np.isnan(lengths)])
        times = table.times - (offset if table.whole_seconds else 0)
        late = (times < 0) | (times > lengths)
        cut = late.any() and ((times - AVA_OFFSET >= 0) & (times - AVA_OFFSET <= lengths))[late].all()
        hint = "; they fit an offset of 900 seconds (cuts of AVA's films start there)" if cut else ""
        report.add("error", f"timestamps outside the video{hint}", table.lines[late])
    elif table.labels is not None and len(names) and table.times.max() < AVA_OFFSET:
        like_ava = all(len(name) == YOUTUBE_ID for name in np.unique(names.astype(str)))
        if like_ava and (table.times == np.floor(table.times)).all():
            report.add(
                "warning", "all timestamps are below 900: AVA's run from 902 to 1798; is an offset of 900 missing?"
            )


def _check_common(table: Table, truth: Table, report: Report, offset: float) -> None:
    """Key-frames of predictions or detected people against those of the truth."""
    if table.whole_seconds == truth.whole_seconds:
        own, reference = _keys(table), _keys(truth)
    else:  # one names files and times in them, the other AVA's names and timestamps
        own, reference = (_names_and_timestamps(one, offset) for one in (table, truth))
    have, want = set(own), set(reference)
    common = have & want
    if not common:
        example = (
            f"{_spelt(own[0]) if own else 'nothing'!s} against {_spelt(reference[0]) if reference else 'nothing'!s}"
        )
        report.add("error", f"no key-frame in common with the truth: {example}{_hint(have, want)}")
        return
    extra = [line for line, key in zip(table.lines.tolist(), own) if key not in want]
    if len(common) / len(have) < COMMON:
        strange = len(have - want) / len(have)
        report.add("warning", f"{100 * strange:.1f} % of the key-frames are not in the truth", extra)
    if len(common) / len(want) < COMMON:
        lacking, example = len(want - have) / len(want), _spelt(min(want - have))
        report.add("warning", f"{100 * lacking:.1f} % of the truth's key-frames are not here (e.g. {example})")


def _keys(table: Table) -> list[tuple[str, float]]:
    times = np.floor(table.times) if table.whole_seconds else table.times.round(3)
    return list(zip(map(str, table.videos), times.tolist()))


def _names_and_timestamps(table: Table, offset: float) -> list[tuple[str, float]]:
    times = table.times if table.whole_seconds else (table.times + offset).round(6)
    return list(zip((video_name(str(video)) for video in table.videos), np.floor(times).tolist()))


def _spelt(key: tuple[str, float]) -> str:
    return f"'{key[0]},{format_timestamp(key[1])}'"


def _hint(have: set[tuple[str, float]], want: set[tuple[str, float]]) -> str:
    """A change of all key-frames that would give some in common."""
    shifts = ((AVA_OFFSET, "900 seconds more"), (-AVA_OFFSET, "900 seconds less"))
    for shift, words in shifts:
        if {(video, time + shift) for video, time in have} & want:
            return f"; they would with timestamps of {words}"
    bare = {(video_name(video), time) for video, time in want}
    if {(video_name(video), time) for video, time in have} & bare:
        return "; the names of the videos differ by a folder or a suffix"
    if {video for video, _ in have} & {video for video, _ in want}:
        return "; the videos are the same, the timestamps are not"
    return ""


__all__ = ["Finding", "check_annotations", "is_annotation_file"]
