"""
A request to stop a run: SIGTERM, as clusters send before they reclaim a machine, or SIGINT, which Ctrl-C sends. The
run finishes its step and saves a checkpoint.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from transformers.utils import logging


logger = logging.get_logger(__name__)

NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}


class StopRequest:
    """A request to stop, made by a signal to this process."""

    def __init__(self) -> None:
        self.made_by: str | None = None
        self._made = threading.Event()

    def is_set(self) -> bool:
        """Whether the request was made."""
        return self._made.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """
        Wait for the request.

        Args:
            timeout (`float`, *optional*):
                Seconds to wait; forever by default.

        Returns:
            `bool`: whether the request was made.
        """
        return self._made.wait(timeout)

    def make(self, number: int, frame: FrameType | None) -> None:
        """
        Handle a signal. A second Ctrl-C ends the process.

        Args:
            number (`int`):
                Number of the signal.
            frame (`FrameType` or `None`):
                Where the process is.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed before.
        """
        name = NAMES[signal.Signals(number)]
        if name == "Ctrl-C":
            if self.made_by == name:
                raise KeyboardInterrupt
            logger.warning("Ctrl-C: stops after this step and saves it. Press Ctrl-C again to end without saving.")
        self.made_by = name
        self._made.set()


@contextmanager
def watch_signals() -> Iterator[StopRequest]:
    """
    Handle SIGTERM and SIGINT inside a block: instead of ending the process, they make a request. Outside of the main
    thread signals cannot be handled, and the request is never made.

    Yields:
        [`StopRequest`]: the request.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request.make) for number in NAMES}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
