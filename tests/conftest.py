"""Settings of the test process, made before torch and transformers are imported: offline, one thread a worker."""

import gc
import os

import pytest


os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that talk to the Hub of `tests.hub_server` are slow."""
    for item in items:
        if "hub" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """
    What is there before the first test stays. transformers and accelerate collect garbage after each of their runs,
    which otherwise searches all modules and all tests again: 16 tests of the `Trainer` take 12 seconds in place of 42.
    """
    gc.collect()
    gc.freeze()
