"""
Published annotations as one list of clips. A clip has a file, optionally a part of it, a split and a label. The order
of the labels is kept where the data set fixes one.
"""

import csv
import io
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...files import read_json, read_text
from ...modeling.video_decoding_parts import VideoPart
from ...modeling.video_decoding_types import VIDEO_SUFFIXES
from ...published import published_labels
from ...video_files import video_name, visible_videos
from ..data.opening import list_splits, open_source
from ..data.sources import (
    SPLITS,
    VideoList,
    VideoSource,
    label_indices,
    preview,
    sort_label_names,
)


SPLIT_NAMES = {"validation": "val", "validate": "val", "valid": "val", "training": "train"}
KINETICS_COLUMNS = {"youtube_id", "time_start", "time_end"}
KINETICS_LISTS = ("k400", "k600", "k700")


@dataclass(frozen=True)
class Clip:
    """
    One annotated clip.

    Args:
        id (`str`):
            Name that is unique in its split.
        split (`str`):
            Its split.
        names (`tuple[str, ...]`):
            Possible names of its file, with or without folder and suffix, best first; or one absolute path.
        label (`str`, `tuple[str, ...]` or `None`):
            Name of its label, or names of any number of labels. `None` if it has no label.
        long_names (`tuple[str, ...]`, *optional*, defaults to `()`):
            Possible names of a longer video that contains the clip.
        start, end (`float`, *optional*):
            Start and end of the clip in the longer video, in seconds.
        exact (`bool`, *optional*, defaults to `False`):
            Whether the video is always cut. By default, a video that is hardly longer than the clip is the clip.
        fps (`float`, *optional*):
            Frame rate of a folder of pictures.
    """

    id: str
    split: str
    names: tuple[str, ...]
    label: str | tuple[str, ...] | None
    long_names: tuple[str, ...] = ()
    start: float | None = None
    end: float | None = None
    exact: bool = False
    fps: float | None = None


@dataclass
class Annotations:
    """
    The clips of a data set.

    Args:
        layout (`str`):
            One of `LAYOUTS`.
        clips (`list[Clip]`):
            The clips, in the order of the annotation files.
        label_names (`list[str]`, *optional*, defaults to `[]`):
            Names of the labels, in the data set's own order where it has one.
    """

    layout: str
    clips: list[Clip]
    label_names: list[str] = field(default_factory=list)


def read_annotations(
    source: str | Path,
    layout: str = "auto",
    split_number: int = 1,
    holdout: float = 0.0,
    **columns: Any,
) -> Annotations:
    """
    Read the annotations of a data set.

    Args:
        source (`str` or `Path`):
            The folder of the annotation files (or its parent), a Kinetics CSV, a folder of classes, or a list.
        layout (`str`, *optional*, defaults to `"auto"`):
            One of `LAYOUTS`, or `"auto"` to detect it.
        split_number (`int`, *optional*, defaults to 1):
            Official split of UCF101 and HMDB51: 1, 2 or 3.
        holdout (`float`, *optional*, defaults to 0.0):
            Share of each label's clips that becomes the split `val`, for folders and lists without splits.
        columns:
            `video_column`, `label_column`, `label_separator` and `root` of a list.

    Returns:
        [`Annotations`]: the clips and the names of their labels.

    Raises:
        ValueError: an argument is not allowed, or `source` has no annotations of the layout.
    """
    path = Path(source).expanduser()
    if layout not in ("auto", *LAYOUTS):
        raise ValueError(f"`layout` must be auto or one of {', '.join(LAYOUTS)}, got {layout!r}")
    if split_number not in (1, 2, 3):
        raise ValueError(f"`split_number` must be 1, 2 or 3, got {split_number}")
    if layout == "auto":
        layout = next((name for name, (found, _) in OFFICIAL.items() if found(path)), "generic")
    if layout == "generic":
        annotations = _read_generic(path, holdout, columns)
    else:
        annotations = OFFICIAL[layout][1](path, split_number)
    if not annotations.clips:
        raise ValueError(f"`source` {str(path)!r} has no annotations of the layout {layout!r}")
    unknown = sorted({clip.split for clip in annotations.clips} - set(SPLITS))
    if unknown:
        raise ValueError(f"Splits must be among {', '.join(SPLITS)}, `source` has {', '.join(unknown)}")
    return annotations


