"""Videos streamed with `datasets`: WebDataset tars and parquet files."""

import copy
import math
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ...files import plain_name, present_path
from .lists import LABEL_COLUMNS, VIDEO_COLUMNS, choose_column, index_labels, listed_rate, read_column, split_labels
from .parts import find_part_columns
from .shard_scans import VIDEO_EXTENSIONS, check_tar, first_samples, scan_parquet, scan_tar
from .sources import Label, Sample, VideoSource, fingerprint, label_mapping, preview, sort_label_names


MOST_SEQUENCES = 32  # shards that one process has open at once; more processes read a sequence together


class VideoShards(VideoSource):
    """
    Videos in tars or parquet files, local or in a data set repo, streamed with `datasets`.

    In training, the shards are dealt to a number of sequences, whatever the number of processes: at most
    `MOST_SEQUENCES`, and so that they divide the shards and the samples of a step. Each step takes equally many
    samples of each sequence, and a process reads the sequences in its part of the step only. In evaluation, a process
    reads its own shards if their number is a multiple of the number of processes; otherwise it reads all samples
    without decoding them and keeps every `world`-th. Samples are shuffled by the order of the shards and by a buffer
    of encoded samples.

    Args:
        dataset (`datasets.IterableDataset`):
            The stream, without decoding.
        video_column (`str`):
            Column with `{"path", "bytes"}` or a path.
        label_column (`str` or `None`):
            Column of the label. A dot separates a field of a structure (`json.label`).
        label_names (`Sequence[str]`):
            Names of the labels.
        whole_number_labels (`bool`, *optional*, defaults to `False`):
            Whether whole numbers in the label column are indices into `label_names`. By default they are names.
        label_separator (`str`, *optional*):
            Separator between the labels of a video with several labels; lists need none.
        shard_sizes (`Sequence[int]`, *optional*):
            Number of samples in each shard, if known.
        shuffle_buffer (`int`, *optional*, defaults to 256):
            Encoded samples in the shuffle buffers of all sequences.
        files (`Sequence[str]`, *optional*, defaults to `()`):
            Paths or URLs of the shards.
    """

    reads_ahead = True
    unlabelled: Sequence[str] = ()  # samples without a label among others that have one, if they are known

    def __init__(
        self,
        dataset: Any,
        video_column: str,
        label_column: str | None,
        label_names: Sequence[str],
        whole_number_labels: bool = False,
        label_separator: str | None = None,
        shard_sizes: Sequence[int] | None = None,
        shuffle_buffer: int = 256,
        files: Sequence[str] = (),
    ):
        self.dataset = dataset
        self.video_column, self.label_column = video_column, label_column
        self.label_names = list(label_names)
        self.whole_number_labels, self.label_separator = whole_number_labels, label_separator
        self.multi_label = bool(label_column) and (bool(label_separator) or _holds_lists(dataset, label_column))
        self.shard_sizes = None if shard_sizes is None else list(shard_sizes)
        self.shuffle_buffer = shuffle_buffer
        self.num_samples = None if shard_sizes is None else sum(shard_sizes)
        self.num_shards = dataset.num_shards
        self.files = list(files)
        self._folder = Path(files[0] if files and "://" not in files[0] else "").parent  # of relative paths
        self._data_names = self.label_names
        self._to_label = {plain_name(name): index for index, name in enumerate(self.label_names)}

    def share(self, rank: int, world: int, seed: int | None, epoch: int, start: int = 0) -> Iterator[Sample]:
        """See [`VideoSource.share`]."""
        # The shards of a process are the same in all epochs, so that its number of samples is constant.
        whole = self._whole_shards(world)
        shards = range(rank, self.num_shards, world) if whole else range(self.num_shards)
        order = list(shards)
        if seed is not None:
            generator = np.random.default_rng([seed, epoch, rank] if whole else [seed, epoch])
            order = [shards[int(index)] for index in generator.permutation(len(shards))]
        samples = self._unshuffled(order, 0, 1) if whole else self._unshuffled(order, rank, world)
        if seed is not None:
            samples = _shuffle_in_buffer(samples, self.shuffle_buffer, np.random.default_rng([seed, epoch, rank, 1]))
        for position, sample in enumerate(samples):
            if position >= start:
                yield sample

    def steps(
        self, rank: int, world: int, seed: int | None, epoch: int, start: int, size: int
    ) -> Iterator[list[Sample | None]]:
        """See [`VideoSource.steps`]. A sequence that has ended leaves its places empty."""
        count = self.num_sequences(size)
        part, taken = size // world, size // count
        first, last = rank * part // taken, ((rank + 1) * part - 1) // taken
        before = rank * part - first * taken  # places of the first sequence that belong to another process
        skipped = start // size * taken
        sequences = [
            islice(self._sequence(number, count, seed, epoch), skipped, None) for number in range(first, last + 1)
        ]
        while True:
            places = [sample for sequence in sequences for sample in _filled(sequence, taken)]
            if all(sample is None for sample in places):
                return
            yield places[before : before + part]

    def num_sequences(self, size: int) -> int:
        """
        Number of sequences to which the shards are dealt in training.

        Args:
            size (`int`):
                Samples of a step in all processes.

        Returns:
            `int`: the number.
        """
        common = math.gcd(self.num_shards, size)
        return max(number for number in range(1, min(common, MOST_SEQUENCES) + 1) if common % number == 0)

    def num_steps(self, size: int) -> int | None:
        """See [`VideoSource.num_steps`]. The longest sequence counts."""
        lengths, taken = self._sequence_lengths(size), size // self.num_sequences(size)
        return None if lengths is None else -(-max(lengths) // taken)

    def num_full_steps(self, size: int) -> int | None:
        """See [`VideoSource.num_full_steps`]. The shortest sequence counts."""
        lengths, taken = self._sequence_lengths(size), size // self.num_sequences(size)
        return None if lengths is None else min(lengths) // taken

    def _sequence_lengths(self, size: int) -> list[int] | None:
        if self.shard_sizes is None:
            return None
        count = self.num_sequences(size)
        return [sum(self.shard_sizes[number::count]) for number in range(count)]

    def _sequence(self, number: int, count: int, seed: int | None, epoch: int) -> Iterator[Sample]:
        """Every `count`-th shard from `number` on, the same ones in all epochs, so that their length is constant."""
        shards = range(number, self.num_shards, count)
        if seed is None:
            return self._unshuffled(shards, 0, 1)
        order = np.random.default_rng([seed, epoch, number]).permutation(len(shards))
        samples = self._unshuffled([shards[int(index)] for index in order], 0, 1)
        buffer = max(self.shuffle_buffer // count, 1)
        return _shuffle_in_buffer(samples, buffer, np.random.default_rng([seed, epoch, number, 1]))

    def fingerprint(self) -> str:
        """See [`VideoSource.fingerprint`]. The shards are known by their names and sizes."""
        paths = [Path(file) for file in self.files]
        shards = [[path.name, path.stat().st_size if path.is_file() else None] for path in paths]
        return fingerprint(self.num_samples, [self.label_names, *shards])

    def place(self, position: int, rank: int, world: int) -> int:
        """See [`VideoSource.place`]."""
        if self.shard_sizes is None or not self._whole_shards(world):
            return super().place(position, rank, world)
        shard = rank
        while position >= self.shard_sizes[shard]:
            position -= self.shard_sizes[shard]
            shard += world
        return sum(self.shard_sizes[:shard]) + position

    def _whole_shards(self, world: int) -> bool:
        return self.num_shards % world == 0

    def share_size(self, rank: int, world: int) -> int | None:
        """See [`VideoSource.share_size`]."""
        if self.shard_sizes is None or self.num_samples is None:
            return None
        if self._whole_shards(world):
            return sum(self.shard_sizes[rank::world])
        return len(range(rank, self.num_samples, world))

    def with_label_names(self, label_names: Sequence[str]) -> "VideoShards":
        """See [`VideoSource.with_label_names`]."""
        to_new = label_mapping(self.label_names, label_names)
        renamed = copy.copy(self)
        renamed.label_names = list(label_names)
        renamed._to_label = {name: to_new[index] for name, index in self._to_label.items()}
        return renamed

    def _unshuffled(self, shards: Sequence[int], rank: int, world: int) -> Iterator[Sample]:
        _stop_at_lost_connections()
        index = 0
        for shard in shards:
            rows = self.dataset.shard(num_shards=self.num_shards, index=shard)
            for row_index, row in enumerate(_whole(rows, shard)):
                if index % world == rank:
                    yield self._sample(row, shard, row_index)
                index += 1

    def _sample(self, row: Mapping[str, Any], shard: int, row_index: int) -> Sample:
        video = row.get(self.video_column)
        if video is None:  # the video has another format, or is missing
            video = next((row[name] for name in VIDEO_EXTENSIONS if row.get(name) is not None), {"bytes": b""})
        name = ""
        if isinstance(video, Mapping):
            path, content = video.get("path"), video.get("bytes")
            name = Path(path or "").name
            video = path if content is None and path else {"path": path, "bytes": content or b""}
        if isinstance(video, str) and "://" not in video:
            video = str(present_path(self._folder / video))
        if "__key__" in row:
            name = f"{Path(row['__url__']).name}/{row['__key__']}"
        else:
            name = f"{shard:05d}/{row_index:06d}/{name}".rstrip("/")
        if isinstance(video, str) and (rate := listed_rate(video, row, f"Sample {name!r}")) is not None:
            video = {"path": video, "fps": rate}
        return Sample(name, video, self._label(row, name))

    def _label(self, row: Mapping[str, Any], name: str) -> Label:
        value = read_column(row, self.label_column) if self.label_column else None
        value = None if value is None else split_labels(value, self.label_separator)
        if isinstance(value, list):
            return tuple(dict.fromkeys(self._index(part, name) for part in value))
        return None if value is None else self._index(value, name)

    def _index(self, value: Any, name: str) -> int:
        known = self._data_names
        if self.whole_number_labels and isinstance(value, int):
            label = plain_name(known[value]) if 0 <= value < len(known) else None
        else:
            label = plain_name(str(value))
        if label not in self._to_label:
            raise ValueError(f"Sample {name!r} has the label {value!r}, which is not among {preview(known)}")
        return self._to_label[label]


def _filled(samples: Iterator[Sample], count: int) -> list[Sample | None]:
    """The next samples, and `None` in place of those that are missing."""
    found = list(islice(samples, count))
    return [*found, *[None] * (count - len(found))]


def _stop_at_lost_connections() -> None:
    """
    Make a second lost connection an error. Otherwise `datasets` reads on from the same file object, for which
    `huggingface_hub` then reports the end of the file, and the rest of a tar is lost silently.
    """
    from datasets import config

    config.STREAMING_READ_MAX_RETRIES = 1


def _whole(rows: Iterable[Mapping[str, Any]], shard: int) -> Iterator[Mapping[str, Any]]:
    """The rows of a shard. Raises a `ConnectionError` with its number if the Hub does not send it completely."""
    from huggingface_hub.errors import HfHubHTTPError

    number = 0
    try:
        for row in rows:
            yield row
            number += 1
    except (tarfile.TarError, ConnectionError, HfHubHTTPError) as error:
        reason = str(error.__cause__ or error).partition("\n")[0]
        raise ConnectionError(f"Shard {shard} of the data ended after {number} samples: {reason}") from error
    except ValueError as error:
        raise ValueError(f"Shard {shard} of the data cannot be read after {number} samples: {error}") from error


def _shuffle_in_buffer(samples: Iterable[Sample], size: int, generator: np.random.Generator) -> Iterator[Sample]:
    """Shuffle a stream with a buffer. Equal generators give equal orders, so that skipping samples is exact."""
    buffer: list[Sample] = []
    for sample in samples:
        if len(buffer) < size:
            buffer.append(sample)
            continue
        slot = int(generator.integers(size))
        buffer[slot], sample = sample, buffer[slot]
        yield sample
    for slot in generator.permutation(len(buffer)):
        yield buffer[int(slot)]


def shard_source(
    files: Sequence[str],
    video_column: str | None = None,
    label_column: str | None = None,
    label_names: Sequence[str] | None = None,
    label_separator: str | None = None,
    shuffle_buffer: int = 256,
    sizes: Mapping[str, int] | None = None,
) -> VideoShards:
    """
    WebDataset tars or parquet files, local or on a Hub. Headers and labels are read once, without the videos. Tars on
    a Hub are not read, so that their number of videos is unknown.

    Args:
        files (`Sequence[str]`):
            Paths or `hf://` URLs of the shards, all `.tar` or all `.parquet`.
        video_column (`str`, *optional*):
            Column of the video; the usual names are tried by default.
        label_column (`str`, *optional*):
            Column of the label; the usual names are tried by default. A dot separates a field of a structure
            (`json.label`).
        label_names (`Sequence[str]`, *optional*):
            Label names in the order of their indices; those declared or found in the data by default.
        label_separator (`str`, *optional*):
            Separator between the labels of a video with several labels; lists need none.
        shuffle_buffer (`int`, *optional*, defaults to 256):
            Encoded samples in the shuffle buffer.
        sizes (`Mapping[str, int]`, *optional*):
            Number of videos in each shard, by file name, if known.

    Returns:
        [`VideoShards`]: the videos.

    Raises:
        ValueError: the files are of different kinds or damaged, a column is missing, or label names are needed.
    """
    suffixes = {Path(file).suffix for file in files}
    if suffixes not in ({".tar"}, {".parquet"}):
        raise ValueError(f"`data` must be all .tar or all .parquet files, got {', '.join(sorted(suffixes))}")
    kind = "webdataset" if suffixes == {".tar"} else "parquet"
    shards = sorted(file if "://" in file else str(Path(file).absolute()) for file in files)
    dataset = _open_stream(kind, shards, video_column)
    video_column, label_column = choose_stream_columns(dataset, video_column, label_column)
    names = label_names or class_label_names(dataset, label_column)
    known = sizes or {}
    counted = [known[name] for name in (Path(shard).name for shard in shards) if name in known]
    found: list[str] = []
    unlabelled: list[str] = []
    if names is None and label_column or len(counted) < len(shards):
        if kind == "webdataset" and "://" in shards[0]:
            if names is None and label_column:
                raise ValueError(f"`label_names` is needed: the labels of {shards[0]!r} are unknown until it is read")
            return VideoShards(dataset, video_column, label_column, names or [], True, label_separator, files=shards)
        scan = scan_tar if kind == "webdataset" else scan_parquet
        scanned = [scan(shard, label_column, label_separator) for shard in shards]
        counted = [one.num_samples for one in scanned]
        for shard, one in zip(shards, scanned):
            if names is not None:
                index_labels(sorted(one.labels, key=str), names, [f"`data` {shard!r}"] * len(one.labels))
        found = sort_label_names(name for one in scanned for name in one.labels)
        unlabelled = [name for one in scanned for name in one.unlabelled] if found else []
    source = VideoShards(
        dataset,
        video_column,
        label_column,
        names or (found if label_column else []),
        names is not None,
        label_separator,
        counted,
        shuffle_buffer,
        shards,
    )
    source.unlabelled = unlabelled
    source.remarks = _unread_parts(dataset, (video_column, label_column))
    return source


def _unread_parts(dataset: Any, taken: Sequence[str | None]) -> tuple[str, ...]:
    """A remark about columns that would be parts in a list."""
    names = [name for name in _stream_columns(dataset) if name not in taken]
    try:
        found = find_part_columns([dict.fromkeys(names, "1")], ())
    except ValueError:
        return ()
    if found is None:
        return ()
    return (f"The columns {', '.join(found.names)} are not read: tars and parquet files hold whole clips",)


def _open_stream(kind: str, shards: Sequence[str], video_column: str | None) -> Any:
    """
    Shards as a stream without decoding. `datasets` takes the columns of tars from their first five samples. Columns
    for all other video formats in local tars are added here, so that no videos are lost.
    """
    from datasets import Video, load_dataset

    _stop_at_lost_connections()
    options: dict[str, Any] = {"data_files": list(shards), "split": "train", "streaming": True}
    formats: set[str] = set()
    if kind == "webdataset":
        formats = {name for shard in shards if "://" not in shard for name in check_tar(shard, video_column)}
    try:
        dataset = load_dataset(kind, **options)
    except pa.ArrowTypeError as error:
        raise ValueError(
            f"`data`: the first five samples of {shards[0]!r} have values of different types: {error}"
        ) from error
    except (tarfile.TarError, pa.ArrowInvalid) as error:
        raise ValueError(f"`data` contains the damaged shard {shards[0]!r}: {error}") from error
    except ValueError as error:
        if "same types" not in str(error):
            raise ValueError(f"`data`: the first five samples of {shards[0]!r} cannot be read: {error}") from error
        raise ValueError(
            f"`data`: the first five samples of {shards[0]!r} must have the same files: {first_samples(shards[0])}"
        ) from error
    if missing := sorted(formats - set(dataset.features)):
        features = dataset.features.copy()
        features.update({name: Video() for name in missing})
        dataset = load_dataset(kind, features=features, **options)
    return dataset.decode(False)


def choose_stream_columns(dataset: Any, video: str | None, label: str | None) -> tuple[str, str | None]:
    """
    Choose the video and the label column of a stream.

    Args:
        dataset (`datasets.IterableDataset`):
            The stream.
        video (`str` or `None`):
            Requested column of the video; `None` tries the usual names.
        label (`str` or `None`):
            Requested column of the label; `None` tries the usual names. Fields of structures are `name.field`.

    Returns:
        `tuple[str, str | None]`: the columns. The label column is `None` if there is none.

    Raises:
        ValueError: a column is missing.
    """
    columns = _stream_columns(dataset)
    video_column = choose_column(video, columns, (*VIDEO_COLUMNS, *VIDEO_EXTENSIONS), "video")
    if video_column is None:
        raise ValueError(f"`video_column` is needed: the data set has the columns {', '.join(columns)}")
    return video_column, choose_column(label, columns, LABEL_COLUMNS, "label")


def _stream_columns(dataset: Any) -> list[str]:
    """Columns of a stream, with the fields of structures as `name.field`."""
    columns: list[str] = []
    for name, feature in (dataset.features or {}).items():
        columns.append(name)
        if isinstance(feature, dict):
            columns.extend(f"{name}.{field}" for field in feature)
    return columns


def _column_feature(dataset: Any, column: str | None) -> Any:
    """The feature that a data set declares for a column or for a field of a structure."""
    features = dataset.features or {}
    for part in [column] if column in features else (column or "").split("."):
        features = features.get(part) if isinstance(features, dict) else None
    return features


def _holds_lists(dataset: Any, column: str | None) -> bool:
    """Whether the rows of a column are lists."""
    from datasets import LargeList, List

    return isinstance(_column_feature(dataset, column), list | List | LargeList)


def class_label_names(dataset: Any, label_column: str | None) -> list[str] | None:
    """
    The label names that a data set declares.

    Args:
        dataset (`datasets.IterableDataset`):
            The data set.
        label_column (`str` or `None`):
            Column of the label, or of a list of labels.

    Returns:
        `list[str]` or `None`: the names; `None` if none are declared.
    """
    from datasets import ClassLabel

    feature = _column_feature(dataset, label_column)
    if _holds_lists(dataset, label_column):
        feature = feature[0] if isinstance(feature, list) else feature.feature
    return list(feature.names) if isinstance(feature, ClassLabel) else None
