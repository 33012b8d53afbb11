"""
Reports of a run: JSON lines in `logs/metrics.jsonl`, experiment trackers, a live table on a terminal or plain lines
elsewhere, and at the end a picture of the curves.
"""

import json
import math
import os
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from accelerate import Accelerator
from accelerate.tracking import filter_trackers
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from transformers.utils import logging

from ...pictures.drawing import draw_curves
from ..arguments import RunArguments, RunConfig


logger = logging.get_logger(__name__)

REFRESH_SECONDS = 0.25
WHERE = ("step", "epoch")  # fields of a line that state the progress of the run; the others are measurements


class Clock:
    """Measures, for the steps since the last line of the log, their duration and the time spent waiting for data."""

    def __init__(self):
        self.clips = 0
        self.waited = 0.0
        self.started = self.mark = time.perf_counter()

    def wait(self) -> None:
        """Call this when waiting for data begins."""
        self.mark = time.perf_counter()

    def work(self) -> None:
        """Call this when waiting for data ends."""
        self.waited += time.perf_counter() - self.mark

    def close(self) -> dict[str, float]:
        """
        End the window and begin the next one.

        Returns:
            `dict[str, float]`: `clips_per_second`, and `data_wait`, the share of time spent waiting for data.
        """
        now = time.perf_counter()
        seconds = max(now - self.started, 1e-9)
        figures = {"clips_per_second": round(self.clips / seconds, 2), "data_wait": round(self.waited / seconds, 4)}
        self.clips, self.waited, self.started = 0, 0.0, now
        return figures


class MetricsLog:
    """
    JSON lines in a file and in memory.

    Args:
        path (`Path`):
            The file.
        writes (`bool`):
            Whether this process writes the file.
    """

    def __init__(self, path: Path, writes: bool):
        self.path, self.writes = path, writes
        self.lines: list[dict[str, Any]] = []

    def write(self, line: dict[str, Any]) -> None:
        """
        Add a line.

        Args:
            line (`dict[str, Any]`):
                Plain values, among them `step` and `epoch`.
        """
        self.lines.append(line)
        if self.writes:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def write_nonfinite(self, step: int, rank: int, ids: list[str]) -> None:
        """
        Record a skipped step in a file of this process.

        Args:
            step (`int`):
                Optimiser step.
            rank (`int`):
                Index of this process.
            ids (`list[str]`):
                Ids of the clips of the step.
        """
        logger.warning(f"Step {step} is skipped: the gradient is not finite")
        path = self.path.with_name(f"nonfinite.rank{rank}.jsonl")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "ids": ids}) + "\n")

    def read_to(self, step: int) -> None:
        """
        Read the lines of the file up to a step. Truncated lines (full disk, killed process) are later than any
        checkpoint and are skipped.

        Args:
            step (`int`):
                Step of the checkpoint from which the run continues.
        """
        if self.path.exists():
            texts = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            lines = [json.loads(text) for text in texts if text.endswith("}\n")]
            self.lines = [line for line in lines if line["step"] <= step]

    def rewrite(self) -> None:
        """Replace the content of the file by the lines in memory."""
        if self.writes and self.path.exists():
            draft = self.path.with_suffix(".draft")
            draft.write_text("".join(json.dumps(line) + "\n" for line in self.lines), encoding="utf-8")
            os.replace(draft, self.path)


class RunReport:
    """
    Writes the log, the trackers, the screen and the curves of a run.

    Args:
        config ([`RunConfig`]):
            The run.
        accelerator (`Accelerator`):
            Processes of the run. The first one writes and prints.
        total_steps (`int`):
            Optimiser steps of the run.
    """

    def __init__(self, config: RunConfig, accelerator: Accelerator, total_steps: int):
        self.config, self.accelerator, self.total_steps = config, accelerator, total_steps
        self.folder = Path(config.run.output_dir) / "logs"
        self.log = MetricsLog(self.folder / "metrics.jsonl", accelerator.is_main_process)
        self.screen: Screen | None = None

    @contextmanager
    def open(self, step: int) -> Iterator[None]:
        """
        A block around the run, in which trackers and screen are open.

        Args:
            step (`int`):
                Step at which the run starts. Above 0 the run is resumed, and so are the trackers' runs.
        """
        shows = self.config.run.progress and self.accelerator.is_main_process
        screen = make_screen(self.total_steps) if shows else None
        with tracking(self.config, self.accelerator, step):
            if screen is None:
                yield
                return
            with screen.open(step):
                self.screen = screen
                try:
                    yield
                finally:
                    self.screen = None

    def write(self, line: dict[str, Any]) -> None:
        """
        Write a line to the log, the trackers and the screen.

        Args:
            line (`dict[str, Any]`):
                See [`MetricsLog.write`].
        """
        self.log.write(line)
        if self.accelerator.trackers:
            self.accelerator.log(flat_values(line), step=line["step"])
        if self.screen is not None:
            self.screen.show(line)

    def advance(self, step: int) -> None:
        """
        Show that a step is done.

        Args:
            step (`int`):
                Optimiser steps done.
        """
        if self.screen is not None:
            self.screen.advance(step)

    def has_line(self, name: str, step: int) -> bool:
        """
        Whether the log has a line of a step with a certain field.

        Args:
            name (`str`):
                Name of the field.
            step (`int`):
                Optimiser step.

        Returns:
            `bool`
        """
        return any(line["step"] == step and name in line for line in reversed(self.log.lines))

    def draw(self) -> None:
        """Draw the curves if `config.run.curves` is set and matplotlib is installed."""
        curves = curves_of(self.log.lines)
        if not (self.config.run.curves and curves and self.accelerator.is_main_process):
            return
        try:
            draw_curves(curves, self.folder / "curves.png")
        except ImportError:
            logger.warning("The curves are not drawn: matplotlib is not installed (`pip install hf_videovit[train]`)")


