"""Random windows of sequences of features, with the segments in them."""

from collections.abc import Mapping, Sequence
from random import Random

import torch


TRIALS = 200
Labels = dict[str, torch.Tensor]


def crop_sequence(
    features: torch.Tensor,
    labels: Mapping[str, torch.Tensor],
    start: int,
    length: int,
    min_inside: float = 0.5,
    offset: float = 0.0,
) -> tuple[torch.Tensor, Labels]:
    """
    A window of a sequence with the segments of which enough lies inside.

    Args:
        features (`torch.Tensor` of shape `(steps, feature_size)`):
            The sequence.
        labels (`Mapping[str, torch.Tensor]`):
            `segments` of shape `(num_segments, 2)` in steps and `class_labels`.
        start (`int`):
            First step of the window.
        length (`int`):
            Its steps.
        min_inside (`float`, *optional*, defaults to 0.5):
            Smallest share of a segment that lies inside.
        offset (`float`, *optional*, defaults to 0.0):
            Steps by which the features reach beyond the window's ends: half a window of the encoder.

    Returns:
        `tuple`: features of shape `(length, feature_size)`, and the segments cut at the ends, counted from `start`.
    """
    segments = labels["segments"]
    inside = segments.clamp(start - offset, start + length + offset)
    share = (inside[:, 1] - inside[:, 0]) / (segments[:, 1] - segments[:, 0])
    kept = share >= min_inside
    cropped = {"segments": inside[kept] - start, "class_labels": labels["class_labels"][kept]}
    return features[start : start + length], cropped


def random_window(
    features: torch.Tensor,
    labels: Labels,
    max_length: int,
    random: Random,
    *,
    min_inside: float = 0.5,
    offset: float = 0.0,
    crop_ratio: Sequence[float] | None = None,
) -> tuple[torch.Tensor, Labels]:
    """
    A random window of a sequence for training, drawn again until it holds a segment, up to 200 times. For a sequence
    without segments there is one draw. The draws are those of the official ActionFormer code.

    Args:
        features (`torch.Tensor` of shape `(steps, feature_size)`):
            The sequence.
        labels (`dict[str, torch.Tensor]`):
            `segments` of shape `(num_segments, 2)` in steps and `class_labels`.
        max_length (`int`):
            Longer sequences are cut to this many steps.
        random (`random.Random`):
            Source of the draws.
        min_inside (`float`, *optional*, defaults to 0.5):
            See [`crop_sequence`].
        offset (`float`, *optional*, defaults to 0.0):
            See [`crop_sequence`].
        crop_ratio (`Sequence[float]`, *optional*):
            Shorter sequences are cut to a random share between these two.

    Returns:
        `tuple`: features and labels.
    """
    steps, length = len(features), max_length
    if steps <= max_length:
        if crop_ratio is None:
            return features, labels
        low, high = crop_ratio
        length = random.randint(max(round(low * steps), 1), min(round(high * steps), steps))
        if length == steps:
            return features, labels
    for _ in range(TRIALS if len(labels["segments"]) else 1):
        start = random.randint(0, steps - length)
        window = crop_sequence(features, labels, start, length, min_inside, offset)
        if len(window[1]["segments"]):
            break
    return window


__all__ = ["crop_sequence", "random_window"]
