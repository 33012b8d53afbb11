"""
The one training loop. It knows a method only by its `forward(batch)`, the data only as a stream of batches, and runs
on whatever `accelerate launch` starts.

A SIGTERM (a cluster taking the machine back) saves a checkpoint after the step it comes in, and ends the run.

Processes may run out of videos at different times (uneven shares, unreadable files). So before each step they add up
how many clips they bring. A process without any takes part with weight 0, the loss is the mean over the clips of all
processes, and the epoch ends when nobody has any left: nothing hangs, nothing is seen twice, nothing is left out.
"""

import json
import math
import os
import shutil
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from tqdm.auto import tqdm
from transformers import PreTrainedModel
from transformers.utils import logging

from .arguments import OptimizationArguments, RunConfig
from .checkpointing import (
    Checkpoint,
    list_checkpoints,
    load_checkpoint,
    replace_tensors,
    save_checkpoint,
)
from .optimization import LearningRates, scaled_learning_rates, set_learning_rate
from .schedules import cosine_with_warmup
from .sharding import arrange_weights
from .sources import stable_hash
from .streaming import BadVideoLedger, Batch, ClipStream
from .tasks import Task


logger = logging.get_logger(__name__)

FP16_OVERFLOWS = 24  # steps in a row that loss scaling may skip while it looks for its scale

BatchPreparation = Callable[[dict[str, torch.Tensor], torch.device], dict[str, torch.Tensor]]
Validation = Callable[[PreTrainedModel], dict[str, float]]


@dataclass
class FitResult:
    """
    A finished run.

    Args:
        model (`PreTrainedModel`):
            The trained model: the last weights, their moving average (`ema_decay`), or the best ones (`keep_best`).
        history (`list[dict]`):
            The lines of `logs/metrics.jsonl`.
        steps (`int`):
            Optimiser steps done.
        epochs (`int`):
            Epochs done, a last incomplete one included.
        seconds (`float`):
            Duration, of this start only.
        bad_videos (`int`):
            Training videos this process could not read, over all epochs.
    """

    model: PreTrainedModel
    history: list[dict[str, Any]]
    steps: int
    epochs: int
    seconds: float
    bad_videos: int


@dataclass
class Plan:
    """The length of a run, known before it starts."""

    steps_per_epoch: int | None
    total_steps: int
    warmup_steps: int
    rates: LearningRates

    def learning_rate(self, step: int) -> float:
        """Learning rate of a step, before each group's factor."""
        return cosine_with_warmup(step, self.total_steps, self.warmup_steps, self.rates.peak, self.rates.final)


def make_plan(config: RunConfig, stream: ClipStream) -> Plan:
    """
    Count the steps of a run.

    Args:
        config ([`RunConfig`]):
            The run.
        stream ([`ClipStream`]):
            The data, as this process sees it.
    """
    return count_steps(config.optimization, [stream.num_batches(rank) for rank in range(stream.world)])


def count_steps(arguments: OptimizationArguments, batches: list[int | None]) -> Plan:
    """
    Count the steps of a run.

    Args:
        arguments ([`OptimizationArguments`]):
            The run's.
        batches (`list[int | None]`):
            Batches an epoch of each process, `None` where its stream does not say.
    """
    world = len(batches)
    counted = [count for count in batches if count is not None]
    per_epoch = math.ceil(max(counted) / arguments.accumulation) if len(counted) == world else None
    if per_epoch is None and arguments.max_steps is None:
        raise ValueError("`max_steps` is needed: this stream does not say how many clips it has")
    if per_epoch == 0:
        raise ValueError(f"`batch_size` {arguments.batch_size} with `drop_last` leaves no full batch")
    total = arguments.max_steps or arguments.epochs * (per_epoch or 0)
    warmup = arguments.warmup_steps
    if warmup is None:
        if arguments.warmup_epochs and per_epoch is None:
            raise ValueError("`warmup_steps` is needed: this stream does not say how many clips an epoch has")
        warmup = round(arguments.warmup_epochs * (per_epoch or 0))
    rates = scaled_learning_rates(arguments, world)
    return Plan(per_epoch, total, min(warmup, total), rates)


