"""Folders of videos: which subfolders are splits, which are classes, and which files are left out."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...files import has_file, plain_name, visible_files, visible_folders
from ...modeling.video_decoding_types import VIDEO_SUFFIXES
from ...video_files import find_frame_folders, is_video, visible_videos
from .lists import LIST_SUFFIXES
from .sources import SHARD_SUFFIXES, SPLITS, VideoList, label_mapping, preview, sort_label_names


def split_folders(path: Path, suffixes: Sequence[str] = VIDEO_SUFFIXES) -> dict[str, Path]:
    """
    The folders of splits in a folder. A folder called like a split (`train`, `Val`) is a split if no other folder with
    videos is beside it, or if several such folders have class folders in them. It is a class if it has videos in it
    and is beside other folders of videos.

    Args:
        path (`Path`):
            The folder.
        suffixes (`Sequence[str]`, *optional*, defaults to `VIDEO_SUFFIXES`):
            Suffixes of the files, in lower case.

    Returns:
        `dict[str, Path]`: the folders by name of the split in lower case, in the order of `SPLITS`.

    Raises:
        ValueError: the folders may be splits or classes.
    """
    folders = visible_folders(path)
    named = [folder for folder in folders if folder.name.lower() in SPLITS]
    splits = {folder.name.lower(): folder for folder in sorted(named, key=lambda one: SPLITS.index(one.name.lower()))}
    others = (
        [folder.name for folder in folders if folder not in named and _has_files(folder, suffixes)] if named else []
    )
    flat = [folder.name for folder in named if others and _is_flat(folder, suffixes)]
    nested = [folder.name for folder in named if others and folder.name not in flat and _has_files(folder, suffixes)]
    if flat and not nested:
        return {}
    if len(splits) < len(named) or flat or len(nested) == 1:
        raise ValueError(
            f"`data` {str(path)!r} has the folder {preview([one.name for one in named])} beside {preview(others)}: "
            "splits or classes? Splits must be the only folders with videos, and have class folders in them; class "
            "folders have the videos in them. Rename a folder, or give a list of the videos"
        )
    return splits


def beside_splits(path: Path, suffixes: Sequence[str] = VIDEO_SUFFIXES) -> list[str]:
    """
    Names of the folders with videos that are not splits, in a folder with splits.

    Args:
        path (`Path`):
            The folder.
        suffixes (`Sequence[str]`, *optional*, defaults to `VIDEO_SUFFIXES`):
            Suffixes of the files, in lower case.

    Returns:
        `list[str]`: the names.
    """
    others = (folder for folder in visible_folders(path) if folder.name.lower() not in SPLITS)
    return [folder.name for folder in others if _has_files(folder, suffixes)]


def _has_files(folder: Path, suffixes: Sequence[str]) -> bool:
    if has_file(folder, (*suffixes, *SHARD_SUFFIXES)):
        return True
    return any(path.is_dir() for path in find_frame_folders(visible_files(folder), folder.parent, suffixes))


def _is_flat(folder: Path, suffixes: Sequence[str]) -> bool:
    """Whether a folder has videos in it, and no folders with videos."""
    videos = visible_videos(folder, suffixes)
    return bool(videos) and all(video.parent == folder for video in videos) and not has_file(folder, SHARD_SUFFIXES)


@dataclass
class _Found:
    """Videos of a folder, and what is beside them."""

    videos: list[tuple[str, Path]] = field(default_factory=list)  # class and file
    empty: list[str] = field(default_factory=list)  # folders without videos
    inner: dict[str, list[str]] = field(default_factory=dict)  # subfolders of each class
    other: Counter[str] = field(default_factory=Counter)  # suffixes of files that are no videos
    broken: list[str] = field(default_factory=list)  # links without a target

    def add(self, name: str, folder: Path, files: Sequence[Path], suffixes: Sequence[str]) -> None:
        """Sort the files of a class."""
        videos = [file for file in files if is_video(file, suffixes)]
        others = [file for file in files if not is_video(file, suffixes)]
        self.other.update(file.suffix.lower() or file.name for file in others if file.is_file())
        self.broken += [file.relative_to(folder.parent).as_posix() for file in files if not file.exists()]
        videos = [file for file in videos if file.exists()]
        self.videos += [(name, file) for file in videos]
        if not videos:
            self.empty.append(folder.name)
        inner = sorted({file.relative_to(folder).parts[0] for file in videos if file.parent != folder})
        if inner:
            self.inner[name] = inner

    def check_inner(self, root: Path) -> None:
        """Refuse `run/train/a.mp4`, `run/val/b.mp4`: splits inside of the classes would be mixed."""
        inside = sorted({name for inner in self.inner.values() for name in inner})
        if len(self.inner) > 1 and all({one.lower() for one in inner} <= {*SPLITS} for inner in self.inner.values()):
            raise ValueError(
                f"`data` {str(root)!r} has the folders {preview(inside)} in its class folders "
                f"{preview(list(self.inner))}: splits must be outside of the classes (`train/<class>`). "
                "Move them, or give a list of the videos"
            )

    def remarks(self, root: Path, loose: Sequence[Path], files: Sequence[Path]) -> list[str]:
        """Sentences about the folder that a user should know."""
        remarks = []
        lists = [file.name for file in files if file.parent == root and file.suffix.lower() in LIST_SUFFIXES]
        if lists and not self.videos:
            remarks.append(f"The list {preview(lists)} in the folder is not read: give the file itself as `data`")
        self.broken += [file.name for file in files if file.parent == root and not file.exists()]
        if self.inner:
            merged = "; ".join(f"{name!r} ({preview(inner, 4)})" for name, inner in list(self.inner.items())[:4])
            remarks.append(f"Videos in subfolders have the class of the outermost folder: {merged}")
        if self.empty:
            remarks.append(f"Folders without videos are no classes and are left out: {preview(self.empty)}")
        if loose and self.videos:
            names = [file.name for file in loose]
            remarks.append(
                f"{len(loose)} videos beside the class folders have no class and are left out: {preview(names)}"
            )
        if frames := [path for path in files if path.is_dir()]:
            names = [path.relative_to(root).as_posix() for path in frames]
            remarks.append(f"{len(frames)} folders of pictures are videos, a picture a frame: {preview(names, 4)}")
        if self.broken:
            remarks.append(f"{len(self.broken)} links have no target and are left out: {preview(self.broken)}")
        if self.other:
            count = sum(self.other.values())
            remarks.append(f"{count} files have no suffix of a video and are left out: {preview(sorted(self.other))}")
        return remarks


def folder_source(
    root: Path, label_names: Sequence[str] | None = None, suffixes: Sequence[str] = VIDEO_SUFFIXES
) -> VideoList:
    """
    A folder of class folders, or of unlabelled videos. A video is a file or a folder of pictures. Links are followed.
    Hidden files and those of operating systems are not seen (`._clip.mp4`, `.ipynb_checkpoints`, `__MACOSX`).

    Args:
        root (`Path`):
            A folder with one subfolder per label, each with videos at any depth, or a folder of videos without labels.
        label_names (`Sequence[str]`, *optional*):
            Label names in the order of their indices; the sorted folder names by default.
        suffixes (`Sequence[str]`, *optional*, defaults to `VIDEO_SUFFIXES`):
            Suffixes of the files, in lower case.

    Returns:
        `VideoList`: the videos. Ids are paths relative to `root`.

    Raises:
        ValueError: the folder has no such files, or a label is not among `label_names`.
    """
    found, files = _Found(), find_frame_folders(visible_files(root), root, suffixes)
    inside: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        inside[file.relative_to(root).parts[0]].append(file)
    for folder in visible_folders(root):
        if inside[folder.name] != [folder]:  # a folder of pictures is no class
            found.add(plain_name(folder.name), folder, inside[folder.name], suffixes)
    loose = [file for file in files if file.parent == root and is_video(file, suffixes) and file.exists()]
    if not found.videos and not loose:
        kind = "videos" if suffixes == VIDEO_SUFFIXES else "files"
        raise ValueError(f"`data` {str(root)!r} has no class folders with {kind} ({', '.join(suffixes)})")
    found.check_inner(root)
    remarks = found.remarks(root, loose, files)
    if not found.videos:
        unlabelled = [None] * len(loose)
        return VideoList(_ids(root, loose), list(map(str, loose)), unlabelled, label_names or [], remarks=remarks)
    classes = sorted({name for name, _ in found.videos})
    names = sort_label_names(classes) if label_names is None else list(label_names)
    to_index = dict(zip(classes, label_mapping(classes, names), strict=True))
    paths = [path for _, path in found.videos]
    labels = [to_index[name] for name, _ in found.videos]
    return VideoList(_ids(root, paths), [str(path) for path in paths], labels, names, remarks=remarks)


def _ids(root: Path, paths: Sequence[Path]) -> list[str]:
    """Paths relative to a folder, with the same characters on every machine where these are unique."""
    ids = [path.relative_to(root).as_posix() for path in paths]
    plain = [plain_name(name) for name in ids]
    return plain if len(set(plain)) == len(plain) else ids
