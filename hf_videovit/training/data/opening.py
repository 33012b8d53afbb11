"""Open the data of a run: detect its kind and splits, and make sources of samples."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers.utils import logging

from ...files import is_hidden, plain_name
from ...modeling.video_decoding_types import VIDEO_SUFFIXES
from ..arguments import DataArguments
from .folders import beside_splits, folder_source, split_folders
from .lists import LIST_SUFFIXES, list_source, list_split_names
from .manifest import read_label_names, read_shard_sizes
from .repos import list_repo_splits, parse_address, reaching, repo_source
from .shards import VideoShards, shard_source
from .sources import EVAL_SPLITS, SHARD_SUFFIXES, SPLITS, VideoList, VideoSource, label_mapping, preview
from .twins import shared_clips


logger = logging.get_logger(__name__)


def open_source(
    data: str | Path,
    split: str | None = None,
    *,
    video_column: str | None = None,
    label_column: str | None = None,
    label_names: Sequence[str] | None = None,
    label_separator: str | None = None,
    root: str | None = None,
    config: str | None = None,
    shuffle_buffer: int = 256,
) -> VideoSource:
    """
    Open labelled videos in any supported form.

    Args:
        data (`str` or `Path`):
            A folder (`{data}/{split}/{class}/*.mp4`, `{data}/{class}/*.mp4`, `{data}/{split}.csv`, or tars or parquet
            files named after the split or in its folder), a CSV, TSV, JSON or JSONL list, a tar or parquet file, a
            pattern of such files (`clips/*.tar`), or a data set repo: its id (`owner/name`), or
            `hf://datasets/owner/name@revision/path` for a revision, folder, list or shards in it.
        split (`str`, *optional*):
            The split; needed if the data has splits.
        video_column (`str`, *optional*):
            Column of the video; the usual names are tried by default.
        label_column (`str`, *optional*):
            Column of the label; the usual names are tried by default.
        label_names (`Sequence[str]`, *optional*):
            Label names in the order of their indices. By default those in `labels.json` of the folder (a list of
            names), or the sorted names in the data if there is no such file.
        label_separator (`str`, *optional*):
            Separator between the labels of a clip with several labels, in lists and streams; JSON lists need none.
        root (`str`, *optional*):
            Folder that the paths of a list are relative to; the folder of the list by default.
        config (`str`, *optional*):
            Configuration of a data set repo.
        shuffle_buffer (`int`, *optional*, defaults to 256):
            Encoded samples in the shuffle buffer of a stream.

    Returns:
        [`VideoSource`]: the videos.

    Raises:
        ValueError: `data` has none of these forms, or lacks the split, a column or a label name.
    """
    columns: dict[str, Any] = {"video_column": video_column, "label_column": label_column}
    columns |= {"label_names": label_names, "label_separator": label_separator}
    address = parse_address(str(data))
    path = Path(data).expanduser()
    if path.is_dir():
        return _open_folder(path, split, columns, root, shuffle_buffer)
    if path.is_file() and path.suffix.lower() in LIST_SUFFIXES:
        return list_source(path, split, root=root, **columns)
    files = _matching_files(path)
    if files and all(file.suffix in SHARD_SUFFIXES for file in files):
        return _shards(files, columns, shuffle_buffer)
    if path.is_file() or files:
        raise ValueError(
            f"`data` {str(data)!r} must be a list ({', '.join(LIST_SUFFIXES)}) or shards ({', '.join(SHARD_SUFFIXES)})"
        )
    if address is not None:
        with reaching(address):
            return repo_source(address, split or "train", config, shuffle_buffer=shuffle_buffer, **columns)
    if path.is_absolute() and not any(sign in path.name for sign in "*?["):
        raise ValueError(f"`data` {str(data)!r} does not exist")
    raise ValueError(f"`data` {str(data)!r} is not a folder, list, shard, pattern of shards or data set repo id")


def list_splits(data: str | Path, config: str | None = None, suffixes: Sequence[str] = VIDEO_SUFFIXES) -> list[str]:
    """
    Names of the splits of data.

    Args:
        data (`str` or `Path`):
            See [`open_source`].
        config (`str`, *optional*):
            Configuration of a data set repo.
        suffixes (`Sequence[str]`, *optional*, defaults to `VIDEO_SUFFIXES`):
            Suffixes of the files in a folder of classes, in lower case.

    Returns:
        `list[str]`: the names; empty if the data has no splits.

    Raises:
        ValueError: a folder may be a split or a class, see [`split_folders`].
    """
    path = Path(data).expanduser()
    if path.is_dir():
        if any(_split_files(path, split) for split in SPLITS):
            return [split for split in SPLITS if (path / split).is_dir() or _split_files(path, split)]
        return list(split_folders(path, suffixes))
    if path.is_file() and path.suffix.lower() in LIST_SUFFIXES:
        return list_split_names(path)
    address = parse_address(str(data))
    return list_repo_splits(address, config) if address is not None and not path.exists() else []


def load_sources(arguments: DataArguments, seed: int) -> tuple[VideoSource, VideoSource | None]:
    """
    Open the videos to train on and to evaluate on, with the same label names.

    If the data has no split to evaluate on, a share (`holdout`) of the training videos is held out.

    Args:
        arguments ([`DataArguments`]):
            The data of a run.
        seed (`int`):
            Seed of the choice of videos for `max_train_samples` and `max_eval_samples`.

    Returns:
        `tuple[VideoSource, VideoSource | None]`: videos to train on and videos to evaluate on; the latter are `None`
        with `holdout=0`.

    Raises:
        ValueError: `data` is missing or not as the other fields describe it.
    """
    if arguments.data is None:
        raise ValueError("`data` is needed: a folder, list, shards or data set repo id")
    splits = list_splits(arguments.data, arguments.data_config)
    train = _open(arguments, arguments.data, _train_split(arguments, splits) if splits else None)
    if arguments.eval_data is not None:
        theirs = list_splits(arguments.eval_data, arguments.data_config)
        evaluation: VideoSource | None = _open(arguments, arguments.eval_data, _eval_split(arguments, theirs))
    elif splits and _eval_split(arguments, splits):
        evaluation = _open(arguments, arguments.data, _eval_split(arguments, splits))
    else:
        train, evaluation = _hold_out(train, arguments.holdout)
    if evaluation is not None:
        if train.label_names:
            evaluation = _with_labels_of(train, evaluation, str(arguments.eval_data or arguments.data))
        evaluation = _limit(evaluation, arguments.max_eval_samples, seed)
    train = _limit(train, arguments.max_train_samples, seed)
    if evaluation is not None and (shared := shared_clips(train, evaluation)):
        evaluation.remarks += (
            f"{len(shared)} clips are in the training data as well, so scores are too high: {preview(shared)}",
        )
    for name, source in (("training", train), ("evaluation", evaluation)):
        warn_of_remarks(name, source)
    return train, evaluation


def _with_labels_of(train: VideoSource, evaluation: VideoSource, data: str) -> VideoSource:
    lacking = sorted(set(map(plain_name, evaluation.label_names)) - set(map(plain_name, train.label_names)))
    if lacking:
        raise ValueError(
            f"The evaluation clips of {data!r} have labels that the training clips lack: {preview(lacking)}; the "
            f"training clips have {preview(train.label_names)}"
        )
    return evaluation.with_label_names(train.label_names)


def told(source: VideoSource) -> str:
    """
    The remarks of a source, for the end of an error message.

    Args:
        source ([`VideoSource`]):
            The source.

    Returns:
        `str`: the remarks in brackets; empty without any.
    """
    return f" ({'; '.join(source.remarks)})" if source.remarks else ""


def require_labels(source: VideoSource, what: str, way_out: str) -> None:
    """
    Refuse unlabelled videos.

    Args:
        source ([`VideoSource`]):
            The videos.
        what (`str`):
            The argument and its value, for the error message.
        way_out (`str`):
            What else a user can do, for the error message.

    Raises:
        ValueError: no video has a label.
    """
    unlabelled = isinstance(source, VideoList) and all(label is None for label in source.labels())
    if not source.label_names or unlabelled:
        raise ValueError(
            f"{what} has no labels: put the videos into a folder for each class, give `label_column`, {way_out}"
            f"{told(source)}"
        )
    if isinstance(source, VideoShards) and source.unlabelled:
        raise ValueError(
            f"{what} has {len(source.unlabelled)} samples without a label: {preview(source.unlabelled)}. Pack it "
            "again without them"
        )


def require_files(source: VideoSource, what: str) -> None:
    """
    Refuse videos of which no file exists.

    Args:
        source ([`VideoSource`]):
            The videos.
        what (`str`):
            The argument and its value, for the error message.

    Raises:
        ValueError: the videos are local files that do not exist.
    """
    if not isinstance(source, VideoList) or not len(source):
        return
    paths = (str(video["path"]) if isinstance(video, dict) else video for video in source.videos())
    if not any("://" in path or Path(path).exists() for path in paths):
        raise ValueError(f"{what}: none of the {len(source)} files exists{told(source)}")


def warn_of_remarks(name: str, source: VideoSource | None) -> None:
    """
    Log the remarks of a source as warnings.

    Args:
        name (`str`):
            Use of the videos: `"training"` or `"evaluation"`.
        source ([`VideoSource`] or `None`):
            The videos.
    """
    for remark in () if source is None else source.remarks:
        logger.warning(f"{name.capitalize()} data: {remark}.")


def load_evaluation_source(arguments: DataArguments, seed: int = 0) -> VideoSource:
    """
    Open only the videos to evaluate on, with their own label names.

    Args:
        arguments ([`DataArguments`]):
            `eval_data` (or `data`), `eval_split`, columns.
        seed (`int`, *optional*, defaults to 0):
            Seed of the choice of videos for `max_eval_samples`.

    Returns:
        [`VideoSource`]: the videos.

    Raises:
        ValueError: the data or the split is missing.
    """
    data = arguments.eval_data or arguments.data
    if data is None:
        raise ValueError("`eval_data` is needed: a folder, list, shards or data set repo id")
    splits = list_splits(data, arguments.data_config)
    split = _eval_split(arguments, splits)
    if splits and split is None:
        raise ValueError(f"`eval_split` is needed: {data!r} has the splits {', '.join(splits)}")
    source = _limit(_open(arguments, data, split), arguments.max_eval_samples, seed)
    warn_of_remarks("evaluation", source)
    require_files(source, f"`eval_data` {data!r}")
    require_labels(source, f"`eval_data` {data!r}", "or predict without scores with `hf-videovit classify`")
    return source


def match_labels(source: VideoSource, id2label: dict[int, str]) -> VideoSource:
    """
    Match the labels of a source to those of a model by name.

    Args:
        source ([`VideoSource`]):
            Labelled videos.
        id2label (`dict[int, str]`):
            Label names of the model.

    Returns:
        [`VideoSource`]: the same videos with the label indices of the model.

    Raises:
        ValueError: the model lacks a label of the source.
    """
    names = [id2label[index] for index in range(len(id2label))]
    label_mapping(source.label_names, names)
    return source.with_label_names(names)


def _open(arguments: DataArguments, data: str, split: str | None) -> VideoSource:
    return open_source(
        data,
        split,
        video_column=arguments.video_column,
        label_column=arguments.label_column,
        label_names=arguments.label_names,
        label_separator=arguments.label_separator,
        root=arguments.data_root,
        config=arguments.data_config,
        shuffle_buffer=arguments.shuffle_buffer,
    )


def _train_split(arguments: DataArguments, splits: Sequence[str]) -> str:
    chosen = arguments.train_split
    return "training" if chosen == "train" and chosen not in splits and "training" in splits else chosen


def _eval_split(arguments: DataArguments, splits: Sequence[str]) -> str | None:
    if arguments.eval_split is not None:
        if splits and arguments.eval_split not in splits:
            raise ValueError(f"`eval_split` {arguments.eval_split!r} is not among the splits {', '.join(splits)}")
        return arguments.eval_split
    return next((split for split in EVAL_SPLITS if split in splits), None)


def _hold_out(train: VideoSource, share: float) -> tuple[VideoSource, VideoSource | None]:
    if share == 0:
        return train, None
    if not isinstance(train, VideoList):
        raise ValueError("A stream cannot be split: set `eval_data`, `eval_split`, or `holdout` 0 for no evaluation")
    rest, held_out = train.split(share)
    held_out.held_out = True
    if not len(held_out):
        logger.warning("No split to evaluate on, and too few clips to hold some out: there is no evaluation.")
        return train, None
    logger.warning(f"No split to evaluate on: {len(held_out)} of {len(train)} clips are held out, chosen by name.")
    return rest, held_out


def _limit(source: VideoSource, count: int | None, seed: int) -> VideoSource:
    if count is None:
        return source
    if isinstance(source, VideoShards):
        raise ValueError("`max_train_samples` and `max_eval_samples` need single files; use `max_steps` for streams")
    return source.sample(count, seed) if isinstance(source, VideoList) else source


def _open_folder(path: Path, split: str | None, columns: dict, root: str | None, shuffle_buffer: int) -> VideoSource:
    splits = list_splits(path)
    columns = columns | {"label_names": columns["label_names"] or read_label_names(path)}
    if splits and split not in splits:
        raise ValueError(f"`split` must be one of {', '.join(splits)} in {str(path)!r}, got {split!r}")
    if not splits:
        shards = _shards_in(path, "*")
        return _shards(shards, columns, shuffle_buffer) if shards else folder_source(path, columns["label_names"])
    files = _split_files(path, str(split))
    if not files:
        source = folder_source(split_folder(path, str(split)), columns["label_names"])
        if beside := beside_splits(path):
            source.remarks += (f"Folders beside the splits are left out: {preview(beside)}",)
        return source
    if files[0].suffix in SHARD_SUFFIXES:
        return _shards(files, columns, shuffle_buffer)
    return list_source(files[0], None, root=root, **columns)


def _shards(files: Sequence[Path], columns: dict, shuffle_buffer: int) -> VideoShards:
    folder = files[0].parent
    names = columns["label_names"] or read_label_names(folder)
    options = columns | {"label_names": names, "sizes": read_shard_sizes(folder), "shuffle_buffer": shuffle_buffer}
    return shard_source([str(file) for file in files], **options)


def split_folder(path: Path, split: str) -> Path:
    """
    The folder of a split, whose name may have capital letters.

    Args:
        path (`Path`):
            The folder around it.
        split (`str`):
            Name of the split in lower case.

    Returns:
        `Path`: the folder.
    """
    return next(folder for folder in path.iterdir() if folder.name.lower() == split and folder.is_dir())


def _split_files(path: Path, split: str) -> list[Path]:
    """List or shards of a split of a folder."""
    lists = [path / f"{split}{suffix}" for suffix in LIST_SUFFIXES if (path / f"{split}{suffix}").is_file()]
    return lists[:1] or _shards_in(path / split, "*") or _shards_in(path, f"{split}[-_.]*")


def _shards_in(path: Path, stem: str) -> list[Path]:
    for suffix in SHARD_SUFFIXES:
        files = sorted(file for file in path.glob(f"{stem}{suffix}") if not is_hidden(file.name))
        if files:
            return files
    return []


def _matching_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = path.parent.glob(path.name) if any(sign in path.name for sign in "*?[") else []
    return sorted(file for file in found if not is_hidden(file.name))
