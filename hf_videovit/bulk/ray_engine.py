"""Work on many videos on Ray Data: decoding tasks, a pool of models, tasks that write."""

import json
import logging
import os
import re
import secrets
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..processes import trusted_imports
from .parts import write_part
from .work import Reading, Row, Work, from_table, to_table


# A decoded clip of 16 frames has about 10 MB: a block holds a few, so that models do not wait for many.
BLOCK_BYTES = 32 * 2**20
LOOPBACK = "127.0.0.1"
ADDRESS = re.compile(r"(?:ray://)?\[?([^\[\]/]+?)\]?:(\d{1,5})")
SECONDS_TO_ANSWER = 10.0
# Read by Ray when it is imported or started.
SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_enable_metrics_collection": "0"}


@contextmanager
def ray_cluster(address: str | None, num_cpus: int | None = None) -> Iterator[Any]:
    """
    A block in which Ray runs: the cluster at an address, that which this program has started already, or one on this
    machine that is reached by the loopback address only and ends with the block.

    Args:
        address (`str` or `None`):
            Address of a running cluster.
        num_cpus (`int`, *optional*):
            Cores of a cluster that is started here; those of this machine by default.

    Returns:
        A context manager with the module `ray`.

    Raises:
        ValueError: nothing answers at the address.
    """
    if address is not None:
        _check_answers(address)
    os.environ.update(SETTINGS)
    import ray

    if ray.is_initialized():
        yield ray
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    secret: dict[str, str] = {}
    if address is None:
        options |= {"address": "local", "num_cpus": num_cpus, "include_dashboard": False, "_node_ip_address": LOOPBACK}
        secret = {"RAY_AUTH_TOKEN": secrets.token_hex(32)}  # else Ray writes one into the home folder
    else:
        options |= {"address": address}
    with patched_environment(secret):
        with trusted_imports():
            ray.init(**options)
        try:
            yield ray
        finally:
            ray.shutdown()


def _check_answers(address: str) -> None:
    """Ray itself tries a wrong address for minutes."""
    if address == "auto":  # Ray looks on this machine
        return
    if (found := ADDRESS.fullmatch(address)) is None:
        raise ValueError(f"`address` of a Ray cluster must be auto, HOST:PORT or ray://HOST:PORT, got {address!r}.")
    try:
        socket.create_connection((found[1], int(found[2])), SECONDS_TO_ANSWER).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(
            f"`address` {address!r}: no Ray cluster answers there ({reason}). `ray start --head`, which starts one, "
            "prints its address."
        ) from None


@contextmanager
def patched_environment(values: dict[str, str]) -> Iterator[None]:
    """
    A block in which environment variables have other values.

    Args:
        values (`dict[str, str]`):
            Values by name.

    Returns:
        A context manager.
    """
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def _quiet_context(ray: Any) -> Iterator[None]:
    """Settings of Ray Data for this work."""
    context = ray.data.DataContext.get_current()
    names = {"enable_progress_bars": False, "target_max_block_size": BLOCK_BYTES, "print_on_execution_start": False}
    before = {name: getattr(context, name) for name in names}
    logger = logging.getLogger("ray.data")
    level = logger.level
    logger.setLevel(logging.ERROR)
    for name, value in names.items():
        setattr(context, name, value)
    try:
        yield
    finally:
        logger.setLevel(level)
        for name, value in before.items():
            setattr(context, name, value)


class _DecodeShares:
    """Decodes the shares of a task, a batch at a time. The videos lie in the object store once."""

    def __init__(self, ray: Any, reading: Reading, work: Work):
        self.reading, self.schema, self.batch_size = ray.put(reading), work.decoded_schema, work.batch_size

    def __call__(self, numbers: pa.Table) -> Iterator[pa.Table]:
        import ray

        rows: list[Row] = []
        for row in ray.get(self.reading).rows(numbers["share"].to_pylist()):
            rows.append(row)
            if len(rows) == self.batch_size:
                yield to_table(rows, self.schema)
                rows = []
        yield to_table(rows, self.schema)