class VideoIndex:
    """
    Finds the file of a clip in a folder, at any depth.

    Args:
        root (`Path`):
            The folder to search.
    """

    def __init__(self, root: Path):
        self.root = root
        self.by_stem: dict[str, list[Path]] = defaultdict(list)
        for path in visible_videos(root):
            if path.exists():
                self.by_stem[video_name(path)].append(path)

    def find(self, clip: Clip) -> tuple[Path | None, bool, str]:
        """
        Find the file of a clip.

        Args:
            clip ([`Clip`]):
                The clip.

        Returns:
            `tuple[Path | None, bool, str]`: the file (`None` if it is not found), whether the clip is only a part of
            it, and the reason why no file is found.
        """
        if len(clip.names) == 1 and Path(clip.names[0]).is_absolute():
            return Path(clip.names[0]), clip.start is not None, ""
        for names, long in ((clip.names, False), (clip.long_names, True)):
            for name in names:
                files = self._called(name)
                if len(files) == 1:
                    return files[0], long, ""
                if files:
                    listed = ", ".join(path.relative_to(self.root).as_posix() for path in files[:3])
                    return None, False, f"found more than once: {listed}"
        return None, False, f"no file is named {clip.names[0]}"

    def _called(self, name: str) -> list[Path]:
        """Files with that stem. Of several, a folder of the right name is preferred, then the right suffix."""
        wanted = Path(name)
        known = wanted.suffix.lower() in VIDEO_SUFFIXES
        files = self.by_stem.get(wanted.stem if known else wanted.name, [])
        if len(files) > 1:
            files = [path for path in files if path.parent.name == wanted.parent.name] or files
        if len(files) > 1 and known:
            files = [path for path in files if path.suffix.lower() == wanted.suffix.lower()] or files
        return files


# ---------------------------------------------------------------------- folders and lists


def _read_generic(path: Path, holdout: float, columns: dict[str, Any]) -> Annotations:
    splits = list_splits(path)
    sources: dict[str, VideoSource] = {split: open_source(path, split, **columns) for split in splits}
    if not splits:
        whole = open_source(path, None, **columns)
        if holdout and isinstance(whole, VideoList):
            sources = dict(zip(("train", "val"), whole.split(holdout)))
        else:
            sources = {"train": whole}
    clips = []
    names = sorted({name for source in sources.values() for name in source.label_names})
    for split, source in sources.items():
        if not isinstance(source, VideoList):
            raise ValueError(
                f"`source` {str(path)!r} must be video files or a list of video files, not tars or parquet"
            )
        for sample in source:
            labels = tuple(source.label_names[index] for index in label_indices(sample.label))
            label = labels if source.multi_label and sample.label is not None else next(iter(labels), None)
            part = VideoPart.of(sample.video)
            video: dict[str, Any] = sample.video if isinstance(sample.video, dict) else {"path": sample.video}
            file = str(video["path"])
            if "://" in file:
                raise ValueError(f"`source` must list local files, got {file!r}")
            if part is not None and part.in_frames:
                raise ValueError(f"`source` must give parts in seconds, got frames {part} of {file!r}")
            start, end = (None, None) if part is None else (part.start, part.end)
            place = (str(Path(file).absolute()),)
            clips.append(Clip(sample.id, split, place, label, (), start, end, exact=True, fps=video.get("fps")))
    first = next(iter(sources.values())).label_names
    return Annotations("generic", clips, list(first) if set(first) == set(names) else sort_label_names(names))


# ---------------------------------------------------------------------- official layouts


def _find(path: Path, pattern: str) -> list[Path]:
    """Files that match a pattern in a folder, otherwise in its subfolders."""
    if path.is_file():
        return [path] if path.match(pattern) else []
    return sorted(path.glob(pattern)) or sorted(path.glob(f"*/{pattern}"))


