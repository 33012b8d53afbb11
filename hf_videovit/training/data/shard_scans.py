"""Tars and parquet files read without their videos: number of samples, labels, formats, and faults of tars."""

import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from ...files import BYTE_ORDER_MARKS, decode_text, is_hidden, parse_json
from ...modeling.video_decoding_types import VIDEO_SUFFIXES
from .lists import read_column, split_labels


VIDEO_EXTENSIONS = tuple(suffix.removeprefix(".") for suffix in VIDEO_SUFFIXES)


def check_tar(tar: str, video_column: str | None) -> set[str]:
    """
    Extensions of the videos in a tar.

    Args:
        tar (`str`):
            The tar.
        video_column (`str` or `None`):
            Requested column of the video.

    Returns:
        `set[str]`: the extensions.

    Raises:
        ValueError: a file would not become the sample that its name says, by the rules of WebDataset, or a text cannot
            be read.
    """
    formats, ended, last = set(), set(), ""
    with _open_tar(tar) as archive:
        for member in archive:
            folder, _, name = member.name.rpartition("/")
            stem, _, extension = name.partition(".")
            if not member.isfile() or not extension:
                continue
            if folder and (is_hidden(name) or any(is_hidden(part) for part in folder.split("/") if part != ".")):
                raise ValueError(
                    f"`data` {tar!r} has the file {member.name!r}, which a system added and WebDataset would read: "
                    "pack the tar again without it (on macOS with COPYFILE_DISABLE=1)"
                )
            if stem and (key := f"{folder}/{stem}") != last:
                ended.add(last)
                last = key
                if key in ended:
                    raise ValueError(
                        f"`data` {tar!r} has the file {member.name!r} apart from the others of its sample: pack the "
                        "tar again in the order of the names (`tar --sort=name`)"
                    )
            _read_text(archive, member, extension.lower(), tar)
            if extension.rpartition(".")[2].lower() not in VIDEO_EXTENSIONS or name.startswith("."):
                continue
            if "." in extension and "." not in (video_column or ""):
                raise ValueError(
                    f"`data` {tar!r} has the video {member.name!r}: the key of a sample in WebDataset ends at the "
                    f"first dot, so this is the file {extension!r} of the sample {name.partition('.')[0]!r}. Pack it "
                    "with another name (`hf-videovit prepare` does), or name that file as `video_column`"
                )
            formats.add(extension)
    return formats


def first_samples(tar: str) -> str:
    """
    The files of the first five samples of a tar, for messages.

    Args:
        tar (`str`):
            The tar.

    Returns:
        `str`: samples with their files.
    """
    samples: dict[str, list[str]] = {}
    with _open_tar(tar) as archive:
        for member in archive:
            stem, _, extension = member.name.rpartition("/")[2].partition(".")
            if not member.isfile() or not stem or not extension:
                continue
            if stem not in samples and len(samples) == 5:
                break
            samples.setdefault(stem, []).append(extension)
    return "; ".join(f"{stem!r} has {', '.join(extensions)}" for stem, extensions in samples.items())


def _read_text(archive: tarfile.TarFile, member: tarfile.TarInfo, extension: str, tar: str) -> Any:
    """The text, whole number or JSON of a file in a tar; `None` for other files."""
    if extension not in ("txt", "text", "cls", "cls2", "json"):
        return None
    what, reader = f"`data` {tar!r}, {member.name}", archive.extractfile(member)
    content = reader.read() if reader else b""
    if content.startswith(tuple(BYTE_ORDER_MARKS)):
        raise ValueError(f"{what} must be UTF-8 without a byte order mark, as WebDataset reads it")
    text = decode_text(content, what).strip()
    if extension == "json":
        return parse_json(text, what)
    if extension in ("txt", "text"):
        return text
    if not re.fullmatch(r"-?\d+", text):
        raise ValueError(f"{what} must be a whole number, got {text!r}: names go into .txt files")
    return int(text)


class Scan(NamedTuple):
    """
    Facts of a shard that are known without reading its videos.

    Args:
        num_samples (`int`):
            Number of samples.
        labels (`set`):
            Distinct labels.
        unlabelled (`list[str]`):
            Names of samples without a label.
    """

    num_samples: int
    labels: set[Any]
    unlabelled: list[str]


@contextmanager
def _open_tar(path: str) -> Iterator[tarfile.TarFile]:
    """Open a tar for reading. Raises a `ValueError` if it is damaged."""
    try:
        with tarfile.open(path) as archive:
            yield archive
    except tarfile.TarError as error:
        raise ValueError(f"`data` contains the damaged shard {path!r}: {error}") from error


def scan_tar(path: str, label_column: str | None, label_separator: str | None = None) -> Scan:
    """
    Count the samples of a WebDataset tar and collect their labels.

    Args:
        path (`str`):
            The tar.
        label_column (`str` or `None`):
            Column of the label; `None` collects no labels.
        label_separator (`str`, *optional*):
            Separator between the labels of a video with several labels.

    Returns:
        [`Scan`]: number of samples and distinct labels.

    Raises:
        ValueError: the label of a sample cannot be read.
    """
    extension, _, field = (label_column or "").partition(".")
    keys, labels, labelled = set(), set(), set()
    with _open_tar(path) as archive:
        for member in archive:
            folder, _, name = member.name.rpartition("/")
            stem, _, member_extension = name.partition(".")
            if not member.isfile() or not stem or not member_extension:
                continue
            keys.add(f"{folder}/{stem}")
            if label_column and member_extension.lower() == extension.lower():
                value = _read_text(archive, member, member_extension.lower(), path)
                if field:
                    value = value.get(field) if isinstance(value, dict) else None
                labels.update(_parts(value, label_separator))
                if value is not None:
                    labelled.add(f"{folder}/{stem}")
    return Scan(len(keys), labels, [key.removeprefix("/") for key in sorted(keys - labelled)])


def scan_parquet(path: str, label_column: str | None, label_separator: str | None = None) -> Scan:
    """
    Count the rows of a parquet file and collect their labels, see [`scan_tar`].

    Args:
        path (`str`):
            The file.
        label_column (`str` or `None`):
            Column of the label; `None` collects no labels.
        label_separator (`str`, *optional*):
            Separator between the labels of a video with several labels.

    Returns:
        [`Scan`]: number of samples and distinct labels.
    """
    from huggingface_hub import HfFileSystem

    with HfFileSystem().open(path) if "://" in path else open(path, "rb") as opened, pq.ParquetFile(opened) as file:
        values: list[Any] = []
        if label_column:
            for batch in file.iter_batches(columns=[label_column]):
                values += (read_column(row, label_column) for row in batch.to_pylist())
        labels = {part for value in values for part in _parts(value, label_separator)}
        unlabelled = [f"row {number}" for number, value in enumerate(values) if value is None]
        return Scan(file.metadata.num_rows, labels, unlabelled)


def _parts(value: Any, separator: str | None) -> list[Any]:
    """The labels in a value of the label column."""
    value = None if value is None else split_labels(value, separator)
    return value if isinstance(value, list) else [] if value is None else [value]
