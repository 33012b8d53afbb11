"""Iterables that are read ahead in a thread."""

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any


def read_ahead(items: Iterable[Any], size: int) -> Iterator[Any]:
    """
    Read an iterable in a thread. Exceptions of the iterable are raised where the items are used.

    Args:
        items (`Iterable`):
            The items.
        size (`int`):
            Largest number of items that are read ahead.

    Returns:
        `Iterator`: the items.

    Raises:
        Exception: any exception of the iterable.
    """
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=size)
    stopped = threading.Event()

    def put(kind: str, value: Any) -> bool:
        while not stopped.is_set():
            try:
                ready.put((kind, value), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def read() -> None:
        try:
            for item in items:
                if not put("item", item):
                    return
            put("end", None)
        except Exception as error:  # raised in the thread that uses the items
            put("error", error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
    finally:
        stopped.set()
        thread.join()


__all__ = ["read_ahead"]