def _split_of(name: str, splits: Iterable[str]) -> str:
    """The split in the name of a file, such as `something-something-v2-validation.json`."""
    word = next((split for split in splits if re.search(rf"(^|[^a-z]){split}([^a-z]|$)", name.lower())), "train")
    return SPLIT_NAMES.get(word, word)


def _read_json(path: Path) -> Any:
    return read_json(path, "`source`:")


def _kinetics_files(path: Path) -> list[Path]:
    def has_columns(file: Path) -> bool:
        with file.open(encoding="utf-8-sig", newline="", errors="replace") as opened:
            return set(next(csv.reader(opened), [])) >= KINETICS_COLUMNS

    return [file for file in _find(path, "*.csv") if has_columns(file)]


def _read_kinetics(path: Path, split_number: int) -> Annotations:
    """Rows of `label,youtube_id,time_start,time_end,split`. The test split of Kinetics-400 has no labels."""
    clips = []
    for file in _kinetics_files(path):
        rows = list(csv.DictReader(io.StringIO(read_text(file, "`source`:"), newline="")))
        for row in rows:
            video, start, end = row["youtube_id"], float(row["time_start"]), float(row["time_end"])
            label = row.get("label") or None
            name = f"{video}_{int(start):06d}_{int(end):06d}"
            names = [name, f"{video}_{int(start)}_{int(end)}"]
            split = row.get("split") or _split_of(file.stem, SPLITS[::-1] + tuple(SPLIT_NAMES))
            clip = Clip(
                name,
                SPLIT_NAMES.get(split, split),
                tuple(f"{folder}/{one}" for one in names for folder in _folders(label)),
                label,
                tuple(f"{folder}/{video}" for folder in _folders(label)),
                start,
                end,
            )
            clips.append(clip)
    found = {clip.label for clip in clips if isinstance(clip.label, str)}
    official = (published_labels(name) for name in KINETICS_LISTS)
    names = next((names for names in official if set(names) == found), sort_label_names(found))
    return Annotations("kinetics", list(dict.fromkeys(clips)), names)


def _folders(label: str | None) -> list[str]:
    """Usual names of the folder of a class."""
    return [label, label.replace(" ", "_")] if label else ["test"]


def _ssv2_files(path: Path) -> list[Path]:
    files = [file for file in _find(path, "*.json") if re.search(r"(^|-)(train|validation|test)\.json$", file.name)]
    labels = [file for file in _find(path, "*.json") if re.search(r"(^|-)labels\.json$", file.name)]
    fits = bool(files) and bool(labels) and isinstance(_read_json(labels[0]), dict)
    return [labels[0], *files] if fits else []


def _read_ssv2(path: Path, split_number: int) -> Annotations:
    """
    Rows with `id` and `template`, and a table from template to number. The name of a class is its template with
    brackets, as in the official heads. The answers of the test split are used if they exist.
    """
    found = _ssv2_files(path)
    if not found:
        return Annotations("ssv2", [])
    labels, *files = found
    numbers = {name: int(number) for name, number in _read_json(labels).items()}
    names = {_plain(name): name for name in published_labels("ssv2")}
    rows = {file: _read_json(file) for file in files}
    names |= {_plain(row["template"]): row["template"] for part in rows.values() for row in part if "template" in row}
    answers = {}
    for file in _find(path, "*test-answers.csv")[:1]:
        lines = read_text(file, "`source`:").splitlines()
        answers = dict(line.split(";", 1) for line in lines if ";" in line)
    clips = []
    for file, part in rows.items():
        split = _split_of(file.stem, ("train", "validation", "test"))
        for row in part:
            template = _plain(row.get("template") or answers.get(str(row["id"]), ""))
            clips.append(Clip(str(row["id"]), split, (str(row["id"]),), names.get(template, template) or None))
    ordered = sorted(numbers, key=numbers.__getitem__)
    return Annotations("ssv2", clips, [names.get(_plain(name), name) for name in ordered])


def _plain(template: str) -> str:
    return template.replace("[", "").replace("]", "").strip()


