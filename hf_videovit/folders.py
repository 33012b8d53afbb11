"""Folders that a command writes: one process holds them at a time, and a user's files in them are left alone."""

import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from filelock import FileLock


LOCK_FILE = ".lock"  # locked by the operating system, which releases it when the process ends, however it ends
HOLDER_FILE = ".lock.json"
ORPHAN_SECONDS = 15  # workers of a killed process may keep its lock until they notice its end
REMOVED = ".removed"  # suffix of a folder that is being deleted
SHOWN_FILES = 5


@contextmanager
def held_folder(folder: Path, name: str) -> Iterator[None]:
    """
    A block in which no other process holds a folder. The folder is made if it does not exist.

    Args:
        folder (`Path`):
            The folder.
        name (`str`):
            Name of the argument with the folder, for the message.

    Raises:
        ValueError: `folder` is a file, or another process holds it.
    """
    from filelock import FileLock

    if folder.exists() and not folder.is_dir():
        raise ValueError(f"`{name}` must be a folder, {str(folder)!r} is a file")
    folder.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(folder / LOCK_FILE), folder / HOLDER_FILE
    _acquire(lock, holder, name)
    try:
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        write_text(holder, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}))
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _acquire(lock: "FileLock", holder: Path, name: str) -> None:
    from filelock import Timeout

    try:
        lock.acquire(timeout=0)
    except Timeout:
        known = _read_holder(holder)
        try:
            lock.acquire(timeout=ORPHAN_SECONDS if _has_ended(known) else 0)
        except Timeout:
            who = "process {pid} on {host} since {since}".format(**known) if known else "another process"
            raise ValueError(f"`{name}` {str(holder.parent)!r} is in use by {who}: wait or end it first") from None


def _read_holder(path: Path) -> dict[str, Any]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # the holder has just begun or ended
        return {}
    return known if isinstance(known, dict) and known.keys() >= {"pid", "host", "since"} else {}


def _has_ended(known: dict[str, Any]) -> bool:
    """Whether the process is known to have ended. Processes of other machines cannot be looked up."""
    if known.get("host") != socket.gethostname():
        return False
    try:
        os.kill(known["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def remove_folder(folder: Path) -> None:
    """
    Delete a folder with its content. It is renamed first, so that a process that is killed meanwhile leaves no part of
    it under its name.

    Args:
        folder (`Path`):
            The folder. It may be missing.
    """
    if folder.is_dir():
        doomed = folder.with_name(f".{folder.name.lstrip('.')}{REMOVED}")
        shutil.rmtree(doomed, ignore_errors=True)
        os.replace(folder, doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def refuse_existing(paths: Iterable[Path], name: str) -> None:
    """
    Raise an error if files exist that would be replaced.

    Args:
        paths (`Iterable[Path]`):
            The files to be written.
        name (`str`):
            Name of the argument that names them, for the message.

    Raises:
        ValueError: a file exists.
    """
    if existing := [str(path) for path in paths if path.exists() or path.is_symlink()]:
        raise ValueError(f"`{name}` must not exist, got {shorten(existing)}: move or delete it, or give another name")


def refuse_foreign(path: Path | None, name: str, mark: str) -> None:
    """
    Raise an error if a file would be replaced that an earlier call of the same command did not write.

    Args:
        path (`Path` or `None`):
            The file to be written.
        name (`str`):
            The option that names it, for the message.
        mark (`str`):
            A text that is in every file of this kind.

    Raises:
        ValueError: `path` is a folder, or such a file.
    """
    if path is not None and path.is_dir():
        raise ValueError(f"{name} must be a file, {str(path)!r} is a folder")
    if path is not None and path.exists() and mark.encode() not in path.read_bytes():
        raise ValueError(f"{name} {str(path)!r} exists, and no earlier call wrote it: move it, or give another name")


def shorten(names: Iterable[str]) -> str:
    """
    The first few of many names, for messages.

    Args:
        names (`Iterable[str]`):
            The names.

    Returns:
        `str`: the names, separated by commas.
    """
    listed = list(names)
    more = f", ... ({len(listed)} in all)" if len(listed) > SHOWN_FILES else ""
    return ", ".join(listed[:SHOWN_FILES]) + more


def write_text(path: Path, text: str) -> None:
    """
    Write a file so that no reader finds it incomplete.

    Args:
        path (`Path`):
            The file.
        text (`str`):
            Its content.
    """
    draft = path.with_name(f".{path.name.lstrip('.')}.draft")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


def file_hash(path: Path) -> str:
    """
    SHA-256 of a file.

    Args:
        path (`Path`):
            The file.

    Returns:
        `str`: hexadecimal digits.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
