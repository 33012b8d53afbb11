"""Where work on many videos runs: in processes of this machine, or on Ray Data."""

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ..ahead import read_ahead
from ..folders import held_folder
from ..processes import trusted_context
from .parts import begin_parts, finish_parts, record_failed, write_part
from .work import Reading, Row, Samples, Work, count_shares, id_digests, to_table


EngineName = Literal["local", "ray"]
SECONDS_PER_FILE = 60.0  # after which a file is written, also if it has few rows: a killed process loses no more


@dataclass(frozen=True)
class Engine:
    """
    Where work runs.

    Args:
        name (`str`, *optional*, defaults to `"local"`):
            `"local"`: processes of this machine. `"ray"`: Ray Data.
        address (`str`, *optional*):
            Address of a running Ray cluster. By default Ray starts on this machine, for this work only.
        num_workers (`int`, *optional*):
            Decoding processes. By default a thread of this process, and on Ray all free cores.
        num_models (`int`, *optional*):
            Processes with a model. By default one, and on Ray one for each GPU.
        device (`str`, *optional*, defaults to `"cpu"`):
            Device of the models. On Ray, one that begins with `cuda` reserves a GPU for each.

    Raises:
        ValueError: a value is not allowed.
    """

    name: EngineName = "local"
    address: str | None = None
    num_workers: int | None = None
    num_models: int | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.name not in ("local", "ray"):
            raise ValueError(f"`engine` must be local or ray, got {self.name!r}.")
        for name in ("address", "num_models"):
            if self.name == "local" and getattr(self, name) is not None:
                raise ValueError(f"`{name}` is for the engine ray, got {getattr(self, name)!r}.")
        for name, value in (("num_workers", self.num_workers), ("num_models", self.num_models)):
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}.")


@dataclass
class BulkResult:
    """
    Result of work on many videos.

    Args:
        folder (`Path`):
            Folder of the results.
        num_rows (`int`):
            Rows of results in the folder.
        num_kept (`int`):
            How many of them were there before.
        failed (`list[dict]`, *optional*, defaults to `[]`):
            Videos that could not be read: `id`, `error`, `error_kind` and what else is known.
    """

    folder: Path
    num_rows: int
    num_kept: int
    failed: list[Row] = field(default_factory=list)


def run_work(
    work: Work,
    source: Samples,
    output: str | os.PathLike,
    *,
    description: Mapping[str, Any],
    engine: Engine | None = None,
    num_shares: int | None = None,
) -> BulkResult:
    """
    Do work on many videos. Memory does not grow with their number, apart from their ids.

    Each video has one row of results, also if processes are killed. A run that was stopped continues: videos with
    results are not read again, those that could not be read are tried again.

    Args:
        work ([`Work`]):
            What is done.
        source ([`Samples`]):
            The videos.
        output (`str` or `os.PathLike`):
            Folder of the results: parquet files `part-*.parquet`, and `bad_videos.jsonl` with a line for each video
            that could not be read. All machines of a cluster must see it under this name.
        description (`Mapping`):
            Plain values that the results depend on. A folder with other ones is refused.
        engine ([`Engine`], *optional*):
            Where it runs; in this process by default.
        num_shares (`int`, *optional*):
            Shares that the videos are divided into, such as the number of tars. By default one for 64 videos.

    Returns:
        [`BulkResult`]

    Raises:
        ValueError: the folder is in use, has other files, or results that were made in another way.
    """
    engine, folder = engine or Engine(), Path(output).absolute()
    with held_folder(folder, "output"):
        kept = begin_parts(folder, description, "output")
        reading = Reading(source, num_shares or count_shares(source), work.decode, id_digests(kept))
        if engine.name == "ray":
            from .ray_engine import run_on_ray

            written = run_on_ray(
                work,
                reading,
                folder,
                address=engine.address,
                num_workers=engine.num_workers,
                num_models=engine.num_models,
                on_gpus=engine.device.startswith("cuda"),
            )
        else:
            written = run_here(work, reading, folder, engine)
        failed: list[Row] = []
        for rows in written:
            if rows:
                record_failed(folder, rows)
                failed += rows
        return BulkResult(folder, finish_parts(folder), len(kept), failed)


class _Decoded(IterableDataset):
    """The rows of one decoding process of several."""

    def __init__(self, reading: Reading):
        self.reading = reading

    def __iter__(self) -> Iterator[Row]:
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        return self.reading.rows(range(first, self.reading.num_shares, step))


def run_here(work: Work, reading: Reading, folder: Path, engine: Engine) -> Iterator[list[Row]]:
    """
    Run the work in this process and in decoding processes that it starts.

    Args:
        work ([`Work`]):
            What is done.
        reading ([`Reading`]):
            The videos.
        folder (`Path`):
            Folder of the results.
        engine ([`Engine`]):
            Number of decoding processes.

    Yields:
        `list[dict]`: the rows with an error of each file that was written.
    """
    num_workers = engine.num_workers or 0
    loader: Iterable[list[Row]] = DataLoader(
        _Decoded(reading),
        batch_size=work.batch_size,
        num_workers=num_workers,
        collate_fn=list,
        multiprocessing_context=trusted_context() if num_workers else None,
    )
    batches = loader if num_workers else read_ahead(loader, 2)
    model = None if work.make_model is None else work.make_model()
    results = (row for batch in batches for row in (batch if model is None else model(batch)))
    rows: list[Row] = []
    begun = time.monotonic()
    with _lost_processes_named(num_workers):
        try:
            for row in results:
                rows.append(row)
                if len(rows) == work.rows_per_file or time.monotonic() - begun > SECONDS_PER_FILE:
                    yield _written(rows, work, folder)
                    rows, begun = [], time.monotonic()
        except (Exception, KeyboardInterrupt):
            if rows:  # the error does not lose the rows before it
                yield _written(rows, work, folder)
            raise
        if rows:
            yield _written(rows, work, folder)


def _written(rows: list[Row], work: Work, folder: Path) -> list[Row]:
    try:
        return write_part(to_table(rows, work.result_schema), folder, work.keeps_failed)
    except RuntimeError as error:
        if not _is_lost(error):
            raise
        # torch interrupts whatever runs, once, when a decoding process is gone
        return write_part(to_table(rows, work.result_schema), folder, work.keeps_failed)


def _is_lost(error: BaseException) -> bool:
    """Whether an error says that a decoding process is gone. Errors in such a process begin with "Caught"."""
    lost = isinstance(error, ConnectionError | EOFError) or "DataLoader worker" in str(error)
    return lost and not str(error).startswith("Caught ")


@contextmanager
def _lost_processes_named(num_workers: int) -> Iterator[None]:
    """Say that a decoding process is gone, where torch says "Connection reset by peer" or nothing that helps."""
    try:
        yield
    except (RuntimeError, OSError, EOFError) as error:
        if not num_workers or not _is_lost(error):
            raise
        raise RuntimeError(
            "A decoding process was killed, for example because memory ran out (use fewer `num_workers` then). The "
            "results so far are kept: the same command continues."
        ) from error


__all__ = ["BulkResult", "Engine", "run_here", "run_work"]
