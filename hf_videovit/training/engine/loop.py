"""
The training loop. It takes a task with a `forward(batch)` and a stream of batches, and runs in the processes that
`accelerate launch` starts.

After a SIGTERM, as clusters send before they reclaim a machine, or Ctrl-C, the loop finishes the step, saves a
checkpoint and ends the run.

A step takes the next slice of the order of the epoch, whatever the number of processes is, and its random numbers are
those of its batches. So a run can go on with another number of processes. Unreadable videos are missing from their
step, and the last step of an epoch may be short. Before each step the processes therefore sum up their numbers of
clips. A process without clips takes part with weight 0, the loss is the mean over the clips of all processes (or over
what the task counts instead), and the epoch ends when no process has batches left. So no process waits for another,
and no video is repeated or skipped.

Nothing in a step of the loop waits for the device. Losses and gradient norms stay there and are read when the log is
written, a step whose gradient is not finite is skipped by the device itself, and processes sum their numbers over the
CPU.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn, cast

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel
from transformers.utils import logging

from ..arguments import OptimizationArguments, RunConfig
from ..data.bad_videos import BadVideoLedger
from ..data.sources import stable_hash
from ..data.streaming import Batch, BatchStream
from ..optimization import set_learning_rate
from ..schedules import fitting_ema_decay, schedule_steps
from ..tasks import Task
from .checkpointing import (
    CheckpointWriter,
    TrainingCheckpoint,
    check_files,
    list_checkpoints,
    read_rank_state,
    read_state,
    read_tensors,
    replace_tensors,
)
from .devices import BatchCopies, BatchPreparation, seed_device, sum_over_hosts
from .reporting import Clock, RunReport
from .resuming import batch_fields, clips_per_step
from .run_folder import RunFolder, open_run_folder
from .sharding import arrange_weights
from .stopping import StopRequest, watch_signals


logger = logging.get_logger(__name__)

NONFINITE_STEPS = 3  # consecutive steps with a gradient that is not finite, after which a run stops
FP16_OVERFLOWS = 24  # the same with loss scaling, which skips such steps while it searches for its scale
EMA_WARNING = 0.1  # share of the first weights in the average at the end from which a warning is given
EMA_SHARE = 0.03  # the share after the 3,500 steps of ActionFormer on THUMOS14 with a decay of 0.999
LOWER_IS_BETTER = {"loss"}  # metrics of a validation

Validation = Callable[[PreTrainedModel], dict[str, float]]


@dataclass(frozen=True)
class Observer:
    """
    A function that is called with the model at intervals, besides the validation: probes, pictures.

    Args:
        name (`str`):
            Name of its metrics in the log.
        look (`Callable[[PreTrainedModel, int], dict[str, float]]`):
            Takes the model (averaged with `ema_decay`) and the step, and returns metrics. All processes call it
            together. It must not change the model. The state of random number generators is restored after it. An
            empty result is not logged.
        epochs (`int`, *optional*, defaults to 1):
            Epochs between two calls; 0 for no calls at epochs. It is also called after the last epoch.
        steps (`int`, *optional*):
            Steps between further calls.
        at_start (`bool`, *optional*, defaults to `False`):
            Whether to call it before the first step, for comparison.
    """

    name: str
    look: Callable[[PreTrainedModel, int], dict[str, float]]
    epochs: int = 1
    steps: int | None = None
    at_start: bool = False


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
            Number of optimiser steps.
        epochs (`int`):
            Number of epochs, including an incomplete last one.
        seconds (`float`):
            Duration since the run was started or resumed.
        bad_videos (`int`):
            Training videos that this process could not read, over all epochs.
    """

    model: PreTrainedModel
    history: list[dict[str, Any]]
    steps: int
    epochs: int
    seconds: float
    bad_videos: int


