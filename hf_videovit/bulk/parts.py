"""
A folder of results: parquet files, a ledger of the videos that could not be read, and a description of the work.

A file is named after the ids that it holds and appears under its name only when it is complete. A task that is done
again after its process was killed replaces its file by the same one.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..folders import refuse_existing, shorten, write_text
from .work import ERROR_FIELDS, Row


DESCRIPTION_FILE = ".work.json"  # hidden, like the ledger's neighbours, from `datasets.load_dataset(folder)`
LEDGER_FILE = "bad_videos.jsonl"
PARTS = "part-*.parquet"


def begin_parts(folder: Path, description: Mapping[str, Any], name: str) -> list[str]:
    """
    Begin or continue a folder of results.

    Args:
        folder (`Path`):
            The folder, which exists.
        description (`Mapping`):
            Plain values that the results depend on.
        name (`str`):
            Name of the argument with the folder, for messages.

    Returns:
        `list[str]`: ids that have results.

    Raises:
        ValueError: the folder has other files, or results that were made in another way.
    """
    path = folder / DESCRIPTION_FILE
    if path.is_file():
        earlier = json.loads(path.read_text(encoding="utf-8"))
        if differing := [key for key in {**earlier, **description} if earlier.get(key) != description.get(key)]:
            changes = shorten(f"{key} {earlier.get(key)!r}, now {description.get(key)!r}" for key in differing)
            raise ValueError(f"`{name}` {str(folder)!r} has results that were made in another way: {changes}")
    else:
        refuse_existing((file for file in folder.iterdir() if not file.name.startswith(".")), name)
        write_text(path, json.dumps(dict(description), indent=1, ensure_ascii=False) + "\n")
    for draft in folder.glob(".*.draft"):
        draft.unlink(missing_ok=True)
    (folder / LEDGER_FILE).unlink(missing_ok=True)  # videos that could not be read are tried again
    return list(_keep_once(folder))


def write_part(table: pa.Table, folder: Path, keeps_failed: bool = False) -> list[Row]:
    """
    Write the results of some videos.

    Args:
        table (`pa.Table`):
            Rows of results, with the columns of errors.
        folder (`Path`):
            The folder.
        keeps_failed (`bool`, *optional*, defaults to `False`):
            Whether videos with an error get a row as well.

    Returns:
        `list[dict]`: the rows with an error, without columns that have no value.
    """
    bad = table.filter(pc.is_valid(table["error"]))
    failed = [{key: value for key, value in row.items() if value is not None} for row in bad.to_pylist()]
    kept = table if keeps_failed else table.filter(pc.is_null(table["error"]))
    if len(kept):
        _write(kept.drop_columns([name for name, _ in ERROR_FIELDS]), folder)
    return failed


def _write(table: pa.Table, folder: Path) -> None:
    names = "\n".join(table["id"].to_pylist()).encode("utf-8", "surrogateescape")
    target = folder / f"part-{hashlib.sha256(names).hexdigest()[:24]}.parquet"
    draft = folder / f".{target.name}.{os.getpid()}.draft"
    pq.write_table(table, draft)
    os.replace(draft, target)


def record_failed(folder: Path, failed: Iterable[Row]) -> None:
    """
    Add videos that could not be read to the ledger.

    Args:
        folder (`Path`):
            The folder.
        failed (`Iterable[dict]`):
            Rows from [`write_part`].
    """
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in failed]
    with (folder / LEDGER_FILE).open("a", encoding="utf-8") as file:
        file.writelines(lines)


def read_rows(folder: str | os.PathLike) -> Iterator[Row]:
    """
    The rows of a folder of results.

    Args:
        folder (`str` or `os.PathLike`):
            The folder.

    Yields:
        `dict`: a row.
    """
    for path in sorted(Path(folder).glob(PARTS)):
        yield from pq.read_table(path).to_pylist()


def _keep_once(folder: Path) -> Iterator[str]:
    """The ids of all files. A row whose id is in an earlier file, from a task that was done twice, is removed."""
    seen: set[str] = set()
    for path in sorted(folder.glob(PARTS)):
        names = pq.read_table(path, columns=["id"])["id"].to_pylist()
        fresh = [name not in seen for name in names]
        if not all(fresh):
            table = pq.read_table(path)
            path.unlink()
            if any(fresh):
                _write(table.filter(pa.array(fresh)), folder)
        new = [name for name in names if name not in seen]
        seen.update(new)
        yield from new


def finish_parts(folder: Path) -> int:
    """
    Count the results, and make sure that each video has one.

    Args:
        folder (`Path`):
            The folder.

    Returns:
        `int`: number of rows.
    """
    return sum(1 for _ in _keep_once(folder))


__all__ = ["LEDGER_FILE", "begin_parts", "finish_parts", "read_rows", "record_failed", "write_part"]