def _read_ucf101(path: Path, split_number: int) -> Annotations:
    """`classInd.txt` (`1 ApplyEyeMakeup`), `trainlist01.txt` (`Class/video.avi 1`), `testlist01.txt` (no number)."""
    order = [
        line.split() for file in _find(path, "classInd.txt") for line in read_text(file, "`source`:").splitlines()
    ]
    names = [name for _, name in sorted((int(row[0]), row[1]) for row in order if row)]
    clips = []
    for split in ("train", "test"):
        for file in _find(path, f"{split}list0{split_number}.txt"):
            for line in read_text(file, "`source`:").splitlines():
                if words := line.split():
                    folder, _, video = words[0].rpartition("/")
                    clips.append(Clip(Path(video).stem, split, (words[0],), folder))
    return Annotations("ucf101", clips, names)


def _read_hmdb51(path: Path, split_number: int) -> Annotations:
    """A file per class, `brush_hair_test_split1.txt`, with `video.avi 1` (train), `2` (test) or `0` (unused)."""
    clips, names = [], []
    for file in _find(path, f"*_test_split{split_number}.txt"):
        label = file.name.rpartition("_test_split")[0]
        names.append(label)
        for line in read_text(file, "`source`:").splitlines():
            video, _, use = line.strip().rpartition(" ")
            if use in ("1", "2"):
                split = "train" if use == "1" else "test"
                clips.append(Clip(Path(video.strip()).stem, split, (f"{label}/{video.strip()}",), label))
    clips.sort(key=lambda clip: SPLITS.index(clip.split))
    return Annotations("hmdb51", clips, sorted(names))


def _diving48_files(path: Path) -> list[Path]:
    vocabulary = _find(path, "*[Dd]iving48*vocab.json")
    lists = [file for file in _find(path, "*[Dd]iving48*.json") if re.search(r"_(train|test)\.json$", file.name)]
    return [vocabulary[0], *lists] if vocabulary and lists else []


def _read_diving48(path: Path, split_number: int) -> Annotations:
    """Rows with `vid_name` and `label`, an index into `Diving48_vocab.json`: a list of four words per class."""
    found = _diving48_files(path)
    if not found:
        return Annotations("diving48", [])
    vocabulary, *files = found
    names = [name if isinstance(name, str) else " ".join(name) for name in _read_json(vocabulary)]
    clips = []
    for file in sorted(files, key=lambda file: _split_of(file.stem, ("train", "test")) != "train"):
        for row in _read_json(file):
            split = _split_of(file.stem, ("train", "test"))
            clips.append(Clip(row["vid_name"], split, (row["vid_name"],), names[row["label"]]))
    return Annotations("diving48", clips, names)


OFFICIAL: dict[str, tuple[Callable[[Path], Any], Callable[[Path, int], Annotations]]] = {
    "ucf101": (lambda path: _find(path, "classInd.txt"), _read_ucf101),
    "hmdb51": (lambda path: _find(path, "*_test_split1.txt"), _read_hmdb51),
    "diving48": (_diving48_files, _read_diving48),
    "ssv2": (_ssv2_files, _read_ssv2),
    "kinetics": (_kinetics_files, _read_kinetics),
}
LAYOUTS = ("generic", *OFFICIAL)


def order_labels(annotations: Annotations, label_names: Sequence[str] | None) -> list[str]:
    """
    Names of the labels in the order of their indices.

    Args:
        annotations ([`Annotations`]):
            The clips.
        label_names (`Sequence[str]` or `None`):
            The wanted order. `None` keeps the order of the annotations.

    Returns:
        `list[str]`: the names.

    Raises:
        ValueError: `label_names` lacks a label of the annotations.
    """
    names = list(annotations.label_names if label_names is None else label_names)
    labels = [clip.label for clip in annotations.clips if clip.label is not None]
    used = {name for label in labels for name in (label if isinstance(label, tuple) else (label,))}
    missing = sorted(used - set(names))
    if missing:
        raise ValueError(f"`label_names` lacks {len(missing)} labels of the annotations: {preview(missing)}")
    return names
