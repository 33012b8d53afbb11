"""
Annotations of temporal localisation as their data sets write them: ActivityNet's JSON, the text files of THUMOS14, and
lists with a segment in each row.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...files import decode_text, parse_json, plain_name, read_text
from ...modeling.video_decoding_types import VIDEO_SUFFIXES
from .activitynet import check_database, distinct_segments, positive_number, read_activitynet
from .lists import LABEL_COLUMNS, LIST_SUFFIXES, VIDEO_COLUMNS, choose_column, read_rows
from .manifest import read_file
from .parts import find_part_columns
from .sources import EVAL_SPLITS, preview, sort_label_names


THUMOS_FILE = re.compile(r"(.+)_(val|test)\.txt")
THUMOS_SUBSETS = {"val": "validation", "test": "test"}
AMBIGUOUS = "Ambiguous"  # THUMOS14's class of segments that may be an action
SAME_SUBSETS = ({"train", "training"}, {"val", "valid", "validation"}, {"test", "testing"})


@dataclass(frozen=True)
class AnnotatedVideo:
    """
    The true segments of a video.

    Args:
        name (`str`):
            Name, without the suffix of a file.
        segments (`np.ndarray` of shape `(num_segments, 2)`):
            Start and end in seconds. None is allowed: the video is a negative example.
        labels (`tuple[str, ...]`):
            Class of each.
        subset (`str`, *optional*):
            Subset that the file names.
        fps (`float`, *optional*):
            Frame rate, where the file has it.
        duration (`float`, *optional*):
            Length in seconds, where the file has it.
    """

    name: str
    segments: np.ndarray
    labels: tuple[str, ...]
    subset: str | None = None
    fps: float | None = None
    duration: float | None = None


@dataclass
class SegmentAnnotations:
    """
    The annotations of a file.

    Args:
        videos (`list[AnnotatedVideo]`):
            The videos of all subsets.
        label_names (`list[str]`):
            Classes in the order of their numbers; they do not depend on the subset.
        remarks (`list[str]`, *optional*, defaults to `[]`):
            What was left out.
    """

    videos: list[AnnotatedVideo]
    label_names: list[str]
    remarks: list[str] = field(default_factory=list)

    @property
    def subsets(self) -> list[str]:
        """Names of the subsets."""
        return sorted({video.subset for video in self.videos if video.subset is not None})

    def subset(self, name: str) -> list[AnnotatedVideo]:
        """
        The videos of a subset, upper and lower case alike; `train` is also `training`, `val` also `validation`.

        Args:
            name (`str`):
                Name of the subset.

        Returns:
            `list[AnnotatedVideo]`

        Raises:
            ValueError: there is no such subset.
        """
        found = find_subset(name, self.subsets)
        if found is None:
            raise ValueError(f"The annotations have no subset {name!r}, only {preview(self.subsets)}")
        return [video for video in self.videos if video.subset == found]


def find_subset(name: str, subsets: Sequence[str]) -> str | None:
    """
    The subset that a name means.

    Args:
        name (`str`):
            A name as a user writes it.
        subsets (`Sequence[str]`):
            The subsets that exist.

    Returns:
        `str` or `None`
    """
    lower = {subset.lower(): subset for subset in subsets}
    if name.lower() in lower:
        return lower[name.lower()]
    alike = next((group for group in SAME_SUBSETS if name.lower() in group), set())
    return next((lower[other] for other in sorted(alike) if other in lower), None)


def evaluation_subset(subsets: Sequence[str], training: str | None) -> str | None:
    """
    The subset to evaluate on if none is named.

    Args:
        subsets (`Sequence[str]`):
            The subsets that exist.
        training (`str` or `None`):
            The one to train on.

    Returns:
        `str` or `None`: the first of validation and test that is not trained on.
    """
    found = (find_subset(name, subsets) for name in EVAL_SPLITS)
    return next((subset for subset in found if subset is not None and subset != training), None)


def read_segments(path: str | Path, excluded: str | Path | None = None) -> SegmentAnnotations:
    """
    Read the annotations of temporal localisation.

    Args:
        path (`str` or `Path`):
            A JSON file with `database` (ActivityNet, FineAction, HACS, and copies of others), the folder of THUMOS14's
            text files (`CLASS_val.txt`, `CLASS_test.txt`), or a CSV, JSON or JSONL list with a row for each segment:
            video, label, start and end, and where known `split`, `fps` and `video_duration`. A row without label,
            start and end names a video without segments.
        excluded (`str` or `Path`, *optional*):
            File with names of videos to leave out, because they have vanished or are wrong: one a line, or a JSON
            list.

    Returns:
        [`SegmentAnnotations`]

    Raises:
        ValueError: the file is none of these, a segment is not two finite numbers with the end after the start, or
            two videos have one name.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        found = _read_thumos(path)
    elif not path.is_file():
        raise ValueError(f"`data` {str(path)!r} does not exist: annotations of segments are needed")
    elif path.suffix.lower() == ".json" and _has_database(path):
        found = _read_json(path)
    elif path.suffix.lower() in LIST_SUFFIXES:
        found = _read_list(path)
    else:
        raise ValueError(
            f"`data` {str(path)!r} must be ActivityNet's JSON (`database`), a list ({', '.join(LIST_SUFFIXES)}) or "
            "the folder of THUMOS14's text files"
        )
    counts = Counter(video.name for video in found.videos)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise ValueError(f"`data` {str(path)!r} has several videos of one name: {preview(twice)}")
    return found if excluded is None else _without(found, excluded)