def flat_values(line: Mapping[str, Any]) -> dict[str, Any]:
    """
    The measured values of a line, with the names that trackers and curves use: `train/loss`, `validation/top1`.

    Args:
        line (`Mapping[str, Any]`):
            A line of the log.

    Returns:
        `dict[str, Any]`: values by name, and `epoch`.
    """
    values: dict[str, Any] = {"epoch": line["epoch"]}
    for name, value in line.items():
        if isinstance(value, Mapping):
            values |= {f"{name}/{inner}": number for inner, number in value.items()}
        elif name not in WHERE:
            values[f"train/{name}"] = value
    return values


def curves_of(lines: list[dict[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """
    Curves of all measured values.

    Args:
        lines (`list[dict[str, Any]]`):
            Lines of the log.

    Returns:
        `dict[str, list[tuple[float, float]]]`: points `(step, value)` by name, without values that are not finite.
    """
    curves: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        for name, value in flat_values(line).items():
            if name != "epoch" and isinstance(value, int | float) and math.isfinite(value):
                curves.setdefault(name, []).append((line["step"], value))
    return curves


@contextmanager
def tracking(config: RunConfig, accelerator: Accelerator, step: int) -> Iterator[None]:
    """
    A block in which the trackers of a run are open. They are closed after it, also after an error.

    Args:
        config ([`RunConfig`]):
            The run. `trackers` and `tracker_project` are used; all fields are logged as the run's settings.
        accelerator (`Accelerator`):
            Receives the trackers. If it has trackers already, they are used and stay open.
        step (`int`):
            Step at which the run starts. Above 0 the trackers' earlier run is resumed: in wandb and trackio by its
            name, in tensorboard by dropping everything after this step.

    Raises:
        ValueError: a tracker is not installed.
    """
    names, folder = config.run.trackers, Path(config.run.output_dir) / "logs"
    if not names or accelerator.trackers:
        yield
        return
    found = filter_trackers(list(names), folder)
    missing = [name for name in names if name != "all" and name not in map(str, found)]
    if missing:
        raise ValueError(f"`trackers` includes {', '.join(missing)}, which is not installed")
    accelerator.log_with = found
    accelerator.project_configuration.logging_dir = str(folder)
    values = None if step else settings(config)
    accelerator.init_trackers(
        config.run.tracker_project, config=values, init_kwargs=_tracker_options(config.run, accelerator, step)
    )
    try:
        yield
    finally:
        for tracker in accelerator.trackers:
            tracker.finish()
        accelerator.trackers = []


def settings(config: RunConfig) -> dict[str, Any]:
    """
    The fields of a run in a form that every tracker takes.

    Args:
        config ([`RunConfig`]):
            The run.

    Returns:
        `dict[str, Any]`: numbers and strings named `group.field`.
    """
    values: dict[str, Any] = {}
    for group, members in config.to_dict().items():
        for name, value in members.items():
            values[f"{group}.{name}"] = value if isinstance(value, int | float | str) else str(value)
    return values


def _tracker_options(arguments: RunArguments, accelerator: Accelerator, step: int) -> dict[str, dict[str, Any]]:
    """Options by tracker with which a resumed run continues the tracker's run."""
    if not accelerator.is_main_process:
        return {}
    path = Path(arguments.output_dir) / "logs" / "run_id.txt"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(uuid.uuid4().hex[:8], encoding="utf-8")
    own = path.read_text(encoding="utf-8").strip()
    name = f"{Path(arguments.output_dir).resolve().name}-{own}"
    return {
        "tensorboard": {"purge_step": step + 1} if step else {},
        "trackio": {"name": name, "resume": "allow"},
        "wandb": {"name": name, "id": own, "resume": "allow"},
    }


class Screen(Protocol):
    """The progress of a run as the user sees it."""

    def open(self, step: int) -> Any:
        """
        A context manager for the run.

        Args:
            step (`int`):
                Step at which the run starts.
        """

    def show(self, line: dict[str, Any]) -> None:
        """
        Show a line of the log.

        Args:
            line (`dict[str, Any]`):
                See [`MetricsLog.write`].
        """

    def advance(self, step: int) -> None:
        """
        Show that a step is done.

        Args:
            step (`int`):
                Optimiser steps done.
        """


def make_screen(total_steps: int, console: Console | None = None) -> Screen:
    """
    A live table on a terminal, plain lines elsewhere.

    Args:
        total_steps (`int`):
            Optimiser steps of the run.
        console (`Console`, *optional*):
            Where to print. Defaults to standard error; nothing is printed where this package logs errors only.

    Returns:
        [`Screen`]
    """
    console = console or Console(stderr=True, quiet=not logger.isEnabledFor(logging.WARNING))
    return LiveTable(total_steps, console) if console.is_terminal else PlainLines(total_steps, console)


class PlainLines:
    """
    Prints a line of text for each line of the log.

    Args:
        total_steps (`int`):
            Optimiser steps of the run.
        console (`Console`):
            Where to print.
    """

    def __init__(self, total_steps: int, console: Console):
        self.total_steps, self.console = total_steps, console

    @contextmanager
    def open(self, step: int) -> Iterator[None]:
        """Does nothing. See [`Screen.open`]."""
        yield

    def show(self, line: dict[str, Any]) -> None:
        """Print the line. See [`Screen.show`]."""
        parts = [f"step {line['step']}/{self.total_steps}", f"epoch {line['epoch']}"]
        parts += [f"{name} {text}" for name, text in _shown_values(line).items()]
        self.console.print("  ".join(parts), soft_wrap=True, highlight=False, markup=False)

    def advance(self, step: int) -> None:
        """Does nothing. See [`Screen.advance`]."""


class LiveTable:
    """
    Shows a progress bar and a table with the latest and the first value of every measurement, updated in place.

    It is drawn in the training thread, between steps. Processes that are forked meanwhile do not draw it.

    Args:
        total_steps (`int`):
            Optimiser steps of the run.
        console (`Console`):
            The terminal.
    """

    def __init__(self, total_steps: int, console: Console):
        self.total_steps, self.console = total_steps, console
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("steps"), TimeElapsedColumn(), TimeRemainingColumn())
        self.bar = Progress(TextColumn("training"), *columns, console=console, auto_refresh=False)
        self.task = self.bar.add_task("training", total=total_steps)
        self.first: dict[str, str] = {}
        self.latest: dict[str, str] = {}
        self.live = Live(get_renderable=self._render, console=console, auto_refresh=False)
        self.drawn = 0.0

    @contextmanager
    def open(self, step: int) -> Iterator[None]:
        """Keep the table on the screen. See [`Screen.open`]."""
        self.bar.reset(self.task, completed=step, total=self.total_steps)
        streams = sys.stdout, sys.stderr
        with self.live:
            shown_streams = sys.stdout, sys.stderr

            def restore() -> None:
                if (sys.stdout, sys.stderr) == shown_streams:
                    sys.stdout, sys.stderr = streams

            os.register_at_fork(after_in_child=restore)
            yield
            self.live.refresh()

    def show(self, line: dict[str, Any]) -> None:
        """Update the table. See [`Screen.show`]."""
        values = {"epoch": str(line["epoch"])} | _shown_values(line)
        self.first = values | self.first
        self.latest |= values
        self.live.refresh()

    def advance(self, step: int) -> None:
        """Move the bar. See [`Screen.advance`]."""
        self.bar.update(self.task, completed=step)
        now = time.perf_counter()
        if now - self.drawn > REFRESH_SECONDS:
            self.drawn = now
            self.live.refresh()

    def _render(self) -> Group:
        table = Table("", "now", "first", box=None, pad_edge=False)
        for name, text in self.latest.items():
            table.add_row(name, text, f"[dim]{self.first[name]}[/dim]")
        return Group(self.bar, table)


def _shown_values(line: Mapping[str, Any]) -> dict[str, str]:
    """Values of a line as short text, with names such as `loss` and `validation top1`."""
    texts = {}
    for name, value in flat_values(line).items():
        if name != "epoch":
            words = name.removeprefix("train/").replace("/", " ").replace("_", " ")
            texts[words] = f"{value:.4g}" if isinstance(value, int | float) else str(value)
    return texts
