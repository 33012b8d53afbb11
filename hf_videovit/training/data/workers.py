"""
Decoding processes of a run.

Launchers and clusters send SIGTERM to all processes of a job, and terminals send SIGINT (Ctrl-C) to them. The main
process decides when to stop, because it may need its workers for the rest of a step or an evaluation. Workers ignore
these signals. They end with the run, or the run kills them if they hang.
"""

import atexit
import os
import signal
from multiprocessing.context import BaseContext

from ...processes import TrustedProcess, trusted_context


class _Worker(TrustedProcess):
    """A process whose `terminate` kills it, because it ignores SIGTERM."""

    def start(self) -> None:
        super().start()
        self._owner = os.getpid()
        atexit.register(self._end)

    def terminate(self) -> None:
        atexit.unregister(self._end)
        self.kill()

    def _end(self) -> None:
        if os.getpid() == self._owner:  # a fork of the owner inherits its exit handlers
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler takes the end of a worker for a failure
            self.kill()


def worker_context() -> BaseContext:
    """A `multiprocessing_context` for a `DataLoader` whose `worker_init_fn` is [`ignore_signals`]."""
    return trusted_context(_Worker)


def ignore_signals(worker: int) -> None:
    """
    Make a worker ignore SIGTERM and SIGINT; a `worker_init_fn` of a `DataLoader`.

    Args:
        worker (`int`):
            Number of the worker.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