def excluded_names(path: str | Path) -> set[str]:
    """
    Names of videos to leave out.

    Args:
        path (`str` or `Path`):
            A text file with a name a line, or a JSON list.

    Returns:
        `set[str]`: without the suffixes of video files.

    Raises:
        ValueError: the file does not exist, has no names, or is JSON of another form.
    """
    what, path = f"`excluded` {str(path)!r}", Path(path).expanduser()
    if not path.is_file():
        raise ValueError(f"{what} does not exist: a file with names of videos is needed")
    text = read_text(path, what)
    names = parse_json(text, what) if path.suffix.lower() == ".json" else text.splitlines()
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{what} must be a JSON list of names, or a text file with a name a line")
    found = {stem_of(name.strip()) for name in names if name.strip()}
    if not found:
        raise ValueError(f"{what} has no names of videos")
    return found


def _without(annotations: SegmentAnnotations, excluded: str | Path) -> SegmentAnnotations:
    names = excluded_names(excluded)
    kept = [video for video in annotations.videos if video.name not in names]
    count = len(annotations.videos) - len(kept)
    if not kept:
        raise ValueError(f"`excluded` {str(excluded)!r} names all videos of the annotations")
    remark = f"{count} videos are left out, of the {len(names)} that {str(excluded)!r} names"
    return SegmentAnnotations(kept, annotations.label_names, [*annotations.remarks, remark])


def stem_of(name: str) -> str:
    """
    Name of a video without the suffix of a video file.

    Args:
        name (`str`):
            A name or path.

    Returns:
        `str`
    """
    plain = plain_name(str(name)).replace("\\", "/")
    stem, dot, suffix = plain.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in VIDEO_SUFFIXES else plain


def _has_database(path: Path) -> bool:
    content = parse_json(read_text(path, "`data`"), f"`data` {str(path)!r}")
    return isinstance(content, Mapping) and "database" in content


def _read_json(path: Path) -> SegmentAnnotations:
    content = parse_json(read_text(path, "`data`"), f"`data` {str(path)!r}")
    if not isinstance(content["database"], Mapping):
        raise ValueError(f"`data` {str(path)!r}: `database` must map names of videos to their annotations")
    check_database(content["database"], path.name)
    database, ambiguous = _without_ambiguous(content["database"])
    table = read_activitynet({"database": database} if ambiguous else path)
    rows: dict[str, list[int]] = defaultdict(list)
    for row, video in enumerate(table.videos.tolist()):
        rows[video].append(row)
    count = max(table.class_names, default=-1) + 1
    videos = []
    for video, entry in database.items():
        duration = table.durations[video]
        videos.append(
            AnnotatedVideo(
                stem_of(video),
                table.segments[rows[video]],
                tuple(plain_name(table.class_names[int(number)]) for number in table.labels[rows[video]]),
                entry.get("subset"),
                table.frame_rates.get(video),
                duration if np.isfinite(duration) else None,
            )
        )
    names = [plain_name(table.class_names.get(number, f"unused {number}")) for number in range(count)]
    return SegmentAnnotations(videos, names, _ambiguous_remark(ambiguous))