def fit(
    task: Task,
    stream: BatchStream,
    config: RunConfig,
    *,
    accelerator: Accelerator,
    prepare_batch: BatchPreparation,
    ledger: BadVideoLedger,
    validate: Validation | None = None,
    observers: Sequence[Observer] = (),
    folder: RunFolder | None = None,
) -> FitResult:
    """
    Train a task.

    Args:
        task ([`Task`]):
            The model with its loss.
        stream ([`BatchStream`]):
            Batches of this process.
        config ([`RunConfig`]):
            The run. The groups `optimization` and `run` and the field `compile` are used. Checkpoints keep all fields.
        accelerator (`Accelerator`):
            Devices and processes. It must not have prepared the stream or the task.
        prepare_batch (`Callable[[dict, torch.device], dict]`):
            Moves the tensors of a batch to the device and turns them into the input of the task.
        ledger ([`BadVideoLedger`]):
            The ledger to which the stream reports unreadable videos.
        validate (`Callable[[PreTrainedModel], dict[str, float]]`, *optional*):
            Returns the metrics of a model. All processes call it together.
        observers (`Sequence[Observer]`, *optional*, defaults to `()`):
            Called with the model besides the validation.
        folder ([`RunFolder`], *optional*):
            The folder of the run if it is open. Opened by default.

    Returns:
        [`FitResult`]

    Raises:
        ValueError: the folder of the run cannot be used, or the run cannot be resumed.
    """
    with nullcontext(folder) if folder is not None else open_run_folder(config, accelerator):
        return _Run(task, stream, config, accelerator, prepare_batch, ledger, validate, observers).run()


@dataclass
class _Step:
    """A step whose figures are still on the device: the norm of its gradient, and each pass's outputs and items."""

    number: int
    ids: list[str]
    norm: torch.Tensor
    passes: list[tuple[dict[str, torch.Tensor], int]]


@dataclass
class _Progress:
    """The progress of a run, which a checkpoint keeps besides the tensors."""

    step: int = 0
    epoch: int = 0
    position: int = 0
    nonfinite: int = 0
    best: float | None = None
    stale: int = 0
    sums: dict[str, float] = field(default_factory=dict)


