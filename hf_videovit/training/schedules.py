"""Learning rate as a function of the step: no state, so nothing to restore."""

import math


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
            Reach the peak one step later, with the cosine's first, as MoCo v3's code and timm do.

    Returns:
        `float`: the learning rate.
    """
    if not 0 <= warmup_steps <= total_steps:
        raise ValueError(f"`warmup_steps` must be between 0 and `total_steps` ({total_steps}), got {warmup_steps}")
    if step < warmup_steps and peak_after_warmup:
        return peak * step / warmup_steps
    if step < warmup_steps:
        return peak * step / (warmup_steps - 1) if warmup_steps > 1 else 0.0
    if step >= total_steps:
        return final
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return final + 0.5 * (peak - final) * (1 + math.cos(math.pi * progress))


def cosine_to_one(step: float, total_steps: float, start: float) -> float:
    """
    Momentum of a target branch: from `start` at the first step up half a cosine, to exactly 1 at `total_steps`.

    Args:
        step (`float`):
            Optimiser step, from 0; or epochs, with their fractions, of as many in all.
        total_steps (`float`):
            Steps of the run.
        start (`float`):
            Share of the target that stays in the first step.
    """
    if step >= total_steps:
        return 1.0
    return 1.0 - (1.0 - start) * (1 + math.cos(math.pi * step / total_steps)) / 2