def fit(
    task: Task,
    stream: ClipStream,
    config: RunConfig,
    *,
    accelerator: Accelerator,
    prepare_batch: BatchPreparation,
    ledger: BadVideoLedger,
    validate: Validation | None = None,
) -> FitResult:
    """
    Train a method.

    Args:
        task ([`Task`]):
            The method with its model.
        stream ([`ClipStream`]):
            This process's batches.
        config ([`RunConfig`]):
            `optimization` and `run` are read.
        accelerator (`Accelerator`):
            Devices and processes; neither stream nor task must have been prepared with it.
        prepare_batch (`Callable[[dict, torch.device], dict]`):
            Moves a batch's tensors to the device and makes the task's input of them.
        ledger ([`BadVideoLedger`]):
            The one that the stream reports unreadable videos to.
        validate (`Callable[[PreTrainedModel], dict[str, float]]`, *optional*):
            Measures the model; all processes call it together.

    Returns:
        [`FitResult`]
    """
    return _Run(task, stream, config, accelerator, prepare_batch, ledger, validate).run()


@dataclass
class _Progress:
    """Where a run stands; what a checkpoint keeps beside the tensors."""

    step: int = 0
    epoch: int = 0
    position: int = 0
    nonfinite: int = 0
    best: float | None = None
    sums: dict[str, float] = field(default_factory=dict)


