"""Checks and helpers that the configurations of all families share."""

from collections.abc import Sequence
from difflib import get_close_matches
from itertools import pairwise
from typing import Any

from transformers import PreTrainedConfig
from transformers.utils import logging


logger = logging.get_logger(__name__)

VIEW_MERGINGS = ("softmax_mean", "logits_mean")


def frame_size(image_size: int | Sequence[int]) -> tuple[int, int]:
    """
    Height and width of a frame.

    Args:
        image_size (`int` or `Sequence[int]`):
            A configuration's field: one number for a square, or height and width, in pixels.

    Returns:
        `tuple[int, int]`: height and width in pixels.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    return height, width


def refuse_misspelt_fields(config: PreTrainedConfig, unknown: dict[str, Any]) -> None:
    """
    Refuse misspelt fields. The base class stores them silently, together with the fields that other tools write.

    Args:
        config (`PreTrainedConfig`):
            The configuration under construction.
        unknown (`dict[str, Any]`):
            Arguments that are not fields.

    Raises:
        ValueError: a name is close to that of a field. For a configuration read from a file, which another release may
            have written, this is only a warning.
    """
    for name in unknown:
        nearest = get_close_matches(name, config.__dataclass_fields__, n=1, cutoff=0.85)
        if nearest and not hasattr(type(config), name):
            message = f"`{name}` is not a field of the configuration. Did you mean `{nearest[0]}`?"
            if "model_type" not in unknown:
                raise ValueError(message)
            logger.warning(message)


def validate_swin_stages(config: Any) -> None:
    """
    Check the fields that describe the stages of a Video Swin.

    Args:
        config (`PreTrainedConfig`):
            A configuration with `depths`, `hidden_sizes`, `num_attention_heads` and `intermediate_sizes`.

    Raises:
        ValueError: the lists differ in length, a value is not positive, a stage is not twice as wide as the one before
            it, or its heads do not divide its width.
    """
    names = ("depths", "hidden_sizes", "num_attention_heads", "intermediate_sizes")
    lists = {name: getattr(config, name) for name in names}
    for name, values in lists.items():
        if not isinstance(values, list | tuple) or len(values) != len(config.depths) or min(values, default=0) < 1:
            raise ValueError(f"`{name}` must have a positive int for each stage in `depths`, got {lists}.")
    for narrow, wide in pairwise(config.hidden_sizes):
        if wide != 2 * narrow:
            raise ValueError(f"`hidden_sizes` must double from stage to stage, got {list(config.hidden_sizes)}.")
    for width, heads in zip(config.hidden_sizes, config.num_attention_heads):
        if width % heads:
            raise ValueError(
                f"`num_attention_heads` must divide `hidden_sizes`, got {list(config.num_attention_heads)} and "
                f"{list(config.hidden_sizes)}."
            )


__all__ = ["VIEW_MERGINGS", "frame_size", "refuse_misspelt_fields", "validate_swin_stages"]
