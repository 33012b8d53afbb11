"""
Annotations of action detection as one JSON lines file whose videos are found, with sizes, times and frame numbers of
the videos themselves. `hf-videovit prepare --layout ava` and its like run this module; no video is changed.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ...files import parse_json, read_text
from ...modeling.video_decoding import VideoDecodingError, VideoProbe, probe_video
from ..data.ava_csv import ava_labels, read_ava, read_ava_kinetics, read_slowfast
from ..data.coco import read_coco
from ..data.cvat import parse_cvat, read_cvat
from ..data.key_frames import KeyFrame, KeyFrames, read_key_frames, video_name, write_key_frames
from ..data.proposals import read_alphaction_people, read_fair_people, read_movies
from .annotations import Clip, VideoIndex


PEOPLE_LAYOUTS = ("slowfast", "alphaction", "fair")  # detected people without labels
DETECTION_LAYOUTS = ("ava", "ava-kinetics", "cvat", "coco", *PEOPLE_LAYOUTS)
ALPHACTION_SIDE = 360  # largest shorter side of its images, in pixels
AVA_LAYOUTS = ("ava", "ava-kinetics")
LABELS_FILE = "labels.json"
AFTER_THE_END = "key-frames outside the video"
NO_PEOPLE = ("it has none", "nobody is on a key-frame; a smaller `every` gives more of them")  # CVAT: the second
PREVIEW = 10


@dataclass
class PreparedKeyFrames:
    """
    Result of [`prepare_key_frames`].

    Args:
        file (`Path`):
            The JSON lines.
        label_names (`list[str]`):
            Names of the labels, in order.
        num_key_frames, num_people (`int`):
            Number of rows, and of boxes in them.
        missing (`dict[str, int]`, *optional*):
            Videos that are not there, with the number of their annotations.
        damaged (`dict[str, str]`, *optional*):
            Videos that cannot be read, with the reason.
        skipped (`dict[str, int]`, *optional*):
            Number of annotations that were left out, by reason.
    """

    file: Path
    label_names: list[str]
    num_key_frames: int
    num_people: int
    missing: dict[str, int] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)


class _Videos:
    """The videos of a folder by name, opened when they are asked for."""

    def __init__(self, root: Path):
        if not root.exists():
            raise ValueError(f"`videos` {str(root)!r} does not exist")
        self.single = root if root.is_file() else None
        self.index = VideoIndex(root.parent if root.is_file() else root)
        self.probes: dict[Path, VideoProbe] = {}
        self.missing: Counter[str] = Counter()
        self.damaged: dict[str, str] = {}

    @property
    def names(self) -> list[str]:
        return list(self.index.by_stem)

    def find(self, name: str) -> Path | None:
        if self.single is not None:
            return self.single
        return self.index.find(Clip(name, "train", (name, video_name(name)), None))[0]

    def open(self, names: Iterable[str], num_workers: int) -> dict[str, Path]:
        """Files of the videos that are there and readable."""
        files = {name: path for name in dict.fromkeys(names) if (path := self.find(name)) is not None}
        with ThreadPoolExecutor(num_workers) as pool:
            for path, found in zip(files.values(), pool.map(_probe, files.values())):
                if isinstance(found, VideoProbe):
                    self.probes[path] = found
                else:
                    self.damaged[path.relative_to(self.index.root).as_posix()] = found
        return {name: path for name, path in files.items() if path in self.probes}


def _probe(path: Path) -> VideoProbe | str:
    try:
        return probe_video(path)
    except VideoDecodingError as error:
        return error.reason


def prepare_key_frames(
    source: str | os.PathLike,
    output: str | os.PathLike,
    layout: str,
    videos: str | os.PathLike | None = None,
    label_names: Sequence[str] | None = None,
    offset: float = 0.0,
    every: float = 1.0,
    person_label: str | None = "person",
    num_workers: int = 1,
    overwrite: bool = False,
    movies: str | os.PathLike | None = None,
    person_threshold: float = 0.5,
) -> PreparedKeyFrames:
    """
    Write the annotations of a data set as JSON lines, see [`read_key_frames`]. Paths of videos are relative to the
    folder of the file where that is possible. The names of the labels are written beside it, in `labels.json`; an
    existing one with more names is kept, so that splits share it.

    Args:
        source (`str` or `os.PathLike`):
            The annotations: a csv (`"ava"`, `"ava-kinetics"`), a JSON file (`"coco"`), an XML file or a folder of them
            (`"cvat"`). Or detected people, without label names: a csv (`"slowfast"`), a JSON file (`"alphaction"`), a
            pickle (`"fair"`).
        output (`str` or `os.PathLike`):
            The JSON lines to write, a name that ends in `.jsonl`.
        layout (`str`):
            One of `DETECTION_LAYOUTS`.
        videos (`str` or `os.PathLike`, *optional*):
            Folder of the videos, searched at any depth, or the only video. Defaults to the folder of `source`.
        label_names (`Sequence[str]`, *optional*):
            Names of the labels in order; the first has number 1 in csv files. Defaults to AVA's 80 for its layouts,
            and otherwise to the names that occur, sorted.
        offset (`float`, *optional*, defaults to 0.0):
            For `"ava"` and detected people: timestamp of the start of the videos, in seconds; 900 for the usual cuts.
        every (`float`, *optional*, defaults to 1.0):
            For `"cvat"`: distance of the key-frames in seconds.
        person_label (`str`, *optional*, defaults to `"person"`):
            For `"cvat"` and `"coco"`: label of people that is no action; `None` if there is none.
        num_workers (`int`, *optional*, defaults to 1):
            Number of threads that open videos.
        overwrite (`bool`, *optional*, defaults to `False`):
            Whether to replace key-frames and label names of another preparation. Other files are never replaced.
        movies (`str` or `os.PathLike`, *optional*):
            For `"alphaction"`: list of the movies whose numbers the file has.
        person_threshold (`float`, *optional*, defaults to 0.5):
            For detected people: lowest score.

    Returns:
        [`PreparedKeyFrames`]

    Raises:
        ValueError: an argument is not allowed, or no key-frame is left.
    """
    source, output = Path(source), Path(output)
    if layout not in DETECTION_LAYOUTS:
        raise ValueError(f"`layout` must be one of {', '.join(DETECTION_LAYOUTS)}, got {layout!r}")
    if output.suffix != ".jsonl":
        raise ValueError(f"`output` must end in .jsonl, got {str(output)!r}")
    if not source.exists():
        raise ValueError(f"`source` {str(source)!r} does not exist")
    _check_output(output, overwrite)
    root = Path(videos) if videos is not None else (source if source.is_dir() else source.parent)
    found = _Videos(root)
    read = {
        "ava": lambda: _read_ava(source, found, label_names, offset, num_workers),
        "ava-kinetics": lambda: _read_ava_kinetics(source, found, label_names, num_workers),
        "cvat": lambda: _read_cvat(source, found, every, person_label, num_workers),
        "coco": lambda: _read_coco(source, found, person_label, num_workers),
    }.get(layout, lambda: _read_people(source, found, layout, offset, movies, person_threshold))()
    rows = _placed(read, found, output.parent)
    if not rows:
        missing = ", ".join(list(read.missing)[:PREVIEW])
        reasons = ", ".join(f"{reason}: {count}" for reason, count in read.skipped.items())
        facts = "; ".join(part for part in (reasons, f"videos not found: {missing}" if missing else "") if part)
        raise ValueError(
            f"No key-frame of `source` {str(source)!r} is left ({facts or NO_PEOPLE[layout == 'cvat']}). "
            f"`hf-videovit doctor {source} --videos {root}` names lines"
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    names: list[str] = []
    if layout not in PEOPLE_LAYOUTS:
        names = _label_names(rows, output.parent / LABELS_FILE, layout, label_names, overwrite)
        text = json.dumps(names, indent=1, ensure_ascii=False) + "\n"
        (output.parent / LABELS_FILE).write_text(text, encoding="utf-8")
    write_key_frames(output, rows)
    people = sum(len(row.boxes) for row in rows)
    return PreparedKeyFrames(output, names, len(rows), people, dict(read.missing), found.damaged, dict(+read.skipped))


def _check_output(output: Path, overwrite: bool) -> None:
    """Refuse to replace a file, unless it has key-frames and may be replaced."""
    if not output.exists():
        return
    if not overwrite:
        raise ValueError(f"`output` {str(output)!r} exists: choose another name, or set `overwrite`")
    try:
        read_key_frames(output)
    except (ValueError, OSError) as error:
        raise ValueError(f"`output` {str(output)!r} has no key-frames and is not replaced: {error}") from error


def _read_ava(
    source: Path, videos: _Videos, label_names: Sequence[str] | None, offset: float, num_workers: int
) -> KeyFrames:
    names = _first_column(source)
    files = videos.open(names, num_workers)
    return _of_files(read_ava(source, _sizes(files, videos), _numbered(label_names), offset), files)


def _read_ava_kinetics(
    source: Path, videos: _Videos, label_names: Sequence[str] | None, num_workers: int
) -> KeyFrames:
    wanted = set(_first_column(source))
    clips = [name for name in videos.names if name.rsplit("_", 2)[0] in wanted]
    files = videos.open(clips, num_workers)
    return _of_files(read_ava_kinetics(source, _sizes(files, videos), _numbered(label_names)), files)


def _read_cvat(source: Path, videos: _Videos, every: float, person_label: str | None, num_workers: int) -> KeyFrames:
    if not every > 0:
        raise ValueError(f"`every` must be positive, got {every}")
    result = KeyFrames([])
    for path in sorted(source.glob("*.xml")) if source.is_dir() else [source]:
        name = parse_cvat(path).source or path.stem
        files = videos.open([name], num_workers) or videos.open([path.stem], num_workers)
        if not files:
            result.missing[name] += 1
            continue
        (file,) = files.values()
        probe = videos.probes[file]
        if not probe.fps:
            raise ValueError(f"{file} does not tell its frame rate")
        step = max(1, round(every * probe.fps))
        part = read_cvat(path, probe.fps, step, str(file), person_label=person_label)
        result.rows += part.rows
        result.skipped += part.skipped
    return result


def _read_coco(source: Path, videos: _Videos, person_label: str | None, num_workers: int) -> KeyFrames:
    content = parse_json(read_text(source, "`source`"), f"`source` {str(source)!r}")
    listed = [str(one.get("file_name") or one.get("name")) for one in content.get("videos", [])]
    folders = {str(one.get("file_name", "")).rpartition("/")[0] for one in content.get("images", [])}
    files = videos.open(listed or sorted(folders), num_workers)
    single = str(videos.single) if videos.single is not None and not listed else None
    if single is not None:
        files |= videos.open([single], 1)
    rates = {name: videos.probes[path].fps or 0.0 for name, path in files.items()}
    return _of_files(read_coco(source, rates, single, person_label), files)


def _read_people(
    source: Path,
    videos: _Videos,
    layout: str,
    offset: float,
    movies: str | os.PathLike | None,
    threshold: float,
) -> KeyFrames:
    """Detected people, of all videos that are there."""
    if layout == "alphaction" and movies is None:
        raise ValueError("`movies` is needed for alphaction: a list such as ava_file_names_trainval_v2.1.txt")
    files = videos.open(videos.names, 1)
    sizes = _sizes(files, videos)
    if layout == "slowfast":
        read = read_slowfast(source, sizes, None, offset, threshold)
    elif layout == "fair":
        read = read_fair_people(source, sizes, threshold, offset)
    else:
        sizes = {name: _within(size, ALPHACTION_SIDE) for name, size in sizes.items()}
        read = read_alphaction_people(source, read_movies(str(movies)), sizes, threshold, offset)
    read.rows = [replace(row, labels=((),) * len(row.boxes)) for row in read.rows]
    return _of_files(read, files)


def _within(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """Width and height with a shorter side of at most so many pixels."""
    scale = min(1.0, short_side / min(size))
    return round(size[0] * scale), round(size[1] * scale)


def _first_column(path: Path) -> list[str]:
    """Names of the videos of a csv."""
    try:
        with path.open(encoding="utf-8-sig") as lines:
            return list(dict.fromkeys(line.split(",", 1)[0] for line in lines if "," in line))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a csv in UTF-8: {error}") from error


def _numbered(label_names: Sequence[str] | None) -> dict[int, str] | None:
    return None if label_names is None else dict(enumerate(label_names, start=1))


def _sizes(files: Mapping[str, Path], videos: _Videos) -> dict[str, tuple[int, int]]:
    return {name: (videos.probes[path].width, videos.probes[path].height) for name, path in files.items()}


def _of_files(read: KeyFrames, files: Mapping[str, Path]) -> KeyFrames:
    """Rows of the videos that were found, which they name by their files."""
    missing = read.missing + Counter(row.video for row in read.rows if row.video not in files)
    rows = [replace(row, video=str(files[row.video])) for row in read.rows if row.video in files]
    return KeyFrames(rows, read.skipped, missing)


def _placed(read: KeyFrames, videos: _Videos, folder: Path) -> list[KeyFrame]:
    """Rows with frame and time as the videos have them, and paths relative to `folder`."""
    clocks: dict[str, tuple[str, np.ndarray]] = {}
    rows = []
    for row in read.rows:
        if row.video not in clocks:
            clocks[row.video] = (_relative(Path(row.video), folder), _frame_times(videos.probes[Path(row.video)]))
        name, times = clocks[row.video]
        frame = int(np.abs(times - row.time).argmin()) if row.frame is None else row.frame
        last = times[-1] + (times[-1] - times[0]) / max(len(times) - 1, 1)
        if frame >= len(times) or (row.frame is None and not 0 <= row.time <= last):
            read.skipped[AFTER_THE_END] += 1
            continue
        # a frame has the time of its video; a time keeps its own and gets the nearest frame
        time = row.time if row.frame is None else float(times[frame])
        rows.append(replace(row, video=name, frame=frame, time=time))
    return rows


def _frame_times(probe: VideoProbe) -> np.ndarray:
    """Seconds from the first frame to each frame."""
    if probe.timestamps is not None and len(probe.timestamps):
        return np.asarray(probe.timestamps) - probe.timestamps[0]
    return np.arange(probe.num_frames) / (probe.fps or 25.0)


def _relative(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix()
    except ValueError:  # another drive
        return path.absolute().as_posix()


def _label_names(
    rows: Sequence[KeyFrame], path: Path, layout: str, label_names: Sequence[str] | None, overwrite: bool
) -> list[str]:
    """Names of the labels in order: those given, AVA's, those of another split, or those that occur."""
    used = KeyFrames(list(rows)).label_names
    wanted = list(ava_labels().values()) if label_names is None and layout in AVA_LAYOUTS else label_names
    known = parse_json(read_text(path, LABELS_FILE), str(path)) if path.is_file() else None
    if known is not None and not (isinstance(known, list) and all(isinstance(name, str) for name in known)):
        raise ValueError(f"{path} is no list of label names, and is not replaced")
    if known is not None and wanted is not None and known != list(wanted) and not overwrite:
        raise ValueError(f"{path} has other labels than `label_names`: choose another folder, or set `overwrite`")
    names = list(wanted) if wanted is not None else (known or used)
    lacking = sorted(set(used) - set(names))
    if lacking:
        where = "`label_names`" if wanted is not None else f"{path}, of another split,"
        raise ValueError(f"{where} lacks {', '.join(lacking[:PREVIEW])}; give the names of all labels")
    return names


__all__ = ["DETECTION_LAYOUTS", "PreparedKeyFrames", "prepare_key_frames"]