class _Run:
    def __init__(
        self,
        task: Task,
        stream: ClipStream,
        config: RunConfig,
        accelerator: Accelerator,
        prepare_batch: BatchPreparation,
        ledger: BadVideoLedger,
        validate: Validation | None,
    ):
        self.stream, self.config, self.accelerator = stream, config, accelerator
        self.prepare_batch, self.validate = prepare_batch, validate
        self.ledger = ledger
        self.plan = make_plan(config, stream)
        self.folder = Path(config.run.output_dir)
        self.log = _MetricsLog(self.folder / "logs" / "metrics.jsonl", accelerator.is_main_process)
        self.weights = arrange_weights(accelerator, task, config.optimization)
        self.task = self.weights.task
        if config.model.compile:
            self.weights.module.model.compile()
        self.progress = _Progress()
        self.sums: dict[str, torch.Tensor | float] = defaultdict(float)
        self.template: Batch | None = None
        self.window = _Window()
        self.stopping = threading.Event()
        self.told_to_stop = False

    def run(self) -> FitResult:
        started = time.perf_counter()
        self._begin()
        with (
            noticing_sigterm() as self.stopping,
            tqdm(
                total=self.plan.total_steps,
                initial=self.progress.step,
                desc="training",
                disable=not (self.config.run.progress and self.accelerator.is_main_process),
            ) as bar,
        ):
            while not self._finished():
                reached_the_end = self._train_epoch(bar)
                if self.sums:
                    self._log_window()
                if reached_the_end:
                    self.progress.epoch += 1
                    self.progress.position = 0
                self._end_epoch()
        model = self._best_model()
        seconds = time.perf_counter() - started
        progress = self.progress
        epochs = progress.epoch + (progress.position > 0)
        return FitResult(model, self.log.lines, progress.step, epochs, seconds, self.ledger.lines)

    def _finished(self) -> bool:
        arguments, progress = self.config.optimization, self.progress
        if arguments.max_steps is not None:
            return progress.step >= arguments.max_steps
        return progress.epoch >= arguments.epochs

    def _train_epoch(self, bar: Any) -> bool:
        """Train to the end of the epoch, and say whether it was reached (else the run's last step was)."""
        self.task.train()
        start = self.progress.position
        if start == 0:
            self.ledger.begin(self.progress.epoch)
        batches = self.stream.epoch(self.progress.epoch, start)
        before = self.progress.step
        while not self._finished():
            self.window.wait()
            batch_group = self._next(batches)
            self.window.work()
            num_clips = self._agree(batch_group)
            if num_clips == 0:
                if self.told_to_stop:
                    self._stop()
                if self.progress.step == before and start == 0:
                    raise RuntimeError(f"None of the training videos can be read; see {self.ledger.path}")
                return True
            self._step(batch_group, num_clips)
            bar.update()
            self._after_step(bar, num_clips)
        return False

    def _next(self, batches: Iterator[Batch]) -> list[Batch]:
        """The batches of a step; none where a SIGTERM ended the decoding workers along with the run."""
        try:
            batch_group = list(islice(batches, self.config.optimization.accumulation))
        except RuntimeError:
            if not self.stopping.is_set():
                raise
            return []
        self.progress.position = self.stream.position
        return batch_group

    def _agree(self, batch_group: list[Batch]) -> int:
        """How many clips all processes bring to this step; stops the run when too many videos were unreadable."""
        clips = sum(len(batch) for batch in batch_group)
        counts = [clips, self.progress.position, self.ledger.count, int(self.stopping.is_set())]
        if self.stream.world > 1:
            total = torch.tensor(counts, dtype=torch.long, device=self.accelerator.device)
            counts = self.accelerator.reduce(total, "sum").tolist()
        self.ledger.judge(bad=counts[2], read=counts[1], epoch_size=self.stream.source.num_samples)
        self.told_to_stop = counts[3] > 0  # all processes know of a signal that came to one of them
        return counts[0]

    def _step(self, batch_group: list[Batch], num_clips: int) -> None:
        """One optimiser step over the mean loss of the clips that all processes bring."""
        run, world = self.config.run, self.stream.world
        torch.manual_seed(stable_hash(f"{run.seed}/{self.progress.step}/{self.accelerator.process_index}") >> 1)
        set_learning_rate(self.weights.optimizer, self.plan.learning_rate(self.progress.step))
        passes = list(self._passes(batch_group))
        for index, (batch, clips) in enumerate(passes):
            last = index == len(passes) - 1
            with self.weights.backward_pass(last) as backward:
                outputs = self.task(self.prepare_batch(batch.rows, self.accelerator.device))
                backward(outputs["loss"] * (clips * world / num_clips))
            for name, value in outputs.items():
                self.sums[name] = self.sums[name] + value.detach().float() * clips
        self.sums["clips"] = self.sums["clips"] + sum(clips for _, clips in passes)
        self._count_step(self.weights.step(), batch_group)

    def _passes(self, batch_group: list[Batch]) -> Iterator[tuple[Batch, int]]:
        """Batches with the number of clips that count; where processes wait for each other, as many as they have."""
        for batch in batch_group:
            self.template = batch
            yield batch, len(batch)
        missing = self.config.optimization.accumulation - len(batch_group) if self.stream.world > 1 else 0
        for _ in range(missing):
            if self.template is None:
                raise RuntimeError(
                    f"Process {self.stream.rank} has no readable training video, so {self.stream.world} processes are "
                    f"too many for this data"
                )
            yield self.template, 0

    def _count_step(self, norm: torch.Tensor, batch_group: list[Batch]) -> None:
        """Go on after a step; after too many whose gradient was not finite, stop the run."""
        self.progress.step += 1
        if math.isfinite(norm.item()):
            self.progress.nonfinite = 0
            self.sums["grad_norm"] = self.sums["grad_norm"] + norm.detach().float()
            self.sums["finite_steps"] = self.sums["finite_steps"] + 1
            self.weights.update_average()
            return
        self.progress.nonfinite += 1
        ids = [name for batch in batch_group for name in batch.ids]
        self.log.write_nonfinite(self.progress.step, self.stream.rank, ids)
        allowed = FP16_OVERFLOWS if self.accelerator.scaler is not None else self.config.run.nonfinite_limit
        if self.progress.nonfinite >= allowed:
            raise FloatingPointError(
                f"The gradient was not finite in {self.progress.nonfinite} steps in a row, last in step "
                f"{self.progress.step} with the clips {', '.join(ids)}: lower `learning_rate`, set `clip_grad`, or "
                f"use `mixed_precision` bf16; all such steps are in {self.folder / 'logs'}"
            )

    def _after_step(self, bar: Any, num_clips: int) -> None:
        run, step = self.config.run, self.progress.step
        self.window.clips += num_clips
        if step % run.log_every == 0:
            line = self._log_window()
            bar.set_postfix(loss=f"{line['loss']:.3f}", wait=f"{line['data_wait']:.0%}")
        if self.told_to_stop:
            self._stop()
        if run.save_steps and step % run.save_steps == 0:
            self._save()

    def _stop(self) -> NoReturn:
        if not self.weights.resumes:
            raise SystemExit(f"Told to stop (SIGTERM) after step {self.progress.step}; nothing is saved")
        self._save()
        raise SystemExit(f"Told to stop (SIGTERM): step {self.progress.step} is saved, `resume` goes on from there")

    def _log_window(self) -> dict[str, Any]:
        """Average over all steps and processes since the last line."""
        names = sorted(self.sums)
        values = torch.tensor([float(self.sums[name]) for name in names], dtype=torch.float64)
        if self.stream.world > 1:
            on_device = values.float().to(self.accelerator.device)  # not every accelerator has float64
            values = self.accelerator.reduce(on_device, "sum").double().cpu()
        sums = dict(zip(names, values.tolist()))
        clips, steps = sums.pop("clips"), sums.pop("finite_steps", 0.0)
        norm = sums.pop("grad_norm", 0.0) / steps if steps else math.nan
        line: dict[str, Any] = {"step": self.progress.step, "epoch": self.progress.epoch}
        line |= {name: value / clips for name, value in sums.items()}
        line |= {"grad_norm": norm, "learning_rate": self.plan.learning_rate(self.progress.step - 1)}
        line |= self.window.close()
        self.sums.clear()
        self.log.write(line)
        return line

    def _end_epoch(self) -> None:
        run, finished = self.config.run, self._finished()
        if self.validate is not None and run.eval_every and (finished or self.progress.epoch % run.eval_every == 0):
            self._validate(self.validate)
        if run.save_every and (finished or self.progress.epoch % run.save_every == 0):
            self._save()
        self.window = _Window()

    def _validate(self, validate: Validation) -> None:
        model = self.weights.model()
        metrics = validate(model)
        self.log.write({"step": self.progress.step, "epoch": self.progress.epoch, "validation": metrics})
        name = self.config.run.best_metric or next(iter(metrics))
        if name not in metrics:
            raise ValueError(f"`best_metric` {name!r} is not among the validation's {', '.join(metrics)}")
        if self.progress.best is None or metrics[name] > self.progress.best:
            self.progress.best = metrics[name]
            if self.config.run.keep_best and self.accelerator.is_main_process:
                self._best_path.parent.mkdir(parents=True, exist_ok=True)
                replace_tensors(self._best_path, model.state_dict())

    @property
    def _best_path(self) -> Path:
        return self.folder / "checkpoints" / "best.safetensors"

    def _best_model(self) -> PreTrainedModel:
        model = self.weights.model()
        self.accelerator.wait_for_everyone()
        if self.config.run.keep_best and self._best_path.exists():
            model.load_state_dict(load_file(self._best_path))
        return model.eval()

    def _save(self) -> None:
        """Write a checkpoint from which the run goes on exactly as if it had not stopped."""
        parts, groups = self.weights.parts()
        progress = self.progress
        state = {"epoch": progress.epoch, "nonfinite": progress.nonfinite, "best": progress.best, "groups": groups}
        if self.accelerator.scaler is not None:
            state["scaler"] = self.accelerator.scaler.state_dict()
        sums = {name: float(value) for name, value in self.sums.items()}
        own = {"position": progress.position, "ledger": self.ledger.state_dict(), "sums": sums}
        save_checkpoint(
            self.folder / "checkpoints",
            Checkpoint(progress.step, parts, state, own),
            keep=self.config.run.keep_checkpoints,
            rank=self.stream.rank,
            world=self.stream.world,
            agree=self._all_agree,
        )

    def _all_agree(self, yes: bool) -> bool:
        """Whether all processes say yes; they wait for each other."""
        if self.stream.world == 1:
            return yes
        no = torch.tensor(int(not yes), device=self.accelerator.device)
        return int(self.accelerator.reduce(no, "sum")) == 0

    def _begin(self) -> None:
        run, folder = self.config.run, self.folder / "checkpoints"
        checkpoints = list_checkpoints(folder)
        if not self.weights.resumes and (run.save_every or run.save_steps or run.resume):
            raise ValueError(
                "A run under DeepSpeed cannot be taken up again: set `save_every` to 0 and neither `save_steps` nor "
                "`resume`, or use FSDP2 (examples/accelerate/fsdp2.yaml), which shares out as much"
            )
        if run.resume and checkpoints:
            self._resume(checkpoints[-1])
            return
        if checkpoints and not run.overwrite:
            raise ValueError(
                f"`output_dir` {str(self.folder)!r} holds the checkpoints of a run: give `resume` to go on with it, "
                "`overwrite` to start over, or another folder"
            )
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(self.folder / "logs", ignore_errors=True)
        self.accelerator.wait_for_everyone()

    def _resume(self, path: Path) -> None:
        loaded = load_checkpoint(path, self.stream.rank, self.stream.world)
        logger.warning(f"Going on from {path}")
        self.weights.load(loaded.tensors, loaded.state["groups"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(loaded.state["scaler"])
        self.ledger.load_state_dict(loaded.rank_state["ledger"])
        self.sums.update(loaded.rank_state["sums"])
        state, position = loaded.state, loaded.rank_state["position"]
        self.progress = _Progress(loaded.step, state["epoch"], position, state["nonfinite"], state["best"])
        self.log.read_to(loaded.step)
        self.accelerator.wait_for_everyone()  # all have read what the first writes anew
        self.log.rewrite()


@contextmanager
def noticing_sigterm() -> Iterator[threading.Event]:
    """
    An event that is set when this process is told to end, instead of ending it there and then. Outside of the main
    thread, where signals cannot be handled, it never is.
    """
    noticed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield noticed
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: noticed.set())
    try:
        yield noticed
    finally:
        signal.signal(signal.SIGTERM, before)


class _Window:
    """Clock of the steps since the last line of the log: how long they took, and how much was waiting for data."""

    def __init__(self):
        self.clips = 0
        self.waited = 0.0
        self.started = self.mark = time.perf_counter()

    def wait(self) -> None:
        self.mark = time.perf_counter()

    def work(self) -> None:
        self.waited += time.perf_counter() - self.mark

    def close(self) -> dict[str, float]:
        now = time.perf_counter()
        seconds = max(now - self.started, 1e-9)
        figures = {"clips_per_second": round(self.clips / seconds, 2), "data_wait": round(self.waited / seconds, 4)}
        self.clips, self.waited, self.started = 0, 0.0, now
        return figures


class _MetricsLog:
    """Lines of JSON, kept in memory too; only the main process writes the file."""

    def __init__(self, path: Path, writes: bool):
        self.path, self.writes = path, writes
        self.lines: list[dict[str, Any]] = []

    def write(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        if self.writes:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def write_nonfinite(self, step: int, rank: int, ids: list[str]) -> None:
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
