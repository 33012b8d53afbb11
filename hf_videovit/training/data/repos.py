"""Data set repos on a Hub: `owner/name`, or `hf://datasets/owner/name@revision/path`."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from ...modeling.video_decoding_sources import http_library
from .lists import LIST_SUFFIXES, index_labels, list_source, read_column, split_labels
from .manifest import read_label_names, read_shard_sizes
from .shards import choose_stream_columns, class_label_names, shard_source
from .sources import SHARD_SUFFIXES, VideoList, VideoSource


REPO_PREFIX = "hf://datasets/"
REPO = re.compile(r"(?P<id>\w[\w.-]*/[\w.-]+)")
REPO_URL = re.compile(REPO_PREFIX + REPO.pattern + r"(@(?P<revision>[^/]+))?(/(?P<path>.+))?/?")


@dataclass(frozen=True)
class RepoAddress:
    """
    Data in a data set repo.

    Args:
        id (`str`):
            `owner/name`.
        revision (`str`, *optional*):
            Branch, tag or commit.
        path (`str`, *optional*, defaults to `""`):
            A folder, file or pattern in the repo.
    """

    id: str
    revision: str | None = None
    path: str = ""

    @property
    def url(self) -> str:
        """The address as `hf://datasets/...`, for file systems and decoders."""
        at = "" if self.revision is None else "@" + self.revision.replace("/", "%2F")
        return REPO_PREFIX + self.id + at + (f"/{self.path}" if self.path else "")

    @property
    def options(self) -> dict[str, str]:
        """Arguments of `datasets` for the revision and the folder."""
        named = {"revision": self.revision, "data_dir": self.path}
        return {name: value for name, value in named.items() if value}


def parse_address(data: str) -> RepoAddress | None:
    """
    Parse the address of a data set repo.

    Args:
        data (`str`):
            `owner/name` or `hf://datasets/owner/name@revision/path`.

    Returns:
        [`RepoAddress`] or `None`: the address; `None` if `data` has another form.
    """
    if match := REPO_URL.fullmatch(data):
        revision = match["revision"] and match["revision"].replace("%2F", "/")
        return RepoAddress(match["id"], revision, (match["path"] or "").strip("/"))
    return RepoAddress(data) if REPO.fullmatch(data) else None


@contextmanager
def reaching(address: RepoAddress) -> Iterator[None]:
    """
    Report errors of the connection to the Hub with the address of the data. Other errors are not changed.

    Args:
        address ([`RepoAddress`]):
            The data that is read in the block.

    Raises:
        ConnectionError: the Hub cannot be reached or returned a server error.
    """
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except HfHubHTTPError as error:
        if error.response is None or error.response.status_code < 500:
            raise
        reason = f"the Hub returned a server error ({error.response.status_code})"
        raise ConnectionError(f"`data` {address.url!r}: {reason}; try again later") from error
    except http_library().HTTPError as error:
        reason = f"the connection to the Hub failed ({type(error).__name__})"
        raise ConnectionError(f"`data` {address.url!r}: {reason}") from error


def list_repo_splits(address: RepoAddress, config: str | None = None) -> list[str]:
    """
    Names of the splits of a repo.

    Args:
        address ([`RepoAddress`]):
            The repo.
        config (`str`, *optional*):
            Its configuration.

    Returns:
        `list[str]`: the names; empty for single files in a repo.
    """
    from datasets import load_dataset_builder

    if PurePosixPath(address.path).suffix in (*LIST_SUFFIXES, *SHARD_SUFFIXES):
        return []
    with reaching(address):
        builder = load_dataset_builder(address.id, config, **address.options)
    return [str(split) for split in builder.config.data_files or builder.info.splits or {}]


def repo_source(
    address: RepoAddress,
    split: str,
    config: str | None = None,
    video_column: str | None = None,
    label_column: str | None = None,
    label_names: Sequence[str] | None = None,
    label_separator: str | None = None,
    shuffle_buffer: int = 256,
) -> VideoSource:
    """
    Videos in a data set repo. Tars and parquet files are streamed. Single video files become a list of addresses.

    Args:
        address ([`RepoAddress`]):
            The repo.
        split (`str`):
            The split.
        config (`str`, *optional*):
            Configuration of the repo.
        video_column (`str`, *optional*):
            Column of the video; the usual names are tried by default.
        label_column (`str`, *optional*):
            Column of the label; the usual names are tried by default. A dot separates a field of a structure
            (`json.label`).
        label_names (`Sequence[str]`, *optional*):
            Label names in the order of their indices. Needed for tars if the repo does not declare them.
        label_separator (`str`, *optional*):
            Separator between the labels of a video with several labels; lists need none.
        shuffle_buffer (`int`, *optional*, defaults to 256):
            Encoded samples in the shuffle buffer.

    Returns:
        [`VideoSource`]: the videos.

    Raises:
        ValueError: the repo has no such split, no such files, or data of another kind.
    """
    from datasets import load_dataset, load_dataset_builder
    from huggingface_hub import HfFileSystem

    columns: dict[str, Any] = {"video_column": video_column, "label_column": label_column}
    columns |= {"label_names": label_names, "label_separator": label_separator}
    suffix = PurePosixPath(address.path).suffix
    if suffix in LIST_SUFFIXES:
        return list_source(address.url, split, **columns)
    if suffix in SHARD_SUFFIXES:
        files = ["hf://" + name for name in HfFileSystem().glob(address.url)]
        if not files:
            raise ValueError(f"`data` {address.url!r} matches no file")
        return shard_source(files, shuffle_buffer=shuffle_buffer, **columns)
    builder = load_dataset_builder(address.id, config, **address.options)
    kind = type(builder).__module__.rpartition(".")[2]
    files = [str(file) for file in (builder.config.data_files or {}).get(split, [])]
    if not files:
        known = ", ".join(str(name) for name in builder.config.data_files or {})
        raise ValueError(f"`split` {split!r} is not in {address.url!r}, which has {known or 'no files'}")
    folder = files[0].rpartition("/")[0]
    columns["label_names"] = label_names or read_label_names(folder)
    if kind in ("csv", "json"):
        if len(files) > 1:
            raise ValueError(f"`data` {address.url!r} must have one list per split, got {', '.join(files)}")
        return list_source(files[0], None, **columns)
    if kind in ("webdataset", "parquet"):
        return shard_source(files, shuffle_buffer=shuffle_buffer, sizes=read_shard_sizes(folder), **columns)
    if kind != "videofolder":
        raise ValueError(f"`data` {address.url!r} must contain video files, lists, tars or parquet, got {kind}")
    rows = load_dataset(address.id, config, split=split, streaming=True, **address.options).decode(False)
    return _list_of_addresses(rows, **columns)


def _list_of_addresses(
    dataset: Any,
    video_column: str | None,
    label_column: str | None,
    label_names: Sequence[str] | None,
    label_separator: str | None,
) -> VideoList:
    """Single files as a list, which can be counted and shuffled; `datasets` streams them class by class."""
    video_column, label_column = choose_stream_columns(dataset, video_column, label_column)
    rows = list(dataset)
    paths = [row[video_column]["path"] for row in rows]
    ids = [path.partition("@")[2].partition("/")[2] or path for path in paths]  # hf://datasets/owner/name@commit/id
    values = None
    if label_column is not None:
        values = [split_labels(read_column(row, label_column), label_separator) for row in rows]
    declared = class_label_names(dataset, label_column)
    if declared is not None and values is not None:
        values = [_named(value, declared) for value in values]
    labels, names = index_labels(values, label_names or declared)
    return VideoList(ids, paths, labels or [None] * len(rows), names)


def _named(value: Any, names: Sequence[str]) -> Any:
    """Names of declared label indices."""
    return [names[part] for part in value] if isinstance(value, list) else names[value]