def _without_ambiguous(database: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """The entries without segments of THUMOS14's class `Ambiguous`, and the number of these."""
    kept, left_out = {}, 0
    for video, entry in database.items():
        annotations = entry.get("annotations") or []
        sure = [one for one in annotations if one.get("label") != AMBIGUOUS]
        left_out += len(annotations) - len(sure)
        kept[video] = {**entry, "annotations": sure}
    return kept, left_out


def _ambiguous_remark(count: int) -> list[str]:
    return [f"{count} segments of the class {AMBIGUOUS} are left out"] if count else []


def _read_thumos(folder: Path) -> SegmentAnnotations:
    """The text files of THUMOS14: `video start end` in seconds, a file for each class and subset."""
    files = {path: match for path in sorted(folder.iterdir()) if (match := THUMOS_FILE.fullmatch(path.name))}
    if not files:
        raise ValueError(f"`data` {str(folder)!r} has no files CLASS_val.txt or CLASS_test.txt, as THUMOS14 has them")
    rows: dict[tuple[str, str], list[tuple[float, float, str]]] = {}
    ambiguous = 0
    for path, match in files.items():
        label, subset = match[1], THUMOS_SUBSETS[match[2]]
        for number, line in enumerate(read_text(path, "`data`").splitlines(), start=1):
            words = line.split()
            if not words:
                continue
            if len(words) != 3:
                raise ValueError(f"{path}, line {number}: must be video, start and end, got {line.strip()!r}")
            segments = rows.setdefault((stem_of(words[0]), subset), [])
            if label == AMBIGUOUS:
                ambiguous += 1
            else:
                segments.append((*_bounds(words[1], words[2], f"{path}, line {number}"), label))
    videos = [_annotated(name, segments, subset) for (name, subset), segments in sorted(rows.items())]
    labels = sorted({match[1] for match in files.values()} - {AMBIGUOUS})
    return SegmentAnnotations(videos, labels, _ambiguous_remark(ambiguous))


def _read_list(path: Path) -> SegmentAnnotations:
    rows, what = read_rows(path), f"`data` {str(path)!r}"
    columns = list(dict.fromkeys(name for row in rows for name in row))
    video_column = choose_column(None, columns, VIDEO_COLUMNS, "video")
    label_column = choose_column(None, columns, LABEL_COLUMNS, "label")
    parts = find_part_columns(rows, (video_column, label_column, "split", "fps", "video_duration"))
    if video_column is None or label_column is None or parts is None:
        raise ValueError(f"{what} must have columns of the video, the label, the start and the end, got {columns}")
    found: dict[str, list[tuple[float, float, str]]] = {}
    facts: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(rows, start=1):
        place, name = f"{what}, row {number}", stem_of(str(row.get(video_column) or ""))
        own = {key: row[key] for key in ("split", "fps", "video_duration") if row.get(key) not in (None, "")}
        for key in own.keys() - {"split"}:
            own[key] = positive_number(own[key], f"{place}: `{key}`")
        known = facts.setdefault(name, own)
        if known != own:
            raise ValueError(f"{place}: the rows of {name!r} differ in split, fps or video_duration: {known}, {own}")
        label = plain_name(str(row.get(label_column) or ""))
        segments = found.setdefault(name, [])
        try:
            part = parts.part(row)
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from error
        if not label and part is None:
            continue
        if not label or part is None or part.end is None or not parts.has_start(row):
            raise ValueError(f"{place}: a segment needs a label, a start and an end, got {row}")
        start, end = part.start, part.end
        if part.in_frames:
            if "fps" not in own:
                raise ValueError(f"{place}: start and end are frames; a column `fps` is needed")
            start, end = start / own["fps"], end / own["fps"]
        segments.append((*_bounds(start, end, place), label))
    videos = [
        _annotated(name, segments, facts[name].get("split"), facts[name].get("fps"), facts[name].get("video_duration"))
        for name, segments in found.items()
    ]
    content = read_file(path.parent / "labels.json")
    names = sort_label_names({label for video in videos for label in video.labels})
    if content is not None:
        listed = parse_json(decode_text(content, "labels.json"), f"`data`: {path.parent}/labels.json")
        names = [str(name) for name in listed] if isinstance(listed, list) else names
    return SegmentAnnotations(videos, names)


def _annotated(
    name: str,
    segments: list[tuple[float, float, str]],
    subset: Any = None,
    fps: float | None = None,
    duration: float | None = None,
) -> AnnotatedVideo:
    segments = distinct_segments(segments)
    bounds = np.array([one[:2] for one in segments], np.float64).reshape(-1, 2)
    labels = tuple(one[2] for one in segments)
    return AnnotatedVideo(name, bounds, labels, None if subset is None else str(subset), fps, duration)


def _bounds(start: Any, end: Any, place: str) -> tuple[float, float]:
    try:
        low, high = float(start), float(end)
    except ValueError as error:
        raise ValueError(f"{place}: start and end must be numbers, got {start!r} and {end!r}") from error
    if not np.isfinite((low, high)).all() or high <= low:
        raise ValueError(f"{place}: a segment must be finite and end after it starts, got {[low, high]}")
    return low, high


__all__ = [
    "AnnotatedVideo",
    "SegmentAnnotations",
    "evaluation_subset",
    "find_subset",
    "read_segments",
    "stem_of",
]