class _Run:
    def __init__(
        self,
        task: Task,
        stream: BatchStream,
        config: RunConfig,
        accelerator: Accelerator,
        prepare_batch: BatchPreparation,
        ledger: BadVideoLedger,
        validate: Validation | None,
        observers: Sequence[Observer] = (),
    ):
        self.stream, self.config, self.accelerator = stream, config, accelerator
        self.validate, self.observers = validate, observers
        self.ledger = ledger
        self.fingerprints = [source.fingerprint() for source in stream.sources]
        batches = [stream.num_batches(rank) for rank in range(stream.world)]
        self.schedule = schedule_steps(config.optimization, batches)
        self.folder = Path(config.run.output_dir)
        self.report = RunReport(config, accelerator, self.schedule.total_steps)
        self.weights = arrange_weights(accelerator, task, self._fitting_average())
        self.task = self.weights.task
        if config.model.compile:
            self.weights.module.model.compile()
        self.progress = _Progress()
        self.checkpoints = CheckpointWriter(
            self.folder / "checkpoints",
            keep=config.run.keep_checkpoints,
            rank=stream.rank,
            agree=self._all_agree,
            group=cast(Any, torch.distributed.new_group(backend="gloo")) if stream.world > 1 else None,
        )
        self.given_batch = batch_fields(config.to_dict())
        self.sums: dict[str, float] = defaultdict(float)
        self.unread: list[_Step] = []
        self.copies = BatchCopies(accelerator.device, prepare_batch)
        self.template: Batch | None = None
        self.window = Clock()
        self.num_bad = 0
        self.stopping = StopRequest()
        self.stop_requested = False

    def run(self) -> FitResult:
        started = time.perf_counter()
        self._begin()
        try:
            with watch_signals() as self.stopping, self.report.open(self.progress.step):
                self._train()
        finally:
            self.checkpoints.wait()
        self.checkpoints.finish()
        self.report.draw()
        model = self._best_model()
        seconds = time.perf_counter() - started
        progress = self.progress
        epochs = progress.epoch + (progress.position > 0)
        return FitResult(model, self.report.log.lines, progress.step, epochs, seconds, self.ledger.lines)

    def _train(self) -> None:
        self._observe_at(self.progress.step)
        while not self._finished():
            reached_the_end = self._train_epoch()
            if self.sums or self.unread:
                self._log_window()
            if reached_the_end:
                self.progress.epoch += 1
                self.progress.position = 0
            self._end_epoch()

    def _fitting_average(self) -> OptimizationArguments:
        """The arguments with a decay of the average that fits the run, or a warning that it does not."""
        arguments, steps = self.config.optimization, self.schedule.total_steps
        decay = fitting_ema_decay(arguments, steps)
        if decay is not None and decay**steps > EMA_WARNING and self.accelerator.is_main_process:
            logger.warning(
                f"`ema_decay` {decay:g} is too large for a run of {steps} steps: {decay**steps:.0%} of the averaged "
                f"weights will be those of the start. Lower it, or set `ema_start_share` to {EMA_SHARE:g}."
            )
        if arguments.ema_decay is not None and decay != arguments.ema_decay and self.accelerator.is_main_process:
            logger.warning(f"`ema_decay` is {decay:.5f} instead of {arguments.ema_decay:g}, which fits {steps} steps.")
        return replace(arguments, ema_decay=decay)

    def _finished(self) -> bool:
        arguments, progress, patience = self.config.optimization, self.progress, self.config.run.patience
        if patience is not None and progress.stale >= patience:
            return True
        if arguments.max_steps is not None:
            return progress.step >= arguments.max_steps
        return progress.epoch >= arguments.epochs

    def _train_epoch(self) -> bool:
        """Train to the end of the epoch or of the run. Returns whether the end of the epoch was reached."""
        self.task.train()
        start = self.progress.position
        if start == 0:
            self.ledger.begin(self.progress.epoch)
        batches = self.stream.epoch(self.progress.epoch, start)
        trained = False
        while not self._finished():
            self.window.wait()
            self.ledger.step = self.progress.step
            place, listed = self.progress.position, self.ledger.state_dict()
            batch_group = self._next(batches)
            self.window.work()
            num_batches, num_clips, num_items = self._agree(batch_group)
            if self.stop_requested:  # some processes may have no clips for this step, so it would differ
                self.progress.position = place
                self.ledger.load_state_dict(listed)
                self._stop()
            if num_batches == 0:
                if not trained and start == 0:
                    raise RuntimeError(f"No training video can be read; see {self.ledger.path}")
                return True
            if num_clips:
                self._step(batch_group, num_items)
            else:  # a slice without readable videos
                self.progress.step += 1
            trained = trained or num_clips > 0
            self._after_step(num_clips)
        return False

    def _next(self, batches: Iterator[Batch]) -> list[Batch]:
        """The batches of a step; none after a signal."""
        if self.stopping.is_set():
            return []
        batch_group = list(islice(batches, self.config.optimization.accumulation))
        self.progress.position = self.stream.position
        return batch_group

    def _agree(self, batch_group: list[Batch]) -> tuple[int, int, int]:
        """
        Numbers of batches, clips and items of the task of this step in all processes. Stops the run if too many videos
        were unreadable.
        """
        clips = sum(len(batch) for batch in batch_group)
        counts = [clips, self.stream.num_read(self.progress.position), self.ledger.count, int(self.stopping.is_set())]
        counts += [sum(map(self.weights.module.count, filter(len, batch_group))), len(batch_group)]
        if self.stream.world > 1:
            counts = sum_over_hosts(torch.tensor(counts)).tolist()
        self.ledger.judge(bad=counts[2], read=counts[1], epoch_size=self.stream.source.num_samples)
        self.num_bad = counts[2]
        self.stop_requested = counts[3] > 0  # a signal to one process stops all of them
        return counts[5], counts[0], counts[4]

    def _step(self, batch_group: list[Batch], num_items: int) -> None:
        """One optimiser step on the mean loss over the items of all processes, which are clips for most tasks."""
        run, world, step = self.config.run, self.stream.world, self.progress.step
        set_learning_rate(self.weights.optimizer, self.schedule.learning_rate(step), self.schedule.constant_rate(step))
        self.weights.module.begin_step(step, self.schedule.total_steps)
        passes, figures = list(self._passes(batch_group)), []
        first = self.stream.rank * self.config.optimization.accumulation
        for index, (batch, items) in enumerate(passes):
            seed_device(self.accelerator.device, stable_hash(f"{run.seed}/{step}/{first + index}") >> 1)
            last = index == len(passes) - 1
            with self.weights.backward_pass(last) as backward:
                outputs = self.task(self.copies.prepare(batch.rows))
                share = items * world / max(num_items, 1)
                backward(outputs["loss"] if share == 1 else outputs["loss"] * share)
            figures.append(({name: value.detach() for name, value in outputs.items()}, items))
        norm = self.weights.step().detach()
        self.progress.step += 1
        ids = [name for batch in batch_group for name in batch.ids]
        self.unread.append(_Step(self.progress.step, ids, norm, figures))

    def _passes(self, batch_group: list[Batch]) -> Iterator[tuple[Batch, int]]:
        """Batches with their numbers of items. All processes make equally many passes, the last ones with 0 items."""
        full = [batch for batch in batch_group if len(batch)]
        for batch in full:
            self.template = batch
            yield batch, self.weights.module.count(batch)
        missing = self.config.optimization.accumulation - len(full) if self.stream.world > 1 else 0
        for _ in range(missing):
            self.template = self.template or self.stream.example()
            if self.template is None:
                raise RuntimeError(f"Process {self.stream.rank} can read no training video; see {self.ledger.path}")
            yield self.template, 0

    def _read_steps(self) -> None:
        """Read the figures of all steps since the last reading, in one transfer, and count them."""
        steps, self.unread = self.unread, []
        scalars = [[step.norm, *(value for outputs, _ in step.passes for value in outputs.values())] for step in steps]
        if not steps:
            return
        values = iter(torch.stack([value.float() for of_step in scalars for value in of_step]).tolist())
        for step in steps:
            self._count_step(step, next(values))
            for outputs, items in step.passes:
                self.sums["items"] += items
                for name in outputs:
                    self.sums[name] += next(values) * items

    def _count_step(self, step: _Step, norm: float) -> None:
        """Count a step. Stops the run after too many steps whose gradient was not finite."""
        if math.isfinite(norm):
            self.progress.nonfinite = 0
            self.sums["grad_norm"] += norm
            self.sums["finite_steps"] += 1
            return
        self.progress.nonfinite += 1
        self.report.log.write_nonfinite(step.number, self.stream.rank, step.ids)
        allowed = FP16_OVERFLOWS if self.accelerator.scaler is not None else NONFINITE_STEPS
        if self.progress.nonfinite >= allowed:
            raise FloatingPointError(
                f"The gradient was not finite in {self.progress.nonfinite} consecutive steps, the last of which was "
                f"step {step.number} with the clips {', '.join(step.ids)}. Lower `learning_rate`, set `clip_grad`, "
                f"or set `mixed_precision` to bf16. All such steps are listed in {self.folder / 'logs'}."
            )

    def _after_step(self, num_clips: int) -> None:
        run, step = self.config.run, self.progress.step
        self.window.clips += num_clips
        self.report.advance(step)
        if step % run.log_every == 0:
            self._log_window()
        self._observe_at(step)
        if run.save_steps and step % run.save_steps == 0:
            self._save()

    def _stop(self) -> NoReturn:
        by = self.stopping.made_by or "a signal to another process"
        self._save()
        self.checkpoints.finish()
        raise SystemExit(f"Stopped by {by}; step {self.progress.step} is saved. Continue with `--resume`.")

    def _log_window(self) -> None:
        """Log averages over all steps and processes since the last line."""
        self._read_steps()
        if not self.sums:  # steps without readable videos only
            return
        sums = dict(sorted(self.sums.items()))
        if self.stream.world > 1:
            values = sum_over_hosts(torch.tensor(list(sums.values()), dtype=torch.float64))
            sums = dict(zip(sums, values.tolist()))
        items, steps = sums.pop("items"), sums.pop("finite_steps", 0.0)
        norm = sums.pop("grad_norm", 0.0) / steps if steps else math.nan
        line: dict[str, Any] = {"step": self.progress.step, "epoch": self.progress.epoch}
        line |= {name: value / max(items, 1) for name, value in sums.items()}
        line |= {"grad_norm": norm, "learning_rate": self.schedule.learning_rate(self.progress.step - 1)}
        line |= self.window.close() | {"bad_videos": self.num_bad}
        self.sums.clear()
        self.report.write(line)

    def _end_epoch(self) -> None:
        run, epoch = self.config.run, self.progress.epoch
        finished = self._finished()
        if self.validate is not None and run.eval_every and (finished or epoch % run.eval_every == 0):
            self._validate(self.validate)
            finished = self._finished()  # `patience` may have ended the run
        for observer in self.observers:
            if observer.epochs and (finished or epoch % observer.epochs == 0):
                self._observe(observer)
        if run.save_every and (finished or epoch % run.save_every == 0):
            self._save()
        self.window = Clock()

    def _observe_at(self, step: int) -> None:
        """Call the observers that are due at a step. A resumed run catches up on calls that its end prevented."""
        for observer in self.observers:
            if step % observer.steps == 0 if step and observer.steps else not step and observer.at_start:
                self._observe(observer)

    def _observe(self, observer: Observer) -> None:
        step = self.progress.step
        if self.report.has_line(observer.name, step):
            return
        device = self.accelerator.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            metrics = observer.look(self.weights.model(), step)
        if metrics:
            self.report.write({"step": step, "epoch": self.progress.epoch, observer.name: metrics})

    def _validate(self, validate: Validation) -> None:
        model, progress = self.weights.model(), self.progress
        metrics = validate(model)
        self.report.write({"step": progress.step, "epoch": progress.epoch, "validation": metrics})
        name = self.config.run.best_metric or next(iter(metrics))
        if name not in metrics:
            raise ValueError(f"`best_metric` must be one of {', '.join(metrics)}, got {name!r}")
        sign = -1 if name in LOWER_IS_BETTER else 1
        best = math.nan if progress.best is None else progress.best
        if not math.isnan(best) and not sign * metrics[name] > sign * best:  # also where the metric is not a number
            progress.stale += 1
            return
        progress.best, progress.stale = metrics[name], 0
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
            model.load_state_dict(read_tensors(self._best_path))
        return model.eval()

    def _save(self) -> None:
        """Write a checkpoint from which the run continues exactly as if it had not stopped."""
        self._read_steps()
        parts, groups = self.weights.parts()
        progress = self.progress
        state: dict[str, Any] = {
            "epoch": progress.epoch,
            "nonfinite": progress.nonfinite,
            "best": progress.best,
            "groups": groups,
        }
        config = self.config.to_dict()
        config["optimization"] |= self.given_batch
        state |= {"stale": progress.stale, "config": config, "data": self.fingerprints}
        state |= {"clips_per_step": clips_per_step(self.config.optimization, self.stream.world)}
        state |= {"position": self._agreed_position()}
        if self.accelerator.scaler is not None:
            state["scaler"] = self.accelerator.scaler.state_dict()
        own = {"ledger": self.ledger.state_dict(), "sums": dict(self.sums)}
        self.checkpoints.begin(TrainingCheckpoint(progress.step, parts, state, own, self.stream.world))

    def _agreed_position(self) -> int:
        """The position in the data. A process whose shards have ended no longer counts on."""
        if self.stream.world == 1:
            return self.progress.position
        positions = self.accelerator.gather(torch.tensor([self.progress.position], device=self.accelerator.device))
        return int(positions.max())

    def _check_data(self, earlier: list[str]) -> None:
        """Raise a ValueError if a position in the data of a checkpoint is another sample now."""
        if self.fingerprints != earlier:
            raise ValueError(
                "`resume` continues at a position in the training data, which has changed since: it was "
                f"{', '.join(earlier)}, is {', '.join(self.fingerprints)}. Restore the data, or start another run "
                "from the saved model (`checkpoint`)"
            )

    def _all_agree(self, yes: bool) -> bool:
        """Whether all processes pass `True`. They wait for each other."""
        if self.stream.world == 1:
            return yes
        no = torch.tensor(int(not yes), device=self.accelerator.device)
        return int(self.accelerator.reduce(no, "sum")) == 0

    def _begin(self) -> None:
        run, folder = self.config.run, self.folder / "checkpoints"
        checkpoints = list_checkpoints(folder)
        if run.resume and checkpoints:
            self._resume(checkpoints[-1])

    def _resume(self, path: Path) -> None:
        state, rank, world = read_state(path), self.stream.rank, self.stream.world
        earlier = state["config"]
        self.given_batch = batch_fields(earlier)
        clips, before = clips_per_step(self.config.optimization, world), state["clips_per_step"]
        divided = replace(self.config.optimization, **self.given_batch) if clips == before else None
        changes = (replace(self.config, optimization=divided) if divided else self.config).changed_fields(earlier)
        if clips != before and not changes:
            changes = [f"a step had {before} clips (`batch_size` x `accumulation` x processes), has {clips}"]
        if changes:
            raise ValueError(
                f"`resume` continues the run in `output_dir` {str(self.folder)!r}, which had other settings: "
                f"{'; '.join(changes)}. Restore them, or give another folder"
            )
        self._check_data(state["data"])
        if self.accelerator.is_main_process:
            logger.warning(f"Resuming from {path}")
        self._check_files(path)
        try:
            self.weights.load(path, state["groups"])
        except (ValueError, IndexError) as error:
            raise ValueError(f"Checkpoint {path} does not fit the model: {error}") from error
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if state["world"] == world:
            own = read_rank_state(path, rank)
            self.ledger.load_state_dict(own["ledger"])
            self.sums.update(own["sums"])
        else:
            self._take_over([read_rank_state(path, number) for number in range(state["world"])], state["step"])
        stale, position, step = state.get("stale", 0), state["position"], state["step"]
        self.progress = _Progress(step, state["epoch"], position, state["nonfinite"], state["best"], stale)
        self.report.log.read_to(step)
        self.accelerator.wait_for_everyone()  # all have read the file before the first process rewrites it
        self.report.log.rewrite()

    def _check_files(self, path: Path) -> None:
        """Raise a ValueError in all processes if a file of tensors is not the one that was written."""
        error = None
        try:
            check_files(path, self.stream.rank, self.stream.world)
        except ValueError as caught:
            error = caught
        if not self._all_agree(error is None):
            raise error or ValueError(f"A file of checkpoint {path} is damaged; see the error of another process")

    def _take_over(self, states: list[dict[str, Any]], step: int) -> None:
        """Take over sums and counts of another number of processes: the first process has them all."""
        self.ledger.take_over([state["ledger"] for state in states], step, self.stream.rank, self.stream.world)
        for name in {name for state in states for name in state["sums"]}:
            total = sum(state["sums"].get(name, 0.0) for state in states)
            self.sums[name] = total if self.accelerator.is_main_process else 0.0
