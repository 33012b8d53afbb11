"""
Child processes of Python that import nothing from the working directory.

`multiprocessing` starts fresh interpreters with `-c`, which puts the working directory first on their path: a
`struct.py` beside downloaded videos would run. `PYTHONSAFEPATH` keeps it off (Python 3.11 and newer). A child then
imports from where its parent does.
"""

import copy
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.context import BaseContext
from typing import Any


SAFE_PATH = "PYTHONSAFEPATH"
_lock = threading.RLock()


@contextmanager
def trusted_imports() -> Iterator[None]:
    """
    Interpreters that are started in this block do not import from the working directory.

    Returns:
        A context manager.
    """
    with _lock:
        before = os.environ.get(SAFE_PATH)
        os.environ[SAFE_PATH] = "1"
        try:
            yield
        finally:
            if before is None:
                del os.environ[SAFE_PATH]
            else:
                os.environ[SAFE_PATH] = before


def start_tracker(start_method: str | None = None) -> None:
    """
    Start the tracker of shared resources, an interpreter that locks and queues of `multiprocessing` otherwise start
    on their first use.

    Args:
        start_method (`str`, *optional*):
            How processes are started; that of the platform by default. Those that are forked need no tracker.
    """
    if os.name == "posix" and (start_method or multiprocessing.get_all_start_methods()[0]) != "fork":
        with trusted_imports():
            resource_tracker.ensure_running()


class TrustedProcess(multiprocessing.Process):
    """A process that does not import from the working directory."""

    def start(self) -> None:
        """Start the process."""
        if multiprocessing.get_start_method() == "fork":  # no interpreter is started
            super().start()
            return
        with trusted_imports():
            super().start()


def trusted_context(process_class: type[TrustedProcess] = TrustedProcess) -> BaseContext:
    """
    A context for the workers of a `DataLoader`, by the current start method.

    Args:
        process_class (`type`, *optional*, defaults to [`TrustedProcess`]):
            Class of the workers.

    Returns:
        `BaseContext`: a `multiprocessing_context`.
    """
    context = copy.copy(multiprocessing.get_context())
    context.Process = process_class  # type: ignore[misc]
    start_tracker(context.get_start_method())
    return context


def run_apart(calls: Sequence[Callable[[], Any]], num_workers: int, module: str) -> Iterator[tuple[int, Any]]:
    """
    Make calls in several processes.

    They are forked from a fresh process where possible. A process that has decoded or used torch's threads must not be
    forked.

    Args:
        calls (`Sequence[Callable]`):
            Functions without arguments, which can be pickled.
        num_workers (`int`):
            Number of processes.
        module (`str`):
            The module that the processes need, imported once for all.

    Yields:
        `tuple[int, Any]`: number of a call and its result, in the order in which they are finished.
    """
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload([module])
    with trusted_imports():
        pool = ProcessPoolExecutor(max_workers=min(num_workers, len(calls)), mp_context=context)
        jobs = {pool.submit(call): number for number, call in enumerate(calls)}
    with pool:
        for job in as_completed(jobs):
            yield jobs[job], job.result()
