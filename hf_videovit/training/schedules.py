"""Learning rate as a function of the step: no state, so nothing to restore."""

import math


def cosine_with_warmup(step: int, total_steps: int, warmup_steps: int, peak: float, final: float) -> float:
    """
    Learning rate of a step: linear warm-up from 0, then half a cosine.

    As in the official code, the warm-up reaches the peak on its own last step, and the cosine starts at the peak and
    stops one step short of `final`. (timm's scheduler reaches the peak one step later.)

    Args:
        step (`int`):
            Optimiser step, from 0; steps beyond the last keep `final`.
        total_steps (`int`):
            Steps of the run.
        warmup_steps (`int`):
            Steps of the warm-up, included in `total_steps`.
        peak (`float`):
            Highest learning rate.
        final (`float`):
            Learning rate at the end.

    Returns:
        `float`: the learning rate.
    """
    if not 0 <= warmup_steps <= total_steps:
        raise ValueError(f"`warmup_steps` must be between 0 and `total_steps` ({total_steps}), got {warmup_steps}")
    if step < warmup_steps:
        return peak * step / (warmup_steps - 1) if warmup_steps > 1 else 0.0
    if step >= total_steps:
        return final
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return final + 0.5 * (peak - final) * (1 + math.cos(math.pi * progress))
