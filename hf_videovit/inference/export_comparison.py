"""
A model and its export side by side. Each side is opened and run in a process of its own, as it will be where it is
used: thread pools do not compete, and its memory is its own.
"""

import contextlib
import importlib
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import AutoConfig, AutoImageProcessor, AutoVideoProcessor
from transformers.utils import logging

import hf_videovit

from ..files import loading
from .exported_model import export_report, load_export, open_export


TIMED_RUNS = 5


def compare(model: str, export: str, videos: Sequence[Any], changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """
    Compare an export with its model.

    Args:
        model (`str`):
            Folder or Hub id of the model.
        export (`str`):
            Folder of the export.
        videos (`Sequence[Any]`):
            Videos in any form that the processor accepts. Both sides read them by their own processors.
        changes (`dict[str, Any]`, *optional*):
            Fields of the model's processor to replace.

    Returns:
        `dict[str, Any]`: `max_difference` and `mean_difference` of the answers, `top1_agreement` of classifiers, and
        `milliseconds` a video (median, without reading it) and `peak_megabytes` (most memory that opening and running
        took) of both sides, with `speedup`.

    Raises:
        RuntimeError: a side cannot be run.
    """
    expected = _apart(run_model, model, videos, changes or {})
    found = _apart(run_export, export, videos)
    difference = (found["answers"] - expected["answers"]).abs()
    classifies = expected["answers"].ndim == 2
    same = (found["answers"].argmax(-1) == expected["answers"].argmax(-1)).float().mean().item()
    sides = {"torch": expected, "export": found}
    return {
        "max_difference": difference.max().item(),
        "mean_difference": difference.mean().item(),
        "top1_agreement": same if classifies else None,
        "milliseconds": {name: round(side["milliseconds"], 2) for name, side in sides.items()},
        "peak_megabytes": {name: side["peak_megabytes"] for name, side in sides.items()},
        "speedup": round(expected["milliseconds"] / found["milliseconds"], 3),
    }


def _apart(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    context, threads = get_context("spawn"), torch.get_num_threads()
    with ProcessPoolExecutor(1, mp_context=context, initializer=_start, initargs=(threads,)) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                "The process that measures a side ended. A script must call `export_model` under "
                "`if __name__ == '__main__':`; else memory may be short."
            ) from error


def _start(threads: int) -> None:
    torch.set_num_threads(threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def run_model(model: str, videos: Sequence[Any], changes: dict[str, Any]) -> dict[str, Any]:
    """
    Run a model on videos.

    Args:
        model (`str`):
            Folder or Hub id.
        videos (`Sequence[Any]`):
            The videos.
        changes (`dict[str, Any]`):
            Fields of its processor to replace.

    Returns:
        `dict[str, Any]`: `answers` (`torch.Tensor`, a row for each video), `milliseconds`, `peak_megabytes`.
    """
    return _run(lambda: load_model(model), load_processor(model, **changes), videos)


def run_export(export: str, videos: Sequence[Any]) -> dict[str, Any]:
    """
    Run an export that this package just wrote on videos.

    Args:
        export (`str`):
            Its folder.
        videos (`Sequence[Any]`):
            The videos.

    Returns:
        As [`run_model`].
    """
    opened = load_export if export_report(export).get("classifies") else open_export
    return _run(lambda: opened(export, trust=True), load_processor(export), videos)


def load_model(model: str) -> Any:
    """
    Load a model with the head that its configuration names.

    Args:
        model (`str`):
            Folder or Hub id.

    Returns:
        [`PreTrainedModel`], in float32.

    Raises:
        ValueError: the configuration names no class of this package.
    """
    name = _architecture(model)
    model_class = getattr(hf_videovit, name, None) if name else None
    if model_class is None:
        raise ValueError(f"`model` must name a class of this package in its configuration, got {name!r}.")
    with loading("`model`", model):
        return model_class.from_pretrained(model, dtype=torch.float32).eval()


def load_processor(model: str, **changes: Any) -> Any:
    """
    Load the processor of a model: of images for an image classifier, else of videos.

    Args:
        model (`str`):
            Folder or Hub id.
        changes:
            Fields to replace.

    Returns:
        The processor.
    """
    kind = AutoImageProcessor if "ForImage" in _architecture(model) else AutoVideoProcessor
    with loading("`model`", model):
        return kind.from_pretrained(model, **changes)


def _architecture(model: str) -> str:
    with loading("`model`", model):
        return (AutoConfig.from_pretrained(model).architectures or [""])[0]


@torch.no_grad()
def _run(open_side: Callable[[], Any], processor: Any, videos: Sequence[Any]) -> dict[str, Any]:
    first = processor(videos[0], return_tensors="pt")["pixel_values"]
    _reset_peak()
    before = psutil.Process().memory_info().rss
    side = open_side()
    answers = [answer_of(side(pixel_values=first))]
    peak = _peak() - before
    times = []
    for _ in range(TIMED_RUNS):
        start = time.perf_counter()
        side(pixel_values=first)
        times.append(1e3 * (time.perf_counter() - start))
    for video in videos[1:]:
        answers.append(answer_of(side(pixel_values=processor(video, return_tensors="pt")["pixel_values"])))
    return {
        "answers": torch.cat(answers),
        "milliseconds": statistics.median(times),
        "peak_megabytes": round(max(peak, 0) / 1e6, 1),
    }


def answer_of(outputs: Any) -> torch.Tensor:
    """
    The first tensor of a model's outputs; the last map of a backbone.

    Args:
        outputs (`ModelOutput`):
            Outputs of a model or an export.

    Returns:
        `torch.Tensor`, in float32.
    """
    answer = outputs.to_tuple()[0]
    answer = answer[-1] if isinstance(answer, tuple | list) else answer
    return torch.as_tensor(answer).float()


def _reset_peak() -> None:
    """Forget what reading a video and loading libraries took, where the system can (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """Most memory that this process held, in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return 1024 * int(fields["VmHWM"].split()[0])
    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):  # Windows
        return memory.peak_wset
    return importlib.import_module("resource").getrusage(0).ru_maxrss  # bytes on macOS


__all__ = ["answer_of", "compare", "load_model", "load_processor", "run_export", "run_model"]
