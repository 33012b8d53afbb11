"""What the families' configurations share."""

from difflib import get_close_matches
from typing import Any

from transformers import PreTrainedConfig
from transformers.utils import logging


logger = logging.get_logger(__name__)

VIEW_MERGINGS = ("softmax_mean", "logits_mean")


def refuse_misspelt_fields(config: PreTrainedConfig, unknown: dict[str, Any]) -> None:
    """
    The base class stores a misspelt field without a word; this one tells it from fields that other tools write.

    Args:
        config (`PreTrainedConfig`):
            The configuration under construction.
        unknown (`dict[str, Any]`):
            What it was given beyond its fields.

    Raises:
        ValueError: a name is close to that of a field. Read from a file, which another release may have written, it is
            only a warning.
    """
    for name in unknown:
        nearest = get_close_matches(name, config.__dataclass_fields__, n=1, cutoff=0.85)
        if nearest and not hasattr(type(config), name):
            message = f"`{name}` is not a field of the configuration. Did you mean `{nearest[0]}`?"
            if "model_type" not in unknown:
                raise ValueError(message)
            logger.warning(message)


__all__ = ["VIEW_MERGINGS", "refuse_misspelt_fields"]
