"""
Processes that decode for a run.

Launchers and clusters send SIGTERM to all processes of a job. What then becomes of the run is decided where the run
is: it may need its decoding workers for the rest of a step, or of an evaluation. So they take no notice of the signal;
they end with the run, or, should they hang, are killed by it.
"""

import atexit
import copy
import multiprocessing
import os
import signal
from multiprocessing.context import BaseContext


class _Worker(multiprocessing.Process):
    """Dies when it is told to: `terminate` sends a signal that it ignores."""

    def start(self) -> None:
        super().start()
        self._owner = os.getpid()
        atexit.register(self._end)

    def terminate(self) -> None:
        atexit.unregister(self._end)
        self.kill()

    def _end(self) -> None:
        if os.getpid() == self._owner:  # a fork of the owner has the list of what to do at its exit, too
            self.kill()


def worker_context() -> BaseContext:
    """For `multiprocessing_context` of a `DataLoader`, together with `worker_init_fn=`[`ignore_sigterm`]."""
    context = copy.copy(multiprocessing.get_context())
    context.Process = _Worker  # type: ignore[misc]
    return context


def ignore_sigterm(worker: int) -> None:
    """What a worker does first."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
