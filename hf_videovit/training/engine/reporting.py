"""
What a run tells while it goes: lines of JSON in `logs/metrics.jsonl`, the experiment trackers that are asked for, a
live table where there is a terminal and plain lines where there is none, and at the end a picture of its curves.
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
from ..arguments import RunConfig


logger = logging.get_logger(__name__)

REFRESH_SECONDS = 0.25
WHERE = ("step", "epoch")  # in a line, what says where the run was; the rest is measured


class Clock:
    """Of the steps since the last line of the log: how long they took, and how much was waiting for data."""

    def __init__(self):
        self.clips = 0
        self.waited = 0.0
        self.started = self.mark = time.perf_counter()

    def wait(self) -> None:
        """Waiting for data begins."""
        self.mark = time.perf_counter()

    def work(self) -> None:
        """Waiting for data is over."""
        self.waited += time.perf_counter() - self.mark

    def close(self) -> dict[str, float]:
        """Figures of the window, and begin the next."""
        now = time.perf_counter()
        seconds = max(now - self.started, 1e-9)
        figures = {"clips_per_second": round(self.clips / seconds, 2), "data_wait": round(self.waited / seconds, 4)}
        self.clips, self.waited, self.started = 0, 0.0, now
        return figures


class MetricsLog:
    """
    Lines of JSON, kept in memory too.

    Args:
        path (`Path`):
            The file.
        writes (`bool`):
            Whether this process is the one that writes it.
    """

    def __init__(self, path: Path, writes: bool):
        self.path, self.writes = path, writes
        self.lines: list[dict[str, Any]] = []

    def write(self, line: dict[str, Any]) -> None:
        """Add a line."""
        self.lines.append(line)
        if self.writes:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def write_nonfinite(self, step: int, rank: int, ids: list[str]) -> None:
        """Note a step that was left out, in a file of its own."""
        logger.warning(f"Step {step}: the gradient is not finite, the step is left out")
        path = self.path.with_name(f"nonfinite.rank{rank}.jsonl")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "ids": ids}) + "\n")

    def read_to(self, step: int) -> None:
        """Take the lines up to a step; one that a full disk or a kill cut short comes after every checkpoint."""
        if self.path.exists():
            texts = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            lines = [json.loads(text) for text in texts if text.endswith("}\n")]
            self.lines = [line for line in lines if line["step"] <= step]

    def rewrite(self) -> None:
        """Make the file hold these lines and no others."""
        if self.writes and self.path.exists():
            draft = self.path.with_suffix(".draft")
            draft.write_text("".join(json.dumps(line) + "\n" for line in self.lines), encoding="utf-8")
            os.replace(draft, self.path)


class RunReport:
    """
    All that a run tells.

    Args:
        config ([`RunConfig`]):
            The run.
        accelerator (`Accelerator`):
            Its processes; the first one writes and shows.
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
        Around the run.

        Args:
            step (`int`):
                Where it starts; above 0 it goes on, and so do the trackers' runs.
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
        """Tell a line everywhere."""
        self.log.write(line)
        if self.accelerator.trackers:
            self.accelerator.log(flat_values(line), step=line["step"])
        if self.screen is not None:
            self.screen.show(line)

    def advance(self, step: int) -> None:
        """A step is done."""
        if self.screen is not None:
            self.screen.advance(step)

    def told(self, name: str, step: int) -> bool:
        """Whether there is a line with `name` of a step."""
        return any(line["step"] == step and name in line for line in reversed(self.log.lines))

    def draw(self) -> None:
        """Draw the curves, if the run wants them and matplotlib is there."""
        curves = curves_of(self.log.lines)
        if not (self.config.run.curves and curves and self.accelerator.is_main_process):
            return
        try:
            draw_curves(curves, self.folder / "curves.png")
        except ImportError:
            logger.warning("No picture of the curves: matplotlib is not installed (`pip install hf_videovit[train]`)")


def flat_values(line: Mapping[str, Any]) -> dict[str, Any]:
    """The measured values of a line under the names that trackers and curves use: `train/loss`, `validation/top1`."""
    values: dict[str, Any] = {"epoch": line["epoch"]}
    for name, value in line.items():
        if isinstance(value, Mapping):
            values |= {f"{name}/{inner}": number for inner, number in value.items()}
        elif name not in WHERE:
            values[f"train/{name}"] = value
    return values