class _ModelActor:
    """A process with a model."""

    def __init__(self, work: Work):
        assert work.make_model is not None
        self.model, self.schema = work.make_model(), work.result_schema

    def __call__(self, decoded: pa.Table) -> pa.Table:
        return to_table(self.model(from_table(decoded)), self.schema)


class _WritePart:
    """Writes a file, and passes its rows with an error on."""

    def __init__(self, work: Work, folder: Path):
        self.folder, self.keeps_failed, self.schema = folder, work.keeps_failed, work.result_schema

    def __call__(self, results: pa.Table) -> pa.Table:
        results = results.select(self.schema.names)
        return to_table(write_part(results, self.folder, self.keeps_failed), self.schema)


def run_on_ray(
    work: Work,
    reading: Reading,
    folder: Path,
    *,
    address: str | None,
    num_workers: int | None,
    num_models: int | None,
    on_gpus: bool,
) -> Iterator[list[Row]]:
    """
    Run the work on Ray Data. Tasks and models whose process is killed are started again by Ray.

    Args:
        work ([`Work`]):
            What is done.
        reading ([`Reading`]):
            The videos.
        folder (`Path`):
            Folder of the results, which all machines of the cluster see.
        address (`str` or `None`):
            Address of a running cluster.
        num_workers (`int` or `None`):
            Decoding tasks at a time; by default as many as there are free cores.
        num_models (`int` or `None`):
            Processes with a model; by default one for each GPU, or one.
        on_gpus (`bool`):
            Whether a model takes a GPU.

    Yields:
        `list[dict]`: rows with an error.
    """
    with ray_cluster(address) as ray, _quiet_context(ray):
        shares = [{"share": number} for number in range(reading.num_shares)]
        data = ray.data.from_items(shares, override_num_blocks=len(shares))
        tables: dict[str, Any] = {"batch_format": "pyarrow"}
        decode = _DecodeShares(ray, reading, work)
        tasks = ray.data.TaskPoolStrategy(num_workers)
        data = data.map_batches(decode.__call__, num_cpus=1, compute=tasks, batch_size=1, **tables)
        if work.make_model is not None:
            count = num_models or max(1, int(ray.cluster_resources().get("GPU", 0)) if on_gpus else 1)
            data = data.map_batches(
                _ModelActor,
                fn_constructor_args=(work,),
                compute=ray.data.ActorPoolStrategy(size=count),
                num_gpus=int(on_gpus),
                num_cpus=int(not on_gpus),
                memory=1,  # another need than the decoders': Ray would run both in one process
                batch_size=work.batch_size,
                **tables,
            )
        write = _WritePart(work, folder)
        data = data.map_batches(write.__call__, num_cpus=0, batch_size=work.rows_per_file, **tables)
        for failed in data.iter_batches(batch_size=None, **tables):
            yield [{key: value for key, value in row.items() if value is not None} for row in failed.to_pylist()]


def run_calls_on_ray(
    calls: Sequence[Callable[[], Any]], num_workers: int | None, address: str | None
) -> Iterator[tuple[int, Any]]:
    """
    Make calls on Ray Data, as [`run_apart`] makes them in processes of this machine.

    Args:
        calls (`Sequence[Callable]`):
            Functions without arguments that return plain values. One whose process is killed is called again.
        num_workers (`int` or `None`):
            Largest number of calls at a time; as many as the cluster has cores by default.
        address (`str` or `None`):
            Address of a running cluster.

    Yields:
        `tuple[int, Any]`: number of a call and its result, in the order in which they are finished.
    """
    with ray_cluster(address) as ray, _quiet_context(ray):
        items = [{"number": number, "call": call} for number, call in enumerate(calls)]
        data = ray.data.from_items(items, override_num_blocks=len(items))
        data = data.map(_called, num_cpus=1, compute=ray.data.TaskPoolStrategy(num_workers))
        for row in data.iter_rows():
            yield row["number"], json.loads(row["result"])


def _called(row: Row) -> Row:
    return {"number": row["number"], "result": json.dumps(row["call"]())}  # columns would mix the keys of rows


__all__ = ["ray_cluster", "run_calls_on_ray", "run_on_ray"]
