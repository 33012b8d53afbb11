"""Schedules of a run as functions of the step, without state that a checkpoint would have to keep."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .arguments import OptimizationArguments
from .optimization import LearningRates, scaled_learning_rates


def cosine_with_warmup(
    step: float, total_steps: int, warmup_steps: int, peak: float, final: float, peak_after_warmup: bool = False
) -> float:
    """
    Learning rate of a step: linear warm-up from 0, then half a cosine.

    As in VideoMAE's official code, the warm-up reaches the peak on its own last step, and the cosine starts at the
    peak and stops one step short of `final`.

    Args:
        step (`float`):
            Optimiser step, from 0; steps beyond the last keep `final`.
        total_steps (`int`):
            Steps of the run.
        warmup_steps (`int`):
            Steps of the warm-up, included in `total_steps`.
        peak (`float`):
            Highest learning rate.
        final (`float`):
            Learning rate at the end.
        peak_after_warmup (`bool`, *optional*, defaults to `False`):
            Reach the peak one step later, on the first step of the cosine, as MoCo v3's code and timm do.

    Returns:
        `float`: the learning rate.

    Raises:
        ValueError: `warmup_steps` is negative or above `total_steps`.
    """
    if not 0 <= warmup_steps <= total_steps:
        raise ValueError(f"`warmup_steps` must be between 0 and `total_steps` ({total_steps}), got {warmup_steps}")
    if step < warmup_steps and peak_after_warmup:
        return peak * step / warmup_steps
    if step < warmup_steps:
        return _warm_up(step, warmup_steps, peak)
    if step >= total_steps:
        return final
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return final + 0.5 * (peak - final) * (1 + math.cos(math.pi * progress))


def _warm_up(step: float, warmup_steps: int, peak: float) -> float:
    """From 0 at the first step to the peak at the last."""
    return peak * step / (warmup_steps - 1) if warmup_steps > 1 else 0.0


def poly_with_warmup(
    step: float, total_steps: int, warmup_steps: int, peak: float, final: float, power: float = 1.0
) -> float:
    """
    Learning rate of a step: polynomial decay over all steps, which a warm-up multiplies by a factor that rises
    linearly from 0 to 1 (MMCV).

    Args:
        step (`float`):
            Optimiser step, from 0; steps beyond the last keep `final`.
        total_steps (`int`):
            Steps of the run.
        warmup_steps (`int`):
            Steps of the warm-up, included in `total_steps`.
        peak (`float`):
            Learning rate of the first step without a warm-up.
        final (`float`):
            Learning rate at the end.
        power (`float`, *optional*, defaults to 1.0):
            Exponent of the decay; 1 is linear.

    Returns:
        `float`: the learning rate.
    """
    rate = final + (peak - final) * max(1 - step / total_steps, 0.0) ** power
    return rate * step / warmup_steps if step < warmup_steps else rate


def steps_with_warmup(
    step: int, warmup_steps: int, peak: float, milestones: Sequence[int], factor: float = 0.1
) -> float:
    """
    Learning rate of a step: linear warm-up from 0 as in [`cosine_with_warmup`], then the peak, multiplied by a factor
    at each milestone.

    Args:
        step (`int`):
            Optimiser step, from 0.
        warmup_steps (`int`):
            Steps of the warm-up.
        peak (`float`):
            Highest learning rate.
        milestones (`Sequence[int]`):
            Steps counted from the end of the warm-up.
        factor (`float`, *optional*, defaults to 0.1):
            The factor.

    Returns:
        `float`: the learning rate.
    """
    if step < warmup_steps:
        return _warm_up(step, warmup_steps, peak)
    return peak * factor ** sum(step - warmup_steps >= milestone for milestone in milestones)


def cosine_to_one(step: float, total_steps: float, start: float) -> float:
    """
    Momentum of a target branch: half a cosine from `start` at the first step to exactly 1 at `total_steps`.

    Args:
        step (`float`):
            Optimiser step, from 0. Fractional epochs work too, with the number of epochs as `total_steps`.
        total_steps (`float`):
            Steps of the run.
        start (`float`):
            Share of the target that the first step keeps.

    Returns:
        `float`: the momentum.
    """
    if step >= total_steps:
        return 1.0
    return 1.0 - (1.0 - start) * (1 + math.cos(math.pi * step / total_steps)) / 2


@dataclass(frozen=True)
class StepSchedule:
    """
    The steps of a run and their learning rates, known before it starts.

    Args:
        steps_per_epoch (`int` or `None`):
            Optimiser steps of an epoch; `None` if the number of clips is unknown.
        total_steps (`int`):
            Optimiser steps of the run.
        warmup_steps (`int`):
            Steps of the warm-up, included in `total_steps`.
        rates ([`LearningRates`]):
            Highest and last learning rate.
        peak_after_warmup (`bool`, *optional*, defaults to `False`):
            See [`cosine_with_warmup`].
        decay (`str`, *optional*, defaults to `"cosine"`):
            `"cosine"`, see [`cosine_with_warmup`], `"poly"`, see [`poly_with_warmup`], or `"milestones"`, see
            [`steps_with_warmup`].
        power (`float`, *optional*, defaults to 1.0):
            Exponent of `"poly"`.
        milestones (`tuple[int, ...]`, *optional*, defaults to `()`):
            Steps of `"milestones"`, counted from the start of the run.
    """

    steps_per_epoch: int | None
    total_steps: int
    warmup_steps: int
    rates: LearningRates
    peak_after_warmup: bool = False
    decay: str = "cosine"
    power: float = 1.0
    milestones: tuple[int, ...] = ()

    def learning_rate(self, step: int) -> float:
        """
        Learning rate of a step, before the factor of each parameter group.

        Args:
            step (`int`):
                Optimiser step, from 0.

        Returns:
            `float`: the learning rate.
        """
        peak, final = self.rates.peak, self.rates.final
        if self.decay == "poly":
            return poly_with_warmup(step, self.total_steps, self.warmup_steps, peak, final, self.power)
        if self.decay == "milestones":
            after = [milestone - self.warmup_steps for milestone in self.milestones]
            return steps_with_warmup(step, self.warmup_steps, peak, after)
        return cosine_with_warmup(step, self.total_steps, self.warmup_steps, peak, final, self.peak_after_warmup)

    def constant_rate(self, step: int) -> float:
        """
        Learning rate of a step for parameters that keep the peak after the warm-up.

        Args:
            step (`int`):
                Optimiser step, from 0.

        Returns:
            `float`: the learning rate.
        """
        return self.learning_rate(step) if step < self.warmup_steps else self.rates.peak


def schedule_steps(arguments: OptimizationArguments, batches: Sequence[int | None]) -> StepSchedule:
    """
    Count the steps of a run.

    Args:
        arguments ([`OptimizationArguments`]):
            Epochs or steps, warm-up, batch and learning rates.
        batches (`Sequence[int | None]`):
            Batches of an epoch in each process; `None` if unknown.

    Returns:
        [`StepSchedule`]

    Raises:
        ValueError: `max_steps` or `warmup_steps` is missing while the length of an epoch is unknown, or an epoch has
            no full batch.
    """
    world = len(batches)
    counted = [count for count in batches if count is not None]
    per_epoch = math.ceil(max(counted) / arguments.accumulation) if len(counted) == world else None
    if per_epoch is None and arguments.max_steps is None:
        raise ValueError("`max_steps` is needed: the number of clips in this data is unknown")
    if per_epoch == 0:
        parts = f" for each of {world} processes" if world > 1 else ""
        raise ValueError(f"`batch_size` {arguments.batch_size} with `drop_last` leaves no full batch{parts}")
    total = arguments.max_steps or arguments.epochs * (per_epoch or 0)
    warmup = arguments.warmup_steps
    if warmup is None:
        if arguments.warmup_epochs and per_epoch is None:
            raise ValueError("`warmup_steps` is needed: the number of clips in an epoch is unknown")
        warmup = round(arguments.warmup_epochs * (per_epoch or 0))
    rates = scaled_learning_rates(arguments, world)
    decay, power = arguments.schedule, arguments.poly_power
    if arguments.milestones and per_epoch is None:
        raise ValueError("`milestones` need an epoch of known length: the number of clips in this data is unknown")
    places = tuple(epoch * (per_epoch or 0) for epoch in arguments.milestones)
    return StepSchedule(per_epoch, total, min(warmup, total), rates, arguments.peak_after_warmup, decay, power, places)


def fitting_ema_decay(arguments: OptimizationArguments, total_steps: int) -> float | None:
    """
    Decay of the average of the weights that fits the length of a run: after `n` steps the share of the first weights
    in the average is `decay ** n`.

    Args:
        arguments ([`OptimizationArguments`]):
            `ema_decay` and `ema_start_share`.
        total_steps (`int`):
            Optimiser steps of the run.

    Returns:
        `float` or `None`: `ema_decay`, or the largest decay with which the first weights keep no more than
        `ema_start_share`; `None` without an average.
    """
    if arguments.ema_decay is None or arguments.ema_start_share is None:
        return arguments.ema_decay
    return min(arguments.ema_decay, arguments.ema_start_share ** (1 / total_steps))
