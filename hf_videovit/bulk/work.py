"""
Work on many videos as plain functions, which every engine calls: `decode(sample)` gives a row with a clip or an error,
`model(rows)` turns such rows into rows of results.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import torch

from ..modeling.video_decoding import VideoDecodingError


Row = dict[str, Any]
SAMPLES_PER_SHARE = 64  # videos that a process of a cluster reads in a task
NO_IDS = np.zeros(0, "S32")
# Columns that travel between the processes beside those of the results.
ERROR_FIELDS = [("error", pa.string()), ("error_kind", pa.string())]
CLIP_FIELDS = [("clip", pa.large_binary()), ("clip_shape", pa.list_(pa.int64()))]


class Samples(Protocol):
    """Videos that divide themselves into shares: a [`VideoSource`]."""

    num_samples: int | None

    def share(self, rank: int, world: int, seed: int | None, epoch: int, start: int = 0) -> Iterator[Any]:
        """
        The samples of a share, each with `id`, `video` and `label`.

        Args:
            rank (`int`):
                Number of the share.
            world (`int`):
                Number of shares.
            seed (`int` or `None`):
                `None` keeps the order of the data.
            epoch (`int`):
                Epoch of the order.
            start (`int`, *optional*, defaults to 0):
                Samples to skip.

        Returns:
            `Iterator[Sample]`
        """

    def place(self, position: int, rank: int, world: int) -> int:
        """
        Position of a sample in the order of the data.

        Args:
            position (`int`):
                Position in the share.
            rank (`int`):
                Number of the share.
            world (`int`):
                Number of shares.

        Returns:
            `int`
        """


@dataclass(frozen=True)
class Work:
    """
    Steps that each video goes through.

    Args:
        decode (`Callable`):
            Takes a sample and returns a row: columns of the results that are known already, and `clip`, a float32
            tensor, for a model.
        schema (`pa.Schema`):
            Columns of the results. The first is `id`.
        make_model (`Callable`, *optional*):
            Makes the model in the process that runs it: a callable that takes rows and returns as many. Rows with an
            `error` come back as they are. By default the decoded rows are the results.
        batch_size (`int`, *optional*, defaults to 1):
            Rows that the model takes at a time.
        rows_per_file (`int`, *optional*, defaults to 256):
            Rows of a parquet file.
        keeps_failed (`bool`, *optional*, defaults to `False`):
            Whether videos with an error have a row of results as well.
        extra_schema (`pa.Schema`, *optional*):
            Further columns of decoded rows, for the model.
    """

    decode: Callable[[Any], Row]
    schema: pa.Schema
    make_model: Callable[[], Callable[[list[Row]], list[Row]]] | None = None
    batch_size: int = 1
    rows_per_file: int = 256
    keeps_failed: bool = False
    extra_schema: pa.Schema = pa.schema([])

    @property
    def decoded_schema(self) -> pa.Schema:
        """Columns of decoded rows."""
        return pa.schema([*self.result_schema, *self.extra_schema, *(pa.field(*one) for one in CLIP_FIELDS)])

    @property
    def result_schema(self) -> pa.Schema:
        """Columns of the results, and those of errors."""
        return pa.schema([*self.schema, *(pa.field(*one) for one in ERROR_FIELDS)])


@dataclass(frozen=True)
class Reading:
    """
    The videos that are left to do, and how they are decoded.

    Args:
        source ([`Samples`]):
            All videos.
        num_shares (`int`):
            Number of shares that they are divided into.
        decode (`Callable`):
            See [`Work`].
        done (`np.ndarray`):
            Sorted digests of the ids that are done, see [`id_digests`].
    """

    source: Samples
    num_shares: int
    decode: Callable[[Any], Row]
    done: np.ndarray

    def rows(self, shares: Iterable[int]) -> Iterator[Row]:
        """
        Decode the videos of some shares.

        Args:
            shares (`Iterable[int]`):
                Numbers of the shares.

        Yields:
            `dict`: a row of each video that is not done: `id`, `place` in the order of the data, `label` as a list,
            and `error` and `error_kind` if it cannot be read.
        """
        for rank in shares:
            for position, sample in enumerate(self.source.share(rank, self.num_shares, None, 0)):
                if not is_done(sample.id, self.done):
                    place = self.source.place(position, rank, self.num_shares)
                    known = {"id": sample.id, "place": place, "label": _listed(sample.label)}
                    yield known | _decoded(self.decode, sample)


def _listed(label: Any) -> list[int] | None:
    return None if label is None else list(label) if isinstance(label, tuple) else [label]


def _decoded(decode: Callable[[Any], Row], sample: Any) -> Row:
    try:
        return decode(sample)
    except VideoDecodingError as error:
        return {"error": error.reason or str(error), "error_kind": error.kind}
    except OSError as error:
        return {"error": str(error), "error_kind": "missing"}


def count_shares(source: Samples) -> int:
    """
    Number of shares for videos in single files.

    Args:
        source ([`Samples`]):
            The videos.

    Returns:
        `int`: one for every few videos; one for a stream of unknown length.
    """
    return max(1, -(-(source.num_samples or 0) // SAMPLES_PER_SHARE))


def id_digests(ids: Iterable[str]) -> np.ndarray:
    """
    Ids in the form that many processes share without copying.

    Args:
        ids (`Iterable[str]`):
            Ids of videos.

    Returns:
        `np.ndarray`: sorted digests of 32 characters.
    """
    return np.array(sorted(map(_digest, ids)), NO_IDS.dtype)


def is_done(name: str, done: np.ndarray) -> bool:
    """
    Whether an id is among those that are done.

    Args:
        name (`str`):
            The id.
        done (`np.ndarray`):
            From [`id_digests`].

    Returns:
        `bool`
    """
    digest = _digest(name)
    index = int(np.searchsorted(done, digest))
    return index < len(done) and bool(done[index] == digest)


def _digest(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest().encode()


def to_table(rows: list[Row], schema: pa.Schema) -> pa.Table:
    """
    Rows as a table. Clips become bytes.

    Args:
        rows (`list[dict]`):
            The rows; other columns than those of `schema` are left out.
        schema (`pa.Schema`):
            Columns of the table.

    Returns:
        `pa.Table`
    """
    if "clip" in schema.names:
        rows = [row if row.get("clip") is None else row | _packed(row["clip"]) for row in rows]
    return pa.Table.from_pylist(rows, schema)


def _packed(clip: torch.Tensor) -> Row:
    return {"clip": clip.contiguous().numpy().tobytes(), "clip_shape": list(clip.shape)}


def from_table(table: pa.Table) -> list[Row]:
    """
    Rows of a table from [`to_table`].

    Args:
        table (`pa.Table`):
            The table.

    Returns:
        `list[dict]`: the rows, with clips as float32 tensors.
    """
    clips = (
        [_unpacked(*pair) for pair in zip(table["clip"], table["clip_shape"])] if "clip" in table.schema.names else []
    )
    rows = table.drop_columns([name for name, _ in CLIP_FIELDS if name in table.schema.names]).to_pylist()
    return [row | {"clip": clip} for row, clip in zip(rows, clips)] if clips else rows


def _unpacked(content: pa.Scalar, shape: pa.Scalar) -> torch.Tensor | None:
    if not content.is_valid:
        return None
    return torch.from_numpy(np.frombuffer(content.as_buffer(), np.float32).reshape(shape.as_py()).copy())


__all__ = [
    "Reading",
    "Row",
    "Samples",
    "Work",
    "count_shares",
    "from_table",
    "id_digests",
    "is_done",
    "to_table",
]