def curves_of(lines: list[dict[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Points `(step, value)` of everything that was measured, by name; values that are not finite are left out."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        for name, value in flat_values(line).items():
            if name != "epoch" and isinstance(value, int | float) and math.isfinite(value):
                curves.setdefault(name, []).append((line["step"], value))
    return curves


@contextmanager
def tracking(config: RunConfig, accelerator: Accelerator, step: int) -> Iterator[None]:
    """
    Keep the trackers of a run open, and close them whatever happens.

    Args:
        config ([`RunConfig`]):
            `trackers` and `tracker_project`; the rest is logged as the run's settings.
        accelerator (`Accelerator`):
            Receives the trackers; those that it has already are written to and left open.
        step (`int`):
            Above 0, the trackers' earlier run is gone on with: wandb and trackio by its name, tensorboard by leaving
            out what was written after this step.
    """
    names, folder = config.run.trackers, Path(config.run.output_dir) / "logs"
    if not names or accelerator.trackers:
        yield
        return
    found = filter_trackers(list(names), folder)
    missing = [name for name in names if name != "all" and name not in map(str, found)]
    if missing:
        raise ValueError(f"`trackers` names {', '.join(missing)}, which is not installed")
    accelerator.log_with = found
    accelerator.project_configuration.logging_dir = str(folder)
    values = None if step else settings(config)
    accelerator.init_trackers(
        config.run.tracker_project, config=values, init_kwargs=_tracker_options(config, accelerator, step)
    )
    try:
        yield
    finally:
        for tracker in accelerator.trackers:
            tracker.finish()
        accelerator.trackers = []


def settings(config: RunConfig) -> dict[str, Any]:
    """A run as flat names and values that every tracker takes."""
    values: dict[str, Any] = {}
    for group, members in config.to_dict().items():
        for name, value in members.items():
            values[f"{group}.{name}"] = value if isinstance(value, int | float | str) else str(value)
    return values


def _tracker_options(config: RunConfig, accelerator: Accelerator, step: int) -> dict[str, dict[str, Any]]:
    """Options by tracker, so that a run that goes on is one run there too."""
    if not accelerator.is_main_process:
        return {}
    path = Path(config.run.output_dir) / "logs" / "run_id.txt"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(uuid.uuid4().hex[:8], encoding="utf-8")
    own = path.read_text(encoding="utf-8").strip()
    name = f"{Path(config.run.output_dir).resolve().name}-{own}"
    return {
        "tensorboard": {"purge_step": step + 1} if step else {},
        "trackio": {"name": name, "resume": "allow"},
        "wandb": {"name": name, "id": own, "resume": "allow"},
    }


class Screen(Protocol):
    """What stands on the screen."""

    def open(self, step: int) -> Any:
        """A block around the run, which starts at a step."""

    def show(self, line: dict[str, Any]) -> None:
        """A new line of the log."""

    def advance(self, step: int) -> None:
        """A step is done."""


def make_screen(total_steps: int, console: Console | None = None) -> Screen:
    """A live table on a terminal, lines elsewhere; both on standard error."""
    console = console or Console(stderr=True)
    return LiveTable(total_steps, console) if console.is_terminal else PlainLines(total_steps, console)


class PlainLines:
    """
    A line of text for each line of the log.

    Args:
        total_steps (`int`):
            Steps of the run.
        console (`Console`):
            Where they go.
    """

    def __init__(self, total_steps: int, console: Console):
        self.total_steps, self.console = total_steps, console

    @contextmanager
    def open(self, step: int) -> Iterator[None]:
        """Nothing to open."""
        yield

    def show(self, line: dict[str, Any]) -> None:
        """Write the line."""
        parts = [f"step {line['step']}/{self.total_steps}", f"epoch {line['epoch']}"]
        parts += [f"{name} {text}" for name, text in shown_values(line).items()]
        self.console.print("  ".join(parts), soft_wrap=True, highlight=False, markup=False)

    def advance(self, step: int) -> None:
        """Only lines of the log are told."""


class LiveTable:
    """
    A bar and a table that stay in their place: every value's latest and first figure.

    It is drawn in the thread that trains, between steps. Nothing of it goes on in processes that are forked meanwhile.

    Args:
        total_steps (`int`):
            Steps of the run.
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
        self.live = Live(get_renderable=self.render, console=console, auto_refresh=False)
        self.drawn = 0.0

    @contextmanager
    def open(self, step: int) -> Iterator[None]:
        """Keep the table on the screen, starting at a step."""
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
        """Take over the values of a line."""
        values = {"epoch": str(line["epoch"])} | shown_values(line)
        self.first = values | self.first
        self.latest |= values
        self.live.refresh()

    def advance(self, step: int) -> None:
        """Move the bar."""
        self.bar.update(self.task, completed=step)
        now = time.perf_counter()
        if now - self.drawn > REFRESH_SECONDS:
            self.drawn = now
            self.live.refresh()

    def render(self) -> Group:
        """What is drawn."""
        table = Table("", "now", "first", box=None, pad_edge=False)
        for name, text in self.latest.items():
            table.add_row(name, text, f"[dim]{self.first[name]}[/dim]")
        return Group(self.bar, table)


def shown_values(line: Mapping[str, Any]) -> dict[str, str]:
    """Values of a line as short text: `loss`, `validation top1`."""
    texts = {}
    for name, value in flat_values(line).items():
        if name != "epoch":
            words = name.removeprefix("train/").replace("/", " ").replace("_", " ")
            texts[words] = f"{value:.4g}" if isinstance(value, int | float) else str(value)
    return texts
